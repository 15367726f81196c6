//! How much waits for each device: messages and their bytes, in counters that change in the batch
//! that adds or removes messages. So they are right after every crash, and nobody reads a queue to
//! know how long it is.
//!
//! A message counts where it waits: in the inbox of its device, or in the queue of the application
//! service that gets it instead. It counts with the bytes of its event as it is stored.

use kv::{Batch, Reader};

use crate::{
    config::EncryptionConfig,
    storage::schema::{
        encryption::{TO_DEVICE_COUNTS, TO_DEVICE_SIZES},
        users::DeviceKey,
    },
};

/// Messages and their size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::encryption) struct Queued {
    pub(in crate::encryption) messages: i64,
    pub(in crate::encryption) bytes: i64,
}

impl Queued {
    /// What waits for a device. `None`: no message came for it yet, or it has ended.
    pub(in crate::encryption) fn read(
        reader: &Reader<'_>,
        device: &DeviceKey,
    ) -> Result<Option<Self>, kv::Error> {
        let Some(messages) = reader.get(&TO_DEVICE_COUNTS, device)? else { return Ok(None) };
        let bytes = reader.get(&TO_DEVICE_SIZES, device)?.unwrap_or_default();
        Ok(Some(Self { messages, bytes }))
    }

    /// One message.
    pub(in crate::encryption) fn of(event: &[u8]) -> Self {
        let mut one = Self::default();
        one.count(event);
        one
    }

    /// This, but of neither more than in `other`.
    pub(in crate::encryption) fn at_most(self, other: Self) -> Self {
        Self { messages: self.messages.min(other.messages), bytes: self.bytes.min(other.bytes) }
    }

    /// One more message.
    pub(in crate::encryption) fn count(&mut self, event: &[u8]) {
        self.messages += 1;
        self.bytes += i64::try_from(event.len()).unwrap_or(i64::MAX);
    }

    /// Whether a message more is too much.
    pub(in crate::encryption) fn is_full(self, event: &[u8], config: &EncryptionConfig) -> bool {
        let mut with = self;
        with.count(event);
        let exceeds = |count, max| usize::try_from(count).is_ok_and(|count| count > max);
        exceeds(with.messages, config.waiting_messages_max)
            || exceeds(with.bytes, config.waiting_messages_size_bytes_max)
    }

    /// Adds to a batch that this waits for a device from now on.
    pub(in crate::encryption) fn add(self, batch: &mut Batch, device: &DeviceKey) {
        batch.add(&TO_DEVICE_COUNTS, device, self.messages);
        batch.add(&TO_DEVICE_SIZES, device, self.bytes);
    }

    /// Adds to a batch that this waits no more.
    pub(in crate::encryption) fn subtract(self, batch: &mut Batch, device: &DeviceKey) {
        Self { messages: -self.messages, bytes: -self.bytes }.add(batch, device);
    }

    /// Adds to a batch that a device ends.
    pub(in crate::encryption) fn forget(batch: &mut Batch, device: &DeviceKey) {
        batch.delete(&TO_DEVICE_COUNTS, device);
        batch.delete(&TO_DEVICE_SIZES, device);
    }
}

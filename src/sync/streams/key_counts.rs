//! How many keys wait for a device. Every answer tells it, also one without news: some clients take
//! a count that is missing for zero, and upload keys for ever. So it is remembered.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#one-time-and-fallback-keys>

use std::sync::Arc;

use kv::{Position, Store};
use quick_cache::sync::Cache;

use crate::{
    encryption::{KeyCounts, key_counts},
    error::ApiError,
    sync::connections::DeviceKey,
};

/// Devices whose counts are remembered.
const DEVICES_MAX: usize = 100_000;

/// The counts of devices and what they are true at.
pub(crate) struct KnownCounts(Cache<DeviceKey, (Position, Arc<KeyCounts>)>);

impl KnownCounts {
    /// No counts are known.
    pub(crate) fn new() -> Self {
        Self(Cache::new(DEVICES_MAX))
    }

    /// The counts of a device; `changed` is when those of the user's devices changed last. Reads only
    /// what is not known.
    pub(crate) async fn get(
        &self,
        store: &Store,
        device: &DeviceKey,
        changed: Position,
    ) -> Result<Arc<KeyCounts>, ApiError> {
        if let Some((at, counts)) = self.0.get(device)
            && at >= changed
        {
            return Ok(counts);
        }
        let (user_id, device_id) = device.clone();
        let read = store.read(move |reader| {
            Ok::<_, kv::Error>((reader.position(), key_counts(reader, &user_id, &device_id)?))
        });
        let (at, counts) = read.await?;
        let counts = Arc::new(counts);
        self.0.insert(device.clone(), (at, Arc::clone(&counts)));
        Ok(counts)
    }
}

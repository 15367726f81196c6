//! The messages that wait for a device: read in pages, and removed once its client has them.

use std::ops::{Bound, ControlFlow};

use kv::{Batch, CommitError, Direction, Durability, KeyRange, Position, Reader};
use serde_json::value::RawValue;

use crate::{
    encryption::{ATTEMPTS, Encryption, busy, to_device::Queued},
    error::ApiError,
    storage::schema::{
        encryption::{TO_DEVICE, ToDeviceKey},
        users::DeviceKey,
    },
};

/// The most messages of one answer.
pub const PAGE_MAX: usize = 100;
/// How large the messages of one answer may grow before no other is added.
const PAGE_BYTES: usize = 2 * 1024 * 1024;
/// The most rows that are removed at once.
const REMOVED_MAX: usize = 200;

/// Some messages, in the order in which they came.
#[derive(Debug, Default)]
pub struct Page {
    /// The messages.
    pub events: Vec<Box<RawValue>>,
    /// The position of the last one.
    pub last: Option<Position>,
    /// Whether more wait.
    pub has_more: bool,
}

/// At most `limit` of the messages for a device after one position (`None`: all there are), up to
/// another.
pub fn page(
    reader: &Reader<'_>,
    device: &DeviceKey,
    (after, until): (Option<Position>, Position),
    limit: usize,
) -> Result<Page, ApiError> {
    let mut page = Page::default();
    let after = after.unwrap_or_default();
    if after >= until || limit == 0 {
        return Ok(page);
    }
    let mut rows: Vec<Vec<u8>> = Vec::new();
    let mut size_bytes = 0;
    let range = between(device, after, until);
    reader.for_each(&TO_DEVICE, &range, Direction::Forward, |key, event| {
        if rows.len() >= limit || size_bytes > PAGE_BYTES {
            page.has_more = true;
            return ControlFlow::Break(());
        }
        size_bytes += event.len();
        rows.push(event);
        page.last = Some(key.position);
        ControlFlow::Continue(())
    })?;
    let events = rows.iter().map(|row| serde_json::from_slice(row).map_err(ApiError::internal));
    page.events = events.collect::<Result<_, ApiError>>()?;
    Ok(page)
}

/// The messages after one position, up to another.
fn between(device: &DeviceKey, after: Position, until: Position) -> KeyRange {
    let key = |position| (device.user_id.clone(), device.device_id.clone(), position);
    TO_DEVICE.range(Bound::Excluded(&key(after)), Bound::Included(&key(until)))
}

/// The first messages for a device.
#[derive(Default)]
struct First {
    /// The first one of them.
    row: Option<(ToDeviceKey, Vec<u8>)>,
    others: Vec<ToDeviceKey>,
    /// All of them.
    queued: Queued,
}

impl Encryption {
    /// Removes the messages for a device up to a position at which its client has them. Whoever else
    /// does the same at once removes, and counts, each of them once.
    pub async fn remove_messages(
        &self,
        device: &DeviceKey,
        until: Position,
    ) -> Result<(), ApiError> {
        let store = &self.0.store;
        let mut conflicts = 0;
        while conflicts < ATTEMPTS {
            let of_device = device.clone();
            let first = store.read(move |reader| first(reader, &of_device, until)).await?;
            let First { row: Some((key, event)), others, queued } = first else { return Ok(()) };
            let mut batch = Batch::new();
            // They are removed from the first one on: while it is there, so are the others.
            batch.check(&TO_DEVICE, &key, Some(&event));
            for key in others.iter().chain([&key]) {
                batch.delete(&TO_DEVICE, key);
            }
            queued.subtract(&mut batch, device);
            // What comes back after a power cut is removed the next time.
            match store.commit(batch, Durability::Buffered).await {
                Ok(_) => {}
                Err(CommitError::Conflict) => conflicts += 1,
                Err(error) => return Err(error.into()),
            }
        }
        Err(busy())
    }
}

fn first(reader: &Reader<'_>, device: &DeviceKey, until: Position) -> Result<First, kv::Error> {
    let mut found = First::default();
    if until == Position::ZERO {
        return Ok(found);
    }
    let range = between(device, Position::ZERO, until);
    reader.for_each(&TO_DEVICE, &range, Direction::Forward, |key, event| {
        found.queued.count(&event);
        if found.row.is_none() {
            found.row = Some((key, event));
        } else {
            found.others.push(key);
        }
        if found.others.len() + 1 < REMOVED_MAX {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })?;
    Ok(found)
}

//! Copies of other servers' files: what they come to, and which go when there are too many.
//!
//! Those go first that were read the longest ago, to the hour (that is how exactly reads are written
//! down). `remote_media_by_use` has them in this order and `remote_media_bytes` their sum, both
//! written with the rows of the files: so a fetch looks at as many files as it removes, and not at
//! all. What an administrator withholds is in neither, since it has to stay known.
//!
//! A fetch makes room before it reads and holds it until its file has a row. It removes a bounded
//! number of files, and leaves the rest to the worker.
//!
//! Attack case T110.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use kv::{Batch, Direction, Durability};
use tokio::sync::{Mutex, Notify};

use super::Media;
use crate::{
    error::ApiError,
    storage::{
        rows::media::{MediaKind, MediaRow},
        schema::media::{
            MEDIA_ACCESS, MediaKey, REMOTE_MEDIA_BY_USE, REMOTE_MEDIA_BYTES, RemoteUseKey,
        },
    },
    tasks::Stop,
};

/// How many files are removed in one step, and in how many steps for one fetch.
const STEP_FILES: usize = 50;
const STEPS_PER_FETCH: usize = 4;
/// When to come again where there is no room: the worker needs some time.
const RETRY_AFTER: Duration = Duration::from_mins(1);

/// What is on its way into the cache, and who makes room.
#[derive(Default)]
pub(super) struct Cache {
    /// What the fetches of this moment may come to, in bytes.
    coming: AtomicU64,
    /// One makes room at a time.
    removing: Mutex<()>,
    /// Tells the worker that there is not enough room.
    pub(super) crowded: Notify,
}

/// Room for a file that is being fetched; free again when it goes.
pub(super) struct Room {
    media: Media,
    bytes: u64,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.media.0.cache.coming.fetch_sub(self.bytes, Ordering::SeqCst);
    }
}

impl Media {
    /// Removes what is needed so that so many bytes more may come; `M_LIMIT_EXCEEDED` when that is
    /// not enough.
    pub(super) async fn make_room(&self, bytes: u64) -> Result<Room, ApiError> {
        let _one = self.0.cache.removing.lock().await;
        for _ in 0..STEPS_PER_FETCH {
            let lacking = self.lacking(bytes).await?;
            if lacking == 0 {
                self.0.cache.coming.fetch_add(bytes, Ordering::SeqCst);
                return Ok(Room { media: self.clone(), bytes });
            }
            if self.remove_unused(lacking).await? == 0 {
                break;
            }
        }
        self.0.cache.crowded.notify_one();
        let mut error = ApiError::limit_exceeded(RETRY_AFTER);
        error.message = "There is no room for files of other servers at the moment".into();
        Err(error)
    }

    /// Removes copies until they keep within the settings; how many.
    pub async fn shrink_cache(&self, stop: &Stop) -> Result<usize, ApiError> {
        let mut count = 0;
        while !stop.is_requested() {
            let _one = self.0.cache.removing.lock().await;
            let lacking = self.lacking(0).await?;
            if lacking == 0 {
                break;
            }
            let removed = self.remove_unused(lacking).await?;
            if removed == 0 {
                tracing::warn!(
                    bytes = lacking,
                    "the disk of the files is too full, and no copies of other servers' files are \
                     left to remove: none are fetched until there is room"
                );
                break;
            }
            count += removed;
        }
        if count > 0 {
            tracing::info!(count, "copies of other servers' files were removed to make room");
        }
        Ok(count)
    }

    /// The bytes that have to go so that so many more may come.
    async fn lacking(&self, more: u64) -> Result<u64, ApiError> {
        let config = &self.0.config;
        let coming = self.0.cache.coming.load(Ordering::SeqCst).saturating_add(more);
        let mut lacking = 0;
        if config.remote_cache_bytes_max > 0 {
            let kept = self.cached_bytes().await?.saturating_add(coming);
            lacking = kept.saturating_sub(config.remote_cache_bytes_max);
        }
        if config.remote_disk_free_percent_min > 0 {
            match self.0.files.disk().await {
                Ok(Some(disk)) => {
                    let share = u128::from(disk.size_bytes)
                        * u128::from(config.remote_disk_free_percent_min)
                        / 100;
                    let wanted = u64::try_from(share).unwrap_or(u64::MAX).saturating_add(coming);
                    lacking = lacking.max(wanted.saturating_sub(disk.free_bytes));
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "how full the disk is could not be read"),
            }
        }
        Ok(lacking)
    }

    /// What the copies come to that may be removed, in bytes, each counted by itself.
    pub async fn cached_bytes(&self) -> Result<u64, ApiError> {
        let sum = self.0.store.read(|reader| reader.get(&REMOTE_MEDIA_BYTES, &())).await?;
        Ok(sum.map_or(0, |sum| u64::try_from(sum).unwrap_or(0)))
    }

    /// Removes copies of together so many bytes, or one step's; those first that were read the
    /// longest ago. How many.
    async fn remove_unused(&self, bytes: u64) -> Result<usize, ApiError> {
        // What was read a moment ago is not unused.
        self.write_reads().await?;
        let range = REMOTE_MEDIA_BY_USE.prefix(&());
        let first = self.0.store.read(move |reader| {
            reader.scan(&REMOTE_MEDIA_BY_USE, &range, Direction::Forward, STEP_FILES)
        });
        let (mut count, mut freed) = (0, 0_u64);
        for (used, size_bytes) in first.await? {
            if freed >= bytes {
                break;
            }
            let key = MediaKey { origin: used.origin.clone(), media_id: used.media_id.clone() };
            if !self.delete(&key).await? {
                // Such a row has no file; it must not stand in the way of others.
                tracing::error!(?used, "a copy of another server's file is listed but not there");
                let mut batch = Batch::new();
                batch.delete(&REMOTE_MEDIA_BY_USE, &used);
                batch.add(&REMOTE_MEDIA_BYTES, &(), -size_bytes);
                self.0.store.commit(batch, Durability::Buffered).await?;
            }
            freed = freed.saturating_add(u64::try_from(size_bytes).unwrap_or(0));
            count += 1;
        }
        metrics::counter!("media_remote_removed_total").increment(count as u64);
        Ok(count)
    }
}

/// Whether a file is a copy that may be removed for others.
pub(super) fn is_cached(row: &MediaRow) -> bool {
    row.kind == MediaKind::Remote && row.blob.is_some() && row.quarantined_ts.is_none()
}

/// Lists a copy; nothing for other files.
pub(super) fn list(batch: &mut Batch, key: &MediaKey, row: &MediaRow, read: Option<i64>) {
    if is_cached(row) {
        let size_bytes = size(row);
        batch.put(&REMOTE_MEDIA_BY_USE, &use_key(key, row, read), &size_bytes);
        batch.add(&REMOTE_MEDIA_BYTES, &(), size_bytes);
    }
}

/// Takes a copy from the list, given when it was last read as `media_access` has it; the batch
/// checks that. Nothing for other files.
pub(super) fn unlist(batch: &mut Batch, key: &MediaKey, row: &MediaRow, read: Option<i64>) {
    if is_cached(row) {
        batch.check(&MEDIA_ACCESS, key, read.as_ref());
        batch.delete(&REMOTE_MEDIA_BY_USE, &use_key(key, row, read));
        batch.add(&REMOTE_MEDIA_BYTES, &(), -size(row));
    }
}

fn use_key(key: &MediaKey, row: &MediaRow, read: Option<i64>) -> RemoteUseKey {
    let read_ts = read.and_then(|ts| u64::try_from(ts).ok()).unwrap_or(0);
    RemoteUseKey {
        used_ts: read_ts.max(row.created_ts),
        origin: key.origin.clone(),
        media_id: key.media_id.clone(),
    }
}

fn size(row: &MediaRow) -> i64 {
    i64::try_from(row.size_bytes).unwrap_or(i64::MAX)
}

//! The worker: writes down what was read, and removes what is too old or, of copies of other
//! servers' files, too much (`cache.rs`).
//!
//! Each round looks at every file's row, a thousand at a time. That is proportional to the number of
//! files, but once an hour and in the background, so an index by age would cost more than it saves.

use std::{ops::Bound, time::Duration};

use kv::{Batch, CommitError, Direction, Durability, Json};

use super::{ATTEMPTS, Media, busy, cache, days};
use crate::{
    error::ApiError,
    storage::{
        rows::media::{MediaKind, MediaRow},
        schema::media::{
            MEDIA, MEDIA_ACCESS, MediaKey, PREVIEWS, PendingMediaKey, UNSETTLED_FILES,
        },
    },
    tasks::Stop,
};

/// How often reads are written down.
const NOTE_INTERVAL: Duration = Duration::from_mins(5);
/// After how many of these a round of removals comes.
const NOTES_PER_ROUND: u32 = 12;
/// A time of reading is written again only when it is so much later.
const READ_GRAIN_MS: u64 = 60 * 60 * 1_000;
/// How many rows are looked at in one step.
const STEP_ROWS: usize = 1_000;

impl Media {
    /// Works until it is told to stop.
    pub async fn work(self, mut stop: Stop) {
        for round in 1_u32.. {
            let interval = tokio::time::sleep(NOTE_INTERVAL);
            tokio::pin!(interval);
            // Once there is nothing left to remove, the next look is at the next round.
            let mut helps = true;
            loop {
                tokio::select! {
                    () = stop.requested() => break,
                    () = &mut interval => break,
                    () = self.0.cache.crowded.notified(), if helps => {
                        helps = self.try_to_shrink(&stop).await > 0;
                    }
                }
            }
            if stop.is_requested() {
                break;
            }
            if let Err(error) = self.write_reads().await {
                tracing::warn!(%error, "which files were read could not be written down");
            }
            self.try_to_shrink(&stop).await;
            if round % NOTES_PER_ROUND == 0
                && let Err(error) = self.remove_old(&stop).await
            {
                tracing::warn!(%error, "old files could not be removed; the next round tries");
            }
        }
        if let Err(error) = self.write_reads().await {
            tracing::warn!(%error, "which files were read could not be written down");
        }
    }

    /// How many copies of other servers' files were removed to make room.
    async fn try_to_shrink(&self, stop: &Stop) -> usize {
        self.shrink_cache(stop).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "copies of other servers' files could not be removed");
            0
        })
    }

    /// Writes down what was read since the last time.
    pub async fn write_reads(&self) -> Result<(), ApiError> {
        let read = std::mem::take(&mut *self.0.read.lock());
        let read: Vec<(MediaKey, u64)> = read.into_iter().collect();
        for chunk in read.chunks(STEP_ROWS) {
            self.write_some_reads(chunk).await?;
        }
        Ok(())
    }

    async fn write_some_reads(&self, read: &[(MediaKey, u64)]) -> Result<(), ApiError> {
        for _ in 0..ATTEMPTS {
            let keys: Vec<MediaKey> = read.iter().map(|(key, _)| key.clone()).collect();
            let before = self.0.store.read(move |reader| {
                let rows = reader.get_many(&MEDIA, &keys)?;
                let read = reader.get_many(&MEDIA_ACCESS, &keys)?;
                Ok::<_, ApiError>(rows.into_iter().zip(read).collect::<Vec<_>>())
            });
            let mut batch = Batch::new();
            for ((key, ts), (row, old)) in read.iter().zip(before.await?) {
                let Some(row) = row else { continue };
                let old_ts = old.and_then(|old| u64::try_from(old).ok()).unwrap_or(0);
                if *ts < old_ts.saturating_add(READ_GRAIN_MS) {
                    continue;
                }
                let new = i64::try_from(*ts).unwrap_or(i64::MAX);
                if row.0.kind == MediaKind::Remote {
                    cache::unlist(&mut batch, key, &row.0, old);
                    cache::list(&mut batch, key, &row.0, Some(new));
                    batch.check(&MEDIA, key, Some(&row));
                }
                batch.put(&MEDIA_ACCESS, key, &new);
            }
            if batch.is_empty() {
                return Ok(());
            }
            match self.0.store.commit(batch, Durability::Buffered).await {
                Ok(_) => return Ok(()),
                // A copy of another server's file went or was withheld in the meantime.
                Err(CommitError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(busy())
    }

    /// Removes every file that is older than the settings keep it, promises that were not held, and
    /// old previews; how many files.
    pub async fn remove_old(&self, stop: &Stop) -> Result<usize, ApiError> {
        self.write_reads().await?;
        self.remove_previews().await?;
        let mut last: Option<MediaKey> = None;
        let mut count = 0;
        loop {
            let after = last.clone();
            let rows = self.0.store.read(move |reader| {
                let start = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
                let range = MEDIA.range(start, Bound::<&()>::Unbounded);
                let rows = reader.scan(&MEDIA, &range, Direction::Forward, STEP_ROWS)?;
                let keys: Vec<MediaKey> = rows.iter().map(|(key, _)| key.clone()).collect();
                let read = reader.get_many(&MEDIA_ACCESS, &keys)?;
                Ok::<_, ApiError>(rows.into_iter().zip(read).collect::<Vec<_>>())
            });
            let rows = rows.await?;
            let Some(((key, _), _)) = rows.last() else { break };
            last = Some(key.clone());
            for ((key, Json(row)), read) in rows {
                if stop.is_requested() {
                    return Ok(count);
                }
                let read = read.and_then(|ts| u64::try_from(ts).ok());
                if self.is_old(&row, read) {
                    // One that cannot be removed must not keep the others.
                    match self.remove_one(&key, &row).await {
                        Ok(removed) => count += usize::from(removed),
                        Err(error) => {
                            tracing::warn!(%error, "an old file could not be removed");
                        }
                    }
                }
            }
        }
        if count > 0 {
            tracing::info!(count, "old files were removed");
        }
        Ok(count)
    }

    async fn remove_one(&self, key: &MediaKey, row: &MediaRow) -> Result<bool, ApiError> {
        let (None, Some(user_id)) = (row.blob, &row.uploader) else {
            return self.delete(key).await;
        };
        let mut batch = Batch::new();
        let (user_id, media_id) = (user_id.to_string(), key.media_id.clone());
        self.forget_promise(&mut batch, &PendingMediaKey { user_id, media_id }).await?;
        self.commit(batch).await
    }

    fn is_old(&self, row: &MediaRow, read: Option<u64>) -> bool {
        let now = self.now_ms();
        if row.kind == MediaKind::Remote && row.quarantined_ts.is_some() {
            // Were it forgotten, it would be fetched again.
            return false;
        }
        if row.blob.is_none() {
            return row.expires_ts.is_none_or(|expires_ts| expires_ts <= now);
        }
        let config = &self.0.config;
        let (kept, unused) = match row.kind {
            MediaKind::Local => (days(config.local_kept_days), days(config.local_unused_days)),
            MediaKind::Remote => (days(config.remote_kept_days), days(config.remote_unused_days)),
            MediaKind::Preview => (self.0.preview_images_kept, Duration::ZERO),
        };
        let is_past = |since: u64, age: Duration| {
            !age.is_zero() && u128::from(now.saturating_sub(since)) > age.as_millis()
        };
        let used_ts = read.unwrap_or(0).max(row.created_ts);
        is_past(row.created_ts, kept) || is_past(used_ts, unused)
    }

    /// Previews are good for an hour or so; their rows need not stay.
    async fn remove_previews(&self) -> Result<(), ApiError> {
        let before = self.now_ms().saturating_sub(self.0.previews.lifetime_ms());
        let mut last: Option<[u8; 32]> = None;
        loop {
            let after = last;
            let rows = self.0.store.read(move |reader| {
                let start = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
                let range = PREVIEWS.range(start, Bound::<&()>::Unbounded);
                reader.scan(&PREVIEWS, &range, Direction::Forward, STEP_ROWS / 10)
            });
            let rows = rows.await?;
            let Some((key, _)) = rows.last() else { return Ok(()) };
            last = Some(*key);
            let mut batch = Batch::new();
            for (key, Json(row)) in rows {
                if row.created_ts < before {
                    batch.delete(&PREVIEWS, &key);
                }
            }
            if !batch.is_empty() {
                self.0.store.commit(batch, Durability::Buffered).await?;
            }
        }
    }

    /// Removes files of the store that no row names: what a crash left, and what could not be
    /// removed when it was to.
    pub async fn tidy(&self) -> Result<usize, ApiError> {
        let mut last: Option<String> = None;
        let mut count = 0;
        loop {
            let after = last.clone();
            let files = self.0.store.read(move |reader| {
                let start = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
                let range = UNSETTLED_FILES.range(start, Bound::<&()>::Unbounded);
                reader.scan(&UNSETTLED_FILES, &range, Direction::Forward, STEP_ROWS)
            });
            let files: Vec<String> = files.await?.into_iter().map(|(file, ())| file).collect();
            let Some(end) = files.last() else { return Ok(count) };
            last = Some(end.clone());
            let is_idle = |file: &String| !self.0.busy_files.lock().contains(file);
            let idle: Vec<String> = files.into_iter().filter(is_idle).collect();
            count += idle.len();
            self.discard(idle).await;
        }
    }
}

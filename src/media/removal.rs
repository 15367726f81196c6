//! Removing and withholding files: for administrators, for users who are erased, and for retention.
//!
//! A content goes with the last file that is it, and its thumbnails with it. The rows go first, in
//! one batch that notes the files of the store as unsettled; then the files.

use std::ops::Bound;

use kv::{Batch, Direction, Json};
use ruma::UserId;

use super::{ATTEMPTS, Media, busy, cache};
use crate::{
    error::ApiError,
    storage::{
        rows::media::{BlobRow, MediaKind, MediaRow, MediaUsageRow, ThumbnailRow},
        schema::media::{
            BLOBS, MEDIA, MEDIA_ACCESS, MEDIA_USAGE, MediaKey, PENDING_MEDIA, PendingMediaKey,
            THUMBNAILS, ThumbnailKey, UNSETTLED_FILES, USER_MEDIA, UserMediaKey,
        },
    },
};

/// How many thumbnails of a content are removed at once.
const THUMBNAILS_MAX: usize = 1_000;

/// A file of a user.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its name.
    pub key: MediaKey,
    /// What is known of it.
    pub row: MediaRow,
}

/// All that a removal touches.
struct Before {
    row: MediaRow,
    blob: Option<([u8; 32], BlobRow)>,
    thumbnails: Vec<(ThumbnailKey, ThumbnailRow)>,
    usage: Option<MediaUsageRow>,
    /// When it was last read, as far as that is written down.
    read: Option<i64>,
}

impl Media {
    /// Removes a file; whether there was one.
    pub async fn delete(&self, key: &MediaKey) -> Result<bool, ApiError> {
        for _ in 0..ATTEMPTS {
            let Some(mut before) = self.before_removal(key).await? else { return Ok(false) };
            while before.thumbnails.len() == THUMBNAILS_MAX {
                self.remove_thumbnails(before.thumbnails).await?;
                let Some(now) = self.before_removal(key).await? else { return Ok(false) };
                before = now;
            }
            let mut batch = Batch::new();
            let mut files = Vec::new();
            remove_rows(&mut batch, key, &before);
            if let Some((hash, blob)) = before.blob {
                batch.check(&BLOBS, &hash, Some(&Json(blob.clone())));
                if blob.uses > 1 {
                    let uses = blob.uses - 1;
                    batch.put(&BLOBS, &hash, &Json(BlobRow { uses, ..blob }));
                } else {
                    batch.delete(&BLOBS, &hash);
                    files.push(blob.file);
                    for (key, row) in before.thumbnails {
                        batch.delete(&THUMBNAILS, &key);
                        files.extend(row.file);
                    }
                }
            }
            for file in &files {
                batch.put(&UNSETTLED_FILES, file, &());
            }
            if self.commit(batch).await? {
                self.discard(files).await;
                return Ok(true);
            }
        }
        Err(busy())
    }

    /// Removes thumbnails alone: they can be made again.
    async fn remove_thumbnails(
        &self,
        thumbnails: Vec<(ThumbnailKey, ThumbnailRow)>,
    ) -> Result<(), ApiError> {
        let (mut batch, mut files) = (Batch::new(), Vec::new());
        for (key, row) in thumbnails {
            batch.delete(&THUMBNAILS, &key);
            if let Some(file) = row.file {
                batch.put(&UNSETTLED_FILES, &file, &());
                files.push(file);
            }
        }
        self.commit(batch).await?;
        self.discard(files).await;
        Ok(())
    }

    async fn before_removal(&self, key: &MediaKey) -> Result<Option<Before>, ApiError> {
        let key = key.clone();
        self.0
            .store
            .read(move |reader| {
                let Some(Json(row)) = reader.get(&MEDIA, &key)? else { return Ok(None) };
                let blob = match row.blob {
                    Some(hash) => reader.get(&BLOBS, &hash)?.map(|Json(blob)| (hash, blob)),
                    None => None,
                };
                let mut thumbnails = Vec::new();
                if let Some((hash, BlobRow { uses: 0 | 1, .. })) = &blob {
                    let range = THUMBNAILS.prefix(hash);
                    let rows =
                        reader.scan(&THUMBNAILS, &range, Direction::Forward, THUMBNAILS_MAX)?;
                    thumbnails = rows.into_iter().map(|(key, Json(row))| (key, row)).collect();
                }
                let usage = match &row.uploader {
                    Some(user_id) => reader.get(&MEDIA_USAGE, &user_id.to_string())?,
                    None => None,
                };
                let usage = usage.map(|Json(usage)| usage);
                let read = reader.get(&MEDIA_ACCESS, &key)?;
                Ok(Some(Before { row, blob, thumbnails, usage, read }))
            })
            .await
    }

    /// Withholds a file from everybody, or gives it again; whether there is one. One of another
    /// server need not be here to be withheld, and is not fetched as long as it is.
    pub async fn quarantine(&self, key: &MediaKey, is_withheld: bool) -> Result<bool, ApiError> {
        for _ in 0..ATTEMPTS {
            let wanted = key.clone();
            let (old, read) = self
                .0
                .store
                .read(move |reader| {
                    let read = reader.get(&MEDIA_ACCESS, &wanted)?;
                    Ok::<_, ApiError>((reader.get(&MEDIA, &wanted)?.map(|Json(row)| row), read))
                })
                .await?;
            let now = self.now_ms();
            let mut batch = Batch::new();
            batch.check(&MEDIA, key, old.clone().map(Json).as_ref());
            batch.check(&MEDIA_ACCESS, key, read.as_ref());
            let new = match &old {
                Some(old) => {
                    cache::unlist(&mut batch, key, old, read);
                    let since = old.quarantined_ts.or(Some(now)).filter(|_| is_withheld);
                    MediaRow { quarantined_ts: since, ..old.clone() }
                }
                None if is_withheld && !self.is_own(&key.origin) => unknown_withheld(now),
                None => return Ok(false),
            };
            if new.kind == MediaKind::Remote && new.blob.is_none() && !is_withheld {
                batch.delete(&MEDIA, key);
            } else {
                cache::list(&mut batch, key, &new, read);
                batch.put(&MEDIA, key, &Json(new));
            }
            if self.commit(batch).await? {
                return Ok(true);
            }
        }
        Err(busy())
    }

    /// At most `limit` files of a user after one of them (or from the beginning), oldest first.
    pub async fn list_of_user(
        &self,
        user_id: &UserId,
        after: Option<&Listed>,
        limit: usize,
    ) -> Result<Vec<Listed>, ApiError> {
        let user = user_id.to_string();
        let origin = self.0.server_name.to_string();
        let after = after.map(|listed| UserMediaKey {
            user_id: user.clone(),
            created_ts: listed.row.created_ts,
            media_id: listed.key.media_id.clone(),
        });
        self.0
            .store
            .read(move |reader| {
                let start = match &after {
                    Some(key) => Bound::Excluded(key),
                    None => Bound::Unbounded,
                };
                let mut range = USER_MEDIA.range(start, Bound::Included(&user));
                if after.is_none() {
                    range = USER_MEDIA.prefix(&user);
                }
                let keys = reader.scan(&USER_MEDIA, &range, Direction::Forward, limit)?;
                let keys: Vec<MediaKey> = keys
                    .into_iter()
                    .map(|(key, ())| MediaKey { origin: origin.clone(), media_id: key.media_id })
                    .collect();
                let rows = reader.get_many(&MEDIA, &keys)?;
                let listed = keys.into_iter().zip(rows);
                Ok::<_, ApiError>(
                    listed.filter_map(|(key, row)| Some(Listed { key, row: row?.0 })).collect(),
                )
            })
            .await
    }

    /// Removes all files of a user, as when they are erased; how many there were.
    pub async fn delete_of_user(&self, user_id: &UserId) -> Result<usize, ApiError> {
        let mut count = 0;
        loop {
            let page = self.list_of_user(user_id, None, 100).await?;
            if page.is_empty() {
                return Ok(count);
            }
            for listed in page {
                count += usize::from(self.delete(&listed.key).await?);
            }
        }
    }

    /// What a user's files come to.
    pub async fn usage(&self, user_id: &UserId) -> Result<MediaUsageRow, ApiError> {
        let user = user_id.to_string();
        let usage = self.0.store.read(move |reader| reader.get(&MEDIA_USAGE, &user)).await?;
        Ok(usage.map(|Json(usage)| usage).unwrap_or_default())
    }
}

/// The row of a file of another server that is withheld without ever having been here.
fn unknown_withheld(now: u64) -> MediaRow {
    MediaRow {
        kind: MediaKind::Remote,
        created_ts: now,
        uploader: None,
        blob: None,
        size_bytes: 0,
        content_type: None,
        filename: None,
        expires_ts: None,
        quarantined_ts: Some(now),
    }
}

/// The rows by which a file is named.
fn remove_rows(batch: &mut Batch, key: &MediaKey, before: &Before) {
    batch.check(&MEDIA, key, Some(&Json(before.row.clone())));
    batch.delete(&MEDIA, key);
    cache::unlist(batch, key, &before.row, before.read);
    batch.delete(&MEDIA_ACCESS, key);
    let Some(uploader) = &before.row.uploader else { return };
    let (user_id, media_id) = (uploader.to_string(), key.media_id.clone());
    let pending = PendingMediaKey { user_id: user_id.clone(), media_id: media_id.clone() };
    batch.delete(&PENDING_MEDIA, &pending);
    if before.row.blob.is_none() {
        return;
    }
    let created_ts = before.row.created_ts;
    batch.delete(&USER_MEDIA, &UserMediaKey { user_id: user_id.clone(), created_ts, media_id });
    let old = before.usage.clone();
    batch.check(&MEDIA_USAGE, &user_id, old.clone().map(Json).as_ref());
    let old = old.unwrap_or_default();
    let new = MediaUsageRow {
        files: old.files.saturating_sub(1),
        bytes: old.bytes.saturating_sub(before.row.size_bytes),
        revision: old.revision + 1,
    };
    batch.put(&MEDIA_USAGE, &user_id, &Json(new));
}

//! Uploads, at once or to an address that was given out before.
//!
//! The content is written first, under a name that is noted in `unsettled_files`; then one batch
//! names it and takes the note away. A content that is there already is used again.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixmediav3upload>

use std::{collections::hash_map::Entry, time::Duration};

use bytes::Bytes;
use futures::Stream;
use http::StatusCode;
use kv::{Batch, Direction, Durability, Json};
use ruma::{OwnedUserId, UserId};

use super::{
    ATTEMPTS, Media, arrival, busy, cache,
    files::{Written, random_name, too_large},
};
use crate::{
    error::ApiError,
    storage::{
        rows::media::{BlobRow, MediaKind, MediaRow, MediaUsageRow},
        schema::media::{
            BLOBS, MEDIA, MEDIA_USAGE, MediaKey, PENDING_MEDIA, PendingMediaKey, UNSETTLED_FILES,
            USER_MEDIA, UserMediaKey,
        },
    },
};

/// The longest content type and the longest file name that are kept, in bytes.
const TEXT_BYTES_MAX: usize = 255;

/// A file that is to be stored.
#[derive(Clone, Debug)]
pub struct NewMedia {
    /// What it is to this server.
    pub kind: MediaKind,
    /// Who uploads it.
    pub uploader: Option<OwnedUserId>,
    /// What it claims to be.
    pub content_type: Option<String>,
    /// What it is called.
    pub filename: Option<String>,
    /// How large it is, as far as that is known.
    pub announced_bytes: Option<u64>,
}

/// An address that waits for its file.
#[derive(Clone, Debug)]
pub struct Promised {
    /// The address.
    pub key: MediaKey,
    /// Until when it waits, in milliseconds.
    pub expires_ts: u64,
}

/// What a row is written over.
#[derive(Clone, Debug)]
pub(super) enum Over {
    Nothing,
    Promise(MediaRow),
}

impl Media {
    /// Stores a file under a new address.
    pub async fn upload(
        &self,
        new: NewMedia,
        body: impl Stream<Item = Result<Bytes, ApiError>> + Send + Unpin,
    ) -> Result<MediaKey, ApiError> {
        let key = self.new_key();
        self.receive(&key, new, body, Over::Nothing).await?;
        Ok(key)
    }

    /// Stores the file that an address waits for.
    pub async fn upload_to(
        &self,
        key: &MediaKey,
        new: NewMedia,
        body: impl Stream<Item = Result<Bytes, ApiError>> + Send + Unpin,
    ) -> Result<(), ApiError> {
        let row = self.row(key).await?.filter(|row| row.kind == MediaKind::Local);
        let row = row.ok_or_else(unknown)?;
        if row.uploader != new.uploader {
            return Err(ApiError::forbidden("This address was given to another user"));
        }
        if row.blob.is_some() {
            return Err(overwrites());
        }
        if row.expires_ts.is_some_and(|expires_ts| expires_ts <= self.now_ms()) {
            return Err(unknown());
        }
        self.receive(key, new, body, Over::Promise(row)).await
    }

    /// Gives out an address for a file that is uploaded later.
    pub async fn promise(&self, user_id: &UserId) -> Result<Promised, ApiError> {
        for _ in 0..ATTEMPTS {
            let now = self.now_ms();
            let user = user_id.to_string();
            let range = PENDING_MEDIA.prefix(&user);
            // More are never there at once, save when the setting was lowered.
            let limit = self.0.config.pending_uploads_max.saturating_add(1_000);
            let (pending, usage) = self
                .0
                .store
                .read({
                    let user = user.clone();
                    move |reader| {
                        let pending =
                            reader.scan(&PENDING_MEDIA, &range, Direction::Forward, limit)?;
                        Ok::<_, ApiError>((pending, reader.get(&MEDIA_USAGE, &user)?))
                    }
                })
                .await?;
            let mut batch = Batch::new();
            let mut waiting: Vec<u64> = Vec::new();
            for (key, expires_ts) in pending {
                let expires_ts = u64::try_from(expires_ts).unwrap_or_default();
                if expires_ts > now {
                    waiting.push(expires_ts);
                    continue;
                }
                self.forget_promise(&mut batch, &key).await?;
            }
            if waiting.len() >= self.0.config.pending_uploads_max {
                let soonest = waiting.iter().min().map_or(0, |ts| ts - now);
                return Err(ApiError::limit_exceeded(Duration::from_millis(soonest)));
            }
            let old = usage.map(|Json(usage)| usage);
            self.check_quota(user_id, old.as_ref(), 0, 1)?;
            let key = self.new_key();
            let expires_ts = now.saturating_add(self.0.config.pending_upload_lifetime_ms);
            let pending = PendingMediaKey { user_id: user, media_id: key.media_id.clone() };
            batch.put(&PENDING_MEDIA, &pending, &i64::try_from(expires_ts).unwrap_or(i64::MAX));
            let row = MediaRow {
                kind: MediaKind::Local,
                created_ts: now,
                uploader: Some(user_id.to_owned()),
                blob: None,
                size_bytes: 0,
                content_type: None,
                filename: None,
                expires_ts: Some(expires_ts),
                quarantined_ts: None,
            };
            batch.check_absent(&MEDIA, &key);
            batch.put(&MEDIA, &key, &Json(row));
            // Rewritten although nothing was added: two at once must not both find room.
            put_usage(&mut batch, user_id, old, (0, 0));
            if self.commit(batch).await? {
                return Ok(Promised { key, expires_ts });
            }
        }
        Err(busy())
    }

    /// Removes an address that was never used; what came in the meantime stays.
    pub(super) async fn forget_promise(
        &self,
        batch: &mut Batch,
        pending: &PendingMediaKey,
    ) -> Result<(), ApiError> {
        let key =
            MediaKey { origin: self.0.server_name.to_string(), media_id: pending.media_id.clone() };
        batch.delete(&PENDING_MEDIA, pending);
        if let Some(row) = self.row(&key).await?
            && row.blob.is_none()
        {
            batch.check(&MEDIA, &key, Some(&Json(row)));
            batch.delete(&MEDIA, &key);
        }
        Ok(())
    }

    /// Writes the content, then the rows.
    pub(super) async fn receive(
        &self,
        key: &MediaKey,
        new: NewMedia,
        mut body: impl Stream<Item = Result<Bytes, ApiError>> + Send + Unpin,
        over: Over,
    ) -> Result<(), ApiError> {
        let bytes_max = match new.kind {
            MediaKind::Remote => self.0.config.remote_size_bytes_max,
            MediaKind::Local | MediaKind::Preview => self.0.config.upload_size_bytes_max,
        };
        if new.announced_bytes.is_some_and(|bytes| bytes > bytes_max) {
            return Err(too_large(bytes_max));
        }
        let _reserved = match &new.uploader {
            Some(user_id) => Some(self.reserve(user_id, new.announced_bytes.unwrap_or(0)).await?),
            None => None,
        };
        let file = self.begin_file().await?;
        let stored = async {
            let written = self.0.files.write(&file, &mut body, bytes_max).await?;
            self.settle(key, &new, &over, (&file, written)).await
        };
        match stored.await {
            Ok(true) => {
                self.0.busy_files.lock().remove(&file);
                Ok(())
            }
            // The content was there before: this copy of it is not needed.
            Ok(false) => {
                self.discard(vec![file]).await;
                Ok(())
            }
            Err(error) => {
                self.discard(vec![file]).await;
                Err(error)
            }
        }
    }

    /// Notes that a file is going to be written, and gives its name.
    pub(super) async fn begin_file(&self) -> Result<String, ApiError> {
        let file = random_name();
        self.0.busy_files.lock().insert(file.clone());
        let mut batch = Batch::new();
        batch.put(&UNSETTLED_FILES, &file, &());
        // A note that is lost with the power costs the room of one file, not its truth.
        self.0.store.commit(batch, Durability::Buffered).await.map_err(|error| {
            self.0.busy_files.lock().remove(&file);
            ApiError::from(error)
        })?;
        Ok(file)
    }

    /// Names the content; whether it is this file that is used for it.
    async fn settle(
        &self,
        key: &MediaKey,
        new: &NewMedia,
        over: &Over,
        (file, written): (&str, Written),
    ) -> Result<bool, ApiError> {
        for _ in 0..ATTEMPTS {
            let hash = written.hash;
            let user = new.uploader.as_ref().map(ToString::to_string);
            let (blob, usage) = self
                .0
                .store
                .read(move |reader| {
                    let usage = match &user {
                        Some(user) => reader.get(&MEDIA_USAGE, user)?,
                        None => None,
                    };
                    Ok::<_, ApiError>((reader.get(&BLOBS, &hash)?, usage))
                })
                .await?;
            let blob = blob.map(|Json(blob)| blob);
            let mut batch = Batch::new();
            let is_used = self.use_blob(&mut batch, blob, (file, written)).await?;
            self.put_media(&mut batch, key, new, (over, written));
            if let Some(user_id) = &new.uploader {
                let old = usage.map(|Json(usage)| usage);
                self.check_quota(user_id, old.as_ref(), written.size_bytes, 1)?;
                put_usage(&mut batch, user_id, old, (1, written.size_bytes));
            }
            batch.touch(arrival(key));
            if self.commit(batch).await? {
                return Ok(is_used);
            }
            let now = self.row(key).await?;
            let is_taken = match over {
                Over::Nothing => now.is_some(),
                Over::Promise(_) => now.is_none_or(|row| row.blob.is_some()),
            };
            if is_taken {
                return Err(overwrites());
            }
        }
        Err(busy())
    }

    /// Counts one use more of a content, or makes its row.
    async fn use_blob(
        &self,
        batch: &mut Batch,
        old: Option<BlobRow>,
        (file, written): (&str, Written),
    ) -> Result<bool, ApiError> {
        let hash = written.hash;
        let Some(old) = old else {
            let row = BlobRow { file: file.to_owned(), size_bytes: written.size_bytes, uses: 1 };
            batch.check_absent(&BLOBS, &hash);
            batch.put(&BLOBS, &hash, &Json(row));
            batch.delete(&UNSETTLED_FILES, &file.to_owned());
            return Ok(true);
        };
        // Somebody may have lost the file; then the new one takes its place.
        let is_lost = !self.0.files.contains(&old.file).await?;
        let mut new = BlobRow { uses: old.uses + 1, ..old.clone() };
        if is_lost {
            file.clone_into(&mut new.file);
            batch.delete(&UNSETTLED_FILES, &file.to_owned());
        }
        batch.check(&BLOBS, &hash, Some(&Json(old)));
        batch.put(&BLOBS, &hash, &Json(new));
        Ok(is_lost)
    }

    fn put_media(
        &self,
        batch: &mut Batch,
        key: &MediaKey,
        new: &NewMedia,
        (over, written): (&Over, Written),
    ) {
        let created_ts = self.now_ms();
        let row = MediaRow {
            kind: new.kind,
            created_ts,
            uploader: new.uploader.clone(),
            blob: Some(written.hash),
            size_bytes: written.size_bytes,
            content_type: new.content_type.as_deref().and_then(kept_type),
            filename: new.filename.as_deref().and_then(kept_name),
            expires_ts: None,
            quarantined_ts: None,
        };
        match over {
            Over::Nothing => batch.check_absent(&MEDIA, key),
            Over::Promise(old) => batch.check(&MEDIA, key, Some(&Json(old.clone()))),
        }
        cache::list(batch, key, &row, None);
        batch.put(&MEDIA, key, &Json(row));
        if let Some(user_id) = &new.uploader {
            let (user_id, media_id) = (user_id.to_string(), key.media_id.clone());
            let pending = PendingMediaKey { user_id: user_id.clone(), media_id: media_id.clone() };
            batch.delete(&PENDING_MEDIA, &pending);
            batch.put(&USER_MEDIA, &UserMediaKey { user_id, created_ts, media_id }, &());
        }
    }

    /// Refuses what would exceed a user's limits, counting what they upload at the moment.
    async fn reserve(&self, user_id: &OwnedUserId, bytes: u64) -> Result<Reserved<'_>, ApiError> {
        let user = user_id.to_string();
        let usage = self.0.store.read(move |reader| reader.get(&MEDIA_USAGE, &user)).await?;
        let usage = usage.map(|Json(usage)| usage);
        let mut uploading = self.0.uploading.lock();
        let others = uploading.get(user_id).copied().unwrap_or(0);
        self.check_quota(user_id, usage.as_ref(), others.saturating_add(bytes), 1)?;
        *uploading.entry(user_id.clone()).or_default() += bytes;
        Ok(Reserved { media: self, user_id: user_id.clone(), bytes })
    }

    fn check_quota(
        &self,
        user_id: &UserId,
        usage: Option<&MediaUsageRow>,
        more_bytes: u64,
        more_files: u64,
    ) -> Result<(), ApiError> {
        let (bytes, files) = usage.map_or((0, 0), |usage| (usage.bytes, usage.files));
        let config = &self.0.config;
        let exceeds =
            |have: u64, more: u64, most: u64| most > 0 && have.saturating_add(more) > most;
        if !exceeds(bytes, more_bytes, config.user_bytes_max)
            && !exceeds(files, more_files, config.user_files_max)
        {
            return Ok(());
        }
        tracing::info!(%user_id, bytes, files, "a user's limit for files is reached");
        let text = "You have no room left for this file";
        Err(match &config.limits_info_url {
            Some(url) => ApiError::new(StatusCode::FORBIDDEN, "M_USER_LIMIT_EXCEEDED", text)
                .with("info_uri", url.as_str().into()),
            None => ApiError::forbidden(text),
        })
    }
}

/// Takes back what was reserved.
struct Reserved<'a> {
    media: &'a Media,
    user_id: OwnedUserId,
    bytes: u64,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let mut uploading = self.media.0.uploading.lock();
        if let Entry::Occupied(mut entry) = uploading.entry(self.user_id.clone()) {
            *entry.get_mut() = entry.get().saturating_sub(self.bytes);
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

/// Adds to what a user's files come to.
fn put_usage(
    batch: &mut Batch,
    user_id: &UserId,
    old: Option<MediaUsageRow>,
    (files, bytes): (u64, u64),
) {
    let key = user_id.to_string();
    let was = old.clone().unwrap_or_default();
    let new = MediaUsageRow {
        files: was.files.saturating_add(files),
        bytes: was.bytes.saturating_add(bytes),
        revision: was.revision + 1,
    };
    batch.check(&MEDIA_USAGE, &key, old.map(Json).as_ref());
    batch.put(&MEDIA_USAGE, &key, &Json(new));
}

/// A content type that can stand in a header again.
fn kept_type(text: &str) -> Option<String> {
    let text = text.trim();
    let fits = !text.is_empty()
        && text.len() <= TEXT_BYTES_MAX
        && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        && text.contains('/');
    fits.then(|| text.to_owned())
}

/// A file name without what could mean something else: control characters and changes of the
/// direction of writing.
fn kept_name(text: &str) -> Option<String> {
    let harmless = |character: &char| {
        let turns = matches!(character,
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        !character.is_control() && !turns
    };
    let mut name: String = text.chars().filter(harmless).collect();
    name.truncate(name.floor_char_boundary(TEXT_BYTES_MAX));
    (!name.is_empty()).then_some(name)
}

fn unknown() -> ApiError {
    ApiError::not_found("No file is awaited at this address")
}

fn overwrites() -> ApiError {
    ApiError::new(
        StatusCode::CONFLICT,
        "M_CANNOT_OVERWRITE_MEDIA",
        "There is a file at this address already",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t106_names_lose_what_could_deceive() {
        assert_eq!(kept_name("a\r\nSet-Cookie: b\0.txt").as_deref(), Some("aSet-Cookie: b.txt"));
        assert_eq!(kept_name("photo\u{202e}gpj.exe").as_deref(), Some("photogpj.exe"));
        assert_eq!(kept_name("\r\n"), None);
        assert_eq!(kept_name(&"é".repeat(300)).unwrap().len(), 254);
    }

    #[test]
    fn t107_types_fit_in_a_header() {
        assert_eq!(kept_type("TEXT/HTML;x").as_deref(), Some("TEXT/HTML;x"));
        assert_eq!(kept_type("text/html\r\nx: y"), None);
        assert_eq!(kept_type(&format!("text/{}", "x".repeat(1024))), None);
        assert_eq!(kept_type(""), None);
    }
}

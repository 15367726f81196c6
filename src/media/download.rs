//! Finding a file and reading it.
//!
//! A file of another server that is not here is fetched first, for those who may have that done
//! (`remote.rs`). Then it is read like any other: rows of other origins have the same shape.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediadownloadservernamemediaid>

use std::{ops::Range, time::Duration};

use http::StatusCode;
use kv::{Json, Reader};
use tokio::time::{Instant, timeout_at};

use super::{Caller, Media, arrival, files::FileParts};
use crate::{
    error::ApiError,
    storage::{
        rows::media::{BlobRow, MediaKind, MediaRow},
        schema::media::{BLOBS, MEDIA, MediaKey},
    },
};

/// What is read between two visits of the worker is noted of at most so many files.
const READ_NOTES_MAX: usize = 100_000;

/// How long to wait for a file that is promised.
#[derive(Clone, Copy, Debug)]
pub struct Wait(pub Duration);

impl Default for Wait {
    fn default() -> Self {
        Self(Duration::from_secs(20))
    }
}

impl Wait {
    /// The longest.
    const MAX: Duration = Duration::from_mins(1);

    /// As a client asked for it, within bounds.
    pub fn of_milliseconds(milliseconds: u64) -> Self {
        Self(Duration::from_millis(milliseconds).min(Self::MAX))
    }
}

/// A file that is there.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its name.
    pub key: MediaKey,
    /// What is known of it.
    pub row: MediaRow,
    /// The hash of its content.
    pub hash: [u8; 32],
    /// Its content.
    pub(super) blob: BlobRow,
}

/// What is read of a file, a part at a time.
pub struct Content {
    /// How much it is, in bytes.
    pub size_bytes: u64,
    /// The bytes.
    pub parts: FileParts,
}

impl std::fmt::Debug for Content {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Content({} bytes)", self.size_bytes)
    }
}

impl Found {
    /// How large it is, in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.blob.size_bytes
    }
}

impl Media {
    /// The row of a file.
    pub(super) async fn row(&self, key: &MediaKey) -> Result<Option<MediaRow>, ApiError> {
        let key = key.clone();
        let row = self.0.store.read(move |reader| reader.get(&MEDIA, &key)).await?;
        Ok(row.map(|Json(row)| row))
    }

    /// Finds a file; waits for it where it is promised. One of another server is fetched for the
    /// caller; without one, only what is here is found.
    pub async fn find(
        &self,
        key: &MediaKey,
        wait: Wait,
        caller: Option<&Caller>,
    ) -> Result<Found, ApiError> {
        let deadline = Instant::now() + wait.0;
        let caller = caller.filter(|_| !self.is_own(&key.origin));
        let mut is_fetched = false;
        loop {
            // Before the look: what comes after it wakes us.
            let position = self.0.store.position();
            let wanted = key.clone();
            let found = self.0.store.read(move |reader| look(reader, &wanted)).await?;
            let Some((row, blob)) = found else {
                let Some(caller) = caller else { return Err(not_found()) };
                if is_fetched {
                    return Err(removed());
                }
                Box::pin(self.fetch(key, caller, deadline)).await?;
                is_fetched = true;
                continue;
            };
            if row.quarantined_ts.is_some() {
                return Err(not_found());
            }
            if let (Some(hash), Some(blob)) = (row.blob, blob) {
                self.note_read(key, &row);
                return Ok(Found { key: key.clone(), row, hash, blob });
            }
            if row.expires_ts.is_none_or(|expires_ts| expires_ts <= self.now_ms()) {
                return Err(not_found());
            }
            let topics = [arrival(key)];
            let woken = timeout_at(deadline, self.0.store.watch(&topics, position)).await;
            // A store that closes wakes its watchers without anything new.
            if woken.is_err() || woken.is_ok_and(|now| now == position) {
                return Err(not_yet_uploaded());
            }
        }
    }

    /// Reads a part of a file that was found.
    pub async fn read(&self, found: &Found, range: Range<u64>) -> Result<Content, ApiError> {
        let size_bytes = range.end.saturating_sub(range.start);
        match self.0.files.read(&found.blob.file, range).await {
            Ok(parts) => Ok(Content { size_bytes, parts }),
            Err(error) => Err(self.explain_loss(found, error).await?),
        }
    }

    /// Why a content cannot be read: its file may have been removed since it was found.
    async fn explain_loss(&self, found: &Found, error: ApiError) -> Result<ApiError, ApiError> {
        let row = self.row(&found.key).await?;
        let is_there = row.is_some_and(|row| row.blob == Some(found.hash));
        Ok(match found.row.kind {
            _ if is_there => error,
            MediaKind::Remote => removed(),
            MediaKind::Local | MediaKind::Preview => not_found(),
        })
    }

    /// Remembers that a file was read, until the worker writes it down.
    fn note_read(&self, key: &MediaKey, row: &MediaRow) {
        let now = self.now_ms();
        let mut read = self.0.read.lock();
        if row.created_ts < now && (read.len() < READ_NOTES_MAX || read.contains_key(key)) {
            read.insert(key.clone(), now);
        }
    }
}

fn look(
    reader: &Reader<'_>,
    key: &MediaKey,
) -> Result<Option<(MediaRow, Option<BlobRow>)>, ApiError> {
    let Some(Json(row)) = reader.get(&MEDIA, key)? else { return Ok(None) };
    let Some(hash) = row.blob else { return Ok(Some((row, None))) };
    let Some(Json(blob)) = reader.get(&BLOBS, &hash)? else {
        return Err(ApiError::internal_text(format!(
            "the content of {} has no row in `blobs`",
            super::uri(key)
        )));
    };
    Ok(Some((row, Some(blob))))
}

pub(super) fn not_found() -> ApiError {
    ApiError::not_found("There is no such file")
}

pub(super) fn not_yet_uploaded() -> ApiError {
    let text = "The file has not been uploaded yet";
    ApiError::new(StatusCode::GATEWAY_TIMEOUT, "M_NOT_YET_UPLOADED", text)
}

/// A copy had to go for others between two steps.
fn removed() -> ApiError {
    ApiError::unavailable("The file was removed to make room just now; ask for it again")
}

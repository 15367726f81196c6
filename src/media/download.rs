//! Finding a file and reading it.
//!
//! Only what is stored here is found: files of other servers are not fetched as long as there is no
//! federation. Once there is, [`Media::find`] is where it begins: rows of other origins have the
//! same shape.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediadownloadservernamemediaid>

use std::{ops::Range, time::Duration};

use http::StatusCode;
use kv::{Json, Reader};
use tokio::time::{Instant, timeout_at};

use super::{Media, arrival, files::FileParts};
use crate::{
    error::ApiError,
    storage::{
        rows::media::{BlobRow, MediaRow},
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

    /// Finds a file; waits for it where it is promised.
    pub async fn find(&self, key: &MediaKey, wait: Wait) -> Result<Found, ApiError> {
        let deadline = Instant::now() + wait.0;
        loop {
            // Before the look: what comes after it wakes us.
            let position = self.0.store.position();
            let wanted = key.clone();
            let found = self.0.store.read(move |reader| look(reader, &wanted)).await?;
            let Some((row, blob)) = found else { return Err(not_found()) };
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
                return Err(ApiError::new(
                    StatusCode::GATEWAY_TIMEOUT,
                    "M_NOT_YET_UPLOADED",
                    "The file has not been uploaded yet",
                ));
            }
        }
    }

    /// Reads a part of a file that was found.
    pub async fn read(&self, found: &Found, range: Range<u64>) -> Result<Content, ApiError> {
        let size_bytes = range.end.saturating_sub(range.start);
        let parts = self.0.files.read(&found.blob.file, range).await?;
        Ok(Content { size_bytes, parts })
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

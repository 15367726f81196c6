//! Files of users: uploads, downloads, thumbnails, previews of pages, retention.
//!
//! Files of other servers are fetched when a user asks for them, and kept as a cache.
//! Called by the client-server API and the admin commands; knows users by id alone. A file is a row
//! by its `mxc://` address; its content lies once in an object store (`files.rs`), found by its hash.
//! The content is durable before any row names it, and a file that no row names is noted in
//! `unsettled_files` before it is written, so that a crash leaves nothing behind but what the next
//! start removes.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#content-repository>

mod asked;
mod cache;
mod callers;
mod disposition;
mod download;
mod files;
mod flights;
pub mod picture;
mod previews;
mod remote;
mod removal;
mod retention;
mod thumbnails;
mod upload;
mod worker;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use kv::{Batch, CommitError, Durability, Store, Topic};
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};
use ruma::{OwnedServerName, OwnedUserId, ServerName};

use self::{
    cache::Cache, callers::Callers, files::random_name, flights::Flights, previews::Previews,
    worker::Workshop,
};
pub use self::{
    callers::Caller,
    disposition::{disposition, is_inline},
    download::{Content, Found, Wait},
    files::{FileParts, Files, FilesError},
    removal::Listed,
    thumbnails::{Thumbnail, Wanted},
    upload::{NewMedia, Promised},
};
use crate::{
    config::{Config, MediaConfig},
    egress::Egress,
    error::ApiError,
    federation::client::Federation,
    storage::{
        schema::media::{MediaKey, UNSETTLED_FILES},
        topic,
    },
    time::Clock,
};

/// How often a write is decided again when others were quicker.
const ATTEMPTS: usize = 16;

/// The longest media id and the longest name of a server.
const NAME_BYTES_MAX: usize = 255;

/// The files of this server; cheap to clone.
#[derive(Clone)]
pub struct Media(Arc<Parts>);

struct Parts {
    store: Store,
    clock: Clock,
    server_name: OwnedServerName,
    config: MediaConfig,
    preview_images_kept: Duration,
    files: Files,
    workshop: Workshop,
    thumbnails: Flights<thumbnails::Target, Result<Arc<Thumbnail>, ApiError>>,
    previews: Previews,
    federation: Federation,
    fetches: Flights<MediaKey, Result<(), ApiError>>,
    callers: Arc<Callers>,
    cache: Cache,
    /// What was read since the worker last wrote it down, with when.
    read: Mutex<HashMap<MediaKey, u64>>,
    /// Who uploads now, and how much at most: counts against a quota as if it were there.
    uploading: Mutex<HashMap<OwnedUserId, u64>>,
    /// Files in the store that this process is working on, so that `tidy` leaves them.
    busy_files: Mutex<HashSet<String>>,
}

impl Media {
    /// Opens the object store and removes what a crash left in it.
    pub async fn open(
        store: Store,
        config: &Config,
        (egress, federation): (Egress, Federation),
        clock: Clock,
    ) -> Result<Self, FilesError> {
        let files = Files::open(&config.media, &config.database.path)?;
        let previews = Previews::new(egress, &config.url_previews);
        let media = Self(Arc::new(Parts {
            store,
            clock,
            server_name: config.server.name.clone(),
            preview_images_kept: days(config.url_previews.images_kept_days),
            files,
            workshop: Workshop::new(&config.media),
            thumbnails: Flights::default(),
            previews,
            federation,
            fetches: Flights::default(),
            callers: Arc::new(Callers::new(config)),
            cache: Cache::default(),
            read: Mutex::default(),
            uploading: Mutex::default(),
            busy_files: Mutex::default(),
            config: config.media.clone(),
        }));
        if let Err(error) = media.tidy().await {
            tracing::warn!(%error, "files that a crash left were not removed; the next start tries");
        }
        Ok(media)
    }

    /// The largest file that may be uploaded.
    pub fn upload_bytes_max(&self) -> u64 {
        self.0.config.upload_size_bytes_max
    }

    /// Whether files are given to those who do not say who they are.
    pub fn serves_unauthenticated(&self) -> bool {
        self.0.config.legacy_unauthenticated
    }

    /// The name of a file from its two parts, if they are possible ones.
    pub fn key(origin: &str, media_id: &str) -> Result<MediaKey, ApiError> {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if media_id.is_empty() || media_id.len() > NAME_BYTES_MAX || !media_id.bytes().all(known) {
            return Err(ApiError::invalid_param(
                "A media id has letters, digits, `_` and `-` only",
            ));
        }
        if origin.len() > NAME_BYTES_MAX || ServerName::parse(origin).is_err() {
            return Err(ApiError::invalid_param("This is not the name of a server"));
        }
        Ok(MediaKey { origin: origin.to_owned(), media_id: media_id.to_owned() })
    }

    /// The name of a file from its `mxc://` address.
    pub fn key_of_uri(uri: &str) -> Result<MediaKey, ApiError> {
        let parts = uri.strip_prefix("mxc://").and_then(|rest| rest.split_once('/'));
        let (origin, media_id) =
            parts.ok_or_else(|| ApiError::invalid_param("This is not an `mxc://` address"))?;
        Self::key(origin, media_id)
    }

    fn new_key(&self) -> MediaKey {
        MediaKey { origin: self.0.server_name.to_string(), media_id: random_name() }
    }

    fn now_ms(&self) -> u64 {
        self.0.clock.now().get().into()
    }

    /// Commits a batch; whether its checks held.
    async fn commit(&self, batch: Batch) -> Result<bool, ApiError> {
        match self.0.store.commit(batch, Durability::Synced).await {
            Ok(_) => Ok(true),
            Err(CommitError::Conflict) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes files that no row names any more, and the note that they were to be removed. What
    /// fails stays noted and is tried again at the next start.
    async fn discard(&self, files: Vec<String>) {
        let mut batch = Batch::new();
        for file in files {
            match self.0.files.remove(&file).await {
                Ok(()) => batch.delete(&UNSETTLED_FILES, &file),
                Err(error) => tracing::warn!(%error, file, "a file was not removed"),
            }
            self.0.busy_files.lock().remove(&file);
        }
        if !batch.is_empty()
            && let Err(error) = self.0.store.commit(batch, Durability::Buffered).await
        {
            tracing::warn!(%error, "files were removed, but it was not noted");
        }
    }
}

impl fmt::Debug for Media {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Media")
    }
}

/// A file's `mxc://` address.
pub fn uri(key: &MediaKey) -> String {
    format!("mxc://{}/{}", key.origin, key.media_id)
}

/// What those wait for who want a file that is promised.
fn arrival(key: &MediaKey) -> Topic {
    let hash = digest(&SHA256, uri(key).as_bytes());
    let id = hash.as_ref().iter().take(8).fold(0, |id, byte| (id << 8) | u64::from(*byte));
    Topic { space: topic::MEDIA, id }
}

fn days(days: u64) -> Duration {
    Duration::from_secs(days.saturating_mul(24 * 60 * 60))
}

/// The answer when others were quicker each time.
fn busy() -> ApiError {
    ApiError::unavailable("The server is too busy with other changes of the same thing")
}

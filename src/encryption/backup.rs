//! Backups of the keys of rooms: the versions of a user's backup.
//!
//! A version has a number that is given once, and holds keys that clients encrypted for it. Keys go
//! into the newest version alone. Every change of a version's keys goes with a change of its row,
//! which counts them, in one batch that checks that row: so the counts are exact.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups>

mod keys;
mod reading;

use http::StatusCode;
use kv::{Batch, Direction, Reader};
use ruma::UserId;
use serde::Deserialize;
use serde_json::{json, value::RawValue};

pub use self::{
    keys::{BackupKey, BackupState, WhichKeys},
    reading::write_key,
};
use super::{ATTEMPTS, Encryption, busy, commit};
use crate::{
    error::ApiError,
    storage::{
        rows::encryption::BackupVersionRow,
        schema::encryption::{BACKUP_KEYS, BACKUP_VERSIONS, BackupVersionKey},
    },
};

/// The longest name of an algorithm.
const ALGORITHM_BYTES_MAX: usize = 255;
/// The most that a version keeps for its algorithm.
const AUTH_DATA_BYTES_MAX: usize = 64 * 1024;
/// The most versions of one user.
const VERSIONS_MAX: usize = 100;

/// What a client says of a version that it makes or changes.
#[derive(Debug, Deserialize)]
pub struct BackupDescription {
    /// The algorithm.
    pub algorithm: String,
    /// What the algorithm needs.
    pub auth_data: Box<RawValue>,
    /// Which version it means, where it says so.
    #[serde(default)]
    pub version: Option<String>,
}

impl BackupDescription {
    /// Reads a request.
    ///
    /// # Errors
    /// `M_BAD_JSON`, `M_INVALID_PARAM`, 413 `M_TOO_LARGE`.
    pub fn parse(json: &str) -> Result<Self, ApiError> {
        let parsed: Self = serde_json::from_str(json)
            .map_err(|error| ApiError::bad_json(format!("This describes no backup: {error}")))?;
        if !parsed.auth_data.get().starts_with('{') {
            return Err(ApiError::bad_json("`auth_data` is not an object"));
        }
        if parsed.algorithm.is_empty() || parsed.algorithm.len() > ALGORITHM_BYTES_MAX {
            return Err(ApiError::invalid_param("There can be no algorithm of this name"));
        }
        if parsed.auth_data.get().len() > AUTH_DATA_BYTES_MAX {
            return Err(ApiError::too_large("`auth_data` is too large"));
        }
        Ok(parsed)
    }
}

/// The changes of one user's backups come one after the other, so that they do not run into each
/// other's checks. Users share a few locks.
pub(super) struct Locks([tokio::sync::Mutex<()>; 64]);

impl Default for Locks {
    fn default() -> Self {
        Self(std::array::from_fn(|_| tokio::sync::Mutex::new(())))
    }
}

impl Encryption {
    /// Makes a version, which is the newest from then on; gives its number.
    pub async fn create_backup(
        &self,
        user_id: &UserId,
        wanted: &BackupDescription,
    ) -> Result<u64, ApiError> {
        let _lock = self.backup_lock(user_id).await;
        let row = BackupVersionRow {
            etag: 0,
            count: 0,
            size_bytes: 0,
            deleted: false,
            algorithm: wanted.algorithm.clone(),
            auth_data: wanted.auth_data.get().into(),
        };
        for _ in 0..ATTEMPTS {
            let (user, row) = (user_id.to_string(), row.clone());
            let read = self.0.store.read(move |reader| decide_creation(reader, &user, &row));
            let (batch, version) = read.await?;
            if commit(&self.0.store, batch).await?.is_some() {
                return Ok(version);
            }
        }
        Err(busy())
    }

    /// A version of this number, or the newest.
    pub async fn backup(
        &self,
        user_id: &UserId,
        version: Option<&str>,
    ) -> Result<(u64, BackupVersionRow), ApiError> {
        let (user, version) = (user_id.to_string(), version.map(str::to_owned));
        let read = self.0.store.read(move |reader| match &version {
            None => newest(reader, &user)?.ok_or_else(no_backup),
            Some(version) => existing(reader, &user, version),
        });
        read.await
    }

    /// Changes what a version keeps for its algorithm.
    ///
    /// # Errors
    /// `M_NOT_FOUND`, `M_INVALID_PARAM` when it means another version or algorithm.
    pub async fn update_backup(
        &self,
        user_id: &UserId,
        version: &str,
        wanted: &BackupDescription,
    ) -> Result<(), ApiError> {
        if wanted.version.as_deref().is_some_and(|named| named != version) {
            return Err(ApiError::invalid_param("The body names another version than the path"));
        }
        let _lock = self.backup_lock(user_id).await;
        for _ in 0..ATTEMPTS {
            let (number, row) = self.backup(user_id, Some(version)).await?;
            if row.algorithm != wanted.algorithm {
                return Err(ApiError::invalid_param("The backup has another algorithm"));
            }
            let key = BackupVersionKey { user_id: user_id.to_string(), version: number };
            let mut batch = Batch::new();
            batch.check(&BACKUP_VERSIONS, &key, Some(&row));
            let auth_data = wanted.auth_data.get().into();
            batch.put(&BACKUP_VERSIONS, &key, &BackupVersionRow { auth_data, ..row });
            if commit(&self.0.store, batch).await?.is_some() {
                return Ok(());
            }
        }
        Err(busy())
    }

    /// Deletes a version and its keys; one that was deleted before is no error.
    pub async fn delete_backup(&self, user_id: &UserId, version: &str) -> Result<(), ApiError> {
        let number = number(version).ok_or_else(no_such_version)?;
        let _lock = self.backup_lock(user_id).await;
        for _ in 0..ATTEMPTS {
            let key = BackupVersionKey { user_id: user_id.to_string(), version: number };
            let read = self.0.store.read(move |reader| decide_deletion(reader, &key));
            let Some(batch) = read.await? else { return Ok(()) };
            if commit(&self.0.store, batch).await?.is_some() {
                return Ok(());
            }
        }
        Err(busy())
    }

    async fn backup_lock(&self, user_id: &UserId) -> tokio::sync::MutexGuard<'_, ()> {
        let locks = &self.0.backup_locks.0;
        let place = self.0.interner.user(user_id).0 % locks.len() as u64;
        locks[usize::try_from(place).unwrap_or_default()].lock().await
    }
}

fn decide_creation(
    reader: &Reader<'_>,
    user: &String,
    row: &BackupVersionRow,
) -> Result<(Batch, u64), ApiError> {
    let mut batch = Batch::new();
    let all = BACKUP_VERSIONS.prefix(user);
    let rows = reader.scan(&BACKUP_VERSIONS, &all, Direction::Backward, VERSIONS_MAX)?;
    if rows.len() >= VERSIONS_MAX {
        return Err(ApiError::too_large("There are too many backups: delete older ones"));
    }
    let last = rows.into_iter().next();
    let version = last.as_ref().map_or(0, |(key, _)| key.version).saturating_add(1);
    if let Some((key, last)) = last {
        batch.check(&BACKUP_VERSIONS, &key, Some(&last));
        if last.deleted {
            // The new one shows by itself that the number was given.
            batch.delete(&BACKUP_VERSIONS, &key);
        }
    }
    let key = BackupVersionKey { user_id: user.clone(), version };
    batch.check_absent(&BACKUP_VERSIONS, &key);
    batch.put(&BACKUP_VERSIONS, &key, row);
    Ok((batch, version))
}

/// `None`: it was deleted before.
fn decide_deletion(reader: &Reader<'_>, key: &BackupVersionKey) -> Result<Option<Batch>, ApiError> {
    let all = BACKUP_VERSIONS.prefix(&key.user_id);
    let last = reader.scan(&BACKUP_VERSIONS, &all, Direction::Backward, 1)?.pop();
    let last = last.map_or(0, |(last, _)| last.version);
    let row = match reader.get(&BACKUP_VERSIONS, key)? {
        Some(row) if !row.deleted => row,
        None if key.version > last => return Err(no_such_version()),
        _ => return Ok(None),
    };
    let mut batch = Batch::new();
    batch.check(&BACKUP_VERSIONS, key, Some(&row));
    let version = (key.user_id.clone(), key.version);
    batch.delete_range(&BACKUP_KEYS, BACKUP_KEYS.prefix(&version));
    if key.version < last {
        batch.delete(&BACKUP_VERSIONS, key);
    } else {
        let later = BackupVersionKey { version: last.saturating_add(1), ..key.clone() };
        batch.check_absent(&BACKUP_VERSIONS, &later);
        let nothing = BackupVersionRow {
            etag: 0,
            count: 0,
            size_bytes: 0,
            deleted: true,
            algorithm: String::new(),
            auth_data: Vec::new(),
        };
        batch.put(&BACKUP_VERSIONS, key, &nothing);
    }
    Ok(Some(batch))
}

/// The newest version that is there. A deleted one stands in the last place alone.
fn newest(
    reader: &Reader<'_>,
    user: &String,
) -> Result<Option<(u64, BackupVersionRow)>, kv::Error> {
    let all = BACKUP_VERSIONS.prefix(user);
    let rows = reader.scan(&BACKUP_VERSIONS, &all, Direction::Backward, 2)?;
    let rows = rows.into_iter().map(|(key, row)| (key.version, row));
    Ok(rows.into_iter().find(|(_, row)| !row.deleted))
}

/// A version that is there.
fn existing(
    reader: &Reader<'_>,
    user: &str,
    version: &str,
) -> Result<(u64, BackupVersionRow), ApiError> {
    let version = number(version).ok_or_else(no_such_version)?;
    let key = BackupVersionKey { user_id: user.to_owned(), version };
    let row = reader.get(&BACKUP_VERSIONS, &key)?.filter(|row| !row.deleted);
    Ok((version, row.ok_or_else(no_such_version)?))
}

/// A version that is there and may get keys: the newest.
fn writable(
    reader: &Reader<'_>,
    user: &String,
    version: &str,
) -> Result<(u64, BackupVersionRow), ApiError> {
    let found = existing(reader, user, version)?;
    match newest(reader, user)? {
        Some((newest, _)) if newest != found.0 => Err(wrong_version(newest)),
        _ => Ok(found),
    }
}

/// The number of a version; `None` for what never was one.
fn number(version: &str) -> Option<u64> {
    let number: u64 = version.parse().ok()?;
    (number.to_string() == version).then_some(number)
}

fn no_backup() -> ApiError {
    ApiError::not_found("There is no backup")
}

fn no_such_version() -> ApiError {
    ApiError::not_found("There is no backup of this version")
}

fn wrong_version(newest: u64) -> ApiError {
    let errcode = "M_WRONG_ROOM_KEYS_VERSION";
    let message = "Keys go into the newest version of the backup alone";
    ApiError::new(StatusCode::FORBIDDEN, errcode, message)
        .with("current_version", json!(newest.to_string()))
}

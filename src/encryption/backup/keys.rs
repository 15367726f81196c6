//! The keys in a backup: which are kept of those that come, and deleting them.
//!
//! An upload is one batch, or several where it is large. Each has the counts of what it stores, so
//! that after a crash between two of them the same upload completes what is missing.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#backup-algorithm-mmegolm_backupv1curve25519-aes-sha2>

use std::{cmp::Reverse, ops::ControlFlow, sync::Arc};

use kv::{Batch, Direction, Reader};
use ruma::{RoomId, UInt, UserId};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{VERSIONS_MAX, existing, writable};
use crate::{
    encryption::{ATTEMPTS, Encryption, busy, commit},
    error::ApiError,
    storage::{
        rows::encryption::{BackupKeyRow, BackupVersionRow},
        schema::encryption::{BACKUP_KEYS, BACKUP_VERSIONS, BackupKeyKey, BackupVersionKey},
    },
};

/// The longest id of a room or a session.
const ID_BYTES_MAX: usize = 255;
/// How much is written in one batch; the last key may be beyond it.
const BATCH_BYTES: usize = 768 * 1024;
/// What a key takes in a batch besides its ids and data.
const ROW_BYTES: usize = 64;

/// A key that a client hands in.
#[derive(Clone, Debug)]
pub struct BackupKey {
    room_id: String,
    session_id: String,
    row: BackupKeyRow,
}

impl BackupKey {
    /// Reads a key as clients write it.
    ///
    /// # Errors
    /// `M_BAD_JSON`, `M_INVALID_PARAM`.
    pub fn parse(room_id: &RoomId, session_id: &str, json: &str) -> Result<Self, ApiError> {
        #[derive(Deserialize)]
        struct KeyData<'a> {
            first_message_index: UInt,
            forwarded_count: UInt,
            is_verified: bool,
            #[serde(borrow)]
            session_data: &'a RawValue,
        }
        let data: KeyData<'_> = serde_json::from_str(json)
            .map_err(|error| ApiError::bad_json(format!("This is no key of a backup: {error}")))?;
        if !data.session_data.get().starts_with('{') {
            return Err(ApiError::bad_json("`session_data` is not an object"));
        }
        let ids = [room_id.as_str(), session_id];
        if ids.iter().any(|id| id.is_empty() || id.len() > ID_BYTES_MAX) {
            return Err(ApiError::invalid_param("The id of a room or a session is too long"));
        }
        Ok(Self {
            room_id: room_id.to_string(),
            session_id: session_id.to_owned(),
            row: BackupKeyRow {
                first_message_index: data.first_message_index.into(),
                forwarded_count: data.forwarded_count.into(),
                is_verified: data.is_verified,
                session_data: data.session_data.get().into(),
            },
        })
    }
}

/// What clients are told of a version whose keys they changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupState {
    /// Another one after each change.
    pub etag: u64,
    /// How many keys there are.
    pub count: u64,
}

impl BackupState {
    /// That of a stored version.
    pub const fn of(row: &BackupVersionRow) -> Self {
        Self { etag: row.etag, count: row.count }
    }
}

/// Which of a backup's keys are meant.
#[derive(Clone, Debug)]
pub enum WhichKeys {
    /// All.
    All,
    /// Those of a room.
    Room(String),
    /// That of a session in a room.
    Session(String, String),
}

impl Encryption {
    /// Adds keys to the newest version, where they are better than those it has.
    ///
    /// # Errors
    /// `M_NOT_FOUND`, 403 `M_WRONG_ROOM_KEYS_VERSION`, 413 `M_TOO_LARGE` for a key that is too large
    /// and for too many or too much.
    pub async fn add_backup_keys(
        &self,
        user_id: &UserId,
        version: &str,
        mut keys: Vec<BackupKey>,
    ) -> Result<BackupState, ApiError> {
        let size_bytes_max = self.0.config.backup_key_size_bytes_max;
        if keys.iter().any(|key| key.row.session_data.len() > size_bytes_max) {
            return Err(ApiError::too_large("A key is too large for a backup"));
        }
        let place = |key: &BackupKey| (key.room_id.clone(), key.session_id.clone());
        keys.sort_by_cached_key(place);
        let _lock = self.backup_lock(user_id).await;
        let mut parts = in_parts(user_id, keys).into_iter();
        // Also of nothing, since the version may not be there.
        let mut state = self.add_part(user_id, version, parts.next().unwrap_or_default()).await?;
        for part in parts {
            state = self.add_part(user_id, version, part).await?;
        }
        Ok(state)
    }

    async fn add_part(
        &self,
        user_id: &UserId,
        version: &str,
        part: Vec<BackupKey>,
    ) -> Result<BackupState, ApiError> {
        let config = &self.0.config;
        let max = Sum { count: config.backup_keys_max, size_bytes: config.backup_size_bytes_max };
        let part = Arc::new(part);
        for _ in 0..ATTEMPTS {
            let wanted = (user_id.to_string(), version.to_owned());
            let part = part.clone();
            let read = self.0.store.read(move |reader| decide_upload(reader, &wanted, &part, max));
            let (batch, state) = read.await?;
            if batch.is_empty() || commit(&self.0.store, batch).await?.is_some() {
                return Ok(state);
            }
        }
        Err(busy())
    }

    /// Deletes keys of any version.
    ///
    /// # Errors
    /// `M_NOT_FOUND` for a version that is not there.
    pub async fn delete_backup_keys(
        &self,
        user_id: &UserId,
        version: &str,
        which: &WhichKeys,
    ) -> Result<BackupState, ApiError> {
        let _lock = self.backup_lock(user_id).await;
        for _ in 0..ATTEMPTS {
            let wanted = (user_id.to_string(), version.to_owned());
            let which = which.clone();
            let read = self.0.store.read(move |reader| decide_removal(reader, &wanted, &which));
            let (batch, state) = read.await?;
            if batch.is_empty() || commit(&self.0.store, batch).await?.is_some() {
                return Ok(state);
            }
        }
        Err(busy())
    }
}

/// Parts of which each fits into a batch.
fn in_parts(user_id: &UserId, keys: Vec<BackupKey>) -> Vec<Vec<BackupKey>> {
    let mut parts: Vec<Vec<BackupKey>> = Vec::new();
    let mut size_bytes = BATCH_BYTES;
    for key in keys {
        let ids = user_id.as_str().len() + key.room_id.len() + key.session_id.len();
        let key_bytes = ROW_BYTES + ids + key.row.session_data.len();
        match parts.last_mut() {
            Some(part) if size_bytes < BATCH_BYTES => part.push(key),
            _ => {
                size_bytes = 0;
                parts.push(vec![key]);
            }
        }
        size_bytes += key_bytes;
    }
    parts
}

/// An empty batch: none of the keys is better.
fn decide_upload(
    reader: &Reader<'_>,
    (user, version): &(String, String),
    part: &[BackupKey],
    max: Sum,
) -> Result<(Batch, BackupState), ApiError> {
    let (version, row) = writable(reader, user, version)?;
    let mut batch = Batch::new();
    let before = Sum::of(&row);
    let mut sum = before;
    for BackupKey { room_id, session_id, row: new } in part {
        let (user_id, room_id) = (user.clone(), room_id.clone());
        let key = BackupKeyKey { user_id, version, room_id, session_id: session_id.clone() };
        // One by one: those that are there may be much larger than what comes.
        let old = reader.get(&BACKUP_KEYS, &key)?;
        if old.as_ref().is_none_or(|old| is_better(new, old)) {
            batch.put(&BACKUP_KEYS, &key, new);
            if let Some(old) = &old {
                sum.remove(&key, old);
            }
            sum.add(&key, new);
        }
    }
    if batch.is_empty() {
        return Ok((batch, BackupState::of(&row)));
    }
    if sum.count > max.count && sum.count > before.count {
        return Err(ApiError::too_large("The backup has as many keys as it may have"));
    }
    if sum.size_bytes > before.size_bytes {
        let others = size_of_all(reader, user)?.saturating_sub(before.size_bytes);
        if others.saturating_add(sum.size_bytes) > max.size_bytes {
            return Err(ApiError::too_large("The backups are as large as they may be"));
        }
    }
    let state = put_sum(&mut batch, (user, version), row, sum);
    Ok((batch, state))
}

/// An empty batch: there is nothing of it.
fn decide_removal(
    reader: &Reader<'_>,
    (user, version): &(String, String),
    which: &WhichKeys,
) -> Result<(Batch, BackupState), ApiError> {
    let (version, row) = existing(reader, user, version)?;
    let mut batch = Batch::new();
    let mut sum = Sum::of(&row);
    match which {
        WhichKeys::All => {
            sum = Sum::default();
            batch.delete_range(&BACKUP_KEYS, BACKUP_KEYS.prefix(&(user.clone(), version)));
        }
        WhichKeys::Room(room_id) => {
            let range = BACKUP_KEYS.prefix(&(user.clone(), version, room_id.clone()));
            reader.for_each(&BACKUP_KEYS, &range, Direction::Forward, |key, old| {
                sum.remove(&key, &old);
                ControlFlow::Continue(())
            })?;
            batch.delete_range(&BACKUP_KEYS, range);
        }
        WhichKeys::Session(room_id, session_id) => {
            let (user_id, room_id) = (user.clone(), room_id.clone());
            let key = BackupKeyKey { user_id, version, room_id, session_id: session_id.clone() };
            if let Some(old) = reader.get(&BACKUP_KEYS, &key)? {
                sum.remove(&key, &old);
            }
            batch.delete(&BACKUP_KEYS, &key);
        }
    }
    if sum.count == row.count {
        return Ok((Batch::new(), BackupState::of(&row)));
    }
    let state = put_sum(&mut batch, (user, version), row, sum);
    Ok((batch, state))
}

/// What the keys of all versions come to, in bytes.
fn size_of_all(reader: &Reader<'_>, user: &String) -> Result<u64, kv::Error> {
    let all = BACKUP_VERSIONS.prefix(user);
    let rows = reader.scan(&BACKUP_VERSIONS, &all, Direction::Forward, VERSIONS_MAX)?;
    Ok(rows.into_iter().fold(0, |size: u64, (_, row)| size.saturating_add(row.size_bytes)))
}

fn put_sum(
    batch: &mut Batch,
    (user, version): (&String, u64),
    row: BackupVersionRow,
    Sum { count, size_bytes }: Sum,
) -> BackupState {
    let key = BackupVersionKey { user_id: user.clone(), version };
    batch.check(&BACKUP_VERSIONS, &key, Some(&row));
    let row = BackupVersionRow { etag: row.etag.saturating_add(1), count, size_bytes, ..row };
    batch.put(&BACKUP_VERSIONS, &key, &row);
    BackupState::of(&row)
}

/// How many keys there are, and what they come to.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    count: u64,
    size_bytes: u64,
}

impl Sum {
    fn of(row: &BackupVersionRow) -> Self {
        Self { count: row.count, size_bytes: row.size_bytes }
    }

    fn add(&mut self, key: &BackupKeyKey, row: &BackupKeyRow) {
        self.count = self.count.saturating_add(1);
        self.size_bytes = self.size_bytes.saturating_add(size(key, row));
    }

    fn remove(&mut self, key: &BackupKeyKey, row: &BackupKeyRow) {
        self.count = self.count.saturating_sub(1);
        self.size_bytes = self.size_bytes.saturating_sub(size(key, row));
    }
}

/// What a key counts for, in bytes.
fn size(key: &BackupKeyKey, row: &BackupKeyRow) -> u64 {
    (ROW_BYTES + key.room_id.len() + key.session_id.len() + row.session_data.len()) as u64
}

/// Whether a key takes the place of one that is there: the rules under the algorithm's "Storing".
fn is_better(new: &BackupKeyRow, old: &BackupKeyRow) -> bool {
    let rank = |row: &BackupKeyRow| {
        (Reverse(row.is_verified), row.first_message_index, row.forwarded_count)
    };
    rank(new) < rank(old)
}

#[cfg(test)]
mod tests {
    use ruma::{room_id, user_id};

    use super::*;

    fn row(is_verified: bool, first_message_index: u64, forwarded_count: u64) -> BackupKeyRow {
        let session_data = b"{}".to_vec();
        BackupKeyRow { first_message_index, forwarded_count, is_verified, session_data }
    }

    #[test]
    fn the_better_key_is_kept() {
        let cases = [
            ((true, 9, 9), (false, 0, 0), true),
            ((false, 0, 0), (true, 9, 9), false),
            ((true, 1, 9), (true, 2, 0), true),
            ((true, 2, 0), (true, 1, 9), false),
            ((false, 1, 1), (false, 1, 2), true),
            ((false, 1, 2), (false, 1, 1), false),
            ((true, 1, 1), (true, 1, 1), false),
        ];
        for (new, old, expected) in cases {
            let is_better = is_better(&row(new.0, new.1, new.2), &row(old.0, old.1, old.2));
            assert_eq!(is_better, expected, "{new:?} for {old:?}");
        }
    }

    #[test]
    fn an_upload_is_cut_where_a_batch_is_full() {
        let user = user_id!("@a:hs1");
        let key = |size_bytes: usize| {
            let mut row = row(true, 0, 0);
            row.session_data = vec![b' '; size_bytes];
            BackupKey { room_id: "!r".to_owned(), session_id: "s".to_owned(), row }
        };
        let counts = |sizes: &[usize]| -> Vec<usize> {
            let keys = sizes.iter().map(|size| key(*size)).collect();
            in_parts(user, keys).iter().map(Vec::len).collect()
        };
        assert_eq!(counts(&[]), [0_usize; 0]);
        assert_eq!(counts(&[10, 10, 10]), [3]);
        assert_eq!(counts(&[BATCH_BYTES, 10, BATCH_BYTES, 10]), [1, 2, 1]);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let errcode = |json: &str| {
            let parsed = BackupKey::parse(room_id!("!r:hs1"), "s", json);
            parsed.map_or_else(|error| error.errcode.into_owned(), |_| "fine".to_owned())
        };
        let with = |data: &str| {
            format!(
                r#"{{"first_message_index":1,"forwarded_count":0,"is_verified":true,
                "session_data":{data}}}"#
            )
        };
        assert_eq!(errcode(&with(r#"{ "x": 1.50 }"#)), "fine");
        assert_eq!(errcode(&with("[]")), "M_BAD_JSON");
        assert_eq!(errcode("{}"), "M_BAD_JSON");
        assert_eq!(errcode(&with("{}").replace(":1", ":-1")), "M_BAD_JSON");
        let parsed = BackupKey::parse(room_id!("!r:hs1"), "s", &with(r#"{ "x": 1.50 }"#));
        assert_eq!(parsed.unwrap().row.session_data, br#"{ "x": 1.50 }"#, "as it came");
        let long = BackupKey::parse(room_id!("!r:hs1"), &"s".repeat(256), &with("{}"));
        assert_eq!(long.unwrap_err().errcode, "M_INVALID_PARAM");
    }
}

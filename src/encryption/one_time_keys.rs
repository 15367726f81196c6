//! One-time keys: taken in once, whatever comes again, and kept in the order of the uploads.
//!
//! Every id is remembered with the hash of its key, also when the key was handed out: a client that
//! did not hear the answer uploads the same again, which must neither add a key nor revive one. The
//! ids that were handed out longest ago are forgotten by the thousand, on upload: only the client
//! itself could bring such a key back, many uploads after it was told that the server has it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#one-time-and-fallback-keys>

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use kv::{Batch, Direction, Position, Reader};
use ring::digest::{SHA256, digest};
use ruma::CanonicalJsonValue;
use serde_json::value::RawValue;

use crate::{
    error::ApiError,
    storage::{
        rows::encryption::{OneTimeKeyIdRow, OneTimeKeyRow},
        schema::{
            encryption::{
                DeviceAlgorithmKey, ONE_TIME_KEY_COUNTS, ONE_TIME_KEY_ID_COUNTS, ONE_TIME_KEY_IDS,
                ONE_TIME_KEYS, OneTimeKeyIdKey, OneTimeKeyKey,
            },
            users::DeviceKey,
        },
    },
};

/// The most algorithms for which a device has one-time keys, or fallback keys.
pub(super) const ALGORITHMS_MAX: usize = 16;
/// The longest id of a key, with its algorithm.
const KEY_ID_BYTES_MAX: usize = 255;
/// The largest key.
const KEY_BYTES_MAX: usize = 4_096;
/// The most ids of keys that were handed out; when there are more, [`REMEMBERED_AFTER`] are kept.
const REMEMBERED_MAX: usize = 8_192;
const REMEMBERED_AFTER: usize = 4_096;

/// A one-time or fallback key as it is uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NewKey {
    /// The algorithm.
    pub(super) algorithm: String,
    /// The id, without the algorithm.
    pub(super) key_id: String,
    /// Canonical JSON.
    pub(super) json: Vec<u8>,
}

impl NewKey {
    /// Reads a key. Its signature is not checked: that is for who uses it, and knows by other means
    /// whose device it is.
    pub(super) fn parse(id: &str, raw: &RawValue) -> Result<Self, ApiError> {
        let name = id.split_once(':').filter(|(algorithm, key_id)| {
            !algorithm.is_empty() && !key_id.is_empty() && id.len() <= KEY_ID_BYTES_MAX
        });
        let Some((algorithm, key_id)) = name else {
            let message = "The id of a key is its algorithm, a colon and up to 255 bytes in all";
            return Err(ApiError::invalid_param(message));
        };
        if raw.get().len() > KEY_BYTES_MAX {
            return Err(ApiError::too_large(format!("The key `{id}` is too large")));
        }
        let value: CanonicalJsonValue = serde_json::from_str(raw.get())
            .map_err(|error| ApiError::bad_json(format!("The key `{id}` is not valid: {error}")))?;
        let is_key = match &value {
            CanonicalJsonValue::Object(key) => {
                matches!(key.get("key"), Some(CanonicalJsonValue::String(_)))
            }
            CanonicalJsonValue::String(_) => !algorithm.starts_with("signed_"),
            _ => false,
        };
        if !is_key {
            return Err(ApiError::bad_json(format!("`{id}` is no key of its algorithm")));
        }
        let json = serde_json::to_vec(&value).map_err(ApiError::internal)?;
        Ok(Self { algorithm: algorithm.to_owned(), key_id: key_id.to_owned(), json })
    }
}

/// The hash by which a key is remembered.
fn hash(json: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, json).as_ref());
    hash
}

/// Adds keys to a batch, in their order. `false`: all of them were uploaded before.
///
/// # Errors
/// 400 `M_INVALID_PARAM` where an id has another key, or where there are too many.
pub(super) fn add(
    reader: &Reader<'_>,
    batch: &mut Batch,
    device: &DeviceKey,
    keys: &[NewKey],
    keys_max: usize,
) -> Result<bool, ApiError> {
    let fresh = not_known(reader, device, keys)?;
    if fresh.is_empty() {
        return Ok(false);
    }
    let waiting = waiting(reader, device)?;
    let added = check_counts(&waiting, &fresh, keys_max)?;
    let position = Position::pending(0);
    for (index, key) in (0..).zip(&fresh) {
        let id = id_key(device, key);
        let row = OneTimeKeyIdRow { hash: hash(&key.json), position, index, handed_out: false };
        batch.check_absent(&ONE_TIME_KEY_IDS, &id);
        batch.put(&ONE_TIME_KEY_IDS, &id, &row);
        let OneTimeKeyIdKey { user_id, device_id, algorithm, key_id } = id;
        let place = OneTimeKeyKey { user_id, device_id, algorithm, position, index };
        batch.put(&ONE_TIME_KEYS, &place, &OneTimeKeyRow { key_id, key: key.json.clone() });
    }
    for (algorithm, count) in added {
        batch.add(&ONE_TIME_KEY_COUNTS, &of_algorithm(device, algorithm), count);
    }
    count_ids(reader, batch, device, (fresh.len(), waiting.values().sum()))?;
    Ok(true)
}

/// The keys whose ids are new.
fn not_known<'a>(
    reader: &Reader<'_>,
    device: &DeviceKey,
    keys: &'a [NewKey],
) -> Result<Vec<&'a NewKey>, ApiError> {
    let ids: Vec<_> = keys.iter().map(|key| id_key(device, key)).collect();
    let rows = reader.get_many(&ONE_TIME_KEY_IDS, &ids)?;
    let mut fresh = Vec::new();
    for (key, row) in keys.iter().zip(rows) {
        match row {
            None => fresh.push(key),
            Some(row) if row.hash == hash(&key.json) => {}
            Some(_) => {
                let NewKey { algorithm, key_id, .. } = key;
                let message = format!("There was another one-time key `{algorithm}:{key_id}`");
                return Err(ApiError::invalid_param(message));
            }
        }
    }
    Ok(fresh)
}

/// How many keys of each algorithm wait.
fn waiting(reader: &Reader<'_>, device: &DeviceKey) -> Result<BTreeMap<String, usize>, kv::Error> {
    let mut waiting = BTreeMap::new();
    let range = ONE_TIME_KEY_COUNTS.prefix(&prefix(device));
    reader.for_each(&ONE_TIME_KEY_COUNTS, &range, Direction::Forward, |key, count| {
        waiting.insert(key.algorithm, usize::try_from(count).unwrap_or_default());
        ControlFlow::Continue(())
    })?;
    Ok(waiting)
}

/// How many keys of each algorithm are added, where they fit.
fn check_counts<'a>(
    waiting: &'a BTreeMap<String, usize>,
    fresh: &[&'a NewKey],
    keys_max: usize,
) -> Result<BTreeMap<&'a str, i64>, ApiError> {
    let mut added = BTreeMap::new();
    for key in fresh {
        *added.entry(key.algorithm.as_str()).or_insert(0_usize) += 1;
    }
    let too_many =
        |(&name, count): (&&str, &usize)| waiting.get(name).unwrap_or(&0) + count > keys_max;
    if added.iter().any(too_many) {
        let message = format!("At most {keys_max} one-time keys of an algorithm may wait");
        return Err(ApiError::invalid_param(message));
    }
    let algorithms = waiting.keys().map(String::as_str).chain(added.keys().copied());
    if algorithms.collect::<BTreeSet<_>>().len() > ALGORITHMS_MAX {
        return Err(ApiError::invalid_param("There are one-time keys of too many algorithms"));
    }
    let added = added.into_iter();
    Ok(added.map(|(name, count)| (name, i64::try_from(count).unwrap_or(i64::MAX))).collect())
}

/// Counts the ids of a device and forgets old ones. The check of the row puts the uploads of a device
/// in a line, so that those which come at once do not exceed what may wait.
fn count_ids(
    reader: &Reader<'_>,
    batch: &mut Batch,
    device: &DeviceKey,
    (added, waiting): (usize, usize),
) -> Result<(), kv::Error> {
    let before = reader.get(&ONE_TIME_KEY_ID_COUNTS, device)?;
    let known = before.unwrap_or_default() as usize;
    let forgotten = if known.saturating_sub(waiting) > REMEMBERED_MAX {
        forget_oldest(reader, batch, device)?
    } else {
        0
    };
    let count = u32::try_from(known + added - forgotten).unwrap_or(u32::MAX);
    batch.check(&ONE_TIME_KEY_ID_COUNTS, device, before.as_ref());
    batch.put(&ONE_TIME_KEY_ID_COUNTS, device, &count);
    Ok(())
}

/// Forgets the ids of keys that were handed out, but for the last ones. O(ids), once for thousands
/// of uploaded keys.
fn forget_oldest(
    reader: &Reader<'_>,
    batch: &mut Batch,
    device: &DeviceKey,
) -> Result<usize, kv::Error> {
    let mut handed_out = Vec::new();
    let range = ONE_TIME_KEY_IDS.prefix(&prefix(device));
    reader.for_each(&ONE_TIME_KEY_IDS, &range, Direction::Forward, |key, row| {
        if row.handed_out {
            handed_out.push((row.position, row.index, key));
        }
        ControlFlow::Continue(())
    })?;
    handed_out.sort_unstable_by_key(|&(position, index, _)| (position, index));
    let forgotten = handed_out.len().saturating_sub(REMEMBERED_AFTER);
    for (_, _, key) in &handed_out[..forgotten] {
        batch.delete(&ONE_TIME_KEY_IDS, key);
    }
    Ok(forgotten)
}

/// Adds to a batch that a waiting key is handed out.
pub(super) fn hand_out(batch: &mut Batch, key: &OneTimeKeyKey, row: &OneTimeKeyRow) {
    batch.check(&ONE_TIME_KEYS, key, Some(row));
    batch.delete(&ONE_TIME_KEYS, key);
    let OneTimeKeyKey { user_id, device_id, algorithm, position, index } = key.clone();
    let queue = DeviceAlgorithmKey { user_id, device_id, algorithm };
    batch.add(&ONE_TIME_KEY_COUNTS, &queue, -1);
    let DeviceAlgorithmKey { user_id, device_id, algorithm } = queue;
    let id = OneTimeKeyIdKey { user_id, device_id, algorithm, key_id: row.key_id.clone() };
    let row = OneTimeKeyIdRow { hash: hash(&row.key), position, index, handed_out: true };
    batch.put(&ONE_TIME_KEY_IDS, &id, &row);
}

/// Removes all one-time keys of a device, and what is known of them.
pub(super) fn remove_all(batch: &mut Batch, device: &DeviceKey) {
    batch.delete(&ONE_TIME_KEY_ID_COUNTS, device);
    let device = prefix(device);
    batch.delete_range(&ONE_TIME_KEYS, ONE_TIME_KEYS.prefix(&device));
    batch.delete_range(&ONE_TIME_KEY_IDS, ONE_TIME_KEY_IDS.prefix(&device));
    batch.delete_range(&ONE_TIME_KEY_COUNTS, ONE_TIME_KEY_COUNTS.prefix(&device));
}

/// The rows of a device.
pub(super) fn prefix(device: &DeviceKey) -> (String, String) {
    (device.user_id.clone(), device.device_id.clone())
}

/// The rows of a device's algorithm.
pub(super) fn of_algorithm(device: &DeviceKey, algorithm: &str) -> DeviceAlgorithmKey {
    let (user_id, device_id) = prefix(device);
    DeviceAlgorithmKey { user_id, device_id, algorithm: algorithm.to_owned() }
}

fn id_key(device: &DeviceKey, key: &NewKey) -> OneTimeKeyIdKey {
    let (user_id, device_id) = prefix(device);
    let NewKey { algorithm, key_id, .. } = key.clone();
    OneTimeKeyIdKey { user_id, device_id, algorithm, key_id }
}

#[cfg(test)]
mod tests;

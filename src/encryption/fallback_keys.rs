//! Fallback keys: what is handed out when no one-time key is left, again and again.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#one-time-and-fallback-keys>

use std::collections::BTreeMap;

use kv::{Batch, Direction, Reader};

use super::one_time_keys::{ALGORITHMS_MAX, NewKey, of_algorithm, prefix};
use crate::{
    error::ApiError,
    storage::{
        rows::encryption::FallbackKeyRow,
        schema::{
            encryption::{DeviceAlgorithmKey, FALLBACK_KEYS},
            users::DeviceKey,
        },
    },
};

/// Adds to a batch that these are the fallback keys of their algorithms. `false`: they are already.
/// The same key again stays used where it was handed out: its client did not make a new one.
pub(super) fn replace(
    reader: &Reader<'_>,
    batch: &mut Batch,
    device: &DeviceKey,
    keys: &[NewKey],
) -> Result<bool, ApiError> {
    if keys.is_empty() {
        return Ok(false);
    }
    let range = FALLBACK_KEYS.prefix(&prefix(device));
    let rows = reader.scan(&FALLBACK_KEYS, &range, Direction::Forward, usize::MAX)?;
    let mut known: BTreeMap<_, _> =
        rows.into_iter().map(|(key, row)| (key.algorithm, Some(row))).collect();
    let mut changed = false;
    for NewKey { algorithm, key_id, json } in keys {
        let old = known.entry(algorithm.clone()).or_default();
        if old.as_ref().is_some_and(|old| old.key_id == *key_id && old.key == *json) {
            continue;
        }
        let row = FallbackKeyRow { key_id: key_id.clone(), key: json.clone(), used: false };
        let key = of_algorithm(device, algorithm);
        batch.check(&FALLBACK_KEYS, &key, old.as_ref());
        batch.put(&FALLBACK_KEYS, &key, &row);
        changed = true;
    }
    if known.len() > ALGORITHMS_MAX {
        return Err(ApiError::invalid_param("There are fallback keys of too many algorithms"));
    }
    Ok(changed)
}

/// Refuses a second key of the same algorithm.
pub(super) fn check_one_each(keys: &[NewKey]) -> Result<(), ApiError> {
    let mut algorithms: Vec<_> = keys.iter().map(|key| &key.algorithm).collect();
    algorithms.sort_unstable();
    if algorithms.windows(2).all(|pair| pair[0] != pair[1]) {
        return Ok(());
    }
    Err(ApiError::invalid_param("There is one fallback key for each algorithm"))
}

/// Adds to a batch that a fallback key is handed out. `false`: it was before, and nothing changes.
pub(super) fn hand_out(batch: &mut Batch, key: &DeviceAlgorithmKey, row: &FallbackKeyRow) -> bool {
    if row.used {
        return false;
    }
    batch.check(&FALLBACK_KEYS, key, Some(row));
    batch.put(&FALLBACK_KEYS, key, &FallbackKeyRow { used: true, ..row.clone() });
    true
}

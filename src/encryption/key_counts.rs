//! How many keys wait for a device, as sync and `/keys/upload` tell it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#one-time-and-fallback-keys>

use std::{collections::BTreeMap, ops::ControlFlow};

use kv::{Direction, Position, Reader};
use ruma::{DeviceId, UserId};

use crate::storage::schema::{
    encryption::{FALLBACK_KEYS, KEY_COUNT_CHANGES, ONE_TIME_KEY_COUNTS},
    users::DeviceKey,
};

/// The algorithm of the keys that clients use. Its count is told also where it is zero: some clients
/// upload keys only then.
pub(super) const SIGNED_CURVE25519: &str = "signed_curve25519";

/// What a device is told of its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyCounts {
    /// The one-time keys that wait to be claimed, by algorithm; `signed_curve25519` always.
    pub one_time_keys: BTreeMap<String, u64>,
    /// The algorithms of the fallback keys that were not handed out.
    pub unused_fallback_key_types: Vec<String>,
    /// When any of this last changed; zero where it never did.
    pub changed: Position,
}

/// The counts of a device.
pub fn key_counts(
    reader: &Reader<'_>,
    user_id: &UserId,
    device_id: &DeviceId,
) -> Result<KeyCounts, kv::Error> {
    let key = DeviceKey { user_id: user_id.to_string(), device_id: device_id.to_string() };
    let changed = reader.get(&KEY_COUNT_CHANGES, &key)?.unwrap_or_default();
    let device = (key.user_id, key.device_id);
    let mut one_time_keys = BTreeMap::from([(SIGNED_CURVE25519.to_owned(), 0)]);
    let range = ONE_TIME_KEY_COUNTS.prefix(&device);
    reader.for_each(&ONE_TIME_KEY_COUNTS, &range, Direction::Forward, |key, count| {
        one_time_keys.insert(key.algorithm, u64::try_from(count).unwrap_or_default());
        ControlFlow::Continue(())
    })?;
    let mut unused_fallback_key_types = Vec::new();
    let range = FALLBACK_KEYS.prefix(&device);
    reader.for_each(&FALLBACK_KEYS, &range, Direction::Forward, |key, row| {
        if !row.used {
            unused_fallback_key_types.push(key.algorithm);
        }
        ControlFlow::Continue(())
    })?;
    Ok(KeyCounts { one_time_keys, unused_fallback_key_types, changed })
}

//! What goes when a device or an account ends: its keys, what waits for it, its backups.

use std::collections::BTreeSet;

use kv::{Batch, Direction, Reader};
use ruma::UserId;

use super::{
    device_lists::{Told, mark},
    one_time_keys,
};
use crate::{
    id::Interner,
    storage::schema::{
        encryption::{
            BACKUP_KEYS, BACKUP_VERSIONS, CROSS_SIGNING_KEYS, DEHYDRATED_DEVICES, DEVICE_KEYS,
            FALLBACK_KEYS, KEY_COUNT_CHANGES, SIGNATURES, TO_DEVICE, TO_DEVICE_COUNTS,
        },
        users::DeviceKey,
    },
};

/// Removes what is kept for devices along with them, in the batch that removes them. Gives who must
/// be told, where a device had keys: see [`super::device_lists::settle`].
pub fn end_devices(
    reader: &Reader<'_>,
    batch: &mut Batch,
    interner: Interner,
    (user_id, devices): (&UserId, &BTreeSet<String>),
) -> Result<Option<Told>, kv::Error> {
    let mut had_keys = false;
    for device_id in devices {
        let key = DeviceKey { user_id: user_id.to_string(), device_id: device_id.clone() };
        had_keys |= reader.contains(&DEVICE_KEYS, &key)?;
        remove(batch, key);
    }
    had_keys.then(|| mark(reader, batch, interner, user_id)).transpose()
}

/// Removes all rows of a device.
fn remove(batch: &mut Batch, key: DeviceKey) {
    batch.delete(&DEVICE_KEYS, &key);
    batch.delete(&KEY_COUNT_CHANGES, &key);
    batch.delete(&TO_DEVICE_COUNTS, &key);
    let signed_by_the_user = (key.user_id.clone(), key.user_id.clone(), key.device_id.clone());
    batch.delete_range(&SIGNATURES, SIGNATURES.prefix(&signed_by_the_user));
    one_time_keys::remove_all(batch, &key);
    let device = (key.user_id, key.device_id);
    batch.delete_range(&FALLBACK_KEYS, FALLBACK_KEYS.prefix(&device));
    batch.delete_range(&TO_DEVICE, TO_DEVICE.prefix(&device));
}

/// Removes what is kept for an account that ends, besides its devices. Gives who must be told, where
/// it had cross-signing keys.
pub fn end_account(
    reader: &Reader<'_>,
    batch: &mut Batch,
    interner: Interner,
    user_id: &UserId,
) -> Result<Option<Told>, kv::Error> {
    let user = user_id.to_string();
    if let Some(dehydrated) = reader.get(&DEHYDRATED_DEVICES, &user)? {
        let device_id = dehydrated.0.device_id;
        remove(batch, DeviceKey { user_id: user.clone(), device_id });
        batch.delete(&DEHYDRATED_DEVICES, &user);
    }
    let range = CROSS_SIGNING_KEYS.prefix(&user);
    let had_keys = !reader.scan(&CROSS_SIGNING_KEYS, &range, Direction::Forward, 1)?.is_empty();
    batch.delete_range(&CROSS_SIGNING_KEYS, range);
    batch.delete_range(&SIGNATURES, SIGNATURES.prefix(&user));
    batch.delete_range(&BACKUP_VERSIONS, BACKUP_VERSIONS.prefix(&user));
    batch.delete_range(&BACKUP_KEYS, BACKUP_KEYS.prefix(&user));
    had_keys.then(|| mark(reader, batch, interner, user_id)).transpose()
}

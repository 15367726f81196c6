//! What goes when a device or an account ends: its keys, what waits for it, its backups.

use std::collections::BTreeSet;

use kv::{Batch, Direction, Json, Reader};
use ruma::UserId;

use super::{
    dehydrated::remove_dehydrated,
    device_lists::{Told, mark},
    one_time_keys,
    signatures::{forget_device, forget_signer},
    to_device::Queued,
};
use crate::{
    error::ApiError,
    id::Interner,
    storage::schema::{
        encryption::{
            BACKUP_KEYS, BACKUP_VERSIONS, CROSS_SIGNING_KEYS, DEVICE_KEYS, FALLBACK_KEYS,
            KEY_COUNT_CHANGES, SIGNATURES, TO_DEVICE,
        },
        users::{ACCOUNTS, DeviceKey},
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
        remove(reader, batch, key)?;
    }
    had_keys.then(|| mark(reader, batch, interner, user_id)).transpose()
}

/// Removes all rows of a device.
pub(super) fn remove(
    reader: &Reader<'_>,
    batch: &mut Batch,
    key: DeviceKey,
) -> Result<(), kv::Error> {
    forget_device(reader, batch, &key)?;
    batch.delete(&DEVICE_KEYS, &key);
    batch.delete(&KEY_COUNT_CHANGES, &key);
    Queued::forget(batch, &key);
    one_time_keys::remove_all(batch, &key);
    let device = (key.user_id, key.device_id);
    batch.delete_range(&FALLBACK_KEYS, FALLBACK_KEYS.prefix(&device));
    batch.delete_range(&TO_DEVICE, TO_DEVICE.prefix(&device));
    Ok(())
}

/// Removes what is kept for an account that ends, besides its devices. Gives who must be told, where
/// it had cross-signing keys or a dehydrated device.
pub fn end_account(
    reader: &Reader<'_>,
    batch: &mut Batch,
    interner: Interner,
    user_id: &UserId,
) -> Result<Option<Told>, kv::Error> {
    let user = user_id.to_string();
    let dehydrated = remove_dehydrated(reader, batch, user_id)?;
    let range = CROSS_SIGNING_KEYS.prefix(&user);
    let keys = reader.scan(&CROSS_SIGNING_KEYS, &range, Direction::Forward, 1)?;
    let had_keys = !keys.is_empty() || dehydrated.is_some();
    batch.delete_range(&CROSS_SIGNING_KEYS, range);
    batch.delete_range(&SIGNATURES, SIGNATURES.prefix(&user));
    forget_signer(reader, batch, &user)?;
    batch.delete_range(&BACKUP_VERSIONS, BACKUP_VERSIONS.prefix(&user));
    batch.delete_range(&BACKUP_KEYS, BACKUP_KEYS.prefix(&user));
    had_keys.then(|| mark(reader, batch, interner, user_id)).transpose()
}

/// Lets a batch be written only while the account is there, so that nothing outlives it.
pub(super) fn check_active(
    reader: &Reader<'_>,
    batch: &mut Batch,
    user_id: &UserId,
) -> Result<(), ApiError> {
    let user = user_id.to_string();
    let account = reader.get(&ACCOUNTS, &user)?;
    if account.as_ref().is_none_or(|Json(account)| account.deactivated_ts.is_some()) {
        return Err(ApiError::unknown_token("The account has ended", false));
    }
    batch.check(&ACCOUNTS, &user, account.as_ref());
    Ok(())
}

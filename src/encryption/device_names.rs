//! The names that a user's devices and keys share. A device may be verified by its id and a user by
//! the public part of the master key, so that nothing may have the name of something else.
//!
//! Each check holds until the batch is written. Called where a device or a key gets its name; `users`
//! does so for sessions.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#key-and-signature-security>

use kv::{Batch, Json, Reader};

use super::cross_signing::{Usage, public_key};
use crate::{
    error::ApiError,
    storage::schema::{
        encryption::{CROSS_SIGNING_KEYS, DEHYDRATED_DEVICES},
        users::{DEVICES, DeviceKey},
    },
};

/// Refuses a device that is no dehydrated one a name which is in use.
///
/// # Errors
/// 400 `M_INVALID_PARAM`.
pub fn check_new_device(
    reader: &Reader<'_>,
    batch: &mut Batch,
    device: &DeviceKey,
) -> Result<(), ApiError> {
    let row = reader.get(&DEHYDRATED_DEVICES, &device.user_id)?;
    batch.check(&DEHYDRATED_DEVICES, &device.user_id, row.as_ref());
    let is_dehydrated = row.is_some_and(|Json(row)| row.device_id == device.device_id);
    if is_dehydrated || names_key(reader, batch, device)? {
        return Err(in_use());
    }
    Ok(())
}

/// Refuses a dehydrated device the name of another device or of a key.
pub(super) fn check_dehydrated(
    reader: &Reader<'_>,
    batch: &mut Batch,
    device: &DeviceKey,
) -> Result<(), ApiError> {
    if reader.contains(&DEVICES, device)? || names_key(reader, batch, device)? {
        return Err(in_use());
    }
    batch.check_absent(&DEVICES, device);
    Ok(())
}

/// Whether a device has the name that a cross-signing key is to have.
pub(super) fn names_device(
    reader: &Reader<'_>,
    batch: &mut Batch,
    device: &DeviceKey,
) -> Result<bool, kv::Error> {
    let row = reader.get(&DEHYDRATED_DEVICES, &device.user_id)?;
    batch.check(&DEHYDRATED_DEVICES, &device.user_id, row.as_ref());
    batch.check_absent(&DEVICES, device);
    let is_dehydrated = row.is_some_and(|Json(row)| row.device_id == device.device_id);
    Ok(is_dehydrated || reader.contains(&DEVICES, device)?)
}

fn names_key(
    reader: &Reader<'_>,
    batch: &mut Batch,
    device: &DeviceKey,
) -> Result<bool, kv::Error> {
    let keys = Usage::ALL.map(|usage| usage.key(&device.user_id));
    let rows = reader.get_many(&CROSS_SIGNING_KEYS, &keys)?;
    for (key, row) in keys.iter().zip(&rows) {
        batch.check(&CROSS_SIGNING_KEYS, key, row.as_ref());
    }
    for json in rows.iter().flatten() {
        if public_key(json, &device.user_id)? == device.device_id {
            return Ok(true);
        }
    }
    Ok(false)
}

fn in_use() -> ApiError {
    ApiError::invalid_param("The device id is the name of another device or of a key of yours")
}

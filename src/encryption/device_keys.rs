//! The identity keys of a device, as its client uploads them.
//!
//! They are kept as canonical JSON without `unsigned`, so that the same keys again are the same bytes
//! and `/keys/query` can add to them without parsing.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#device-keys>

use std::collections::BTreeMap;

use kv::{Batch, Reader};
use ruma::CanonicalJsonObject;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    signatures::forget_device,
    signed_json::{Signatures, is_signed_by, key_bytes, parsed, signed_part},
};
use crate::{
    config::EncryptionConfig,
    error::ApiError,
    storage::schema::{encryption::DEVICE_KEYS, users::DeviceKey},
};

/// The most algorithms that a device names, and the most keys that it has.
const ALGORITHMS_MAX: usize = 16;

/// Keys that are what they should be.
#[derive(Clone, Debug)]
pub(super) struct NewDeviceKeys {
    /// Canonical JSON without `unsigned`.
    json: Vec<u8>,
}

/// The fields that the specification demands.
#[derive(Deserialize)]
struct Fields {
    user_id: String,
    device_id: String,
    algorithms: Vec<String>,
    keys: BTreeMap<String, String>,
    signatures: Option<Signatures>,
}

impl NewDeviceKeys {
    /// Reads what a client uploads as the keys of `device`.
    pub(super) fn parse(
        raw: &RawValue,
        device: &DeviceKey,
        config: &EncryptionConfig,
    ) -> Result<Self, ApiError> {
        if raw.get().len() > config.device_keys_size_bytes_max {
            return Err(ApiError::too_large("The keys of the device are too large"));
        }
        let mut object: CanonicalJsonObject = parsed(raw, "device_keys")?;
        let fields: Fields = parsed(raw, "device_keys")?;
        if fields.user_id != device.user_id || fields.device_id != device.device_id {
            return Err(ApiError::invalid_param("These are not the keys of the device that asks"));
        }
        if fields.algorithms.len() > ALGORITHMS_MAX || fields.keys.len() > ALGORITHMS_MAX {
            let message = format!("{ALGORITHMS_MAX} algorithms and keys are enough");
            return Err(ApiError::invalid_param(message));
        }
        check_key_ids(&fields)?;
        object.remove("unsigned");
        if fields.signatures.is_none() && config.signed_device_keys_only {
            return Err(ApiError::bad_json("`device_keys` has no `signatures`"));
        }
        check_signature(&fields, &object, config.signed_device_keys_only)?;
        let json = serde_json::to_vec(&object).map_err(ApiError::internal)?;
        Ok(Self { json })
    }

    /// Canonical JSON without `unsigned`.
    pub(super) fn into_json(self) -> Vec<u8> {
        self.json
    }

    /// Adds to a batch that these are the keys of the device. `false`: they are already.
    pub(super) fn put(
        &self,
        reader: &Reader<'_>,
        batch: &mut Batch,
        device: &DeviceKey,
    ) -> Result<bool, ApiError> {
        let old = reader.get(&DEVICE_KEYS, device)?;
        if old.as_ref() == Some(&self.json) {
            return Ok(false);
        }
        batch.check(&DEVICE_KEYS, device, old.as_ref());
        batch.put(&DEVICE_KEYS, device, &self.json);
        let is_signed_alike =
            old.is_some_and(|old| signed_part_of(&old) == signed_part_of(&self.json));
        if !is_signed_alike {
            // What was signed is gone, and its signatures with it; what the old keys signed, too.
            forget_device(reader, batch, device)?;
        }
        Ok(true)
    }
}

/// The part of stored keys that their signatures cover.
fn signed_part_of(json: &[u8]) -> Option<String> {
    let object: CanonicalJsonObject = serde_json::from_slice(json).ok()?;
    signed_part(&object)
}

/// Each key is named after its algorithm and its device.
fn check_key_ids(fields: &Fields) -> Result<(), ApiError> {
    let is_named_well = |key_id: &String| {
        key_id.split_once(':').is_some_and(|(algorithm, device)| {
            !algorithm.is_empty() && device == fields.device_id.as_str()
        })
    };
    if fields.keys.keys().all(is_named_well) {
        return Ok(());
    }
    Err(ApiError::invalid_param("The id of a key is its algorithm, a colon and the device id"))
}

/// Checks that the device signed its keys itself. Where that is not `required`, what is not signed is
/// taken; what is signed wrongly never is.
fn check_signature(
    fields: &Fields,
    object: &CanonicalJsonObject,
    required: bool,
) -> Result<(), ApiError> {
    let refused = |reason: &str| Err(ApiError::invalid_param(reason.to_owned()));
    let key_id = format!("ed25519:{}", fields.device_id);
    let signature =
        fields.signatures.as_ref().and_then(|all| all.get(&fields.user_id)?.get(&key_id));
    let (key, signature) = match (fields.keys.get(&key_id), signature) {
        (Some(key), Some(signature)) => (key, signature),
        _ if !required => return Ok(()),
        (None, _) => return refused("The device has no Ed25519 key"),
        (_, None) => return refused("The device has not signed its keys"),
    };
    let curve_key = fields.keys.get(&format!("curve25519:{}", fields.device_id));
    if curve_key.is_some_and(|key| key_bytes(key).is_none()) {
        return refused("The Curve25519 key is not 32 bytes in base64");
    }
    if key_bytes(key).is_none() {
        return refused("The Ed25519 key is not 32 bytes in base64");
    }
    let is_valid = signed_part(object).is_some_and(|signed| is_signed_by(&signed, key, signature));
    if is_valid { Ok(()) } else { refused("The device's signature of its keys is not valid") }
}

#[cfg(test)]
mod tests;

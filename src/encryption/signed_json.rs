//! Signed JSON of clients: keys in base64, and whether a signature is right.
//!
//! <https://spec.matrix.org/v1.19/appendices/#signing-json>

use std::collections::BTreeMap;

use ruma::{
    CanonicalJsonObject,
    serde::{Base64, base64::Standard},
    signatures::{
        SigningKeyAlgorithm, to_canonical_json_string_for_signing, verify_canonical_json_bytes,
    },
};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::ApiError;

/// The length of the keys of Curve25519 and Ed25519.
const KEY_BYTES: usize = 32;

/// Signatures by who signed and with which key.
pub(super) type Signatures = BTreeMap<String, BTreeMap<String, String>>;

/// Reads a field `name` of a request.
pub(super) fn parsed<'a, T: Deserialize<'a>>(raw: &'a RawValue, name: &str) -> Result<T, ApiError> {
    serde_json::from_str(raw.get())
        .map_err(|error| ApiError::bad_json(format!("`{name}` is not valid: {error}")))
}

/// A key in base64, with or without padding.
pub(super) fn key_bytes(text: &str) -> Option<Vec<u8>> {
    let bytes = Base64::<Standard>::parse(text).ok()?.into_inner();
    (bytes.len() == KEY_BYTES).then_some(bytes)
}

/// Whether this is a key in base64 without padding, in the one way to write it: by that it is named.
pub(super) fn is_unpadded_key(text: &str) -> bool {
    key_bytes(text).is_some_and(|bytes| Base64::<Standard>::new(bytes).encode() == text)
}

/// The part of an object that signatures cover: all but `signatures` and `unsigned`.
pub(super) fn signed_part(object: &CanonicalJsonObject) -> Option<String> {
    to_canonical_json_string_for_signing(object).ok()
}

/// Whether a signature by an Ed25519 key covers a [`signed_part`].
///
/// ruma's `verify_json` takes an object without any signature for signed: so the caller picks one.
pub(super) fn is_signed_by(signed: &str, key: &str, signature: &str) -> bool {
    let (Some(key), Ok(signature)) = (key_bytes(key), Base64::<Standard>::parse(signature)) else {
        return false;
    };
    let algorithm = SigningKeyAlgorithm::Ed25519;
    verify_canonical_json_bytes(&algorithm, &key, signature.as_bytes(), signed.as_bytes()).is_ok()
}

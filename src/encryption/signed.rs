//! What is signed besides what a device uploads: cross-signing keys, and signatures of others.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#cross-signing>

use kv::Reader;
use ruma::UserId;

/// A user's cross-signing keys as JSON, with the signatures that the one who asks may see.
#[derive(Clone, Debug, Default)]
pub(super) struct CrossSigningKeys {
    /// The master key.
    pub(super) master: Option<Vec<u8>>,
    /// The self-signing key.
    pub(super) self_signing: Option<Vec<u8>>,
    /// The user-signing key; only for the user themselves.
    pub(super) user_signing: Option<Vec<u8>>,
}

/// The cross-signing keys of `target` that `asker` may see.
#[expect(clippy::unnecessary_wraps, reason = "it will read tables")]
pub(super) fn cross_signing_keys(
    _reader: &Reader<'_>,
    _target: &UserId,
    _asker: &UserId,
) -> Result<CrossSigningKeys, kv::Error> {
    Ok(CrossSigningKeys::default())
}

/// The signatures on the devices of `target` that `asker` may see and that were uploaded on their own:
/// the device id, who signed, the id of the signing key, the signature.
#[expect(clippy::unnecessary_wraps, reason = "it will read tables")]
pub(super) fn device_signatures(
    _reader: &Reader<'_>,
    _target: &UserId,
    _asker: &UserId,
) -> Result<Vec<(String, String, String, String)>, kv::Error> {
    Ok(Vec::new())
}

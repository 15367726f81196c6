//! What is signed besides what a device uploads: cross-signing keys, and signatures of others.
//!
//! The signatures of the owner of a key are shown to all; those that the one who asks made, to them;
//! whom others have verified is nobody else's business.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#cross-signing>

use kv::{Direction, Reader};
use ruma::UserId;

use super::{
    cross_signing::{Usage, public_key},
    signed_json::Signatures,
};
use crate::storage::schema::encryption::{CROSS_SIGNING_KEYS, SIGNATURES};

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
pub(super) fn cross_signing_keys(
    reader: &Reader<'_>,
    target: &UserId,
    asker: &UserId,
) -> Result<CrossSigningKeys, kv::Error> {
    let keys = Usage::ALL.map(|usage| usage.key(target.as_str()));
    let seen = if target == asker { &keys[..] } else { &keys[..2] };
    let mut rows = reader.get_many(&CROSS_SIGNING_KEYS, seen)?.into_iter();
    let mut next = || rows.next().flatten();
    let (mut master, self_signing, user_signing) = (next(), next(), next());
    if let Some(json) = &mut master {
        let public = public_key(json, target.as_str())?;
        let signatures = signatures_on(reader, (target, asker), &public)?;
        if !signatures.is_empty() {
            super::query::add_signatures(json, signatures);
        }
    }
    Ok(CrossSigningKeys { master, self_signing, user_signing })
}

/// The signatures on a master key: by the user's own devices, and by the one who asks.
fn signatures_on(
    reader: &Reader<'_>,
    (target, asker): (&UserId, &UserId),
    public: &str,
) -> Result<Signatures, kv::Error> {
    let mut signatures = Signatures::new();
    let signers = if target == asker { &[target][..] } else { &[target, asker] };
    for signer in signers {
        let prefix = (target.to_string(), signer.to_string(), public.to_owned());
        let range = SIGNATURES.prefix(&prefix);
        for (key, signature) in reader.scan(&SIGNATURES, &range, Direction::Forward, usize::MAX)? {
            let signature = String::from_utf8_lossy(&signature).into_owned();
            signatures.entry(key.signer).or_default().insert(key.key_id, signature);
        }
    }
    Ok(signatures)
}

/// The signatures on the devices of `target` that were uploaded on their own, which all may see:
/// the device id, who signed, the id of the signing key, the signature. Nobody but the owner signs
/// devices.
pub(super) fn device_signatures(
    reader: &Reader<'_>,
    target: &UserId,
) -> Result<Vec<(String, String, String, String)>, kv::Error> {
    let range = SIGNATURES.prefix(&(target.to_string(), target.to_string()));
    let rows = reader.scan(&SIGNATURES, &range, Direction::Forward, usize::MAX)?;
    let rows = rows.into_iter().map(|(key, signature)| {
        let signature = String::from_utf8_lossy(&signature).into_owned();
        (key.target, key.signer, key.key_id, signature)
    });
    Ok(rows.collect())
}

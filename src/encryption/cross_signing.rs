//! Cross-signing keys: a master key for each user, which signs one key for their own devices and one
//! for other users.
//!
//! They are kept as they were uploaded. Keys that are there already may be uploaded again by anybody
//! with a session; new ones in their place need a proof that it is the user (MSC3967).
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#cross-signing>

use std::{collections::BTreeMap, sync::Arc};

use http::StatusCode;
use kv::{Batch, Direction, Reader};
use ruma::{CanonicalJsonObject, CanonicalJsonValue, UserId};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    ATTEMPTS, Encryption, busy, commit,
    device_lists::{self, Told, mark},
    device_names::names_device,
    ending::check_active,
    signed_json::{Signatures, is_signed_by, is_unpadded_key, parsed, signed_part},
};
use crate::{
    error::ApiError,
    id::Interner,
    storage::schema::{
        encryption::{CROSS_SIGNING_KEYS, CrossSigningKeyKey, SIGNATURES, SignatureKey},
        users::DeviceKey,
    },
};

/// The largest key; it has one key and some signatures.
const KEY_BYTES_MAX: usize = 32 * 1024;

/// Which of a user's keys, as they are numbered in their table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Usage {
    /// Signs the two others, and stands for the user.
    Master = 1,
    /// Signs the user's own devices.
    SelfSigning = 2,
    /// Signs the master keys of others. Only its owner sees it.
    UserSigning = 3,
}

impl Usage {
    /// All of them.
    pub(super) const ALL: [Self; 3] = [Self::Master, Self::SelfSigning, Self::UserSigning];

    const fn name(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::SelfSigning => "self_signing",
            Self::UserSigning => "user_signing",
        }
    }

    /// The row of a user's key.
    pub(super) fn key(self, user: &str) -> CrossSigningKeyKey {
        CrossSigningKeyKey { user_id: user.to_owned(), usage: self as u8 }
    }
}

/// A cross-signing key that is what it should be, but for what another key must say of it.
#[derive(Clone, Debug)]
struct NewKey {
    usage: Usage,
    /// Canonical JSON without `unsigned`.
    json: Vec<u8>,
    /// The public part in base64.
    public: String,
    signed: String,
    signatures: Signatures,
}

/// The keys that a client uploads together.
#[derive(Clone, Debug)]
pub struct CrossSigningKeys(Vec<NewKey>);

/// The fields that the specification demands.
#[derive(Deserialize)]
struct Fields {
    user_id: String,
    usage: Vec<String>,
    keys: BTreeMap<String, String>,
    #[serde(default)]
    signatures: Signatures,
}

/// What an upload does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyChange {
    /// All keys are there already.
    Nothing,
    /// The user had no keys.
    First,
    /// Keys are put in the place of others, or beside them: the user must prove who they are.
    Replacement,
}

/// The keys of a user that are stored: the JSON and the public part, by usage.
pub(super) type Stored = BTreeMap<u8, (Vec<u8>, String)>;

impl CrossSigningKeys {
    /// Reads the master, self-signing and user-signing key that a user uploads, as far as there are.
    ///
    /// # Errors
    /// 400 `M_BAD_JSON` or `M_INVALID_PARAM` for what is no such key.
    pub fn parse(user_id: &UserId, keys: [Option<&RawValue>; 3]) -> Result<Self, ApiError> {
        let keys = Usage::ALL.into_iter().zip(keys);
        let keys = keys.filter_map(|(usage, raw)| Some(NewKey::parse(user_id, usage, raw?)));
        keys.collect::<Result<_, ApiError>>().map(Self)
    }

    fn get(&self, usage: Usage) -> Option<&NewKey> {
        self.0.iter().find(|key| key.usage == usage)
    }

    /// What they do where these are stored.
    fn change(&self, stored: &Stored) -> KeyChange {
        let is_stored = |key: &NewKey| {
            stored.get(&(key.usage as u8)).is_some_and(|(_, public)| *public == key.public)
        };
        if self.0.iter().all(is_stored) {
            KeyChange::Nothing
        } else if stored.contains_key(&(Usage::Master as u8)) {
            KeyChange::Replacement
        } else {
            KeyChange::First
        }
    }

    /// The other keys must be signed by the master key that comes with them, or the stored one.
    fn check_signatures(&self, user_id: &UserId, stored: &Stored) -> Result<(), ApiError> {
        let new = self.get(Usage::Master).map(|key| &key.public);
        let master = new.or_else(|| stored.get(&(Usage::Master as u8)).map(|(_, public)| public));
        let master = master.ok_or_else(|| ApiError::missing_param("There is no master key"))?;
        let key_id = format!("ed25519:{master}");
        for key in self.0.iter().filter(|key| key.usage != Usage::Master) {
            let signatures = key.signatures.get(user_id.as_str());
            let signature = signatures.and_then(|signatures| signatures.get(&key_id));
            if !signature.is_some_and(|signature| is_signed_by(&key.signed, master, signature)) {
                let name = key.usage.name();
                let message = format!("The {name} key is not signed by the master key");
                return Err(invalid_signature(message));
            }
        }
        Ok(())
    }
}

impl NewKey {
    fn parse(user_id: &UserId, usage: Usage, raw: &RawValue) -> Result<Self, ApiError> {
        let name = format!("{}_key", usage.name());
        if raw.get().len() > KEY_BYTES_MAX {
            return Err(ApiError::too_large(format!("`{name}` is too large")));
        }
        let mut object: CanonicalJsonObject = parsed(raw, &name)?;
        let fields: Fields = parsed(raw, &name)?;
        let refused = |reason: &str| ApiError::invalid_param(format!("`{name}` {reason}"));
        if fields.user_id != user_id.as_str() {
            return Err(refused("is not a key of the user who asks"));
        }
        if !fields.usage.iter().any(|listed| listed == usage.name()) {
            return Err(refused("is for another usage"));
        }
        let mut keys = fields.keys.into_iter();
        let (Some((key_id, public)), None) = (keys.next(), keys.next()) else {
            return Err(refused("must have exactly one key"));
        };
        if key_id.strip_prefix("ed25519:") != Some(&public) || !is_unpadded_key(&public) {
            return Err(refused("has no Ed25519 key under its own name"));
        }
        object.remove("unsigned");
        // Whom others have verified is nobody's business, and what they say of it is not checked.
        if let Some(CanonicalJsonValue::Object(signatures)) = object.get_mut("signatures") {
            signatures.retain(|signer, _| signer == user_id.as_str());
        }
        let signed = signed_part(&object).ok_or_else(|| refused("is not canonical JSON"))?;
        let json = serde_json::to_vec(&object).map_err(ApiError::internal)?;
        Ok(Self { usage, json, public, signed, signatures: fields.signatures })
    }
}

/// The cross-signing keys that a user has.
pub(super) fn stored(reader: &Reader<'_>, user: &str) -> Result<Stored, ApiError> {
    let keys = Usage::ALL.map(|usage| usage.key(user));
    let rows = reader.get_many(&CROSS_SIGNING_KEYS, &keys)?;
    let rows = keys.iter().zip(rows).filter_map(|(key, row)| Some((key.usage, row?)));
    rows.map(|(usage, json)| {
        let public = public_key(&json, user)?;
        Ok((usage, (json, public)))
    })
    .collect()
}

/// The public part of a stored key of a user.
pub(super) fn public_key(json: &[u8], user: &str) -> Result<String, kv::Error> {
    #[derive(Deserialize)]
    struct Keys {
        keys: BTreeMap<String, String>,
    }
    let public =
        serde_json::from_slice(json).ok().and_then(|Keys { keys }| keys.into_values().next());
    public.ok_or_else(|| kv::Error::Corrupt {
        table: CROSS_SIGNING_KEYS.name,
        key: user.to_owned(),
        reason: "it has no key".to_owned(),
    })
}

impl Encryption {
    /// What an upload of cross-signing keys would do. The same is decided again when they are stored.
    pub async fn cross_signing_change(
        &self,
        user_id: &UserId,
        keys: &CrossSigningKeys,
    ) -> Result<KeyChange, ApiError> {
        let (user_id, keys) = (user_id.to_owned(), keys.clone());
        let read = self.0.store.read(move |reader| {
            let stored = stored(reader, user_id.as_str())?;
            keys.check_signatures(&user_id, &stored)?;
            Ok::<_, ApiError>(keys.change(&stored))
        });
        read.await
    }

    /// Stores cross-signing keys, as far as they do what the user may: where `allowed` is less than
    /// they do by now, nothing is stored and `false` is given.
    ///
    /// # Errors
    /// 400 `M_MISSING_PARAM` without a master key, 400 `M_INVALID_SIGNATURE`, 403 where a key has the
    /// name of a device.
    pub async fn set_cross_signing_keys(
        &self,
        user_id: &UserId,
        keys: CrossSigningKeys,
        allowed: KeyChange,
    ) -> Result<bool, ApiError> {
        let keys = Arc::new(keys);
        for _ in 0..ATTEMPTS {
            let (interner, keys) = (self.0.interner, Arc::clone(&keys));
            let of_user = user_id.to_owned();
            let read = self.0.store.read(move |reader| {
                let stored = stored(reader, of_user.as_str())?;
                keys.check_signatures(&of_user, &stored)?;
                match (keys.change(&stored), allowed) {
                    (KeyChange::Nothing, _) => return Ok(Some(None)),
                    (KeyChange::First, KeyChange::First) | (_, KeyChange::Replacement) => {}
                    _ => return Ok(None),
                }
                replace(reader, interner, (&of_user, &stored), &keys.0).map(Some).map(Some)
            });
            match read.await? {
                None => return Ok(false),
                Some(None) => return Ok(true),
                Some(Some((batch, told))) => {
                    if commit(&self.0.store, batch).await?.is_some() {
                        device_lists::settle(&self.0.store, self.0.interner, told).await?;
                        return Ok(true);
                    }
                }
            }
        }
        Err(busy())
    }
}

/// The batch that puts keys in the place of those that are stored, and removes what hangs on them.
fn replace(
    reader: &Reader<'_>,
    interner: Interner,
    (user_id, stored): (&UserId, &Stored),
    keys: &[NewKey],
) -> Result<(Batch, Told), ApiError> {
    let user = user_id.to_string();
    let mut batch = Batch::new();
    for usage in Usage::ALL {
        let before = stored.get(&(usage as u8)).map(|(json, _)| json);
        batch.check(&CROSS_SIGNING_KEYS, &usage.key(&user), before);
    }
    let public = |usage: Usage| stored.get(&(usage as u8)).map(|(_, public)| public);
    let is_new = |usage: Usage| {
        keys.iter().any(|key| key.usage == usage && public(usage) != Some(&key.public))
    };
    if is_new(Usage::Master) {
        // What the old master key signed, and who signed it, says nothing of the new one.
        batch.delete_range(&CROSS_SIGNING_KEYS, CROSS_SIGNING_KEYS.prefix(&user));
        batch.delete_range(&SIGNATURES, SIGNATURES.prefix(&user));
    } else if is_new(Usage::SelfSigning)
        && let Some(old) = public(Usage::SelfSigning)
    {
        let old = format!("ed25519:{old}");
        let range = SIGNATURES.prefix(&(user.clone(), user.clone()));
        let rows = reader.scan(&SIGNATURES, &range, Direction::Forward, usize::MAX)?;
        let of_old = rows.into_iter().filter(|(key, _): &(SignatureKey, _)| key.key_id == old);
        of_old.for_each(|(key, _)| batch.delete(&SIGNATURES, &key));
    }
    for key in keys {
        let device = DeviceKey { user_id: user.clone(), device_id: key.public.clone() };
        if names_device(reader, &mut batch, &device)? {
            return Err(ApiError::forbidden("A device has the same name as one of the keys"));
        }
        batch.put(&CROSS_SIGNING_KEYS, &key.usage.key(&user), &key.json);
    }
    check_active(reader, &mut batch, user_id)?;
    let told = mark(reader, &mut batch, interner, user_id)?;
    Ok((batch, told))
}

/// A 400 `M_INVALID_SIGNATURE`.
fn invalid_signature(message: String) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "M_INVALID_SIGNATURE", message)
}

//! Signatures that are uploaded on their own: by a user's self-signing key on their devices, by a
//! device on its user's master key, by a user-signing key on the master key of somebody else.
//!
//! Nothing else is taken, and nothing that does not verify (attack case T78). The signatures on the
//! own keys are shown to all; those on others' keys to the signer alone, whose other devices learn of
//! them from [`signed_since`].
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keyssignaturesupload>

use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc};

use kv::{Batch, Direction, Position, Reader};
use ruma::{CanonicalJsonObject, OwnedUserId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    ATTEMPTS, Encryption, busy, commit,
    cross_signing::{Stored, Usage, public_key, stored},
    device_lists::{self, Told, mark},
    signed_json::{Signatures, is_signed_by, signed_part},
};
use crate::{
    error::ApiError,
    id::Interner,
    storage::{
        schema::{
            encryption::{
                CROSS_SIGNING_KEYS, DEVICE_KEYS, LAST_OWN_SIGNATURES, OWN_SIGNATURE_CHANGES,
                OwnSignatureChangeKey, SIGNATURES, SignatureKey,
            },
            users::DeviceKey,
        },
        topic,
    },
};

/// The most keys that are signed with one request: each costs the checking of a signature.
const ENTRIES_MAX: usize = 500;
/// The most users whose master key one user signs.
const SIGNED_USERS_MAX: usize = 5_000;
/// The most signatures of one key that are looked at.
const SIGNATURES_MAX: usize = 100;

/// Signed keys by user, and by device id or public key.
pub type SignedKeys = BTreeMap<OwnedUserId, BTreeMap<String, Box<RawValue>>>;

/// Why a signature was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SignatureFailure {
    /// The code.
    pub errcode: &'static str,
    /// The reason, for people.
    pub error: &'static str,
}

/// What was not taken, by user and key.
pub type SignatureFailures = BTreeMap<OwnedUserId, BTreeMap<String, SignatureFailure>>;

const TOO_MANY: SignatureFailure =
    SignatureFailure { errcode: "M_LIMIT_EXCEEDED", error: "You have signed too many users" };
const NOT_FOUND: SignatureFailure =
    SignatureFailure { errcode: "M_NOT_FOUND", error: "There is no such key" };
const NOT_SIGNED: SignatureFailure = SignatureFailure {
    errcode: "M_INVALID_SIGNATURE",
    error: "There is no valid signature of a key that may sign this one",
};
const OTHER_KEY: SignatureFailure = SignatureFailure {
    errcode: "M_INVALID_SIGNATURE",
    error: "What is signed is not what the server knows under this name",
};

/// What an upload leads to.
#[derive(Default)]
struct Draft {
    batch: Batch,
    /// Whether something of the signer's own was signed.
    own: bool,
    others: Vec<String>,
    /// How many users the signer signed before, once that is known.
    signed_users: Option<usize>,
    failures: SignatureFailures,
}

/// A key with its new signatures.
#[derive(Deserialize)]
struct Signed {
    #[serde(default)]
    signatures: Signatures,
}

/// What is signed, as it is stored.
struct Target {
    user: String,
    /// The device id or public key.
    name: String,
    signed: String,
}

impl Encryption {
    /// Stores the signatures that `signer` made; gives what was not taken.
    pub async fn upload_signatures(
        &self,
        signer: &UserId,
        keys: SignedKeys,
    ) -> Result<SignatureFailures, ApiError> {
        if keys.values().map(BTreeMap::len).sum::<usize>() > ENTRIES_MAX {
            let message = format!("Sign at most {ENTRIES_MAX} keys at once");
            return Err(ApiError::invalid_param(message));
        }
        let keys = Arc::new(keys);
        for _ in 0..ATTEMPTS {
            let (interner, keys, signer) = (self.0.interner, Arc::clone(&keys), signer.to_owned());
            let read = self.0.store.read(move |reader| decide(reader, interner, &signer, &keys));
            let (draft, told) = read.await?;
            if draft.batch.is_empty() {
                return Ok(draft.failures);
            }
            if commit(&self.0.store, draft.batch).await?.is_some() {
                if let Some(told) = told {
                    device_lists::settle(&self.0.store, self.0.interner, told).await?;
                }
                return Ok(draft.failures);
            }
        }
        Err(busy())
    }
}

fn decide(
    reader: &Reader<'_>,
    interner: Interner,
    signer: &UserId,
    keys: &SignedKeys,
) -> Result<(Draft, Option<Told>), ApiError> {
    let own = stored(reader, signer.as_str())?;
    let mut draft = Draft::default();
    for (user_id, keys) in keys {
        for (name, raw) in keys {
            let added = draft.add(reader, (signer, &own), (user_id, name), raw)?;
            if let Err(failure) = added {
                let failures = draft.failures.entry(user_id.clone()).or_default();
                failures.insert(name.clone(), failure);
            }
        }
    }
    for (usage, (json, _)) in &own {
        if let Some(usage) = Usage::ALL.into_iter().find(|known| *known as u8 == *usage)
            && !draft.batch.is_empty()
        {
            draft.batch.check(&CROSS_SIGNING_KEYS, &usage.key(signer.as_str()), Some(json));
        }
    }
    if !draft.others.is_empty() {
        let (signer, now) = (signer.to_string(), Position::pending(0));
        draft.batch.put(&LAST_OWN_SIGNATURES, &signer, &now);
    }
    for target in std::mem::take(&mut draft.others) {
        let key = OwnSignatureChangeKey { signer: signer.to_string(), user_id: target };
        draft.batch.put(&OWN_SIGNATURE_CHANGES, &key, &Position::pending(0));
        draft.batch.touch(topic::user(topic::USER_DEVICES, interner.user(signer)));
    }
    let told = draft.own.then(|| mark(reader, &mut draft.batch, interner, signer)).transpose()?;
    Ok((draft, told))
}

impl Draft {
    /// Adds what is right of one entry.
    fn add(
        &mut self,
        reader: &Reader<'_>,
        (signer, own): (&UserId, &Stored),
        (user_id, name): (&UserId, &String),
        raw: &RawValue,
    ) -> Result<Result<(), SignatureFailure>, ApiError> {
        let Ok(Signed { signatures }) = serde_json::from_str(raw.get()) else {
            return Ok(Err(NOT_SIGNED));
        };
        let signatures = signatures.get(signer.as_str()).cloned().unwrap_or_default();
        let stored = if signer == user_id {
            own_target(reader, own, (signer, name))?
        } else {
            master_key(reader, user_id, name)?
        };
        let Some((kind, json)) = stored else { return Ok(Err(NOT_FOUND)) };
        let Some(target) = Target::of(raw, &json, (user_id, name)) else {
            return Ok(Err(OTHER_KEY));
        };
        let by = |usage: Usage| own.get(&(usage as u8)).map(|(_, public)| public.clone());
        let found = match kind {
            Kind::Device => target.signed_by(by(Usage::SelfSigning), &signatures),
            Kind::Master if signer == user_id => {
                target.signed_by_device(reader, &mut self.batch, &signatures)?
            }
            Kind::Master => target.signed_by(by(Usage::UserSigning), &signatures),
        };
        if found.is_empty() {
            return Ok(Err(NOT_SIGNED));
        }
        if signer != user_id && self.is_one_too_many(reader, (signer, user_id))? {
            return Ok(Err(TOO_MANY));
        }
        for (key_id, signature) in found {
            self.put(reader, signer, (&target, &json, kind), (key_id, signature))?;
        }
        Ok(Ok(()))
    }

    /// Whether the signer has signed as many others as one may, and not this one.
    fn is_one_too_many(
        &mut self,
        reader: &Reader<'_>,
        (signer, user_id): (&UserId, &UserId),
    ) -> Result<bool, kv::Error> {
        let signer = signer.to_string();
        let range = OWN_SIGNATURE_CHANGES.prefix(&signer);
        let key = OwnSignatureChangeKey { signer, user_id: user_id.to_string() };
        if reader.contains(&OWN_SIGNATURE_CHANGES, &key)? {
            return Ok(false);
        }
        let before = if let Some(count) = self.signed_users {
            count
        } else {
            let (limit, order) = (SIGNED_USERS_MAX, Direction::Forward);
            reader.scan(&OWN_SIGNATURE_CHANGES, &range, order, limit)?.len()
        };
        self.signed_users = Some(before);
        Ok(before + self.others.len() >= SIGNED_USERS_MAX)
    }

    /// Adds a signature, where it is new.
    fn put(
        &mut self,
        reader: &Reader<'_>,
        signer: &UserId,
        (target, json, kind): (&Target, &Vec<u8>, Kind),
        (key_id, signature): (String, String),
    ) -> Result<(), ApiError> {
        let Target { user, name, .. } = target;
        let (user_id, signer) = (user.clone(), signer.to_string());
        let is_own = user_id == signer;
        let key = SignatureKey { user_id, signer, target: name.clone(), key_id };
        let signature = signature.into_bytes();
        if reader.get(&SIGNATURES, &key)?.as_ref() == Some(&signature) {
            return Ok(());
        }
        if !is_own {
            // One row for each signer: what an older key signed says nothing any more.
            let range = SIGNATURES.prefix(&(key.user_id.clone(), key.signer.clone()));
            self.batch.delete_range(&SIGNATURES, range);
        }
        self.batch.put(&SIGNATURES, &key, &signature);
        // What is signed is still there when it is written.
        match kind {
            Kind::Device => {
                let device = DeviceKey { user_id: user.clone(), device_id: name.clone() };
                self.batch.check(&DEVICE_KEYS, &device, Some(json));
            }
            Kind::Master => {
                self.batch.check(&CROSS_SIGNING_KEYS, &Usage::Master.key(user), Some(json));
            }
        }
        if is_own {
            self.own = true;
        } else {
            self.others.push(user.clone());
        }
        Ok(())
    }
}

/// What can be signed.
#[derive(Clone, Copy)]
enum Kind {
    Device,
    Master,
}

/// A device of the signer, or their master key.
fn own_target(
    reader: &Reader<'_>,
    own: &Stored,
    (signer, name): (&UserId, &String),
) -> Result<Option<(Kind, Vec<u8>)>, kv::Error> {
    if let Some((json, public)) = own.get(&(Usage::Master as u8))
        && public == name
    {
        return Ok(Some((Kind::Master, json.clone())));
    }
    let device = DeviceKey { user_id: signer.to_string(), device_id: name.clone() };
    Ok(reader.get(&DEVICE_KEYS, &device)?.map(|json| (Kind::Device, json)))
}

/// The master key of somebody else.
fn master_key(
    reader: &Reader<'_>,
    user_id: &UserId,
    name: &String,
) -> Result<Option<(Kind, Vec<u8>)>, kv::Error> {
    let json = reader.get(&CROSS_SIGNING_KEYS, &Usage::Master.key(user_id.as_str()))?;
    match json {
        Some(json) if public_key(&json, user_id.as_str())? == *name => {
            Ok(Some((Kind::Master, json)))
        }
        _ => Ok(None),
    }
}

impl Target {
    /// What is uploaded must be what is stored, but for its signatures.
    fn of(raw: &RawValue, stored: &[u8], (user_id, name): (&UserId, &String)) -> Option<Self> {
        let uploaded: CanonicalJsonObject = serde_json::from_str(raw.get()).ok()?;
        let stored: CanonicalJsonObject = serde_json::from_slice(stored).ok()?;
        let signed = signed_part(&stored)?;
        (signed_part(&uploaded)? == signed).then(|| Self {
            user: user_id.to_string(),
            name: name.clone(),
            signed,
        })
    }

    /// The signature by a key, if it is there and right.
    fn signed_by(
        &self,
        public: Option<String>,
        signatures: &BTreeMap<String, String>,
    ) -> Vec<(String, String)> {
        let Some(public) = public else { return Vec::new() };
        let key_id = format!("ed25519:{public}");
        let signature = signatures.get(&key_id);
        let valid = signature.filter(|signature| is_signed_by(&self.signed, &public, signature));
        valid.map(|signature| (key_id, signature.clone())).into_iter().collect()
    }

    /// The right signatures by devices of the user.
    fn signed_by_device(
        &self,
        reader: &Reader<'_>,
        batch: &mut Batch,
        signatures: &BTreeMap<String, String>,
    ) -> Result<Vec<(String, String)>, kv::Error> {
        #[derive(Deserialize)]
        struct Keys {
            keys: BTreeMap<String, String>,
        }
        let mut found = Vec::new();
        for (key_id, signature) in signatures.iter().take(SIGNATURES_MAX) {
            let Some(device_id) = key_id.strip_prefix("ed25519:") else { continue };
            let device = DeviceKey { user_id: self.user.clone(), device_id: device_id.to_owned() };
            let Some(json) = reader.get(&DEVICE_KEYS, &device)? else { continue };
            let keys = serde_json::from_slice::<Keys>(&json).map(|device| device.keys);
            let key = keys.ok().and_then(|mut keys| keys.remove(key_id));
            if key.is_some_and(|key| is_signed_by(&self.signed, &key, signature)) {
                // A device that ends meanwhile takes its signatures along.
                batch.check(&DEVICE_KEYS, &device, Some(&json));
                found.push((key_id.clone(), signature.clone()));
            }
        }
        Ok(found)
    }
}

/// Adds to a batch that what was signed of a device goes, and what the device signed.
pub(super) fn forget_device(
    reader: &Reader<'_>,
    batch: &mut Batch,
    device: &DeviceKey,
) -> Result<(), kv::Error> {
    let user = &device.user_id;
    let on_device = (user.clone(), user.clone(), device.device_id.clone());
    batch.delete_range(&SIGNATURES, SIGNATURES.prefix(&on_device));
    let master = reader.get(&CROSS_SIGNING_KEYS, &Usage::Master.key(user))?;
    if let Some(json) = master {
        let target = public_key(&json, user)?;
        let (user_id, signer) = (user.clone(), user.clone());
        let key_id = format!("ed25519:{}", device.device_id);
        batch.delete(&SIGNATURES, &SignatureKey { user_id, signer, target, key_id });
    }
    Ok(())
}

/// Adds to a batch that what a user signed of others goes. O(users whom they have ever signed).
pub(super) fn forget_signer(
    reader: &Reader<'_>,
    batch: &mut Batch,
    signer: &String,
) -> Result<(), kv::Error> {
    let range = OWN_SIGNATURE_CHANGES.prefix(signer);
    for (signed, _) in
        reader.scan(&OWN_SIGNATURE_CHANGES, &range, Direction::Forward, usize::MAX)?
    {
        let range = SIGNATURES.prefix(&(signed.user_id, signer.clone()));
        for (key, _) in reader.scan(&SIGNATURES, &range, Direction::Forward, usize::MAX)? {
            batch.delete(&SIGNATURES, &key);
        }
    }
    batch.delete_range(&OWN_SIGNATURE_CHANGES, range);
    batch.delete(&LAST_OWN_SIGNATURES, signer);
    Ok(())
}

/// The users whose master key `signer` signed after `since`: the signer's devices must learn of it.
/// O(users whom the signer has ever signed) when there are any, one row else.
pub fn signed_since(
    reader: &Reader<'_>,
    signer: &UserId,
    since: Position,
) -> Result<Vec<String>, kv::Error> {
    let (signer, mut users) = (signer.to_string(), Vec::new());
    if reader.get(&LAST_OWN_SIGNATURES, &signer)?.is_none_or(|last| last <= since) {
        return Ok(users);
    }
    let range = OWN_SIGNATURE_CHANGES.prefix(&signer);
    reader.for_each(&OWN_SIGNATURE_CHANGES, &range, Direction::Forward, |key, position| {
        if position > since {
            users.push(key.user_id);
        }
        ControlFlow::Continue(())
    })?;
    Ok(users)
}

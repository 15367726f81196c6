//! `/keys/query`: the identity keys of devices and the cross-signing keys of their users.
//!
//! The answer is written as JSON from the JSON that is stored, since a client that comes back asks for
//! hundreds of devices: a device's name and the signatures of others are spliced in. It is sent as it
//! is written, since a few users with many large keys would else fill the memory.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysquery>

mod answer;

use std::{
    collections::{BTreeMap, HashMap},
    ops::ControlFlow,
};

use kv::{Direction, Json, Reader};
use ruma::{OwnedDeviceId, OwnedUserId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use self::answer::Answering;
use super::{
    Encryption, PagedJson,
    signed::{CrossSigningKeys, cross_signing_keys, device_signatures},
    signed_json::Signatures,
};
use crate::{
    error::ApiError,
    storage::schema::{
        encryption::{DEHYDRATED_DEVICES, DEVICE_KEYS},
        users::{DEVICES, DeviceKey},
    },
};

/// The most users whose keys are asked for at once.
const USERS_MAX: usize = 5_000;

/// A user and the devices that are wanted; none named means all.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) user_id: OwnedUserId,
    pub(super) devices: Vec<OwnedDeviceId>,
    told: ToldKeys,
}

/// The keys of a user as the application service tells that keeps them: they go before those that
/// are stored.
#[derive(Clone, Debug, Default)]
pub(super) struct ToldKeys {
    /// The devices with their keys as JSON and their names, by device id.
    pub(super) devices: BTreeMap<String, (Vec<u8>, Option<String>)>,
    pub(super) cross_signing: CrossSigningKeys,
}

impl ToldKeys {
    pub(super) fn is_empty(&self) -> bool {
        let CrossSigningKeys { master, self_signing, user_signing } = &self.cross_signing;
        self.devices.is_empty()
            && master.is_none()
            && self_signing.is_none()
            && user_signing.is_none()
    }

    fn merge_devices(&self, devices: &mut Vec<(String, Vec<u8>)>) {
        devices.retain(|(device_id, _)| !self.devices.contains_key(device_id));
        let told = self.devices.iter();
        devices.extend(told.map(|(device_id, (json, _))| (device_id.clone(), json.clone())));
        devices.sort_unstable();
    }

    fn merge_cross_signing(&self, keys: CrossSigningKeys) -> CrossSigningKeys {
        let told = self.cross_signing.clone();
        CrossSigningKeys {
            master: told.master.or(keys.master),
            self_signing: told.self_signing.or(keys.self_signing),
            user_signing: told.user_signing.or(keys.user_signing),
        }
    }
}

/// What one user shows to another.
#[derive(Clone, Debug)]
pub(super) struct UserKeys {
    user_id: OwnedUserId,
    /// The devices with their keys as JSON, by device id.
    devices: Vec<(String, Vec<u8>)>,
    cross_signing: CrossSigningKeys,
}

/// Reads all that `asker` may see of a user's keys: those of devices, dehydrated ones too, with the
/// signatures that were uploaded for them, and the cross-signing keys.
pub(super) fn user_keys(
    reader: &Reader<'_>,
    target: &Target,
    asker: &UserId,
    names_visible: bool,
) -> Result<UserKeys, kv::Error> {
    let user_id = &target.user_id;
    let mut devices = device_keys(reader, target)?;
    target.told.merge_devices(&mut devices);
    if !devices.is_empty() {
        let mut signatures = signatures(reader, user_id)?;
        let mut names = HashMap::new();
        if names_visible || user_id == asker {
            names = device_names(reader, user_id, &devices)?;
            let told = target.told.devices.iter();
            names.extend(told.filter_map(|(id, (_, name))| Some((id.clone(), name.clone()?))));
        }
        for (device_id, json) in &mut devices {
            if let Some(more) = signatures.remove(device_id) {
                add_signatures(json, more);
            }
            add_unsigned(json, names.get(device_id).map(String::as_str));
        }
    }
    let cross_signing = cross_signing_keys(reader, user_id, asker)?;
    let cross_signing = target.told.merge_cross_signing(cross_signing);
    Ok(UserKeys { user_id: user_id.clone(), devices, cross_signing })
}

fn device_keys(reader: &Reader<'_>, target: &Target) -> Result<Vec<(String, Vec<u8>)>, kv::Error> {
    let user = target.user_id.to_string();
    if target.devices.is_empty() {
        let rows = reader.scan(
            &DEVICE_KEYS,
            &DEVICE_KEYS.prefix(&user),
            Direction::Forward,
            usize::MAX,
        )?;
        return Ok(rows.into_iter().map(|(key, json)| (key.device_id, json)).collect());
    }
    let mut ids: Vec<_> = target.devices.iter().map(ToString::to_string).collect();
    ids.sort_unstable();
    ids.dedup();
    let key = |id: &String| DeviceKey { user_id: user.clone(), device_id: id.clone() };
    let rows = reader.get_many(&DEVICE_KEYS, &ids.iter().map(key).collect::<Vec<_>>())?;
    Ok(ids.into_iter().zip(rows).filter_map(|(id, json)| Some((id, json?))).collect())
}

/// The names of devices that have one.
fn device_names(
    reader: &Reader<'_>,
    user_id: &UserId,
    devices: &[(String, Vec<u8>)],
) -> Result<HashMap<String, String>, kv::Error> {
    let user = user_id.to_string();
    let mut names = HashMap::new();
    let mut count = 0;
    reader.for_each(&DEVICES, &DEVICES.prefix(&user), Direction::Forward, |key, Json(row)| {
        count += 1;
        if let Some(name) = row.display_name {
            names.insert(key.device_id, name);
        }
        ControlFlow::Continue(())
    })?;
    // A dehydrated one is no session: it stands elsewhere, and is looked for where one could be.
    let may_be_dehydrated =
        devices.len() > count || devices.iter().any(|d| !names.contains_key(&d.0));
    if may_be_dehydrated
        && let Some(Json(dehydrated)) = reader.get(&DEHYDRATED_DEVICES, &user)?
        && let Some(name) = dehydrated.display_name
    {
        names.insert(dehydrated.device_id, name);
    }
    Ok(names)
}

/// The signatures on a user's devices that were uploaded on their own, by device.
fn signatures(
    reader: &Reader<'_>,
    target: &UserId,
) -> Result<HashMap<String, Signatures>, kv::Error> {
    let mut signatures: HashMap<String, Signatures> = HashMap::new();
    for (device_id, signer, key_id, signature) in device_signatures(reader, target)? {
        let device = signatures.entry(device_id).or_default();
        device.entry(signer).or_default().insert(key_id, signature);
    }
    Ok(signatures)
}

/// Adds signatures to keys. The rest of the JSON is skipped over, not read.
pub(super) fn add_signatures(json: &mut Vec<u8>, more: Signatures) {
    #[derive(Deserialize)]
    struct Signed<'a> {
        #[serde(borrow)]
        signatures: Option<&'a RawValue>,
    }

    let Ok(text) = std::str::from_utf8(json) else { return };
    let Ok(Signed { signatures: raw }) = serde_json::from_str(text) else { return };
    let Some(raw) = raw else {
        add_field(json, "signatures", &more);
        return;
    };
    let Ok(mut signatures) = serde_json::from_str::<Signatures>(raw.get()) else { return };
    let start = raw.get().as_ptr().addr() - text.as_ptr().addr();
    let end = start + raw.get().len();
    for (signer, keys) in more {
        signatures.entry(signer).or_default().extend(keys);
    }
    json.splice(start..end, to_json(&signatures));
}

/// Adds what this server says of a device. Stored keys have no `unsigned`.
fn add_unsigned(json: &mut Vec<u8>, name: Option<&str>) {
    #[derive(Serialize)]
    struct Unsigned<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        device_display_name: Option<&'a str>,
    }

    add_field(json, "unsigned", &Unsigned { device_display_name: name });
}

/// Adds a field to an object that has others, but not this one.
fn add_field(json: &mut Vec<u8>, name: &str, value: &impl Serialize) {
    if json.pop_if(|last| *last == b'}').is_some() {
        json.extend_from_slice(b",");
        json.extend(to_json(name));
        json.push(b':');
        json.extend(to_json(value));
        json.push(b'}');
    }
}

fn to_json(value: &(impl Serialize + ?Sized)) -> Vec<u8> {
    serde_json::to_vec(value).expect("strings and maps of strings are JSON")
}

impl Encryption {
    /// The answer to `/keys/query` as JSON, for users of this server; of others, nothing is known. A
    /// user without keys has an empty entry, and so has one that does not exist: nobody learns who
    /// does.
    pub async fn query_keys(
        &self,
        asker: &UserId,
        wanted: BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>,
    ) -> Result<PagedJson, ApiError> {
        if wanted.len() > USERS_MAX {
            let message = format!("Ask for the keys of at most {USERS_MAX} users at once");
            return Err(ApiError::invalid_param(message));
        }
        let is_here = |user: &UserId| user.server_name() == self.0.server_name;
        let wanted = wanted.into_iter().filter(|(user_id, _)| is_here(user_id));
        let target = |(user_id, devices)| Target { user_id, devices, told: ToldKeys::default() };
        let mut wanted: Vec<_> = wanted.map(target).collect();
        let mut told = self.0.ask_for_keys(asker, &wanted).await;
        for target in &mut wanted {
            target.told = told.remove(&target.user_id).unwrap_or_default();
        }
        Answering::new(self.clone(), asker.to_owned(), wanted.into()).begin().await
    }
}

#[cfg(test)]
mod tests;

//! Devices: listing, naming and removing them. A device that is removed loses its sessions.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#device-management>

use std::cmp::Reverse;

use kv::{Batch, Direction, Json, Reader, Store};
use ruma::{DeviceId, OwnedDeviceId, UserId};

use super::{
    accounts::{ATTEMPTS, busy, commit},
    pushers::end_with_devices,
    sessions::{KIND_ACCESS, Sessions, device_key},
};
use crate::{
    config::Config,
    encryption::{
        check_new_device,
        device_lists::{Told, mark, settle},
        end_devices,
    },
    error::ApiError,
    id::Interner,
    storage::{
        rows::users::{DeviceRow, DeviceSeenRow},
        schema::{
            encryption::DEVICE_KEYS,
            users::{
                ACCESS_TOKENS, DEVICE_TOKENS, DEVICES, DEVICES_SEEN, DeviceKey, REFRESH_FAMILIES,
            },
        },
        topic,
    },
};

/// The longest id a client may choose for its device.
pub const DEVICE_ID_BYTES_MAX: usize = 255;

/// More tokens than this a device cannot have: the newest, the one before, and their family.
const TOKENS_MAX: usize = 64;

/// Which devices of a user.
#[derive(Clone, Copy, Debug)]
pub enum Selection<'a> {
    /// These, as far as they exist.
    These(&'a [OwnedDeviceId]),
    /// All.
    All,
    /// All but the one that asks.
    AllBut(&'a DeviceId),
}

impl Selection<'_> {
    fn has(&self, device_id: &str) -> bool {
        match self {
            Self::These(devices) => devices.iter().any(|device| device.as_str() == device_id),
            Self::All => true,
            Self::AllBut(kept) => kept.as_str() != device_id,
        }
    }
}

/// A device with what is known of it.
#[derive(Clone, Debug)]
pub struct KnownDevice {
    /// Its id.
    pub device_id: OwnedDeviceId,
    /// Its row.
    pub row: DeviceRow,
    /// When and where from it was last seen.
    pub seen: Option<DeviceSeenRow>,
}

/// Lists, names and removes devices.
#[derive(Clone)]
pub struct Devices {
    store: Store,
    interner: Interner,
    sessions: Sessions,
    name_bytes_max: usize,
    /// Whether others see the names.
    names_visible: bool,
}

impl Devices {
    pub(super) fn new(
        store: Store,
        interner: Interner,
        sessions: Sessions,
        config: &Config,
    ) -> Self {
        let name_bytes_max = config.limits.device_name_size_bytes_max;
        let names_visible = config.encryption.device_names_visible;
        Self { store, interner, sessions, name_bytes_max, names_visible }
    }

    /// All devices of a user.
    pub async fn list(&self, user_id: &UserId) -> Result<Vec<KnownDevice>, ApiError> {
        let user = user_id.to_string();
        Ok(self.store.read(move |reader| known(reader, &user)).await?)
    }

    /// One device of a user.
    pub async fn get(
        &self,
        user_id: &UserId,
        device_id: &DeviceId,
    ) -> Result<Option<KnownDevice>, ApiError> {
        let key = device_key(user_id, device_id.as_str());
        let device_id = device_id.to_owned();
        let read = self.store.read(move |reader| {
            let Some(Json(row)) = reader.get(&DEVICES, &key)? else { return Ok(None) };
            let seen = reader.get(&DEVICES_SEEN, &key)?.map(|Json(seen)| seen);
            Ok::<_, kv::Error>(Some(KnownDevice { device_id: device_id.clone(), row, seen }))
        });
        Ok(read.await?)
    }

    /// Names a device.
    pub async fn rename(
        &self,
        user_id: &UserId,
        device_id: &DeviceId,
        name: Option<String>,
    ) -> Result<(), ApiError> {
        if name.as_ref().is_some_and(|name| name.len() > self.name_bytes_max) {
            return Err(too_large("The name of the device is too long"));
        }
        let key = device_key(user_id, device_id.as_str());
        for _ in 0..ATTEMPTS {
            let known = self.get(user_id, device_id).await?;
            let old = known.ok_or_else(|| ApiError::not_found("There is no such device"))?.row;
            // Without a name there is nothing to change; an empty one takes it away.
            let Some(name) = &name else { return Ok(()) };
            let display_name = Some(name.clone()).filter(|name| !name.is_empty());
            if display_name == old.display_name {
                return Ok(());
            }
            let mut batch = Batch::new();
            batch.check(&DEVICES, &key, Some(&Json(old.clone())));
            batch.put(&DEVICES, &key, &Json(DeviceRow { display_name, ..old }));
            batch.touch(topic::user(topic::USER_DEVICES, self.interner.user(user_id)));
            let (more, told) = self.tell_name(user_id, key.clone()).await?;
            batch.append(more);
            if commit(&self.store, batch).await?.is_some() {
                return match told {
                    Some(told) => settle(&self.store, self.interner, told).await,
                    None => Ok(()),
                };
            }
        }
        Err(busy())
    }

    /// What a batch holds that gives a device another name: those who see it with the device's keys
    /// are told.
    async fn tell_name(
        &self,
        user_id: &UserId,
        key: DeviceKey,
    ) -> Result<(Batch, Option<Told>), ApiError> {
        if !self.names_visible {
            return Ok((Batch::new(), None));
        }
        let (interner, user_id) = (self.interner, user_id.to_owned());
        let read = self.store.read(move |reader| {
            let mut batch = Batch::new();
            if !reader.contains(&DEVICE_KEYS, &key)? {
                // They may come at any time.
                batch.check_absent(&DEVICE_KEYS, &key);
                return Ok((batch, None));
            }
            let told = mark(reader, &mut batch, interner, &user_id)?;
            Ok::<_, kv::Error>((batch, Some(told)))
        });
        Ok(read.await?)
    }

    /// Makes a device that has no session, for an application service. `false`: it is there already.
    pub async fn create(
        &self,
        user_id: &UserId,
        device_id: &DeviceId,
        name: Option<&str>,
        created_ts: u64,
    ) -> Result<bool, ApiError> {
        if device_id.as_str().is_empty() || device_id.as_str().len() > DEVICE_ID_BYTES_MAX {
            return Err(ApiError::invalid_param("The device id is empty or too long"));
        }
        if self.get(user_id, device_id).await?.is_some() {
            return Ok(false);
        }
        self.sessions.make_room(user_id, device_id).await?;
        let key = device_key(user_id, device_id.as_str());
        let display_name = name.map(|name| cut_name(name, self.name_bytes_max));
        let device = key.clone();
        let read = self.store.read(move |reader| {
            let mut batch = Batch::new();
            check_new_device(reader, &mut batch, &device)?;
            Ok::<_, ApiError>(batch)
        });
        let mut batch = read.await?;
        batch.check_absent(&DEVICES, &key);
        batch.put(&DEVICES, &key, &Json(DeviceRow { display_name, created_ts, revision: 0 }));
        batch.touch(topic::user(topic::USER_DEVICES, self.interner.user(user_id)));
        Ok(commit(&self.store, batch).await?.is_some())
    }

    /// Removes devices and ends their sessions before it returns.
    pub async fn remove(&self, user_id: &UserId, selection: Selection<'_>) -> Result<(), ApiError> {
        remove(&self.store, &self.sessions, self.interner, user_id, selection).await
    }
}

/// [`Devices::remove`], for the sessions that it stands on.
pub(super) async fn remove(
    store: &Store,
    sessions: &Sessions,
    interner: Interner,
    user_id: &UserId,
    selection: Selection<'_>,
) -> Result<(), ApiError> {
    for _ in 0..ATTEMPTS {
        let user = user_id.to_string();
        let devices = store.read(move |reader| {
            let range = DEVICES.prefix(&user);
            reader.scan(&DEVICES, &range, Direction::Forward, usize::MAX)
        });
        let devices: Vec<_> = devices.await?;
        let chosen: Vec<_> =
            devices.into_iter().filter(|(key, _)| selection.has(&key.device_id)).collect();
        if chosen.is_empty() {
            return Ok(());
        }
        let user = user_id.to_owned();
        let read = store.read(move |reader| {
            let mut batch = Batch::new();
            let mut ended = Vec::new();
            let ids = chosen.iter().map(|(key, _)| key.device_id.clone()).collect();
            end_with_devices(reader, &mut batch, interner, (&user, &ids))?;
            let told = end_devices(reader, &mut batch, interner, (&user, &ids))?;
            for (key, row) in &chosen {
                batch.check(&DEVICES, key, Some(row));
                batch.delete(&DEVICES, key);
                batch.delete(&DEVICES_SEEN, key);
                ended.extend(end_tokens(reader, &mut batch, key)?);
            }
            Ok::<_, kv::Error>((batch, ended, told))
        });
        let (mut batch, ended, told) = read.await?;
        let user = interner.user(user_id);
        batch.touch(topic::user(topic::USER_SESSIONS, user));
        batch.touch(topic::user(topic::USER_DEVICES, user));
        if commit(store, batch).await?.is_some() {
            sessions.forget(&ended);
            if let Some(told) = told {
                settle(store, interner, told).await?;
            }
            return Ok(());
        }
    }
    Err(busy())
}

/// Writes the end of all tokens of a device; gives the access tokens among them.
pub(super) fn end_tokens(
    reader: &Reader<'_>,
    batch: &mut Batch,
    device: &DeviceKey,
) -> Result<Vec<[u8; 32]>, kv::Error> {
    let range = DEVICE_TOKENS.prefix(&(device.user_id.clone(), device.device_id.clone()));
    let tokens = reader.scan(&DEVICE_TOKENS, &range, Direction::Forward, TOKENS_MAX)?;
    let mut ended = Vec::new();
    for (key, ()) in tokens {
        if key.kind == KIND_ACCESS {
            batch.delete(&ACCESS_TOKENS, &key.hash);
            ended.push(key.hash);
        } else {
            batch.delete(&REFRESH_FAMILIES, &key.hash);
        }
        batch.delete(&DEVICE_TOKENS, &key);
    }
    Ok(ended)
}

/// The device to remove so that `device` fits among the user's.
pub(super) fn oldest_beyond(
    reader: &Reader<'_>,
    user: &str,
    device: &str,
    devices_max: usize,
) -> Result<Option<OwnedDeviceId>, kv::Error> {
    let devices = known(reader, &user.to_owned())?;
    let exists = devices.iter().any(|known| known.device_id.as_str() == device);
    if exists || devices.len() < devices_max.max(1) {
        return Ok(None);
    }
    let last_seen =
        |known: &KnownDevice| known.seen.as_ref().map_or(known.row.created_ts, |seen| seen.ts);
    let oldest = devices.into_iter().max_by_key(|known| Reverse(last_seen(known)));
    Ok(oldest.map(|known| known.device_id))
}

fn known(reader: &Reader<'_>, user: &String) -> Result<Vec<KnownDevice>, kv::Error> {
    let rows = reader.scan(&DEVICES, &DEVICES.prefix(user), Direction::Forward, usize::MAX)?;
    let keys: Vec<_> = rows.iter().map(|(key, _)| key.clone()).collect();
    let seen = reader.get_many(&DEVICES_SEEN, &keys)?;
    let devices = rows.into_iter().zip(seen).map(|((key, Json(row)), seen)| KnownDevice {
        device_id: key.device_id.into(),
        row,
        seen: seen.map(|Json(seen)| seen),
    });
    Ok(devices.collect())
}

/// A device's name, cut where it is too long.
pub(super) fn cut_name(name: &str, bytes_max: usize) -> String {
    name[..name.floor_char_boundary(bytes_max)].to_owned()
}

/// A 400 `M_TOO_LARGE`, which is what small things answer (413 is for bodies).
pub(super) fn too_large(message: &'static str) -> ApiError {
    ApiError::new(http::StatusCode::BAD_REQUEST, "M_TOO_LARGE", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_between_characters() {
        assert_eq!(cut_name("phone", 100), "phone");
        assert_eq!(cut_name("größe", 3), "gr");
        assert_eq!(cut_name("größe", 4), "grö");
    }
}

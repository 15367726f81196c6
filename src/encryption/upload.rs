//! `/keys/upload`: a device's identity keys, one-time keys and fallback keys in one batch.
//!
//! The same upload again changes nothing, also when keys of it were handed out meanwhile. One-time
//! keys of one upload keep the order of its JSON; the specification has them equal to each other, but
//! clients count up, and the older key is the one to be used first.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysupload>

use std::{collections::BTreeMap, fmt, marker::PhantomData, sync::Arc};

use kv::{Batch, Position, Reader};
use ruma::{DeviceId, UserId};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    ATTEMPTS, Encryption, busy, commit,
    device_keys::NewDeviceKeys,
    device_lists::{self, Told, mark},
    fallback_keys, key_counts,
    one_time_keys::{self, NewKey},
};
use crate::{
    config::EncryptionConfig,
    error::ApiError,
    id::Interner,
    storage::{
        schema::{
            encryption::KEY_COUNT_CHANGES,
            users::{DEVICES, DeviceKey},
        },
        topic,
    },
};

/// What a client uploads. Absent and null are the same.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Upload<'a> {
    /// The identity keys.
    #[serde(borrow, rename = "device_keys")]
    device: Option<&'a RawValue>,
    /// One-time keys by their ids.
    #[serde(borrow, rename = "one_time_keys")]
    one_time: Option<Entries<'a>>,
    /// Fallback keys by their ids.
    #[serde(borrow, rename = "fallback_keys")]
    fallback: Option<Entries<'a>>,
    /// The same, as clients named them before version 1.2.
    #[serde(borrow, rename = "org.matrix.msc2732.fallback_keys")]
    old_fallback: Option<Entries<'a>>,
}

impl Upload<'_> {
    /// Whether there are identity keys in it.
    pub const fn has_device_keys(&self) -> bool {
        self.device.is_some()
    }
}

/// The fields of an object in their order.
#[derive(Debug, Default)]
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(InOrder(PhantomData))
    }
}

/// Reads [`Entries`].
struct InOrder<'a>(PhantomData<&'a RawValue>);

impl<'de: 'a, 'a> Visitor<'de> for InOrder<'a> {
    type Value = Entries<'a>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of keys")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Entries(entries))
    }
}

impl Entries<'_> {
    fn keys(&self) -> Result<Vec<NewKey>, ApiError> {
        self.0.iter().map(|(id, raw)| NewKey::parse(id, raw)).collect()
    }
}

/// Keys that are what they should be, and how many there may be.
#[derive(Clone, Debug)]
pub(super) struct NewKeys {
    device_keys: Option<NewDeviceKeys>,
    one_time_keys: Vec<NewKey>,
    fallback_keys: Vec<NewKey>,
    one_time_keys_max: usize,
}

impl NewKeys {
    /// Reads an upload for `device`.
    pub(super) fn parse(
        upload: &Upload<'_>,
        device: &DeviceKey,
        config: &EncryptionConfig,
    ) -> Result<Self, ApiError> {
        let device_keys =
            upload.device.map(|raw| NewDeviceKeys::parse(raw, device, config)).transpose()?;
        let keys = |entries: &Option<Entries<'_>>| {
            entries.as_ref().map(Entries::keys).transpose().map(Option::unwrap_or_default)
        };
        let mut fallback_keys = keys(&upload.fallback)?;
        if fallback_keys.is_empty() {
            fallback_keys = keys(&upload.old_fallback)?;
        }
        fallback_keys::check_one_each(&fallback_keys)?;
        let one_time_keys = keys(&upload.one_time)?;
        let one_time_keys_max = config.one_time_keys_max;
        Ok(Self { device_keys, one_time_keys, fallback_keys, one_time_keys_max })
    }

    /// Adds the keys to a batch, as far as they are new. Gives who must be told, where the identity
    /// keys change: see [`device_lists::settle`].
    pub(super) fn put(
        &self,
        reader: &Reader<'_>,
        batch: &mut Batch,
        interner: Interner,
        (user_id, device): (&UserId, &DeviceKey),
    ) -> Result<Option<Told>, ApiError> {
        let mut told = None;
        if let Some(keys) = &self.device_keys
            && keys.put(reader, batch, device)?
        {
            told = Some(mark(reader, batch, interner, user_id)?);
        }
        let keys_max = self.one_time_keys_max;
        let added = one_time_keys::add(reader, batch, device, &self.one_time_keys, keys_max)?;
        let replaced = fallback_keys::replace(reader, batch, device, &self.fallback_keys)?;
        if added || replaced {
            counts_change(batch, interner, user_id, device);
        }
        Ok(told)
    }
}

/// Adds to a batch that the counts of a device's keys change, and wakes the device.
pub(super) fn counts_change(
    batch: &mut Batch,
    interner: Interner,
    user_id: &UserId,
    device: &DeviceKey,
) {
    batch.put(&KEY_COUNT_CHANGES, device, &Position::pending(0));
    batch.touch(topic::user(topic::USER_DEVICES, interner.user(user_id)));
}

impl Encryption {
    /// Stores what a device uploads; gives how many one-time keys of each algorithm wait then.
    pub async fn upload_keys(
        &self,
        user_id: &UserId,
        device_id: &DeviceId,
        upload: &Upload<'_>,
    ) -> Result<BTreeMap<String, u64>, ApiError> {
        if device_id.as_str().is_empty() {
            let message = "Keys are those of a device: name one with `device_id`";
            return Err(ApiError::invalid_param(message));
        }
        let device = DeviceKey { user_id: user_id.to_string(), device_id: device_id.to_string() };
        let keys = Arc::new(NewKeys::parse(upload, &device, &self.0.config)?);
        for _ in 0..ATTEMPTS {
            let Some((mut batch, told)) = self.decide_upload(user_id, &device, &keys).await? else {
                return self.one_time_key_counts(user_id, device_id).await;
            };
            self.0.tell_counts(&mut batch, &device);
            if commit(&self.0.store, batch).await?.is_some() {
                if let Some(told) = told {
                    device_lists::settle(&self.0.store, self.0.interner, told).await?;
                }
                return self.one_time_key_counts(user_id, device_id).await;
            }
        }
        Err(busy())
    }

    /// What an upload writes; `None`: all is there already.
    async fn decide_upload(
        &self,
        user_id: &UserId,
        device: &DeviceKey,
        keys: &Arc<NewKeys>,
    ) -> Result<Option<(Batch, Option<Told>)>, ApiError> {
        let (interner, keys) = (self.0.interner, Arc::clone(keys));
        let (user_id, device) = (user_id.to_owned(), device.clone());
        let read = self.0.store.read(move |reader| {
            let gone = || ApiError::unknown_token("The session has ended", false);
            let row = reader.get(&DEVICES, &device)?.ok_or_else(gone)?;
            let mut batch = Batch::new();
            let told = keys.put(reader, &mut batch, interner, (&user_id, &device))?;
            // Nothing is left behind for a device that is removed meanwhile.
            batch.check(&DEVICES, &device, Some(&row));
            Ok::<_, ApiError>((!batch.is_empty()).then_some((batch, told)))
        });
        read.await
    }

    async fn one_time_key_counts(
        &self,
        user_id: &UserId,
        device_id: &DeviceId,
    ) -> Result<BTreeMap<String, u64>, ApiError> {
        let (user_id, device_id) = (user_id.to_owned(), device_id.to_owned());
        let read = self.0.store.read(move |reader| key_counts(reader, &user_id, &device_id));
        Ok(read.await?.one_time_keys)
    }
}

//! Pushers: where the notifications of a user's devices go. Sending them is `push_gateway`'s.
//!
//! A pusher ends with the device that set it: the batch that removes the device removes it too, and
//! one is only set while its device is there (attack case T67).
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3pushersset>

use std::collections::BTreeSet;

use kv::{Batch, Direction, Json, Reader, Store};
use ruma::{DeviceId, OwnedUserId, UserId};
use serde_json::{Map, Value};
use url::Url;

use super::{
    accounts::{ATTEMPTS, busy, commit},
    now_ms,
    sessions::device_key,
};
use crate::{
    config::Config,
    error::ApiError,
    id::Interner,
    storage::{
        rows::push::PusherRow,
        schema::{
            pushers::{PUSHERS, PUSHERS_BY_KEY, PusherByKey, PusherKey},
            users::DEVICES,
        },
        topic,
    },
    time::Clock,
};

/// The longest push key.
const PUSHKEY_BYTES_MAX: usize = 512;
/// The longest id of an application.
const APP_ID_BYTES_MAX: usize = 64;
/// The longest name, language or address.
const TEXT_BYTES_MAX: usize = 1_024;
/// The largest custom data, as JSON.
const DATA_BYTES_MAX: usize = 4_096;
/// The path that every gateway has.
const GATEWAY_PATH: &str = "/_matrix/push/v1/notify";

/// A pusher as a client sets it.
#[derive(Clone, Debug)]
pub struct NewPusher {
    /// The application.
    pub app_id: String,
    /// What the application's provider knows the device by.
    pub pushkey: String,
    /// The name of the application.
    pub app_display_name: String,
    /// The name of the device.
    pub device_display_name: String,
    /// The language.
    pub lang: String,
    /// Which of the device's rules are meant.
    pub profile_tag: Option<String>,
    /// The address of the gateway.
    pub url: String,
    /// How much of an event is told.
    pub format: Option<String>,
    /// What else the client wants its gateway to know.
    pub data: Map<String, Value>,
    /// Whether other users may keep their pushers with the same key.
    pub append: bool,
}

/// Sets and lists pushers.
#[derive(Clone)]
pub struct Pushers {
    store: Store,
    interner: Interner,
    clock: Clock,
    /// Whether gateways may be reached without TLS: where the operator opened a network of their
    /// own.
    plain_http: bool,
    count_max: usize,
}

impl Pushers {
    pub(super) fn new(store: Store, interner: Interner, config: &Config, clock: Clock) -> Self {
        let plain_http = !config.egress.allowed_networks.is_empty();
        let count_max = config.limits.pushers_per_user_max;
        Self { store, interner, clock, plain_http, count_max }
    }

    /// All pushers of a user.
    pub async fn list(&self, user_id: &UserId) -> Result<Vec<(PusherKey, PusherRow)>, ApiError> {
        let user = user_id.to_string();
        let rows = self.store.read(move |reader| of_user(reader, &user)).await?;
        Ok(rows)
    }

    /// Sets a pusher of a device: makes it, or replaces the one with its key.
    ///
    /// # Errors
    /// `M_INVALID_PARAM` for what is too long or leads nowhere.
    pub async fn set(
        &self,
        user_id: &UserId,
        device_id: &DeviceId,
        new: NewPusher,
    ) -> Result<(), ApiError> {
        self.check(&new)?;
        let key = key(user_id, &new.app_id, &new.pushkey);
        for _ in 0..ATTEMPTS {
            let since = self.store.position().as_u64();
            let row = self.row(user_id, device_id, &new, since);
            let (this, key, append) = (self.clone(), key.clone(), new.append);
            let decided =
                self.store.read(move |reader| this.decide(reader, &key, &row, append)).await?;
            if commit(&self.store, decided).await?.is_some() {
                return Ok(());
            }
        }
        Err(busy())
    }

    /// Removes a pusher; one that is not there is no error.
    pub async fn remove(
        &self,
        user_id: &UserId,
        app_id: &str,
        pushkey: &str,
    ) -> Result<(), ApiError> {
        let key = key(user_id, app_id, pushkey);
        for _ in 0..ATTEMPTS {
            let wanted = key.clone();
            let row = self.store.read(move |reader| reader.get(&PUSHERS, &wanted)).await?;
            // Nobody is woken for nothing.
            let Some(row) = row else { return Ok(()) };
            let mut batch = Batch::new();
            batch.check(&PUSHERS, &key, Some(&row));
            self.delete(&mut batch, &key, user_id);
            if commit(&self.store, batch).await?.is_some() {
                return Ok(());
            }
        }
        Err(busy())
    }

    fn row(
        &self,
        user_id: &UserId,
        device_id: &DeviceId,
        new: &NewPusher,
        since: u64,
    ) -> PusherRow {
        PusherRow {
            user_id: user_id.to_owned(),
            device_id: device_id.to_owned(),
            since,
            set_ts: now_ms(&self.clock),
            app_display_name: new.app_display_name.clone(),
            device_display_name: new.device_display_name.clone(),
            lang: new.lang.clone(),
            profile_tag: new.profile_tag.clone(),
            url: new.url.clone(),
            format: new.format.clone(),
            data: new.data.clone(),
        }
    }

    fn decide(
        &self,
        reader: &Reader<'_>,
        key: &PusherKey,
        row: &PusherRow,
        append: bool,
    ) -> Result<Batch, ApiError> {
        let mut batch = Batch::new();
        let device = device_key(&row.user_id, row.device_id.as_str());
        let gone = || ApiError::unknown_token("The session has ended", false);
        let device_row = reader.get(&DEVICES, &device)?.ok_or_else(gone)?;
        batch.check(&DEVICES, &device, Some(&device_row));
        let old = reader.get(&PUSHERS, key)?;
        batch.check(&PUSHERS, key, old.as_ref());
        if old.is_none() && of_user(reader, &key.user_id)?.len() >= self.count_max {
            return Err(ApiError::invalid_param("There are too many pushers"));
        }
        // What the one before has told already is not told again.
        let since = old.map_or(row.since, |Json(old)| old.since);
        batch.put(&PUSHERS, key, &Json(PusherRow { since, ..row.clone() }));
        batch.put(&PUSHERS_BY_KEY, &by_key(key), &());
        batch.touch(topic::user(topic::PUSHERS, self.interner.user(&row.user_id)));
        if !append {
            let range = PUSHERS_BY_KEY.prefix(&(key.app_id.clone(), key.pushkey.clone()));
            let rows = reader.scan(&PUSHERS_BY_KEY, &range, Direction::Forward, usize::MAX)?;
            for (other, ()) in rows.into_iter().filter(|(other, ())| other.user_id != key.user_id) {
                let other = PusherKey { user_id: other.user_id, ..key.clone() };
                if let Ok(user_id) = UserId::parse(&other.user_id) {
                    self.delete(&mut batch, &other, &user_id);
                }
            }
        }
        Ok(batch)
    }

    fn delete(&self, batch: &mut Batch, key: &PusherKey, user_id: &UserId) {
        batch.delete(&PUSHERS, key);
        batch.delete(&PUSHERS_BY_KEY, &by_key(key));
        batch.touch(topic::user(topic::PUSHERS, self.interner.user(user_id)));
    }

    fn check(&self, new: &NewPusher) -> Result<(), ApiError> {
        let texts = [&new.app_display_name, &new.device_display_name, &new.lang, &new.url];
        let texts = texts.into_iter().chain(&new.profile_tag).chain(&new.format);
        let is_long = new.pushkey.len() > PUSHKEY_BYTES_MAX
            || new.app_id.len() > APP_ID_BYTES_MAX
            || texts.into_iter().any(|text| text.len() > TEXT_BYTES_MAX);
        let data = serde_json::to_vec(&new.data).map_err(ApiError::internal)?;
        if is_long || data.len() > DATA_BYTES_MAX {
            return Err(ApiError::invalid_param("A part of the pusher is too long"));
        }
        if new.pushkey.is_empty() || new.app_id.is_empty() {
            return Err(ApiError::invalid_param("A pusher needs an app_id and a pushkey"));
        }
        let url = Url::parse(&new.url).ok().filter(|url| {
            (url.scheme() == "https" || (url.scheme() == "http" && self.plain_http))
                && url.has_host()
                && url.path() == GATEWAY_PATH
        });
        let message = format!("The url of a pusher must be an https address with {GATEWAY_PATH}");
        url.map(drop).ok_or_else(|| ApiError::invalid_param(message))
    }
}

/// Removes the pushers of devices along with them.
pub(super) fn end_with_devices(
    reader: &Reader<'_>,
    batch: &mut Batch,
    interner: Interner,
    (user_id, devices): (&UserId, &BTreeSet<String>),
) -> Result<(), kv::Error> {
    for (key, row) in of_user(reader, &user_id.to_string())? {
        if devices.contains(row.device_id.as_str()) {
            batch.delete(&PUSHERS, &key);
            batch.delete(&PUSHERS_BY_KEY, &by_key(&key));
            batch.touch(topic::user(topic::PUSHERS, interner.user(user_id)));
        }
    }
    Ok(())
}

/// The pushers of a user, inside a read step.
pub fn of_user(
    reader: &Reader<'_>,
    user_id: &String,
) -> Result<Vec<(PusherKey, PusherRow)>, kv::Error> {
    let rows = reader.scan(&PUSHERS, &PUSHERS.prefix(user_id), Direction::Forward, usize::MAX)?;
    Ok(rows.into_iter().map(|(key, Json(row))| (key, row)).collect())
}

/// The users who have pushers.
pub fn users_with_pushers(reader: &Reader<'_>) -> Result<BTreeSet<OwnedUserId>, kv::Error> {
    let mut users = BTreeSet::new();
    let all = PUSHERS.range(std::ops::Bound::<&()>::Unbounded, std::ops::Bound::<&()>::Unbounded);
    reader.for_each(&PUSHERS, &all, Direction::Forward, |_, Json(row)| {
        users.insert(row.user_id);
        std::ops::ControlFlow::Continue(())
    })?;
    Ok(users)
}

fn key(user_id: &UserId, app_id: &str, pushkey: &str) -> PusherKey {
    PusherKey {
        user_id: user_id.to_string(),
        app_id: app_id.to_owned(),
        pushkey: pushkey.to_owned(),
    }
}

fn by_key(key: &PusherKey) -> PusherByKey {
    let PusherKey { user_id, app_id, pushkey } = key.clone();
    PusherByKey { app_id, pushkey, user_id }
}

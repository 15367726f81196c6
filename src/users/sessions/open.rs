//! Opening a session: a device logs in.
//!
//! A device that logs in again loses the tokens it had. A user has a bounded number of devices; the
//! one that was not seen for the longest time makes room.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#relationship-between-access-tokens-and-devices>

use std::time::Duration;

use kv::{Batch, Json, Reader};
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};

use super::{
    ACCESS_PREFIX, KIND_ACCESS, KIND_REFRESH, Sessions, device_key,
    refresh::{Family, RefreshToken},
    token_key,
};
use crate::{
    encryption::check_new_device,
    error::ApiError,
    storage::{
        rows::users::{AccessTokenRow, AccountRow, DeviceRow},
        schema::users::{ACCESS_TOKENS, ACCOUNTS, DEVICE_TOKENS, DEVICES, REFRESH_FAMILIES},
        topic,
    },
    users::{
        accounts::{ATTEMPTS, busy, commit},
        devices::{self, DEVICE_ID_BYTES_MAX},
        now_ms,
        secret::{self, Token},
    },
};

/// A login that has been found right.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// The user.
    pub user_id: OwnedUserId,
    /// The device; a new one where none is named.
    pub device_id: Option<OwnedDeviceId>,
    /// What a new device is called.
    pub display_name: Option<String>,
    /// Whether the client can refresh its access token, which then expires.
    pub refresh: bool,
    /// The account the password was right for: no session is opened once that has changed.
    pub account: Option<AccountRow>,
}

/// What the client gets.
#[derive(Clone, Debug)]
pub struct IssuedSession {
    /// The device.
    pub device_id: OwnedDeviceId,
    /// The access token.
    pub access_token: Token,
    /// The refresh token.
    pub refresh_token: Option<Token>,
    /// How long the access token is good.
    pub expires_in: Option<Duration>,
}

/// What is read before a session is opened.
struct Before {
    account: AccountRow,
    device: Option<DeviceRow>,
    /// Ends the tokens that the device had.
    batch: Batch,
    ended: Vec<[u8; 32]>,
}

impl Sessions {
    /// Opens a session.
    pub async fn open(&self, new: NewSession) -> Result<IssuedSession, ApiError> {
        let device_id = new.device_id.clone().unwrap_or_else(generate_device_id);
        if device_id.as_str().is_empty() || device_id.as_str().len() > DEVICE_ID_BYTES_MAX {
            return Err(ApiError::invalid_param("The device id is empty or too long"));
        }
        self.make_room(&new.user_id, &device_id).await?;
        for _ in 0..ATTEMPTS {
            if let Some(issued) = self.try_open(&new, &device_id).await? {
                return Ok(issued);
            }
        }
        Err(busy())
    }

    async fn try_open(
        &self,
        new: &NewSession,
        device_id: &OwnedDeviceId,
    ) -> Result<Option<IssuedSession>, ApiError> {
        let before = self.before(new, device_id).await?;
        let (issued, batch) = self.decide(new, device_id, &before);
        let mut all = before.batch;
        all.append(batch);
        if commit(&self.0.store, all).await?.is_none() {
            return Ok(None);
        }
        self.forget(&before.ended);
        Ok(Some(issued))
    }

    async fn before(
        &self,
        new: &NewSession,
        device_id: &OwnedDeviceId,
    ) -> Result<Before, ApiError> {
        let key = device_key(&new.user_id, device_id.as_str());
        let is_named = new.device_id.is_some();
        let password_hash = new.account.as_ref().map(|account| account.password_hash.clone());
        let read = self.0.store.read(move |reader: &Reader<'_>| {
            let account = reader.get(&ACCOUNTS, &key.user_id)?.map(|Json(row)| row);
            let account = account
                .filter(|account| account.deactivated_ts.is_none())
                .ok_or_else(|| ApiError::user_deactivated("The account is deactivated"))?;
            if account.locked {
                return Err(ApiError::user_locked());
            }
            if password_hash.as_ref().is_some_and(|hash| *hash != account.password_hash) {
                return Err(ApiError::forbidden("The password has just been changed"));
            }
            let device = reader.get(&DEVICES, &key)?.map(|Json(row)| row);
            let mut batch = Batch::new();
            if is_named && device.is_none() {
                check_new_device(reader, &mut batch, &key)?;
            }
            let ended = devices::end_tokens(reader, &mut batch, &key)?;
            Ok::<_, ApiError>(Before { account, device, batch, ended })
        });
        read.await
    }

    fn decide(
        &self,
        new: &NewSession,
        device_id: &OwnedDeviceId,
        before: &Before,
    ) -> (IssuedSession, Batch) {
        let now = now_ms(&self.0.clock);
        let mut batch = Batch::new();
        let key = device_key(&new.user_id, device_id.as_str());
        // The account is as it was, so that no session outlives a deactivation.
        batch.check(&ACCOUNTS, &key.user_id, Some(&Json(before.account.clone())));
        let device = self.next_device(new, before.device.as_ref(), now);
        batch.check(&DEVICES, &key, before.device.clone().map(Json).as_ref());
        batch.put(&DEVICES, &key, &Json(device));

        let access_token = Token::new(ACCESS_PREFIX);
        let access = secret::hash(access_token.reveal().as_bytes());
        let expires_in = new.refresh.then_some(self.0.lifetime);
        let row = AccessTokenRow {
            user_id: new.user_id.clone(),
            device_id: device_id.clone(),
            expires_ts: expires_in.map(|after| expiry(now, after)),
            replaces: None,
            used: false,
        };
        batch.put(&ACCESS_TOKENS, &access, &Json(row));
        let access_key = token_key(&new.user_id, device_id.as_str(), KIND_ACCESS, access);
        batch.put(&DEVICE_TOKENS, &access_key, &());
        let refresh_token = new.refresh.then(|| {
            let token = RefreshToken::first();
            let family = Family { user_id: &new.user_id, device_id, token: &token, access, now };
            batch.put(&REFRESH_FAMILIES, &token.family_hash(), &Json(family.row()));
            let family_key =
                token_key(&new.user_id, device_id.as_str(), KIND_REFRESH, token.family_hash());
            batch.put(&DEVICE_TOKENS, &family_key, &());
            token.text()
        });
        let user = self.0.interner.user(&new.user_id);
        batch.touch(topic::user(topic::USER_SESSIONS, user));
        if before.device.is_none() {
            batch.touch(topic::user(topic::USER_DEVICES, user));
        }
        let device_id = device_id.clone();
        (IssuedSession { device_id, access_token, refresh_token, expires_in }, batch)
    }

    fn next_device(&self, new: &NewSession, old: Option<&DeviceRow>, now: u64) -> DeviceRow {
        match old {
            Some(old) => DeviceRow { revision: old.revision + 1, ..old.clone() },
            None => DeviceRow {
                // A long name does not keep anybody from logging in.
                display_name: new
                    .display_name
                    .as_deref()
                    .map(|name| devices::cut_name(name, self.0.device_name_bytes_max)),
                created_ts: now,
                revision: 0,
            },
        }
    }

    /// Removes the device that was not seen for the longest time when there are too many.
    pub(in crate::users) async fn make_room(
        &self,
        user_id: &UserId,
        device_id: &DeviceId,
    ) -> Result<(), ApiError> {
        let (user, device) = (user_id.to_string(), device_id.to_string());
        let devices_max = self.0.devices_max;
        let oldest = self
            .0
            .store
            .read(move |reader| devices::oldest_beyond(reader, &user, &device, devices_max));
        match oldest.await? {
            Some(oldest) => {
                let selection = devices::Selection::These(std::slice::from_ref(&oldest));
                devices::remove(&self.0.store, self, self.0.interner, user_id, selection).await
            }
            None => Ok(()),
        }
    }
}

/// When a token made now ends.
pub(super) fn expiry(now: u64, after: Duration) -> u64 {
    now.saturating_add(u64::try_from(after.as_millis()).unwrap_or(u64::MAX))
}

fn generate_device_id() -> OwnedDeviceId {
    secret::random_name(10).to_ascii_uppercase().into()
}

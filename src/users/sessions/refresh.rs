//! Refresh tokens: each use gives a new one, and an old one that comes back ends the family.
//!
//! A token is the name of its family (16 random bytes, never seen by anybody else) and a secret of
//! its own. The token before the newest stays good until the newest or its access token is used, so
//! that a lost answer can be asked for again. Any older one was copied by somebody: all tokens of
//! the device end. A race of two tabs just after a refresh ends nothing.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#refreshing-access-tokens>

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use kv::{Batch, Json, Reader};
use ruma::{DeviceId, OwnedDeviceId, UserId};

use super::{
    ACCESS_PREFIX, IssuedSession, KIND_ACCESS, REFRESH_PREFIX, Sessions, device_key, open::expiry,
    token_key,
};
use crate::{
    error::ApiError,
    storage::{
        rows::users::{AccessTokenRow, AccountRow, DeviceRow, RefreshFamilyRow},
        schema::users::{ACCESS_TOKENS, ACCOUNTS, DEVICE_TOKENS, DEVICES, REFRESH_FAMILIES},
    },
    users::{
        accounts::{ATTEMPTS, busy, commit},
        devices, now_ms,
        secret::{self, Token},
    },
};

/// For how long after a refresh the old token does not count as stolen.
const GRACE_MS: u64 = 60_000;

/// A refresh token, taken apart.
#[derive(Clone, Copy)]
pub(super) struct RefreshToken {
    family: [u8; 16],
    secret: [u8; 32],
}

impl RefreshToken {
    /// The first token of a new family.
    pub(super) fn first() -> Self {
        Self { family: secret::random(), secret: secret::random() }
    }

    fn next(self) -> Self {
        Self { family: self.family, secret: secret::random() }
    }

    fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(REFRESH_PREFIX)?).ok()?;
        let (family, secret) = bytes.split_first_chunk::<16>()?;
        Some(Self { family: *family, secret: secret.try_into().ok()? })
    }

    pub(super) fn text(self) -> Token {
        let bytes = [self.family.as_slice(), self.secret.as_slice()].concat();
        Token::from(format!("{REFRESH_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
    }

    pub(super) fn family_hash(self) -> [u8; 32] {
        secret::hash(&self.family)
    }

    fn hash(self) -> [u8; 32] {
        secret::hash(&self.secret)
    }
}

/// What a new family's row is made of.
pub(super) struct Family<'a> {
    pub(super) user_id: &'a UserId,
    pub(super) device_id: &'a DeviceId,
    pub(super) token: &'a RefreshToken,
    pub(super) access: [u8; 32],
    pub(super) now: u64,
}

impl Family<'_> {
    pub(super) fn row(&self) -> RefreshFamilyRow {
        RefreshFamilyRow {
            user_id: self.user_id.to_owned(),
            device_id: self.device_id.to_owned(),
            current: self.token.hash(),
            previous: None,
            access: self.access,
            rotated_ts: self.now,
        }
    }
}

/// What is read before a refresh.
struct Before {
    family: RefreshFamilyRow,
    device: DeviceRow,
    account: AccountRow,
    /// The access token that came with the newest refresh token.
    access: Option<AccessTokenRow>,
}

/// What a refresh token that belongs to a family is.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    /// The newest.
    Current,
    /// The one before, whose answer got lost.
    Repeated,
    /// The one before, although its successor is in use; just now.
    Late,
    /// Anything older: somebody has a copy.
    Reused,
}

fn standing(
    family: &RefreshFamilyRow,
    token: [u8; 32],
    successor_used: bool,
    now: u64,
) -> Standing {
    if token == family.current {
        Standing::Current
    } else if family.previous != Some(token) {
        Standing::Reused
    } else if !successor_used {
        Standing::Repeated
    } else if now < family.rotated_ts.saturating_add(GRACE_MS) {
        Standing::Late
    } else {
        Standing::Reused
    }
}

impl Sessions {
    /// Exchanges a refresh token for new tokens.
    pub async fn refresh(&self, token: &str) -> Result<IssuedSession, ApiError> {
        let token = RefreshToken::parse(token).ok_or_else(unknown)?;
        for _ in 0..ATTEMPTS {
            if let Some(issued) = self.try_refresh(token).await? {
                return Ok(issued);
            }
        }
        Err(busy())
    }

    async fn try_refresh(&self, token: RefreshToken) -> Result<Option<IssuedSession>, ApiError> {
        let before = self.before_refresh(token).await?.ok_or_else(unknown)?;
        let now = now_ms(&self.0.clock);
        if before.account.locked {
            return Err(ApiError::user_locked());
        }
        let used = before.access.as_ref().is_none_or(|access| access.used);
        match standing(&before.family, token.hash(), used, now) {
            Standing::Current | Standing::Repeated => {}
            Standing::Late => return Err(unknown()),
            Standing::Reused => {
                let device = [before.family.device_id];
                let selection = devices::Selection::These(&device);
                let user_id = &before.family.user_id;
                devices::remove(&self.0.store, self, self.0.interner, user_id, selection).await?;
                return Err(unknown());
            }
        }
        let repeated = token.hash() != before.family.current;
        let (issued, batch) = self.rotate(token, &before, repeated, now);
        if commit(&self.0.store, batch).await?.is_none() {
            return Ok(None);
        }
        let replaced = before.access.as_ref().and_then(|access| access.replaces);
        let ended = if repeated { Some(before.family.access) } else { replaced };
        self.forget(ended.as_slice());
        Ok(Some(issued))
    }

    async fn before_refresh(&self, token: RefreshToken) -> Result<Option<Before>, ApiError> {
        let read = self.0.store.read(move |reader: &Reader<'_>| {
            let family = reader.get(&REFRESH_FAMILIES, &token.family_hash())?;
            let Some(Json(family)) = family else { return Ok(None) };
            let key = device_key(&family.user_id, family.device_id.as_str());
            let device = reader.get(&DEVICES, &key)?;
            let account = reader.get(&ACCOUNTS, &key.user_id)?;
            let access = reader.get(&ACCESS_TOKENS, &family.access)?.map(|Json(row)| row);
            let before = device.zip(account).map(|(Json(device), Json(account))| Before {
                family,
                device,
                account,
                access,
            });
            Ok::<_, kv::Error>(before)
        });
        Ok(read.await?.filter(|before| before.account.deactivated_ts.is_none()))
    }

    fn rotate(
        &self,
        token: RefreshToken,
        before: &Before,
        repeated: bool,
        now: u64,
    ) -> (IssuedSession, Batch) {
        let Before { family, device, account, access: old } = before;
        let (user_id, device_id) = (&family.user_id, &family.device_id);
        let mut batch = Batch::new();
        let key = device_key(user_id, device_id.as_str());
        let next_device = DeviceRow { revision: device.revision + 1, ..device.clone() };
        batch.check(&ACCOUNTS, &key.user_id, Some(&Json(account.clone())));
        batch.check(&DEVICES, &key, Some(&Json(device.clone())));
        batch.put(&DEVICES, &key, &Json(next_device));
        batch.check(&REFRESH_FAMILIES, &token.family_hash(), Some(&Json(family.clone())));
        // The answer that got lost gave tokens nobody has; what they replaced is still replaced.
        let replaces = if repeated {
            batch.check(&ACCESS_TOKENS, &family.access, old.clone().map(Json).as_ref());
            batch.delete(&ACCESS_TOKENS, &family.access);
            let lost = token_key(user_id, device_id.as_str(), KIND_ACCESS, family.access);
            batch.delete(&DEVICE_TOKENS, &lost);
            old.as_ref().and_then(|old| old.replaces)
        } else {
            Some(family.access)
        };

        let next = token.next();
        let access_token = Token::new(ACCESS_PREFIX);
        let access = secret::hash(access_token.reveal().as_bytes());
        let access_row = AccessTokenRow {
            user_id: user_id.clone(),
            device_id: device_id.clone(),
            expires_ts: Some(expiry(now, self.0.lifetime)),
            replaces,
            used: false,
        };
        batch.put(&ACCESS_TOKENS, &access, &Json(access_row));
        let access_key = token_key(user_id, device_id.as_str(), KIND_ACCESS, access);
        batch.put(&DEVICE_TOKENS, &access_key, &());
        let next_family = RefreshFamilyRow {
            current: next.hash(),
            previous: Some(token.hash()),
            access,
            rotated_ts: now,
            ..family.clone()
        };
        batch.put(&REFRESH_FAMILIES, &token.family_hash(), &Json(next_family));
        // Refreshing before the first use of an access token must not keep its predecessor.
        if let Some(stale) = old.as_ref().and_then(|old| old.replaces).filter(|_| !repeated) {
            batch.delete(&ACCESS_TOKENS, &stale);
            let stale = token_key(user_id, device_id.as_str(), KIND_ACCESS, stale);
            batch.delete(&DEVICE_TOKENS, &stale);
        }
        let issued = IssuedSession {
            device_id: OwnedDeviceId::clone(device_id),
            access_token,
            refresh_token: Some(next.text()),
            expires_in: Some(self.0.lifetime),
        };
        (issued, batch)
    }
}

fn unknown() -> ApiError {
    ApiError::unknown_token("The refresh token is not known", false)
}

#[cfg(test)]
mod tests {
    use ruma::{device_id, user_id};

    use super::*;

    #[test]
    fn t72_an_older_token_is_reuse() {
        let first = RefreshToken::first();
        let family = Family {
            user_id: user_id!("@alice:example.org"),
            device_id: device_id!("PHONE"),
            token: &first,
            access: [0; 32],
            now: 1_000,
        };
        let row = family.row();
        assert_eq!(standing(&row, first.hash(), true, 2_000), Standing::Current);
        let second = first.next();
        let row = RefreshFamilyRow {
            current: second.hash(),
            previous: Some(first.hash()),
            rotated_ts: 2_000,
            ..row
        };
        assert_eq!(standing(&row, second.hash(), false, 3_000), Standing::Current);
        assert_eq!(standing(&row, first.hash(), false, 900_000), Standing::Repeated);
        assert_eq!(standing(&row, first.hash(), true, 3_000), Standing::Late);
        assert_eq!(standing(&row, first.hash(), true, 62_000), Standing::Reused);
        assert_eq!(standing(&row, first.next().hash(), false, 3_000), Standing::Reused);
    }

    #[test]
    fn a_token_is_read_back() {
        let token = RefreshToken::first();
        let parsed = RefreshToken::parse(token.text().reveal()).unwrap();
        assert_eq!(parsed.hash(), token.hash());
        assert_eq!(parsed.family_hash(), token.family_hash());
        assert!(RefreshToken::parse("crt_").is_none());
        assert!(RefreshToken::parse("cat_AAAA").is_none());
    }
}

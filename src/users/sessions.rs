//! Sessions: the tokens that devices hold, and the memory that spares a read for each request.
//!
//! Only hashes of tokens are stored. Whatever changes a device's tokens rewrites the device's row
//! under a check, so a login, a refresh and a logout of one device never pass each other by. A
//! session that ends leaves the memory before the call that ended it returns; those who wait with
//! it are woken by the topic `USER_SESSIONS` and ask [`Sessions::liveness`].
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#client-authentication>

pub(super) mod cache;
mod open;
mod refresh;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use kv::{Batch, Durability, Json, Store};
use ruma::UserId;

use self::cache::{Cache, Session};
pub use self::open::{IssuedSession, NewSession};
use super::{now_ms, secret};
use crate::{
    config::Config,
    error::ApiError,
    http::{ClientAddress, Requester, SessionId},
    id::Interner,
    storage::{
        rows::users::{AccessTokenRow, DeviceSeenRow},
        schema::users::{
            ACCESS_TOKENS, ACCOUNTS, DEVICE_TOKENS, DEVICES, DEVICES_SEEN, DeviceKey,
            DeviceTokenKey,
        },
    },
    time::Clock,
};

/// How the two kinds of tokens begin.
const ACCESS_PREFIX: &str = "cat_";
const REFRESH_PREFIX: &str = "crt_";

/// [`DeviceTokenKey::kind`] of an access token.
pub(super) const KIND_ACCESS: u8 = 0;
/// [`DeviceTokenKey::kind`] of a family of refresh tokens.
pub(super) const KIND_REFRESH: u8 = 1;

/// How often it is written down when and from where a device was seen.
const SEEN_INTERVAL_MS: u64 = 5 * 60 * 1_000;

/// Whether a session is still good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// It is.
    Alive,
    /// Its access token has expired; a refresh gives another.
    Expired,
    /// An administrator locked the account.
    Locked,
    /// It has ended.
    Ended,
}

/// Opens, finds and refreshes sessions; cheap to clone.
#[derive(Clone)]
pub struct Sessions(Arc<Parts>);

struct Parts {
    store: Store,
    interner: Interner,
    clock: Clock,
    lifetime: Duration,
    devices_max: usize,
    device_name_bytes_max: usize,
    cache: Cache,
}

impl Sessions {
    pub(super) fn new(store: Store, interner: Interner, config: &Config, clock: Clock) -> Self {
        Self(Arc::new(Parts {
            store,
            interner,
            clock,
            lifetime: config.limits.access_token_lifetime(),
            devices_max: config.limits.devices_per_user_max,
            device_name_bytes_max: config.limits.device_name_size_bytes_max,
            cache: Cache::default(),
        }))
    }

    /// Whose access token this is.
    pub async fn authenticate(
        &self,
        token: &str,
        address: ClientAddress,
    ) -> Result<Requester, ApiError> {
        let id = SessionId(secret::hash(token.as_bytes()));
        let session = match self.0.cache.get(&id) {
            Some(session) => session,
            None => self.load(id).await?.ok_or_else(unknown_token)?,
        };
        let now = now_ms(&self.0.clock);
        if session.expires_ts.is_some_and(|expires| expires <= now) {
            return Err(expired_token());
        }
        self.note_seen(&session, address, now);
        Ok(Requester {
            user_id: session.user_id.clone(),
            device_id: session.device_id.clone(),
            session: id,
            guest: session.guest,
            standing: session.standing,
            admin: session.admin,
            address,
            appservice: None,
        })
    }

    /// Whether the session is still good, asked of the store itself: for those who wait with it
    /// and were woken by the topic `USER_SESSIONS`.
    pub async fn liveness(&self, session: &SessionId) -> Result<Liveness, ApiError> {
        let key = session.0;
        let read = self.0.store.read(move |reader| {
            let Some(Json(row)) = reader.get(&ACCESS_TOKENS, &key)? else { return Ok(None) };
            let account = reader.get(&ACCOUNTS, &row.user_id.to_string())?;
            Ok::<_, kv::Error>(Some((row, account.is_some_and(|Json(account)| account.locked))))
        });
        let Some((row, locked)) = read.await? else { return Ok(Liveness::Ended) };
        let now = now_ms(&self.0.clock);
        let expired = row.expires_ts.is_some_and(|expires| expires <= now);
        Ok(match (locked, expired) {
            (true, _) => Liveness::Locked,
            (false, true) => Liveness::Expired,
            (false, false) => Liveness::Alive,
        })
    }

    /// How long the access token of a session that is in use is still good; `None`: there is no
    /// such end. For those who wait with it.
    pub fn expires_in(&self, session: &SessionId) -> Option<Duration> {
        let expires = self.0.cache.get(session)?.expires_ts?;
        Some(Duration::from_millis(expires.saturating_sub(now_ms(&self.0.clock))))
    }

    /// Drops sessions that have ended from memory.
    pub(super) fn forget(&self, sessions: &[[u8; 32]]) {
        self.0.cache.forget(sessions);
    }

    /// Drops a user's sessions from memory, so that they are read anew.
    pub(super) fn forget_user(&self, user_id: &UserId) {
        self.0.cache.forget_user(user_id);
    }

    async fn load(&self, id: SessionId) -> Result<Option<Arc<Session>>, ApiError> {
        let generation = self.0.cache.generation();
        let found = self.0.store.read(move |reader| {
            let Some(Json(token)) = reader.get(&ACCESS_TOKENS, &id.0)? else { return Ok(None) };
            let device = device_key(&token.user_id, token.device_id.as_str());
            if !reader.contains(&DEVICES, &device)? {
                return Ok(None);
            }
            let account = reader.get(&ACCOUNTS, &device.user_id)?.map(|Json(row)| row);
            Ok::<_, kv::Error>(account.map(|account| (token, account)))
        });
        let Some((token, account)) = found.await? else { return Ok(None) };
        if account.deactivated_ts.is_some() {
            return Ok(None);
        }
        if !token.used && token.expires_ts.is_some() {
            self.first_use(id, &token).await?;
        }
        let session = Arc::new(Session::new(&token, &account));
        self.0.cache.insert(generation, id, Arc::clone(&session));
        Ok(Some(session))
    }

    /// An access token that came by a refresh ends the one before it when it is first used.
    async fn first_use(&self, id: SessionId, token: &AccessTokenRow) -> Result<(), ApiError> {
        let mut batch = Batch::new();
        batch.check(&ACCESS_TOKENS, &id.0, Some(&Json(token.clone())));
        let used = AccessTokenRow { used: true, replaces: None, ..token.clone() };
        batch.put(&ACCESS_TOKENS, &id.0, &Json(used));
        if let Some(old) = token.replaces {
            batch.delete(&ACCESS_TOKENS, &old);
            batch.delete(
                &DEVICE_TOKENS,
                &token_key(&token.user_id, token.device_id.as_str(), KIND_ACCESS, old),
            );
        }
        let (parts, replaced) = (Arc::clone(&self.0), token.replaces);
        // A task of its own: where the client hangs up, the old token is forgotten all the same.
        let committed = tokio::spawn(async move {
            let committed = parts.store.commit(batch, Durability::Buffered).await;
            if committed.is_ok() {
                parts.cache.forget(replaced.as_slice());
            }
            committed
        });
        // On a conflict another request has done it, or the session has ended: the next look tells.
        match committed.await.map_err(ApiError::internal)? {
            Ok(_) | Err(kv::CommitError::Conflict) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes down when the device was seen, now and then and without waiting for it.
    fn note_seen(&self, session: &Session, address: ClientAddress, now: u64) {
        let last = session.seen_ts.load(Ordering::Relaxed);
        if now < last.saturating_add(SEEN_INTERVAL_MS) {
            return;
        }
        let claimed =
            session.seen_ts.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed);
        if claimed.is_err() {
            return;
        }
        let mut batch = Batch::new();
        let key = device_key(&session.user_id, session.device_id.as_str());
        batch.put(&DEVICES_SEEN, &key, &Json(DeviceSeenRow { ts: now, address: address.0 }));
        // The batch is queued at once; whether it is written matters to nobody here.
        drop(self.0.store.submit(batch, Durability::Buffered));
    }
}

pub(super) fn device_key(user_id: &UserId, device_id: &str) -> DeviceKey {
    DeviceKey { user_id: user_id.to_string(), device_id: device_id.to_owned() }
}

pub(super) fn token_key(
    user_id: &UserId,
    device_id: &str,
    kind: u8,
    hash: [u8; 32],
) -> DeviceTokenKey {
    DeviceTokenKey { user_id: user_id.to_string(), device_id: device_id.to_owned(), kind, hash }
}

/// The answer to a token that has expired.
pub fn expired_token() -> ApiError {
    ApiError::unknown_token("The access token has expired", true)
}

fn unknown_token() -> ApiError {
    ApiError::unknown_token("The access token is not known", false)
}

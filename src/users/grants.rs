//! Tokens that live for a short while: those that log in once, and those by which third parties
//! learn who a user is.
//!
//! A token is when it ends and a secret. Its row stands under the same time and the secret's hash,
//! so that what has ended stands first; each new token clears some of that away.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#token-based>
//! <https://spec.matrix.org/v1.19/client-server-api/#openid>

use std::{ops::Bound, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use kv::{Batch, Direction, Json, Store, Table};
use ruma::{OwnedUserId, UserId};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    accounts::{ATTEMPTS, Accounts, busy, commit},
    now_ms,
    secret::{self, Token},
};
use crate::{
    config::LimitsConfig,
    error::ApiError,
    storage::{
        rows::{
            accounts::{LoginTokenRow, OwnerRow},
            users::AccountRow,
        },
        schema::accounts::{ExpiringKey, LOGIN_TOKENS, OPENID_TOKENS},
    },
    time::Clock,
};

const LOGIN_PREFIX: &str = "clt_";
const OPENID_PREFIX: &str = "cot_";

/// How many tokens that have ended are cleared away with each new one.
pub(super) const CLEARED_AT_ONCE: usize = 16;

type Grant<R> = Table<ExpiringKey, Json<R>>;

/// Gives out and takes back tokens that live for a short while.
#[derive(Clone)]
pub struct Grants {
    store: Store,
    clock: Clock,
    accounts: Accounts,
    login_lifetime: Duration,
    openid_lifetime: Duration,
}

impl Grants {
    pub(super) fn new(
        store: Store,
        clock: Clock,
        accounts: Accounts,
        limits: &LimitsConfig,
    ) -> Self {
        let login_lifetime = limits.login_token_lifetime();
        let openid_lifetime = limits.openid_token_lifetime();
        Self { store, clock, accounts, login_lifetime, openid_lifetime }
    }

    /// A token that logs this user in once, as long as the password stays what it is.
    pub async fn login_token(&self, user_id: &UserId) -> Result<Token, ApiError> {
        let account = self.accounts.get(user_id).await?;
        let account = account.ok_or_else(|| ApiError::not_found("There is no such user"))?;
        let row = LoginTokenRow { user_id: user_id.to_owned(), password: fingerprint(&account) };
        self.issue(&LOGIN_TOKENS, LOGIN_PREFIX, row, self.login_lifetime).await
    }

    /// Uses up a login token; gives whose it was, with the account that it is good for. `None`: it
    /// is not good (any more).
    pub async fn use_login_token(
        &self,
        text: &str,
    ) -> Result<Option<(OwnedUserId, AccountRow)>, ApiError> {
        let Some(key) = self.live_key(LOGIN_PREFIX, text) else { return Ok(None) };
        let Some(row) = self.row(&LOGIN_TOKENS, &key).await? else { return Ok(None) };
        let mut batch = Batch::new();
        // Of two that use it at once, one conflicts here.
        batch.check(&LOGIN_TOKENS, &key, Some(&Json(row.clone())));
        batch.delete(&LOGIN_TOKENS, &key);
        if commit(&self.store, batch).await?.is_none() {
            return Ok(None);
        }
        // Whoever changes the password shuts out whoever got in before.
        let account = self.accounts.get(&row.user_id).await?;
        let account = account.filter(|account| fingerprint(account) == row.password);
        Ok(account.map(|account| (row.user_id, account)))
    }

    /// A token by which third parties learn who this user is.
    pub async fn openid_token(&self, user_id: &UserId) -> Result<Token, ApiError> {
        let row = OwnerRow { user_id: user_id.to_owned() };
        self.issue(&OPENID_TOKENS, OPENID_PREFIX, row, self.openid_lifetime).await
    }

    /// Whose `OpenID` token this is. `None`: it is not good, or the account is no more.
    pub async fn openid_user(&self, text: &str) -> Result<Option<OwnedUserId>, ApiError> {
        let Some(key) = self.live_key(OPENID_PREFIX, text) else { return Ok(None) };
        let Some(row) = self.row(&OPENID_TOKENS, &key).await? else { return Ok(None) };
        let is_active = self.accounts.is_active(&row.user_id).await?;
        Ok(is_active.then_some(row.user_id))
    }

    async fn issue<R: Clone + Serialize + DeserializeOwned + Send + 'static>(
        &self,
        table: &'static Grant<R>,
        prefix: &str,
        row: R,
        lifetime: Duration,
    ) -> Result<Token, ApiError> {
        let now = now_ms(&self.clock);
        let lifetime_ms = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
        for _ in 0..ATTEMPTS {
            let secret = secret::random::<32>();
            let expires_ts = now.saturating_add(lifetime_ms);
            let key = ExpiringKey { expires_ts, hash: secret::hash(&secret) };
            let mut batch = Batch::new();
            batch.put(table, &key, &Json(row.clone()));
            for ended in self.ended(table, now).await? {
                batch.delete(table, &ended);
            }
            if commit(&self.store, batch).await?.is_some() {
                let bytes = [expires_ts.to_be_bytes().as_slice(), &secret].concat();
                return Ok(Token::from(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes))));
            }
        }
        Err(busy())
    }

    async fn ended<R: Serialize + DeserializeOwned + Send + 'static>(
        &self,
        table: &'static Grant<R>,
        now: u64,
    ) -> Result<Vec<ExpiringKey>, kv::Error> {
        let range = table.range(Bound::Unbounded::<&()>, Bound::Excluded(&now));
        let read = self
            .store
            .read(move |reader| reader.scan(table, &range, Direction::Forward, CLEARED_AT_ONCE));
        Ok(read.await?.into_iter().map(|(key, _)| key).collect())
    }

    /// The key of a token that is well-formed and has not ended.
    fn live_key(&self, prefix: &str, text: &str) -> Option<ExpiringKey> {
        let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(prefix)?).ok()?;
        let (expires, secret) = bytes.split_first_chunk::<8>()?;
        let expires_ts = u64::from_be_bytes(*expires);
        let is_live = secret.len() == 32 && expires_ts > now_ms(&self.clock);
        is_live.then(|| ExpiringKey { expires_ts, hash: secret::hash(secret) })
    }

    async fn row<R: Serialize + DeserializeOwned + Send + 'static>(
        &self,
        table: &'static Grant<R>,
        key: &ExpiringKey,
    ) -> Result<Option<R>, ApiError> {
        let key = key.clone();
        let row = self.store.read(move |reader| reader.get(table, &key)).await?;
        Ok(row.map(|Json(row)| row))
    }
}

/// What changes with the password.
fn fingerprint(account: &AccountRow) -> Option<[u8; 32]> {
    account.password_hash.as_ref().map(|stored| secret::hash(stored.as_bytes()))
}

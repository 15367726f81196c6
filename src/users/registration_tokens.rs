//! Registration tokens that an administrator makes: good for so many accounts, or until some time.
//!
//! Called by the admin commands. A change is committed against the row it was decided on, as is the
//! use of a token ([`super::Registration`]), so that neither is lost.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#token-authenticated-registration>

use kv::{Batch, Direction, Json, Store};

use super::{
    accounts::{ATTEMPTS, busy, commit},
    secret,
};
use crate::{
    error::ApiError,
    storage::{rows::users::RegistrationTokenRow, schema::users::REGISTRATION_TOKENS},
};

/// The length of a token that the server makes up: 100 random bits.
const GENERATED_LENGTH: usize = 20;

/// How long a token may be.
const TOKEN_BYTES_MAX: usize = 64;

/// How many tokens there may be.
const TOKENS_MAX: usize = 10_000;

/// Makes, lists, changes and removes registration tokens.
#[derive(Clone)]
pub struct RegistrationTokens {
    store: Store,
}

/// What is to be changed of a token; the outer `None`: nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenChange {
    /// How many accounts it may make.
    pub uses_allowed: Option<Option<u64>>,
    /// Until when it is good, in milliseconds.
    pub expires_ts: Option<Option<u64>>,
}

impl RegistrationTokens {
    pub(super) fn new(store: Store) -> Self {
        Self { store }
    }

    /// Makes a token; one is made up where none is wanted.
    ///
    /// # Errors
    /// 400 when it exists, or is not 1 to 64 letters, digits, `.`, `_`, `~` and `-`.
    pub async fn create(
        &self,
        wanted: Option<String>,
        uses_allowed: Option<u64>,
        expires_ts: Option<u64>,
    ) -> Result<String, ApiError> {
        let token = wanted.unwrap_or_else(|| secret::random_name(GENERATED_LENGTH));
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte);
        if token.is_empty() || token.len() > TOKEN_BYTES_MAX || !token.bytes().all(allowed) {
            return Err(ApiError::invalid_param(
                "A token has 1 to 64 letters, digits and the signs . _ ~ -",
            ));
        }
        if self.list().await?.len() >= TOKENS_MAX {
            return Err(ApiError::invalid_param("There are too many tokens; remove some"));
        }
        let row = RegistrationTokenRow { uses_allowed, uses: 0, expires_ts };
        let mut batch = Batch::new();
        batch.check_absent(&REGISTRATION_TOKENS, &token);
        batch.put(&REGISTRATION_TOKENS, &token, &Json(row));
        let made = commit(&self.store, batch).await?;
        made.map(|_| token).ok_or_else(|| ApiError::invalid_param("There is such a token already"))
    }

    /// All tokens that were made, also those that are used up.
    pub async fn list(&self) -> Result<Vec<(String, RegistrationTokenRow)>, ApiError> {
        let range = REGISTRATION_TOKENS.prefix(&());
        let rows = self.store.read(move |reader| {
            reader.scan(&REGISTRATION_TOKENS, &range, Direction::Forward, usize::MAX)
        });
        Ok(rows.await?.into_iter().map(|(token, Json(row))| (token, row)).collect())
    }

    /// One token.
    pub async fn get(&self, token: &str) -> Result<Option<RegistrationTokenRow>, ApiError> {
        let key = token.to_owned();
        let row = self.store.read(move |reader| reader.get(&REGISTRATION_TOKENS, &key)).await?;
        Ok(row.map(|Json(row)| row))
    }

    /// Changes how often and how long a token is good.
    ///
    /// # Errors
    /// 404 when there is no such token.
    pub async fn update(
        &self,
        token: &str,
        change: TokenChange,
    ) -> Result<RegistrationTokenRow, ApiError> {
        let key = token.to_owned();
        for _ in 0..ATTEMPTS {
            let old = self.get(token).await?;
            let old = old.ok_or_else(|| ApiError::not_found("There is no such token"))?;
            let new = RegistrationTokenRow {
                uses_allowed: change.uses_allowed.unwrap_or(old.uses_allowed),
                expires_ts: change.expires_ts.unwrap_or(old.expires_ts),
                uses: old.uses,
            };
            let mut batch = Batch::new();
            batch.check(&REGISTRATION_TOKENS, &key, Some(&Json(old)));
            batch.put(&REGISTRATION_TOKENS, &key, &Json(new.clone()));
            if commit(&self.store, batch).await?.is_some() {
                return Ok(new);
            }
        }
        Err(busy())
    }

    /// Removes a token. `false`: there was none.
    pub async fn delete(&self, token: &str) -> Result<bool, ApiError> {
        let key = token.to_owned();
        for _ in 0..ATTEMPTS {
            let Some(old) = self.get(token).await? else { return Ok(false) };
            let mut batch = Batch::new();
            batch.check(&REGISTRATION_TOKENS, &key, Some(&Json(old)));
            batch.delete(&REGISTRATION_TOKENS, &key);
            if commit(&self.store, batch).await?.is_some() {
                return Ok(true);
            }
        }
        Err(busy())
    }
}

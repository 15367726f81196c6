//! Making an account: who may, and with which name.
//!
//! Two ways are open as the configuration has it: without anything (`m.login.dummy`) or with a
//! registration token, of the configuration or made by an administrator. A token of the latter kind
//! is used up in the same batch that makes the account.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#account-registration>

use std::sync::Arc;

use kv::{Batch, Json, Store};
use ruma::{OwnedUserId, api::client::uiaa::AuthType};

use super::{
    accounts::{ATTEMPTS, Accounts, NewAccount, busy},
    login::limiter,
    now_ms, secret,
};
use crate::{
    appservices::Appservices,
    config::{Config, RegistrationConfig},
    error::ApiError,
    http::{ClientAddress, RateLimiter},
    storage::{rows::users::RegistrationTokenRow, schema::users::REGISTRATION_TOKENS},
    time::Clock,
};

/// The length of a user name that the server makes up.
const GENERATED_NAME_LENGTH: usize = 10;

/// A registration as a client asks for it, after its authentication.
#[derive(Clone)]
pub struct RegistrationAttempt<'a> {
    /// The wanted name; one is made up where none is wanted.
    pub username: Option<&'a str>,
    /// The password; without one the request is refused.
    pub password: Option<&'a str>,
    /// The registration token that was shown.
    pub token: Option<String>,
}

/// Makes accounts.
#[derive(Clone)]
pub struct Registration(Arc<Parts>);

struct Parts {
    store: Store,
    config: RegistrationConfig,
    clock: Clock,
    accounts: Accounts,
    appservices: Appservices,
    by_address: RateLimiter,
    steps: RateLimiter,
    token_checks: RateLimiter,
}

impl Registration {
    pub(super) fn new(
        store: Store,
        config: &Config,
        clock: Clock,
        accounts: Accounts,
        appservices: Appservices,
    ) -> Self {
        let limits = &config.rate_limits;
        Self(Arc::new(Parts {
            store,
            config: config.registration.clone(),
            clock,
            accounts,
            appservices,
            by_address: limiter(limits.enabled, limits.registration),
            steps: limiter(limits.enabled, limits.registration_steps),
            token_checks: limiter(limits.enabled, limits.registration_token_checks),
        }))
    }

    /// The ways to register; none where registration is off.
    pub fn flows(&self) -> Vec<Vec<AuthType>> {
        let mut flows = Vec::new();
        if self.0.config.open_without_token {
            flows.push(vec![AuthType::Dummy]);
        }
        if self.0.config.enabled {
            flows.push(vec![AuthType::RegistrationToken]);
        }
        flows
    }

    /// Refuses where registration is off, or too much comes from one address: accounts, requests,
    /// or guesses at a token.
    pub fn check_allowed(&self, address: ClientAddress, shows_token: bool) -> Result<(), ApiError> {
        if self.flows().is_empty() {
            return Err(ApiError::forbidden("Registration is disabled on this server"));
        }
        self.0.steps.check(address.limit_key())?;
        if shows_token {
            self.0.token_checks.check(address.limit_key())?;
        }
        self.0.by_address.peek(address.limit_key())
    }

    /// Refuses a name that breaks the rules, is taken, or reserved for an application service.
    pub async fn check_username(&self, username: &str) -> Result<OwnedUserId, ApiError> {
        let user_id = self.0.accounts.new_user_id(username)?;
        self.0.appservices.check_user(&user_id, None)?;
        self.0.accounts.check_available(&user_id).await?;
        Ok(user_id)
    }

    /// Makes the account.
    pub async fn register(
        &self,
        attempt: RegistrationAttempt<'_>,
        address: ClientAddress,
    ) -> Result<OwnedUserId, ApiError> {
        let password =
            attempt.password.ok_or_else(|| ApiError::missing_param("`password` is missing"))?;
        self.0.by_address.check(address.limit_key())?;
        let user_id = if let Some(username) = attempt.username {
            self.check_username(username).await?
        } else {
            let name = secret::random_name(GENERATED_NAME_LENGTH);
            let user_id = self.0.accounts.new_user_id(&name)?;
            self.0.appservices.check_user(&user_id, None)?;
            user_id
        };
        let password_hash = self.0.accounts.hash_password(password).await?;
        for _ in 0..ATTEMPTS {
            let batch = self.use_token(attempt.token.as_deref()).await?;
            let password_hash = Some(password_hash.as_str());
            let new = NewAccount { user_id: &user_id, password_hash, admin: false };
            if self.0.accounts.create(new, batch).await? {
                return Ok(user_id);
            }
        }
        Err(busy())
    }

    /// Whether a registration token is good, for a client that asks before it registers.
    pub async fn check_token(&self, token: &str, address: ClientAddress) -> Result<bool, ApiError> {
        if !self.0.config.enabled {
            return Err(ApiError::forbidden("Registration with a token is disabled"));
        }
        self.0.token_checks.check(address.limit_key())?;
        self.is_valid_token(token).await
    }

    /// Whether a registration token is good.
    pub async fn is_valid_token(&self, token: &str) -> Result<bool, ApiError> {
        Ok(self.is_configured(token) || self.stored_token(token).await?.is_some())
    }

    /// What uses up a token, if it is one that can be used up.
    async fn use_token(&self, token: Option<&str>) -> Result<Batch, ApiError> {
        let mut batch = Batch::new();
        let Some(token) = token.filter(|token| !self.is_configured(token)) else {
            return Ok(batch);
        };
        let row = self.stored_token(token).await?;
        let row = row.ok_or_else(|| ApiError::forbidden("The registration token is used up"))?;
        let used = RegistrationTokenRow { uses: row.uses + 1, ..row.clone() };
        batch.check(&REGISTRATION_TOKENS, &token.to_owned(), Some(&Json(row)));
        batch.put(&REGISTRATION_TOKENS, &token.to_owned(), &Json(used));
        Ok(batch)
    }

    fn is_configured(&self, token: &str) -> bool {
        // Hashes are compared, so that the time tells nothing of how far a guess is right.
        let hash = secret::hash(token.as_bytes());
        let mut tokens = self.0.config.tokens.iter();
        tokens.any(|known| secret::hash(known.reveal().as_bytes()) == hash)
    }

    async fn stored_token(&self, token: &str) -> Result<Option<RegistrationTokenRow>, ApiError> {
        let key = token.to_owned();
        let row = self.0.store.read(move |reader| reader.get(&REGISTRATION_TOKENS, &key)).await?;
        let now = now_ms(&self.0.clock);
        Ok(row.map(|Json(row)| row).filter(|row| {
            row.expires_ts.is_none_or(|expires| expires > now)
                && row.uses_allowed.is_none_or(|allowed| row.uses < allowed)
        }))
    }
}

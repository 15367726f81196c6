//! Logging in with a password or a token, and the limits on guessing them.
//!
//! Whoever tries a password, at login or in user-interactive authentication, passes the same limits
//! on wrong guesses for that account.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#login>

use std::sync::Arc;

use ruma::{OwnedDeviceId, OwnedUserId, UserId};

use super::{
    accounts::Accounts,
    grants::Grants,
    sessions::{IssuedSession, NewSession, Sessions},
    third_party::ThirdPartyIds,
};
use crate::{
    config::Config,
    error::ApiError,
    http::{ClientAddress, RateLimiter},
    storage::rows::users::AccountRow,
};

/// How a login names its user.
#[derive(Clone, Debug)]
pub enum LoginName {
    /// By a localpart or a whole user id.
    Id(String),
    /// By an e-mail address, as [`super::email::canonical`] gives it.
    Email(String),
}

/// What a login proves the user by.
#[derive(Clone)]
pub enum LoginProof {
    /// The password of this user.
    Password(LoginName, String),
    /// A token that logs in once.
    Token(String),
}

/// A login as a client asks for it.
#[derive(Clone)]
pub struct LoginAttempt {
    /// The proof.
    pub proof: LoginProof,
    /// The device; a new one where none is named.
    pub device_id: Option<OwnedDeviceId>,
    /// What a new device is called.
    pub display_name: Option<String>,
    /// Whether the client can refresh its access token.
    pub refresh: bool,
    /// Where the request comes from.
    pub address: ClientAddress,
}

/// Logs users in.
#[derive(Clone)]
pub struct Login(Arc<Parts>);

struct Parts {
    accounts: Accounts,
    sessions: Sessions,
    ids: ThirdPartyIds,
    grants: Grants,
    by_address: RateLimiter,
    by_account: RateLimiter,
    failed: RateLimiter,
}

impl Login {
    pub(super) fn new(
        config: &Config,
        accounts: Accounts,
        sessions: Sessions,
        ids: ThirdPartyIds,
        grants: Grants,
    ) -> Self {
        let limits = &config.rate_limits;
        let limiter = |name, limit| RateLimiter::of(limits, name, limit);
        Self(Arc::new(Parts {
            accounts,
            sessions,
            ids,
            grants,
            by_address: limiter("login_by_address", &limits.login_by_address),
            by_account: limiter("login_by_account", &limits.login_by_account),
            failed: limiter("login_failed", &limits.login_failed),
        }))
    }

    /// Logs in; gives the user and the session.
    pub async fn open(
        &self,
        attempt: LoginAttempt,
    ) -> Result<(OwnedUserId, IssuedSession), ApiError> {
        self.0.by_address.check(attempt.address.limit_key())?;
        let (user_id, account) = match &attempt.proof {
            LoginProof::Password(name, password) => self.by_password(name, password).await?,
            LoginProof::Token(token) => self.by_token(token).await?,
        };
        let session = NewSession {
            user_id: user_id.clone(),
            device_id: attempt.device_id,
            display_name: attempt.display_name,
            refresh: attempt.refresh,
            account,
        };
        let issued = self.0.sessions.open(session).await?;
        Ok((user_id, issued))
    }

    async fn by_password(
        &self,
        name: &LoginName,
        password: &str,
    ) -> Result<(OwnedUserId, Option<AccountRow>), ApiError> {
        let Some(user_id) = self.user_of(name).await? else {
            self.fail_unknown(name, password).await?;
            return Err(wrong());
        };
        self.0.by_account.check(&user_id)?;
        let account = self.verified(&user_id, password).await?.ok_or_else(wrong)?;
        Ok((user_id, Some(account)))
    }

    /// Takes as long as a wrong password, and is refused after as many tries: else an address that
    /// nobody has could be told from one that somebody has.
    async fn fail_unknown(&self, name: &LoginName, password: &str) -> Result<(), ApiError> {
        let (LoginName::Id(name) | LoginName::Email(name)) = name;
        self.0.by_account.check(name)?;
        self.0.failed.peek(name)?;
        self.0.accounts.verify_password(None, password).await?;
        self.0.failed.check(name)
    }

    async fn by_token(&self, token: &str) -> Result<(OwnedUserId, Option<AccountRow>), ApiError> {
        let used = self.0.grants.use_login_token(token).await?;
        let (user_id, account) = used.ok_or_else(|| {
            ApiError::forbidden("The login token is wrong, used up or has expired")
        })?;
        self.0.by_account.check(&user_id)?;
        Ok((user_id, Some(account)))
    }

    /// The user that a login names, who may or may not exist.
    pub async fn user_of(&self, name: &LoginName) -> Result<Option<OwnedUserId>, ApiError> {
        match name {
            LoginName::Id(user) => Ok(self.0.accounts.parse(user)),
            LoginName::Email(address) => self.0.ids.owner(address).await,
        }
    }

    /// The account, if this is its password. After too many wrong ones, `M_LIMIT_EXCEEDED`.
    pub async fn verified(
        &self,
        user_id: &UserId,
        password: &str,
    ) -> Result<Option<AccountRow>, ApiError> {
        self.0.failed.peek(user_id)?;
        let account = self.0.accounts.get(user_id).await?;
        if self.0.accounts.verify_password(account.as_ref(), password).await? {
            // Of many guesses at once, all passed the look above before one was found wrong.
            self.0.failed.peek(user_id)?;
            return Ok(account);
        }
        self.0.failed.check(user_id)?;
        match account {
            Some(account) if account.deactivated_ts.is_some() => {
                Err(ApiError::user_deactivated("The account is deactivated"))
            }
            _ => Ok(None),
        }
    }
}

fn wrong() -> ApiError {
    ApiError::forbidden("The user name or the password is wrong")
}

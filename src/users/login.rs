//! Logging in with a password, and the limits on guessing it.
//!
//! Whoever tries a password, at login or in user-interactive authentication, passes the same limits
//! on wrong guesses for that account.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#login>

use std::sync::Arc;

use ruma::{OwnedDeviceId, OwnedUserId, UserId};

use super::{
    accounts::Accounts,
    sessions::{IssuedSession, NewSession, Sessions},
};
use crate::{
    config::{Config, RateLimit},
    error::ApiError,
    http::{ClientAddress, RateLimiter},
    storage::rows::users::AccountRow,
};

/// A login as a client asks for it.
#[derive(Clone)]
pub struct LoginAttempt {
    /// A localpart or a whole user id.
    pub user: String,
    /// The password.
    pub password: String,
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
    by_address: RateLimiter,
    by_account: RateLimiter,
    failed: RateLimiter,
}

impl Login {
    pub(super) fn new(config: &Config, accounts: Accounts, sessions: Sessions) -> Self {
        let limits = &config.rate_limits;
        let limiter = |limit| limiter(limits.enabled, limit);
        Self(Arc::new(Parts {
            accounts,
            sessions,
            by_address: limiter(limits.login_by_address),
            by_account: limiter(limits.login_by_account),
            failed: limiter(limits.login_failed),
        }))
    }

    /// Logs in with a password; gives the user and the session.
    pub async fn with_password(
        &self,
        attempt: LoginAttempt,
    ) -> Result<(OwnedUserId, IssuedSession), ApiError> {
        self.0.by_address.check(attempt.address.limit_key())?;
        let Some(user_id) = self.0.accounts.parse(&attempt.user) else {
            // Takes as long as a wrong password.
            self.0.accounts.verify_password(None, &attempt.password).await?;
            return Err(wrong());
        };
        self.0.by_account.check(&user_id)?;
        let account = self.verified(&user_id, &attempt.password).await?.ok_or_else(wrong)?;
        let session = NewSession {
            user_id: user_id.clone(),
            device_id: attempt.device_id,
            display_name: attempt.display_name,
            refresh: attempt.refresh,
            account: Some(account),
        };
        let issued = self.0.sessions.open(session).await?;
        Ok((user_id, issued))
    }

    /// The user that a login names: see [`Accounts::parse`].
    pub fn parse(&self, user: &str) -> Option<OwnedUserId> {
        self.0.accounts.parse(user)
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

/// A limiter as it is configured.
pub(super) fn limiter(enabled: bool, limit: RateLimit) -> RateLimiter {
    if enabled { RateLimiter::new(limit.per_second, limit.burst) } else { RateLimiter::unlimited() }
}

fn wrong() -> ApiError {
    ApiError::forbidden("The user name or the password is wrong")
}

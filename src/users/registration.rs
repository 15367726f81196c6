//! Making an account: who may, and with which name.
//!
//! Two ways are open as the configuration has it: without anything (`m.login.dummy`) or with a
//! registration token, of the configuration or made by an administrator; in both an e-mail address
//! and the acceptance of terms may be asked for. A token that is used up, and the proof of an
//! address, go in the same batch that makes the account. Guests are asked for nothing.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#account-registration>

use std::{collections::BTreeMap, sync::Arc};

use kv::{Batch, Json, Store};
use ruma::{OwnedUserId, UserId, api::client::uiaa::AuthType};
use serde_json::{Map, Value, json};

use super::{
    accounts::{ATTEMPTS, Accounts, NewAccount, busy, commit},
    email::ProvenEmail,
    now_ms, secret, third_party,
    third_party::ThirdPartyIds,
    uiaa::Proof,
};
use crate::{
    appservices::Appservices,
    config::{Config, RegistrationConfig},
    error::ApiError,
    http::{ClientAddress, RateLimiter},
    storage::{
        rows::users::{AccountRow, RegistrationTokenRow},
        schema::users::{ACCOUNTS, REGISTRATION_TOKENS},
    },
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
    /// What was proven before.
    pub proof: Proof,
}

impl RegistrationAttempt<'_> {
    fn token(&self) -> Option<&str> {
        self.proof.registration_token.as_ref().map(secret::Token::reveal)
    }
}

/// Makes accounts.
#[derive(Clone)]
pub struct Registration(Arc<Parts>);

struct Parts {
    store: Store,
    config: RegistrationConfig,
    /// Whether addresses can be proven.
    sends_mail: bool,
    clock: Clock,
    accounts: Accounts,
    ids: ThirdPartyIds,
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
        (ids, appservices): (ThirdPartyIds, Appservices),
    ) -> Self {
        let limits = &config.rate_limits;
        Self(Arc::new(Parts {
            store,
            config: config.registration.clone(),
            sends_mail: config.email.smtp_url.is_some() && config.server.public_base_url.is_some(),
            clock,
            accounts,
            ids,
            appservices,
            by_address: RateLimiter::of(limits, "registration", &limits.registration),
            steps: RateLimiter::of(limits, "registration_steps", &limits.registration_steps),
            token_checks: RateLimiter::of(
                limits,
                "registration_token_checks",
                &limits.registration_token_checks,
            ),
        }))
    }

    /// The ways to register; none where registration is off. Where the server sends mail and does
    /// not insist on an address, each is there without and with one: who has given one can reset a
    /// forgotten password.
    pub fn flows(&self) -> Vec<Vec<AuthType>> {
        let mut flows = self.flows_with(self.0.config.require_email);
        if self.0.sends_mail && !self.0.config.require_email {
            flows.extend(self.flows_with(true));
        }
        flows
    }

    fn flows_with(&self, email: bool) -> Vec<Vec<AuthType>> {
        let config = &self.0.config;
        let mut all = Vec::new();
        if email {
            all.push(AuthType::EmailIdentity);
        }
        if !config.terms.is_empty() {
            all.push(AuthType::Terms);
        }
        let mut flows = Vec::new();
        if config.open_without_token {
            flows.push(if all.is_empty() { vec![AuthType::Dummy] } else { all.clone() });
        }
        if config.enabled {
            flows.push([vec![AuthType::RegistrationToken], all].concat());
        }
        flows
    }

    /// What the stages need to know: the policies to agree to.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#terms-of-service-at-registration>
    pub fn params(&self) -> Value {
        let terms = &self.0.config.terms;
        if terms.is_empty() {
            return json!({});
        }
        let policies: Map<String, Value> = terms
            .iter()
            .map(|policy| {
                let text = json!({ "name": policy.title, "url": policy.url });
                let mut shown = json!({ "version": policy.version });
                shown[&policy.language] = text;
                (policy.name.clone(), shown)
            })
            .collect();
        json!({ "m.login.terms": { "policies": policies } })
    }

    /// Refuses where guests are not wanted, or too many accounts come from one address.
    pub fn check_guests(&self, address: ClientAddress) -> Result<(), ApiError> {
        if !self.0.config.guests {
            return Err(ApiError::guest_access_forbidden("This server has no guests"));
        }
        self.0.by_address.check(address.limit_key())
    }

    /// Makes a guest: see [`Registration::check_guests`].
    pub async fn register_guest(&self) -> Result<OwnedUserId, ApiError> {
        let name = format!("guest-{}", secret::random_name(GENERATED_NAME_LENGTH));
        let user_id = self.0.accounts.new_user_id(&name)?;
        let new = NewAccount { guest: true, ..NewAccount::user(&user_id, None) };
        self.0.accounts.create(new, Batch::new()).await?;
        Ok(user_id)
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
            let batch = self.use_proof(&attempt, &user_id).await?;
            let new = NewAccount {
                accepted_terms: self.accepted(&attempt.proof),
                ..NewAccount::user(&user_id, Some(&password_hash))
            };
            if self.0.accounts.create(new, batch).await? {
                return Ok(user_id);
            }
        }
        Err(busy())
    }

    /// Makes a guest an ordinary user. The guest's sessions go on as the user's.
    ///
    /// # Errors
    /// 403 when the account is no guest's (any more).
    pub async fn upgrade_guest(
        &self,
        user_id: &UserId,
        attempt: RegistrationAttempt<'_>,
        address: ClientAddress,
    ) -> Result<(), ApiError> {
        let password =
            attempt.password.ok_or_else(|| ApiError::missing_param("`password` is missing"))?;
        self.0.by_address.check(address.limit_key())?;
        let password_hash = self.0.accounts.hash_password(password).await?;
        let key = user_id.to_string();
        for _ in 0..ATTEMPTS {
            let old = self.0.accounts.get(user_id).await?;
            let old = old.filter(|row| row.guest && row.deactivated_ts.is_none());
            let old = old.ok_or_else(|| ApiError::forbidden("This is no guest's account"))?;
            let mut batch = self.use_proof(&attempt, user_id).await?;
            let new = AccountRow {
                guest: false,
                password_hash: Some(password_hash.clone()),
                accepted_terms: self.accepted(&attempt.proof),
                ..old.clone()
            };
            batch.check(&ACCOUNTS, &key, Some(&Json(old)));
            batch.put(&ACCOUNTS, &key, &Json(new));
            if commit(&self.0.store, batch).await?.is_some() {
                return Ok(());
            }
        }
        Err(busy())
    }

    /// The versions of the policies that were agreed to.
    fn accepted(&self, proof: &Proof) -> BTreeMap<String, String> {
        let terms = self.0.config.terms.iter().filter(|_| proof.terms);
        terms.map(|policy| (policy.name.clone(), policy.version.clone())).collect()
    }

    /// What uses up the proofs of a registration.
    async fn use_proof(
        &self,
        attempt: &RegistrationAttempt<'_>,
        user_id: &UserId,
    ) -> Result<Batch, ApiError> {
        let mut batch = self.use_token(attempt.token()).await?;
        if let Some(email) = &attempt.proof.email {
            self.check_email(email).await?;
            third_party::put_new(&mut batch, user_id, email, now_ms(&self.0.clock));
        }
        Ok(batch)
    }

    async fn check_email(&self, email: &ProvenEmail) -> Result<(), ApiError> {
        email.check_unused(&self.0.store).await?;
        if self.0.ids.owner(email.address()).await?.is_some() {
            return Err(ApiError::threepid_in_use("Another account has this address"));
        }
        Ok(())
    }

    /// Whether a registration token is good, for a client that asks before it registers.
    /// `pending`: how many are about to make an account with it.
    pub async fn check_token(
        &self,
        token: &str,
        pending: u64,
        address: ClientAddress,
    ) -> Result<bool, ApiError> {
        if !self.0.config.enabled {
            return Err(ApiError::forbidden("Registration with a token is disabled"));
        }
        self.0.token_checks.check(address.limit_key())?;
        self.is_valid_token(token, pending).await
    }

    /// Whether a registration token is good, while so many are about to make an account with it.
    pub async fn is_valid_token(&self, token: &str, pending: u64) -> Result<bool, ApiError> {
        Ok(self.is_configured(token) || self.stored_token(token, pending).await?.is_some())
    }

    /// What uses up a token, if it is one that can be used up.
    async fn use_token(&self, token: Option<&str>) -> Result<Batch, ApiError> {
        let mut batch = Batch::new();
        let Some(token) = token.filter(|token| !self.is_configured(token)) else {
            return Ok(batch);
        };
        // Here the first one wins, whoever is about to.
        let row = self.stored_token(token, 0).await?;
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

    async fn stored_token(
        &self,
        token: &str,
        pending: u64,
    ) -> Result<Option<RegistrationTokenRow>, ApiError> {
        let key = token.to_owned();
        let row = self.0.store.read(move |reader| reader.get(&REGISTRATION_TOKENS, &key)).await?;
        let now = now_ms(&self.0.clock);
        Ok(row.map(|Json(row)| row).filter(|row| {
            row.expires_ts.is_none_or(|expires| expires > now)
                && row.uses_allowed.is_none_or(|allowed| row.uses.saturating_add(pending) < allowed)
        }))
    }
}

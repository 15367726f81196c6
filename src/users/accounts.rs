//! Accounts: who has one on this server, with which password.
//!
//! A name is given once: its row stays when the account is deactivated. Every change of a row is
//! committed against the row it was decided on, so that of two at once one decides again.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#account-management>

use std::collections::BTreeMap;

use kv::{Batch, CommitError, Durability, Json, Position, Store};
use ruma::{OwnedServerName, OwnedUserId, UserId};

use super::{directory, now_ms, passwords::Passwords, profiles::DISPLAY_NAME};
use crate::{
    config::Config,
    error::ApiError,
    storage::{
        rows::users::{AccountRow, ProfileRow},
        schema::users::{ACCOUNTS, PROFILES},
    },
    time::Clock,
};

/// How often something is decided again before the server counts as too busy for it.
pub(super) const ATTEMPTS: usize = 16;

/// Accounts and their passwords.
#[derive(Clone, Debug)]
pub struct Accounts {
    store: Store,
    server_name: OwnedServerName,
    clock: Clock,
    passwords: Passwords,
    /// Whether a new account is called as its id begins.
    named: bool,
}

/// What a new account begins with.
#[derive(Clone, Debug)]
pub struct NewAccount<'a> {
    /// The user, checked by [`Accounts::new_user_id`].
    pub user_id: &'a UserId,
    /// The hash of the password; without one, no login by password.
    pub password_hash: Option<&'a str>,
    /// Whether the user may administer the server.
    pub admin: bool,
    /// Whether it is a guest.
    pub guest: bool,
    /// The terms that were accepted: the version of each policy.
    pub accepted_terms: BTreeMap<String, String>,
}

impl<'a> NewAccount<'a> {
    /// An account of an ordinary user.
    pub fn user(user_id: &'a UserId, password_hash: Option<&'a str>) -> Self {
        let accepted_terms = BTreeMap::new();
        Self { user_id, password_hash, admin: false, guest: false, accepted_terms }
    }
}

impl Accounts {
    pub(super) fn new(store: Store, config: &Config, clock: Clock) -> Self {
        let server_name = config.server.name.clone();
        let named = config.registration.display_name_from_id;
        Self { store, server_name, clock, passwords: Passwords::default(), named }
    }

    /// The user id for a new account of this name, if the name keeps to the rules.
    ///
    /// <https://spec.matrix.org/v1.19/appendices/#user-identifiers>
    pub fn new_user_id(&self, localpart: &str) -> Result<OwnedUserId, ApiError> {
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'=' | b'-' | b'/' | b'+');
        if localpart.is_empty() || !localpart.bytes().all(allowed) {
            return Err(ApiError::invalid_username(
                "A user name consists of a-z, 0-9 and the signs . _ = - / +",
            ));
        }
        let user_id = format!("@{localpart}:{}", self.server_name);
        if user_id.len() > 255 {
            return Err(ApiError::invalid_username("The user name is too long"));
        }
        UserId::parse(user_id).map_err(|_| ApiError::invalid_username("Not a valid user name"))
    }

    /// The user that a login names: a localpart or a whole id. `None`: nobody of this server.
    pub fn parse(&self, user: &str) -> Option<OwnedUserId> {
        // No account has upper-case letters, but keyboards of phones begin with one.
        let user = user.to_ascii_lowercase();
        let user_id = if user.starts_with('@') {
            UserId::parse(user).ok()?
        } else {
            UserId::parse_with_server_name(user, &self.server_name).ok()?
        };
        self.is_local(&user_id).then_some(user_id)
    }

    /// Whether the user belongs to this server (and may or may not exist).
    pub fn is_local(&self, user_id: &UserId) -> bool {
        user_id.server_name() == self.server_name
    }

    /// The account of a user.
    pub async fn get(&self, user_id: &UserId) -> Result<Option<AccountRow>, ApiError> {
        let key = user_id.to_string();
        let row = self.store.read(move |reader| reader.get(&ACCOUNTS, &key)).await;
        Ok(row?.map(|Json(row)| row))
    }

    /// Whether the user has an account here that is not deactivated.
    pub async fn is_active(&self, user_id: &UserId) -> Result<bool, ApiError> {
        Ok(self.get(user_id).await?.is_some_and(|row| row.deactivated_ts.is_none()))
    }

    /// Whether anybody has an account: the first one may administer.
    pub async fn is_any(&self) -> Result<bool, ApiError> {
        let range = ACCOUNTS.prefix(&());
        let rows = self
            .store
            .read(move |reader| reader.scan(&ACCOUNTS, &range, kv::Direction::Forward, 1))
            .await?;
        Ok(!rows.is_empty())
    }

    /// Refuses a name that somebody has (or had).
    pub async fn check_available(&self, user_id: &UserId) -> Result<(), ApiError> {
        match self.get(user_id).await? {
            Some(_) => Err(in_use()),
            None => Ok(()),
        }
    }

    /// Makes an account together with other writes. `false`: the other writes conflict.
    pub async fn create(&self, new: NewAccount<'_>, mut also: Batch) -> Result<bool, ApiError> {
        self.check_available(new.user_id).await?;
        let row = AccountRow {
            created_ts: now_ms(&self.clock),
            password_hash: new.password_hash.map(str::to_owned),
            admin: new.admin,
            guest: new.guest,
            accepted_terms: new.accepted_terms,
            ..AccountRow::default()
        };
        let key = new.user_id.to_string();
        // Of two that take the same name at once, one conflicts here.
        also.check_absent(&ACCOUNTS, &key);
        also.put(&ACCOUNTS, &key, &Json(row));
        let mut profile = ProfileRow::default();
        if self.named && !new.guest {
            profile.0.insert(DISPLAY_NAME.to_owned(), new.user_id.localpart().into());
            also.put(&PROFILES, &key, &Json(profile.clone()));
        }
        directory::update(&mut also, new.user_id, None, Some(&profile));
        if commit(&self.store, also).await?.is_some() {
            return Ok(true);
        }
        self.check_available(new.user_id).await?;
        Ok(false)
    }

    /// Makes an account for an administrator: `causerie admin create-user`.
    pub async fn create_by_admin(
        &self,
        localpart: &str,
        password: Option<&str>,
        admin: bool,
    ) -> Result<OwnedUserId, ApiError> {
        let user_id = self.new_user_id(localpart)?;
        let password_hash = match password {
            Some(password) => Some(self.passwords.hash(password).await?),
            None => None,
        };
        let password_hash = password_hash.as_deref();
        let new = NewAccount { admin, ..NewAccount::user(&user_id, password_hash) };
        self.create(new, Batch::new()).await?;
        Ok(user_id)
    }

    /// The hash that a new password is stored as.
    pub async fn hash_password(&self, password: &str) -> Result<String, ApiError> {
        self.passwords.hash(password).await
    }

    /// Whether this is the user's password. Takes as long for users that do not exist.
    pub async fn verify_password(
        &self,
        account: Option<&AccountRow>,
        password: &str,
    ) -> Result<bool, ApiError> {
        let stored = account.and_then(|account| account.password_hash.as_deref());
        self.passwords.verify(password, stored).await
    }

    /// Sets or removes the right to administer. Sessions that are open keep what they had: see
    /// [`super::Users::set_admin`].
    pub(super) async fn set_admin(&self, user_id: &UserId, admin: bool) -> Result<(), ApiError> {
        self.change(user_id, move |row| row.admin = admin).await
    }

    /// Replaces the password by one with this hash.
    pub(super) async fn set_password_hash(
        &self,
        user_id: &UserId,
        password_hash: String,
    ) -> Result<(), ApiError> {
        self.change(user_id, move |row| row.password_hash = Some(password_hash.clone())).await
    }

    pub(super) async fn change(
        &self,
        user_id: &UserId,
        change: impl Fn(&mut AccountRow),
    ) -> Result<(), ApiError> {
        let key = user_id.to_string();
        for _ in 0..ATTEMPTS {
            let old = self.get(user_id).await?.filter(|row| row.deactivated_ts.is_none());
            let old = old.ok_or_else(|| ApiError::not_found("There is no such user"))?;
            let mut new = old.clone();
            change(&mut new);
            let mut batch = Batch::new();
            batch.check(&ACCOUNTS, &key, Some(&Json(old)));
            batch.put(&ACCOUNTS, &key, &Json(new));
            if commit(&self.store, batch).await?.is_some() {
                return Ok(());
            }
        }
        Err(busy())
    }
}

/// Commits durably. `None`: what it was decided on has changed since.
pub(super) async fn commit(store: &Store, batch: Batch) -> Result<Option<Position>, ApiError> {
    match store.commit(batch, Durability::Synced).await {
        Ok(position) => Ok(Some(position)),
        Err(CommitError::Conflict) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The answer when others were quicker each time.
pub(super) fn busy() -> ApiError {
    ApiError::unavailable("The server is too busy with other changes of the same thing")
}

fn in_use() -> ApiError {
    ApiError::user_in_use("The user name is taken")
}

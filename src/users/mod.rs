//! Users: accounts, their sessions and devices, and what is stored for them.
//!
//! Called by the client-server API, by sync and by the admin commands. Reads are single steps on
//! the store; writes are checked against what they were decided on. Only `in_rooms` knows rooms: the
//! handlers call it with what rooms must learn (a new display name, a deactivation).
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#client-authentication>

mod account_data;
mod accounts;
mod deactivation;
mod devices;
pub(crate) mod filters;
pub mod in_rooms;
mod login;
mod passwords;
mod profiles;
mod push_rules;
mod registration;
pub mod secret;
mod sessions;
mod tags;
mod thread_subscriptions;
pub mod uiaa;

use std::sync::Arc;

use kv::Store;
use ruma::UserId;

pub use self::{
    account_data::{AccountData, AccountDataEntry, FULLY_READ, PUSH_RULES},
    accounts::{Accounts, NewAccount},
    deactivation::Deactivated,
    devices::{DEVICE_ID_BYTES_MAX, Devices, KnownDevice, Selection},
    filters::{Filters, StoredFilter},
    login::{Login, LoginAttempt},
    profiles::{Profile, Profiles, is_in_rooms},
    push_rules::{PushRules, RulePlace, find as find_push_rule},
    registration::{Registration, RegistrationAttempt},
    sessions::{IssuedSession, Liveness, NewSession, Sessions, expired_token},
    tags::Tags,
    thread_subscriptions::{ThreadSubscription, ThreadSubscriptions},
    uiaa::Uiaa,
};
use crate::{
    config::Config,
    error::ApiError,
    http::{Authenticator, ClientAddress, Requester, SessionId},
    id::Interner,
    time::Clock,
};

/// All services about users.
#[derive(Clone)]
pub struct Users(Arc<Parts>);

struct Parts {
    store: Store,
    interner: Interner,
    clock: Clock,
    accounts: Accounts,
    sessions: Sessions,
    devices: Devices,
    uiaa: Uiaa,
    login: Login,
    registration: Registration,
    profiles: Profiles,
    account_data: AccountData,
    push_rules: PushRules,
    tags: Tags,
    thread_subscriptions: ThreadSubscriptions,
    filters: Filters,
}

impl std::fmt::Debug for Users {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Users")
    }
}

impl Users {
    /// Builds the services on a store.
    pub fn new(store: Store, interner: Interner, config: &Arc<Config>, clock: Clock) -> Self {
        let server_name = config.server.name.clone();
        let accounts = Accounts::new(store.clone(), server_name, clock.clone());
        let sessions = Sessions::new(store.clone(), interner, config, clock.clone());
        let devices = Devices::new(store.clone(), interner, sessions.clone(), config);
        let registration =
            Registration::new(store.clone(), config, clock.clone(), accounts.clone());
        let login = Login::new(config, accounts.clone(), sessions.clone());
        let uiaa = Uiaa::new(config, clock.clone(), login.clone(), registration.clone());
        let account_data = AccountData::new(store.clone(), interner, config);
        Self(Arc::new(Parts {
            profiles: Profiles::new(store.clone(), config),
            push_rules: PushRules::new(account_data.clone()),
            tags: Tags::new(account_data.clone(), config.limits.account_data_size_bytes_max),
            filters: Filters::new(store.clone(), config),
            thread_subscriptions: ThreadSubscriptions::new(store.clone(), interner),
            store,
            interner,
            clock,
            accounts,
            sessions,
            devices,
            uiaa,
            login,
            registration,
            account_data,
        }))
    }

    /// Accounts and passwords.
    pub fn accounts(&self) -> &Accounts {
        &self.0.accounts
    }

    /// Sessions and their tokens.
    pub fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }

    /// Devices.
    pub fn devices(&self) -> &Devices {
        &self.0.devices
    }

    /// User-interactive authentication.
    pub fn uiaa(&self) -> &Uiaa {
        &self.0.uiaa
    }

    /// Logging in.
    pub fn login(&self) -> &Login {
        &self.0.login
    }

    /// Making an account.
    pub fn registration(&self) -> &Registration {
        &self.0.registration
    }

    /// Profiles.
    pub fn profiles(&self) -> &Profiles {
        &self.0.profiles
    }

    /// Account data.
    pub fn account_data(&self) -> &AccountData {
        &self.0.account_data
    }

    /// Push rules.
    pub fn push_rules(&self) -> &PushRules {
        &self.0.push_rules
    }

    /// Tags of rooms.
    pub fn tags(&self) -> &Tags {
        &self.0.tags
    }

    /// The threads that users follow.
    pub fn thread_subscriptions(&self) -> &ThreadSubscriptions {
        &self.0.thread_subscriptions
    }

    /// Stored filters.
    pub fn filters(&self) -> &Filters {
        &self.0.filters
    }

    /// Whose access token this is.
    pub async fn authenticate(
        &self,
        token: &str,
        address: ClientAddress,
    ) -> Result<Requester, ApiError> {
        self.0.sessions.authenticate(token, address).await
    }

    /// Replaces a password. The other devices of the user are logged out where that is asked for;
    /// `keep` is the device that asks, `None` when an administrator does.
    pub async fn set_password(
        &self,
        user_id: &UserId,
        password: &str,
        logout: Option<Selection<'_>>,
    ) -> Result<(), ApiError> {
        let password_hash = self.0.accounts.hash_password(password).await?;
        self.0.accounts.set_password_hash(user_id, password_hash).await?;
        if let Some(selection) = logout {
            self.0.devices.remove(user_id, selection).await?;
        }
        Ok(())
    }

    /// Sets or removes the right to administer the server, also for sessions that are open.
    pub async fn set_admin(&self, user_id: &UserId, admin: bool) -> Result<(), ApiError> {
        self.0.accounts.set_admin(user_id, admin).await?;
        self.0.sessions.forget_user(user_id);
        Ok(())
    }
}

impl Authenticator for Users {
    async fn authenticate(
        &self,
        token: &str,
        address: ClientAddress,
    ) -> Result<Requester, ApiError> {
        Self::authenticate(self, token, address).await
    }
}

/// Whether a session is still good: for those who wait with it.
impl Users {
    /// [`Sessions::liveness`], for long polls that were woken by the topic `USER_SESSIONS`.
    pub async fn liveness(&self, session: &SessionId) -> Result<Liveness, ApiError> {
        self.0.sessions.liveness(session).await
    }
}

/// The time of day in milliseconds, as rows keep it.
fn now_ms(clock: &Clock) -> u64 {
    clock.now().get().into()
}

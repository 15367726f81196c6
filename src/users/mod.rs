//! Users: accounts, their sessions and devices, and what is stored for them.
//!
//! Called by the client-server API, by sync and by the admin commands. Reads are single steps on
//! the store; writes are checked against what they were decided on. Only `in_rooms`
//! and `successors` know rooms: the handlers call them with what rooms must learn (a new display
//! name, a deactivation), and for what follows a user into the room that took another's place.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#client-authentication>

mod account_data;
mod accounts;
mod deactivation;
pub mod departures;
mod devices;
pub mod directory;
pub mod email;
pub(crate) mod filters;
mod ignored;
mod grants;
pub mod guests;
pub mod in_rooms;
mod login;
mod moderation;
mod password_reset;
mod masquerade;
mod passwords;
mod profiles;
mod push_rules;
mod pushers;
mod registration;
mod registration_tokens;
pub mod secret;
mod sessions;
pub mod successors;
mod tags;
mod third_party;
mod thread_subscriptions;
pub mod uiaa;

use std::{collections::HashSet, sync::Arc};

use kv::Store;
use parking_lot::Mutex;
use ruma::{OwnedUserId, UserId};
use tokio::sync::Notify;

pub use self::{
    account_data::{AccountData, AccountDataEntry, FULLY_READ, PUSH_RULES},
    accounts::{Accounts, NewAccount},
    deactivation::Deactivated,
    devices::{DEVICE_ID_BYTES_MAX, Devices, KnownDevice, Selection},
    email::{EmailRequest, Emails},
    filters::{Filters, StoredFilter},
    grants::Grants,
    login::{Login, LoginAttempt, LoginName, LoginProof},
    profiles::{Profile, Profiles, is_in_rooms},
    push_rules::{PushRules, RulePlace, find as find_push_rule},
    pushers::{NewPusher, Pushers, of_user as pushers_of, users_with_pushers},
    registration::{Registration, RegistrationAttempt},
    registration_tokens::{RegistrationTokens, TokenChange},
    sessions::{IssuedSession, Liveness, NewSession, Sessions, expired_token},
    tags::Tags,
    third_party::{EMAIL, ThirdPartyIds},
    thread_subscriptions::{ThreadSubscription, ThreadSubscriptions},
    uiaa::Uiaa,
};
use crate::{
    appservices::Appservices,
    config::Config,
    error::ApiError,
    http::{AppserviceCaller, Authenticator, ClientAddress, Credentials, Requester, SessionId},
    id::{Interner, RoomNid},
    time::Clock,
};

/// All services about users.
#[derive(Clone)]
pub struct Users(Arc<Parts>);

struct Parts {
    store: Store,
    interner: Interner,
    clock: Clock,
    appservices: Appservices,
    accounts: Accounts,
    sessions: Sessions,
    devices: Devices,
    uiaa: Uiaa,
    login: Login,
    registration: Registration,
    profiles: Profiles,
    account_data: AccountData,
    push_rules: PushRules,
    pushers: Pushers,
    tags: Tags,
    thread_subscriptions: ThreadSubscriptions,
    filters: Filters,
    ids: ThirdPartyIds,
    emails: Emails,
    grants: Grants,
    registration_tokens: RegistrationTokens,
    /// That somebody has to leave all rooms.
    departures: Notify,
    /// Rooms that guests have joined.
    guest_rooms: Mutex<HashSet<RoomNid>>,
}

impl std::fmt::Debug for Users {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Users")
    }
}

impl Users {
    /// Builds the services on a store.
    pub fn new(
        store: Store,
        interner: Interner,
        config: &Arc<Config>,
        clock: Clock,
        appservices: Appservices,
    ) -> Self {
        let accounts = Accounts::new(store.clone(), config, clock.clone());
        let sessions = Sessions::new(store.clone(), interner, config, clock.clone());
        let devices = Devices::new(store.clone(), interner, sessions.clone(), config);
        let ids = ThirdPartyIds::new(store.clone(), clock.clone(), accounts.clone());
        let emails = Emails::new(store.clone(), config, clock.clone(), ids.clone());
        let grants = Grants::new(store.clone(), clock.clone(), accounts.clone(), &config.limits);
        let registration = Registration::new(
            store.clone(),
            config,
            clock.clone(),
            accounts.clone(),
            (ids.clone(), appservices.clone()),
        );
        let login =
            Login::new(config, accounts.clone(), sessions.clone(), ids.clone(), grants.clone());
        let uiaa =
            Uiaa::new(config, clock.clone(), login.clone(), registration.clone(), emails.clone());
        let account_data = AccountData::new(store.clone(), interner, config);
        Self(Arc::new(Parts {
            profiles: Profiles::new(store.clone(), config),
            push_rules: PushRules::new(account_data.clone(), config.limits.push_rules_per_user_max),
            pushers: Pushers::new(store.clone(), interner, config, clock.clone()),
            tags: Tags::new(account_data.clone(), config.limits.account_data_size_bytes_max),
            filters: Filters::new(store.clone(), config),
            registration_tokens: RegistrationTokens::new(store.clone()),
            departures: Notify::new(),
            guest_rooms: Mutex::default(),
            ids,
            emails,
            grants,
            thread_subscriptions: ThreadSubscriptions::new(store.clone(), interner),
            store,
            interner,
            clock,
            appservices,
            accounts,
            sessions,
            devices,
            uiaa,
            login,
            registration,
            account_data,
        }))
    }

    /// Application services.
    pub fn appservices(&self) -> &Appservices {
        &self.0.appservices
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

    /// Pushers.
    pub fn pushers(&self) -> &Pushers {
        &self.0.pushers
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

    /// Brings what is derived of accounts up to date, where an older version of this program made
    /// them. Before anything else writes.
    pub async fn prepare(&self) -> Result<(), ApiError> {
        directory::fill(&self.0.store).await
    }

    /// The e-mail addresses of accounts.
    pub fn third_party_ids(&self) -> &ThirdPartyIds {
        &self.0.ids
    }

    /// Proofs of e-mail addresses.
    pub fn emails(&self) -> &Emails {
        &self.0.emails
    }

    /// Tokens that live for a short while.
    pub fn grants(&self) -> &Grants {
        &self.0.grants
    }

    /// Registration tokens that administrators make.
    pub fn registration_tokens(&self) -> &RegistrationTokens {
        &self.0.registration_tokens
    }

    /// The session of a user's access token; see [`Users::identify`] for all tokens.
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

    /// Makes a guest an ordinary user, whose sessions are the guest's.
    pub async fn upgrade_guest(
        &self,
        guest: OwnedUserId,
        attempt: RegistrationAttempt<'_>,
        address: ClientAddress,
    ) -> Result<OwnedUserId, ApiError> {
        self.0.registration.upgrade_guest(&guest, attempt, address).await?;
        self.0.sessions.forget_user(&guest);
        Ok(guest)
    }

    /// Sets or removes the right to administer the server, also for sessions that are open.
    pub async fn set_admin(&self, user_id: &UserId, admin: bool) -> Result<(), ApiError> {
        self.0.accounts.set_admin(user_id, admin).await?;
        self.0.sessions.forget_user(user_id);
        Ok(())
    }
}

impl Authenticator for Users {
    async fn authenticate(&self, credentials: Credentials<'_>) -> Result<Requester, ApiError> {
        self.identify(credentials).await
    }

    fn appservice(&self, token: &str) -> Option<AppserviceCaller> {
        let appservice = self.0.appservices.by_token(token)?;
        Some(appservice.caller(&appservice.sender))
    }
}

/// Whether a session is still good: for those who wait with it.
impl Users {
    /// [`Sessions::liveness`], for long polls that were woken by the topic `USER_SESSIONS`.
    pub async fn liveness(&self, session: &SessionId) -> Result<Liveness, ApiError> {
        if self.0.appservices.is_token_hash(&session.0) {
            return Ok(Liveness::Alive);
        }
        self.0.sessions.liveness(session).await
    }
}

/// The time of day in milliseconds, as rows keep it.
fn now_ms(clock: &Clock) -> u64 {
    clock.now().get().into()
}

//! What clients are told of what changed: long polls on the commits.
//!
//! [`notifier`] knows in memory what changed last for whom, so that a sync without news reads no
//! storage. `streams` read what is new, one file per kind of thing; [`v3`] is the shape of the
//! answer.

mod connections;
mod filter;
mod key_changes;
pub mod notifier;
mod room_table;
pub mod sliding;
mod streams;
pub mod token;
pub mod v3;

use std::{collections::HashMap, sync::Arc, time::Duration};

use kv::Position;
use parking_lot::Mutex;
use quick_cache::{Weighter, sync::Cache};
use ruma::{OwnedDeviceId, OwnedUserId, UserId, api::client::filter::FilterDefinition};
use tokio::time::Instant;

use self::{
    connections::{Connections, DeviceKey, Poll},
    filter::SyncFilter,
    notifier::Notifier,
    sliding::{connection::SlidingConnections, lists::RoomFacts},
    streams::{Sources, key_counts::KnownCounts},
    v3::FilterChoice,
};
use crate::{
    config::LimitsConfig,
    encryption::{Encryption, KeyCounts},
    ephemeral::{Presence, Typing},
    error::ApiError,
    http::SessionId,
    rooms::Rooms,
    storage::schema,
    users::{
        Liveness, Users, expired_token,
        filters::{CACHE_BYTES_MAX, CACHE_ITEMS},
    },
};

/// Longer than anybody waits.
const NO_END: Duration = Duration::from_hours(24);

/// How many checked sessions are kept.
const KEPT_MAX: usize = 10_000;

/// Answers those who sync. Cheap to clone.
#[derive(Clone)]
pub struct Sync(Arc<Inner>);

struct Inner {
    sources: Sources,
    notifier: Notifier,
    connections: Connections,
    /// How long a request may wait.
    timeout_max: Duration,
    /// What the clients of sliding sync know.
    sliding: SlidingConnections,
    /// What is remembered of rooms for the filters of sliding sync.
    room_facts: RoomFacts,
    /// How many keys wait for each device.
    key_counts: KnownCounts,
    /// The epoch of the database.
    epoch: u64,
    /// Stored filters never change.
    filters: Cache<FilterKey, Compiled, Weight>,
    /// When each session was last seen alive.
    sessions: Mutex<HashMap<SessionId, Position>>,
}

/// The user, and the filter's id as the client gives it.
type FilterKey = (OwnedUserId, String);

/// A compiled filter and its weight.
type Compiled = (Arc<SyncFilter>, u64);

#[derive(Clone)]
struct Weight;

impl Weighter<FilterKey, Compiled> for Weight {
    fn weight(&self, (_, id): &FilterKey, (_, weight): &Compiled) -> u64 {
        weight + id.len() as u64
    }
}

impl std::fmt::Debug for Sync {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Sync")
    }
}

impl Sync {
    /// Begins to follow the store's commits. `epoch` is that of the database.
    pub fn start(
        (rooms, users, encryption): (Rooms, Users, Encryption),
        (typing, presence): (Typing, Presence),
        epoch: u64,
        limits: &LimitsConfig,
    ) -> Self {
        let notifier = Notifier::start(rooms.store().clone(), *rooms.interner());
        Self(Arc::new(Inner {
            sources: Sources { rooms, users, encryption, typing, presence },
            notifier,
            timeout_max: limits.sync_timeout_max(),
            connections: Connections::new(limits),
            sliding: SlidingConnections::new(),
            room_facts: RoomFacts::new(),
            key_counts: KnownCounts::new(),
            epoch,
            filters: Cache::with_weighter(CACHE_ITEMS, CACHE_BYTES_MAX, Weight),
            sessions: Mutex::default(),
        }))
    }

    /// Tells what is new, to others than clients.
    pub fn notifier(&self) -> &Notifier {
        &self.0.notifier
    }

    /// Opens a poll that is answered elsewhere, so that it counts among the device's.
    pub(crate) fn open_poll(&self, user_id: OwnedUserId, device_id: OwnedDeviceId) -> Poll {
        self.0.connections.open_poll((user_id, device_id))
    }

    /// Ends all long polls: the server stops.
    pub fn stop(&self) {
        self.0.notifier.stop();
    }

    /// Refuses a filter that would cost too much, before it is stored.
    ///
    /// # Errors
    /// `M_INVALID_PARAM` when a list is too long.
    pub fn check_filter(&self, definition: &FilterDefinition) -> Result<(), ApiError> {
        SyncFilter::compile(definition, self.0.sources.rooms.interner()).map(drop)
    }

    /// The filter that a client chose.
    async fn filter(
        &self,
        user_id: &UserId,
        choice: Option<FilterChoice>,
    ) -> Result<Arc<SyncFilter>, ApiError> {
        let interner = self.0.sources.rooms.interner();
        let id = match choice {
            None => {
                return Ok(Arc::new(SyncFilter::compile(&FilterDefinition::default(), interner)?));
            }
            Some(FilterChoice::Inline(definition)) => {
                return Ok(Arc::new(SyncFilter::compile(&definition, interner)?));
            }
            Some(FilterChoice::Stored(id)) => id,
        };
        let key = (user_id.to_owned(), id);
        if let Some((filter, _)) = self.0.filters.get(&key) {
            return Ok(filter);
        }
        let stored = self
            .0
            .sources
            .users
            .filters()
            .get(user_id, &key.1)
            .await?
            .ok_or_else(|| ApiError::invalid_param("There is no filter with this id"))?;
        let filter = Arc::new(SyncFilter::compile(&stored.definition, interner)?);
        self.0.filters.insert(key, (Arc::clone(&filter), stored.weight()));
        Ok(filter)
    }

    /// How many keys wait for a device, as of now or later.
    async fn key_counts(&self, device: &DeviceKey) -> Result<Arc<KeyCounts>, ApiError> {
        let changed = self.0.notifier.devices_changed(self.0.notifier.user(&device.0));
        self.0.key_counts.get(self.0.sources.rooms.store(), device, changed).await
    }

    /// Removes the messages for a device that its client has, once this answers; `newest` is the
    /// position of now.
    fn remove_messages(&self, device: &DeviceKey, (until, newest): (Position, Position)) {
        if !self.0.connections.removes_messages(device, (until, newest)) {
            return;
        }
        let encryption = self.0.sources.encryption.clone();
        let (connections, device) = (self.0.connections.clone(), device.clone());
        tokio::spawn(async move {
            let (user_id, device_id) = (device.0.to_string(), device.1.to_string());
            let key = schema::users::DeviceKey { user_id, device_id };
            if let Err(error) = encryption.remove_messages(&key, until).await {
                tracing::warn!(%error, "messages that a device has could not be removed");
                connections.forget_messages(&device);
            }
        });
    }

    /// When the access token that somebody waits with expires; far away where it does not.
    fn session_end(&self, session: &SessionId) -> Instant {
        let left = self.0.sources.users.sessions().expires_in(session);
        Instant::now() + left.unwrap_or(NO_END)
    }

    /// Refuses a session that has ended. Asks the store only when one of the user's sessions
    /// changed since this one was last seen alive.
    async fn check_session(&self, user_id: &UserId, session: &SessionId) -> Result<(), ApiError> {
        let notifier = &self.0.notifier;
        let changed = notifier.sessions_changed(notifier.user(user_id));
        if self.0.sessions.lock().get(session).is_some_and(|seen| *seen >= changed) {
            return Ok(());
        }
        let refusal = match self.0.sources.users.liveness(session).await? {
            Liveness::Alive => None,
            Liveness::Expired => Some(expired_token()),
            Liveness::Locked => Some(ApiError::user_locked()),
            Liveness::Ended => Some(ApiError::unknown_token("The session has ended", false)),
        };
        if let Some(refusal) = refusal {
            self.0.sessions.lock().remove(session);
            return Err(refusal);
        }
        let mut sessions = self.0.sessions.lock();
        if sessions.len() >= KEPT_MAX {
            sessions.clear();
        }
        sessions.insert(*session, changed);
        Ok(())
    }
}

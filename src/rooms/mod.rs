//! The event graph: rooms, their events and their state.
//!
//! Every event, local or remote, enters through one commit (`commit`). The path of a local event:
//! [`send`] takes the room's lock, decides on the room's head with pure functions, and commits.
//!
//! `rooms` never calls `sync`, `users` or `client_api`: those look at what was committed.

pub mod access;
pub mod alias;
mod auth;
pub mod bump;
mod commit;
pub mod compose;
pub mod create;
pub mod directory;
mod draft;
pub mod erasure;
pub mod event;
pub mod fields;
pub mod filter;
pub mod fsck;
mod head;
pub mod hierarchy;
pub mod history;
mod levels;
pub mod members;
pub mod membership;
pub mod mutual;
pub mod notified;
pub mod notify;
pub mod preferences;
pub mod old_sync;
pub mod published;
pub mod receive;
mod redaction;
pub mod relations;
pub mod render;
pub mod reports;
mod resolve;
pub mod send;
pub mod state;
pub mod state_view;
pub mod threads;
pub mod summary;
pub mod timeline;
pub mod timestamp;
pub mod upgrade;
mod validate;
pub mod visibility;

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use kv::{Position, Reader, Store};
use parking_lot::Mutex;
use quick_cache::{Weighter, sync::Cache};
use ruma::{
    EventId, OwnedRoomId, RoomId, RoomVersionId, ServerName, UserId,
    room_version_rules::RoomVersionRules,
};

pub(crate) use self::validate::{check_new_event, redacts_of};
pub use self::{
    compose::NewEvent,
    event::{Pdu, StoredEvent},
    receive::Outcome,
    send::{Sent, Transaction},
};
use self::{event::hash_of_event_id, head::Head};
use crate::{
    error::ApiError,
    federation::server_keys::Signer,
    id::{EventNid, Interner, RoomNid},
    push::Push,
    storage::{
        rows::{EventFlags, Membership, MembershipRow},
        schema::rooms::{
            EVENT_RECORDS, EVENTS, EVENTS_BY_HASH, EventHashKey, EventKey, MEMBERSHIPS,
            MembershipKey, ROOMS,
        },
    },
    time::Clock,
};

/// The versions in which this server makes rooms.
pub const CREATABLE_VERSIONS: [RoomVersionId; 7] = [
    RoomVersionId::V6,
    RoomVersionId::V7,
    RoomVersionId::V8,
    RoomVersionId::V9,
    RoomVersionId::V10,
    RoomVersionId::V11,
    RoomVersionId::V12,
];

/// What `rooms` is built from.
#[derive(Debug)]
pub struct Parts {
    /// The store.
    pub store: Store,
    /// Makes the numbers of rooms, users and state keys.
    pub interner: Interner,
    /// Signs the events that are built here.
    pub signer: Arc<Signer>,
    /// The time.
    pub clock: Clock,
    /// The version of new rooms.
    pub default_version: RoomVersionId,
    /// How many bytes of events are kept in memory.
    pub event_cache_bytes: u64,
}

/// The event graph: a handle that is cheap to clone.
#[derive(Clone)]
pub struct Rooms(Arc<Inner>);

struct Inner {
    parts: Parts,
    rooms: Mutex<HashMap<RoomNid, Room>>,
    events: Cache<EventKey, Arc<StoredEvent>, EventWeight>,
    summaries: summary::Summaries,
    walks: hierarchy::Walks,
    /// The position of the newest redaction (or first relation to an event): what an older view
    /// holds may be the text that was redacted, and is not cached.
    last_redaction: AtomicU64,
    /// Counts the readings of heads.
    generations: AtomicU64,
    push: Push,
}

#[derive(Clone)]
struct EventWeight;

impl Weighter<EventKey, Arc<StoredEvent>> for EventWeight {
    fn weight(&self, _: &EventKey, event: &Arc<StoredEvent>) -> u64 {
        // The JSON, its content once more, and about what the rest of the structures takes.
        2 * event.pdu.json().len() as u64 + 600
    }
}

/// A room of this server: what it is, and the lock that its writer holds. Cheap to clone.
#[derive(Clone)]
pub struct Room(Arc<RoomParts>);

/// The fixed facts of a room.
#[derive(Debug)]
pub struct RoomParts {
    /// Its number.
    pub nid: RoomNid,
    /// Its id.
    pub id: OwnedRoomId,
    /// Its version.
    pub version: RoomVersionId,
    /// The rules of its version.
    pub rules: RoomVersionRules,
    /// The head, once it is loaded. Whoever holds this lock is the room's writer.
    head: Arc<tokio::sync::Mutex<Option<Head>>>,
}

impl Deref for Room {
    type Target = RoomParts;

    fn deref(&self) -> &RoomParts {
        &self.0
    }
}

impl std::fmt::Debug for Room {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Room({})", self.id)
    }
}

impl std::fmt::Debug for Rooms {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Rooms")
    }
}

impl Rooms {
    /// Builds the handle.
    pub fn new(parts: Parts) -> Self {
        let bytes = parts.event_cache_bytes;
        let items = usize::try_from(bytes / 1500).unwrap_or(usize::MAX).max(16);
        let events = Cache::with_weighter(items, bytes, EventWeight);
        Self(Arc::new(Inner {
            parts,
            rooms: Mutex::default(),
            events,
            summaries: summary::summaries(),
            walks: hierarchy::walks(),
            last_redaction: 0.into(),
            generations: 0.into(),
            push: Push::default(),
        }))
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.0.parts.store
    }

    /// Runs a step on one consistent view of the store; see [`Store::read`].
    async fn read<T: Send + 'static>(
        &self,
        step: impl Fn(&Self, &Reader<'_>) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let rooms = self.clone();
        self.store().read(move |reader| step(&rooms, reader)).await
    }

    /// Who is notified of what.
    pub fn push(&self) -> &Push {
        &self.0.push
    }

    /// What makes the numbers of rooms, users and state keys.
    pub fn interner(&self) -> &Interner {
        &self.0.parts.interner
    }

    /// The name of this server.
    pub fn server_name(&self) -> &ServerName {
        &self.0.parts.signer.server_name
    }

    /// The time.
    pub fn clock(&self) -> &Clock {
        &self.0.parts.clock
    }

    /// The version of new rooms.
    pub fn default_version(&self) -> &RoomVersionId {
        &self.0.parts.default_version
    }

    fn signer(&self) -> &Arc<Signer> {
        &self.0.parts.signer
    }

    /// The room with this id, if this server has it.
    pub async fn room(&self, room_id: &RoomId) -> Result<Option<Room>, ApiError> {
        let nid = self.interner().room(room_id);
        if let Some(room) = self.0.rooms.lock().get(&nid) {
            return Ok(Some(room.clone()).filter(|room| room.id == room_id));
        }
        let rooms = self.clone();
        let room = self.store().read(move |reader| rooms.room_by_nid(reader, nid)).await?;
        Ok(room.filter(|room| room.id == room_id))
    }

    /// [`Rooms::room`], where a missing room is an error to tell the client.
    pub async fn known_room(&self, room_id: &RoomId) -> Result<Room, ApiError> {
        self.room(room_id)
            .await?
            .ok_or_else(|| ApiError::not_found(format!("The room {room_id} is not known here")))
    }

    /// The room with this number, inside a read step.
    pub fn room_by_nid(&self, reader: &Reader<'_>, nid: RoomNid) -> Result<Option<Room>, ApiError> {
        if let Some(room) = self.0.rooms.lock().get(&nid) {
            return Ok(Some(room.clone()));
        }
        let Some(row) = reader.get(&ROOMS, &nid)? else {
            return Ok(None);
        };
        let room = Room::new(nid, row.0.room_id, row.0.version)?;
        Ok(Some(self.0.rooms.lock().entry(nid).or_insert(room).clone()))
    }

    /// An event of a room by its number.
    pub fn event(
        &self,
        reader: &Reader<'_>,
        room: &Room,
        event: EventNid,
    ) -> Result<Option<Arc<StoredEvent>>, ApiError> {
        let key = EventKey { room: room.nid, event };
        if let Some(event) = self.0.events.get(&key) {
            return Ok(Some(event));
        }
        let stored = self.event_uncached(reader, room, event)?;
        if let Some(stored) = &stored {
            self.cache_event(room.nid, stored.clone(), reader.position());
        }
        Ok(stored)
    }

    /// An event as this view of the store has it. The cache learns of a redaction a moment after
    /// the store does: so whoever keeps what an event says asks here.
    pub fn event_uncached(
        &self,
        reader: &Reader<'_>,
        room: &Room,
        event: EventNid,
    ) -> Result<Option<Arc<StoredEvent>>, ApiError> {
        let key = EventKey { room: room.nid, event };
        let Some(record) = reader.get(&EVENT_RECORDS, &key)? else {
            return Ok(None);
        };
        let Some(json) = reader.get(&EVENTS, &key)? else {
            return Err(corrupt("events", event, "a record without an event"));
        };
        let event_id = event::event_id_of_hash(&record.hash, &room.rules);
        let pdu = Pdu::parse(json.0, event_id, room.id.clone(), &room.rules)
            .map_err(|error| corrupt("events", event, &error.to_string()))?
            .with_flags(record.flags);
        Ok(Some(Arc::new(StoredEvent { nid: event, record, pdu })))
    }

    /// An event that something stored refers to: its absence is a defect of the store.
    fn stored_event(
        &self,
        reader: &Reader<'_>,
        room: &Room,
        event: EventNid,
    ) -> Result<Arc<StoredEvent>, ApiError> {
        self.event(reader, room, event)?
            .ok_or_else(|| corrupt("event_records", event, "an event that is referred to"))
    }

    /// The state event that a state event replaced.
    pub fn replaced_event(
        &self,
        reader: &Reader<'_>,
        room: &Room,
        event: &StoredEvent,
    ) -> Result<Option<Arc<StoredEvent>>, ApiError> {
        let record = &event.record;
        if !record.flags.has(EventFlags::STATE) {
            return Ok(None);
        }
        let replaced = state::lookup(reader, room.nid, record.state_before, record.state_key)?;
        match replaced.filter(|replaced| *replaced != event.nid) {
            Some(replaced) => self.event(reader, room, replaced),
            None => Ok(None),
        }
    }

    /// The number of an event of a room.
    pub fn event_nid(
        &self,
        reader: &Reader<'_>,
        room: &Room,
        event_id: &EventId,
    ) -> Result<Option<EventNid>, ApiError> {
        let Some(hash) = hash_of_event_id(event_id) else {
            return Ok(None);
        };
        Ok(reader.get(&EVENTS_BY_HASH, &EventHashKey { room: room.nid, hash })?)
    }

    /// An event of a room by its id. An event of another room is not found.
    pub fn event_by_id(
        &self,
        reader: &Reader<'_>,
        room: &Room,
        event_id: &EventId,
    ) -> Result<Option<Arc<StoredEvent>>, ApiError> {
        match self.event_nid(reader, room, event_id)? {
            Some(event) => self.event(reader, room, event),
            None => Ok(None),
        }
    }

    /// What a user is to a room now.
    pub fn membership(
        &self,
        reader: &Reader<'_>,
        room: &Room,
        user_id: &UserId,
    ) -> Result<Option<MembershipRow>, ApiError> {
        let key = MembershipKey { user_id: user_id.to_string(), room: room.nid };
        Ok(reader.get(&MEMBERSHIPS, &key)?)
    }

    /// Whether a user has joined a room.
    pub fn is_joined(
        &self,
        reader: &Reader<'_>,
        room: &Room,
        user_id: &UserId,
    ) -> Result<bool, ApiError> {
        let row = self.membership(reader, room, user_id)?;
        Ok(row.is_some_and(|row| row.membership == Membership::Join))
    }

    /// [`Rooms::is_joined`] outside of a read step.
    pub async fn has_joined(&self, room: &Room, user_id: &UserId) -> Result<bool, ApiError> {
        let (rooms, room, user_id) = (self.clone(), room.clone(), user_id.to_owned());
        self.store().read(move |reader| rooms.is_joined(reader, &room, &user_id)).await
    }

    /// Whether a user sent an event of a room.
    pub async fn is_sender(
        &self,
        room: &Room,
        event_id: &EventId,
        user_id: &UserId,
    ) -> Result<bool, ApiError> {
        let (rooms, room) = (self.clone(), room.clone());
        let (event_id, user_id) = (event_id.to_owned(), user_id.to_owned());
        let read = self.store().read(move |reader| {
            let event = rooms.event_by_id(reader, &room, &event_id)?;
            Ok::<_, ApiError>(event.is_some_and(|event| event.pdu.sender() == user_id))
        });
        read.await
    }

    /// Whether everybody may read the room: its history is world-readable now.
    pub async fn is_open(&self, room: &Room) -> Result<bool, ApiError> {
        self.write(room, |draft| {
            let event = draft.current("m.room.history_visibility", "")?;
            let visibility: Option<String> =
                event.and_then(|event| event.pdu.content_field("history_visibility"));
            Ok(visibility.as_deref() == Some("world_readable"))
        })
        .await
    }

    /// Forgets what is cached of an event that was written again: it was redacted, or has become
    /// the parent of others.
    ///
    /// `position` is that of the commit.
    fn event_was_rewritten(&self, room: RoomNid, event: EventNid, position: Position) {
        self.0.last_redaction.fetch_max(position.as_u64(), SeqCst);
        self.0.events.remove(&EventKey { room, event });
        self.0.summaries.remove(&room);
    }

    /// Remembers an event as it was at a position; nothing that a later redaction may have taken.
    fn cache_event(&self, room: RoomNid, event: Arc<StoredEvent>, at: Position) {
        if self.was_redacted_since(at) {
            return;
        }
        let key = EventKey { room, event: event.nid };
        self.0.events.insert(key.clone(), event);
        if self.was_redacted_since(at) {
            self.0.events.remove(&key);
        }
    }

    /// Whether anything was redacted after a position: a view of that time may hold the text.
    fn was_redacted_since(&self, at: Position) -> bool {
        self.0.last_redaction.load(SeqCst) > at.as_u64()
    }

    fn next_generation(&self) -> u64 {
        self.0.generations.fetch_add(1, SeqCst) + 1
    }

    fn add_room(&self, room: &Room) {
        self.0.rooms.lock().insert(room.nid, room.clone());
    }
}

impl Room {
    fn new(nid: RoomNid, id: OwnedRoomId, version: RoomVersionId) -> Result<Self, ApiError> {
        let rules = version
            .rules()
            .ok_or_else(|| ApiError::internal_text(format!("room version {version} of {id}")))?;
        let head = Arc::default();
        Ok(Self(Arc::new(RoomParts { nid, id, version, rules, head })))
    }
}

fn corrupt(table: &'static str, event: EventNid, reason: &str) -> ApiError {
    kv::Error::Corrupt { table, key: format!("event {}", event.0), reason: reason.to_owned() }
        .into()
}

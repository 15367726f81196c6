//! The commit: the only place where events and room state are written.
//!
//! What was decided ([`RoomCommit`], plain data) becomes one batch: an event and everything that
//! follows from it is there as a whole or not at all. The batch checks the head that it was
//! decided on, so that two decisions on one head cannot both come true.

use std::sync::Arc;

use kv::{Batch, Json, Position};

use super::{
    Room, Rooms,
    bump::bumps,
    event::StoredEvent,
    head::Head,
    redaction::RedactionCommit,
    relations::index::RelationCommit,
    state::{self, StateWrite},
};
use crate::{
    id::RoomNid,
    push::counts::Counted,
    storage::{
        rows::{
            EventBytes, HeadRow, Membership, MembershipRow, StateKeyName, TimelineEntry,
            TimelinePosition, rooms::RoomInfo,
        },
        schema::rooms::{
            EVENT_RECORDS, EVENTS, EVENTS_BY_HASH, EventHashKey, EventKey, MEMBERS, MEMBERSHIPS,
            MemberKey, MembershipKey, PENDING_REDACTIONS, PendingRedactionKey, ROOM_BUMPS,
            ROOM_HEADS, ROOMS, STATE_KEYS, StateKeyKey, TIMELINE, TRANSACTIONS, TimelineKey,
            TransactionKey,
        },
        topic,
    },
};

/// What is written of one room at once.
#[derive(Clone, Debug)]
pub(super) struct RoomCommit {
    pub(super) room: Room,
    /// Set for a room that is new.
    pub(super) info: Option<RoomInfo>,
    /// The head that was decided on.
    pub(super) old_head: Option<HeadRow>,
    /// The head after it.
    pub(super) head: Head,
    pub(super) events: Vec<EventCommit>,
    /// The states that they make.
    pub(super) state_writes: Vec<StateWrite>,
    /// Rows of other tables of `rooms`: aliases, the directory.
    pub(super) extra: Batch,
}

/// An event and everything that is written because of it.
#[derive(Clone, Debug)]
pub(super) struct EventCommit {
    pub(super) event: Arc<StoredEvent>,
    pub(super) position: Position,
    pub(super) timeline: Option<TimelineEntry>,
    pub(super) name: Option<StateKeyName>,
    pub(super) members: Vec<MemberChange>,
    pub(super) relations: RelationCommit,
    pub(super) redaction: Option<RedactionCommit>,
    pub(super) transaction: Option<TransactionKey>,
    pub(super) counted: Counted,
}

/// A user whose membership by the current state changed.
#[derive(Clone, Debug)]
pub(super) struct MemberChange {
    pub(super) user_id: String,
    pub(super) before: Membership,
    pub(super) row: MembershipRow,
}

impl RoomCommit {
    /// Whether the current state stays as it is: then the next event may be decided before this
    /// commit is on disk. What is counted (the replies of a thread) is state in this sense.
    pub(super) fn keeps_state(&self) -> bool {
        self.state_writes.is_empty()
            && self
                .events
                .iter()
                .all(|event| event.redaction.is_none() && !event.relations.counts())
            && !self.head.tail.is_full()
    }

    /// The batch that writes it.
    pub(super) fn batch(&self, rooms: &Rooms) -> Batch {
        let mut batch = Batch::new();
        let room = self.room.nid;
        if let Some(info) = &self.info {
            batch.check_absent(&ROOMS, &room);
            batch.put(&ROOMS, &room, &Json(info.clone()));
        }
        batch.check(&ROOM_HEADS, &room, self.old_head.as_ref());
        batch.put(&ROOM_HEADS, &room, &self.head.row);
        for event in &self.events {
            event.write(rooms, &self.room, &mut batch);
        }
        if self.events.iter().any(|event| event.timeline.is_some()) {
            batch.touch(topic::room(topic::ROOM_EVENTS, room));
        }
        if self.events.iter().any(|event| !event.members.is_empty()) {
            batch.touch(topic::room(topic::ROOM_MEMBERS, room));
        }
        let bumps = |event: &&EventCommit| event.timeline.is_some() && bumps(&event.event.pdu);
        if let Some(event) = self.events.iter().rev().find(bumps) {
            batch.put(&ROOM_BUMPS, &room, &event.position);
            batch.touch(topic::room(topic::ROOM_BUMP, room));
        }
        state::apply(room, &self.state_writes, &mut batch);
        batch.append(self.extra.clone());
        batch
    }

    /// Tells the caches what is committed. `first` is the position of the first event.
    pub(super) fn publish(&self, rooms: &Rooms, first: Position) {
        for (index, commit) in self.events.iter().enumerate() {
            let index = u64::try_from(index).unwrap_or_default();
            let position = Position::from_u64(first.as_u64() + index);
            for change in &commit.members {
                change.publish(rooms, self.room.nid, position);
            }
            if let Some(RedactionCommit::Applied(target, _)) = &commit.redaction {
                rooms.event_was_rewritten(self.room.nid, target.nid, position);
            }
            let mut event = StoredEvent::clone(&commit.event);
            if commit.timeline.is_some() {
                event.record.position = TimelinePosition::live(position);
            }
            let applied_to_itself = matches!(&commit.redaction,
                Some(RedactionCommit::Applied(target, _)) if target.nid == event.nid);
            if !applied_to_itself {
                rooms.cache_event(self.room.nid, Arc::new(event), position);
            }
            if let Some(parent) = commit.relations.parent() {
                rooms.event_was_rewritten(self.room.nid, parent, position);
            }
        }
    }
}

impl EventCommit {
    fn write(&self, rooms: &Rooms, room: &Room, batch: &mut Batch) {
        let StoredEvent { nid, record, pdu } = &*self.event;
        let key = EventKey { room: room.nid, event: *nid };
        batch.put(&EVENTS, &key, &EventBytes(pdu.json().into()));
        batch.put(&EVENT_RECORDS, &key, record);
        let by_hash = EventHashKey { room: room.nid, hash: record.hash };
        batch.put(&EVENTS_BY_HASH, &by_hash, nid);
        let position = TimelinePosition::live(self.position);
        if let Some(entry) = &self.timeline {
            batch.put(&TIMELINE, &TimelineKey { room: room.nid, position }, entry);
        }
        if let Some(name) = &self.name {
            batch.put(&STATE_KEYS, &StateKeyKey { room: room.nid, key: record.state_key }, name);
        }
        for change in &self.members {
            change.write(rooms, room, batch);
        }
        self.relations.write(batch);
        if let Some(redaction) = &self.redaction {
            redaction.write(room, &self.event, batch);
        }
        if let Some(transaction) = &self.transaction {
            batch.check_absent(&TRANSACTIONS, transaction);
            batch.put(&TRANSACTIONS, transaction, &key);
        }
        self.counted.write(room.nid, self.position, batch);
        // An event that is not shown has a position too: the sequence of numbers is the batch's.
        batch.reserve_positions(self.position.pending_index().map_or(0, |index| index + 1));
    }
}

impl MemberChange {
    fn publish(&self, rooms: &Rooms, room: RoomNid, position: Position) {
        if let Ok(user_id) = ruma::UserId::parse(&self.user_id)
            && user_id.server_name() == rooms.server_name()
        {
            let joined = self.row.membership == Membership::Join;
            rooms.push().membership_changed(position, &user_id, room, joined);
        }
    }

    fn write(&self, rooms: &Rooms, room: &Room, batch: &mut Batch) {
        let member = |membership: Membership| MemberKey {
            room: room.nid,
            membership: membership as u8,
            user_id: self.user_id.clone(),
        };
        if self.before != Membership::None {
            batch.delete(&MEMBERS, &member(self.before));
        }
        if self.row.membership != Membership::None {
            batch.put(&MEMBERS, &member(self.row.membership), &self.row.event);
        }
        let key = MembershipKey { user_id: self.user_id.clone(), room: room.nid };
        batch.put(&MEMBERSHIPS, &key, &self.row);
        if let Ok(user_id) = ruma::UserId::parse(&self.user_id)
            && user_id.server_name() == rooms.server_name()
        {
            let user = rooms.interner().user(&user_id);
            batch.touch(topic::user(topic::USER_MEMBERSHIPS, user));
        }
    }
}

impl RedactionCommit {
    fn write(&self, room: &Room, event: &StoredEvent, batch: &mut Batch) {
        match self {
            Self::Applied(target, entry) => {
                if let Some(entry) = entry {
                    let position = target.record.position;
                    batch.put(&TIMELINE, &TimelineKey { room: room.nid, position }, entry);
                }
                let key = EventKey { room: room.nid, event: target.nid };
                batch.put(&EVENTS, &key, &EventBytes(target.pdu.json().into()));
                batch.put(&EVENT_RECORDS, &key, &target.record);
                let waited = (room.nid, target.record.hash);
                batch.delete_range(&PENDING_REDACTIONS, PENDING_REDACTIONS.prefix(&waited));
            }
            Self::Waiting(hash) => {
                let key = PendingRedactionKey { room: room.nid, hash: *hash, redaction: event.nid };
                batch.put(&PENDING_REDACTIONS, &key, &());
            }
        }
    }
}

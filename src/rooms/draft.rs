//! A draft: the next events of one room, decided one after the other and committed together.
//!
//! It reads what is stored through one view and what it decided itself from memory, so that the
//! events of a new room can build upon each other before any of them is written. It is pure: no
//! network, no clock, no randomness; the caller brings time and key.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use kv::{Batch, Position, Reader};
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, UserId,
    events::{StateEventType, TimelineEventType},
};

use super::{
    Room, Rooms,
    auth::{self, Subject},
    commit::{EventCommit, MemberChange, RoomCommit},
    compose::{self, NewEvent, Place},
    event::{Pdu, StoredEvent},
    head::{Extremity, Head},
    levels::Levels,
    notify,
    redaction::{self, RedactionCommit},
    relations,
    state::{StateBuilder, TrunkChange},
};
use crate::{
    error::ApiError,
    id::{EventNid, StateKeyNid},
    push::counts::Counted,
    storage::{
        rows::{
            EventFlags, EventRecord, HeadRow, Membership, MembershipRow, StateKeyName, StateRef,
            TimelineEntry, TimelinePosition, TransactionMark, rooms::RoomInfo,
        },
        schema::rooms::{MEMBERSHIPS, MembershipKey, STATE_KEYS, StateKeyKey, TransactionKey},
    },
};

/// The number of prev events an event may cite.
///
/// <https://spec.matrix.org/v1.19/server-server-api/#pdus>
const PREV_EVENTS_MAX: usize = 20;
/// The highest depth: 2^53 - 1.
const DEPTH_MAX: u64 = (1 << 53) - 1;

/// The next events of a room, as far as they are decided.
pub(super) struct Draft<'a> {
    pub(super) rooms: &'a Rooms,
    pub(super) reader: &'a Reader<'a>,
    pub(super) room: &'a Room,
    /// The head that is stored (or on its way); `None` for a new room.
    old_head: Option<HeadRow>,
    pub(super) head: Head,
    /// The states that the draft makes.
    pub(super) state: StateBuilder,
    events: HashMap<EventNid, Arc<StoredEvent>>,
    memberships: HashMap<String, MembershipRow>,
    names: HashSet<StateKeyNid>,
    /// What the relations of the draft's events amount to.
    pub(super) relations: relations::index::Drafted,
    commits: Vec<EventCommit>,
    /// Rows of other tables of `rooms` that belong to the same commit.
    pub(super) extra: Batch,
}

/// An event that is checked, with its place in the graph.
pub(super) struct Accepted {
    pub(super) pdu: Pdu,
    pub(super) hash: [u8; 32],
    pub(super) flags: EventFlags,
    pub(super) prev_events: Vec<EventNid>,
    pub(super) auth_events: Vec<EventNid>,
    /// The state before and after it; `None`: the current state, changed by the event itself.
    pub(super) states: Option<(StateRef, StateRef)>,
    /// What the current state becomes besides.
    pub(super) changes: Vec<(StateKeyNid, Option<EventNid>)>,
    pub(super) transaction: Option<(TransactionKey, TransactionMark)>,
}

impl<'a> Draft<'a> {
    /// Begins at a head.
    pub(super) fn new(
        rooms: &'a Rooms,
        reader: &'a Reader<'a>,
        room: &'a Room,
        head: Head,
    ) -> Self {
        let new_room = head.row.next_event == EventNid(1);
        Self {
            rooms,
            reader,
            room,
            old_head: (!new_room).then(|| head.row.clone()),
            state: StateBuilder::new(room.nid, head.row.state_version, head.row.next_branch),
            head,
            events: HashMap::new(),
            memberships: HashMap::new(),
            names: HashSet::new(),
            relations: relations::index::Drafted::default(),
            commits: Vec::new(),
            extra: Batch::new(),
        }
    }

    /// What is to be written.
    pub(super) fn finish(mut self) -> RoomCommit {
        let built = self.state.finish();
        self.head.row.state_version = built.state_version;
        self.head.row.next_branch = built.next_branch;
        let info = self.old_head.is_none().then(|| RoomInfo {
            room_id: self.room.id.clone(),
            version: self.room.version.clone(),
        });
        RoomCommit {
            room: self.room.clone(),
            info,
            old_head: self.old_head,
            head: self.head,
            events: self.commits,
            state_writes: built.writes,
            extra: self.extra,
        }
    }

    /// The event that a key of the current state holds.
    pub(super) fn current(
        &self,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<Arc<StoredEvent>>, ApiError> {
        let key = self.rooms.interner().state_key(event_type, state_key);
        match self.current_nid(key)? {
            Some(nid) => self.event(nid).map(Some),
            None => Ok(None),
        }
    }

    pub(super) fn current_nid(&self, key: StateKeyNid) -> Result<Option<EventNid>, ApiError> {
        Ok(self.state.view(self.reader).lookup(self.state.head(), key)?)
    }

    /// An event that the graph refers to.
    pub(super) fn event(&self, nid: EventNid) -> Result<Arc<StoredEvent>, ApiError> {
        match self.events.get(&nid) {
            Some(event) => Ok(event.clone()),
            None => self.rooms.stored_event(self.reader, self.room, nid),
        }
    }

    /// An event by its id: of the draft or of the store.
    pub(super) fn event_by_id(
        &self,
        event_id: &EventId,
    ) -> Result<Option<Arc<StoredEvent>>, ApiError> {
        let drafted = self.events.values().find(|event| event.pdu.event_id() == event_id);
        match drafted {
            Some(event) => Ok(Some(event.clone())),
            None => self.rooms.event_by_id(self.reader, self.room, event_id),
        }
    }

    /// The power levels of the current state.
    pub(super) fn levels(&self) -> Result<Levels<'a>, ApiError> {
        let create = self
            .current("m.room.create", "")?
            .ok_or_else(|| ApiError::internal_text("a room without a create event"))?;
        let levels = self.current("m.room.power_levels", "")?.map(|event| event.pdu.clone());
        Levels::new(create.pdu.clone(), levels, &self.room.rules)
    }

    /// A user's membership by the current state.
    pub(super) fn membership(&self, user_id: &str) -> Result<Membership, ApiError> {
        let member = self.current("m.room.member", user_id)?;
        Ok(member.map_or(Membership::None, |event| event.record.membership))
    }

    /// Refuses a user who has not joined, before anything else about the room is told.
    pub(super) fn require_member(&self, user_id: &UserId) -> Result<(), ApiError> {
        match self.membership(user_id.as_str())? {
            Membership::Join => Ok(()),
            _ => Err(ApiError::forbidden("You are not in this room")),
        }
    }

    /// Decides an event of this server: composes it on the head, checks it, takes it in.
    ///
    /// # Errors
    /// 403 when the room's rules refuse it; 400 and 413 when it cannot be an event.
    pub(super) fn add(
        &mut self,
        event: &NewEvent,
        now: MilliSecondsSinceUnixEpoch,
        transaction: Option<(TransactionKey, TransactionMark)>,
    ) -> Result<Arc<StoredEvent>, ApiError> {
        let rules = &self.room.rules;
        let subject = Subject {
            event_type: &event.event_type,
            sender: &event.sender,
            state_key: event.state_key.as_deref(),
            content: &event.content,
        };
        let mut cited = HashMap::new();
        for (event_type, state_key) in auth::auth_keys(subject, rules)? {
            if let Some(found) = self.current(&event_type.to_string(), &state_key)? {
                cited.insert((event_type, state_key), found);
            }
        }
        let mut auth_events: Vec<_> = cited.values().map(|event| event.nid).collect();
        auth_events.sort_unstable();
        let auth_ids =
            auth_events.iter().map(|&nid| Ok(self.event(nid)?.pdu.event_id().to_owned()));
        let place = Place {
            room_id: Some(&self.room.id),
            rules,
            prev_events: self.prev_ids(),
            auth_events: auth_ids.collect::<Result<_, ApiError>>()?,
            depth: self.next_depth(),
            origin_server_ts: now,
        };
        let (pdu, hash) = compose::compose(self.rooms.signer(), event, &place)?;
        // Version 12 cites no create event, yet the rules ask for it.
        let create = (StateEventType::RoomCreate, String::new());
        if let (false, Some(found)) =
            (cited.contains_key(&create), self.current("m.room.create", "")?)
        {
            cited.insert(create, found);
        }
        let by_id = |id: &EventId| {
            cited.values().find(|event| event.pdu.event_id() == id).map(|event| event.pdu.clone())
        };
        auth::check_citations(rules, &pdu, by_id)?;
        auth::check_state(rules, &pdu, |event_type, state_key| {
            let key = (event_type.clone(), state_key.to_owned());
            cited.get(&key).map(|event| event.pdu.clone())
        })?;
        self.accept(Accepted {
            prev_events: self.cited_extremities().map(|extremity| extremity.nid).collect(),
            states: None,
            flags: EventFlags::default(),
            changes: Vec::new(),
            auth_events,
            pdu,
            hash,
            transaction,
        })
    }

    fn cited_extremities(&self) -> impl Iterator<Item = &Extremity> {
        let skipped = self.head.extremities.len().saturating_sub(PREV_EVENTS_MAX);
        self.head.extremities.iter().skip(skipped)
    }

    fn prev_ids(&self) -> Vec<OwnedEventId> {
        self.cited_extremities().map(|extremity| extremity.event_id.clone()).collect()
    }

    fn next_depth(&self) -> u64 {
        let deepest = self.head.extremities.iter().map(|extremity| extremity.depth).max();
        deepest.map_or(1, |depth| (depth + 1).min(DEPTH_MAX))
    }

    /// Lets an event be found before it is taken in: a resolution may need to read it.
    pub(super) fn preview(&mut self, event: StoredEvent) {
        self.events.insert(event.nid, Arc::new(event));
    }

    /// Takes in an event that is checked: gives it its number and its place, and works out all
    /// that is written with it.
    pub(super) fn accept(&mut self, accepted: Accepted) -> Result<Arc<StoredEvent>, ApiError> {
        let nid = self.head.row.next_event;
        self.head.row.next_event = EventNid(nid.0 + 1);
        let index = u16::try_from(self.commits.len())
            .map_err(|_| ApiError::too_large("Too many events at once"))?;
        let position = Position::pending(index);
        let pdu = accepted.pdu;
        let interner = self.rooms.interner();
        let state_key = pdu.state_key().map(|key| interner.state_key(pdu.event_type(), key));
        let shown = !accepted.flags.has(EventFlags::REJECTED)
            && !accepted.flags.has(EventFlags::SOFT_FAILED)
            && !accepted.flags.has(EventFlags::OUTLIER);
        let flags = flags_of(&pdu, accepted.flags);
        let mut record = EventRecord {
            hash: accepted.hash,
            flags,
            event_type: interner.event_type(pdu.event_type()),
            sender: interner.user(pdu.sender()),
            state_key: state_key.unwrap_or_default(),
            membership: membership_of(&pdu),
            origin_server_ts: pdu.origin_server_ts().0.into(),
            depth: pdu.depth(),
            position: if shown {
                TimelinePosition::live(position)
            } else {
                TimelinePosition::START
            },
            state_before: self.state.head(),
            state_after: self.state.head(),
            auth_events: accepted.auth_events,
            prev_events: accepted.prev_events,
            redacted_by: None,
            transaction: accepted.transaction.as_ref().map(|(_, mark)| mark.clone()),
        };
        let mut changes = accepted.changes;
        if let (Some(key), None) = (state_key, accepted.states) {
            changes.push((key, Some(nid)));
        }
        // The member changes below look at the event itself.
        let provisional = StoredEvent { nid, record: record.clone(), pdu: pdu.clone() };
        self.events.insert(nid, Arc::new(provisional));
        let members = self.move_state(&changes, position)?;
        let states = accepted.states.unwrap_or((record.state_before, self.state.head()));
        (record.state_before, record.state_after) = states;
        let (stored, redaction, counted) =
            self.count(StoredEvent { nid, record, pdu }, &members)?;
        let timeline = shown.then(|| TimelineEntry {
            event: nid,
            event_type: stored.record.event_type,
            sender: stored.record.sender,
            flags: stored.record.flags,
            state_version: self.state.head().version,
        });
        if shown {
            self.move_extremities(&stored);
        }
        let name = self.new_name(&stored, state_key)?;
        let relations = relations::index::decide(self, &stored, redaction.as_ref())?;
        let commit = EventCommit {
            relations,
            redaction,
            counted,
            event: stored.clone(),
            position,
            timeline,
            name,
            members,
            transaction: accepted.transaction.map(|(key, _)| key),
        };
        self.commits.push(commit);
        Ok(stored)
    }

    /// Works out what an event redacts and whom it notifies.
    fn count(
        &mut self,
        mut event: StoredEvent,
        members: &[MemberChange],
    ) -> Result<(Arc<StoredEvent>, Option<RedactionCommit>, Counted), ApiError> {
        let redaction = redaction::decide(self, &event)?;
        let counted = notify::decide(self, &event, members, redaction.as_ref())?;
        if counted.notifies {
            event.record.flags = event.record.flags.with(EventFlags::NOTIFIES);
        }
        let event = Arc::new(event);
        self.events.insert(event.nid, event.clone());
        Ok((event, redaction, counted))
    }

    /// Moves the current state on; gives what it means for members.
    fn move_state(
        &mut self,
        changes: &[(StateKeyNid, Option<EventNid>)],
        position: Position,
    ) -> Result<Vec<MemberChange>, ApiError> {
        let mut effective = Vec::new();
        let mut members = Vec::new();
        for &(key, new) in changes {
            let old = self.current_nid(key)?;
            if old == new {
                continue;
            }
            let old_event = old.map(|nid| self.event(nid)).transpose()?;
            let new_event = new.map(|nid| self.event(nid)).transpose()?;
            let is_member = [&old_event, &new_event]
                .into_iter()
                .flatten()
                .any(|event| event.pdu.event_type() == "m.room.member");
            if is_member {
                let events = (old_event.as_deref(), new_event.as_deref());
                members.push(self.member_change(events, position)?);
            }
            effective.push(TrunkChange { key, event: new, is_member });
        }
        if !effective.is_empty() {
            self.state.advance(self.reader, &effective, position)?;
        }
        Ok(members)
    }

    fn member_change(
        &mut self,
        (old, new): (Option<&StoredEvent>, Option<&StoredEvent>),
        position: Position,
    ) -> Result<MemberChange, ApiError> {
        let user_id = [new, old].into_iter().flatten().find_map(|event| event.pdu.state_key());
        let user_id = user_id.unwrap_or_default().to_owned();
        let before = old.map_or(Membership::None, |event| event.record.membership);
        let after = new.map_or(Membership::None, |event| event.record.membership);
        let row = &mut self.head.row;
        for (membership, sign) in [(before, -1_i64), (after, 1)] {
            let count = match membership {
                Membership::Join => &mut row.joined_members,
                Membership::Invite => &mut row.invited_members,
                _ => continue,
            };
            *count = count.saturating_add_signed(sign);
        }
        let key = MembershipKey { user_id: user_id.clone(), room: self.room.nid };
        let known = match self.memberships.get(&user_id) {
            Some(row) => Some(*row),
            None => self.reader.get(&MEMBERSHIPS, &key)?,
        };
        let row = MembershipRow {
            membership: after,
            event: new.map_or(EventNid(0), |event| event.nid),
            position,
            was_joined: before == Membership::Join || known.is_some_and(|row| row.was_joined),
            forgotten: false,
            by_other: new.is_some_and(|event| event.pdu.sender() != user_id.as_str()),
        };
        self.memberships.insert(user_id.clone(), row);
        Ok(MemberChange { user_id, before, row })
    }

    fn move_extremities(&mut self, event: &StoredEvent) {
        let cited = &event.record.prev_events;
        self.head.extremities.retain(|extremity| !cited.contains(&extremity.nid));
        self.head.extremities.push(Extremity {
            nid: event.nid,
            event_id: event.pdu.event_id().to_owned(),
            depth: event.record.depth,
        });
        self.head.row.extremities = self.head.extremities.iter().map(|e| e.nid).collect();
    }

    /// The name behind a state key that this room sees for the first time.
    fn new_name(
        &mut self,
        event: &StoredEvent,
        key: Option<StateKeyNid>,
    ) -> Result<Option<StateKeyName>, ApiError> {
        let (Some(key), Some(state_key)) = (key, event.pdu.state_key()) else {
            return Ok(None);
        };
        let name = StateKeyName {
            event_type: event.pdu.event_type().to_owned(),
            state_key: state_key.to_owned(),
        };
        match self.reader.get(&STATE_KEYS, &StateKeyKey { room: self.room.nid, key })? {
            // A keyed hash of 64 bits: never seen, but never to be taken for another key either.
            Some(known) if known != name => {
                Err(ApiError::internal_text(format!("{name:?} and {known:?} have the same number")))
            }
            Some(_) => Ok(None),
            None => Ok(self.names.insert(key).then_some(name)),
        }
    }
}

pub(super) fn membership_of(pdu: &Pdu) -> Membership {
    if *pdu.kind() != TimelineEventType::RoomMember || pdu.state_key().is_none() {
        return Membership::None;
    }
    let membership: Option<String> = pdu.content_field("membership");
    membership.as_deref().map_or(Membership::None, Membership::from_name)
}

/// What the event itself adds to what its checks found.
fn flags_of(pdu: &Pdu, found: EventFlags) -> EventFlags {
    if pdu.state_key().is_some() { found.with(EventFlags::STATE) } else { found }
}

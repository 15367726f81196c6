//! The state of a room at some point, as lists of events for readers.
//!
//! The current state stands in tables of its own, members by membership; a state not far behind is
//! that less the difference. So neither a client that asks for the members at its last sync nor one
//! that loads members lazily makes the server go through the whole state.

use std::collections::{BTreeSet, HashSet};

use kv::{Direction, Reader};

use super::{Room, Rooms, state};
use crate::{
    error::ApiError,
    id::EventNid,
    storage::{
        rows::{EventFlags, EventRecord, Membership, StateRef},
        schema::rooms::{CURRENT_STATE, EVENT_RECORDS, EventKey, MEMBERS, ROOM_HEADS},
    },
};

/// How many versions back a state is still told by its difference to the current one.
const DIFFERENCE_VERSIONS_MAX: u32 = 1_000;

/// How many records are looked up at once.
const RECORDS_AT_ONCE: usize = 256;

/// The class of [`CURRENT_STATE`] that holds everything but members.
const CLASS_OTHERS: u8 = 0;

/// Which part of a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    All,
    /// All but member events.
    Others,
    /// The member events with one of these memberships.
    Members(Vec<Membership>),
}

impl Part {
    /// All member events.
    pub fn every_member() -> Self {
        use Membership::{Ban, Invite, Join, Knock, Leave};
        Self::Members(vec![Ban, Invite, Join, Knock, Leave])
    }

    fn admits(&self, record: &EventRecord, member_type: u64) -> bool {
        let is_member = record.event_type == member_type && record.flags.has(EventFlags::STATE);
        match self {
            Self::All => true,
            Self::Others => !is_member,
            Self::Members(memberships) => is_member && memberships.contains(&record.membership),
        }
    }
}

/// The events of a part of the state of a room, in the order of their numbers.
pub fn events_of_state(
    rooms: &Rooms,
    reader: &Reader<'_>,
    room: &Room,
    at: StateRef,
    part: &Part,
) -> Result<Vec<EventNid>, ApiError> {
    let member_type = rooms.interner().event_type("m.room.member");
    let view = View { reader, room, part, member_type };
    let current = reader
        .get(&ROOM_HEADS, &room.nid)?
        .map_or(StateRef::EMPTY, |head| StateRef::trunk(head.state_version));
    if at == current {
        return Ok(view.current()?.into_iter().collect());
    }
    let on_trunk = at.branch == current.branch && at.version <= current.version;
    if on_trunk && current.version - at.version <= DIFFERENCE_VERSIONS_MAX {
        return view.by_difference(current, at);
    }
    view.whole(at)
}

struct View<'a> {
    reader: &'a Reader<'a>,
    room: &'a Room,
    part: &'a Part,
    member_type: u64,
}

impl View<'_> {
    fn current(&self) -> Result<BTreeSet<EventNid>, kv::Error> {
        let room = self.room.nid;
        let mut events = BTreeSet::new();
        let range = match self.part {
            Part::All => CURRENT_STATE.prefix(&room),
            Part::Others => CURRENT_STATE.prefix(&(room, CLASS_OTHERS)),
            Part::Members(memberships) => {
                let wanted: HashSet<Membership> = memberships.iter().copied().collect();
                for membership in wanted {
                    let range = MEMBERS.prefix(&(room, membership as u8));
                    self.reader.for_each(&MEMBERS, &range, Direction::Forward, |_, event| {
                        events.insert(event);
                        std::ops::ControlFlow::Continue(())
                    })?;
                }
                return Ok(events);
            }
        };
        self.reader.for_each(&CURRENT_STATE, &range, Direction::Forward, |_, event| {
            events.insert(event);
            std::ops::ControlFlow::Continue(())
        })?;
        Ok(events)
    }

    fn by_difference(&self, current: StateRef, at: StateRef) -> Result<Vec<EventNid>, ApiError> {
        let mut events = self.current()?;
        let changes = state::diff(self.reader, self.room.nid, current, at)?;
        for change in &changes {
            if let Some(event) = change.old {
                events.remove(&event);
            }
        }
        let added: Vec<EventNid> = changes.iter().filter_map(|change| change.new).collect();
        events.extend(self.admitted(&added)?);
        Ok(events.into_iter().collect())
    }

    fn whole(&self, at: StateRef) -> Result<Vec<EventNid>, ApiError> {
        let state = state::full(self.reader, self.room.nid, at)?;
        let mut events: Vec<EventNid> = state.into_values().collect();
        events.sort_unstable();
        Ok(self.admitted(&events)?)
    }

    fn admitted(&self, events: &[EventNid]) -> Result<Vec<EventNid>, kv::Error> {
        if *self.part == Part::All {
            return Ok(events.to_vec());
        }
        let mut admitted = Vec::new();
        for events in events.chunks(RECORDS_AT_ONCE) {
            let keys: Vec<EventKey> =
                events.iter().map(|&event| EventKey { room: self.room.nid, event }).collect();
            let records = self.reader.get_many(&EVENT_RECORDS, &keys)?;
            for (&event, record) in events.iter().zip(records) {
                if record.is_some_and(|record| self.part.admits(&record, self.member_type)) {
                    admitted.push(event);
                }
            }
        }
        Ok(admitted)
    }
}

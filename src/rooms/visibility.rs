//! Who may see which event: the rules of history visibility, and a reader's place in a room.
//!
//! [`visible`] is the rules alone, pure. A [`Viewer`] gathers what they need: the history
//! visibility and the reader's membership in the state *at* an event. It lives for one read step
//! and remembers states and events, so consecutive events between two state changes cost nothing.
//!
//! Invariant: whoever forgot a room, and whoever was never in it, sees what is world readable only.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility>

#[cfg(test)]
mod tests;

use std::{
    cell::OnceCell,
    collections::{HashMap, HashSet},
};

use kv::{Direction, Reader};
use ruma::{OwnedUserId, UserId};

use super::{Room, Rooms, StoredEvent, preferences, state};
use crate::{
    error::ApiError,
    id::{EventNid, StateKeyNid, UserNid},
    storage::{
        rows::{EventFlags, EventRecord, Membership, MembershipRow, StateRef, TimelinePosition},
        schema::{
            accounts::ERASED_USERS,
            rooms::{EVENT_RECORDS, EventKey, ROOM_HEADS},
        },
    },
};

/// How many changes of one's own membership are looked back through for the last leave.
const DEPARTURE_STEPS_MAX: usize = 256;

/// What `m.room.history_visibility` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HistoryVisibility {
    /// Anyone may read.
    WorldReadable,
    /// Members may read everything; also the meaning of an unknown value and of none.
    #[default]
    Shared,
    /// Members may read from their invite on.
    Invited,
    /// Members may read from their join on.
    Joined,
}

impl HistoryVisibility {
    /// By its name in events.
    pub fn from_name(name: &str) -> Self {
        match name {
            "world_readable" => Self::WorldReadable,
            "invited" => Self::Invited,
            "joined" => Self::Joined,
            _ => Self::Shared,
        }
    }
}

/// Whether a user may see an event.
///
/// `visibility` and `membership` are those before and after the event. They differ only for the
/// event that changes them: an `m.room.history_visibility`, the user's own `m.room.member`. It is
/// enough that one of them allows. `joined_since`: the user joined after the event was sent.
pub fn visible(
    visibility: (HistoryVisibility, HistoryVisibility),
    membership: (Membership, Membership),
    joined_since: bool,
) -> bool {
    [visibility.0, visibility.1].into_iter().any(|visibility| {
        [membership.0, membership.1]
            .into_iter()
            .any(|membership| allows(visibility, membership, joined_since))
    })
}

fn allows(visibility: HistoryVisibility, membership: Membership, joined_since: bool) -> bool {
    // Rule 1.
    visibility == HistoryVisibility::WorldReadable
        // Rule 2.
        || membership == Membership::Join
        // Rule 3.
        || (visibility == HistoryVisibility::Shared && joined_since)
        // Rule 4.
        || (visibility == HistoryVisibility::Invited && membership == Membership::Invite)
    // Rule 5: otherwise not.
}

/// What a reader is to a room now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Joined.
    Joined,
    /// Was joined once; reads up to where that ended.
    Departed(Departure),
    /// Was never joined, but the room is world readable now.
    Peeking,
    /// May not read the room.
    Stranger,
}

/// Where a user's last time in a room ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departure {
    /// The place of the leave or ban.
    pub position: TimelinePosition,
    /// The state with it.
    pub state: StateRef,
}

/// The two facts of a state that visibility rests on.
#[derive(Clone, Copy, Debug)]
struct Facts {
    visibility: HistoryVisibility,
    membership: Membership,
}

/// Who reads a room, with what was looked up for it so far. For one read step.
pub struct Viewer {
    rooms: Rooms,
    room: Room,
    user_id: OwnedUserId,
    member_key: StateKeyNid,
    visibility_key: StateKeyNid,
    /// The current membership; `None` also for whoever forgot the room.
    row: Option<MembershipRow>,
    departure: OnceCell<Option<Departure>>,
    last: Option<(StateRef, Facts)>,
    states: HashMap<StateRef, Facts>,
    visibilities: HashMap<EventNid, HistoryVisibility>,
    memberships: HashMap<EventNid, Membership>,
    ignored: OnceCell<HashSet<UserNid>>,
    /// Whether anybody at all was erased.
    erasures: OnceCell<bool>,
}

impl std::fmt::Debug for Viewer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Viewer({} in {})", self.user_id, self.room.id)
    }
}

impl Viewer {
    /// A user as a reader of a room.
    pub fn new(
        rooms: &Rooms,
        reader: &Reader<'_>,
        room: &Room,
        user_id: &UserId,
    ) -> Result<Self, ApiError> {
        let row = rooms
            .membership(reader, room, user_id)?
            .filter(|row| !row.forgotten || row.membership == Membership::Join);
        Ok(Self {
            member_key: rooms.interner().state_key("m.room.member", user_id.as_str()),
            visibility_key: rooms.interner().state_key("m.room.history_visibility", ""),
            rooms: rooms.clone(),
            room: room.clone(),
            user_id: user_id.to_owned(),
            row,
            departure: OnceCell::new(),
            last: None,
            states: HashMap::new(),
            visibilities: HashMap::new(),
            memberships: HashMap::new(),
            ignored: OnceCell::new(),
            erasures: OnceCell::new(),
        })
    }

    /// The rooms of this server.
    pub fn rooms(&self) -> &Rooms {
        &self.rooms
    }

    /// The room.
    pub fn room(&self) -> &Room {
        &self.room
    }

    /// The reader.
    pub fn user_id(&self) -> &UserId {
        &self.user_id
    }

    /// The reader's membership now; `None` for whoever forgot the room.
    pub fn membership(&self) -> Option<MembershipRow> {
        self.row
    }

    /// Whether the reader is joined now.
    pub fn is_joined(&self) -> bool {
        self.row.is_some_and(|row| row.membership == Membership::Join)
    }

    /// The users whom the reader ignores.
    pub fn ignored(&self, reader: &Reader<'_>) -> Result<&HashSet<UserNid>, ApiError> {
        if let Some(ignored) = self.ignored.get() {
            return Ok(ignored);
        }
        let ignored = preferences::ignored_users(self.rooms.interner(), reader, &self.user_id)?;
        Ok(self.ignored.get_or_init(|| ignored))
    }

    /// Whether the reader ignores a user: then none of their messages are shown. Their state is, or
    /// the room would fall apart.
    pub fn ignores(&self, reader: &Reader<'_>, user: UserNid) -> Result<bool, ApiError> {
        Ok(self.ignored(reader)?.contains(&user))
    }

    /// Whether the reader may see an event. Never one that was rejected or soft-failed, nor one
    /// whose state is not known.
    pub fn may_see(&mut self, reader: &Reader<'_>, event: &StoredEvent) -> Result<bool, ApiError> {
        let flags = event.record.flags;
        if [EventFlags::REJECTED, EventFlags::SOFT_FAILED, EventFlags::OUTLIER]
            .into_iter()
            .any(|flag| flags.has(flag))
        {
            return Ok(false);
        }
        let before = self.facts(reader, event.record.state_before)?;
        let after = self.facts_after(event, before);
        let visibility = (before.visibility, after.visibility);
        let membership = (before.membership, after.membership);
        if visible(visibility, membership, false) {
            return Ok(true);
        }
        // Only then it matters whether the reader joined later.
        Ok(visible(visibility, membership, true) && self.joined_since(reader, &event.record)?)
    }

    /// The reader's membership at an event, with what the event itself changes.
    pub fn membership_at(
        &mut self,
        reader: &Reader<'_>,
        event: &StoredEvent,
    ) -> Result<Membership, ApiError> {
        let before = self.facts(reader, event.record.state_before)?;
        Ok(self.facts_after(event, before).membership)
    }

    /// The reader's membership just before an event.
    pub fn membership_before(
        &mut self,
        reader: &Reader<'_>,
        event: &StoredEvent,
    ) -> Result<Membership, ApiError> {
        Ok(self.facts(reader, event.record.state_before)?.membership)
    }

    /// Whether it is worth asking if a user was erased: only users of this server are, and most
    /// servers never erased anybody.
    pub(super) fn may_be_erased(
        &self,
        reader: &Reader<'_>,
        user_id: &UserId,
    ) -> Result<bool, ApiError> {
        if user_id.server_name() != self.rooms.server_name() {
            return Ok(false);
        }
        if let Some(any) = self.erasures.get() {
            return Ok(*any);
        }
        let range = ERASED_USERS.prefix(&());
        let any = !reader.scan(&ERASED_USERS, &range, Direction::Forward, 1)?.is_empty();
        Ok(*self.erasures.get_or_init(|| any))
    }

    /// What the reader is to the room now.
    pub fn standing(&mut self, reader: &Reader<'_>) -> Result<Standing, ApiError> {
        if self.is_joined() {
            return Ok(Standing::Joined);
        }
        if let Some(departure) = self.departure(reader)? {
            return Ok(Standing::Departed(departure));
        }
        let readable = self.is_world_readable(reader)?;
        Ok(if readable { Standing::Peeking } else { Standing::Stranger })
    }

    /// Whether anyone may read what is sent to the room now.
    pub fn is_world_readable(&mut self, reader: &Reader<'_>) -> Result<bool, ApiError> {
        let now = self.current_state(reader)?;
        Ok(self.facts(reader, now)?.visibility == HistoryVisibility::WorldReadable)
    }

    /// The state that the reader may read: the current one, or that of the leave.
    ///
    /// # Errors
    /// 403 when the reader is not, and was not, in the room.
    pub fn readable_state(&mut self, reader: &Reader<'_>) -> Result<StateRef, ApiError> {
        match self.standing(reader)? {
            Standing::Joined | Standing::Peeking => self.current_state(reader),
            Standing::Departed(departure) => Ok(departure.state),
            Standing::Stranger => Err(not_a_member()),
        }
    }

    /// The room's current state.
    pub fn current_state(&self, reader: &Reader<'_>) -> Result<StateRef, ApiError> {
        let head = reader.get(&ROOM_HEADS, &self.room.nid)?;
        Ok(head.map_or(StateRef::EMPTY, |head| StateRef::trunk(head.state_version)))
    }

    fn joined_since(
        &mut self,
        reader: &Reader<'_>,
        record: &EventRecord,
    ) -> Result<bool, ApiError> {
        // Someone who is joined now and was not at the event joined after it.
        if self.is_joined() {
            return Ok(true);
        }
        // Someone who left was joined just before that, so joined after anything that lies further
        // back and has no join in its state.
        let departure = self.departure(reader)?;
        Ok(departure.is_some_and(|departure| record.position < departure.position))
    }

    /// Where the reader's last time in the room ended. Found by going back through the events of
    /// their own membership: a ban or an invite after the leave must not move the end.
    fn departure(&self, reader: &Reader<'_>) -> Result<Option<Departure>, ApiError> {
        if let Some(departure) = self.departure.get() {
            return Ok(*departure);
        }
        let departure = match self.row {
            Some(row) if row.was_joined && row.membership != Membership::Join => {
                self.find_departure(reader, row.event)?
            }
            _ => None,
        };
        Ok(*self.departure.get_or_init(|| departure))
    }

    fn find_departure(
        &self,
        reader: &Reader<'_>,
        newest: EventNid,
    ) -> Result<Option<Departure>, ApiError> {
        let Some(mut later) = self.record(reader, newest)? else {
            return Ok(None);
        };
        for _ in 0..DEPARTURE_STEPS_MAX {
            let earlier =
                state::lookup(reader, self.room.nid, later.state_before, self.member_key)?;
            let Some(earlier) = earlier else {
                return Ok(None);
            };
            let Some(earlier) = self.record(reader, earlier)? else {
                return Ok(None);
            };
            if earlier.membership == Membership::Join {
                let departure = Departure { position: later.position, state: later.state_after };
                return Ok(Some(departure));
            }
            later = earlier;
        }
        Ok(None)
    }

    fn facts(&mut self, reader: &Reader<'_>, at: StateRef) -> Result<Facts, ApiError> {
        if let Some((_, facts)) = self.last.filter(|(last, _)| *last == at) {
            return Ok(facts);
        }
        let facts = match self.states.get(&at).copied() {
            Some(facts) => facts,
            None => self.look_up_facts(reader, at)?,
        };
        self.states.insert(at, facts);
        self.last = Some((at, facts));
        Ok(facts)
    }

    fn look_up_facts(&mut self, reader: &Reader<'_>, at: StateRef) -> Result<Facts, ApiError> {
        let room = self.room.nid;
        let visibility = match state::lookup(reader, room, at, self.visibility_key)? {
            Some(event) => self.visibility_of(reader, event)?,
            None => HistoryVisibility::default(),
        };
        // Whoever has no membership now never had one here, or forgot the room.
        let membership = match self.row {
            Some(_) => match state::lookup(reader, room, at, self.member_key)? {
                Some(event) => self.membership_of(reader, event)?,
                None => Membership::None,
            },
            None => Membership::None,
        };
        Ok(Facts { visibility, membership })
    }

    /// The facts after an event: only two kinds of events change them.
    fn facts_after(&self, event: &StoredEvent, before: Facts) -> Facts {
        let record = &event.record;
        if !record.flags.has(EventFlags::STATE) {
            return before;
        }
        if record.state_key == self.visibility_key {
            return Facts { visibility: named_visibility(event), ..before };
        }
        if record.state_key == self.member_key && self.row.is_some() {
            return Facts { membership: record.membership, ..before };
        }
        before
    }

    fn visibility_of(
        &mut self,
        reader: &Reader<'_>,
        event: EventNid,
    ) -> Result<HistoryVisibility, ApiError> {
        if let Some(visibility) = self.visibilities.get(&event) {
            return Ok(*visibility);
        }
        let visibility = self
            .rooms
            .event(reader, &self.room, event)?
            .map_or(HistoryVisibility::default(), |event| named_visibility(&event));
        self.visibilities.insert(event, visibility);
        Ok(visibility)
    }

    fn membership_of(
        &mut self,
        reader: &Reader<'_>,
        event: EventNid,
    ) -> Result<Membership, ApiError> {
        if let Some(membership) = self.memberships.get(&event) {
            return Ok(*membership);
        }
        let membership =
            self.record(reader, event)?.map_or(Membership::None, |record| record.membership);
        self.memberships.insert(event, membership);
        Ok(membership)
    }

    fn record(
        &self,
        reader: &Reader<'_>,
        event: EventNid,
    ) -> Result<Option<EventRecord>, ApiError> {
        Ok(reader.get(&EVENT_RECORDS, &EventKey { room: self.room.nid, event })?)
    }
}

fn named_visibility(event: &StoredEvent) -> HistoryVisibility {
    event
        .pdu
        .content_field::<String>("history_visibility")
        .map_or(HistoryVisibility::default(), |name| HistoryVisibility::from_name(&name))
}

/// The answer to whoever reads a room without being in it.
pub fn not_a_member() -> ApiError {
    ApiError::forbidden("You are not a member of the room and were not before")
}

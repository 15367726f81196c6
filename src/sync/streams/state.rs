//! State: what a client must know to understand a timeline.
//!
//! A client that knows the room gets the difference of two states, read from the log of changes;
//! one that does not gets all of it: the rows of the current state, taken back to the time that is
//! asked for. With lazy loading the members come only as far as they matter.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#lazy-loading-room-members>

use std::{
    collections::{BTreeMap, HashSet},
    ops::ControlFlow,
    sync::Arc,
};

use kv::Direction;

use super::{ClientEvent, Step, timeline::Window};
use crate::{
    error::ApiError,
    id::{EventNid, StateKeyNid},
    rooms::{Room, StoredEvent, state, visibility::Viewer},
    storage::{
        rows::StateRef,
        schema::rooms::{CURRENT_STATE, ROOM_HEADS},
    },
};

/// The class of members in the current state; all else is 0.
const CLASS_MEMBERS: u8 = 1;

/// State events by key.
pub(crate) type StateMap = BTreeMap<StateKeyNid, EventNid>;

/// Which state of a room is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// What the client knows; `None`: nothing.
    pub(crate) known: Option<StateRef>,
    /// The state before the timeline.
    pub(crate) start: StateRef,
    /// The state after the timeline.
    pub(crate) end: StateRef,
    /// Whether the state after the timeline is told, and not that before it.
    pub(crate) after: bool,
}

impl Span {
    const fn told(self) -> StateRef {
        if self.after { self.end } else { self.start }
    }
}

/// What of the state is told, by key. Members are in it as far as lazy loading wants them; `more`
/// are the keys of further members who matter.
pub(crate) fn select(
    step: &mut Step<'_>,
    room: &Room,
    (span, window): (Span, &Window),
    more: &[StateKeyNid],
) -> Result<StateMap, ApiError> {
    let lazy = step.filter.lazy_loads_members();
    let mut selected = match span.known {
        Some(known) => changed(step, room, (known, span.told()))?,
        None => full(step, room, span.told(), !lazy)?,
    };
    let wanted = lazy.then(|| wanted_members(step, (span, window), more));
    if !span.after && span.start != span.end {
        // A difference is told with all its members: they are few.
        let members = wanted.as_deref().filter(|_| span.known.is_none());
        add_hidden(step, room, (span, window), (members, &mut selected))?;
    }
    if let Some(wanted) = wanted {
        add_members(step, room, (span, window), (wanted, &mut selected))?;
    }
    Ok(selected)
}

/// The selected events in their form for the client.
pub(crate) fn render(
    step: &Step<'_>,
    viewer: &mut Viewer,
    selected: &StateMap,
) -> Result<Vec<ClientEvent>, ApiError> {
    let room = viewer.room().clone();
    if !step.filter.state.admits_room(&room.id) {
        return Ok(Vec::new());
    }
    let mut events: Vec<Arc<StoredEvent>> = selected
        .values()
        .map(|&event| step.event(&room, event))
        .collect::<Result<_, ApiError>>()?;
    events.sort_unstable_by_key(|event| event.nid);
    events
        .iter()
        .filter(|event| step.filter.state.admits(event))
        .map(|event| step.render_state(viewer, event))
        .collect()
}

/// What is different in `to`. A key that is gone cannot be told.
fn changed(
    step: &Step<'_>,
    room: &Room,
    (from, to): (StateRef, StateRef),
) -> Result<StateMap, ApiError> {
    let changes = state::diff(step.reader, room.nid, from, to)?;
    Ok(changes.into_iter().filter_map(|change| Some((change.key, change.new?))).collect())
}

/// All of a state, with or without its members.
pub(crate) fn full(
    step: &Step<'_>,
    room: &Room,
    at: StateRef,
    members: bool,
) -> Result<StateMap, ApiError> {
    let mut map = StateMap::new();
    if at == StateRef::EMPTY {
        return Ok(map);
    }
    for class in 0..=u8::from(members) * CLASS_MEMBERS {
        let range = CURRENT_STATE.prefix(&(room.nid, class));
        step.reader.for_each(&CURRENT_STATE, &range, Direction::Forward, |key, event| {
            map.insert(key.key, event);
            ControlFlow::Continue(())
        })?;
    }
    let head = step.reader.get(&ROOM_HEADS, &room.nid)?;
    let current = head.map_or(StateRef::EMPTY, |head| StateRef::trunk(head.state_version));
    for change in state::diff(step.reader, room.nid, current, at)? {
        let Some(new) = change.new else {
            map.remove(&change.key);
            continue;
        };
        if members || map.contains_key(&change.key) || !is_member(step, room, new)? {
            map.insert(change.key, new);
        }
    }
    Ok(map)
}

fn is_member(step: &Step<'_>, room: &Room, event: EventNid) -> Result<bool, ApiError> {
    Ok(step.event(room, event)?.pdu.event_type() == "m.room.member")
}

/// Adds what changed within the window but is not in it, because of the filter: the client would
/// never learn of it. With `members`, only these of the members.
fn add_hidden(
    step: &Step<'_>,
    room: &Room,
    (span, window): (Span, &Window),
    (members, selected): (Option<&[StateKeyNid]>, &mut StateMap),
) -> Result<(), ApiError> {
    let shown: HashSet<_> = window.events.iter().map(|(_, event)| event.nid).collect();
    for (key, event) in changed(step, room, (span.start, span.end))? {
        let unwanted = match members {
            Some(members) => members.binary_search(&key).is_err() && is_member(step, room, event)?,
            None => false,
        };
        if !unwanted && !shown.contains(&event) {
            selected.insert(key, event);
        }
    }
    Ok(())
}

/// The members who matter: who sent something, `more`, and the reader when the room is new.
/// Sorted.
fn wanted_members(
    step: &Step<'_>,
    (span, window): (Span, &Window),
    more: &[StateKeyNid],
) -> Vec<StateKeyNid> {
    let interner = *step.interner();
    let mut keys: Vec<StateKeyNid> = window
        .events
        .iter()
        .map(|(_, event)| interner.state_key("m.room.member", event.pdu.sender().as_str()))
        .chain(more.iter().copied())
        .collect();
    if span.known.is_none() {
        keys.push(step.own_member_key());
    }
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Adds the members who matter, as far as the client does not know them, and notes all who are
/// told.
fn add_members(
    step: &mut Step<'_>,
    room: &Room,
    (span, window): (Span, &Window),
    (mut keys, selected): (Vec<StateKeyNid>, &mut StateMap),
) -> Result<(), ApiError> {
    for (key, event) in keys.iter().filter_map(|key| Some((*key, *selected.get(key)?))) {
        step.told.insert((room.nid, key), event);
    }
    keys.retain(|key| !selected.contains_key(key));
    let members = state::lookup_many(step.reader, room.nid, span.told(), &keys)?;
    for (key, member) in keys.into_iter().zip(members) {
        let Some(member) = member else { continue };
        let known = step.known.get(&(room.nid, key)) == Some(&member);
        // A member event in the timeline itself tells of its member.
        let shown = !span.after && window.events.iter().any(|(_, event)| event.nid == member);
        if shown || (known && span.known.is_some() && !step.filter.repeats_members()) {
            continue;
        }
        selected.insert(key, member);
        step.told.insert((room.nid, key), member);
    }
    // Of a difference it is not known which keys are members: noting the others does no harm.
    if span.known.is_some() {
        let changes = selected.iter().map(|(key, event)| ((room.nid, *key), *event));
        step.told.extend(changes);
    }
    let shown = window
        .events
        .iter()
        .filter(|(_, event)| event.pdu.event_type() == "m.room.member")
        .map(|(_, event)| ((room.nid, event.record.state_key), event.nid));
    step.told.extend(shown);
    Ok(())
}

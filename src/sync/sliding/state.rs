//! The state of a room that a client of sliding sync asks for.
//!
//! Always the current state, never that before the timeline. A client that knows the room gets what
//! changed of what it wants, read from the log of changes, and what it newly wants.

use std::collections::HashSet;

use super::{
    build::Build,
    request::{Required, Wish},
};
use crate::{
    error::ApiError,
    id::{EventNid, StateKeyNid},
    rooms::{Room, state},
    storage::rows::{EventFlags, StateRef},
    sync::streams::{
        Step,
        state::{StateMap, full},
        timeline::Window,
    },
};

/// What changed in the state of a room.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// What is new: key, event, type. A key that is gone cannot be told.
    pub(super) new: Vec<(StateKeyNid, EventNid, u64)>,
    /// Whether members came, went or got another name.
    pub(super) members: bool,
    /// Whether the name or the alias changed.
    pub(super) name: bool,
    /// Whether the avatar changed.
    pub(super) avatar: bool,
}

impl Changes {
    /// Between two states.
    pub(super) fn read(
        step: &Step<'_>,
        room: &Room,
        (from, to): (StateRef, StateRef),
    ) -> Result<Self, ApiError> {
        let mut changes = Self::default();
        if from == to {
            return Ok(changes);
        }
        let interner = step.interner();
        let member = interner.event_type("m.room.member");
        let names = ["m.room.name", "m.room.canonical_alias"];
        let names = names.map(|event_type| interner.state_key(event_type, ""));
        let avatar = interner.state_key("m.room.avatar", "");
        for change in state::diff(step.reader, room.nid, from, to)? {
            changes.name |= names.contains(&change.key);
            changes.avatar |= change.key == avatar;
            let Some(event) = change.new.or(change.old) else { continue };
            let event_type = step.event(room, event)?.record.event_type;
            changes.members |= event_type == member;
            if change.new.is_some() {
                changes.new.push((change.key, event, event_type));
            }
        }
        Ok(changes)
    }
}

/// What a client knows of the state of a room: what it wanted and what has changed since.
pub(super) type Known<'a> = Option<(&'a Wish, &'a Changes)>;

impl Build<'_> {
    /// What of a state is told with a timeline.
    pub(super) fn required_state(
        &mut self,
        room: &Room,
        end: StateRef,
        (wish, known): (&Wish, Known<'_>),
        window: &Window,
    ) -> Result<StateMap, ApiError> {
        let required = &wish.required;
        let mut selected = match known {
            None => self.matching(room, end, required)?,
            Some((before, changes)) => {
                let beyond = required.beyond(&before.required);
                let mut selected = self.matching(room, end, &beyond)?;
                for &(key, event, event_type) in &changes.new {
                    let is_told = self.admits(room, required, (key, event, event_type))?
                        || required.lazy
                            && event_type == self.member_type
                            && (!window.limited || self.step.known.contains_key(&(room.nid, key)));
                    if is_told {
                        selected.insert(key, event);
                    }
                }
                selected
            }
        };
        if required.lazy {
            self.add_members(room, (end, known.is_some()), window, &mut selected)?;
            for (&key, &event) in &selected {
                if self.step.event(room, event)?.record.event_type == self.member_type {
                    self.step.told.insert((room.nid, key), event);
                }
            }
        }
        Ok(selected)
    }

    /// All of a state that matches.
    fn matching(
        &self,
        room: &Room,
        at: StateRef,
        required: &Required,
    ) -> Result<StateMap, ApiError> {
        let mut selected = StateMap::new();
        if required.needs_scan() {
            let members = required.types.contains(&self.member_type)
                || !required.keys.is_empty()
                || required.all && !required.lazy;
            for (key, event) in full(&self.step, room, at, members)? {
                let event_type = self.step.event(room, event)?.record.event_type;
                if self.admits(room, required, (key, event, event_type))? {
                    selected.insert(key, event);
                }
            }
        }
        // Whoever went through all other state has found what there is of it.
        let keys = if required.needs_scan() { &required.members } else { &required.exact };
        let missing: Vec<StateKeyNid> =
            keys.iter().filter(|key| !selected.contains_key(key)).copied().collect();
        let found = state::lookup_many(self.step.reader, room.nid, at, &missing)?;
        selected
            .extend(missing.into_iter().zip(found).filter_map(|(key, event)| Some((key, event?))));
        Ok(selected)
    }

    fn admits(
        &self,
        room: &Room,
        required: &Required,
        (key, event, event_type): (StateKeyNid, EventNid, u64),
    ) -> Result<bool, ApiError> {
        if required.exact.binary_search(&key).is_ok()
            || required.types.binary_search(&event_type).is_ok()
            || required.all && !(required.lazy && event_type == self.member_type)
        {
            return Ok(true);
        }
        if required.keys.is_empty() {
            return Ok(false);
        }
        let event = self.step.event(room, event)?;
        let state_key = event.pdu.state_key().unwrap_or_default();
        let any_type = self.step.interner().state_key("*", state_key);
        Ok(required.keys.binary_search(&any_type).is_ok())
    }

    /// The members who matter to the timeline, as far as the client does not know them.
    fn add_members(
        &mut self,
        room: &Room,
        (at, knows_room): (StateRef, bool),
        window: &Window,
        selected: &mut StateMap,
    ) -> Result<(), ApiError> {
        let interner = *self.step.interner();
        let mut keys: HashSet<StateKeyNid> = HashSet::new();
        for (_, event) in &window.events {
            keys.insert(interner.state_key("m.room.member", event.pdu.sender().as_str()));
            let record = &event.record;
            if record.event_type == self.member_type && record.flags.has(EventFlags::STATE) {
                keys.insert(record.state_key);
            }
        }
        let keys: Vec<StateKeyNid> =
            keys.into_iter().filter(|key| !selected.contains_key(key)).collect();
        let members = state::lookup_many(self.step.reader, room.nid, at, &keys)?;
        for (key, member) in keys.into_iter().zip(members) {
            let Some(member) = member else { continue };
            if !knows_room || self.step.known.get(&(room.nid, key)) != Some(&member) {
                selected.insert(key, member);
            }
        }
        Ok(())
    }
}

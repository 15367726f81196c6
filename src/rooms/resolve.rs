//! State resolution: one state out of several, as every server of the room finds it.
//!
//! The algorithm is ruma's; here is what it is fed: whole state maps, one auth chain for each of
//! them, and (from version 12 on) the conflicted subgraph. Equal states need no resolution, and
//! nearly all events follow one event, so this runs seldom.
//!
//! <https://spec.matrix.org/v1.19/rooms/v12/#state-resolution>

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
};

use ruma::{
    EventId, OwnedEventId,
    events::StateEventType,
    state_res::{self, StateMap, utils::event_id_set::EventIdSet},
};

use super::{draft::Draft, event::Pdu};
use crate::{
    error::ApiError,
    id::{EventNid, StateKeyNid},
    storage::rows::StateRef,
};

/// A resolved state: another state and what differs from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resolved {
    pub(super) base: StateRef,
    pub(super) changes: Vec<(StateKeyNid, Option<EventNid>)>,
}

type State = BTreeMap<StateKeyNid, EventNid>;

/// Resolves states of one room.
///
/// # Errors
/// When an event that a state holds cannot be read: a resolution on less would differ from that of
/// other servers.
pub(super) fn resolve(draft: &Draft<'_>, refs: &[StateRef]) -> Result<Resolved, ApiError> {
    let refs: BTreeSet<_> = refs.iter().copied().collect();
    if let (Some(base), 1) = (refs.first(), refs.len()) {
        return Ok(Resolved { base: *base, changes: Vec::new() });
    }
    let mut states: Vec<(StateRef, State)> = Vec::with_capacity(refs.len());
    for &at in &refs {
        let state = draft.state.view(draft.reader).full(at)?;
        if states.iter().all(|(_, known)| *known != state) {
            states.push((at, state));
        }
    }
    match states.as_slice() {
        [] => Ok(Resolved { base: StateRef::EMPTY, changes: Vec::new() }),
        [(base, _)] => Ok(Resolved { base: *base, changes: Vec::new() }),
        several => {
            let resolved = Resolver::new(draft).run(several)?;
            Ok(nearest(several, &resolved))
        }
    }
}

/// The resolved state as the shortest list of changes to one of the states.
fn nearest(states: &[(StateRef, State)], resolved: &State) -> Resolved {
    let candidates = states.iter().map(|(base, state)| {
        let set = resolved.iter().filter(|(key, event)| state.get(key) != Some(event));
        let gone = state.keys().filter(|key| !resolved.contains_key(key));
        let changes: Vec<_> = set
            .map(|(key, event)| (*key, Some(*event)))
            .chain(gone.map(|key| (*key, None)))
            .collect();
        Resolved { base: *base, changes }
    });
    candidates
        .min_by_key(|candidate| candidate.changes.len())
        .unwrap_or(Resolved { base: StateRef::EMPTY, changes: Vec::new() })
}

struct Resolver<'a, 'b> {
    draft: &'a Draft<'b>,
    events: RefCell<HashMap<OwnedEventId, Option<Pdu>>>,
    /// The first failure of a look-up that ruma could only be told as absence.
    failure: RefCell<Option<ApiError>>,
}

impl<'a, 'b> Resolver<'a, 'b> {
    fn new(draft: &'a Draft<'b>) -> Self {
        Self { draft, events: RefCell::default(), failure: RefCell::default() }
    }

    fn run(&self, states: &[(StateRef, State)]) -> Result<State, ApiError> {
        let rules = &self.draft.room.rules;
        let Some(v2) = rules.state_res.v2_rules() else {
            return Err(ApiError::internal_text("a room version without resolution version 2"));
        };
        let mut maps = Vec::with_capacity(states.len());
        let mut chains = Vec::with_capacity(states.len());
        let mut numbers = HashMap::new();
        for (_, state) in states {
            let mut map = StateMap::new();
            for (&key, &nid) in state {
                let event = self.draft.event(nid)?;
                let kind = StateEventType::from(event.pdu.event_type());
                let name = (kind, event.pdu.state_key().unwrap_or_default().to_owned());
                let event_id = event.pdu.event_id().to_owned();
                numbers.insert(event_id.clone(), (key, nid));
                map.insert(name, event_id);
            }
            maps.push(map);
            chains.push(self.ids(&self.auth_chain(state.values().copied())?)?);
        }
        let resolved = state_res::resolve(
            &rules.authorization,
            v2,
            maps.iter(),
            chains,
            |id| self.fetch(id),
            |conflicted| self.subgraph(conflicted),
        );
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let resolved = resolved.map_err(ApiError::internal)?;
        resolved.values().map(|id| self.number(&mut numbers, id)).collect()
    }

    fn number(
        &self,
        numbers: &mut HashMap<OwnedEventId, (StateKeyNid, EventNid)>,
        id: &EventId,
    ) -> Result<(StateKeyNid, EventNid), ApiError> {
        if let Some(known) = numbers.get(id) {
            return Ok(*known);
        }
        // An event of the auth difference can come into the state without being in any of them.
        let event = self
            .draft
            .event_by_id(id)?
            .ok_or_else(|| ApiError::internal_text(format!("{id} was resolved but is not here")))?;
        Ok((event.record.state_key, event.nid))
    }

    /// The events themselves and all that authorize them, over any number of steps.
    ///
    /// An auth event is here before what cites it, so its number is lower: going down the numbers
    /// meets each event once.
    fn auth_chain(
        &self,
        events: impl Iterator<Item = EventNid>,
    ) -> Result<BTreeSet<EventNid>, ApiError> {
        let mut chain = BTreeSet::new();
        let mut waiting = BTreeSet::new();
        for nid in events {
            waiting.extend(self.draft.event(nid)?.record.auth_events.iter().copied());
        }
        while let Some(nid) = waiting.pop_last() {
            if chain.insert(nid) {
                waiting.extend(self.draft.event(nid)?.record.auth_events.iter().copied());
            }
        }
        Ok(chain)
    }

    fn ids(&self, events: &BTreeSet<EventNid>) -> Result<EventIdSet<OwnedEventId>, ApiError> {
        let mut ids = EventIdSet::with_capacity(events.len());
        for &nid in events {
            ids.insert(self.draft.event(nid)?.pdu.event_id().to_owned());
        }
        Ok(ids)
    }

    fn fetch(&self, id: &EventId) -> Option<Pdu> {
        if let Some(known) = self.events.borrow().get(id) {
            return known.clone();
        }
        let found = match self.draft.event_by_id(id) {
            Ok(found) => found.map(|event| event.pdu.clone()),
            Err(error) => {
                self.failure.borrow_mut().get_or_insert(error);
                None
            }
        };
        self.events.borrow_mut().insert(id.to_owned(), found.clone());
        found
    }

    /// The events on the paths of auth events between conflicted events.
    ///
    /// <https://spec.matrix.org/v1.19/rooms/v12/#definitions>
    fn subgraph(
        &self,
        conflicted: &StateMap<Vec<OwnedEventId>>,
    ) -> Option<EventIdSet<OwnedEventId>> {
        match self.find_subgraph(conflicted) {
            Ok(subgraph) => Some(subgraph),
            Err(error) => {
                self.failure.borrow_mut().get_or_insert(error);
                None
            }
        }
    }

    fn find_subgraph(
        &self,
        conflicted: &StateMap<Vec<OwnedEventId>>,
    ) -> Result<EventIdSet<OwnedEventId>, ApiError> {
        let mut starts = BTreeSet::new();
        for id in conflicted.values().flatten() {
            if let Some(event) = self.draft.event_by_id(id)? {
                starts.insert(event.nid);
            }
        }
        let mut below = self.auth_chain(starts.iter().copied())?;
        below.extend(&starts);
        // From the oldest on: whether an event leads down to a conflicted one.
        let mut leading = BTreeSet::new();
        for nid in below {
            let event = self.draft.event(nid)?;
            let leads = event.record.auth_events.iter().any(|auth| leading.contains(auth));
            if leads || starts.contains(&nid) {
                leading.insert(nid);
            }
        }
        self.ids(&leading)
    }
}

//! The versioned state against plain maps, its edges, and what its reads cost.

mod costs;
mod edges;
mod random;

use std::collections::BTreeMap;

use kv::{Batch, Durability, Position, Store};
use tokio::runtime::Runtime;

use super::{BuiltState, StateBuilder, StateWrite, TrunkChange, apply};
use crate::{
    id::{EventNid, RoomNid, StateKeyNid},
    storage::{
        rows::{HeadRow, StateChange, StateRef},
        schema::{FAMILIES, rooms::ROOM_HEADS},
    },
};

const ROOM: RoomNid = RoomNid(7);

type State = BTreeMap<StateKeyNid, EventNid>;
type Changes = Vec<(StateKeyNid, Option<EventNid>)>;

/// A room in a store, and what its head says.
struct Fixture {
    store: Store,
    runtime: Runtime,
    state_version: u32,
    next_branch: u32,
}

impl Fixture {
    fn new() -> Self {
        Self::on(Store::memory(&FAMILIES))
    }

    fn on(store: Store) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Self { store, runtime, state_version: 0, next_branch: 0 }
    }

    fn builder(&self) -> StateBuilder {
        StateBuilder::new(ROOM, self.state_version, self.next_branch)
    }

    /// What `rooms::commit` does of this.
    fn commit(&mut self, built: &BuiltState) {
        let mut batch = Batch::new();
        apply(ROOM, &built.writes, &mut batch);
        (self.state_version, self.next_branch) = (built.state_version, built.next_branch);
        let head = HeadRow {
            next_event: EventNid(1),
            state_version: built.state_version,
            next_branch: built.next_branch,
            extremities: vec![EventNid(1)],
            joined_members: 3,
            invited_members: 0,
        };
        batch.put(&ROOM_HEADS, &ROOM, &head);
        self.runtime.block_on(self.store.commit(batch, Durability::Buffered)).unwrap();
    }

    /// One current state more, in a batch of its own.
    fn advance(&mut self, changes: &Changes) -> StateRef {
        let mut builder = self.builder();
        let reader = self.store.reader();
        let made = builder.advance(&reader, &trunk(changes), Position::pending(0)).unwrap();
        drop(reader);
        self.commit(&builder.finish());
        made
    }

    /// One state off the trunk, in a batch of its own.
    fn child(&mut self, base: StateRef, changes: &Changes) -> StateRef {
        self.child_writes(base, changes).0
    }

    fn child_writes(&mut self, base: StateRef, changes: &Changes) -> (StateRef, Vec<StateWrite>) {
        let mut builder = self.builder();
        let made = builder.child(&self.store.reader(), base, changes).unwrap();
        let built = builder.finish();
        self.commit(&built);
        (made, built.writes)
    }

    fn full(&self, at: StateRef) -> State {
        super::full(&self.store.reader(), ROOM, at).unwrap()
    }

    fn lookup(&self, at: StateRef, number: u64) -> Option<u32> {
        super::lookup(&self.store.reader(), ROOM, at, key(number)).unwrap().map(|event| event.0)
    }

    fn diff(&self, from: StateRef, to: StateRef) -> Vec<StateChange> {
        super::diff(&self.store.reader(), ROOM, from, to).unwrap()
    }
}

fn key(number: u64) -> StateKeyNid {
    StateKeyNid(number)
}

/// Changes of keys to events; event 0 removes.
fn set(changes: impl IntoIterator<Item = (u64, u32)>) -> Changes {
    changes
        .into_iter()
        .map(|(number, event)| (key(number), (event != 0).then_some(EventNid(event))))
        .collect()
}

/// Odd keys are members.
fn trunk(changes: &Changes) -> Vec<TrunkChange> {
    changes
        .iter()
        .map(|(key, event)| TrunkChange { key: *key, event: *event, is_member: key.0 % 2 == 1 })
        .collect()
}

fn state(entries: impl IntoIterator<Item = (u64, u32)>) -> State {
    entries.into_iter().map(|(number, event)| (key(number), EventNid(event))).collect()
}

fn changed(state: &State, changes: &Changes) -> State {
    let mut state = state.clone();
    for (key, event) in changes {
        match event {
            Some(event) => state.insert(*key, *event),
            None => state.remove(key),
        };
    }
    state
}

fn naive_diff(from: &State, to: &State) -> Vec<StateChange> {
    let keys: std::collections::BTreeSet<_> = from.keys().chain(to.keys()).collect();
    keys.into_iter()
        .map(|key| StateChange {
            key: *key,
            old: from.get(key).copied(),
            new: to.get(key).copied(),
        })
        .filter(|change| change.old != change.new)
        .collect()
}

//! The versioned state of a room: every state it ever had, as a [`StateRef`] of 8 bytes.
//!
//! * The **trunk** (branch 0) is the sequence of current states. Version 0 is empty; a version is
//!   one accepted event, or one resolution that changed many keys at once.
//! * An **overlay** is a version of a branch with at most [`OVERLAY_CHANGES_MAX`] changes, stored
//!   once per content. States off the trunk begin so (forks, soft-failed events, fetched history).
//! * A **branch** begins at a version of another (its version 0) and has versions of its own.
//!
//! One state may have several refs; equal refs are equal states. Refs and rows never change.
//! [`StateView`] reads, [`StateBuilder`] decides new states, [`apply`] (for `commit` alone) puts
//! the rows. `diff` needs no full state: each step of the way between two states is logged.

mod builder;
mod diff;
mod full;
mod lookup;
mod pending;
mod view;
mod write;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use kv::{Error, Reader};

pub use self::{
    builder::{BuiltState, OVERLAY_CHANGES_MAX, StateBuilder, TrunkChange},
    pending::PendingState,
    view::StateView,
    write::{StateWrite, apply},
};
use crate::{
    id::{EventNid, RoomNid, StateKeyNid},
    storage::rows::{StateChange, StateRef},
};

/// The event of one key in a state. On the trunk it is one seek.
pub fn lookup(
    reader: &Reader<'_>,
    room: RoomNid,
    at: StateRef,
    key: StateKeyNid,
) -> Result<Option<EventNid>, Error> {
    StateView::new(reader, room).lookup(at, key)
}

/// The events of several keys in a state, in the keys' order.
pub fn lookup_many(
    reader: &Reader<'_>,
    room: RoomNid,
    at: StateRef,
    keys: &[StateKeyNid],
) -> Result<Vec<Option<EventNid>>, Error> {
    StateView::new(reader, room).lookup_many(at, keys)
}

/// A whole state.
pub fn full(
    reader: &Reader<'_>,
    room: RoomNid,
    at: StateRef,
) -> Result<BTreeMap<StateKeyNid, EventNid>, Error> {
    StateView::new(reader, room).full(at)
}

/// What must be changed in `from` to get `to`, sorted by key; only what really differs.
///
/// Costs what was changed on the way between the two, not the size of the states.
pub fn diff(
    reader: &Reader<'_>,
    room: RoomNid,
    from: StateRef,
    to: StateRef,
) -> Result<Vec<StateChange>, Error> {
    StateView::new(reader, room).diff(from, to)
}

//! New states: decided here, written by `rooms::commit`.
//!
//! A builder serves one batch. What it decided is seen by its own look-ups at once, so that several
//! events of one batch can follow each other. It must be used under the room's lock.

use std::{collections::BTreeMap, hash::Hasher, ops::ControlFlow};

use kv::{Direction, Error, Position, Reader};
use siphasher::sip::SipHasher24;

use super::{
    diff::{Net, inverse},
    pending::PendingState,
    view::{OVERLAY_BIT, StateView, TRUNK, is_overlay},
    write::StateWrite,
};
use crate::{
    id::{BranchNid, EventNid, RoomNid, StateKeyNid},
    storage::rows::{OverlayRow, StateChange, StateRef},
};

/// How many changes an overlay holds at most; what has more is a branch.
pub const OVERLAY_CHANGES_MAX: usize = 64;
/// How many branches lie between a state and the trunk at most.
const DEPTH_MAX: usize = 4;
/// How many versions before and after a state are tried for a nearer one.
const REACH: u32 = 16;
/// A version that is farther away by so many changes ends the search.
const DETOUR_MAX: usize = 256;
/// How many logged changes may be read to find that a state is close to the current one.
const HOMEWAY_MAX: usize = 2048;

/// A change of the current state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrunkChange {
    /// The key.
    pub key: StateKeyNid,
    /// The event; `None`: removed.
    pub event: Option<EventNid>,
    /// Whether the key is of type `m.room.member`.
    pub is_member: bool,
}

/// What a builder decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltState {
    /// What is to be written, in this order.
    pub writes: Vec<StateWrite>,
    /// The trunk's newest version, for the room's head.
    pub state_version: u32,
    /// The number of the next branch, for the room's head.
    pub next_branch: u32,
}

/// Decides the new states of one batch.
#[derive(Clone, Debug)]
pub struct StateBuilder {
    room: RoomNid,
    state_version: u32,
    next_branch: u32,
    pending: PendingState,
    writes: Vec<StateWrite>,
    hash: fn(&OverlayRow) -> u64,
}

impl StateBuilder {
    /// Goes on from a room's head (of a new room: 0 and 0).
    pub const fn new(room: RoomNid, state_version: u32, next_branch: u32) -> Self {
        Self {
            room,
            state_version,
            next_branch,
            pending: PendingState::new(),
            writes: Vec::new(),
            hash: hash_overlay,
        }
    }

    /// Sees also the writes of earlier batches that the readers may not see yet.
    #[must_use]
    pub fn with_pending(mut self, pending: PendingState) -> Self {
        self.pending = pending;
        self
    }

    #[cfg(test)]
    pub(super) fn with_hash(mut self, hash: fn(&OverlayRow) -> u64) -> Self {
        self.hash = hash;
        self
    }

    /// The current state.
    pub const fn head(&self) -> StateRef {
        StateRef::trunk(self.state_version)
    }

    /// The states, the new ones among them.
    pub fn view<'a>(&'a self, reader: &'a Reader<'_>) -> StateView<'a> {
        StateView::with_pending(reader, self.room, &self.pending)
    }

    /// The writes and the head.
    pub fn finish(self) -> BuiltState {
        let Self { writes, state_version, next_branch, .. } = self;
        BuiltState { writes, state_version, next_branch }
    }

    /// Makes the next current state; answers the present one when nothing changes.
    pub fn advance(
        &mut self,
        reader: &Reader<'_>,
        changes: &[TrunkChange],
        position: Position,
    ) -> Result<StateRef, Error> {
        let wanted: Vec<_> = changes.iter().map(|change| (change.key, change.event)).collect();
        let effective = self.effective(reader, self.head(), &wanted)?;
        if effective.is_empty() {
            return Ok(self.head());
        }
        let members: BTreeMap<_, _> =
            changes.iter().map(|change| (change.key, change.is_member)).collect();
        let version = self.state_version.checked_add(1).ok_or_else(too_many)?;
        for change in &effective {
            let is_member = members.get(&change.key).is_some_and(|is_member| *is_member);
            self.writes.push(StateWrite::Current { is_member, key: change.key, event: change.new });
        }
        self.state_version = version;
        self.write(StateWrite::Version { branch: TRUNK, version, position, changes: effective });
        Ok(self.head())
    }

    /// The state `base` with changes, for an event that is not (or not yet) in the current state.
    ///
    /// What turns out to be a version of the trunk (of those near, or the newest) is given as that,
    /// also without any change: so a room comes back to the trunk once a fork is merged. An event
    /// that moves the current state is best advanced first: then this finds that version.
    pub fn child(
        &mut self,
        reader: &Reader<'_>,
        base: StateRef,
        changes: &[(StateKeyNid, Option<EventNid>)],
    ) -> Result<StateRef, Error> {
        let effective = self.effective(reader, base, changes)?;
        if effective.is_empty() && base.branch == TRUNK {
            return Ok(base);
        }
        let (mut anchor, mut net) = (base, Net::default());
        if is_overlay(base) {
            let row = self.view(reader).overlay(base.branch)?;
            anchor = row.base;
            net = row.changes.into_iter().collect();
        }
        if effective.is_empty() {
            let (near, net) = self.nearest(reader, anchor, net)?;
            return Ok(if net.is_empty() && near.branch == TRUNK { near } else { base });
        }
        net.extend(effective);
        self.place(reader, anchor, net)
    }

    /// The changes that really change `base`, sorted by key.
    fn effective(
        &self,
        reader: &Reader<'_>,
        base: StateRef,
        changes: &[(StateKeyNid, Option<EventNid>)],
    ) -> Result<Vec<StateChange>, Error> {
        let wanted: BTreeMap<_, _> = changes.iter().copied().collect();
        let keys: Vec<_> = wanted.keys().copied().collect();
        let old = self.view(reader).lookup_many(base, &keys)?;
        let changes = wanted.into_iter().zip(old);
        Ok(changes
            .map(|((key, new), old)| StateChange { key, old, new })
            .filter(|change| change.old != change.new)
            .collect())
    }

    /// Finds or makes the state that differs from `anchor`, a version of a branch, by `net`.
    fn place(
        &mut self,
        reader: &Reader<'_>,
        anchor: StateRef,
        net: Net,
    ) -> Result<StateRef, Error> {
        let (anchor, net) = self.nearest(reader, anchor, net)?;
        if net.is_empty() {
            return Ok(anchor);
        }
        if anchor.branch != TRUNK
            && self.view(reader).newest_version(anchor.branch)? == anchor.version
        {
            return self.extend(anchor, &net);
        }
        if net.len() <= OVERLAY_CHANGES_MAX {
            return self.overlay(reader, anchor, &net);
        }
        if self.view(reader).path(anchor)?.levels.len() <= DEPTH_MAX {
            return self.branch(anchor, &net);
        }
        let head = self.head();
        match self.relative_to_head(reader, anchor, &net, usize::MAX)?.unwrap_or_default() {
            whole if whole.is_empty() => Ok(head),
            whole if whole.len() <= OVERLAY_CHANGES_MAX => self.overlay(reader, head, &whole),
            whole => self.branch(head, &whole),
        }
    }

    /// The changes from the current state to the one that differs from `anchor` by `net`.
    fn relative_to_head(
        &self,
        reader: &Reader<'_>,
        anchor: StateRef,
        net: &Net,
        budget: usize,
    ) -> Result<Option<Net>, Error> {
        let mut whole = self.view(reader).net(self.head(), anchor, budget)?;
        if let Some(whole) = &mut whole {
            whole.extend(net.changes());
        }
        Ok(whole)
    }

    /// The version that has the fewest changes to the state: one near `anchor`, or the newest.
    fn nearest(
        &self,
        reader: &Reader<'_>,
        anchor: StateRef,
        net: Net,
    ) -> Result<(StateRef, Net), Error> {
        let (anchor, net) = self.nearest_along(reader, anchor, net)?;
        let found = net.is_empty() && anchor.branch == TRUNK;
        if !found
            && anchor != self.head()
            && let Some(whole) = self.relative_to_head(reader, anchor, &net, HOMEWAY_MAX)?
            && (whole.is_empty() || whole.len() < net.len())
        {
            return Ok((self.head(), whole));
        }
        Ok((anchor, net))
    }

    /// The version of the same branch near `anchor` that has the fewest changes to the state.
    fn nearest_along(
        &self,
        reader: &Reader<'_>,
        anchor: StateRef,
        net: Net,
    ) -> Result<(StateRef, Net), Error> {
        let view = self.view(reader);
        let newest = if anchor.branch == TRUNK { self.state_version } else { u32::MAX };
        let later = (anchor.version, anchor.version.saturating_add(REACH).min(newest));
        let earlier = (anchor.version.saturating_sub(REACH), anchor.version);
        let limit = net.len() + DETOUR_MAX;
        let mut best = (anchor.version, net.clone());
        let mut moved = net.clone();
        let _ =
            view.for_each_version(anchor.branch, later, Direction::Forward, |version, changes| {
                moved.rebase(changes.iter().copied());
                consider(&mut best, version, &moved, limit)
            })?;
        let mut moved = net;
        let _ = view.for_each_version(
            anchor.branch,
            earlier,
            Direction::Backward,
            |version, changes| {
                moved.rebase(changes.iter().copied().map(inverse));
                consider(&mut best, version - 1, &moved, limit)
            },
        )?;
        let (version, net) = best;
        if version == 0 && anchor.branch != TRUNK {
            return Ok((view.parent(anchor.branch)?, net));
        }
        Ok((StateRef { branch: anchor.branch, version }, net))
    }

    fn extend(&mut self, anchor: StateRef, net: &Net) -> Result<StateRef, Error> {
        let branch = anchor.branch;
        let version = anchor.version.checked_add(1).ok_or_else(too_many)?;
        let changes = net.changes();
        self.write(StateWrite::Version { branch, version, position: Position::ZERO, changes });
        Ok(StateRef { branch, version })
    }

    fn branch(&mut self, parent: StateRef, net: &Net) -> Result<StateRef, Error> {
        let branch = BranchNid(self.allocate()?);
        self.write(StateWrite::Branch { branch, parent });
        self.extend(StateRef { branch, version: 0 }, net)
    }

    fn overlay(
        &mut self,
        reader: &Reader<'_>,
        base: StateRef,
        net: &Net,
    ) -> Result<StateRef, Error> {
        let row = OverlayRow { base, changes: net.changes() };
        let hash = (self.hash)(&row);
        if let Some(branch) = self.view(reader).find_overlay(hash, &row)? {
            return Ok(StateRef { branch, version: 0 });
        }
        let branch = BranchNid(self.allocate()? | OVERLAY_BIT);
        self.write(StateWrite::Overlay { overlay: branch, hash, row });
        Ok(StateRef { branch, version: 0 })
    }

    fn write(&mut self, write: StateWrite) {
        self.pending.absorb(std::slice::from_ref(&write));
        self.writes.push(write);
    }

    /// A number for a branch or an overlay; 0 is the trunk.
    fn allocate(&mut self) -> Result<u32, Error> {
        let number = self.next_branch.max(1);
        if number >= OVERLAY_BIT {
            return Err(too_many());
        }
        self.next_branch = number + 1;
        Ok(number)
    }
}

fn consider(best: &mut (u32, Net), version: u32, net: &Net, limit: usize) -> ControlFlow<()> {
    if net.len() < best.1.len() {
        *best = (version, net.clone());
    }
    if net.is_empty() || net.len() > limit {
        ControlFlow::Break(())
    } else {
        ControlFlow::Continue(())
    }
}

fn too_many() -> Error {
    Error::Unavailable("the room has used up the numbers of its states".to_owned())
}

/// Says which overlays may be equal: stored, so it must never change.
fn hash_overlay(row: &OverlayRow) -> u64 {
    let mut hasher = SipHasher24::new();
    hasher.write(&row.base.branch.0.to_le_bytes());
    hasher.write(&row.base.version.to_le_bytes());
    for change in &row.changes {
        hasher.write(&change.key.0.to_le_bytes());
        hasher.write(&change.old.map_or(0, |event| event.0).to_le_bytes());
        hasher.write(&change.new.map_or(0, |event| event.0).to_le_bytes());
    }
    hasher.finish()
}

//! The rows of one room's states, those that are still pending among them.

use std::{
    fmt::Debug,
    ops::{Bound, ControlFlow},
};

use kv::{Direction, Error, Key, Reader, Table, Value};

use super::pending::PendingState;
use crate::{
    id::{BranchNid, EventNid, RoomNid, StateKeyNid},
    storage::{
        rows::{OverlayRow, StateChange, StateRef},
        schema::rooms::{
            BranchKey, STATE_BRANCHES, STATE_LOG, STATE_OVERLAYS, STATE_OVERLAYS_BY_HASH,
            STATE_VERSIONS, StateLogKey, StateVersionKey,
        },
    },
};

/// The branch of the current states.
pub(super) const TRUNK: BranchNid = BranchNid(0);
/// Set in the number of an overlay.
pub(super) const OVERLAY_BIT: u32 = 1 << 31;

static NOTHING: PendingState = PendingState::new();

/// The states of a room as one reader sees them, with writes that are not committed yet.
#[derive(Clone, Copy, Debug)]
pub struct StateView<'a> {
    pub(super) reader: &'a Reader<'a>,
    pub(super) room: RoomNid,
    pending: &'a PendingState,
}

/// How a state is reached from the trunk.
#[derive(Clone, Debug)]
pub(super) struct Path {
    /// The changes of the overlay, if the state is one.
    pub(super) overlay: Vec<StateChange>,
    /// The version of each branch on the way, the trunk last.
    pub(super) levels: Vec<StateRef>,
}

impl<'a> StateView<'a> {
    /// What is committed.
    pub fn new(reader: &'a Reader<'_>, room: RoomNid) -> Self {
        Self::with_pending(reader, room, &NOTHING)
    }

    /// What is committed and these writes.
    pub fn with_pending(reader: &'a Reader<'_>, room: RoomNid, pending: &'a PendingState) -> Self {
        Self { reader, room, pending }
    }

    /// The newest entry of a key at or before a version of a branch, which
    /// may be [`REMOVED`](super::write::REMOVED).
    pub(super) fn latest(&self, at: StateRef, key: StateKeyNid) -> Result<Option<EventNid>, Error> {
        // What is pending in a branch is newer than all that is committed in it.
        if let Some(found) = self.pending.latest(at, key) {
            return Ok(Some(found));
        }
        if at.version == 0 || self.pending.first_version(at.branch) == Some(1) {
            return Ok(None);
        }
        let inverted_version = u32::MAX - at.version;
        let start = StateVersionKey { room: self.room, branch: at.branch, key, inverted_version };
        let range = STATE_VERSIONS
            .range(Bound::Included(&start), Bound::Included(&(self.room, at.branch, key)));
        let row = self.reader.scan(&STATE_VERSIONS, &range, Direction::Forward, 1)?.pop();
        Ok(row.map(|(_, event)| event))
    }

    /// Visits what each version of a branch changed, of those after one and up to another.
    pub(super) fn for_each_version(
        &self,
        branch: BranchNid,
        (after, up_to): (u32, u32),
        direction: Direction,
        mut visit: impl FnMut(u32, &[StateChange]) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Error> {
        let stored = match self.pending.first_version(branch) {
            Some(first) => up_to.min(first - 1),
            None => up_to,
        };
        let mut pending = self.pending.versions(branch, after.max(stored), up_to);
        match direction {
            Direction::Forward => {
                if self.stored_versions(branch, (after, stored), direction, &mut visit)?.is_break()
                {
                    return Ok(ControlFlow::Break(()));
                }
                Ok(pending.try_for_each(|(version, changes)| visit(version, changes)))
            }
            Direction::Backward => {
                if pending
                    .rev()
                    .try_for_each(|(version, changes)| visit(version, changes))
                    .is_break()
                {
                    return Ok(ControlFlow::Break(()));
                }
                self.stored_versions(branch, (after, stored), direction, &mut visit)
            }
        }
    }

    fn stored_versions(
        &self,
        branch: BranchNid,
        (after, up_to): (u32, u32),
        direction: Direction,
        visit: &mut impl FnMut(u32, &[StateChange]) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Error> {
        let mut flow = ControlFlow::Continue(());
        if after >= up_to {
            return Ok(flow);
        }
        let range = STATE_LOG.range(
            Bound::Excluded(&(self.room, branch, after)),
            Bound::Included(&(self.room, branch, up_to)),
        );
        // The parts of a version are put together before it is shown.
        let mut whole: Option<(u32, Vec<StateChange>)> = None;
        self.reader.for_each(&STATE_LOG, &range, direction, |key: StateLogKey, row| {
            match &mut whole {
                Some((version, changes)) if *version == key.version => changes.extend(row.changes),
                _ => {
                    if let Some((version, changes)) = whole.replace((key.version, row.changes)) {
                        flow = visit(version, &changes);
                    }
                }
            }
            flow
        })?;
        match whole {
            Some((version, changes)) if flow.is_continue() => Ok(visit(version, &changes)),
            _ => Ok(flow),
        }
    }

    /// The newest version of a branch.
    pub(super) fn newest_version(&self, branch: BranchNid) -> Result<u32, Error> {
        let mut newest = 0;
        let all = (0, u32::MAX);
        let _ = self.for_each_version(branch, all, Direction::Backward, |version, _| {
            newest = version;
            ControlFlow::Break(())
        })?;
        Ok(newest)
    }

    /// Where a branch begins.
    pub(super) fn parent(&self, branch: BranchNid) -> Result<StateRef, Error> {
        if let Some(parent) = self.pending.parent(branch) {
            return Ok(parent);
        }
        let key = BranchKey { room: self.room, branch };
        let parent = self
            .reader
            .get(&STATE_BRANCHES, &key)?
            .ok_or_else(|| corrupt(&STATE_BRANCHES, &key, "the branch is not there"))?;
        // Branches are numbered as they are made: so the way down ends.
        if parent.branch >= branch {
            return Err(corrupt(&STATE_BRANCHES, &key, "the branch is older than its parent"));
        }
        Ok(parent)
    }

    /// What an overlay is.
    pub(super) fn overlay(&self, overlay: BranchNid) -> Result<OverlayRow, Error> {
        if let Some(row) = self.pending.overlay(overlay) {
            return Ok(row.clone());
        }
        let key = BranchKey { room: self.room, branch: overlay };
        let row = self
            .reader
            .get(&STATE_OVERLAYS, &key)?
            .ok_or_else(|| corrupt(&STATE_OVERLAYS, &key, "the overlay is not there"))?;
        if is_overlay(row.base) {
            return Err(corrupt(&STATE_OVERLAYS, &key, "the overlay lies on another"));
        }
        Ok(row)
    }

    /// The overlay with this content, whose hash is `hash`.
    pub(super) fn find_overlay(
        &self,
        hash: u64,
        row: &OverlayRow,
    ) -> Result<Option<BranchNid>, Error> {
        for overlay in self.pending.overlays_by_hash(hash) {
            if self.pending.overlay(overlay) == Some(row) {
                return Ok(Some(overlay));
            }
        }
        let range = STATE_OVERLAYS_BY_HASH.prefix(&(self.room, hash));
        let mut found = Vec::new();
        self.reader.for_each(&STATE_OVERLAYS_BY_HASH, &range, Direction::Forward, |key, ()| {
            found.push(key.branch);
            ControlFlow::Continue(())
        })?;
        for overlay in found {
            if self.overlay(overlay)? == *row {
                return Ok(Some(overlay));
            }
        }
        Ok(None)
    }

    /// The way from a state down to the trunk.
    pub(super) fn path(&self, mut at: StateRef) -> Result<Path, Error> {
        let mut overlay = Vec::new();
        if is_overlay(at) {
            let row = self.overlay(at.branch)?;
            (overlay, at) = (row.changes, row.base);
        }
        let mut levels = vec![at];
        while at.branch != TRUNK {
            at = self.parent(at.branch)?;
            levels.push(at);
        }
        Ok(Path { overlay, levels })
    }
}

pub(super) const fn is_overlay(at: StateRef) -> bool {
    at.branch.0 & OVERLAY_BIT != 0
}

pub(super) fn corrupt<K: Key + Debug, V: Value>(
    table: &Table<K, V>,
    key: &K,
    reason: &str,
) -> Error {
    Error::Corrupt { table: table.name, key: format!("{key:?}"), reason: reason.to_owned() }
}

//! The difference of two states, from the log of what was changed on the way between them.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    ops::ControlFlow,
};

use kv::{Direction, Error};

use super::view::{Path, StateView, corrupt};
use crate::{
    id::{BranchNid, EventNid, StateKeyNid},
    storage::{
        rows::{StateChange, StateRef},
        schema::rooms::{STATE_LOG, StateLogKey},
    },
};

type Pair = (Option<EventNid>, Option<EventNid>);

/// The net change from one state to another. Keys whose change was undone are not in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Net(BTreeMap<StateKeyNid, Pair>);

impl Net {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Goes one change further at the end.
    fn apply(&mut self, change: StateChange) {
        match self.0.entry(change.key) {
            Entry::Vacant(entry) if change.old != change.new => {
                entry.insert((change.old, change.new));
            }
            Entry::Vacant(_) => {}
            Entry::Occupied(entry) if entry.get().0 == change.new => {
                entry.remove();
            }
            Entry::Occupied(mut entry) => entry.get_mut().1 = change.new,
        }
    }

    /// Moves the beginning by changes; the end stays.
    pub(super) fn rebase(&mut self, changes: impl IntoIterator<Item = StateChange>) {
        for change in changes {
            match self.0.entry(change.key) {
                Entry::Vacant(entry) if change.old != change.new => {
                    entry.insert((change.new, change.old));
                }
                Entry::Vacant(_) => {}
                Entry::Occupied(entry) if entry.get().1 == change.new => {
                    entry.remove();
                }
                Entry::Occupied(mut entry) => entry.get_mut().0 = change.new,
            }
        }
    }

    /// The changes, sorted by key.
    pub(super) fn changes(&self) -> Vec<StateChange> {
        self.0
            .iter()
            .map(|(key, (old, new))| StateChange { key: *key, old: *old, new: *new })
            .collect()
    }
}

impl Extend<StateChange> for Net {
    fn extend<I: IntoIterator<Item = StateChange>>(&mut self, changes: I) {
        for change in changes {
            self.apply(change);
        }
    }
}

impl FromIterator<StateChange> for Net {
    fn from_iter<I: IntoIterator<Item = StateChange>>(changes: I) -> Self {
        let mut net = Self::default();
        net.extend(changes);
        net
    }
}

pub(super) const fn inverse(change: StateChange) -> StateChange {
    StateChange { key: change.key, old: change.new, new: change.old }
}

impl StateView<'_> {
    /// What must be changed in `from` to get `to`, sorted by key; only what really differs.
    pub fn diff(&self, from: StateRef, to: StateRef) -> Result<Vec<StateChange>, Error> {
        if from == to {
            return Ok(Vec::new());
        }
        Ok(self.net(from, to, usize::MAX)?.unwrap_or_default().changes())
    }

    /// From `from` down to the branch that both are on, along it, and up to `to`; `None` when more
    /// than `budget` changes lie on the way.
    pub(super) fn net(
        &self,
        from: StateRef,
        to: StateRef,
        budget: usize,
    ) -> Result<Option<Net>, Error> {
        let (from, to) = (self.path(from)?, self.path(to)?);
        let (down, up) = meeting(&from, &to);
        let (start, end) = (from.levels[down], to.levels[up]);
        let down = from.levels[..down].iter().map(|level| (level.branch, level.version, 0));
        let along = std::iter::once((start.branch, start.version, end.version));
        let up = to.levels[..up].iter().rev().map(|level| (level.branch, 0, level.version));
        let mut net: Net = from.overlay.iter().copied().map(inverse).collect();
        let mut budget = budget;
        for (branch, from, to) in down.chain(along).chain(up) {
            if !self.walk(branch, (from, to), &mut net, &mut budget)? {
                return Ok(None);
            }
        }
        net.extend(to.overlay);
        Ok(Some(net))
    }

    /// Goes from one version of a branch to another; `false` when the budget is used up before.
    pub(super) fn walk(
        &self,
        branch: BranchNid,
        (from, to): (u32, u32),
        net: &mut Net,
        budget: &mut usize,
    ) -> Result<bool, Error> {
        let forward = from < to;
        let direction = if forward { Direction::Forward } else { Direction::Backward };
        let mut missing = from.abs_diff(to);
        let range = (from.min(to), from.max(to));
        let flow = self.for_each_version(branch, range, direction, |_, changes| {
            let Some(left) = budget.checked_sub(changes.len()) else {
                return ControlFlow::Break(());
            };
            *budget = left;
            for &change in changes {
                net.apply(if forward { change } else { inverse(change) });
            }
            missing = missing.saturating_sub(1);
            ControlFlow::Continue(())
        })?;
        if flow.is_break() {
            return Ok(false);
        }
        if missing > 0 {
            let key = StateLogKey { room: self.room, branch, version: range.1, part: 0 };
            return Err(corrupt(&STATE_LOG, &key, "versions up to this are missing"));
        }
        Ok(true)
    }
}

/// The places in both paths of the first branch that they share; at the latest it is the trunk.
fn meeting(from: &Path, to: &Path) -> (usize, usize) {
    from.levels
        .iter()
        .enumerate()
        .find_map(|(down, level)| {
            let up = to.levels.iter().position(|other| other.branch == level.branch)?;
            Some((down, up))
        })
        .expect("every path ends on the trunk")
}

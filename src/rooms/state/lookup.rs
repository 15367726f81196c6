//! Single keys of a state: one seek per branch level, newest version at or before the one asked.

use kv::Error;

use super::{
    view::{Path, StateView, TRUNK, is_overlay},
    write::REMOVED,
};
use crate::{
    id::{EventNid, StateKeyNid},
    storage::rows::{StateChange, StateRef},
};

impl StateView<'_> {
    /// The event of one key in a state.
    pub fn lookup(&self, mut at: StateRef, key: StateKeyNid) -> Result<Option<EventNid>, Error> {
        if is_overlay(at) {
            let row = self.overlay(at.branch)?;
            if let Some(change) = find(&row.changes, key) {
                return Ok(change.new);
            }
            at = row.base;
        }
        // Not by `path`: most keys are found before the trunk is reached.
        loop {
            if let Some(found) = self.latest(at, key)? {
                return Ok(present(found));
            }
            if at.branch == TRUNK {
                return Ok(None);
            }
            at = self.parent(at.branch)?;
        }
    }

    /// The events of several keys in a state, in the keys' order.
    pub fn lookup_many(
        &self,
        at: StateRef,
        keys: &[StateKeyNid],
    ) -> Result<Vec<Option<EventNid>>, Error> {
        let path = self.path(at)?;
        keys.iter().map(|key| self.lookup_on(&path, *key)).collect()
    }

    fn lookup_on(&self, path: &Path, key: StateKeyNid) -> Result<Option<EventNid>, Error> {
        if let Some(change) = find(&path.overlay, key) {
            return Ok(change.new);
        }
        for level in &path.levels {
            if let Some(found) = self.latest(*level, key)? {
                return Ok(present(found));
            }
        }
        Ok(None)
    }
}

fn present(found: EventNid) -> Option<EventNid> {
    Some(found).filter(|event| *event != REMOVED)
}

fn find(changes: &[StateChange], key: StateKeyNid) -> Option<&StateChange> {
    changes.binary_search_by_key(&key, |change| change.key).ok().map(|index| &changes[index])
}

//! States that are decided and not yet readable: of the batch that is being built, or of batches
//! that are submitted and not yet committed. Reads look here first.

use std::collections::{BTreeMap, BTreeSet};

use super::write::{REMOVED, StateWrite};
use crate::{
    id::{BranchNid, EventNid, StateKeyNid},
    storage::rows::{OverlayRow, StateChange, StateRef},
};

/// The writes that a reader does not see yet. That some are committed meanwhile does no harm.
#[derive(Clone, Debug, Default)]
pub struct PendingState {
    versions: BTreeMap<(BranchNid, StateKeyNid, u32), EventNid>,
    log: BTreeMap<(BranchNid, u32), Vec<StateChange>>,
    branches: BTreeMap<BranchNid, StateRef>,
    overlays: BTreeMap<BranchNid, OverlayRow>,
    overlays_by_hash: BTreeSet<(u64, BranchNid)>,
}

impl PendingState {
    /// No writes.
    pub const fn new() -> Self {
        Self {
            versions: BTreeMap::new(),
            log: BTreeMap::new(),
            branches: BTreeMap::new(),
            overlays: BTreeMap::new(),
            overlays_by_hash: BTreeSet::new(),
        }
    }

    /// Adds writes; those of one branch must come in the order of its versions, without a gap.
    pub fn absorb(&mut self, writes: &[StateWrite]) {
        for write in writes {
            match write {
                StateWrite::Version { branch, version, changes, .. } => {
                    for change in changes {
                        self.versions
                            .insert((*branch, change.key, *version), change.new.unwrap_or(REMOVED));
                    }
                    self.log.insert((*branch, *version), changes.clone());
                }
                StateWrite::Branch { branch, parent } => {
                    self.branches.insert(*branch, *parent);
                }
                StateWrite::Overlay { overlay, hash, row } => {
                    self.overlays.insert(*overlay, row.clone());
                    self.overlays_by_hash.insert((*hash, *overlay));
                }
                StateWrite::Current { .. } => {}
            }
        }
    }

    /// The newest entry of a key at or before a version of a branch.
    pub(super) fn latest(&self, at: StateRef, key: StateKeyNid) -> Option<EventNid> {
        let range = (at.branch, key, 0)..=(at.branch, key, at.version);
        self.versions.range(range).next_back().map(|(_, event)| *event)
    }

    /// The first version of the branch that is here: all later ones are too.
    pub(super) fn first_version(&self, branch: BranchNid) -> Option<u32> {
        self.log.range((branch, 0)..=(branch, u32::MAX)).next().map(|((_, version), _)| *version)
    }

    /// The versions of the branch after one and up to another.
    pub(super) fn versions(
        &self,
        branch: BranchNid,
        after: u32,
        up_to: u32,
    ) -> impl DoubleEndedIterator<Item = (u32, &[StateChange])> {
        // An empty range may not be given with its ends crossed.
        self.log
            .range((branch, after)..=(branch, up_to.max(after)))
            .filter(move |((_, version), _)| *version > after)
            .map(|((_, version), changes)| (*version, changes.as_slice()))
    }

    pub(super) fn parent(&self, branch: BranchNid) -> Option<StateRef> {
        self.branches.get(&branch).copied()
    }

    pub(super) fn overlay(&self, overlay: BranchNid) -> Option<&OverlayRow> {
        self.overlays.get(&overlay)
    }

    pub(super) fn overlays_by_hash(&self, hash: u64) -> impl Iterator<Item = BranchNid> {
        self.overlays_by_hash
            .range((hash, BranchNid(0))..=(hash, BranchNid(u32::MAX)))
            .map(|(_, overlay)| *overlay)
    }
}

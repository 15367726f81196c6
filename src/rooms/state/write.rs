//! The writes of new states, as plain data, and the rows they are.

use kv::{Batch, Position};

use crate::{
    id::{BranchNid, EventNid, RoomNid, StateKeyNid},
    storage::{
        rows::{OverlayRow, StateChange, StateChanges, StateRef},
        schema::rooms::{
            BranchKey, CURRENT_STATE, CurrentStateKey, OverlayHashKey, STATE_BRANCHES, STATE_LOG,
            STATE_OVERLAYS, STATE_OVERLAYS_BY_HASH, STATE_VERSIONS, StateLogKey, StateVersionKey,
        },
    },
};

/// How many changes one row of the log holds: 16 bytes each, and a row has at most 100 kB.
const CHANGES_PER_ROW: usize = 5000;
/// Stands in the table of versions for a key that a version removed.
pub(super) const REMOVED: EventNid = EventNid(0);

/// Something to be written of a room's states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateWrite {
    /// The next version of a branch.
    Version {
        /// The branch.
        branch: BranchNid,
        /// The version.
        version: u32,
        /// When it came to be: zero for branches other than the trunk.
        position: Position,
        /// What it changes, sorted by key, each key once; never empty.
        changes: Vec<StateChange>,
    },
    /// A new branch.
    Branch {
        /// Its number.
        branch: BranchNid,
        /// The state it begins with: a version of a branch.
        parent: StateRef,
    },
    /// A new overlay.
    Overlay {
        /// Its number.
        overlay: BranchNid,
        /// The hash of its content.
        hash: u64,
        /// Its content.
        row: OverlayRow,
    },
    /// An entry of the current state.
    Current {
        /// Whether it is a `m.room.member` event (or was, when it is removed).
        is_member: bool,
        /// The key.
        key: StateKeyNid,
        /// The event; `None`: removed.
        event: Option<EventNid>,
    },
}

/// Puts the rows of these writes. Only `rooms::commit` calls this.
pub fn apply(room: RoomNid, writes: &[StateWrite], batch: &mut Batch) {
    for write in writes {
        match write {
            StateWrite::Version { branch, version, position, changes } => {
                put_version(room, StateRef { branch: *branch, version: *version }, changes, batch);
                put_log(
                    StateLogKey { room, branch: *branch, version: *version, part: 0 },
                    *position,
                    changes,
                    batch,
                );
            }
            StateWrite::Branch { branch, parent } => {
                batch.put(&STATE_BRANCHES, &BranchKey { room, branch: *branch }, parent);
            }
            StateWrite::Overlay { overlay, hash, row } => {
                batch.put(&STATE_OVERLAYS, &BranchKey { room, branch: *overlay }, row);
                let key = OverlayHashKey { room, hash: *hash, branch: *overlay };
                batch.put(&STATE_OVERLAYS_BY_HASH, &key, &());
            }
            StateWrite::Current { is_member, key, event } => {
                let key = CurrentStateKey { room, class: u8::from(*is_member), key: *key };
                match event {
                    Some(event) => batch.put(&CURRENT_STATE, &key, event),
                    None => batch.delete(&CURRENT_STATE, &key),
                }
            }
        }
    }
}

fn put_version(room: RoomNid, at: StateRef, changes: &[StateChange], batch: &mut Batch) {
    let inverted_version = u32::MAX - at.version;
    for change in changes {
        let (branch, key) = (at.branch, change.key);
        let key = StateVersionKey { room, branch, key, inverted_version };
        batch.put(&STATE_VERSIONS, &key, &change.new.unwrap_or(REMOVED));
    }
}

fn put_log(mut key: StateLogKey, position: Position, changes: &[StateChange], batch: &mut Batch) {
    for part in changes.chunks(CHANGES_PER_ROW) {
        batch.put(&STATE_LOG, &key, &StateChanges { position, changes: part.to_vec() });
        key.part += 1;
    }
}

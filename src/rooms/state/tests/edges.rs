//! The edges: the empty state, sharing, promotion, depth, several versions in one batch.

use std::ops::Bound;

use kv::{Direction, Position};

use super::{Fixture, ROOM, key, set, state, trunk};
use crate::{
    id::BranchNid,
    rooms::state::{
        OVERLAY_CHANGES_MAX, PendingState, StateWrite, full,
        view::{OVERLAY_BIT, StateView},
    },
    storage::{
        rows::{StateChange, StateRef},
        schema::rooms::{STATE_LOG, STATE_OVERLAYS},
    },
};

fn is_overlay(at: StateRef) -> bool {
    at.branch.0 & OVERLAY_BIT != 0
}

fn depth(fixture: &Fixture, at: StateRef) -> usize {
    StateView::new(&fixture.store.reader(), ROOM).path(at).unwrap().levels.len() - 1
}

#[test]
fn before_everything_there_is_nothing() {
    let fixture = Fixture::new();
    assert_eq!(fixture.lookup(StateRef::EMPTY, 1), None);
    assert_eq!(fixture.full(StateRef::EMPTY), state([]));
    assert_eq!(fixture.diff(StateRef::EMPTY, StateRef::EMPTY), vec![]);
}

#[test]
fn no_change_makes_no_state() {
    let mut fixture = Fixture::new();
    let head = fixture.advance(&set([(1, 1), (2, 2)]));
    assert_eq!(head, StateRef::trunk(1));
    assert_eq!(fixture.advance(&set([(1, 1)])), head);
    assert_eq!(fixture.advance(&set([(9, 0)])), head);
    assert_eq!(fixture.child_writes(head, &set([])), (head, vec![]));
    assert_eq!(fixture.child_writes(head, &set([(2, 2), (9, 0)])), (head, vec![]));
    assert_eq!(fixture.state_version, 1);
}

#[test]
fn a_version_is_written_as_it_should_be() {
    let mut builder = Fixture::new().builder();
    let fixture = Fixture::new();
    let changes = trunk(&set([(2, 5), (1, 4)]));
    builder.advance(&fixture.store.reader(), &changes, Position::pending(3)).unwrap();
    let built = builder.finish();
    let change = |number, event| StateChange {
        key: key(number),
        old: None,
        new: Some(crate::id::EventNid(event)),
    };
    let current = |is_member, number, event| StateWrite::Current {
        is_member,
        key: key(number),
        event: Some(crate::id::EventNid(event)),
    };
    let version = StateWrite::Version {
        branch: BranchNid(0),
        version: 1,
        position: Position::pending(3),
        changes: vec![change(1, 4), change(2, 5)],
    };
    assert_eq!(built.writes, vec![current(true, 1, 4), current(false, 2, 5), version]);
    assert_eq!((built.state_version, built.next_branch), (1, 0));
}

#[test]
fn a_state_that_the_trunk_has_is_that_version() {
    let mut fixture = Fixture::new();
    for event in 1..=5 {
        fixture.advance(&set([(u64::from(event), event)]));
    }
    // The next version, a later one, an earlier one, and one through an overlay.
    assert_eq!(fixture.child(StateRef::trunk(2), &set([(3, 3)])), StateRef::trunk(3));
    assert_eq!(fixture.child(StateRef::trunk(2), &set([(3, 3), (4, 4)])), StateRef::trunk(4));
    assert_eq!(fixture.child(StateRef::trunk(4), &set([(4, 0), (3, 0)])), StateRef::trunk(2));
    let overlay = fixture.child(StateRef::trunk(3), &set([(9, 9)]));
    assert!(is_overlay(overlay));
    assert_eq!(fixture.child(overlay, &set([(9, 0), (4, 4)])), StateRef::trunk(4));
}

#[test]
fn an_overlay_lies_on_the_nearest_version() {
    let mut fixture = Fixture::new();
    for event in 1..=5 {
        fixture.advance(&set([(u64::from(event), event)]));
    }
    let late = fixture.child(StateRef::trunk(5), &set([(9, 9)]));
    assert_eq!(fixture.child(StateRef::trunk(2), &set([(3, 3), (4, 4), (5, 5), (9, 9)])), late);
    let row = StateView::new(&fixture.store.reader(), ROOM).overlay(late.branch).unwrap();
    assert_eq!((row.base, row.changes.len()), (StateRef::trunk(5), 1));
}

#[test]
fn equal_overlays_are_stored_once() {
    let mut fixture = Fixture::new();
    fixture.advance(&set([(1, 1)]));
    let base = StateRef::trunk(1);
    let (first, writes) = fixture.child_writes(base, &set([(1, 2), (2, 3)]));
    assert_eq!(writes.len(), 1);
    assert_eq!(fixture.child_writes(base, &set([(2, 3), (1, 2)])), (first, vec![]));
    // Also on the way over another overlay, which is flattened.
    let half = fixture.child(base, &set([(1, 2)]));
    assert_ne!(half, first);
    assert_eq!(fixture.child_writes(half, &set([(2, 3)])), (first, vec![]));
}

#[test]
fn overlays_whose_hashes_collide_stay_apart() {
    let mut fixture = Fixture::new();
    fixture.advance(&set([(1, 1)]));
    let base = StateRef::trunk(1);
    let mut builder = fixture.builder().with_hash(|_| 1);
    let reader = fixture.store.reader();
    let in_one_batch: Vec<_> =
        (2..5).map(|e| builder.child(&reader, base, &set([(1, e)])).unwrap()).collect();
    drop(reader);
    fixture.commit(&builder.finish());
    let mut builder = fixture.builder().with_hash(|_| 1);
    let reader = fixture.store.reader();
    for event in 2..5 {
        let made = builder.child(&reader, base, &set([(1, event)])).unwrap();
        assert_eq!(made, in_one_batch[event as usize - 2]);
        assert_eq!(fixture.lookup(made, 1), Some(event));
    }
    let other = builder.child(&reader, base, &set([(1, 9)])).unwrap();
    assert!(!in_one_batch.contains(&other));
    assert_eq!(builder.finish().writes.len(), 1);
}

#[test]
fn with_65_changes_an_overlay_becomes_a_branch() {
    let mut fixture = Fixture::new();
    fixture.advance(&set([(1, 1)]));
    let base = StateRef::trunk(1);
    let overlay = fixture.child(base, &set((100..164).map(|k| (k, 2))));
    assert!(is_overlay(overlay));
    let row = StateView::new(&fixture.store.reader(), ROOM).overlay(overlay.branch).unwrap();
    assert_eq!(row.changes.len(), OVERLAY_CHANGES_MAX);
    let branch = fixture.child(overlay, &set([(164, 2)]));
    assert!(!is_overlay(branch));
    assert_eq!((branch.version, depth(&fixture, branch)), (1, 1));
    assert_eq!(fixture.full(branch), state((100..165).map(|k| (k, 2)).chain([(1, 1)])));
    // Its descendants are versions of it, siblings of those are overlays of it.
    let second = fixture.child(branch, &set([(1, 3)]));
    assert_eq!(second, StateRef { branch: branch.branch, version: 2 });
    assert_eq!(fixture.child_writes(branch, &set([(1, 3)])), (second, vec![]));
    let sibling = fixture.child(branch, &set([(1, 4)]));
    assert!(is_overlay(sibling));
    assert_eq!(fixture.lookup(sibling, 1), Some(4));
    assert_eq!(fixture.diff(second, sibling).len(), 1);
    // What takes all of it back is the state it began with.
    let undo = set((100..165).map(|k| (k, 0)));
    assert_eq!(fixture.child(branch, &undo), base);
}

#[test]
fn what_becomes_current_is_found_on_the_trunk_again() {
    let mut fixture = Fixture::new();
    fixture.advance(&set([(1, 1)]));
    // An event of a fork has its state before the trunk takes it over.
    let overlay = fixture.child(StateRef::trunk(1), &set([(2, 2)]));
    let branch = fixture.child(StateRef::trunk(1), &set((100..200).map(|k| (k, 3))));
    assert_eq!(fixture.advance(&set([(2, 2)])), StateRef::trunk(2));
    assert_eq!(fixture.child_writes(overlay, &set([])), (StateRef::trunk(2), vec![]));
    assert_eq!(fixture.child_writes(branch, &set([])), (branch, vec![]));
    for event in 10..40 {
        fixture.advance(&set([(5, event)]));
    }
    fixture.advance(&set((100..200).map(|k| (k, 3)).chain([(2, 0), (5, 0)])));
    let head = StateRef::trunk(fixture.state_version);
    assert_eq!(fixture.child_writes(branch, &set([])), (head, vec![]));
}

#[test]
fn too_deep_a_branch_begins_at_the_head_again() {
    let mut fixture = Fixture::new();
    fixture.advance(&set([(1, 1)]));
    let mut expected = state([(1, 1)]);
    let (mut at, mut tops) = (StateRef::trunk(1), Vec::new());
    for level in 0..7_u32 {
        let first = u64::from(level) * 1000 + 1000;
        let changes = set((first..first + 70).map(|k| (k, level + 10)));
        let base = at;
        at = fixture.child(base, &changes);
        expected = super::changed(&expected, &changes);
        assert_eq!(fixture.full(at), expected);
        assert!(depth(&fixture, at) <= 4);
        // So that the next level does not just extend this one.
        fixture.child(at, &set([(1, 500 + level)]));
        tops.push((at, expected.clone()));
    }
    assert_eq!(
        tops.iter().map(|(at, _)| depth(&fixture, *at)).collect::<Vec<_>>(),
        [1, 2, 3, 4, 1, 2, 3]
    );
    for (from, old) in &tops {
        for (to, new) in &tops {
            assert_eq!(fixture.diff(*from, *to), super::naive_diff(old, new));
        }
    }
}

#[test]
fn several_versions_in_one_batch_see_each_other() {
    let mut fixture = Fixture::new();
    let mut builder = fixture.builder();
    let reader = fixture.store.reader();
    let mut refs = vec![builder.head()];
    for event in 1..=8 {
        let head = builder.head();
        let seen = builder.view(&reader).lookup(head, key(u64::from(event) - 1)).unwrap();
        assert_eq!(seen.map(|event| event.0), (event > 1).then(|| event - 1));
        let change = trunk(&set([(u64::from(event), event)]));
        let position = Position::pending(u16::try_from(event).unwrap());
        refs.push(builder.advance(&reader, &change, position).unwrap());
        assert_eq!(
            builder.child(&reader, head, &set([(u64::from(event), event)])).unwrap(),
            builder.head()
        );
    }
    assert_eq!(refs, (0..=8).map(StateRef::trunk).collect::<Vec<_>>());
    assert_eq!(builder.view(&reader).full(builder.head()).unwrap().len(), 8);
    assert_eq!(builder.view(&reader).diff(refs[2], refs[5]).unwrap().len(), 3);
    drop(reader);
    fixture.commit(&builder.finish());
    assert_eq!(fixture.full(refs[8]), state((1..=8).map(|e| (u64::from(e), e))));
    assert_eq!(fixture.full(refs[3]), state((1..=3).map(|e| (u64::from(e), e))));
}

#[test]
fn a_batch_that_is_submitted_is_seen_by_the_next() {
    let mut fixture = Fixture::new();
    fixture.advance(&set([(1, 1)]));
    let reader = fixture.store.reader();
    let mut first = fixture.builder();
    first.advance(&reader, &trunk(&set([(2, 2)])), Position::pending(0)).unwrap();
    let overlay = first.child(&reader, StateRef::trunk(1), &set([(3, 3)])).unwrap();
    let first = first.finish();
    let mut in_flight = PendingState::new();
    in_flight.absorb(&first.writes);
    let mut second =
        crate::rooms::state::StateBuilder::new(ROOM, first.state_version, first.next_branch)
            .with_pending(in_flight);
    assert_eq!(second.child(&reader, StateRef::trunk(1), &set([(3, 3)])).unwrap(), overlay);
    drop(reader);
    // The first is committed while the second is built.
    fixture.commit(&first);
    let reader = fixture.store.reader();
    let head = second.advance(&reader, &trunk(&set([(4, 4)])), Position::pending(0)).unwrap();
    assert_eq!(head, StateRef::trunk(3));
    let whole = second.view(&reader).full(head).unwrap();
    assert_eq!(whole, state([(1, 1), (2, 2), (4, 4)]));
    assert_eq!(second.view(&reader).diff(overlay, head).unwrap().len(), 3);
    drop(reader);
    fixture.commit(&second.finish());
    assert_eq!(fixture.full(head), whole);
}

#[test]
fn a_version_may_change_more_than_a_row_holds() {
    let mut fixture = Fixture::new();
    let joined = fixture.advance(&set((0..12_000).map(|k| (k, 1))));
    let reset = fixture.advance(&set((0..11_000).map(|k| (k, if k % 3 == 0 { 0 } else { 2 }))));
    let rows = fixture.store.reader().scan(
        &STATE_LOG,
        &STATE_LOG.prefix(&ROOM),
        Direction::Forward,
        usize::MAX,
    );
    assert_eq!(rows.unwrap().len(), 6);
    assert_eq!(fixture.full(joined).len(), 12_000);
    let after = fixture.full(reset);
    assert_eq!(
        after,
        super::changed(
            &fixture.full(joined),
            &set((0..11_000).map(|k| (k, if k % 3 == 0 { 0 } else { 2 })))
        )
    );
    assert_eq!(fixture.diff(joined, reset).len(), 11_000);
    assert_eq!(fixture.diff(reset, joined).len(), 11_000);
    assert_eq!(fixture.lookup(reset, 3), None);
    assert_eq!(fixture.lookup(joined, 3), Some(1));
}

#[test]
fn what_is_missing_is_an_error_and_not_an_empty_state() {
    let mut fixture = Fixture::new();
    fixture.advance(&set([(1, 1)]));
    let reader = fixture.store.reader();
    let unknown = [
        StateRef { branch: BranchNid(5), version: 1 },
        StateRef { branch: BranchNid(OVERLAY_BIT | 5), version: 0 },
    ];
    for at in unknown {
        assert!(matches!(full(&reader, ROOM, at), Err(kv::Error::Corrupt { .. })));
    }
    assert!(matches!(full(&reader, ROOM, StateRef::trunk(9)), Err(kv::Error::Corrupt { .. })));
}

#[test]
fn without_the_beginning_of_the_log_later_states_are_still_whole() {
    let mut fixture = Fixture::new();
    for event in 1..=20 {
        fixture.advance(&set([(u64::from(event), event)]));
    }
    let before = fixture.full(StateRef::trunk(5));
    let mut batch = kv::Batch::new();
    let trunk = (ROOM, BranchNid(0));
    let purged = (ROOM, BranchNid(0), 3_u32);
    let range = STATE_LOG.range(Bound::Included(&trunk), Bound::Included(&purged));
    batch.delete_range(&STATE_LOG, range);
    let commit = fixture.store.commit(batch, kv::Durability::Buffered);
    fixture.runtime.block_on(commit).unwrap();
    assert_eq!(fixture.full(StateRef::trunk(5)), before);
    let reader = fixture.store.reader();
    let gone = crate::rooms::state::diff(&reader, ROOM, StateRef::trunk(2), StateRef::trunk(5));
    assert!(matches!(gone, Err(kv::Error::Corrupt { .. })));
}

#[test]
fn rooms_do_not_mix() {
    let mut fixture = Fixture::new();
    fixture.advance(&set([(1, 1)]));
    fixture.child(StateRef::trunk(1), &set([(2, 2)]));
    let reader = fixture.store.reader();
    let neighbor = StateView::new(&reader, crate::id::RoomNid(ROOM.0 + 1));
    assert_eq!(neighbor.lookup(StateRef::trunk(1), key(1)).unwrap(), None);
    let overlays = STATE_OVERLAYS.prefix(&crate::id::RoomNid(ROOM.0 + 1));
    let rows = reader.scan(&STATE_OVERLAYS, &overlays, Direction::Forward, 9).unwrap();
    assert!(rows.is_empty());
}

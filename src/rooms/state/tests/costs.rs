//! What reads cost, counted by the store.

use kv::{Counters, Position};

use super::{Fixture, key, set, trunk};
use crate::{rooms::state::lookup_many, storage::rows::StateRef};

/// Gets and seeks of what `read` does.
fn cost<T>(fixture: &Fixture, read: impl FnOnce(&Fixture) -> T) -> (u64, u64) {
    let before: Counters = fixture.store.counters();
    read(fixture);
    let after = fixture.store.counters();
    (after.gets - before.gets, after.seeks - before.seeks)
}

/// A trunk of 40 versions.
fn long_trunk() -> Fixture {
    let mut fixture = Fixture::new();
    for version in 1..=40 {
        fixture.advance(&set([(u64::from(version % 7), version)]));
    }
    fixture
}

#[test]
fn a_lookup_on_the_trunk_is_one_seek() {
    let fixture = long_trunk();
    assert_eq!(cost(&fixture, |f| f.lookup(StateRef::trunk(40), 3)), (0, 1));
    assert_eq!(cost(&fixture, |f| f.lookup(StateRef::trunk(20), 3)), (0, 1));
    assert_eq!(cost(&fixture, |f| f.lookup(StateRef::trunk(20), 999)), (0, 1));
    assert_eq!(cost(&fixture, |f| f.lookup(StateRef::EMPTY, 3)), (0, 0));
}

#[test]
fn a_lookup_on_an_overlay_is_a_get_and_at_most_a_seek() {
    let mut fixture = long_trunk();
    let overlay = fixture.child(StateRef::trunk(40), &set([(3, 100)]));
    assert_eq!(cost(&fixture, |f| f.lookup(overlay, 3)), (1, 0));
    assert_eq!(cost(&fixture, |f| f.lookup(overlay, 4)), (1, 1));
    let keys: Vec<_> = (0..7).map(key).collect();
    let many = |f: &Fixture| lookup_many(&f.store.reader(), super::ROOM, overlay, &keys).unwrap();
    assert_eq!(cost(&fixture, many), (1, 6));
}

#[test]
fn a_lookup_on_a_branch_is_a_seek_per_level() {
    let mut fixture = long_trunk();
    let branch = fixture.child(StateRef::trunk(40), &set((100..200).map(|k| (k, 7))));
    assert_eq!(cost(&fixture, |f| f.lookup(branch, 150)), (0, 1));
    assert_eq!(cost(&fixture, |f| f.lookup(branch, 3)), (1, 2));
}

#[test]
fn a_difference_costs_what_changed() {
    let mut fixture = long_trunk();
    let adjacent = |f: &Fixture| f.diff(StateRef::trunk(39), StateRef::trunk(40));
    assert_eq!(cost(&fixture, adjacent), (0, 1));
    let back = |f: &Fixture| f.diff(StateRef::trunk(30), StateRef::trunk(20));
    assert_eq!(cost(&fixture, back), (0, 1));
    assert_eq!(cost(&fixture, |f| f.diff(StateRef::trunk(9), StateRef::trunk(9))), (0, 0));
    let before = fixture.store.counters().rows_scanned;
    fixture.diff(StateRef::trunk(39), StateRef::trunk(40));
    assert_eq!(fixture.store.counters().rows_scanned - before, 1);
    let one = fixture.child(StateRef::trunk(40), &set([(3, 100)]));
    let other = fixture.child(StateRef::trunk(40), &set([(4, 101)]));
    assert_eq!(cost(&fixture, |f| f.diff(one, other)), (2, 0));
    assert_eq!(cost(&fixture, |f| f.diff(one, StateRef::trunk(39))), (1, 1));
}

#[test]
fn a_whole_current_state_is_one_scan() {
    let fixture = long_trunk();
    assert_eq!(cost(&fixture, |f| f.full(StateRef::trunk(40))), (1, 1));
    // Near the head: undone; near the beginning: done again.
    assert_eq!(cost(&fixture, |f| f.full(StateRef::trunk(38))), (1, 2));
    assert_eq!(cost(&fixture, |f| f.full(StateRef::trunk(2))), (1, 1));
}

#[test]
fn to_advance_by_an_event_is_one_seek_and_none_in_a_new_room() {
    let fixture = long_trunk();
    let advance = |f: &Fixture| {
        let change = trunk(&set([(3, 100)]));
        f.builder().advance(&f.store.reader(), &change, Position::pending(0)).unwrap()
    };
    assert_eq!(cost(&fixture, advance), (0, 1));
    let create = |f: &Fixture| {
        let (mut builder, reader) = (f.builder(), f.store.reader());
        for event in 1..=8 {
            builder.view(&reader).lookup(builder.head(), key(1)).unwrap();
            let change = trunk(&set([(u64::from(event), event)]));
            builder.advance(&reader, &change, Position::pending(0)).unwrap();
        }
    };
    assert_eq!(cost(&Fixture::new(), create), (0, 0));
}

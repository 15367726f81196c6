//! The room table against what was committed.

use kv::Topic;

use super::*;
use crate::{id::EventNid, storage::topic};

const ALICE: UserNid = UserNid(1);
const BOB: UserNid = UserNid(2);
const ROOM: RoomNid = RoomNid(10);
const OTHER: RoomNid = RoomNid(11);

fn at(position: u64) -> Position {
    Position::from_u64(position)
}

fn commit(position: u64, topics: &[Topic]) -> Commit {
    Commit { first: at(position), last: at(position), topics: topics.into() }
}

fn loaded(position: u64, rooms: &[(RoomNid, Membership)]) -> Loaded {
    let row = |membership| MembershipRow {
        membership,
        event: EventNid(1),
        position: at(1),
        was_joined: true,
        forgotten: false,
        by_other: false,
    };
    let positions =
        RoomPositions { events: at(3), receipts: at(2), bumped: at(1), ..RoomPositions::default() };
    Loaded {
        at: at(position),
        memberships: rooms.iter().map(|&(room, membership)| (room, row(membership))).collect(),
        rooms: rooms.iter().map(|&(room, _)| (room, positions)).collect(),
    }
}

fn table() -> RoomTable {
    let mut table = RoomTable::new(at(5), 100);
    assert!(table.look(ALICE, None).is_none(), "it must be loaded first");
    table.install(ALICE, loaded(5, &[(ROOM, Membership::Join), (OTHER, Membership::Leave)]));
    table
}

fn news(table: &mut RoomTable, user: UserNid, since: u64) -> Option<Vec<RoomNid>> {
    match table.look(user, Some(at(since))).unwrap() {
        Look::Nothing(_) => None,
        Look::News(news) => Some(news.rooms.into_iter().map(|room| room.0).collect()),
    }
}

#[test]
fn nothing_is_new_until_a_room_changes() {
    let mut table = table();
    assert_eq!(news(&mut table, ALICE, 5), None);
    assert_eq!(news(&mut table, ALICE, 2), Some(vec![ROOM]));
    table.apply(&commit(6, &[topic::room(topic::ROOM_EVENTS, OTHER)]));
    assert_eq!(news(&mut table, ALICE, 5), None, "a room that was left");
    table.apply(&commit(7, &[topic::room(topic::ROOM_EVENTS, ROOM)]));
    assert_eq!(news(&mut table, ALICE, 6), Some(vec![ROOM]));
    assert_eq!(news(&mut table, ALICE, 7), None);
}

#[test]
fn those_who_wait_are_woken_and_others_not() {
    let mut table = table();
    table.look(BOB, None);
    table.install(BOB, loaded(5, &[(OTHER, Membership::Join)]));
    let mut alice = table.changes(ALICE);
    let mut bob = table.changes(BOB);
    alice.borrow_and_update();
    bob.borrow_and_update();
    table.apply(&commit(6, &[topic::room(topic::ROOM_TYPING, ROOM)]));
    assert!(alice.has_changed().unwrap());
    assert!(!bob.has_changed().unwrap());
    table.apply(&commit(7, &[topic::user(topic::USER_SESSIONS, BOB)]));
    assert!(bob.has_changed().unwrap());
    assert_eq!(table.sessions_changed(BOB), at(7));
}

#[test]
fn a_membership_that_changed_is_loaded_again() {
    let mut table = table();
    table.apply(&commit(6, &[topic::user(topic::USER_MEMBERSHIPS, ALICE)]));
    assert!(table.look(ALICE, Some(at(5))).is_none());
    // Loaded before the change was visible: still not enough.
    table.install(ALICE, loaded(5, &[(ROOM, Membership::Join)]));
    assert!(table.look(ALICE, Some(at(5))).is_none());
    table.install(ALICE, loaded(6, &[(ROOM, Membership::Leave)]));
    table.apply(&commit(7, &[topic::room(topic::ROOM_EVENTS, ROOM)]));
    let Some(Look::News(news)) = table.look(ALICE, Some(at(5))) else { panic!() };
    assert_eq!(news.memberships[0].1.membership, Membership::Leave);
    assert_eq!(news.rooms, []);
    assert!(matches!(table.look(ALICE, Some(at(6))), Some(Look::Nothing(_))));
}

#[test]
fn what_happened_while_a_room_was_joined_is_not_missed() {
    let mut table = table();
    // The join commits at 6, an event at 7 comes before the load is installed.
    table.apply(&commit(6, &[topic::user(topic::USER_MEMBERSHIPS, ALICE)]));
    table.apply(&commit(7, &[topic::room(topic::ROOM_EVENTS, OTHER)]));
    table.install(ALICE, loaded(6, &[(ROOM, Membership::Join), (OTHER, Membership::Join)]));
    assert_eq!(news(&mut table, ALICE, 6), Some(vec![OTHER]));
}

#[test]
fn users_who_do_not_sync_are_forgotten() {
    let mut table = RoomTable::new(at(5), 2);
    for user in 0..10 {
        table.look(UserNid(user), None);
        table.install(UserNid(user), loaded(5, &[(ROOM, Membership::Join)]));
    }
    assert!(table.users_by_nid.len() <= 4);
    assert_eq!(table.rooms[0].watchers.len(), table.users_by_nid.len());
}

#[test]
fn a_bump_is_known_also_when_it_comes_before_the_room() {
    let bumped = |table: &mut RoomTable| match table.look(ALICE, None).unwrap() {
        Look::News(news) => news.rooms[0].1.bumped,
        Look::Nothing(_) => panic!("everything was asked for"),
    };
    let mut table = table();
    assert_eq!(bumped(&mut table), at(1), "as it was loaded");
    table.apply(&commit(6, &[topic::room(topic::ROOM_EVENTS, ROOM)]));
    assert_eq!(bumped(&mut table), at(1));
    table.apply(&commit(7, &[topic::room(topic::ROOM_BUMP, ROOM)]));
    assert_eq!(bumped(&mut table), at(7));
    let mut late = RoomTable::new(at(5), 100);
    assert!(late.look(ALICE, None).is_none());
    late.apply(&commit(8, &[topic::room(topic::ROOM_BUMP, ROOM)]));
    late.apply(&commit(9, &[topic::room(topic::ROOM_EVENTS, ROOM)]));
    late.install(ALICE, loaded(5, &[(ROOM, Membership::Join)]));
    assert_eq!(bumped(&mut late), at(8), "noted before the room had a slot");
}

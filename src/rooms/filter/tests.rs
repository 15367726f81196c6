//! Filters against timeline entries and events.

use ruma::user_id;
use serde_json::json;

use super::*;
use crate::{id::EventNid, storage::rows::EventFlags};

const INTERNER: Interner = Interner::new([7; 16]);

fn compile(filter: serde_json::Value) -> Filter {
    try_compile(filter).unwrap()
}

fn try_compile(filter: serde_json::Value) -> Result<Filter, ApiError> {
    Filter::compile(&serde_json::from_value(filter).unwrap(), &INTERNER)
}

#[test]
fn lists_have_a_length() {
    let list = |count: usize, form: fn(usize) -> String| (0..count).map(form).collect::<Vec<_>>();
    let patterns = |count| list(count, |number| format!("m.{number}.*"));
    let names = |count| list(count, |number| format!("m.{number}"));
    let users = |count| list(count, |number| format!("@{number}:hs1"));
    let rooms = |count| list(count, |number| format!("!{number}:hs1"));
    for (list, most, over) in [
        ("types", patterns(50), patterns(51)),
        ("not_types", patterns(50), patterns(51)),
        ("types", names(1_000), names(1_001)),
        ("senders", users(1_000), users(1_001)),
        ("not_senders", users(1_000), users(1_001)),
        ("rooms", rooms(1_000), rooms(1_001)),
        ("not_rooms", rooms(1_000), rooms(1_001)),
    ] {
        assert!(try_compile(json!({ list: most })).is_ok(), "{list}");
        assert!(try_compile(json!({ list: over })).is_err(), "{list}");
    }
}

fn entry(event_type: &str, sender: &UserId) -> TimelineEntry {
    TimelineEntry {
        event: EventNid(1),
        event_type: INTERNER.event_type(event_type),
        sender: INTERNER.user(sender),
        flags: EventFlags::default(),
        state_version: 1,
    }
}

#[test]
fn patterns_match_any_sequence() {
    for (pattern, name, fits) in [
        ("*", "", true),
        ("*", "m.room.message", true),
        ("m.room.*", "m.room.message", true),
        ("m.room.*", "m.room.", true),
        ("m.room.*", "m.rooms", false),
        ("*.message", "m.room.message", true),
        ("*.message", "m.room.messages", false),
        ("m.*.message", "m.room.message", true),
        ("m*m*m", "m.room.m", true),
        ("m.room.message", "m.room.message", true),
        ("a**b", "ab", true),
        ("a*b*c", "abcbc", true),
        ("a*b*c", "abcb", false),
    ] {
        assert_eq!(matches_pattern(pattern, name), fits, "{pattern} on {name}");
    }
}

#[test]
fn a_pattern_of_many_stars_ends() {
    let pattern = format!("{}b", "a*".repeat(10_000));
    assert!(!matches_pattern(&pattern, &"a".repeat(255)));
}

#[test]
fn entries_are_decided_by_numbers_where_possible() {
    let (alice, bob) = (user_id!("@alice:hs1"), user_id!("@bob:hs1"));
    let message = entry("m.room.message", alice);
    for (filter, decision) in [
        (json!({}), Some(true)),
        (json!({ "types": [] }), Some(false)),
        (json!({ "types": ["m.room.message"] }), Some(true)),
        (json!({ "types": ["m.room.name"] }), Some(false)),
        (json!({ "types": ["m.*"] }), None),
        (json!({ "types": ["m.*", "m.room.message"] }), Some(true)),
        (json!({ "not_types": ["m.room.message"] }), Some(false)),
        (json!({ "not_types": ["m.room.name"] }), Some(true)),
        (json!({ "not_types": ["m.*"] }), None),
        (json!({ "types": ["m.room.message"], "not_types": ["m.room.message"] }), Some(false)),
        (json!({ "senders": [alice] }), Some(true)),
        (json!({ "senders": [bob] }), Some(false)),
        (json!({ "senders": [] }), Some(false)),
        (json!({ "not_senders": [alice] }), Some(false)),
        (json!({ "senders": [alice], "not_senders": [alice] }), Some(false)),
        (json!({ "contains_url": true }), None),
        (json!({ "contains_url": true, "types": ["m.room.name"] }), Some(false)),
    ] {
        assert_eq!(compile(filter.clone()).admits_entry(&message), decision, "{filter}");
    }
}

#[test]
fn types_are_decided_by_name() {
    for (filter, admitted) in [
        (json!({}), true),
        (json!({ "types": ["m.*"] }), true),
        (json!({ "types": ["org.*"] }), false),
        (json!({ "types": ["*"], "not_types": ["m.room.*"] }), false),
    ] {
        let admits = compile(filter.clone()).admits_type("m.room.message", &INTERNER);
        assert_eq!(admits, admitted, "{filter}");
    }
}

#[test]
fn a_url_is_a_key_at_the_top_of_the_content() {
    assert!(has_url(r#"{"url":"mxc://a/b"}"#));
    assert!(has_url(r#"{"url":5}"#));
    assert!(!has_url(r#"{"file":{"url":"mxc://a/b"}}"#));
    assert!(!has_url("{}"));
}

#[test]
fn rooms_are_admitted() {
    let room = ruma::room_id!("!a:hs1");
    for (filter, admitted) in [
        (json!({}), true),
        (json!({ "rooms": [] }), false),
        (json!({ "rooms": [room] }), true),
        (json!({ "not_rooms": [room] }), false),
        (json!({ "rooms": [room], "not_rooms": [room] }), false),
    ] {
        assert_eq!(compile(filter.clone()).admits_room(room), admitted, "{filter}");
    }
}

//! T56: who may see what, over every route that shows events or state.
//!
//! The table is made from the specification's five rules and asked of every route, for each reader
//! and each time in the room's life.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility>

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::{Client, TestServer, encode, texts};

/// What is sent, one in each time of the room.
const TIMES: [&str; 4] = ["before invite", "between", "after join", "after leave"];

/// Who reads; all but the last two are invited and join.
const READERS: [&str; 6] = ["joined", "left", "kicked", "banned", "invited", "never"];

/// What the reader is when a time's event is sent.
fn membership(reader: &str, time: usize) -> &'static str {
    match (reader, time) {
        ("never", _) | (_, 0) => "none",
        ("invited", _) | (_, 1) => "invite",
        ("joined", _) | (_, 2) => "join",
        _ => "leave",
    }
}

/// The rules of the specification.
fn may_see(visibility: &str, reader: &str, time: usize) -> bool {
    let membership = membership(reader, time);
    let joins_later = time < 2 && !matches!(reader, "invited" | "never");
    visibility == "world_readable"
        || membership == "join"
        || (visibility == "shared" && joins_later)
        || (visibility == "invited" && membership == "invite")
}

/// The texts that the reader may see.
fn expected(visibility: &str, reader: &str) -> BTreeSet<String> {
    let times = (0..TIMES.len()).filter(|time| may_see(visibility, reader, *time));
    times.map(|time| TIMES[time].to_owned()).collect()
}

/// Lets the reader's client learn what is new.
async fn follow(reader: &Client<'_>, room: &str, since: &mut String) -> Vec<String> {
    let filter = encode(r#"{"room":{"timeline":{"limit":100},"include_leave":true}}"#);
    let told = reader.sync_with(Some(since), &format!("filter={filter}")).await;
    told["next_batch"].as_str().unwrap().clone_into(since);
    let rooms = &told["rooms"];
    ["join", "leave"]
        .iter()
        .flat_map(|kind| texts(&rooms[kind][room]["timeline"]["events"]))
        .collect()
}

struct Follower<'a> {
    kind: &'static str,
    client: Client<'a>,
    since: String,
    seen: Vec<String>,
}

/// A room that all of its life has happened to.
struct Life {
    room: String,
    events: Vec<String>,
}

async fn live(alice: &Client<'_>, visibility: &str, readers: &mut [Follower<'_>]) -> Life {
    let content = json!({ "history_visibility": visibility });
    let state = json!([
        { "type": "m.room.history_visibility", "content": content },
        { "type": "m.room.topic", "content": { "topic": "new" } },
    ]);
    let room = alice.create_room(json!({ "initial_state": state })).await;
    let mut events = Vec::new();
    for (time, text) in TIMES.iter().enumerate() {
        for reader in readers.iter() {
            let client = &reader.client;
            match (time, reader.kind) {
                (1, kind) if kind != "never" => alice.invite(&room, client).await,
                (2, kind) if !matches!(kind, "never" | "invited") => client.join(&room).await,
                (3, "left") => client.leave(&room).await,
                (3, "kicked") => drop(alice.act_on(&room, "kick", client).await.ok()),
                (3, "banned") => drop(alice.act_on(&room, "ban", client).await.ok()),
                _ => {}
            }
        }
        alice.set(&room, "m.room.topic", json!({ "topic": text })).await;
        events.push(alice.send(&room, text).await);
        for reader in readers.iter_mut() {
            reader.seen.extend(follow(&reader.client, &room, &mut reader.since).await);
        }
    }
    Life { room, events }
}

async fn check_events(reader: &Follower<'_>, life: &Life, allowed: &BTreeSet<String>, case: &str) {
    let Follower { client, .. } = reader;
    for (time, event) in life.events.iter().enumerate() {
        let status = if allowed.contains(TIMES[time]) { 200 } else { 404 };
        let case = format!("{case}, {}", TIMES[time]);
        let answer = client.event(&life.room, event).await;
        assert_eq!(answer.status, status, "event, {case}");
        let answer = client.context(&life.room, event).await;
        assert_eq!(answer.status, status, "context, {case}");
        for side in ["events_before", "events_after"] {
            let texts = texts(&answer.body[side]);
            assert!(texts.iter().all(|text| allowed.contains(text)), "{side}, {case}: {texts:?}");
        }
    }
}

/// Whether the reader may read the room as such, not only single events of it.
fn may_enter(visibility: &str, kind: &str) -> bool {
    visibility == "world_readable" || !matches!(kind, "invited" | "never")
}

async fn check_pages(reader: &Follower<'_>, life: &Life, allowed: &BTreeSet<String>, case: &str) {
    let visibility = case.split(',').next().unwrap();
    for direction in ["b", "f"] {
        let answer =
            reader.client.messages(&life.room, &format!("dir={direction}&limit=100")).await;
        if may_enter(visibility, reader.kind) {
            let seen: BTreeSet<_> = texts(&answer.ok()["chunk"]).into_iter().collect();
            assert_eq!(seen, *allowed, "messages {direction}, {case}");
        } else {
            assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"), "messages {direction}, {case}");
        }
    }
}

async fn check_state(reader: &Follower<'_>, life: &Life, case: &str) {
    let visibility = case.split(',').next().unwrap();
    let (client, room) = (&reader.client, &life.room);
    let topic = match reader.kind {
        "joined" | "invited" | "never" => TIMES[3],
        _ => TIMES[2],
    };
    let list = client.get(&format!("v3/rooms/{room}/state")).await;
    let one = client.state(room, "m.room.topic").await;
    let members = client.get(&format!("v3/rooms/{room}/members")).await;
    let joined = client.get(&format!("v3/rooms/{room}/joined_members")).await;
    let status = if reader.kind == "joined" { 200 } else { 403 };
    assert_eq!(joined.status, status, "joined_members, {case}");
    if !may_enter(visibility, reader.kind) {
        for answer in [list, one, members] {
            assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"), "state, {case}");
        }
        return;
    }
    assert_eq!(one.ok(), json!({ "topic": topic }), "state/m.room.topic, {case}");
    let list = list.ok();
    let find = |list: &Value, kind: &str, key: &str| {
        let mut events = list.as_array().unwrap().iter();
        events.find(|event| event["type"] == kind && event["state_key"] == key).cloned()
    };
    let told = find(&list, "m.room.topic", "").unwrap();
    assert_eq!(told["content"]["topic"], json!(topic), "state, {case}");
    let members = members.ok();
    let own = find(&members["chunk"], "m.room.member", client.id());
    let own = own.map(|event| event["content"]["membership"].as_str().unwrap().to_owned());
    let is = match reader.kind {
        "joined" => Some("join"),
        "left" | "kicked" => Some("leave"),
        "banned" => Some("ban"),
        "invited" => Some("invite"),
        _ => None,
    };
    assert_eq!(own.as_deref(), is, "members, {case}");
}

async fn check_sync(reader: &Follower<'_>, life: &Life, allowed: &BTreeSet<String>, case: &str) {
    let once: BTreeSet<_> = reader.seen.iter().cloned().collect();
    assert_eq!(once.len(), reader.seen.len(), "told twice, {case}: {:?}", reader.seen);
    // Only members are told; whoever left, up to the leave.
    let told = match reader.kind {
        "joined" => allowed.clone(),
        "invited" | "never" => BTreeSet::new(),
        _ => allowed.iter().filter(|text| *text != TIMES[3]).cloned().collect(),
    };
    assert_eq!(once, told, "incremental sync, {case}");
    let filter = encode(r#"{"room":{"timeline":{"limit":100},"include_leave":true}}"#);
    let all = reader.client.sync_with(None, &format!("filter={filter}")).await;
    let rooms = &all["rooms"];
    let kind = if reader.kind == "joined" { "join" } else { "leave" };
    let first: BTreeSet<_> =
        texts(&rooms[kind][&life.room]["timeline"]["events"]).into_iter().collect();
    assert_eq!(first, told, "initial sync, {case}");
    let hidden = TIMES.iter().filter(|text| !told.contains(**text) && **text != TIMES[2]);
    for text in hidden {
        // The state of the room holds the last topic that the reader may know.
        let body = format!("\"body\":\"{text}\"");
        assert!(!all.to_string().contains(&body), "{text}, {case}");
    }
}

#[tokio::test]
async fn t56_every_route_keeps_to_the_table() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    for visibility in ["world_readable", "shared", "invited", "joined"] {
        let mut readers = Vec::new();
        for kind in READERS {
            let name = format!("{kind}-{visibility}");
            let client = server.client(&name).await;
            let since = client.now().await;
            readers.push(Follower { kind, client, since, seen: Vec::new() });
        }
        let life = live(&alice, visibility, &mut readers).await;
        for reader in &readers {
            let case = format!("{visibility}, {}", reader.kind);
            let allowed = expected(visibility, reader.kind);
            check_events(reader, &life, &allowed, &case).await;
            check_pages(reader, &life, &allowed, &case).await;
            check_state(reader, &life, &case).await;
            check_sync(reader, &life, &allowed, &case).await;
        }
    }
}

#[tokio::test]
async fn t56_a_change_of_visibility_counts_from_then_on() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    let set = async |name: &str| {
        alice.set(&room, "m.room.history_visibility", json!({ "history_visibility": name })).await
    };
    let mut seen = Vec::new();
    for name in ["joined", "world_readable", "invited", "shared"] {
        set(name).await;
        seen.push(alice.send(&room, name).await);
    }
    let statuses = async || {
        let mut statuses = Vec::new();
        for event in &seen {
            statuses.push(bob.event(&room, event).await.status.as_u16());
        }
        statuses
    };
    assert_eq!(statuses().await, [404, 200, 404, 404]);
    bob.join(&room).await;
    assert_eq!(statuses().await, [404, 200, 404, 200]);
}

#[tokio::test]
async fn t62_what_is_not_seen_is_not_marked() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let (bob, carol) = (server.client("bob").await, server.client("carol").await);
    let visibility = json!({ "history_visibility": "joined" });
    let state = json!([{ "type": "m.room.history_visibility", "content": visibility }]);
    let wanted = json!({ "preset": "public_chat", "initial_state": state });
    let room = alice.create_room(wanted).await;
    let hidden = alice.send(&room, "hidden").await;
    bob.join(&room).await;
    let other = alice.public_room().await;
    let foreign = alice.send(&other, "foreign").await;
    let known = alice.send(&room, "known").await;
    let since = alice.now().await;
    for (user, event, outcome) in [
        (&carol, &known, (403, "M_FORBIDDEN")),
        (&bob, &hidden, (404, "M_NOT_FOUND")),
        (&bob, &foreign, (404, "M_NOT_FOUND")),
        (&bob, &"$none".to_owned(), (404, "M_NOT_FOUND")),
    ] {
        for kind in ["m.read", "m.read.private", "m.fully_read"] {
            let path = format!("v3/rooms/{room}/receipt/{kind}/{event}");
            let answer = user.post(&path, json!({})).await;
            assert_eq!(answer.outcome(), outcome, "{kind}");
        }
        let body = json!({ "m.fully_read": event, "m.read": event });
        let answer = user.post(&format!("v3/rooms/{room}/read_markers"), body).await;
        assert_eq!(answer.outcome(), outcome);
    }
    assert!(alice.sync(Some(&since)).await.get("rooms").is_none());
    let typing = format!("v3/rooms/{room}/typing/{}", carol.id());
    let answer = carol.put(&typing, json!({ "typing": true, "timeout": 1000 })).await;
    assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"));
    let answer = bob.put(&typing, json!({ "typing": true, "timeout": 1000 })).await;
    assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"));
}

//! Simplified sliding sync (MSC4186) over HTTP: lists, windows, rooms and connections.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Answer, Client, TestServer, ids, text, texts};

pub(crate) const PATH: &str = "unstable/org.matrix.simplified_msc3575/sync";

/// What Element X asks of each room.
pub(crate) fn element_state() -> Value {
    json!([
        ["m.room.name", ""],
        ["m.room.encryption", ""],
        ["m.room.member", "$LAZY"],
        ["m.room.member", "$ME"],
        ["m.room.topic", ""],
        ["m.room.avatar", ""],
        ["m.room.canonical_alias", ""],
        ["m.room.power_levels", ""],
        ["org.matrix.msc3401.call.member", "*"],
        ["m.room.join_rules", ""],
        ["m.room.tombstone", ""],
        ["m.room.create", ""],
        ["m.room.history_visibility", ""],
        ["io.element.functional_members", ""],
        ["m.space.parent", "*"],
        ["m.space.child", "*"],
        ["org.matrix.msc3672.beacon_info", "*"]
    ])
}

/// The list of all rooms, as Element X asks for it.
pub(crate) fn all_rooms(last: u64) -> Value {
    json!({
        "conn_id": "room-list",
        "lists": { "all_rooms": {
            "ranges": [[0, last]], "required_state": element_state(), "timeline_limit": 1,
            "filters": {},
        } },
    })
}

/// A list with this state and limit.
#[expect(clippy::needless_pass_by_value, reason = "bodies are written in place")]
fn list(required: Value, limit: u64) -> Value {
    let list = json!({ "ranges": [[0, 99]], "required_state": required, "timeline_limit": limit });
    json!({ "lists": { "a": list } })
}

pub(crate) async fn try_slide(
    client: &Client<'_>,
    (pos, timeout): (Option<&str>, u64),
    body: &Value,
) -> Answer {
    let pos = pos.map(|pos| format!("&pos={pos}")).unwrap_or_default();
    client.post(&format!("{PATH}?timeout={timeout}{pos}"), body.clone()).await
}

pub(crate) async fn slide(client: &Client<'_>, pos: Option<&str>, body: &Value) -> Value {
    try_slide(client, (pos, 0), body).await.ok()
}

async fn wait(client: &Client<'_>, pos: &str, body: &Value) -> Value {
    try_slide(client, (Some(pos), 30_000), body).await.ok()
}

pub(crate) fn pos(answer: &Value) -> String {
    text(&answer["pos"])
}

/// The types of the state that is told, sorted, with their keys.
fn state(room: &Value) -> Vec<String> {
    let events = room["required_state"].as_array().into_iter().flatten();
    let mut names: Vec<String> = events
        .map(|event| {
            let key = text(&event["state_key"]);
            format!("{} {key}", text(&event["type"])).trim().to_owned()
        })
        .collect();
    names.sort_unstable();
    names
}

fn room_ids(answer: &Value) -> Vec<String> {
    answer["rooms"].as_object().unwrap().keys().cloned().collect()
}

async fn soon<T>(then: impl Future<Output = T>) -> T {
    tokio::time::sleep(Duration::from_millis(50)).await;
    then.await
}

#[tokio::test]
async fn the_flag_is_set() {
    let server = TestServer::new().await;
    let versions = server.get("versions").send().await.ok();
    assert_eq!(versions["unstable_features"]["org.matrix.simplified_msc3575"], json!(true));
    let answer = server.post(PATH, json!({})).send().await;
    assert_eq!(answer.outcome(), (401, "M_MISSING_TOKEN"));
}

#[tokio::test]
async fn the_first_window_has_all_a_room_list_needs() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat", "name": "Hall" })).await;
    alice.set(&room, "m.room.avatar", json!({ "url": "mxc://example.org/a" })).await;
    bob.join(&room).await;
    alice.send(&room, "one").await;
    let newest = alice.send(&room, "two").await;
    let answer = try_slide(&bob, (None, 30_000), &all_rooms(19)).await.ok();
    assert_eq!(answer["lists"], json!({ "all_rooms": { "count": 1 } }));
    let told = &answer["rooms"][&room];
    assert_eq!(told["initial"], json!(true));
    assert_eq!((&told["name"], &told["avatar"]), (&json!("Hall"), &json!("mxc://example.org/a")));
    assert_eq!((&told["joined_count"], &told["invited_count"]), (&json!(2), &json!(0)));
    assert_eq!((&told["limited"], &told["num_live"]), (&json!(true), &json!(0)));
    assert_eq!(ids(&told["timeline"]), [newest]);
    assert_eq!(told["notification_count"], json!(2));
    assert_eq!(told["highlight_count"], json!(0));
    assert!(told["bump_stamp"].as_u64().unwrap() > 0);
    assert!(told.get("is_dm").is_none() && told.get("invite_state").is_none());
    let state = state(told);
    for name in ["m.room.member @alice:example.org", "m.room.member @bob:example.org"] {
        assert!(state.iter().any(|found| found == name), "{name}: {state:?}");
    }
    for name in ["m.room.create", "m.room.name", "m.room.power_levels", "m.room.join_rules"] {
        assert!(state.iter().any(|found| found == name), "{name}: {state:?}");
    }
    assert!(!state.iter().any(|found| found.starts_with("m.room.guest_access")));
    let before = bob.messages(&room, &format!("dir=b&from={}", text(&told["prev_batch"]))).await;
    assert_eq!(texts(&before.ok()["chunk"]), ["one"]);
    let now = bob.messages(&room, &format!("dir=b&limit=1&from={}", pos(&answer))).await.ok();
    assert_eq!(texts(&now["chunk"]), ["two"], "a pos is a token of /messages too");
}

#[tokio::test]
async fn a_window_grows_and_tells_each_room_once() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let mut rooms = Vec::new();
    for _ in 0..6 {
        rooms.push(alice.public_room().await);
    }
    // News bring a room to the front; a topic is none.
    alice.send(&rooms[0], "news").await;
    alice.set(&rooms[1], "m.room.topic", json!({ "topic": "no news" })).await;
    let first = slide(&alice, None, &all_rooms(1)).await;
    assert_eq!(first["lists"]["all_rooms"]["count"], json!(6));
    let mut expected = vec![rooms[0].clone(), rooms[5].clone()];
    expected.sort_unstable();
    assert_eq!(room_ids(&first), expected);
    let stamp = |room: &str| first["rooms"][room]["bump_stamp"].as_u64().unwrap();
    assert!(stamp(&rooms[0]) > stamp(&rooms[5]));
    let second = slide(&alice, Some(&pos(&first)), &all_rooms(3)).await;
    let mut expected = vec![rooms[4].clone(), rooms[3].clone()];
    expected.sort_unstable();
    assert_eq!(room_ids(&second), expected);
    let third = slide(&alice, Some(&pos(&second)), &all_rooms(99)).await;
    let mut expected = vec![rooms[1].clone(), rooms[2].clone()];
    expected.sort_unstable();
    assert_eq!(room_ids(&third), expected);
    let fourth = slide(&alice, Some(&pos(&third)), &all_rooms(99)).await;
    assert_eq!(fourth["rooms"], json!({}));
    assert_eq!(fourth["lists"]["all_rooms"]["count"], json!(6));
}

#[tokio::test]
async fn what_is_new_wakes_a_poll_and_only_that_is_told() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat", "name": "Hall" })).await;
    bob.join(&room).await;
    let first = slide(&bob, None, &all_rooms(19)).await;
    let (rooms, old) = (all_rooms(19), pos(&first));
    let poll = wait(&bob, &old, &rooms);
    let (told, event) = tokio::join!(poll, soon(alice.send(&room, "wake up")));
    let news = &told["rooms"][&room];
    assert_eq!(ids(&news["timeline"]), [event]);
    assert_eq!((&news["num_live"], news.get("limited")), (&json!(1), None));
    for absent in ["name", "avatar", "initial", "joined_count", "heroes", "is_dm"] {
        assert!(news.get(absent).is_none(), "{absent}: {news}");
    }
    assert_eq!(state(news), ["m.room.member @alice:example.org"], "the sender was not known yet");
    alice.send(&room, "again").await;
    let told = slide(&bob, Some(&pos(&told)), &rooms).await;
    assert_eq!(state(&told["rooms"][&room]), [] as [&str; 0], "now alice is known");
    alice.set(&room, "m.room.topic", json!({ "topic": "t" })).await;
    alice.set(&room, "m.room.guest_access", json!({ "guest_access": "can_join" })).await;
    let told = slide(&bob, Some(&pos(&told)), &rooms).await;
    assert_eq!(state(&told["rooms"][&room]), ["m.room.topic"]);
    assert_eq!(told["rooms"][&room]["limited"], json!(true), "two events, one is shown");
}

#[tokio::test]
async fn name_and_avatar_change_and_go() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.create_room(json!({ "name": "Hall" })).await;
    alice.set(&room, "m.room.avatar", json!({ "url": "mxc://example.org/a" })).await;
    let body = list(json!([]), 1);
    let told = slide(&alice, None, &body).await;
    alice.set(&room, "m.room.name", json!({ "name": "Room" })).await;
    let told = slide(&alice, Some(&pos(&told)), &body).await;
    let news = &told["rooms"][&room];
    assert_eq!((&news["name"], news.get("avatar")), (&json!("Room"), None));
    alice.set(&room, "m.room.name", json!({})).await;
    alice.set(&room, "m.room.avatar", json!({})).await;
    let told = slide(&alice, Some(&pos(&told)), &body).await;
    let news = &told["rooms"][&room];
    assert_eq!((news.get("name"), news.get("avatar")), (Some(&Value::Null), Some(&Value::Null)));
}

#[tokio::test]
async fn a_room_without_a_name_has_heroes() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    bob.put(&format!("v3/profile/{}/displayname", bob.id()), json!({ "displayname": "Bob" }))
        .await
        .ok();
    let room = alice.create_room(json!({ "preset": "private_chat", "invite": [bob.id()] })).await;
    let body = list(json!([]), 1);
    let told = slide(&alice, None, &body).await;
    let heroes = &told["rooms"][&room]["heroes"];
    assert_eq!(heroes[0]["user_id"], json!(bob.id()), "{told}");
    assert_eq!(told["rooms"][&room]["invited_count"], json!(1));
    bob.join(&room).await;
    let told = slide(&alice, Some(&pos(&told)), &body).await;
    let news = &told["rooms"][&room];
    assert_eq!(news["heroes"], json!([{ "user_id": bob.id(), "displayname": "Bob" }]));
    assert_eq!((&news["joined_count"], &news["invited_count"]), (&json!(2), &json!(0)));
    alice.set(&room, "m.room.name", json!({ "name": "Room" })).await;
    let told = slide(&alice, Some(&pos(&told)), &body).await;
    assert!(told["rooms"][&room].get("heroes").is_none());
}

#[tokio::test]
async fn required_state_knows_wildcards_and_oneself() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    for key in ["a", "b"] {
        let path = format!("v3/rooms/{room}/state/m.space.child/{key}");
        alice.put(&path, json!({ "via": ["x"] })).await.ok();
    }
    let cases = [
        (json!([["m.space.child", "*"]]), vec!["m.space.child a", "m.space.child b"]),
        (json!([["*", "b"]]), vec!["m.space.child b"]),
        (json!([["m.room.member", "$ME"]]), vec!["m.room.member @bob:example.org"]),
        (
            json!([["m.room.member", "*"]]),
            vec!["m.room.member @alice:example.org", "m.room.member @bob:example.org"],
        ),
        (json!([["m.room.member", "$LAZY"]]), vec!["m.room.member @alice:example.org"]),
        (json!([["m.room.topic", ""]]), vec![]),
    ];
    for (required, expected) in cases {
        let told = slide(&bob, None, &list(required.clone(), 1)).await;
        assert_eq!(state(&told["rooms"][&room]), expected, "{required}");
    }
    let all = slide(&bob, None, &list(json!([["*", "*"]]), 1)).await;
    let whole = bob.get(&format!("v3/rooms/{room}/state")).await.ok();
    let count = whole.as_array().unwrap().len();
    assert_eq!(state(&all["rooms"][&room]).len(), count);
    let lazy = json!([["*", "*"], ["m.room.member", "$LAZY"]]);
    let lazy = slide(&bob, None, &list(lazy, 1)).await;
    assert_eq!(state(&lazy["rooms"][&room]).len(), count - 1, "bob has sent nothing lately");
}

#[tokio::test]
async fn a_subscription_brings_older_events_and_more_state_at_once() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.public_room().await;
    alice.set(&room, "m.room.pinned_events", json!({ "pinned": [] })).await;
    let mut events = Vec::new();
    for number in 0..30 {
        events.push(alice.send(&room, &number.to_string()).await);
    }
    let mut body = all_rooms(19);
    let told = slide(&alice, None, &body).await;
    assert_eq!(ids(&told["rooms"][&room]["timeline"]), events[29..]);
    let mut required = element_state();
    required.as_array_mut().unwrap().push(json!(["m.room.pinned_events", ""]));
    let subscription = json!({ "required_state": required, "timeline_limit": 20 });
    body["room_subscriptions"] = json!({ &room: subscription });
    let opened = wait(&alice, &pos(&told), &body).await;
    let news = &opened["rooms"][&room];
    assert_eq!(ids(&news["timeline"]), events[10..]);
    assert_eq!((&news["limited"], &news["num_live"]), (&json!(true), &json!(0)));
    assert_eq!(news["unstable_expanded_timeline"], json!(true));
    assert_eq!(state(news), ["m.room.pinned_events"]);
    assert!(news.get("initial").is_none());
    let quiet = slide(&alice, Some(&pos(&opened)), &body).await;
    assert_eq!(quiet["rooms"], json!({}));
    // Closed and opened again: the client has the events.
    let closed = slide(&alice, Some(&pos(&quiet)), &all_rooms(19)).await;
    let reopened = slide(&alice, Some(&pos(&closed)), &body).await;
    assert_eq!(ids(&reopened["rooms"][&room]["timeline"]), [] as [&str; 0]);
    assert_eq!(state(&reopened["rooms"][&room]), ["m.room.pinned_events"]);
}

#[tokio::test]
async fn a_room_outside_of_every_window_can_be_subscribed_to() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    let stranger = bob.public_room().await;
    let subscription = json!({ "required_state": [["m.room.create", ""]], "timeline_limit": 3 });
    let body = json!({ "room_subscriptions": { &room: subscription, stranger: subscription,
        "!nowhere:example.org": subscription } });
    let told = slide(&alice, None, &body).await;
    assert_eq!(room_ids(&told), [room.as_str()], "only where alice is");
    assert_eq!(state(&told["rooms"][&room]), ["m.room.create"]);
    assert_eq!(told["rooms"][&room]["timeline"].as_array().unwrap().len(), 3);
    assert_eq!(told["lists"], json!({}));
}

#[tokio::test]
async fn the_wishes_of_lists_and_subscriptions_add_up() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.public_room().await;
    let list = |required: Value, limit: u64| json!({ "ranges": [[0, 9]], "required_state": required, "timeline_limit": limit });
    let body = json!({
        "lists": {
            "a": list(json!([["m.room.create", ""]]), 1),
            "b": list(json!([["m.room.join_rules", ""]]), 3),
        },
        "room_subscriptions": { &room: {
            "required_state": [["m.room.power_levels", ""]], "timeline_limit": 2,
        } },
    });
    let told = slide(&alice, None, &body).await;
    let told = &told["rooms"][&room];
    assert_eq!(state(told), ["m.room.create", "m.room.join_rules", "m.room.power_levels"]);
    assert_eq!(told["timeline"].as_array().unwrap().len(), 3);
    assert_eq!(told["lists"], json!(["a", "b"]));
}

#[tokio::test]
async fn a_request_that_is_sent_again_is_answered_the_same() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    let body = all_rooms(19);
    let first = pos(&slide(&bob, None, &body).await);
    let event = alice.send(&room, "once").await;
    let told = slide(&bob, Some(&first), &body).await;
    let again = slide(&bob, Some(&first), &body).await;
    assert_eq!(told["rooms"], again["rooms"]);
    assert_eq!(ids(&again["rooms"][&room]["timeline"]), [event]);
    // One that was cancelled while it waited, too.
    let last = pos(&again);
    let path = format!("{PATH}?timeout=30000&pos={last}");
    bob.call(http::Method::POST, &path).json(body.clone()).hang_up();
    let event = alice.send(&room, "twice").await;
    let told = slide(&bob, Some(&last), &body).await;
    assert_eq!(ids(&told["rooms"][&room]["timeline"]), [event]);
    let next = slide(&bob, Some(&pos(&told)), &body).await;
    assert_eq!(next["rooms"], json!({}));
    let expired = try_slide(&bob, (Some(&first), 0), &body).await;
    assert_eq!(expired.outcome(), (400, "M_UNKNOWN_POS"));
}

#[tokio::test]
async fn a_newer_request_ends_the_one_that_waits() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    alice.public_room().await;
    let body = all_rooms(19);
    let last = pos(&slide(&alice, None, &body).await);
    let old = wait(&alice, &last, &body);
    let new = soon(async { slide(&alice, Some(&last), &body).await });
    let (old, new) = tokio::join!(old, new);
    assert_eq!(old["rooms"], json!({}));
    slide(&alice, Some(&pos(&new)), &body).await;
}

#[tokio::test]
async fn connections_do_not_meet() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.public_room().await;
    let encryption = json!({ "conn_id": "encryption", "extensions": {
        "to_device": { "enabled": true }, "e2ee": { "enabled": true } } });
    let keys = try_slide(&alice, (None, 30_000), &encryption).await.ok();
    assert_eq!(keys["rooms"], json!({}));
    let rooms = slide(&alice, None, &all_rooms(19)).await;
    let wrong = try_slide(&alice, (Some(&pos(&rooms)), 0), &encryption).await;
    assert_eq!(wrong.outcome(), (400, "M_UNKNOWN_POS"));
    let other = server.device_of("alice").await;
    let wrong = try_slide(&other, (Some(&pos(&rooms)), 0), &all_rooms(19)).await;
    assert_eq!(wrong.outcome(), (400, "M_UNKNOWN_POS"), "another device");
    let event = alice.send(&room, "for the one").await;
    let quiet = slide(&alice, Some(&pos(&keys)), &encryption).await;
    assert_eq!(quiet["rooms"], json!({}));
    let told = slide(&alice, Some(&pos(&rooms)), &all_rooms(19)).await;
    assert_eq!(ids(&told["rooms"][&room]["timeline"]), [event]);
    let event = &told["rooms"][&room]["timeline"][0];
    assert!(event["unsigned"]["transaction_id"].is_string(), "the sender's device is told");
}

#[tokio::test]
async fn t89_what_cannot_be_is_refused() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    alice.public_room().await;
    for pos in ["x", "s1_2", "s1_2.3", "0", "s0_99999999.1"] {
        let answer = try_slide(&alice, (Some(pos), 0), &all_rooms(19)).await;
        assert_eq!(answer.outcome(), (400, "M_UNKNOWN_POS"), "{pos}");
    }
    let simple = json!({ "ranges": [[0, 1]], "timeline_limit": 1 });
    let with = |field: &str, value: Value| {
        let mut list = simple.clone();
        list[field] = value;
        json!({ "lists": { "a": list } })
    };
    let many_lists: serde_json::Map<String, Value> =
        (0..21).map(|number| (number.to_string(), simple.clone())).collect();
    let many: Vec<Value> = vec![json!(["m.x", ""]); 201];
    for body in [
        json!({ "lists": many_lists }),
        with("ranges", json!([[2, 1]])),
        with("ranges", json!(vec![json!([0, 1]); 21])),
        with("required_state", json!(many)),
        with("filters", json!({ "room_types": vec!["x"; 501] })),
        json!({ "conn_id": "c".repeat(256) }),
        json!({ "txn_id": "t".repeat(256) }),
    ] {
        let answer = try_slide(&alice, (None, 0), &body).await;
        assert_eq!(answer.outcome(), (400, "M_INVALID_PARAM"), "{body}");
    }
    for body in [with("ranges", json!([[-1, 1]])), with("timeline_limit", json!("x"))] {
        let answer = try_slide(&alice, (None, 0), &body).await;
        assert_eq!(answer.status.as_u16(), 400, "{body}");
    }
    let answer = slide(&alice, None, &with("timeline_limit", json!(1_000_000_000))).await;
    assert_eq!(answer["lists"]["a"]["count"], json!(1));
    let far = with("ranges", json!([[5, 9_007_199_254_740_991_u64]]));
    assert_eq!(slide(&alice, None, &far).await["rooms"], json!({}));
    let long = try_slide(&alice, (None, 1_000_000_000_000), &all_rooms(19)).await;
    assert_eq!(long.status.as_u16(), 200, "without pos at once, whatever the timeout");
    let query = format!("{PATH}?timeout=0&set_presence=offline&unknown=1");
    let body = json!({ "txn_id": "t1", "unknown": {}, "extensions": {
        "org.matrix.msc4262.profiles": { "enabled": true },
        "org.matrix.msc4354.sticky_events": { "enabled": true } } });
    assert_eq!(alice.post(&query, body).await.ok()["txn_id"], json!("t1"));
}

#[tokio::test]
async fn a_poll_ends_when_its_session_does() {
    let server = TestServer::new().await;
    let (alice, other) = (server.client("alice").await, server.device_of("alice").await);
    let last = pos(&slide(&alice, None, &all_rooms(19)).await);
    let rooms = all_rooms(19);
    let poll = try_slide(&alice, (Some(&last), 30_000), &rooms);
    let logout = soon(async { other.post("v3/logout/all", json!({})).await });
    let (ended, _) = tokio::join!(poll, logout);
    assert_eq!(ended.outcome(), (401, "M_UNKNOWN_TOKEN"));
}

#[tokio::test]
async fn a_request_without_news_reads_nothing() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    alice.public_room().await;
    let (body, other) = (all_rooms(19), bob.public_room().await);
    let mut last = pos(&slide(&alice, None, &body).await);
    bob.send(&other, "not for alice").await;
    for _ in 0..2 {
        let before = server.server.store.counters();
        let told = slide(&alice, Some(&last), &body).await;
        let after = server.server.store.counters();
        assert_eq!(told["lists"]["all_rooms"]["count"], json!(1));
        let reads = (after.gets - before.gets, after.seeks - before.seeks);
        assert_eq!((reads, after.batches - before.batches), ((0, 0), 0));
        last = pos(&told);
    }
}

#[tokio::test]
async fn what_is_read_depends_on_the_window_and_not_on_the_rooms() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let reads = |last: u64| {
        let (server, alice) = (&server, alice.clone());
        async move {
            // The first one loads what the server knows of the user's rooms.
            slide(&alice, None, &all_rooms(last)).await;
            let before = server.server.store.counters();
            slide(&alice, None, &all_rooms(last)).await;
            let after = server.server.store.counters();
            after.gets - before.gets + after.seeks - before.seeks
        }
    };
    for _ in 0..5 {
        server.pass(1);
        alice.public_room().await;
    }
    let few = reads(4).await;
    for _ in 0..25 {
        server.pass(1);
        alice.public_room().await;
    }
    assert_eq!(reads(4).await, few, "30 rooms cost as much as 5");
    let whole = reads(29).await;
    assert!(whole > 4 * few, "{whole} against {few}");
    assert!(few < 5 * 100, "{few} reads for 5 rooms");
}

#[tokio::test]
async fn after_a_restart_clients_begin_anew_and_find_the_same_order() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let rooms = [alice.public_room().await, alice.public_room().await];
    alice.send(&rooms[0], "news").await;
    alice.set(&rooms[1], "m.room.topic", json!({ "topic": "none" })).await;
    let body = all_rooms(0);
    let last = pos(&slide(&alice, None, &body).await);
    let user = alice.user.clone();
    let server = server.restart().await;
    let alice = Client { server: &server, user };
    let expired = try_slide(&alice, (Some(&last), 0), &body).await;
    assert_eq!(expired.outcome(), (400, "M_UNKNOWN_POS"));
    assert_eq!(room_ids(&slide(&alice, None, &body).await), [rooms[0].clone()]);
}

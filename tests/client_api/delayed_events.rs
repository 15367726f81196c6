//! Delayed events (MSC4140).

use std::time::Duration;

use causerie::{
    rooms::{NewEvent, Transaction},
    server::Server,
    storage::schema::delayed_events::DELAYED_EVENTS,
};
use http::Method;
use ruma::RoomId;
use serde_json::{Value, json};

use crate::harness::{Client, TestServer, text, texts};

const BASE: &str = "unstable/org.matrix.msc4140/delayed_events";

async fn delay(user: &Client<'_>, room: &str, body: &str, milliseconds: u64) -> String {
    let path = format!(
        "v3/rooms/{room}/send/m.room.message/{body}?org.matrix.msc4140.delay={milliseconds}"
    );
    let answer = user.put(&path, json!({ "msgtype": "m.text", "body": body })).await;
    text(&answer.ok()["delay_id"])
}

async fn delay_state(user: &Client<'_>, room: &str, topic: &str, milliseconds: u64) -> String {
    let path =
        format!("v3/rooms/{room}/state/m.room.topic/?org.matrix.msc4140.delay={milliseconds}");
    text(&user.put(&path, json!({ "topic": topic })).await.ok()["delay_id"])
}

async fn get(user: &Client<'_>, delay_id: &str) -> Value {
    user.get(&format!("{BASE}/{delay_id}")).await.ok()
}

/// Waits until the event came to its end.
async fn end(user: &Client<'_>, delay_id: &str) -> Value {
    for _ in 0..600 {
        let event = get(user, delay_id).await;
        if event.get("finalised_ts").is_some() {
            return event;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the event waits for ever");
}

async fn said(user: &Client<'_>, room: &str) -> Vec<String> {
    texts(&user.messages(room, "dir=f&limit=100").await.ok()["chunk"])
}

#[tokio::test]
async fn an_event_is_sent_when_its_time_comes_and_once() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.create_room(json!({})).await;
    let delay_id = delay(&alice, &room, "later", 10_000).await;
    // The same transaction is the same event.
    assert_eq!(delay(&alice, &room, "later", 10_000).await, delay_id);
    let event = get(&alice, &delay_id).await;
    assert_eq!((&event["delay"], &event["type"]), (&json!(10_000), &json!("m.room.message")));
    let list = alice.get(BASE).await.ok();
    assert_eq!(list["scheduled"][0]["delay_id"], json!(delay_id));
    assert_eq!(list["delayed_events"][0]["content"]["body"], json!("later"));
    assert!(said(&alice, &room).await.is_empty());
    server.pass(11);
    let done = end(&alice, &delay_id).await;
    assert_eq!(said(&alice, &room).await, ["later"]);
    let list = alice.get(&format!("{BASE}?status=finalised")).await.ok();
    assert_eq!(list["finalised"][0]["outcome"], json!("send"));
    assert_eq!(list["finalised"][0]["reason"], json!("delay"));
    assert_eq!(list["finalised"][0]["event_id"], done["event_id"]);
    assert_eq!(list.get("scheduled"), None);
    let list = alice.get(&format!("{BASE}/scheduled")).await.ok();
    assert_eq!(list["scheduled"], json!([]));
    // Nothing can be done with it any more; whoever wanted it sent has that.
    let path = format!("{BASE}/{delay_id}");
    assert_eq!(server.post(&format!("{path}/send"), json!({})).send().await.outcome(), (200, ""));
    let answer = server.post(&format!("{path}/restart"), json!({})).send().await;
    assert_eq!(answer.outcome(), (404, "M_NOT_FOUND"));
    assert_eq!(said(&alice, &room).await, ["later"]);
}

#[tokio::test]
async fn an_event_is_restarted_sent_and_cancelled_without_a_token() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.create_room(json!({})).await;
    let one = delay(&alice, &room, "one", 10_000).await;
    let two = delay(&alice, &room, "two", 10_000).await;
    let three = delay(&alice, &room, "three", 10_000).await;
    server.pass(9);
    server.post(&format!("{BASE}/{one}/restart"), json!({})).send().await.ok();
    server.post(&format!("{BASE}/{two}/send"), json!({})).send().await.ok();
    server.post(&format!("{BASE}/{three}"), json!({ "action": "cancel" })).send().await.ok();
    assert_eq!(said(&alice, &room).await, ["two"]);
    server.pass(9);
    let waiting = get(&alice, &one).await;
    assert_eq!(waiting.get("finalised_ts"), None);
    server.pass(2);
    end(&alice, &one).await;
    assert_eq!(said(&alice, &room).await, ["two", "one"]);
    let cancelled = get(&alice, &three).await;
    assert_eq!((cancelled.get("event_id"), cancelled.get("error")), (None, None));
    let answer = server.post(&format!("{BASE}/{one}/forget"), json!({})).send().await;
    assert_eq!(answer.outcome(), (400, "M_INVALID_PARAM"));
}

#[tokio::test]
async fn a_newer_state_of_somebody_else_cancels() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    let levels = json!({ "users": { bob.id(): 50 } });
    alice.set(&room, "m.room.power_levels", levels).await;
    let own = delay_state(&alice, &room, "Later", 10_000).await;
    // One's own newer state does not.
    alice.set(&room, "m.room.topic", json!({ "topic": "Now" })).await;
    server.pass(11);
    assert!(end(&alice, &own).await.get("event_id").is_some());
    assert_eq!(alice.state(&room, "m.room.topic").await.ok()["topic"], json!("Later"));
    let replaced = delay_state(&alice, &room, "Never", 10_000).await;
    bob.set(&room, "m.room.topic", json!({ "topic": "Bob's" })).await;
    let ended = end(&alice, &replaced).await;
    assert_eq!(ended["error"]["errcode"], json!("M_UNKNOWN"));
    server.pass(11);
    assert_eq!(alice.state(&room, "m.room.topic").await.ok()["topic"], json!("Bob's"));
}

#[tokio::test]
async fn t100_the_number_the_delay_and_the_owner_are_checked() {
    let server = TestServer::with(|config| {
        config.delayed_events.scheduled_per_user_max = 3;
        config.delayed_events.delay_seconds_max = 60;
    })
    .await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.create_room(json!({})).await;
    let mut delay_id = String::new();
    for body in ["a", "b", "c"] {
        delay_id = delay(&alice, &room, body, 60_000).await;
    }
    let send = |delay: &'static str| {
        let path = format!("v3/rooms/{room}/send/m.x/t{delay}?org.matrix.msc4140.delay={delay}");
        let alice = alice.clone();
        async move { alice.put(&path, json!({})).await }
    };
    let answer = send("1000").await;
    assert_eq!(answer.outcome(), (400, "M_UNKNOWN"));
    let code = &answer.body["org.matrix.msc4140.errcode"];
    assert_eq!(code, &json!("M_MAX_DELAYED_EVENTS_EXCEEDED"));
    let answer = send("60001").await;
    assert_eq!(answer.outcome(), (400, "M_UNKNOWN"));
    assert_eq!(answer.body["org.matrix.msc4140.errcode"], json!("M_MAX_DELAY_EXCEEDED"));
    assert_eq!(answer.body["org.matrix.msc4140.max_delay"], json!(60_000));
    for wrong in ["-1", "x", "1.5", ""] {
        assert_eq!(send(wrong).await.outcome(), (400, "M_INVALID_PARAM"), "{wrong}");
    }
    let path = format!("{BASE}/{delay_id}");
    let answer = bob.post(&format!("{path}/cancel"), json!({})).await;
    assert_eq!(answer.outcome(), (404, "M_NOT_FOUND"));
    assert_eq!(bob.get(&path).await.outcome(), (404, "M_NOT_FOUND"));
    assert_eq!(bob.get(BASE).await.ok()["delayed_events"], json!([]));
    let path = format!("v3/rooms/{room}/send/m.x/t?org.matrix.msc4140.delay=1000");
    assert_eq!(bob.put(&path, json!({})).await.outcome(), (403, "M_FORBIDDEN"));
    alice.post(&format!("{BASE}/{delay_id}/cancel"), json!({})).await.ok();
    delay(&alice, &room, "d", 1_000).await;
    let capabilities = alice.get("v3/capabilities").await.ok();
    let limits = &capabilities["capabilities"]["org.matrix.msc4140.delayed_events"];
    assert_eq!(limits, &json!({ "max_delay_ms": 60_000, "max_scheduled": 3 }));
}

#[tokio::test]
async fn the_newer_endpoint_takes_state_too_and_lists_have_pages() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.create_room(json!({})).await;
    let path =
        |id: &str| format!("unstable/org.matrix.msc4140/rooms/{room}/delayed_event/m.x/{id}");
    let body = json!({ "delay": 1_000, "state_key": "k", "content": { "a": 1 } });
    let delay_id = text(&alice.put(&path("t"), body.clone()).await.ok()["delay_id"]);
    assert_eq!(text(&alice.put(&path("t"), body.clone()).await.ok()["delay_id"]), delay_id);
    for number in 0..60 {
        alice.put(&path(&number.to_string()), body.clone()).await.ok();
    }
    let page = alice.get(BASE).await.ok();
    assert_eq!(page["scheduled"].as_array().map(Vec::len), Some(50));
    let next = text(&page["next_batch"]);
    let page = alice.get(&format!("{BASE}?from={next}")).await.ok();
    assert_eq!(page["scheduled"].as_array().map(Vec::len), Some(11));
    assert_eq!(page.get("next_batch"), None);
    let answer = alice.get(&format!("{BASE}?from=x")).await;
    assert_eq!(answer.outcome(), (400, "M_INVALID_PARAM"));
    server.call(Method::POST, &format!("{BASE}/{delay_id}/send")).json(json!({})).send().await.ok();
    let state = alice.get(&format!("v3/rooms/{room}/state/m.x/k")).await.ok();
    assert_eq!(state, json!({ "a": 1 }));
}

#[tokio::test]
async fn what_cannot_be_sent_says_why() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    let delay_id = delay(&bob, &room, "bye", 1_000).await;
    bob.leave(&room).await;
    server.pass(2);
    let ended = end(&bob, &delay_id).await;
    assert_eq!(ended["error"]["errcode"], json!("M_FORBIDDEN"));
    let list = bob.get(&format!("{BASE}/finalised")).await.ok();
    assert_eq!(list["finalised"][0]["outcome"], json!("cancel"));
    assert_eq!(list["finalised"][0]["reason"], json!("error"));
}

#[tokio::test]
async fn an_event_outlives_a_restart_and_a_crash_right_after_it_was_sent() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.create_room(json!({})).await;
    let delay_id = delay(&alice, &room, "later", 10_000).await;
    // The crash: it is sent, and not marked.
    let rooms = &server.server.rooms;
    let known = rooms.known_room(<&RoomId>::try_from(&*room).unwrap()).await.unwrap();
    let content = json!({ "msgtype": "m.text", "body": "later" });
    let event = NewEvent {
        sender: alice.user.user_id.clone(),
        event_type: "m.room.message".into(),
        state_key: None,
        content: serde_json::value::to_raw_value(&content).unwrap(),
        redacts: None,
    };
    let transaction = Transaction {
        device_id: String::new(),
        endpoint: "delayed_event".to_owned(),
        transaction_id: delay_id.clone(),
    };
    let sent = rooms.send(&known, event, Some(transaction)).await.unwrap();
    let (config, store) = (server.server.config.clone(), server.server.store.clone());
    let clock = server.clock.clone();
    drop(server);
    clock.advance(Duration::from_mins(1));
    let again = Server::build(config, store.clone(), clock).await.unwrap();
    again.work();
    let outcome = loop {
        let key = delay_id.clone();
        let row = store.read(move |reader| reader.get(&DELAYED_EVENTS, &key)).await.unwrap();
        if let Some(outcome) = row.unwrap().0.outcome {
            break outcome;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(outcome.event_id, Some(sent.event_id));
    drop(again);
}

#[tokio::test]
async fn t68_nothing_is_sent_for_a_user_who_is_suspended_by_then() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    server.server.users.set_admin(&alice.user.user_id, true).await.unwrap();
    let room = alice.public_room().await;
    bob.join(&room).await;
    let delay_id = delay(&bob, &room, "later", 10_000).await;
    let path = format!("v1/admin/suspend/{}", bob.id());
    alice.put(&path, json!({ "suspended": true })).await.ok();
    let send = format!("{BASE}/{delay_id}/send");
    let answer = server.post(&send, json!({})).send().await;
    assert_eq!(answer.outcome(), (403, "M_USER_SUSPENDED"));
    server.pass(11);
    assert_eq!(end(&bob, &delay_id).await["error"]["errcode"], json!("M_USER_SUSPENDED"));
    assert!(said(&alice, &room).await.is_empty());
}

#[tokio::test]
async fn invites_joins_and_knocks_are_not_delayed() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.create_room(json!({})).await;
    let path = format!(
        "v3/rooms/{room}/state/m.room.member/@bob:example.org?org.matrix.msc4140.delay=10000"
    );
    for membership in ["invite", "join", "knock"] {
        let answer = alice.put(&path, json!({ "membership": membership })).await;
        assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"), "{membership}");
    }
    alice.put(&path, json!({ "membership": "leave" })).await.ok();
}

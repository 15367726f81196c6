//! The deprecated ways to follow rooms, and peeking.

use serde_json::{Value, json};

use crate::harness::{TestServer, encode, text, texts};

#[tokio::test]
async fn a_room_is_shown_to_its_members_and_where_it_is_open() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat", "visibility": "public" })).await;
    for number in 0..12 {
        alice.send(&room, &number.to_string()).await;
    }
    let path = format!("v3/rooms/{room}/initialSync");
    assert_eq!(bob.get(&path).await.outcome(), (403, "M_FORBIDDEN"));
    let shown = alice.get(&path).await.ok();
    assert_eq!(shown["membership"], json!("join"));
    assert_eq!(shown["visibility"], json!("public"));
    let expected: Vec<String> = (2..12).map(|number| number.to_string()).collect();
    assert_eq!(texts(&shown["messages"]["chunk"]), expected);
    let query = format!("dir=b&limit=2&from={}", text(&shown["messages"]["start"]));
    assert_eq!(texts(&alice.messages(&room, &query).await.ok()["chunk"]), ["1", "0"]);
    let has = |shown: &Value, kind: &str| {
        shown["state"].as_array().unwrap().iter().any(|event| event["type"] == kind)
    };
    assert!(has(&shown, "m.room.create") && has(&shown, "m.room.member"));
    let readable = json!({ "history_visibility": "world_readable" });
    alice.set(&room, "m.room.history_visibility", readable).await;
    let shown = bob.get(&path).await.ok();
    assert!(has(&shown, "m.room.create"));
    assert!(shown.get("membership").is_none());
    assert_eq!(bob.get("v3/rooms/!none:x/initialSync").await.outcome(), (403, "M_FORBIDDEN"));
}

#[tokio::test]
async fn all_rooms_are_shown_and_then_followed() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    let closed = alice.create_room(json!({})).await;
    let left = alice.public_room().await;
    bob.join(&room).await;
    bob.join(&left).await;
    bob.leave(&left).await;
    alice.invite(&closed, &bob).await;
    alice.send(&room, "1").await;
    alice.send(&room, "2").await;
    let shown = bob.get("v3/initialSync?limit=1").await.ok();
    let rooms = shown["rooms"].as_array().unwrap();
    assert_eq!(rooms.len(), 2);
    let joined = rooms.iter().find(|shown| shown["room_id"] == json!(room)).unwrap();
    assert_eq!(texts(&joined["messages"]["chunk"]), ["2"]);
    let invited = rooms.iter().find(|shown| shown["room_id"] == json!(closed)).unwrap();
    assert_eq!(invited["invite"]["content"]["membership"], json!("invite"));
    assert!(shown["account_data"].to_string().contains("m.push_rules"));
    let archived = bob.get("v3/initialSync?archived=true").await.ok();
    assert_eq!(archived["rooms"].as_array().unwrap().len(), 3);
    // What comes after it, in order, and nothing of a room that was left.
    let end = text(&shown["end"]);
    let path = |end: &str| format!("v3/events?from={end}&timeout=60000");
    alice.send(&left, "unseen").await;
    alice.send(&room, "3").await;
    let events = bob.get(&path(&end)).await.ok();
    assert_eq!(texts(&events["chunk"]), ["3"]);
    assert_eq!(events["start"], json!(end));
    let end = text(&events["end"]);
    // A request waits until there is something.
    let path = path(&end);
    let (events, _) = tokio::join!(bob.get(&path), async {
        tokio::task::yield_now().await;
        alice.send(&room, "4").await
    });
    assert_eq!(texts(&events.ok()["chunk"]), ["4"]);
    let nothing = bob.get("v3/events?timeout=0").await.ok();
    assert_eq!(nothing["chunk"], json!([]));
    let answer = bob.get(&format!("v3/events?timeout=0&room_id={}", encode(&closed))).await;
    assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"));
    for wrong in ["from=x", "timeout=x", "room_id=x"] {
        let answer = bob.get(&format!("v3/events?{wrong}")).await;
        assert_eq!(answer.outcome(), (400, "M_INVALID_PARAM"), "{wrong}");
    }
}

#[tokio::test]
async fn more_events_than_fit_come_one_after_the_other() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let (one, two) = (alice.public_room().await, alice.public_room().await);
    let start = text(&alice.get("v3/events?timeout=0").await.ok()["end"]);
    let mut sent = Vec::new();
    for number in 0..130 {
        alice.send(if number % 3 == 0 { &one } else { &two }, &number.to_string()).await;
        sent.push(number.to_string());
    }
    let first = alice.get(&format!("v3/events?timeout=0&from={start}")).await.ok();
    let path = format!("v3/events?timeout=0&from={}", text(&first["end"]));
    let second = alice.get(&path).await.ok();
    assert_eq!([texts(&first["chunk"]), texts(&second["chunk"])].concat(), sent);
}

#[tokio::test]
async fn t56_an_event_is_found_by_its_id_in_rooms_of_the_reader_alone() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    let event = alice.send(&room, "hi").await;
    let path = format!("v3/events/{}", encode(&event));
    assert_eq!(alice.get(&path).await.ok()["content"]["body"], json!("hi"));
    assert_eq!(bob.get(&path).await.outcome(), (404, "M_NOT_FOUND"));
    bob.join(&room).await;
    assert_eq!(bob.get(&path).await.ok()["room_id"], json!(room));
    assert_eq!(bob.get("v3/events/x").await.outcome(), (400, "M_INVALID_PARAM"));
}

#[tokio::test]
async fn an_open_room_is_followed_without_joining_it() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    let path = format!("v3/events?timeout=0&room_id={}", encode(&room));
    assert_eq!(bob.get(&path).await.outcome(), (403, "M_FORBIDDEN"));
    let readable = json!({ "history_visibility": "world_readable" });
    alice.set(&room, "m.room.history_visibility", readable).await;
    let start = text(&bob.get(&path).await.ok()["end"]);
    alice.send(&room, "hi").await;
    let events = bob.get(&format!("{path}&from={start}")).await.ok();
    assert_eq!(texts(&events["chunk"]), ["hi"]);
    assert_eq!(events["chunk"][0]["room_id"], json!(room));
    assert_eq!(bob.get("v3/initialSync?limit=x").await.outcome(), (400, "M_INVALID_PARAM"));
}

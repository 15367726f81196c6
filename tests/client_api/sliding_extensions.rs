//! The extensions of sliding sync.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    harness::{Client, TestServer, encode},
    sliding::{all_rooms, pos, slide, try_slide},
};

fn with(extensions: Value) -> Value {
    let mut body = all_rooms(19);
    body["extensions"] = extensions;
    body
}

async fn soon<T>(then: impl Future<Output = T>) -> T {
    tokio::time::sleep(Duration::from_millis(50)).await;
    then.await
}

async fn read(client: &Client<'_>, room: &str, event: &str, thread: Value) {
    let path = format!("v3/rooms/{room}/receipt/m.read/{}", encode(event));
    client.post(&path, thread).await.ok();
}

fn types(events: &Value) -> Vec<&str> {
    let events = events.as_array().into_iter().flatten();
    let mut types: Vec<&str> = events.filter_map(|event| event["type"].as_str()).collect();
    types.sort_unstable();
    types
}

#[tokio::test]
async fn encryption_gets_its_empty_shapes() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let body = json!({ "conn_id": "encryption", "extensions": {
        "to_device": { "enabled": true }, "e2ee": { "enabled": true } } });
    let told = slide(&alice, None, &body).await;
    let extensions = &told["extensions"];
    assert!(extensions["to_device"]["next_batch"].is_string());
    assert_eq!(extensions["to_device"]["events"], json!([]));
    let e2ee = &extensions["e2ee"];
    assert_eq!(e2ee["device_one_time_keys_count"], json!({ "signed_curve25519": 0 }));
    assert_eq!(e2ee["device_unused_fallback_key_types"], json!([]));
    let next = json!({ "conn_id": "encryption", "extensions": {
        "to_device": { "enabled": true, "since": extensions["to_device"]["next_batch"] },
        "e2ee": { "enabled": true } } });
    let told = slide(&alice, Some(&pos(&told)), &next).await;
    assert_eq!(told["extensions"]["e2ee"], *e2ee);
    let off = slide(&alice, Some(&pos(&told)), &json!({ "conn_id": "encryption" })).await;
    assert_eq!(off["extensions"], json!({}));
}

#[tokio::test]
async fn account_data_is_told_whole_and_then_what_changed() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let (room, other) = (alice.public_room().await, alice.public_room().await);
    let global = |kind: &str| format!("v3/user/{}/account_data/{kind}", alice.id());
    let of_room =
        |room: &str, kind: &str| format!("v3/user/{}/rooms/{room}/account_data/{kind}", alice.id());
    alice.put(&global("m.direct"), json!({})).await.ok();
    alice.put(&of_room(&other, "m.marked_unread"), json!({ "unread": true })).await.ok();
    let mut body = with(json!({ "account_data": { "enabled": true } }));
    body["lists"]["all_rooms"]["ranges"] = json!([[0, 0]]);
    alice.send(&room, "to the front").await;
    let told = slide(&alice, None, &body).await;
    let data = &told["extensions"]["account_data"];
    assert_eq!(types(&data["global"]), ["m.direct", "m.push_rules"]);
    assert!(data["rooms"].get(&other).is_none(), "that room is not in the window");
    // What changes outside of the window is told once the room comes in.
    alice.put(&of_room(&other, "m.tag"), json!({ "tags": {} })).await.ok();
    alice.put(&of_room(&room, "m.tag"), json!({ "tags": { "m.favourite": {} } })).await.ok();
    alice.put(&global("org.example"), json!({ "a": 1 })).await.ok();
    let told = slide(&alice, Some(&pos(&told)), &body).await;
    let data = &told["extensions"]["account_data"];
    assert_eq!(types(&data["global"]), ["org.example"]);
    assert_eq!(types(&data["rooms"][&room]), ["m.tag"]);
    assert!(data["rooms"].get(&other).is_none());
    body["lists"]["all_rooms"]["ranges"] = json!([[0, 1]]);
    let told = slide(&alice, Some(&pos(&told)), &body).await;
    let data = &told["extensions"]["account_data"];
    assert_eq!(types(&data["rooms"][&other]), ["m.marked_unread", "m.tag"]);
    let told = slide(&alice, Some(&pos(&told)), &body).await;
    assert_eq!(told["extensions"]["account_data"], json!({ "global": [], "rooms": {} }));
    let last = pos(&told);
    let poll = try_slide(&alice, (Some(&last), 30_000), &body);
    let path = global("org.example");
    let change = soon(alice.put(&path, json!({ "a": 2 })));
    let (told, _) = tokio::join!(poll, change);
    assert_eq!(types(&told.ok()["extensions"]["account_data"]["global"]), ["org.example"]);
}

#[tokio::test]
async fn an_extension_that_is_turned_on_later_begins_with_everything() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.public_room().await;
    let event = alice.send(&room, "hi").await;
    read(&alice, &room, &event, json!({})).await;
    let told = slide(&alice, None, &all_rooms(19)).await;
    assert_eq!(told["extensions"], json!({}));
    let on = with(json!({ "account_data": { "enabled": true }, "receipts": { "enabled": true } }));
    let told = slide(&alice, Some(&pos(&told)), &on).await;
    assert_eq!(types(&told["extensions"]["account_data"]["global"]), ["m.push_rules"]);
    assert!(told["extensions"]["receipts"]["rooms"][&room].is_object());
    let off = slide(&alice, Some(&pos(&told)), &all_rooms(19)).await;
    let path = format!("v3/user/{}/account_data/org.example", alice.id());
    alice.put(&path, json!({})).await.ok();
    let off = slide(&alice, Some(&pos(&off)), &all_rooms(19)).await;
    let told = slide(&alice, Some(&pos(&off)), &on).await;
    let global = &told["extensions"]["account_data"]["global"];
    assert_eq!(types(global), ["m.push_rules", "org.example"]);
}

#[tokio::test]
async fn receipts_come_in_one_event_and_private_ones_stay_private() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    let first = alice.send(&room, "one").await;
    read(&bob, &room, &first, json!({})).await;
    let body = with(json!({ "receipts": { "enabled": true, "rooms": ["*"] } }));
    let told = slide(&alice, None, &body).await;
    let event = &told["extensions"]["receipts"]["rooms"][&room];
    assert_eq!(event["type"], json!("m.receipt"));
    assert!(event["content"][&first]["m.read"][bob.id()]["ts"].is_u64());
    let second = alice.send(&room, "two").await;
    let told = slide(&alice, Some(&pos(&told)), &body).await;
    assert_eq!(told["extensions"]["receipts"]["rooms"], json!({}));
    let private = format!("v3/rooms/{room}/receipt/m.read.private/{}", encode(&second));
    bob.post(&private, json!({})).await.ok();
    let last = pos(&told);
    let poll = try_slide(&alice, (Some(&last), 30_000), &body);
    let threaded = read(&bob, &room, &second, json!({ "thread_id": "main" }));
    let (told, ()) = tokio::join!(poll, soon(threaded));
    let told = told.ok();
    let content = &told["extensions"]["receipts"]["rooms"][&room]["content"];
    assert_eq!(content[&second]["m.read"][bob.id()]["thread_id"], json!("main"));
    assert!(content[&second].get("m.read.private").is_none());
    assert!(content.get(&first).is_none());
    let own = slide(&bob, None, &body).await;
    let content = &own["extensions"]["receipts"]["rooms"][&room]["content"];
    assert!(content[&second]["m.read.private"][bob.id()].is_object());
}

#[tokio::test]
async fn typing_is_told_and_its_end_too() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    let body = with(json!({ "typing": { "enabled": true } }));
    let told = slide(&alice, None, &body).await;
    assert_eq!(told["extensions"]["typing"]["rooms"], json!({}));
    let path = format!("v3/rooms/{room}/typing/{}", bob.id());
    let last = pos(&told);
    let poll = try_slide(&alice, (Some(&last), 30_000), &body);
    let start = soon(bob.put(&path, json!({ "typing": true, "timeout": 30_000 })));
    let (told, _) = tokio::join!(poll, start);
    let told = told.ok();
    let event = &told["extensions"]["typing"]["rooms"][&room];
    assert_eq!(*event, json!({ "type": "m.typing", "content": { "user_ids": [bob.id()] } }));
    let fresh = server.device_of("alice").await;
    let other = slide(&fresh, None, &body).await;
    assert_eq!(other["extensions"]["typing"]["rooms"][&room], *event);
    bob.put(&path, json!({ "typing": false })).await.ok();
    let told = slide(&alice, Some(&pos(&told)), &body).await;
    let content = &told["extensions"]["typing"]["rooms"][&room]["content"];
    assert_eq!(*content, json!({ "user_ids": [] }));
}

#[tokio::test]
async fn the_scope_of_an_extension_is_kept() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let (listed, subscribed) = (alice.public_room().await, alice.public_room().await);
    for room in [&listed, &subscribed] {
        let event = alice.send(room, "hi").await;
        read(&alice, room, &event, json!({})).await;
    }
    let listed_event = alice.send(&listed, "to the front").await;
    read(&alice, &listed, &listed_event, json!({})).await;
    let told = |receipts: Value| {
        let mut body = all_rooms(0);
        body["room_subscriptions"] = json!({ &subscribed: { "timeline_limit": 1 } });
        body["extensions"] = json!({ "receipts": receipts });
        let alice = alice.clone();
        async move {
            let told = slide(&alice, None, &body).await;
            let rooms = told["extensions"]["receipts"]["rooms"].as_object().unwrap().clone();
            rooms.keys().cloned().collect::<Vec<_>>()
        }
    };
    let mut both = [listed.clone(), subscribed.clone()];
    both.sort_unstable();
    assert_eq!(told(json!({ "enabled": true })).await, both);
    assert_eq!(
        told(json!({ "enabled": true, "rooms": ["*"], "lists": [] })).await,
        [subscribed.as_str()]
    );
    assert_eq!(told(json!({ "enabled": true, "rooms": [] })).await, [listed.as_str()]);
    let named = told(json!({ "enabled": true, "rooms": [&subscribed], "lists": ["other"] })).await;
    assert_eq!(named, [subscribed.as_str()]);
}

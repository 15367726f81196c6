//! Messages to devices, in classic sync.

use std::time::Duration;

use causerie::storage::schema::{
    encryption::{
        DEHYDRATED_DEVICES, TO_DEVICE, TO_DEVICE_COUNTS, TO_DEVICE_SIZES, TO_DEVICE_TRANSACTIONS,
    },
    users::DeviceKey,
};
use http::Method;
use kv::{Batch, Direction, Durability, Json};
use serde_json::{Value, json};

use crate::harness::{Answer, Client, TestServer, text};

/// How many messages are stored for a user's device, and how many are counted. Their bytes are
/// counted as they are stored.
pub(crate) fn stored(client: &Client<'_>) -> (usize, i64) {
    let device = (client.id().to_owned(), client.user.device_id.clone());
    let reader = client.server.server.store.reader();
    let rows = reader
        .scan(&TO_DEVICE, &TO_DEVICE.prefix(&device), Direction::Forward, usize::MAX)
        .unwrap();
    let key = DeviceKey { user_id: device.0, device_id: device.1 };
    let size: usize = rows.iter().map(|(_, event)| event.len()).sum();
    let counted = reader.get(&TO_DEVICE_SIZES, &key).unwrap().unwrap_or_default();
    assert_eq!(counted, i64::try_from(size).unwrap());
    (rows.len(), reader.get(&TO_DEVICE_COUNTS, &key).unwrap().unwrap_or_default())
}

/// Waits until so many are stored: what a client has is removed after the answer.
pub(crate) async fn stores(client: &Client<'_>, count: usize) {
    let expected = (count, i64::try_from(count).unwrap());
    for _ in 0..200 {
        if stored(client) == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(stored(client), expected);
}

/// Sends messages by a transaction.
pub(crate) async fn put(client: &Client<'_>, transaction: &str, messages: Value) -> Answer {
    let path = format!("v3/sendToDevice/org.example/{transaction}");
    client.put(&path, json!({ "messages": messages })).await
}

/// Sends a number to one device.
pub(crate) async fn tell(sender: &Client<'_>, target: &Client<'_>, number: usize) {
    let content = json!({ "n": number });
    let messages = json!({ target.id(): { &target.user.device_id: content } });
    put(sender, &format!("t{number}"), messages).await.ok();
}

pub(crate) fn numbers(events: &Value) -> Vec<u64> {
    let events = events.as_array().into_iter().flatten();
    events.map(|event| event["content"]["n"].as_u64().unwrap()).collect()
}

fn told(answer: &Value) -> Vec<u64> {
    numbers(&answer["to_device"]["events"])
}

#[tokio::test]
async fn a_message_reaches_the_devices_it_is_for() {
    let server = TestServer::new().await;
    let (alice, phone) = (server.client("alice").await, server.device_of("alice").await);
    let bob = server.client("bob").await;
    let messages = json!({
        alice.id(): { "*": { "n": 1 }, &phone.user.device_id: { "n": 2, "for": "phone" } },
        bob.id(): { "*": { "n": 3 }, "NOSUCH": { "n": 4 } },
        "@nobody:example.org": { "*": { "n": 5 } },
        "@bob:elsewhere.example.org": { "*": { "n": 6 } },
    });
    assert_eq!(put(&bob, "1", messages).await.ok(), json!({}));
    let answer = alice.sync(None).await;
    let event = json!({ "type": "org.example", "sender": bob.id(), "content": { "n": 1 } });
    assert_eq!(answer["to_device"], json!({ "events": [event] }));
    assert_eq!(told(&phone.sync(None).await), [2], "what is for the one goes before");
    assert_eq!(told(&bob.sync(None).await), [3], "all devices: also the one that sends");
    let next = alice.sync(Some(&text(&answer["next_batch"]))).await;
    assert_eq!(next.get("to_device"), None);
}

#[tokio::test]
async fn a_content_passes_as_it_came() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let content =
        r#"{ "z":1.50,"a" : [ "\u00e9", -0, 1e3 ] ,"big":123456789012345678901234567890 }"#;
    let body = format!(r#"{{"messages":{{"{}":{{"*":{content}}}}}}}"#, alice.id());
    let path = "r0/sendToDevice/m.room.encrypted/1";
    bob.call(Method::PUT, path).body(body).send().await.ok();
    let answer = alice.get("v3/sync").await;
    let event =
        format!(r#"{{"type":"m.room.encrypted","sender":"{}","content":{content}}}"#, bob.id());
    assert!(answer.text.contains(&event), "{}", answer.text);
}

#[tokio::test]
async fn a_transaction_sends_once() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let since = alice.now().await;
    let message = |number: u64| json!({ alice.id(): { "*": { "n": number } } });
    let at_once = (0..8).map(|_| put(&bob, "same", message(1)));
    for answer in futures::future::join_all(at_once).await {
        answer.ok();
    }
    assert_eq!(told(&alice.sync(Some(&since)).await), [1]);
    // Another device and another type are other transactions.
    let tablet = server.device_of("bob").await;
    put(&tablet, "same", message(2)).await.ok();
    let other = json!({ "messages": message(3) });
    bob.put("v3/sendToDevice/org.example.other/same", other).await.ok();
    assert_eq!(told(&alice.sync(Some(&since)).await), [1, 2, 3]);

    let (bob, alice) = (bob.user.clone(), alice.user.clone());
    let server = server.restart().await;
    let bob = Client { server: &server, user: bob };
    let alice = Client { server: &server, user: alice };
    put(&bob, "same", json!({ alice.id(): { "*": { "n": 4 } } })).await.ok();
    server.pass(24 * 60 * 60);
    put(&bob, "same", json!({ alice.id(): { "*": { "n": 5 } } })).await.ok();
    assert_eq!(told(&alice.sync(Some(&since)).await), [1, 2, 3], "also on the next day");
}

#[tokio::test]
async fn old_transactions_are_forgotten() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let days = || {
        let reader = server.server.store.reader();
        let range = TO_DEVICE_TRANSACTIONS.prefix(&());
        let rows = reader.scan(&TO_DEVICE_TRANSACTIONS, &range, Direction::Forward, 99).unwrap();
        rows.into_iter().map(|(key, ())| key.day).collect::<Vec<_>>()
    };
    for day in 0..4 {
        tell(&bob, &alice, day).await;
        tell(&bob, &alice, 10 + day).await;
        server.pass(24 * 60 * 60);
    }
    let days = days();
    assert_eq!(days.len(), 4);
    assert_eq!((days[0] + 1, days[0]), (days[3], days[1]));
}

#[tokio::test]
async fn what_was_told_is_removed_by_the_next_token_also_after_a_restart() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let since = alice.now().await;
    for number in 0..3 {
        tell(&bob, &alice, number).await;
    }
    let answer = alice.sync(Some(&since)).await;
    assert_eq!(told(&answer), [0, 1, 2]);
    let user = alice.user.clone();
    let server = server.restart().await;
    let alice = Client { server: &server, user };
    assert_eq!(told(&alice.sync(Some(&since)).await), [0, 1, 2], "the answer got lost");
    stores(&alice, 3).await;
    let next = alice.sync(Some(&text(&answer["next_batch"]))).await;
    assert_eq!(told(&next), [0; 0]);
    stores(&alice, 0).await;
}

#[tokio::test]
async fn messages_of_many_senders_come_in_the_order_in_which_they_were_sent() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let senders =
        [server.client("bob").await, server.client("carol").await, server.device_of("bob").await];
    for number in 0..120 {
        tell(&senders[number % 3], &alice, number).await;
    }
    let first = alice.sync(None).await;
    let second = alice.sync_with(Some(&text(&first["next_batch"])), "timeout=30000").await;
    let all: Vec<u64> = told(&first).into_iter().chain(told(&second)).collect();
    assert_eq!(told(&first).len(), 100);
    assert_eq!(all, (0..120).collect::<Vec<u64>>());
}

#[tokio::test]
async fn the_token_of_a_cut_page_is_a_place_in_a_timeline() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    alice.send(&room, "hi").await;
    for number in 0..101 {
        tell(&bob, &alice, number).await;
    }
    let since = text(&alice.sync(None).await["next_batch"]);
    assert_eq!(since.matches('_').count(), 2);
    let page = alice.messages(&room, &format!("dir=b&from={since}&limit=1")).await.ok();
    assert_eq!(page["chunk"][0]["content"]["body"], json!("hi"));
    alice.get(&format!("v3/rooms/{room}/members?at={since}")).await.ok();
}

#[tokio::test]
async fn a_poll_is_woken_by_a_message() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let since = alice.now().await;
    let poll = alice.sync_with(Some(&since), "timeout=30000");
    let send = async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        tell(&bob, &alice, 7).await;
    };
    let (answer, ()) = tokio::join!(poll, send);
    assert_eq!(told(&answer), [7]);
}

#[tokio::test]
async fn a_device_that_ends_takes_its_messages_along() {
    let server = TestServer::new().await;
    let (alice, phone) = (server.client("alice").await, server.device_of("alice").await);
    let bob = server.client("bob").await;
    tell(&bob, &phone, 1).await;
    assert_eq!(stored(&phone), (1, 1));
    phone.post("v3/logout", json!({})).await.ok();
    assert_eq!(stored(&phone), (0, 0));
    tell(&bob, &phone, 2).await;
    assert_eq!(stored(&phone), (0, 0));
    assert_eq!(stored(&alice), (0, 0));
}

#[tokio::test]
async fn a_dehydrated_device_gets_its_messages() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let device_data = serde_json::value::to_raw_value(&json!({})).unwrap();
    let row = causerie::storage::rows::encryption::DehydratedDeviceRow {
        device_id: "DRY".to_owned(),
        device_data,
        display_name: None,
    };
    let mut batch = Batch::new();
    batch.put(&DEHYDRATED_DEVICES, &alice.id().to_owned(), &Json(row));
    server.server.store.commit(batch, Durability::Synced).await.unwrap();
    put(&bob, "1", json!({ alice.id(): { "*": {} } })).await.ok();
    put(&bob, "2", json!({ alice.id(): { "DRY": {} } })).await.ok();
    let mut dry = alice.clone();
    dry.user.device_id = "DRY".to_owned();
    assert_eq!((stored(&alice), stored(&dry)), ((1, 1), (2, 2)));
}

#[tokio::test]
async fn suspended_users_send_and_locked_ones_are_kept_what_they_get() {
    let server = TestServer::new().await;
    let admin = server.client("admin").await;
    server.server.users.set_admin(&admin.user.user_id, true).await.unwrap();
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let path = |what: &str, who: &Client<'_>| format!("v1/admin/{what}/{}", who.id());
    admin.put(&path("suspend", &bob), json!({ "suspended": true })).await.ok();
    admin.put(&path("lock", &alice), json!({ "locked": true })).await.ok();
    tell(&bob, &alice, 1).await;
    admin.put(&path("lock", &alice), json!({ "locked": false })).await.ok();
    assert_eq!(told(&alice.sync(None).await), [1]);
}

#[tokio::test]
async fn every_answer_says_how_many_keys_wait() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let first = alice.sync(None).await;
    let second = alice.sync(Some(&text(&first["next_batch"]))).await;
    for answer in [first, second] {
        assert_eq!(answer["device_one_time_keys_count"], json!({ "signed_curve25519": 0 }));
        assert_eq!(answer["device_unused_fallback_key_types"], json!([]));
    }
}

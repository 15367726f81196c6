//! Messages to devices and the counts of keys.

use kv::{Batch, Direction, Durability};
use ruma::to_device::DeviceIdOrAllDevices;

use super::*;
use crate::{
    encryption::to_device::Outgoing,
    storage::{
        schema::{
            encryption::{
                DeviceAlgorithmKey, KEY_COUNT_CHANGES, ONE_TIME_KEY_COUNTS, TO_DEVICE,
                TO_DEVICE_COUNTS,
            },
            users::DeviceKey,
        },
        topic,
    },
};

const LONG: How = How {
    filter: Value::Null,
    timeout_ms: 30_000,
    full_state: false,
    state_form: StateForm::Before,
};

impl Server {
    /// Sends messages to one device, each with its number.
    async fn tell(&self, sender: &Client, target: &Client, numbers: std::ops::Range<usize>) {
        for number in numbers {
            let content = to_raw_value(&json!({ "n": number })).unwrap();
            let device = DeviceIdOrAllDevices::DeviceId(target.device_id.clone());
            let contents = BTreeMap::from([(device, ruma::serde::Raw::from_json(content))]);
            let outgoing = Outgoing {
                sender: sender.user_id.clone(),
                device_id: sender.device_id.clone(),
                event_type: "org.example".to_owned(),
                transaction_id: format!("{number}"),
                messages: BTreeMap::from([(target.user_id.clone(), contents)]),
            };
            self.encryption.send_to_devices(outgoing, |_| Ok(())).await.unwrap();
        }
    }

    /// How many messages are stored for a device, and how many are counted.
    fn stored(&self, client: &Client) -> (usize, i64) {
        let key = device(client);
        let reader = self.store.reader();
        let range = TO_DEVICE.prefix(&(key.user_id.clone(), key.device_id.clone()));
        let rows = reader.scan(&TO_DEVICE, &range, Direction::Forward, usize::MAX).unwrap();
        (rows.len(), reader.get(&TO_DEVICE_COUNTS, &key).unwrap().unwrap_or_default())
    }

    /// Waits until so many are stored.
    async fn stores(&self, client: &Client, count: usize) {
        let expected = (count, i64::try_from(count).unwrap());
        for _ in 0..200 {
            if self.stored(client) == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(self.stored(client), expected);
    }

    fn reads(&self) -> (u64, u64) {
        let counters = self.store.counters();
        (counters.gets, counters.seeks)
    }
}

fn device(client: &Client) -> DeviceKey {
    DeviceKey { user_id: client.user_id.to_string(), device_id: client.device_id.to_string() }
}

fn numbers(answer: &Value) -> Vec<usize> {
    let events = answer["to_device"]["events"].as_array().into_iter().flatten();
    events.map(|event| usize::try_from(event["content"]["n"].as_u64().unwrap()).unwrap()).collect()
}

#[tokio::test]
async fn messages_are_told_until_the_token_comes_back() {
    let server = Server::new();
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let first = token(&server.sync(&alice, None).await);
    server.tell(&bob, &alice, 0..3).await;
    for _ in 0..2 {
        // The answer got lost: it is told again.
        let told = server.sync(&alice, Some(&first)).await;
        assert_eq!(numbers(&told), [0, 1, 2]);
    }
    let second = token(&server.sync(&alice, Some(&first)).await);
    server.stores(&alice, 3).await;
    server.tell(&bob, &alice, 3..4).await;
    let told = server.sync(&alice, Some(&second)).await;
    assert_eq!(numbers(&told), [3]);
    server.stores(&alice, 1).await;
    assert_eq!(numbers(&server.sync(&alice, Some(&first)).await), [3], "the others are gone");
    assert_eq!(numbers(&server.sync(&alice, None).await), [3], "a client that begins");
    assert!(is_empty(&server.sync(&alice, Some(&token(&told))).await));
    server.stores(&alice, 0).await;
}

#[tokio::test]
async fn a_sync_after_messages_reads_nothing_once_they_are_gone() {
    let server = Server::new();
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let first = server.sync(&alice, None).await;
    server.tell(&bob, &alice, 0..2).await;
    let told = server.sync(&alice, Some(&token(&first))).await;
    let next = server.sync(&alice, Some(&token(&told))).await;
    server.stores(&alice, 0).await;
    // The task that removes them looks whether there are more.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let before = server.reads();
    let how = How { timeout_ms: 20, ..How::default() };
    let answer = server.sync_how(&alice, Some(&token(&next)), how).await;
    assert!(is_empty(&answer));
    assert_eq!(server.reads(), before);
    assert_eq!(answer["device_one_time_keys_count"], json!({ "signed_curve25519": 0 }));
    assert_eq!(answer["device_unused_fallback_key_types"], json!([]));
}

#[tokio::test]
async fn t91_pages_are_cut_and_follow_each_other_at_once() {
    let server = Server::new();
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = server.room(&alice, Preset::Public).await;
    let mut since = token(&server.sync(&alice, None).await);
    let before = since.clone();
    server.tell(&bob, &alice, 0..250).await;
    let mut got = Vec::new();
    for (page, waiting) in [(0..100, 250), (100..200, 150), (200..250, 50)] {
        for _ in 0..2 {
            let told = server.sync_how(&alice, Some(&since), LONG).await;
            assert_eq!(numbers(&told), page.clone().collect::<Vec<_>>());
            got.push(token(&told));
        }
        server.stores(&alice, waiting).await;
        since = got.pop().unwrap();
        assert_eq!(since.matches('_').count(), if page.end == 250 { 1 } else { 2 });
    }
    // A token of a cut page is a place in a timeline like any other.
    server.say(&room, &alice, "hi").await;
    let told = server.sync(&alice, Some(&got[0])).await;
    assert_eq!(timeline(joined(&told, &room.id)), ["hi"]);
    let told = server.sync(&alice, Some(&before)).await;
    assert_eq!(numbers(&told), (200..250).collect::<Vec<_>>(), "what was not proven");
    let told = server.sync_how(&alice, Some(&since), How::default()).await;
    assert_eq!(timeline(joined(&told, &room.id)), ["hi"]);
    server.stores(&alice, 0).await;
}

#[tokio::test]
async fn a_token_of_another_epoch_or_of_the_future_proves_nothing() {
    let server = Server::new();
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    server.tell(&bob, &alice, 0..2).await;
    let told = server.sync(&alice, None).await;
    let other = token(&told).replacen("se_", "sf_", 1);
    for token in [&other, "se_99999999"] {
        let told = server.sync(&alice, Some(token)).await;
        assert_eq!(numbers(&told), [0, 1], "{token}");
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    server.stores(&alice, 2).await;
}

#[tokio::test]
async fn messages_are_removed_and_counted_once() {
    let server = Server::new();
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    server.tell(&bob, &alice, 0..450).await;
    let (key, now) = (device(&alice), server.store.position());
    let half = Position::from_u64(now.as_u64() - 100);
    let until =
        [now, half, now, half, now].map(|until| server.encryption.remove_messages(&key, until));
    let send = server.tell(&bob, &alice, 450..460);
    let (removed, ()) = tokio::join!(futures::future::join_all(until), send);
    assert!(removed.iter().all(Result::is_ok));
    server.stores(&alice, 10).await;
}

#[tokio::test]
async fn a_poll_waits_for_messages_for_its_own_device() {
    let server = Arc::new(Server::new());
    let (alice, other) = (server.client("alice").await, server.client("alice").await);
    let first = server.sync(&alice, None).await;
    let (waiting, client) = (server.clone(), alice.clone());
    let poll =
        tokio::spawn(async move { waiting.sync_how(&client, Some(&token(&first)), LONG).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    server.tell(&alice, &other, 0..1).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!poll.is_finished());
    server.tell(&other, &alice, 1..2).await;
    assert_eq!(numbers(&poll.await.unwrap()), [1]);
}

#[tokio::test]
async fn a_key_that_is_taken_is_news() {
    let server = Arc::new(Server::new());
    let (alice, other) = (server.client("alice").await, server.client("alice").await);
    let first = server.sync(&alice, None).await;
    let (waiting, client) = (server.clone(), alice.clone());
    let poll =
        tokio::spawn(async move { waiting.sync_how(&client, Some(&token(&first)), LONG).await });
    let change = async |client: &Client, delta: i64| {
        let key = device(client);
        let mut batch = Batch::new();
        batch.put(&KEY_COUNT_CHANGES, &key, &Position::pending(0));
        let DeviceKey { user_id, device_id } = key;
        let algorithm = "signed_curve25519".to_owned();
        let key = DeviceAlgorithmKey { user_id, device_id, algorithm };
        batch.add(&ONE_TIME_KEY_COUNTS, &key, delta);
        let user = Interner::new([7; 16]).user(&client.user_id);
        batch.touch(topic::user(topic::USER_DEVICES, user));
        server.store.commit(batch, Durability::Synced).await.unwrap();
    };
    tokio::time::sleep(Duration::from_millis(20)).await;
    change(&other, 9).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!poll.is_finished(), "the keys of another device");
    change(&alice, 5).await;
    let told = poll.await.unwrap();
    assert_eq!(told["device_one_time_keys_count"], json!({ "signed_curve25519": 5 }));
    let again = server.sync(&alice, Some(&token(&told))).await;
    assert_eq!(again["device_one_time_keys_count"], json!({ "signed_curve25519": 5 }));
}

#[tokio::test]
async fn whose_devices_changed_is_told_after_the_beginning() {
    let server = Server::new();
    let alice = server.client("alice").await;
    let first = server.sync(&alice, None).await;
    assert_eq!(first.get("device_lists"), None);
    assert_eq!(first.get("to_device"), None);
}

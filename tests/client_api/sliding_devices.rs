//! What encryption needs of sliding sync: messages for the device, and the counts of its keys.

use std::time::Duration;

use causerie::storage::{
    schema::{
        encryption::{DeviceAlgorithmKey, KEY_COUNT_CHANGES, ONE_TIME_KEY_COUNTS},
        users::DeviceKey,
    },
    topic,
};
use kv::{Batch, Durability, Position};
use serde_json::{Value, json};

use crate::{
    harness::{Client, TestServer, text},
    keys::{ALGORITHM, DeviceSigner, claim, upload},
    sliding::{all_rooms, pos, slide, try_slide},
    to_device::{numbers, stored, stores, tell},
};

/// The connection that Element X has for encryption.
fn encryption(since: Option<&str>) -> Value {
    let mut to_device = json!({ "enabled": true });
    if let Some(since) = since {
        to_device["since"] = json!(since);
    }
    let extensions = json!({ "to_device": to_device, "e2ee": { "enabled": true } });
    json!({ "conn_id": "encryption", "extensions": extensions })
}

fn told(answer: &Value) -> Vec<u64> {
    numbers(&answer["extensions"]["to_device"]["events"])
}

fn next(answer: &Value) -> String {
    text(&answer["extensions"]["to_device"]["next_batch"])
}

async fn go_on(client: &Client<'_>, last: &Value) -> Value {
    slide(client, Some(&pos(last)), &encryption(Some(&next(last)))).await
}

async fn wait(client: &Client<'_>, last: &Value) -> Value {
    let body = encryption(Some(&next(last)));
    try_slide(client, (Some(&pos(last)), 30_000), &body).await.ok()
}

async fn soon<T>(then: impl Future<Output = T>) -> T {
    tokio::time::sleep(Duration::from_millis(50)).await;
    then.await
}

/// As when another takes some of a device's keys, or the device uploads some.
async fn change_keys(client: &Client<'_>, delta: i64) {
    let user = client.server.server.users.accounts().parse(client.id()).unwrap();
    let (user_id, device_id) = (client.id().to_owned(), client.user.device_id.clone());
    let key = DeviceKey { user_id: user_id.clone(), device_id: device_id.clone() };
    let mut batch = Batch::new();
    batch.put(&KEY_COUNT_CHANGES, &key, &Position::pending(0));
    let algorithm = "signed_curve25519".to_owned();
    let key = DeviceAlgorithmKey { user_id, device_id, algorithm };
    batch.add(&ONE_TIME_KEY_COUNTS, &key, delta);
    let number = client.server.server.rooms.interner().user(&user);
    batch.touch(topic::user(topic::USER_DEVICES, number));
    client.server.server.store.commit(batch, Durability::Synced).await.unwrap();
}

fn keys(answer: &Value) -> &Value {
    &answer["extensions"]["e2ee"]["device_one_time_keys_count"]["signed_curve25519"]
}

#[tokio::test]
async fn messages_are_told_until_their_own_token_comes_back() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    tell(&bob, &alice, 1).await;
    let first = slide(&alice, None, &encryption(None)).await;
    assert_eq!(told(&first), [1]);
    let event = json!({ "type": "org.example", "sender": bob.id(), "content": { "n": 1 } });
    assert_eq!(first["extensions"]["to_device"]["events"], json!([event]));
    // The answer got lost, and the client begins anew.
    assert_eq!(told(&slide(&alice, None, &encryption(None)).await), [1]);
    let first = slide(&alice, None, &encryption(None)).await;
    tell(&bob, &alice, 2).await;
    let second = go_on(&alice, &first).await;
    assert_eq!(told(&second), [2]);
    // The same request once more is answered the same, also its messages.
    let again = go_on(&alice, &first).await;
    assert_eq!((told(&again), next(&again)), (vec![2], next(&second)));
    stores(&alice, 1).await;
    let third = go_on(&alice, &again).await;
    assert_eq!((told(&third), next(&third)), (vec![], next(&again)));
    stores(&alice, 0).await;
    // A connection that begins goes on from the token, which is no connection's.
    tell(&bob, &alice, 3).await;
    let other = slide(&alice, None, &encryption(Some(&next(&third)))).await;
    assert_eq!(told(&other), [3]);
}

#[tokio::test]
async fn t91_pages_follow_each_other_at_once() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let mut last = slide(&alice, None, &encryption(None)).await;
    for number in 0..130 {
        tell(&bob, &alice, number).await;
    }
    let mut all = Vec::new();
    for count in [100, 30] {
        last = wait(&alice, &last).await;
        assert_eq!(told(&last).len(), count);
        all.extend(told(&last));
    }
    assert_eq!(all, (0..130).collect::<Vec<u64>>());
    stores(&alice, 30).await;
    // The client's own limit.
    let mut body = encryption(Some(&next(&last)));
    body["extensions"]["to_device"]["limit"] = json!(2);
    for number in 0..3 {
        tell(&bob, &alice, 200 + number).await;
    }
    let page = slide(&alice, Some(&pos(&last)), &body).await;
    assert_eq!(told(&page), [200, 201]);
    body["extensions"]["to_device"]["since"] = json!(next(&page));
    let page = try_slide(&alice, (Some(&pos(&page)), 30_000), &body).await.ok();
    assert_eq!(told(&page), [202]);
}

#[tokio::test]
async fn a_token_that_is_not_of_this_time_proves_nothing() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    tell(&bob, &alice, 1).await;
    let first = slide(&alice, None, &encryption(None)).await;
    let token = next(&first);
    let (_, position) = token.split_once('_').unwrap();
    let other_epoch = format!("dfade_{position}");
    let future = token.replace(&format!("_{position}"), "_999999999");
    for since in [&other_epoch, &future, "17", "", "nonsense"] {
        let answer = slide(&alice, None, &encryption(Some(since))).await;
        assert_eq!(told(&answer), [1], "{since}");
    }
    soon(async {}).await;
    assert_eq!(stored(&alice), (1, 1));
}

#[tokio::test]
async fn the_connection_for_encryption_waits_for_what_concerns_it() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let phone = server.device_of("alice").await;
    let room = alice.public_room().await;
    bob.join(&room).await;
    let first = slide(&alice, None, &encryption(None)).await;
    let first = go_on(&alice, &first).await;
    let quiet = async {
        for what in 0..3 {
            match what {
                0 => drop(bob.send(&room, "hi").await),
                1 => tell(&bob, &phone, 9).await,
                _ => change_keys(&phone, 5).await,
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        tell(&bob, &alice, 1).await;
    };
    let (answer, ()) = tokio::join!(wait(&alice, &first), quiet);
    assert_eq!(told(&answer), [1]);
    let (answer, ()) = tokio::join!(wait(&alice, &answer), soon(change_keys(&alice, 5)));
    assert_eq!((told(&answer), keys(&answer)), (vec![], &json!(5)));
    let (answer, ()) = tokio::join!(wait(&alice, &answer), soon(change_keys(&alice, -1)));
    assert_eq!(keys(&answer), &json!(4));
    // What was told is no news.
    let body = encryption(Some(&next(&answer)));
    let started = std::time::Instant::now();
    let quiet = try_slide(&alice, (Some(&pos(&answer)), 60), &body).await.ok();
    assert!(started.elapsed() >= Duration::from_millis(60));
    assert_eq!((told(&quiet), keys(&quiet)), (vec![], &json!(4)));
}

#[tokio::test]
async fn the_connection_for_rooms_is_not_woken_by_messages() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    let rooms = all_rooms(19);
    let last = pos(&slide(&alice, None, &rooms).await);
    let devices = slide(&alice, None, &encryption(None)).await;
    let news = async {
        tell(&bob, &alice, 1).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
        alice.send(&room, "hi").await;
    };
    let (told_rooms, told_devices, ()) = tokio::join!(
        try_slide(&alice, (Some(&last), 30_000), &rooms),
        wait(&alice, &devices),
        soon(news)
    );
    assert_eq!(told_rooms.body["rooms"][&room]["num_live"], json!(1));
    assert_eq!(told_rooms.body["extensions"], json!({}));
    assert_eq!(told(&told_devices), [1]);
}

#[tokio::test]
async fn the_connection_for_encryption_reads_nothing_without_news() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    tell(&bob, &alice, 1).await;
    let mut last = slide(&alice, None, &encryption(None)).await;
    for _ in 0..2 {
        last = go_on(&alice, &last).await;
    }
    stores(&alice, 0).await;
    soon(async {}).await;
    let check = async |last: &Value, why: &str| {
        let before = server.server.store.counters();
        let answer = go_on(&alice, last).await;
        let after = server.server.store.counters();
        assert_eq!((after.gets - before.gets, after.seeks - before.seeks), (0, 0), "{why}");
        assert_eq!(keys(&answer), &json!(0));
        answer
    };
    let last = check(&last, "nothing happened").await;
    alice.send(&room, "hi").await;
    let last = check(&last, "events of rooms").await;
    check(&last, "nothing happened since").await;
}

#[tokio::test]
async fn extensions_can_be_turned_off_and_on() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let first = slide(&alice, None, &encryption(None)).await;
    let since = next(&first);
    tell(&bob, &alice, 1).await;
    let off = slide(&alice, Some(&pos(&first)), &json!({ "conn_id": "encryption" })).await;
    assert_eq!(off["extensions"], json!({}));
    change_keys(&alice, 3).await;
    let on = try_slide(&alice, (Some(&pos(&off)), 30_000), &encryption(Some(&since))).await.ok();
    assert_eq!((told(&on), keys(&on)), (vec![1], &json!(3)));
}

#[tokio::test]
async fn classic_and_sliding_sync_of_one_device_share_its_messages() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    tell(&bob, &alice, 1).await;
    assert_eq!(told(&slide(&alice, None, &encryption(None)).await), [1]);
    let classic = alice.sync(None).await;
    assert_eq!(numbers(&classic["to_device"]["events"]), [1]);
    alice.sync(Some(&text(&classic["next_batch"]))).await;
    stores(&alice, 0).await;
    assert_eq!(told(&slide(&alice, None, &encryption(None)).await), [0; 0]);
}

fn changed(answer: &Value) -> Vec<&str> {
    let changed = answer["extensions"]["e2ee"]["device_lists"]["changed"].as_array();
    changed.into_iter().flatten().map(|user| user.as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_change_of_devices_wakes_the_connection_for_encryption_alone() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    let rooms = all_rooms(19);
    let last = pos(&slide(&alice, None, &rooms).await);
    let first = slide(&alice, None, &encryption(None)).await;
    assert_eq!(changed(&first), [""; 0]);
    let keys = DeviceSigner::new(&bob).device_keys();
    let news = async {
        upload(&bob, json!({ "device_keys": keys })).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
        bob.send(&room, "hi").await;
    };
    let (of_rooms, of_devices, ()) = tokio::join!(
        try_slide(&alice, (Some(&last), 30_000), &rooms),
        wait(&alice, &first),
        soon(news)
    );
    assert_eq!(of_rooms.body["rooms"][&room]["num_live"], json!(1), "not woken before");
    assert_eq!(changed(&of_devices), [bob.id()]);
    // The same request again is told the same, the next one nothing.
    assert_eq!(changed(&go_on(&alice, &first).await), [bob.id()]);
    assert_eq!(changed(&go_on(&alice, &go_on(&alice, &first).await).await), [""; 0]);
}

#[tokio::test]
async fn who_joins_is_told_to_the_connection_for_encryption() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    let first = slide(&alice, None, &encryption(None)).await;
    let (joined, ()) = tokio::join!(wait(&alice, &first), soon(bob.join(&room)));
    assert_eq!(changed(&joined), [bob.id()]);
    let (parted, ()) = tokio::join!(wait(&alice, &joined), soon(bob.leave(&room)));
    assert_eq!(parted["extensions"]["e2ee"]["device_lists"]["left"], json!([bob.id()]));
}

#[tokio::test]
async fn what_changed_while_the_extension_was_off_is_told_later() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    let first = slide(&alice, None, &encryption(None)).await;
    let since = next(&first);
    let nothing = json!({ "conn_id": "encryption" });
    let off = slide(&alice, Some(&pos(&first)), &nothing).await;
    upload(&bob, json!({ "device_keys": DeviceSigner::new(&bob).device_keys() })).await;
    let off = slide(&alice, Some(&pos(&off)), &nothing).await;
    let on = slide(&alice, Some(&pos(&off)), &encryption(Some(&since))).await;
    assert_eq!(changed(&on), [bob.id()]);
    assert_eq!(changed(&go_on(&alice, &on).await), [""; 0]);
}

#[tokio::test]
async fn a_claim_wakes_both_syncs_of_the_device() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let signer = DeviceSigner::new(&alice);
    let own = json!({
        "device_keys": signer.device_keys(),
        "one_time_keys": signer.one_time_keys(&["A"]),
        "fallback_keys": signer.fallback_key("F"),
    });
    upload(&alice, own).await;
    let mut first = slide(&alice, None, &encryption(None)).await;
    let mut classic = alice.sync(None).await;
    assert_eq!(keys(&first), &json!(1));
    // The one-time key, then the fallback key.
    for unused in [json!([ALGORITHM]), json!([])] {
        let since = text(&classic["next_batch"]);
        let (sliding, told, _) = tokio::join!(
            wait(&alice, &first),
            alice.sync_with(Some(&since), "timeout=30000"),
            soon(claim(&bob, &alice))
        );
        assert_eq!(keys(&sliding), &json!(0));
        assert_eq!(told["device_one_time_keys_count"], json!({ ALGORITHM: 0 }));
        assert_eq!(told["device_unused_fallback_key_types"], unused);
        let types = &sliding["extensions"]["e2ee"]["device_unused_fallback_key_types"];
        assert_eq!(types, &unused);
        (first, classic) = (sliding, told);
    }
}

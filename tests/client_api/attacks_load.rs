//! How much work things are, counted in operations on the store and not in time.

use std::collections::BTreeSet;

use serde_json::json;

use crate::harness::{TestServer, encode, text, texts};

/// The most rows that one message may write: its bytes, record, hash, place in the timeline and
/// transaction, the room's head, what makes the room newer than others, and two of unread counts.
const PUTS_PER_SEND_MAX: u64 = 9;
/// As many as show whether a message costs something for each of them. (`make bench` has 10,000.)
const MANY_MEMBERS: usize = 200;

#[tokio::test]
async fn a_message_is_one_batch_of_few_rows() {
    // What the index of the search reads and writes in the background is not counted here.
    let server = TestServer::with(|config| config.search.enabled = false).await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    alice.send(&room, "warm").await;
    let mut puts = BTreeSet::new();
    for members in [2, MANY_MEMBERS] {
        for number in 2..members {
            server.client(&format!("member-{number}")).await.join(&room).await;
        }
        for number in 0..5 {
            let before = server.server.store.counters();
            alice.send(&room, &number.to_string()).await;
            let after = server.server.store.counters();
            assert_eq!(after.batches - before.batches, 1);
            assert_eq!(after.deletes, before.deletes);
            puts.insert(after.puts - before.puts);
        }
    }
    assert_eq!(puts.len(), 1, "{puts:?}");
    assert!(puts.last().is_some_and(|puts| *puts <= PUTS_PER_SEND_MAX), "{puts:?}");
}

#[tokio::test]
async fn an_idle_sync_reads_nothing() {
    // What the index of the search reads and writes in the background is not counted here.
    let server = TestServer::with(|config| config.search.enabled = false).await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    for _ in 0..5 {
        let room = alice.public_room().await;
        bob.join(&room).await;
    }
    let quiet = alice.public_room().await;
    let mut since = text(&bob.sync(None).await["next_batch"]);
    since = text(&bob.sync(Some(&since)).await["next_batch"]);
    // What happens where the user is not costs nothing either.
    alice.send(&quiet, "elsewhere").await;
    let before = server.server.store.counters();
    for _ in 0..3 {
        let told = bob.sync_with(Some(&since), "timeout=10").await;
        assert!(told.get("rooms").is_none());
        since = text(&told["next_batch"]);
    }
    let after = server.server.store.counters();
    assert_eq!(
        (before.gets, before.seeks, before.rows_scanned),
        (after.gets, after.seeks, after.rows_scanned)
    );
    assert_eq!(before.batches, after.batches);
}

#[tokio::test]
async fn t92_history_behind_unwanted_events_is_reached() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.create_room(json!({})).await;
    alice.send(&room, "first").await;
    for number in 0..60 {
        alice.try_send(&room, "org.noise", json!({ "number": number })).await.ok();
    }
    alice.send(&room, "last").await;
    let filter = encode(r#"{"types":["m.room.message"]}"#);
    for (direction, expected) in [("b", ["last", "first"]), ("f", ["first", "last"])] {
        let (mut found, mut from) = (Vec::new(), String::new());
        for _ in 0..100 {
            let query = format!("dir={direction}&limit=1&filter={filter}{from}");
            let page = alice.messages(&room, &query).await.ok();
            found.extend(texts(&page["chunk"]));
            match page["end"].as_str() {
                Some(end) if found.len() < 2 => from = format!("&from={end}"),
                _ => break,
            }
        }
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn t93_many_sends_at_once_are_put_in_order() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = bob.public_room().await;
    let names: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    let sends = names.iter().map(|name| bob.send(&room, name));
    let sets = names.iter().map(|name| bob.set(&room, "m.room.topic", json!({ "topic": name })));
    let joins = (0..3).map(|_| alice.join(&room));
    let sent = futures::future::join_all(sends);
    let (sent, topics, _) =
        futures::join!(sent, futures::future::join_all(sets), futures::future::join_all(joins));
    let page = bob.messages(&room, "dir=f&limit=1000").await.ok();
    let known = crate::harness::ids(&page["chunk"]);
    for event in sent.iter().chain(&topics) {
        assert_eq!(known.iter().filter(|known| *known == event).count(), 1);
    }
    let joins = page["chunk"].as_array().unwrap().iter();
    assert_eq!(joins.filter(|event| event["state_key"] == alice.id()).count(), 1);
}

#[tokio::test]
async fn t93_one_who_sends_too_much_is_told_to_wait_and_others_are_not() {
    let server = TestServer::with(|config| config.rate_limits.enabled = true).await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = bob.public_room().await;
    let content = json!({ "body": "x" });
    let mut refused = None;
    for _ in 0..30 {
        let answer = bob.try_send(&room, "m.room.message", content.clone()).await;
        if answer.status != 200 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("30 messages at once are too many");
    assert_eq!(refused.outcome(), (429, "M_LIMIT_EXCEEDED"));
    assert!(refused.body["retry_after_ms"].as_u64().unwrap() > 0);
    assert!(refused.headers.contains_key("retry-after"));
    let answer = bob.try_set(&room, "m.room.topic", json!({ "topic": "x" })).await;
    assert_eq!(answer.outcome(), (429, "M_LIMIT_EXCEEDED"));
    alice.join(&room).await;
    alice.send(&room, "hi").await;
    bob.sync(None).await;
}

#[tokio::test]
async fn t94_a_flap_of_a_membership_costs_the_same_first_and_last() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    let work = async || {
        let before = server.server.store.counters();
        for _ in 0..20 {
            bob.join(&room).await;
            bob.leave(&room).await;
        }
        let after = server.server.store.counters();
        let written = after.puts + after.deletes - before.puts - before.deletes;
        let read = after.gets + after.seeks + after.rows_scanned
            - (before.gets + before.seeks + before.rows_scanned);
        (written, read)
    };
    work().await;
    let first = work().await;
    for _ in 0..10 {
        work().await;
    }
    let last = work().await;
    assert!(last.0 * 2 <= first.0 * 3, "written: {first:?} at first, {last:?} at last");
    assert!(last.1 * 2 <= first.1 * 3, "read: {first:?} at first, {last:?} at last");
}

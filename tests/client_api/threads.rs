//! Threads: their summary, and the list of a room's threads.

use serde_json::{Value, json};

use crate::harness::{Client, TestServer, encode, ids, text};

async fn reply(user: &Client<'_>, room: &str, start: &str, body: &str) -> String {
    let relation = json!({ "rel_type": "m.thread", "event_id": start, "is_falling_back": true });
    let content = json!({ "msgtype": "m.text", "body": body, "m.relates_to": relation });
    text(&user.try_send(room, "m.room.message", content).await.ok()["event_id"])
}

async fn summary(user: &Client<'_>, room: &str, start: &str) -> Value {
    let told = user.event(room, start).await.ok();
    let thread = &told["unsigned"]["m.relations"]["m.thread"];
    if thread.is_null() {
        return Value::Null;
    }
    json!([
        thread["count"],
        thread["latest_event"]["event_id"],
        thread["current_user_participated"]
    ])
}

async fn threads(user: &Client<'_>, room: &str, query: &str) -> Value {
    user.get(&format!("v1/rooms/{room}/threads?{query}")).await.ok()
}

async fn ignore(user: &Client<'_>, others: &[&str]) {
    let path = format!("v3/user/{}/account_data/m.ignored_user_list", user.id());
    let list: Value = others.iter().map(|id| ((*id).to_owned(), json!({}))).collect();
    user.put(&path, json!({ "ignored_users": list })).await.ok();
}

#[tokio::test]
async fn a_thread_is_summed_up_with_its_root() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let carol = server.client("carol").await;
    let room = alice.public_room().await;
    bob.join(&room).await;
    carol.join(&room).await;
    let start = alice.send(&room, "start").await;
    assert_eq!(summary(&alice, &room, &start).await, Value::Null);
    let first = reply(&bob, &room, &start, "1").await;
    let second = reply(&bob, &room, &start, "2").await;
    let third = reply(&alice, &room, &start, "3").await;
    assert_eq!(summary(&alice, &room, &start).await, json!([3, third, true]));
    assert_eq!(summary(&bob, &room, &start).await, json!([3, third, true]));
    assert_eq!(summary(&carol, &room, &start).await, json!([3, third, false]));
    // What the latest reply amounts to is told with it.
    let relation = json!({ "rel_type": "m.replace", "event_id": third });
    let edit = json!({ "body": "*", "m.new_content": { "body": "3a" }, "m.relates_to": relation });
    alice.try_send(&room, "m.room.message", edit).await.ok();
    let told = bob.event(&room, &start).await.ok();
    let latest = &told["unsigned"]["m.relations"]["m.thread"]["latest_event"];
    let edit = &latest["unsigned"]["m.relations"]["m.replace"];
    assert_eq!(edit["content"]["m.new_content"]["body"], json!("3a"));
    alice.try_redact(&room, &third).await.ok();
    assert_eq!(summary(&carol, &room, &start).await, json!([2, second, false]));
    bob.try_redact(&room, &first).await.ok();
    assert_eq!(summary(&carol, &room, &start).await, json!([1, second, false]));
    assert_eq!(summary(&bob, &room, &start).await, json!([1, second, true]));
    bob.try_redact(&room, &second).await.ok();
    assert_eq!(summary(&bob, &room, &start).await, Value::Null);
    assert_eq!(threads(&alice, &room, "").await, json!({ "chunk": [] }));
    let last = reply(&carol, &room, &start, "4").await;
    assert_eq!(summary(&bob, &room, &start).await, json!([1, last, false]));
    // A redacted start keeps its thread.
    alice.try_redact(&room, &start).await.ok();
    assert_eq!(summary(&bob, &room, &start).await, json!([1, last, false]));
    assert_eq!(ids(&threads(&bob, &room, "").await["chunk"]), [start]);
}

#[tokio::test]
async fn replies_of_ignored_users_do_not_count() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    let start = alice.send(&room, "start").await;
    let first = reply(&alice, &room, &start, "1").await;
    let second = reply(&bob, &room, &start, "2").await;
    let only = alice.send(&room, "other").await;
    let third = reply(&bob, &room, &only, "3").await;
    let his = bob.send(&room, "his secret").await;
    reply(&alice, &room, &his, "4").await;
    assert_eq!(summary(&alice, &room, &start).await, json!([2, second, true]));
    assert_eq!(summary(&alice, &room, &only).await, json!([1, third, true]));
    let many: Vec<_> = (0..50).map(|n| format!("@nobody{n}:example.org")).collect();
    let mut ignored: Vec<_> = many.iter().map(String::as_str).collect();
    ignored.push(bob.id());
    for ignored in [&ignored[50..], &ignored[..]] {
        ignore(&alice, ignored).await;
        assert_eq!(summary(&alice, &room, &start).await, json!([1, first, true]));
        assert_eq!(summary(&alice, &room, &only).await, Value::Null);
        let list = threads(&alice, &room, "").await["chunk"].clone();
        assert_eq!(ids(&list), [his.clone(), start.clone()]);
        // A start of theirs is told without its content.
        assert_eq!(list[0]["content"], json!({}));
        assert_eq!(list[0]["unsigned"]["m.relations"]["m.thread"]["count"], json!(1));
    }
    assert_eq!(summary(&bob, &room, &start).await, json!([2, second, true]));
}

#[tokio::test]
async fn threads_are_listed_by_their_latest_reply() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    assert_eq!(threads(&alice, &room, "include=all&limit=30").await, json!({ "chunk": [] }));
    let mut roots = Vec::new();
    for number in 0..7 {
        roots.push(alice.send(&room, &number.to_string()).await);
    }
    let mut last = String::new();
    for start in &roots {
        last = reply(&alice, &room, start, "reply").await;
    }
    reply(&bob, &room, &roots[3], "later").await;
    let expected: Vec<_> = [3, 6, 5, 4, 2, 1, 0].map(|index: usize| roots[index].clone()).into();
    let all = threads(&alice, &room, "include=all&limit=30").await;
    assert_eq!(ids(&all["chunk"]), expected);
    assert!(all.get("next_batch").is_none());
    assert_eq!(ids(&threads(&alice, &room, "").await["chunk"]), expected[..5]);
    let participated = threads(&bob, &room, "include=participated").await;
    assert_eq!(ids(&participated["chunk"]), [roots[3].clone()]);
    assert_eq!(
        ids(&threads(&alice, &room, "include=participated&limit=30").await["chunk"]).len(),
        7
    );
    let (mut seen, mut from) = (Vec::new(), String::new());
    loop {
        let page = threads(&alice, &room, &format!("limit=3{from}")).await;
        assert!(ids(&page["chunk"]).len() <= 3);
        seen.extend(ids(&page["chunk"]));
        let Some(next) = page["next_batch"].as_str() else { break };
        from = format!("&from={next}");
    }
    assert_eq!(seen, expected);
    // The latest reply is gone: the thread falls back behind the one before it.
    alice.try_redact(&room, &last).await.ok();
    assert_eq!(ids(&threads(&alice, &room, "limit=2").await["chunk"])[1], roots[5]);
    for query in ["from=x", "limit=x", "include=some"] {
        let answer = alice.get(&format!("v1/rooms/{room}/threads?{query}")).await;
        assert_eq!(answer.outcome().0, 400, "{query}");
    }
}

#[tokio::test]
async fn t56_threads_are_for_who_may_read_the_room() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let carol = server.client("carol").await;
    let room = alice.public_room().await;
    bob.join(&room).await;
    let start = alice.send(&room, "start").await;
    let seen = reply(&alice, &room, &start, "1").await;
    let other = alice.send(&room, "other").await;
    bob.leave(&room).await;
    reply(&alice, &room, &start, "2").await;
    reply(&alice, &room, &other, "3").await;
    let list = threads(&bob, &room, "").await["chunk"].clone();
    assert_eq!(ids(&list), [start]);
    let thread = &list[0]["unsigned"]["m.relations"]["m.thread"];
    assert_eq!((&thread["count"], &thread["latest_event"]["event_id"]), (&json!(1), &json!(seen)));
    assert_eq!(ids(&threads(&alice, &room, "").await["chunk"]).len(), 2);
    for room in [room.as_str(), "!unknown:example.org"] {
        let answer = carol.get(&format!("v1/rooms/{room}/threads")).await;
        assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"));
    }
}

#[tokio::test]
async fn threads_do_not_nest() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.create_room(json!({})).await;
    let start = alice.send(&room, "start").await;
    let first = reply(&alice, &room, &start, "1").await;
    let relation = json!({ "rel_type": "m.thread", "event_id": first });
    let content = json!({ "body": "2", "m.relates_to": relation });
    let answer = alice.try_send(&room, "m.room.message", content).await;
    assert_eq!(answer.outcome(), (400, "M_UNKNOWN"));
    // A rich reply may begin one.
    let relation = json!({ "m.in_reply_to": { "event_id": start } });
    let content = json!({ "body": "re", "m.relates_to": relation });
    let sent = alice.try_send(&room, "m.room.message", content).await.ok();
    reply(&alice, &room, &text(&sent["event_id"]), "3").await;
    assert_eq!(ids(&threads(&alice, &room, "").await["chunk"]).len(), 2);
}

#[tokio::test]
async fn many_replies_at_once_are_all_counted() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.create_room(json!({})).await;
    let start = alice.send(&room, "start").await;
    let sends = (0..40).map(|_| reply(&alice, &room, &start, "x"));
    let sent = futures::future::join_all(sends).await;
    let told = alice.event(&room, &start).await.ok();
    let thread = &told["unsigned"]["m.relations"]["m.thread"];
    assert_eq!(thread["count"], json!(40));
    let path = format!("v1/rooms/{room}/relations/{}/m.thread?limit=100", encode(&start));
    let listed = ids(&alice.get(&path).await.ok()["chunk"]);
    assert_eq!(listed.len(), sent.len());
    assert_eq!(thread["latest_event"]["event_id"], json!(listed[0]));
    assert_eq!(ids(&threads(&alice, &room, "").await["chunk"]), [start]);
    let redactions = sent.iter().step_by(2).map(|reply| alice.try_redact(&room, reply));
    futures::future::join_all(redactions).await;
    assert_eq!(ids(&alice.get(&path).await.ok()["chunk"]).len(), 20);
    assert_eq!(server.server.rooms.check().unwrap().damages, Vec::<String>::new());
}

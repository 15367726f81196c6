//! Thread subscriptions (MSC4306) and their extension of sliding sync (MSC4308).

use serde_json::{Value, json};

use crate::{
    harness::{Client, TestServer, encode, text},
    sliding::{pos, slide},
};

const EXTENSION: &str = "io.element.msc4308.thread_subscriptions";
const CHANGES: &str = "unstable/io.element.msc4308/thread_subscriptions";

fn path(room: &str, first: &str) -> String {
    let first = encode(first);
    format!("unstable/io.element.msc4306/rooms/{room}/thread/{first}/subscription")
}

async fn reply(client: &Client<'_>, room: &str, first: &str) -> String {
    let content = json!({ "msgtype": "m.text", "body": "reply",
        "m.relates_to": { "rel_type": "m.thread", "event_id": first } });
    text(&client.try_send(room, "m.room.message", content).await.ok()["event_id"])
}

#[tokio::test]
async fn a_thread_is_followed_and_no_longer() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.public_room().await;
    let first = alice.send(&room, "root").await;
    let reply = reply(&alice, &room, &first).await;
    let path = path(&room, &first);
    assert_eq!(alice.get(&path).await.outcome(), (404, "M_NOT_FOUND"));
    alice.put(&path, json!({ "automatic": reply })).await.ok();
    assert_eq!(alice.get(&path).await.ok(), json!({ "automatic": true }));
    alice.put(&path, json!({})).await.ok();
    assert_eq!(alice.get(&path).await.ok(), json!({ "automatic": false }));
    alice.put(&path, json!({ "automatic": reply })).await.ok();
    assert_eq!(alice.get(&path).await.ok(), json!({ "automatic": false }), "the user's own wish");
    alice.delete(&path).await.ok();
    alice.delete(&path).await.ok();
    assert_eq!(alice.get(&path).await.outcome(), (404, "M_NOT_FOUND"));
}

#[tokio::test]
async fn a_client_does_not_undo_what_the_user_decided_since() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.public_room().await;
    let first = alice.send(&room, "root").await;
    let old = reply(&alice, &room, &first).await;
    let path = path(&room, &first);
    alice.delete(&path).await.ok();
    let refused = alice.put(&path, json!({ "automatic": old })).await;
    let errcode = "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION";
    assert_eq!(refused.outcome(), (409, errcode));
    let new = reply(&alice, &room, &first).await;
    alice.put(&path, json!({ "automatic": new })).await.ok();
    alice.delete(&path).await.ok();
    alice.put(&path, json!({})).await.ok();
    assert_eq!(alice.get(&path).await.ok(), json!({ "automatic": false }));
}

#[tokio::test]
async fn only_threads_that_one_may_see_can_be_followed() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.create_room(json!({})).await;
    let first = alice.send(&room, "root").await;
    let other = alice.send(&room, "no reply").await;
    let thread = path(&room, &first);
    for answer in [
        bob.put(&thread, json!({})).await,
        bob.get(&thread).await,
        bob.delete(&thread).await,
        alice.put(&path(&room, "$nothing"), json!({})).await,
        alice.put(&path("!nowhere:example.org", &first), json!({})).await,
        alice.put(&thread, json!({ "automatic": "$nothing" })).await,
    ] {
        assert_eq!(answer.outcome(), (404, "M_NOT_FOUND"));
    }
    let not_in_thread = "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD";
    for cause in [&other, &first] {
        let answer = alice.put(&thread, json!({ "automatic": cause })).await;
        assert_eq!(answer.outcome(), (400, not_in_thread));
    }
}

#[tokio::test]
async fn sliding_sync_tells_changes_and_the_rest_is_paged() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.public_room().await;
    let mut roots = Vec::new();
    for number in 0..5 {
        let first = alice.send(&room, &number.to_string()).await;
        alice.put(&path(&room, &first), json!({})).await.ok();
        roots.push(first);
    }
    let body = json!({ "extensions": { EXTENSION: { "enabled": true, "limit": 2 } } });
    let told = slide(&alice, None, &body).await;
    let threads = &told["extensions"][EXTENSION];
    let subscribed = |threads: &Value| {
        let found = threads["subscribed"][&room].as_object().cloned().unwrap_or_default();
        let mut found: Vec<String> = found.keys().cloned().collect();
        found.sort_unstable();
        found
    };
    let sorted = |roots: &[String]| {
        let mut roots = roots.to_vec();
        roots.sort_unstable();
        roots
    };
    assert_eq!(subscribed(threads), sorted(&roots[3..]));
    assert_eq!(threads["subscribed"][&room][&roots[4]]["automatic"], json!(false));
    let from = text(&threads["prev_batch"]);
    let page = alice.get(&format!("{CHANGES}?dir=b&limit=2&from={from}")).await.ok();
    assert_eq!(subscribed(&page), sorted(&roots[1..3]));
    let from = text(&page["end"]);
    let page = alice.get(&format!("{CHANGES}?dir=b&from={from}")).await.ok();
    assert_eq!(subscribed(&page), roots[..1]);
    assert!(page.get("end").is_none());
    alice.delete(&path(&room, &roots[0])).await.ok();
    let since = pos(&told);
    let told = slide(&alice, Some(&since), &body).await;
    let threads = &told["extensions"][EXTENSION];
    assert!(threads["unsubscribed"][&room][&roots[0]]["bump_stamp"].is_u64());
    assert!(threads.get("subscribed").is_none() && threads.get("prev_batch").is_none());
    let page = alice.get(&format!("{CHANGES}?dir=b&to={since}")).await.ok();
    assert!(page["unsubscribed"][&room][&roots[0]].is_object());
    assert!(page.get("subscribed").is_none(), "only what is after `to`: {page}");
    let quiet = slide(&alice, Some(&pos(&told)), &body).await;
    assert_eq!(quiet["extensions"][EXTENSION], json!({}));
    for query in ["dir=b&from=x", "dir=b&limit=0"] {
        let answer = alice.get(&format!("{CHANGES}?{query}")).await;
        assert_eq!(answer.outcome(), (400, "M_INVALID_PARAM"), "{query}");
    }
}

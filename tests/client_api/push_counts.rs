//! Unread counts in `/sync`, and the list of notifications.

use serde_json::{Value, json};

use crate::harness::{Client, TestServer, encode, text};

async fn pair(server: &TestServer) -> (Client<'_>, Client<'_>, String) {
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    (alice, bob, room)
}

/// The counts of a room: notifications and highlights.
fn counts(answer: &Value, room: &str) -> (u64, u64) {
    let counts = &answer["rooms"]["join"][room]["unread_notifications"];
    let count = |name: &str| counts[name].as_u64().unwrap();
    (count("notification_count"), count("highlight_count"))
}

async fn unread(client: &Client<'_>, room: &str) -> (u64, u64) {
    counts(&client.sync(None).await, room)
}

async fn say(client: &Client<'_>, room: &str, content: Value) -> String {
    text(&client.try_send(room, "m.room.message", content).await.ok()["event_id"])
}

async fn read(client: &Client<'_>, room: &str, event: &str, body: Value) {
    let path = format!("v3/rooms/{room}/receipt/m.read/{}", encode(event));
    client.post(&path, body).await.ok();
}

fn in_thread(root: &str, body: &str) -> Value {
    json!({
        "msgtype": "m.text",
        "body": body,
        "m.relates_to": { "rel_type": "m.thread", "event_id": root },
    })
}

fn mention(user: &str) -> Value {
    json!({ "msgtype": "m.text", "body": "you", "m.mentions": { "user_ids": [user] } })
}

#[tokio::test]
async fn messages_mentions_and_notices_are_counted() {
    let server = TestServer::new().await;
    let (alice, bob, room) = pair(&server).await;
    assert_eq!(unread(&bob, &room).await, (0, 0));
    alice.send(&room, "one").await;
    assert_eq!(unread(&bob, &room).await, (1, 0));
    say(&alice, &room, json!({ "msgtype": "m.notice", "body": "note" })).await;
    assert_eq!(unread(&bob, &room).await, (1, 0));
    let mentioned = say(&alice, &room, mention(bob.id())).await;
    assert_eq!(unread(&bob, &room).await, (2, 1));
    let all = json!({ "msgtype": "m.text", "body": "all", "m.mentions": { "room": true } });
    let last = say(&alice, &room, all).await;
    assert_eq!(unread(&bob, &room).await, (3, 2));
    assert_eq!(unread(&alice, &room).await, (0, 0));
    alice.try_redact(&room, &mentioned).await.ok();
    assert_eq!(unread(&bob, &room).await, (2, 1));
    // A new name is no sign of having read.
    bob.put(&format!("v3/profile/{}/displayname", bob.id()), json!({ "displayname": "Bobby" }))
        .await
        .ok();
    assert_eq!(unread(&bob, &room).await, (2, 1));
    read(&bob, &room, &last, json!({})).await;
    assert_eq!(unread(&bob, &room).await, (0, 0));
}

#[tokio::test]
async fn threads_are_counted_by_themselves() {
    let server = TestServer::new().await;
    let (alice, bob, room) = pair(&server).await;
    let start = alice.send(&room, "root").await;
    let first = say(&alice, &room, in_thread(&start, "first")).await;
    let mut second = in_thread(&start, "second");
    second["m.mentions"] = json!({ "user_ids": [bob.id()] });
    say(&alice, &room, second).await;
    let filter = encode(r#"{"room":{"timeline":{"unread_thread_notifications":true}}}"#);
    let threaded = async || bob.sync_with(None, &format!("timeout=0&filter={filter}")).await;
    let answer = threaded().await;
    assert_eq!(counts(&answer, &room), (1, 0));
    let threads =
        |answer: &Value| answer["rooms"]["join"][&room]["unread_thread_notifications"].clone();
    let expected = json!({ &start: { "notification_count": 2, "highlight_count": 1 } });
    assert_eq!(threads(&answer), expected);
    // Without the filter all is one.
    let whole = bob.sync(None).await;
    assert_eq!(counts(&whole, &room), (3, 1));
    assert_eq!(threads(&whole), Value::Null);
    read(&bob, &room, &start, json!({ "thread_id": "main" })).await;
    assert_eq!(counts(&threaded().await, &room), (0, 0));
    read(&bob, &room, &first, json!({ "thread_id": start })).await;
    let answer = threaded().await;
    let expected = json!({ &start: { "notification_count": 1, "highlight_count": 1 } });
    assert_eq!(threads(&answer), expected);
    // What relates to the root in another way is shown in the thread too.
    let reaction = json!({
        "m.relates_to": { "rel_type": "m.annotation", "event_id": start, "key": "+" },
    });
    let path = format!("v3/rooms/{room}/send/m.reaction/reaction");
    let reaction = alice.put(&path, reaction).await.ok()["event_id"].as_str().unwrap().to_owned();
    read(&bob, &room, &reaction, json!({ "thread_id": start })).await;
    assert_eq!(threads(&threaded().await), Value::Null);
    let last = alice.send(&room, "last").await;
    read(&bob, &room, &last, json!({})).await;
    let answer = threaded().await;
    assert_eq!((counts(&answer, &room), threads(&answer)), ((0, 0), Value::Null));
}

#[tokio::test]
async fn rules_decide_what_is_counted() {
    let server = TestServer::new().await;
    let (alice, bob, room) = pair(&server).await;
    // With a third the rules for one-to-one rooms do not apply.
    let carol = server.client("carol").await;
    carol.join(&room).await;
    let rule = async |path: &str, body: Value| {
        bob.put(&format!("v3/pushrules/global/{path}"), body).await.ok();
    };
    rule("underride/.m.rule.message/enabled", json!({ "enabled": false })).await;
    let loud = json!(["notify", { "set_tweak": "highlight" }]);
    rule("content/cake", json!({ "pattern": "cake", "actions": loud })).await;
    alice.send(&room, "pancakes").await;
    assert_eq!(unread(&bob, &room).await, (0, 0));
    let last = alice.send(&room, "Cake!").await;
    assert_eq!(unread(&bob, &room).await, (1, 1));
    read(&bob, &room, &last, json!({})).await;
    // A muted room counts nothing, not even what is in the counts of others.
    let condition = json!({ "kind": "event_match", "key": "room_id", "pattern": room });
    let mute = json!({ "conditions": [condition], "actions": [] });
    rule(&format!("override/{}", encode(&room)), mute).await;
    say(&alice, &room, mention(bob.id())).await;
    assert_eq!(unread(&bob, &room).await, (0, 0));
    assert_eq!(unread(&carol, &room).await, (3, 0));
    // Nor does it count when the room is not muted any more, but what comes then does.
    bob.delete(&format!("v3/pushrules/global/override/{}", encode(&room))).await.ok();
    assert_eq!(unread(&bob, &room).await, (0, 0));
    say(&alice, &room, mention(bob.id())).await;
    assert_eq!(unread(&bob, &room).await, (1, 1));
    // The same of all rooms at once.
    rule("override/.m.rule.master/enabled", json!({ "enabled": true })).await;
    assert_eq!(unread(&bob, &room).await, (0, 0));
    say(&alice, &room, mention(bob.id())).await;
    rule("override/.m.rule.master/enabled", json!({ "enabled": false })).await;
    say(&alice, &room, mention(bob.id())).await;
    assert_eq!(unread(&bob, &room).await, (1, 1));
    assert_eq!(unread(&carol, &room).await, (6, 0));
}

#[tokio::test]
async fn ignored_users_are_not_counted() {
    let server = TestServer::new().await;
    let (alice, bob, room) = pair(&server).await;
    let ignored = json!({ "ignored_users": { alice.id(): {} } });
    bob.put(&format!("v3/user/{}/account_data/m.ignored_user_list", bob.id()), ignored).await.ok();
    alice.send(&room, "psst").await;
    assert_eq!(unread(&bob, &room).await, (0, 0));
}

#[tokio::test]
async fn notifications_are_listed_from_the_newest() {
    let server = TestServer::new().await;
    let (alice, bob, room) = pair(&server).await;
    let first = alice.send(&room, "one").await;
    say(&alice, &room, json!({ "msgtype": "m.notice", "body": "note" })).await;
    bob.send(&room, "own").await;
    let second = say(&alice, &room, mention(bob.id())).await;
    let list = async |query: &str| bob.get(&format!("v3/notifications?{query}")).await.ok();
    let ids = |answer: &Value| -> Vec<String> {
        let list = answer["notifications"].as_array().unwrap();
        list.iter().map(|notification| text(&notification["event"]["event_id"])).collect()
    };
    let all = list("").await;
    assert_eq!(ids(&all), [second.clone(), first.clone()]);
    let [newest, oldest] = [&all["notifications"][0], &all["notifications"][1]];
    assert_eq!((&newest["read"], &oldest["read"]), (&json!(false), &json!(true)));
    assert_eq!(newest["room_id"], json!(room));
    assert!(newest["actions"].as_array().unwrap().contains(&json!("notify")));
    assert_eq!(all["next_token"], Value::Null);
    let page = list("limit=1").await;
    assert_eq!(ids(&page), std::slice::from_ref(&second));
    let rest = list(&format!("limit=1&from={}", text(&page["next_token"]))).await;
    assert_eq!(ids(&rest), [first]);
    assert_eq!(ids(&list("only=highlight").await), [second]);
    let wrong = bob.get("v3/notifications?from=nonsense").await;
    assert_eq!(wrong.outcome(), (400, "M_INVALID_PARAM"));
}

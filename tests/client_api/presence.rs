//! Presence.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Client, PASSWORD, TestServer};

async fn set(client: &Client<'_>, presence: &str, status: &str) {
    let path = format!("v3/presence/{}/status", client.id());
    client.put(&path, json!({ "presence": presence, "status_msg": status })).await.ok();
}

/// Syncs until this is told of somebody's presence.
async fn told(client: &Client<'_>, since: &mut String, user: &str, presence: &str) -> Value {
    for _ in 0..50 {
        let query = "timeout=2000&set_presence=offline";
        let answer = client.sync_with(Some(since.as_str()), query).await;
        since.clone_from(&answer["next_batch"].as_str().unwrap().to_owned());
        let events = answer["presence"]["events"].as_array().cloned().unwrap_or_default();
        let found = events
            .into_iter()
            .find(|event| event["sender"] == user && event["content"]["presence"] == presence);
        if let Some(event) = found {
            return event;
        }
    }
    panic!("{presence} of {user} was never told");
}

async fn start(client: &Client<'_>) -> String {
    let answer = client.sync_with(None, "timeout=0&set_presence=offline").await;
    answer["next_batch"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn members_of_a_room_see_each_other() {
    let server = TestServer::with(|config| config.presence.enabled = true).await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    let mut since = start(&bob).await;
    alice.sync_with(None, "timeout=0&set_presence=online").await;
    let event = told(&bob, &mut since, alice.id(), "online").await;
    assert_eq!(event["type"], "m.presence");
    assert_eq!(event["content"]["currently_active"], true);
    set(&alice, "busy", "in a meeting").await;
    let event = told(&bob, &mut since, alice.id(), "org.matrix.msc3026.busy").await;
    assert_eq!(event["content"]["status_msg"], "in a meeting");
    set(&alice, "online", "").await;
    let event = told(&bob, &mut since, alice.id(), "online").await;
    assert!(event["content"].get("status_msg").is_none());
    // Whoever comes later learns it too, and does not see who hides.
    let first = bob.sync_with(None, "timeout=0").await;
    let seen = first["presence"]["events"].as_array().unwrap().clone();
    assert_eq!(seen.iter().map(|event| &event["sender"]).collect::<Vec<_>>(), [alice.id()]);
    // Without a sync alice is gone after a while.
    server.pass(60);
    told(&bob, &mut since, alice.id(), "offline").await;
}

#[tokio::test]
async fn who_shares_no_room_sees_nothing() {
    let server = TestServer::with(|config| config.presence.enabled = true).await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let mut since = start(&bob).await;
    set(&alice, "online", "here").await;
    for user in [alice.id(), "@nobody:example.org"] {
        let answer = bob.get(&format!("v3/presence/{user}/status")).await;
        assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"), "{user}");
    }
    assert!(bob.sync(Some(&since)).await.get("presence").is_none());
    // A room in common changes that, also for who is already there.
    let room = alice.public_room().await;
    bob.join(&room).await;
    told(&bob, &mut since, alice.id(), "online").await;
    let answer = bob.get(&format!("v3/presence/{}/status", alice.id())).await.ok();
    assert_eq!(answer["presence"], "online");
    assert_eq!(answer["status_msg"], "here");
    assert_eq!(answer["last_active_ago"], 0);
}

#[tokio::test]
async fn only_the_user_sets_a_presence_that_there_is() {
    let server = TestServer::with(|config| config.presence.enabled = true).await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let path = format!("v3/presence/{}/status", alice.id());
    let answer = bob.put(&path, json!({ "presence": "online" })).await;
    assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"));
    let answer = alice.put(&path, json!({ "presence": "asleep" })).await;
    assert_eq!(answer.outcome(), (400, "M_INVALID_PARAM"));
    let long = "x".repeat(1025);
    let answer = alice.put(&path, json!({ "presence": "online", "status_msg": long })).await;
    assert_eq!(answer.outcome(), (413, "M_TOO_LARGE"));
    let answer = alice.call(Method::GET, "v3/sync?timeout=0&set_presence=asleep").send().await;
    assert_eq!(answer.outcome(), (400, "M_INVALID_PARAM"));
}

#[tokio::test]
async fn presence_can_be_turned_off() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    set(&alice, "online", "here").await;
    alice.sync(None).await;
    assert!(bob.sync(None).await.get("presence").is_none());
    let answer = bob.get(&format!("v3/presence/{}/status", alice.id())).await.ok();
    assert_eq!(answer["presence"], "offline");
}

#[tokio::test]
async fn the_presence_of_an_account_ends_with_it() {
    let server = TestServer::with(|config| config.presence.enabled = true).await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    let mut since = start(&bob).await;
    alice.sync_with(None, "timeout=0&set_presence=online").await;
    set(&alice, "busy", "secret").await;
    told(&bob, &mut since, alice.id(), "org.matrix.msc3026.busy").await;
    let auth = json!({ "type": "m.login.password", "password": PASSWORD,
        "identifier": { "type": "m.id.user", "user": "alice" } });
    alice.post("v3/account/deactivate", json!({ "auth": auth, "erase": true })).await.ok();
    let event = told(&bob, &mut since, alice.id(), "offline").await;
    assert!(event["content"].get("status_msg").is_none(), "{event}");
    // Nobody is invited who cannot come.
    for (path, body) in [
        (format!("v3/rooms/{room}/invite"), json!({ "user_id": alice.id() })),
        ("v3/createRoom".to_owned(), json!({ "invite": [alice.id()] })),
    ] {
        assert_eq!(bob.post(&path, body).await.outcome(), (403, "M_FORBIDDEN"), "{path}");
    }
    let path = format!("v3/rooms/{room}/state/m.room.member/{}", alice.id());
    let answer = bob.put(&path, json!({ "membership": "invite" })).await;
    assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"));
}

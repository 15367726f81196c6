//! Pushers, and what a push gateway is told.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex, atomic::AtomicUsize, atomic::Ordering},
    time::Duration,
};

use axum::{Router, routing::post};
use causerie::{server::Server, time::Clock};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::harness::{Client, PASSWORD, TestServer, encode, password_stage};

/// A push gateway that notes what it is told.
#[derive(Clone, Default)]
struct Gateway {
    port: u16,
    told: Arc<Mutex<Vec<Value>>>,
    /// How many requests fail before one succeeds.
    failures: Arc<AtomicUsize>,
    /// How many requests after those are refused.
    refusals: Arc<AtomicUsize>,
    asked: Arc<AtomicUsize>,
    rejected: Arc<Mutex<Vec<String>>>,
}

impl Gateway {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let gateway = Self { port: listener.local_addr().unwrap().port(), ..Self::default() };
        let this = gateway.clone();
        let notify = move |body: String| {
            let this = this.clone();
            async move { this.answer(&body) }
        };
        let router = Router::new().route("/_matrix/push/v1/notify", post(notify));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        gateway
    }

    fn answer(&self, body: &str) -> (StatusCode, String) {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let left = self.failures.load(Ordering::SeqCst);
        if left > 0 {
            self.failures.store(left - 1, Ordering::SeqCst);
            return (StatusCode::BAD_GATEWAY, String::new());
        }
        let left = self.refusals.load(Ordering::SeqCst);
        if left > 0 {
            self.refusals.store(left - 1, Ordering::SeqCst);
            return (StatusCode::BAD_REQUEST, String::new());
        }
        let body: Value = serde_json::from_str(body).unwrap();
        self.told.lock().unwrap().push(body["notification"].clone());
        let rejected = self.rejected.lock().unwrap().clone();
        (StatusCode::OK, json!({ "rejected": rejected }).to_string())
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/_matrix/push/v1/notify", self.port)
    }

    fn told(&self) -> Vec<Value> {
        self.told.lock().unwrap().clone()
    }

    /// What it was told, once it is so much.
    async fn wait_for(&self, count: usize) -> Vec<Value> {
        wait_until(|| self.told().len() >= count).await;
        self.told()
    }
}

async fn wait_until(condition: impl Fn() -> bool) {
    for _ in 0..3_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it did not come about within a minute");
}

async fn server() -> TestServer {
    TestServer::with(|config| {
        config.egress.allowed_networks = vec!["127.0.0.1".parse().unwrap()];
    })
    .await
}

fn pusher(url: &str, pushkey: &str) -> Value {
    json!({
        "kind": "http",
        "app_id": "org.example.app",
        "pushkey": pushkey,
        "app_display_name": "App",
        "device_display_name": "Phone",
        "lang": "en",
        "data": { "url": url, "custom": { "x": 1 } },
    })
}

async fn set(client: &Client<'_>, body: Value) {
    client.post("v3/pushers/set", body).await.ok();
}

async fn list(client: &Client<'_>) -> Vec<Value> {
    client.get("v3/pushers").await.ok()["pushers"].as_array().unwrap().clone()
}

async fn pair(server: &TestServer) -> (Client<'_>, Client<'_>, String) {
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    (alice, bob, room)
}

const ELSEWHERE: &str = "https://push.example.org/_matrix/push/v1/notify";

#[tokio::test]
async fn a_pusher_is_set_replaced_listed_and_removed() {
    let server = server().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    set(&alice, pusher(ELSEWHERE, "key")).await;
    let mut changed = pusher(ELSEWHERE, "key");
    changed["lang"] = json!("de");
    changed["data"]["format"] = json!("event_id_only");
    set(&alice, changed.clone()).await;
    assert_eq!(list(&alice).await, [changed]);
    // Another user takes the key over, unless both may have it.
    let mut both = pusher(ELSEWHERE, "key");
    both["append"] = json!(true);
    set(&bob, both).await;
    assert_eq!((list(&alice).await.len(), list(&bob).await.len()), (1, 1));
    set(&bob, pusher(ELSEWHERE, "key")).await;
    assert_eq!((list(&alice).await.len(), list(&bob).await.len()), (0, 1));
    let gone = json!({ "kind": null, "app_id": "org.example.app", "pushkey": "key" });
    set(&bob, gone.clone()).await;
    set(&bob, gone).await;
    assert!(list(&bob).await.is_empty());
}

#[tokio::test]
async fn t90_what_is_too_long_or_leads_nowhere_is_refused() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let with = |path: &str, value: Value| {
        let mut body = pusher(ELSEWHERE, "key");
        *body.pointer_mut(path).unwrap() = value;
        body
    };
    for body in [
        with("/pushkey", json!("x".repeat(513))),
        with("/pushkey", json!("")),
        with("/app_id", json!("x".repeat(65))),
        with("/lang", json!("x".repeat(2_000))),
        with("/data/custom", json!("x".repeat(5_000))),
        with("/data/url", json!("https://push.example.org/elsewhere")),
        with("/data/url", json!("http://push.example.org/_matrix/push/v1/notify")),
        with("/data/url", json!("file:///_matrix/push/v1/notify")),
        with("/kind", json!("email")),
        with("/kind", json!("carrier pigeon")),
    ] {
        let answer = alice.post("v3/pushers/set", body.clone()).await;
        assert_eq!(answer.outcome(), (400, "M_INVALID_PARAM"), "{body}");
    }
    set(&alice, with("/pushkey", json!("x".repeat(512)))).await;
    assert_eq!(server.get("v3/pushers").send().await.outcome(), (401, "M_MISSING_TOKEN"));
}

#[tokio::test]
async fn a_gateway_is_told_of_an_event() {
    let server = server().await;
    let gateway = Gateway::start().await;
    let (alice, bob, room) = pair(&server).await;
    alice.set(&room, "m.room.name", json!({ "name": "Tea" })).await;
    set(&bob, pusher(&gateway.url(), "key")).await;
    let content = json!({
        "msgtype": "m.text",
        "body": "you",
        "m.mentions": { "user_ids": [bob.id()] },
    });
    let sent = alice.try_send(&room, "m.room.message", content.clone()).await.ok();
    let told = gateway.wait_for(1).await;
    let expected = json!({
        "event_id": sent["event_id"],
        "room_id": room,
        "type": "m.room.message",
        "sender": alice.id(),
        "sender_display_name": "alice",
        "room_name": "Tea",
        "content": content,
        "counts": { "unread": 1 },
        "devices": [{
            "app_id": "org.example.app",
            "pushkey": "key",
            "pushkey_ts": 1_800_000_000,
            "data": { "custom": { "x": 1 } },
            "tweaks": { "sound": "default", "highlight": true },
        }],
    });
    let mut found = told[0].clone();
    // Whether there is a name for a user without one is the profile's business.
    found["sender_display_name"] = json!("alice");
    assert_eq!(found, expected);
    // Own messages and notices are not told.
    bob.send(&room, "own").await;
    let notice = json!({ "msgtype": "m.notice", "body": "note" });
    alice.try_send(&room, "m.room.message", notice).await.ok();
    alice.send(&room, "last").await;
    // The second is the badge that fell when bob sent something, or it came too late for that.
    wait_until(|| gateway.told().iter().any(|told| told["content"]["body"] == "last")).await;
    let bodies: Vec<_> =
        gateway.told().iter().map(|told| told["content"]["body"].clone()).collect();
    assert!(!bodies.contains(&json!("own")) && !bodies.contains(&json!("note")), "{bodies:?}");
}

#[tokio::test]
async fn nothing_is_lost_while_much_happens() {
    let server = server().await;
    let gateway = Gateway::start().await;
    let (alice, bob, one) = pair(&server).await;
    let two = alice.public_room().await;
    bob.join(&two).await;
    set(&bob, pusher(&gateway.url(), "key")).await;
    for number in 0..20 {
        let body = number.to_string();
        tokio::join!(alice.send(&one, &body), alice.send(&two, &body));
    }
    let mut told: Vec<_> =
        gateway.wait_for(40).await.iter().map(|told| told["event_id"].to_string()).collect();
    told.sort_unstable();
    told.dedup();
    assert_eq!(told.len(), 40);
}

#[tokio::test]
async fn what_a_gateway_refuses_thrice_does_not_hold_up_the_rest() {
    let server = server().await;
    let gateway = Gateway::start().await;
    let (alice, bob, room) = pair(&server).await;
    set(&bob, pusher(&gateway.url(), "key")).await;
    gateway.refusals.store(3, Ordering::SeqCst);
    alice.send(&room, "poison").await;
    alice.send(&room, "next").await;
    let told = gateway.wait_for(1).await;
    assert_eq!(told[0]["content"]["body"], "next");
    assert_eq!(gateway.asked.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn invites_of_those_who_are_ignored_are_not_told() {
    let server = server().await;
    let gateway = Gateway::start().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let carol = server.client("carol").await;
    set(&bob, pusher(&gateway.url(), "key")).await;
    let ignored = json!({ "ignored_users": { carol.id(): {} } });
    let path = format!("v3/user/{}/account_data/m.ignored_user_list", encode(bob.id()));
    bob.put(&path, ignored).await.ok();
    for client in [&carol, &alice] {
        let room = client.public_room().await;
        let path = format!("v3/rooms/{}/invite", encode(&room));
        client.post(&path, json!({ "user_id": bob.id() })).await.ok();
    }
    let told = gateway.wait_for(1).await;
    assert_eq!(told[0]["sender"], alice.id());
}

#[tokio::test]
async fn no_more_than_the_ids_is_told_when_asked_for() {
    let server = server().await;
    let gateway = Gateway::start().await;
    let (alice, bob, room) = pair(&server).await;
    let mut body = pusher(&gateway.url(), "key");
    body["data"] = json!({ "url": gateway.url(), "format": "event_id_only" });
    set(&bob, body).await;
    let event = alice.send(&room, "secret").await;
    let told = gateway.wait_for(1).await;
    let device = json!({
        "app_id": "org.example.app",
        "pushkey": "key",
        "pushkey_ts": 1_800_000_000,
        "data": { "format": "event_id_only" },
        "tweaks": { "sound": "default" },
    });
    let expected = json!({
        "event_id": event,
        "room_id": room,
        "counts": { "unread": 1 },
        "devices": [device],
    });
    assert_eq!(told, [expected]);
}

#[tokio::test]
async fn an_invitation_is_told() {
    let server = server().await;
    let gateway = Gateway::start().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    set(&bob, pusher(&gateway.url(), "key")).await;
    let room = alice.create_room(json!({ "preset": "private_chat" })).await;
    alice.invite(&room, &bob).await;
    let told = gateway.wait_for(1).await;
    assert_eq!(told[0]["type"], "m.room.member");
    assert_eq!(told[0]["user_is_target"], true);
    // It counts as one unread thing until it is answered.
    assert_eq!(told[0]["counts"]["unread"], 1);
    let path = format!("v3/rooms/{}/leave", encode(&room));
    bob.post(&path, json!({})).await.ok();
    let told = gateway.wait_for(2).await;
    assert_eq!(told[1].get("event_id"), None);
    assert_eq!(told[1]["counts"].get("unread").unwrap_or(&json!(0)), 0);
}

#[tokio::test]
async fn a_gateway_that_fails_is_asked_again() {
    let server = server().await;
    let gateway = Gateway::start().await;
    let (alice, bob, room) = pair(&server).await;
    gateway.failures.store(1, Ordering::SeqCst);
    set(&bob, pusher(&gateway.url(), "key")).await;
    let event = alice.send(&room, "hi").await;
    let told = gateway.wait_for(1).await;
    assert_eq!(told[0]["event_id"], json!(event));
    assert_eq!(gateway.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn what_was_not_told_is_told_after_a_restart() {
    let server = server().await;
    let gateway = Gateway::start().await;
    let (alice, bob, room) = pair(&server).await;
    gateway.failures.store(usize::MAX, Ordering::SeqCst);
    set(&bob, pusher(&gateway.url(), "key")).await;
    let event = alice.send(&room, "hi").await;
    wait_until(|| gateway.asked.load(Ordering::SeqCst) > 0).await;
    let (config, store) = (server.server.config.clone(), server.server.store.clone());
    let clock = Clock::manual(server.clock.now());
    drop(server);
    gateway.failures.store(0, Ordering::SeqCst);
    let again = Server::build(config, store, clock).await.unwrap();
    again.work();
    let told = gateway.wait_for(1).await;
    assert_eq!(told[0]["event_id"], json!(event));
}

#[tokio::test]
async fn what_is_a_day_old_is_given_up_but_not_the_pusher() {
    let server = server().await;
    let gateway = Gateway::start().await;
    let (alice, bob, room) = pair(&server).await;
    gateway.failures.store(1, Ordering::SeqCst);
    set(&bob, pusher(&gateway.url(), "key")).await;
    alice.send(&room, "old").await;
    wait_until(|| gateway.asked.load(Ordering::SeqCst) > 0).await;
    server.pass(24 * 60 * 60 + 1);
    alice.send(&room, "new").await;
    let told = gateway.wait_for(1).await;
    assert_eq!(told[0]["content"]["body"], "new");
}

#[tokio::test]
async fn the_badge_falls_when_another_device_reads() {
    let server = server().await;
    let gateway = Gateway::start().await;
    let (alice, bob, room) = pair(&server).await;
    set(&bob, pusher(&gateway.url(), "key")).await;
    let event = alice.send(&room, "hi").await;
    gateway.wait_for(1).await;
    let path = format!("v3/rooms/{room}/receipt/m.read/{}", encode(&event));
    bob.post(&path, json!({})).await.ok();
    let told = gateway.wait_for(2).await;
    assert_eq!(told[1]["counts"], json!({ "unread": 0 }));
    assert_eq!(told[1]["event_id"], Value::Null);
    assert_eq!(told[1]["devices"][0]["pushkey"], "key");
}

#[tokio::test]
async fn a_rejected_key_loses_its_pusher() {
    let server = server().await;
    let gateway = Gateway::start().await;
    let (alice, bob, room) = pair(&server).await;
    *gateway.rejected.lock().unwrap() = vec!["key".to_owned()];
    set(&bob, pusher(&gateway.url(), "key")).await;
    set(&bob, pusher(ELSEWHERE, "other")).await;
    alice.send(&room, "hi").await;
    gateway.wait_for(1).await;
    for _ in 0..3_000 {
        if list(&bob).await.len() == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the pusher is still there");
}

#[tokio::test]
async fn t67_pushers_end_with_their_session() {
    let server = server().await;
    let (phone, desk) = (server.client("alice").await, server.device_of("alice").await);
    let keys = async |client: &Client<'_>| -> Vec<String> {
        let pushers = list(client).await;
        pushers.iter().map(|pusher| pusher["pushkey"].as_str().unwrap().to_owned()).collect()
    };
    set(&phone, pusher(ELSEWHERE, "phone")).await;
    set(&desk, pusher(ELSEWHERE, "desk")).await;
    assert_eq!(keys(&desk).await, ["desk", "phone"]);
    phone.post("v3/logout", json!({})).await.ok();
    assert_eq!(keys(&desk).await, ["desk"]);
    let phone = server.device_of("alice").await;
    set(&phone, pusher(ELSEWHERE, "phone")).await;
    let body = json!({ "new_password": "another long password" });
    let asked = desk.post("v3/account/password", body.clone()).await;
    let session = asked.body["session"].as_str().unwrap().to_owned();
    let mut body = body;
    body["auth"] = password_stage("alice", PASSWORD, &session);
    desk.post("v3/account/password", body).await.ok();
    assert_eq!(keys(&desk).await, ["desk"]);
}

#[tokio::test]
async fn t102_a_gateway_in_the_own_network_is_not_asked() {
    let server = TestServer::with(|config| {
        config.egress.allowed_networks = vec!["127.0.0.2".parse().unwrap()];
    })
    .await;
    let gateway = Gateway::start().await;
    let (alice, bob, room) = pair(&server).await;
    set(&bob, pusher(&gateway.url(), "key")).await;
    let inside = gateway.url().replace("127.0.0.1", "localhost");
    set(&bob, pusher(&inside, "other")).await;
    alice.send(&room, "hi").await;
    // Where it tried, it has noted that it failed.
    wait_until(|| {
        let reader = server.server.store.reader();
        let table = &causerie::storage::schema::pushers::PUSHER_CURSORS;
        let user = bob.id().to_owned();
        let rows = reader.scan(table, &table.prefix(&user), kv::Direction::Forward, 10).unwrap();
        rows.iter().filter(|(_, cursor)| cursor.failures > 0).count() == 2
    })
    .await;
    assert_eq!(gateway.asked.load(Ordering::SeqCst), 0);
}

//! Account data and tags.

use kv::Position;
use serde_json::{Value, json};

use crate::harness::{Answer, TestServer, TestUser};

async fn set(server: &TestServer, user: &TestUser, kind: &str, content: Value) -> Answer {
    let path = format!("v3/user/{}/account_data/{kind}", user.user_id);
    server.put(&path, content).token(&user.token).send().await
}

async fn get(server: &TestServer, user: &TestUser, kind: &str) -> Answer {
    let path = format!("v3/user/{}/account_data/{kind}", user.user_id);
    server.get(&path).token(&user.token).send().await
}

#[tokio::test]
async fn account_data_is_kept_and_told_in_the_order_of_its_writes() {
    let server = TestServer::new().await;
    let alice = server.register("alice").await;
    assert_eq!(get(&server, &alice, "m.direct").await.outcome(), (404, "M_NOT_FOUND"));
    set(&server, &alice, "m.direct", json!({ "one": 1 })).await.ok();
    let since = server.server.store.position();
    set(&server, &alice, "org.other", json!({})).await.ok();
    set(&server, &alice, "m.direct", json!({ "two": 2 })).await.ok();
    set(&server, &alice, "m.direct", json!({ "three": 3 })).await.ok();
    assert_eq!(get(&server, &alice, "m.direct").await.ok(), json!({ "three": 3 }));
    let data = server.server.users.account_data();
    let kinds = |since| {
        let reader = server.server.store.reader();
        let entries = data.since(&reader, &alice.user_id, since).unwrap();
        entries.into_iter().map(|entry| (entry.kind, entry.content.get().to_owned())).collect()
    };
    let changed: Vec<(String, String)> = kinds(since);
    let expected = [("org.other", "{}"), ("m.direct", r#"{"three":3}"#)];
    assert_eq!(changed, expected.map(|(kind, content)| (kind.to_owned(), content.to_owned())));
    let all: Vec<(String, String)> = kinds(Position::ZERO);
    assert_eq!(all.len(), 3);
    assert_eq!(all[2].0, "m.push_rules");
    let none: Vec<(String, String)> = kinds(server.server.store.position());
    assert_eq!(none, []);
}

#[tokio::test]
async fn what_the_server_manages_is_read_but_not_set() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    for kind in ["m.push_rules", "m.fully_read"] {
        assert_eq!(set(&server, &alice, kind, json!({})).await.outcome(), (405, "M_BAD_JSON"));
    }
    let rules = get(&server, &alice, "m.push_rules").await.ok();
    assert!(rules["global"]["override"].is_array());
    let path = format!("v3/user/{}/account_data/m.direct", alice.user_id);
    let answer = server.get(&path).token(&bob.token).send().await;
    assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"));
    let answer = server.put(&path, json!({})).token(&bob.token).send().await;
    assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"));
    assert_eq!(set(&server, &alice, "m.direct", json!([])).await.outcome().0, 400);
}

#[tokio::test]
async fn t90_account_data_has_a_size() {
    let server = TestServer::new().await;
    let alice = server.register("alice").await;
    let content = |size: usize| json!({ "x": "x".repeat(size - 8) });
    set(&server, &alice, "org.large", content(64 * 1024)).await.ok();
    assert_eq!(get(&server, &alice, "org.large").await.ok(), content(64 * 1024));
    let answer = set(&server, &alice, "org.large", content(64 * 1024 + 1)).await;
    assert_eq!(answer.outcome(), (413, "M_TOO_LARGE"));
    let answer = set(&server, &alice, &"x".repeat(256), json!({})).await;
    assert_eq!(answer.outcome(), (400, "M_INVALID_PARAM"));
}

#[tokio::test]
async fn t90_there_are_so_many_types_and_no_more() {
    let server = TestServer::with(|config| config.limits.account_data_types_max = 20).await;
    let alice = server.register("alice").await;
    for number in 0..20 {
        set(&server, &alice, &format!("org.n{number}"), json!({})).await.ok();
    }
    let answer = set(&server, &alice, "org.more", json!({})).await;
    assert_eq!(answer.outcome(), (400, "M_INVALID_PARAM"));
    set(&server, &alice, "org.n0", json!({ "again": true })).await.ok();
}

#[tokio::test]
async fn t90_rooms_that_the_user_never_was_in_hold_nothing() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room_id = server.create_room(&alice).await;
    for (user, room_id) in [(&bob, room_id.as_str()), (&alice, "!room:example.org")] {
        let path = format!("v3/user/{}/rooms/{room_id}/account_data/org.x", user.user_id);
        let answer = server.put(&path, json!({})).token(&user.token).send().await;
        assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"));
    }
    let path = format!("v3/user/{}/rooms/{room_id}/account_data/org.x", alice.user_id);
    server.put(&path, json!({ "a": 1 })).token(&alice.token).send().await.ok();
    let body = server.get(&path).token(&alice.token).send().await.ok();
    assert_eq!(body, json!({ "a": 1 }));
    assert_eq!(get(&server, &alice, "org.x").await.outcome(), (404, "M_NOT_FOUND"));
}

#[tokio::test]
async fn t90_tags_are_set_and_removed() {
    let server = TestServer::new().await;
    let alice = server.register("alice").await;
    let room_id = server.create_room(&alice).await;
    let path = format!("v3/user/{}/rooms/{room_id}/tags", alice.user_id);
    let tags = || server.get(&path).token(&alice.token).send();
    assert_eq!(tags().await.ok(), json!({ "tags": {} }));
    let put = |tag: &str, info: Value| {
        server.put(&format!("{path}/{tag}"), info).token(&alice.token).send()
    };
    put("m.favourite", json!({ "order": 0.5 })).await.ok();
    put("u.work", json!({})).await.ok();
    let expected = json!({ "tags": { "m.favourite": { "order": 0.5 }, "u.work": {} } });
    assert_eq!(tags().await.ok(), expected);
    let delete = server.delete(&format!("{path}/u.work")).token(&alice.token);
    delete.send().await.ok();
    assert_eq!(tags().await.ok(), json!({ "tags": { "m.favourite": { "order": 0.5 } } }));
    let answer = put(&"x".repeat(256), json!({})).await;
    assert_eq!(answer.outcome(), (400, "M_INVALID_PARAM"));
}

#[tokio::test]
async fn data_and_tags_of_a_room_are_their_owners_alone() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room_id = alice.create_room(json!({})).await;
    let path = format!("v3/user/{}/rooms/{room_id}", alice.id());
    let nothing = alice.get(&format!("{path}/account_data/org.x")).await;
    assert_eq!(nothing.outcome(), (404, "M_NOT_FOUND"));
    let of_another = bob.get(&format!("{path}/account_data/org.x")).await;
    assert_eq!(of_another.outcome(), (403, "M_FORBIDDEN"));
    assert_eq!(bob.get(&format!("{path}/tags")).await.outcome(), (403, "M_FORBIDDEN"));
    let tag = format!("{path}/tags/u.work");
    assert_eq!(bob.put(&tag, json!({})).await.outcome(), (403, "M_FORBIDDEN"));
    assert_eq!(bob.delete(&tag).await.outcome(), (403, "M_FORBIDDEN"));
    assert_eq!(alice.put(&tag, json!({ "order": "first" })).await.status, 400);
}

//! Profiles.

use serde_json::{Value, json};

use crate::harness::{Answer, TestServer, TestUser};

async fn put(server: &TestServer, user: &TestUser, field: &str, value: Value) -> Answer {
    let path = format!("v3/profile/{}/{field}", user.user_id);
    server.put(&path, json!({ field: value })).token(&user.token).send().await
}

#[tokio::test]
async fn an_account_begins_with_a_name() {
    let server = TestServer::with(|config| config.registration.display_name_from_id = true).await;
    let alice = server.client("alice").await;
    let profile = format!("v3/profile/{}", alice.id());
    assert_eq!(alice.get(&profile).await.ok(), json!({ "displayname": "alice" }));
    let room = alice.create_room(json!({})).await;
    let path = format!("v3/rooms/{room}/state/m.room.member/{}", alice.id());
    assert_eq!(alice.get(&path).await.ok()["displayname"], "alice");
    let found = server.client("bob").await;
    let found = found.post("v3/user_directory/search", json!({ "search_term": "ali" })).await.ok();
    assert_eq!(found["results"][0]["display_name"], "alice");
    alice.delete(&format!("{profile}/displayname")).await.ok();
    assert_eq!(alice.get(&profile).await.ok(), json!({}));
}

#[tokio::test]
async fn a_profile_is_set_field_by_field() {
    let server = TestServer::new().await;
    let alice = server.register("alice").await;
    let whole = format!("v3/profile/{}", alice.user_id);
    assert_eq!(server.get(&whole).send().await.ok(), json!({}));
    put(&server, &alice, "displayname", json!("Alice")).await.ok();
    put(&server, &alice, "avatar_url", json!("mxc://example.org/a")).await.ok();
    put(&server, &alice, "m.tz", json!("Europe/Berlin")).await.ok();
    put(&server, &alice, "org.example.pronouns", json!([{ "summary": "she" }])).await.ok();
    let expected = json!({
        "displayname": "Alice",
        "avatar_url": "mxc://example.org/a",
        "m.tz": "Europe/Berlin",
        "org.example.pronouns": [{ "summary": "she" }],
    });
    assert_eq!(server.get(&whole).send().await.ok(), expected);
    let field = server.get(&format!("{whole}/displayname")).send().await.ok();
    assert_eq!(field, json!({ "displayname": "Alice" }));
    for field in ["m.tz", "displayname", "org.never.set"] {
        server.delete(&format!("{whole}/{field}")).token(&alice.token).send().await.ok();
    }
    put(&server, &alice, "avatar_url", json!("")).await.ok();
    let expected = json!({ "org.example.pronouns": [{ "summary": "she" }] });
    assert_eq!(server.get(&whole).send().await.ok(), expected);
    let field = server.get(&format!("{whole}/displayname")).send().await;
    assert_eq!(field.outcome(), (404, "M_NOT_FOUND"));
}

#[tokio::test]
async fn a_profile_is_its_users_own() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let path = format!("v3/profile/{}/displayname", alice.user_id);
    let call = server.put(&path, json!({ "displayname": "x" })).token(&bob.token);
    assert_eq!(call.send().await.outcome(), (403, "M_FORBIDDEN"));
    let call = server.delete(&path).token(&bob.token);
    assert_eq!(call.send().await.outcome(), (403, "M_FORBIDDEN"));
    for user in ["@nobody:example.org", "@alice:elsewhere.org"] {
        let answer = server.get(&format!("v3/profile/{user}")).send().await;
        assert_eq!(answer.outcome(), (404, "M_NOT_FOUND"));
    }
    assert_eq!(server.get("v3/profile/alice").send().await.outcome(), (400, "M_INVALID_PARAM"));
}

#[tokio::test]
async fn t90_a_profile_has_a_size() {
    let server = TestServer::new().await;
    let alice = server.register("alice").await;
    put(&server, &alice, "displayname", json!("x".repeat(256))).await.ok();
    let answer = put(&server, &alice, "displayname", json!("x".repeat(257))).await;
    assert_eq!(answer.outcome(), (400, "M_TOO_LARGE"));
    let long = format!("mxc://example.org/{}", "x".repeat(1_000));
    let answer = put(&server, &alice, "avatar_url", json!(long)).await;
    assert_eq!(answer.outcome(), (400, "M_TOO_LARGE"));
    let answer = put(&server, &alice, "avatar_url", json!("https://example.org/a")).await;
    assert_eq!(answer.outcome(), (400, "M_INVALID_PARAM"));
    let answer = put(&server, &alice, &format!("m.{}", "x".repeat(254)), json!(1)).await;
    assert_eq!(answer.outcome(), (400, "M_KEY_TOO_LARGE"));
    put(&server, &alice, "org.example.half", json!("x".repeat(60 * 1024))).await.ok();
    let answer = put(&server, &alice, "org.example.more", json!("x".repeat(5 * 1024))).await;
    assert_eq!(answer.outcome(), (400, "M_PROFILE_TOO_LARGE"));
    let answer = put(&server, &alice, "tz", json!("x")).await;
    assert_eq!(answer.outcome(), (400, "M_INVALID_PARAM"));
    assert_eq!(put(&server, &alice, "displayname", Value::Null).await.outcome().0, 400);
}

#[tokio::test]
async fn a_new_profile_is_told_in_the_rooms() {
    let server = TestServer::new().await;
    let alice = server.register("alice").await;
    let rooms = [server.create_room(&alice).await, server.create_room(&alice).await];
    put(&server, &alice, "displayname", json!("Alice")).await.ok();
    put(&server, &alice, "avatar_url", json!("mxc://example.org/a")).await.ok();
    put(&server, &alice, "m.tz", json!("Europe/Berlin")).await.ok();
    for room_id in rooms {
        let path = format!("v3/rooms/{room_id}/state/m.room.member/{}", alice.user_id);
        let member = server.get(&path).token(&alice.token).send().await.ok();
        let expected = json!({
            "membership": "join",
            "displayname": "Alice",
            "avatar_url": "mxc://example.org/a",
        });
        assert_eq!(member, expected);
    }
}

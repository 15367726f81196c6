//! Registration and accounts.

use causerie::config::{RateLimit, Secret};
use serde_json::{Value, json};

use crate::harness::{Answer, PASSWORD, TestServer, password_stage};

async fn register(server: &TestServer, username: &str) -> Answer {
    let body = json!({
        "username": username,
        "password": PASSWORD,
        "auth": { "type": "m.login.dummy" },
    });
    server.post("v3/register", body).send().await
}

#[tokio::test]
async fn t75_names_that_break_the_rules_are_refused() {
    let server = TestServer::new().await;
    let long = "x".repeat(256);
    let too_long_with_the_server = "x".repeat(243);
    for name in
        ["x:evil", "@x:evil", "A B", "Alice", "ä", "", "x\u{0}", &long, &too_long_with_the_server]
    {
        assert_eq!(register(&server, name).await.outcome(), (400, "M_INVALID_USERNAME"), "{name}");
    }
    for name in ["x", "a.b_c=d-e/f+g", "0", &"x".repeat(242)] {
        register(&server, name).await.ok();
    }
}

#[tokio::test]
async fn t75_a_name_that_is_taken_is_refused() {
    let server = TestServer::new().await;
    register(&server, "alice").await.ok();
    assert_eq!(register(&server, "alice").await.outcome(), (400, "M_USER_IN_USE"));
    let available = |name: &str| server.get(&format!("v3/register/available?username={name}"));
    assert_eq!(available("alice").send().await.outcome(), (400, "M_USER_IN_USE"));
    assert_eq!(available("A").send().await.outcome(), (400, "M_INVALID_USERNAME"));
    assert_eq!(available("bob").send().await.ok(), json!({ "available": true }));
}

#[tokio::test]
async fn t75_of_two_at_once_exactly_one_wins() {
    let server = TestServer::new().await;
    let (one, other, third) = tokio::join!(
        register(&server, "alice"),
        register(&server, "alice"),
        register(&server, "alice"),
    );
    let mut outcomes = [one.outcome(), other.outcome(), third.outcome()];
    outcomes.sort_unstable();
    assert_eq!(outcomes, [(200, ""), (400, "M_USER_IN_USE"), (400, "M_USER_IN_USE")]);
}

#[tokio::test]
async fn clients_ask_for_the_flows_first() {
    let server = TestServer::new().await;
    let answer = server.post("v3/register", json!({})).send().await;
    assert_eq!(answer.outcome(), (401, ""));
    assert_eq!(answer.body["flows"], json!([{ "stages": ["m.login.dummy"] }]));
    // The session of the empty request may be used for the real one.
    let auth = json!({ "type": "m.login.dummy", "session": answer.body["session"] });
    let body = json!({ "username": "alice", "password": PASSWORD, "auth": auth });
    let registered = server.post("v3/register", body.clone()).send().await.ok();
    assert_eq!(registered["user_id"], json!("@alice:example.org"));
    let body = json!({ "username": "bob", "password": PASSWORD, "auth": auth });
    assert_eq!(server.post("v3/register", body).send().await.outcome(), (401, ""));
}

#[tokio::test]
async fn an_account_is_made_without_a_session_or_a_name() {
    let server = TestServer::new().await;
    let auth = json!({ "type": "m.login.dummy" });
    let body = json!({ "password": PASSWORD, "auth": auth, "inhibit_login": true });
    let registered = server.post("v3/register", body).send().await.ok();
    assert_eq!(registered["access_token"], Value::Null);
    let user_id = registered["user_id"].as_str().unwrap();
    server.login(user_id).await;
    let body = json!({ "username": "alice", "auth": auth });
    let answer = server.post("v3/register", body).send().await;
    assert_eq!(answer.outcome(), (400, "M_MISSING_PARAM"));
    let answer = server.post("v3/register?kind=guest", json!({})).send().await;
    assert_eq!(answer.outcome(), (403, "M_GUEST_ACCESS_FORBIDDEN"));
}

#[tokio::test]
async fn a_registration_token_is_asked_for() {
    let server = TestServer::with(|config| {
        config.registration.open_without_token = false;
        config.registration.enabled = true;
        config.registration.tokens = vec![Secret::new("sesame")];
    })
    .await;
    let answer = register(&server, "alice").await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.body["flows"], json!([{ "stages": ["m.login.registration_token"] }]));
    let with_token = |token: &str| {
        let auth = json!({ "type": "m.login.registration_token", "token": token });
        let body = json!({ "username": "alice", "password": PASSWORD, "auth": auth });
        server.post("v3/register", body).send()
    };
    assert_eq!(with_token("sesam").await.outcome(), (401, "M_FORBIDDEN"));
    with_token("sesame").await.ok();
    let valid = |token: &str| {
        let path = format!("v1/register/m.login.registration_token/validity?token={token}");
        server.get(&path).send()
    };
    assert_eq!(valid("sesame").await.ok(), json!({ "valid": true }));
    assert_eq!(valid("sesam").await.ok(), json!({ "valid": false }));
}

#[tokio::test]
async fn registration_may_be_off() {
    let server = TestServer::with(|config| config.registration.open_without_token = false).await;
    let answer = server.post("v3/register", json!({})).send().await;
    assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"));
}

#[tokio::test]
async fn t71_registrations_are_limited() {
    let server = TestServer::with(|config| {
        config.rate_limits.enabled = true;
        config.rate_limits.registration = RateLimit::new(0.01, 2);
    })
    .await;
    register(&server, "alice").await.ok();
    register(&server, "bob").await.ok();
    assert_eq!(register(&server, "carol").await.outcome(), (429, "M_LIMIT_EXCEEDED"));
}

#[tokio::test]
async fn t71_steps_of_a_registration_are_limited() {
    let server = TestServer::with(|config| {
        config.rate_limits.enabled = true;
        config.rate_limits.registration_steps = RateLimit::new(0.01, 2);
    })
    .await;
    let begin = || server.post("v3/register", json!({})).send();
    assert_eq!(begin().await.status, 401);
    let available = || server.get("v3/register/available?username=alice").send();
    available().await.ok();
    assert_eq!(begin().await.outcome(), (429, "M_LIMIT_EXCEEDED"));
    assert_eq!(available().await.outcome(), (429, "M_LIMIT_EXCEEDED"));
}

#[tokio::test]
async fn whoami_names_user_and_device() {
    let server = TestServer::new().await;
    let alice = server.register("alice").await;
    let body = server.get("v3/account/whoami").token(&alice.token).send().await.ok();
    let expected = json!({ "user_id": alice.user_id, "device_id": alice.device_id });
    assert_eq!(body, expected);
    let body = server.get("v3/account/3pid").token(&alice.token).send().await.ok();
    assert_eq!(body, json!({ "threepids": [] }));
}

#[tokio::test]
async fn a_user_who_is_no_more_is_in_no_room() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room_id = server.create_room(&alice).await;
    let invite =
        server.post(&format!("v3/rooms/{room_id}/invite"), json!({ "user_id": bob.user_id }));
    invite.token(&alice.token).send().await.ok();
    server.post(&format!("v3/join/{room_id}"), json!({})).token(&bob.token).send().await.ok();
    let body = json!({ "erase": true, "auth": password_stage("bob", PASSWORD, "none") });
    let deactivate =
        |body: Value| server.post("v3/account/deactivate", body).token(&bob.token).send();
    let challenge = deactivate(body).await;
    assert_eq!(challenge.outcome(), (401, ""));
    let session = challenge.body["session"].as_str().unwrap();
    let auth = password_stage("bob", PASSWORD, session);
    let body = deactivate(json!({ "erase": true, "auth": auth })).await.ok();
    assert_eq!(body, json!({ "id_server_unbind_result": "success" }));
    let path = format!("v3/rooms/{room_id}/state/m.room.member/{}", bob.user_id);
    // The rooms are left in the background.
    for _ in 0..1_000 {
        let member = server.get(&path).token(&alice.token).send().await.ok();
        if member == json!({ "membership": "leave" }) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("bob is still in the room");
}

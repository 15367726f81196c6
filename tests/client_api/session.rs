//! Logging in and out, refreshing, and the end of sessions.

use std::time::Duration;

use causerie::{config::RateLimit, http::ClientAddress, storage::topic, users::Liveness};
use serde_json::{Value, json};

use crate::harness::{PASSWORD, TestServer, TestUser, login_body, password_stage};

#[tokio::test]
async fn t66_only_an_access_token_in_the_right_place_counts() {
    let server = TestServer::new().await;
    server.register("alice").await;
    let body = json!({
        "type": "m.login.password",
        "user": "alice",
        "password": PASSWORD,
        "refresh_token": true,
    });
    let session = server.post("v3/login", body).send().await.ok();
    let refresh = session["refresh_token"].as_str().unwrap();
    let access = session["access_token"].as_str().unwrap();
    let whoami = || server.get("v3/account/whoami");
    assert_eq!(whoami().send().await.outcome(), (401, "M_MISSING_TOKEN"));
    for header in ["Bearer ", "Bearer", "Basic x", access] {
        let answer = whoami().header("authorization", header).send().await;
        assert_eq!(answer.outcome(), (401, "M_MISSING_TOKEN"), "{header}");
    }
    for token in ["x", "cat_", refresh] {
        let answer = whoami().token(token).send().await;
        assert_eq!(answer.outcome(), (401, "M_UNKNOWN_TOKEN"), "{token}");
        assert_eq!(answer.body["soft_logout"], json!(false));
    }
    let in_query = server.get(&format!("v3/account/whoami?access_token={access}"));
    assert_eq!(in_query.send().await.outcome(), (401, "M_MISSING_TOKEN"));
    let answer = server.post("v3/refresh", json!({ "refresh_token": access })).send().await;
    assert_eq!(answer.outcome(), (401, "M_UNKNOWN_TOKEN"));
    assert_eq!(server.outcome_of(access).await.0, 200);
}

/// Two sessions of alice, both in the server's memory.
async fn two_sessions(server: &TestServer) -> (TestUser, TestUser) {
    let first = server.register("alice").await;
    let second = server.login("alice").await;
    for user in [&first, &second] {
        assert_eq!(server.outcome_of(&user.token).await.0, 200);
    }
    (first, second)
}

#[tokio::test]
async fn a_logout_is_done_to_its_end_though_the_client_hangs_up() {
    let server = TestServer::new().await;
    let (first, second) = two_sessions(&server).await;
    server.post("v3/logout", json!({})).token(&first.token).hang_up();
    let ended = async {
        while server.outcome_of(&first.token).await.0 != 401 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), ended).await.expect("the session ends");
    assert_eq!(server.outcome_of(&second.token).await.0, 200);
}

async fn confirmed(
    server: &TestServer,
    user: &TestUser,
    method: http::Method,
    path: &str,
    mut body: Value,
) {
    let challenge = server.call(method.clone(), path).token(&user.token).json(body.clone());
    let session = challenge.send().await.body["session"].as_str().unwrap().to_owned();
    body["auth"] = password_stage("alice", PASSWORD, &session);
    server.call(method, path).token(&user.token).json(body).send().await.ok();
}

#[tokio::test]
async fn t67_logout_ends_one_session_at_once() {
    let server = TestServer::new().await;
    let (first, second) = two_sessions(&server).await;
    server.post("v3/logout", json!({})).token(&first.token).send().await.ok();
    let gone = (401, "M_UNKNOWN_TOKEN".to_owned());
    assert_eq!(server.outcome_of(&first.token).await, gone);
    assert_eq!(server.outcome_of(&second.token).await.0, 200);
    let devices = server.get("v3/devices").token(&second.token).send().await.ok();
    assert_eq!(devices["devices"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn t67_logout_everywhere_ends_all_sessions() {
    let server = TestServer::new().await;
    let (first, second) = two_sessions(&server).await;
    server.post("v3/logout/all", json!({})).token(&first.token).send().await.ok();
    let gone = (401, "M_UNKNOWN_TOKEN".to_owned());
    assert_eq!(server.outcome_of(&first.token).await, gone);
    assert_eq!(server.outcome_of(&second.token).await, gone);
}

#[tokio::test]
async fn t67_a_changed_password_ends_the_other_sessions() {
    let server = TestServer::new().await;
    let (first, second) = two_sessions(&server).await;
    let body = json!({ "new_password": "another one" });
    confirmed(&server, &first, http::Method::POST, "v3/account/password", body).await;
    assert_eq!(server.outcome_of(&first.token).await.0, 200);
    assert_eq!(server.outcome_of(&second.token).await, (401, "M_UNKNOWN_TOKEN".to_owned()));
    assert_eq!(server.try_login("alice", PASSWORD).await.outcome(), (403, "M_FORBIDDEN"));
    server.try_login("alice", "another one").await.ok();
}

#[tokio::test]
async fn t67_a_deleted_device_has_no_session() {
    let server = TestServer::new().await;
    let (first, second) = two_sessions(&server).await;
    let path = format!("v3/devices/{}", second.device_id);
    confirmed(&server, &first, http::Method::DELETE, &path, json!({})).await;
    assert_eq!(server.outcome_of(&first.token).await.0, 200);
    assert_eq!(server.outcome_of(&second.token).await, (401, "M_UNKNOWN_TOKEN".to_owned()));
}

#[tokio::test]
async fn t67_a_deactivated_account_has_no_session() {
    let server = TestServer::new().await;
    let (first, second) = two_sessions(&server).await;
    confirmed(&server, &first, http::Method::POST, "v3/account/deactivate", json!({})).await;
    for user in [&first, &second] {
        assert_eq!(server.outcome_of(&user.token).await, (401, "M_UNKNOWN_TOKEN".to_owned()));
    }
    // T68: nothing lets the user in again, and the name is not given to anybody else.
    assert_eq!(server.try_login("alice", PASSWORD).await.outcome(), (403, "M_USER_DEACTIVATED"));
    let available = server.get("v3/register/available?username=alice").send().await;
    assert_eq!(available.outcome(), (400, "M_USER_IN_USE"));
    let profile = server.get("v3/profile/@alice:example.org").send().await;
    assert_eq!(profile.outcome(), (404, "M_NOT_FOUND"));
}

#[tokio::test]
async fn t67_whoever_waits_with_a_session_is_woken_when_it_ends() {
    let server = TestServer::new().await;
    let (first, second) = two_sessions(&server).await;
    let address = ClientAddress("203.0.113.1".parse().unwrap());
    let waiting = server.server.users.authenticate(&second.token, address).await.unwrap().session;
    let topic =
        topic::user(topic::USER_SESSIONS, server.server.rooms.interner().user(&first.user_id));
    let (store, after) = (server.server.store.clone(), server.server.store.position());
    let poll = tokio::spawn(async move { store.watch(&[topic], after).await });
    assert_eq!(server.server.users.liveness(&waiting).await.unwrap(), Liveness::Alive);
    server.post("v3/logout/all", json!({})).token(&first.token).send().await.ok();
    tokio::time::timeout(Duration::from_secs(1), poll).await.unwrap().unwrap();
    assert_eq!(server.server.users.liveness(&waiting).await.unwrap(), Liveness::Ended);
}

#[tokio::test]
async fn t71_logins_are_limited_by_address_whatever_they_claim() {
    let server = TestServer::with(|config| {
        config.rate_limits.enabled = true;
        config.rate_limits.registration = RateLimit::new(100.0, 100);
        config.rate_limits.login_by_account = RateLimit::new(100.0, 100);
    })
    .await;
    for name in ["a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8", "a9", "a10", "a11"] {
        server.register(name).await;
    }
    let login = |name: &str, spoofed: &str| {
        let body = login_body(name, PASSWORD);
        server.post("v3/login", body).header("x-forwarded-for", spoofed).send()
    };
    for number in 1..=10 {
        login(&format!("a{number}"), &format!("198.51.100.{number}")).await.ok();
    }
    let answer = login("a11", "198.51.100.77").await;
    assert_eq!(answer.outcome(), (429, "M_LIMIT_EXCEEDED"));
    assert!(answer.body["retry_after_ms"].as_u64().unwrap() > 0);
    assert!(answer.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() > 0);
    let body = login_body("a11", PASSWORD);
    server.post("v3/login", body).from("203.0.113.99").send().await.ok();
}

#[tokio::test]
async fn t71_logins_are_limited_by_account_from_everywhere() {
    let server = TestServer::with(|config| {
        config.rate_limits.enabled = true;
        config.rate_limits.login_failed = RateLimit::new(100.0, 100);
    })
    .await;
    server.register("alice").await;
    for number in 1..=10 {
        let address = format!("203.0.113.{number}");
        server.post("v3/login", login_body("alice", "wrong")).from(&address).send().await;
    }
    let login = server.post("v3/login", login_body("alice", PASSWORD)).from("203.0.113.200");
    assert_eq!(login.send().await.outcome(), (429, "M_LIMIT_EXCEEDED"));
}

#[tokio::test]
async fn t71_wrong_passwords_are_limited() {
    let server = TestServer::with(|config| config.rate_limits.enabled = true).await;
    server.register("alice").await;
    for _ in 0..3 {
        assert_eq!(server.try_login("alice", "wrong").await.outcome(), (403, "M_FORBIDDEN"));
    }
    assert_eq!(server.try_login("alice", PASSWORD).await.outcome(), (429, "M_LIMIT_EXCEEDED"));
}

#[tokio::test]
async fn t71_wrong_passwords_at_once_are_limited_too() {
    let server = TestServer::with(|config| {
        config.rate_limits.enabled = true;
        config.rate_limits.login_by_address = RateLimit::new(100.0, 100);
        config.rate_limits.login_by_account = RateLimit::new(100.0, 100);
    })
    .await;
    server.register("alice").await;
    let guesses = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", PASSWORD];
    let guesses = guesses.map(|password| server.try_login("alice", password));
    let answers = futures::future::join_all(guesses).await;
    let last = answers.last().unwrap();
    assert_eq!(last.outcome(), (429, "M_LIMIT_EXCEEDED"), "{}", last.body);
}

#[tokio::test]
async fn a_login_names_the_user_in_many_ways() {
    let server = TestServer::new().await;
    server.register("alice").await;
    for name in ["alice", "Alice", "@alice:example.org"] {
        assert_eq!(server.login(name).await.user_id, "@alice:example.org");
    }
    for name in ["bob", "@alice:elsewhere.org", "", "@", "a b"] {
        assert_eq!(server.try_login(name, PASSWORD).await.outcome(), (403, "M_FORBIDDEN"));
    }
    let flows = server.get("v3/login").send().await.ok();
    let kinds: Vec<_> =
        flows["flows"].as_array().unwrap().iter().map(|flow| flow["type"].as_str()).collect();
    let expected = ["m.login.password", "m.login.token", "m.login.application_service"];
    assert_eq!(kinds, expected.map(Some));
    let body = json!({ "type": "m.login.unheard_of" });
    assert_eq!(server.post("v3/login", body).send().await.outcome(), (400, "M_UNKNOWN"));
}

#[tokio::test]
async fn a_device_that_logs_in_again_loses_its_old_token() {
    let server = TestServer::new().await;
    let first = server.register("alice").await;
    let mut body = login_body("alice", PASSWORD);
    body["device_id"] = json!(first.device_id);
    let second = server.post("v3/login", body).send().await.ok();
    assert_eq!(second["device_id"], json!(first.device_id));
    assert_eq!(server.outcome_of(&first.token).await.0, 401);
    assert_eq!(server.outcome_of(second["access_token"].as_str().unwrap()).await.0, 200);
}

async fn refresh(server: &TestServer, session: &Value) -> crate::harness::Answer {
    let body = json!({ "refresh_token": session["refresh_token"] });
    server.post("v3/refresh", body).send().await
}

async fn refreshable(server: &TestServer) -> Value {
    server.register("alice").await;
    let mut body = login_body("alice", PASSWORD);
    body["refresh_token"] = json!(true);
    server.post("v3/login", body).send().await.ok()
}

#[tokio::test]
async fn t72_an_expired_token_is_refreshed() {
    let server = TestServer::new().await;
    let first = refreshable(&server).await;
    assert_eq!(first["expires_in_ms"], json!(7 * 24 * 3_600 * 1_000));
    let token = first["access_token"].as_str().unwrap();
    assert_eq!(server.outcome_of(token).await.0, 200);
    server.pass(7 * 24 * 3_600);
    let answer = server.get("v3/account/whoami").token(token).send().await;
    assert_eq!(answer.outcome(), (401, "M_UNKNOWN_TOKEN"));
    assert_eq!(answer.body["soft_logout"], json!(true));
    let second = refresh(&server, &first).await.ok();
    assert_eq!(server.outcome_of(second["access_token"].as_str().unwrap()).await.0, 200);
    let third = refresh(&server, &second).await.ok();
    assert_eq!(server.outcome_of(third["access_token"].as_str().unwrap()).await.0, 200);
    assert_eq!(server.outcome_of(second["access_token"].as_str().unwrap()).await.0, 401);
}

#[tokio::test]
async fn t72_a_long_poll_whose_token_expires_ends_softly() {
    let server = TestServer::new().await;
    let session = refreshable(&server).await;
    let token = session["access_token"].as_str().unwrap();
    let since = server.get("v3/sync").token(token).send().await.ok();
    let since = since["next_batch"].as_str().unwrap();
    let poll = server.get(&format!("v3/sync?since={since}&timeout=20000")).token(token).send();
    let later = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.pass(7 * 24 * 3_600);
        let other = server.login("alice").await;
        server.post("v3/logout", json!({})).token(&other.token).send().await.ok();
    };
    let (answer, ()) = tokio::join!(poll, later);
    assert_eq!(answer.outcome(), (401, "M_UNKNOWN_TOKEN"));
    assert_eq!(answer.body["soft_logout"], json!(true));
}

#[tokio::test]
async fn t72_a_lost_answer_is_asked_for_again_and_a_reused_token_ends_all() {
    let server = TestServer::new().await;
    let first = refreshable(&server).await;
    let lost = refresh(&server, &first).await.ok();
    assert_eq!(server.outcome_of(first["access_token"].as_str().unwrap()).await.0, 200);
    let second = refresh(&server, &first).await.ok();
    assert_eq!(server.outcome_of(lost["access_token"].as_str().unwrap()).await.0, 401);
    assert_eq!(server.outcome_of(second["access_token"].as_str().unwrap()).await.0, 200);
    assert_eq!(server.outcome_of(first["access_token"].as_str().unwrap()).await.0, 401);
    // A race of two tabs ends nothing, a token that comes back later ends everything.
    assert_eq!(refresh(&server, &first).await.outcome(), (401, "M_UNKNOWN_TOKEN"));
    assert_eq!(server.outcome_of(second["access_token"].as_str().unwrap()).await.0, 200);
    server.pass(61);
    assert_eq!(refresh(&server, &first).await.outcome(), (401, "M_UNKNOWN_TOKEN"));
    assert_eq!(server.outcome_of(second["access_token"].as_str().unwrap()).await.0, 401);
    assert_eq!(refresh(&server, &second).await.outcome(), (401, "M_UNKNOWN_TOKEN"));
}

#[tokio::test]
async fn an_authenticated_request_reads_no_storage() {
    let server = TestServer::new().await;
    let alice = server.register("alice").await;
    assert_eq!(server.outcome_of(&alice.token).await.0, 200);
    let before = server.server.store.counters();
    assert_eq!(server.outcome_of(&alice.token).await.0, 200);
    let after = server.server.store.counters();
    assert_eq!((before.gets, before.seeks), (after.gets, after.seeks));
}

#[tokio::test]
async fn a_login_says_of_which_type_it_is() {
    let server = TestServer::new().await;
    let other = json!({ "\u{1}\"": 1 });
    for body in [json!({}), other, json!({ "type": null }), json!({ "type": 1 }), json!([])] {
        let answer = server.post("v3/login", body.clone()).send().await;
        assert_eq!(answer.outcome(), (400, "M_BAD_JSON"), "{body}");
    }
    let unknown = server.post("v3/login", json!({ "type": "org.example" })).send().await;
    assert_eq!(unknown.outcome(), (400, "M_UNKNOWN"));
}

#[tokio::test]
async fn t72_polls_end_when_their_token_expires() {
    let server = TestServer::new().await;
    let session = refreshable(&server).await;
    let token = session["access_token"].as_str().unwrap();
    let since = server.get("v3/sync").token(token).send().await.ok();
    let since = since["next_batch"].as_str().unwrap();
    let body = crate::sliding::all_rooms(5);
    let first = server.post(crate::sliding::PATH, body.clone()).token(token).send().await.ok();
    let pos = first["pos"].as_str().unwrap();
    server.pass(7 * 24 * 3_600 - 1);
    let path = format!("{}?pos={pos}&timeout=60000", crate::sliding::PATH);
    let (slid, synced) = tokio::join!(
        server.post(&path, body).token(token).send(),
        server.get(&format!("v3/sync?since={since}&timeout=60000")).token(token).send(),
    );
    for answer in [slid, synced] {
        assert_eq!(answer.outcome(), (401, "M_UNKNOWN_TOKEN"));
        assert_eq!(answer.body["soft_logout"], json!(true));
    }
}

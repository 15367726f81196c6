//! Tokens that log in once.

use serde_json::{Value, json};

use crate::harness::{Answer, PASSWORD, TestServer, TestUser, password_stage};

async fn get_token(server: &TestServer, user: &TestUser, name: &str) -> String {
    let ask = |body: Value| server.post("v1/login/get_token", body).token(&user.token).send();
    let challenge = ask(json!({})).await;
    assert_eq!(challenge.outcome(), (401, ""));
    let auth = password_stage(name, PASSWORD, challenge.body["session"].as_str().unwrap());
    let body = ask(json!({ "auth": auth })).await.ok();
    assert_eq!(body["expires_in_ms"], json!(120_000));
    body["login_token"].as_str().unwrap().to_owned()
}

async fn login(server: &TestServer, token: &str, device: Option<&str>) -> Answer {
    let mut body = json!({ "type": "m.login.token", "token": token });
    if let Some(device) = device {
        body["device_id"] = json!(device);
    }
    server.post("v3/login", body).send().await
}

#[tokio::test]
async fn t73_a_login_token_is_good_once() {
    let server = TestServer::new().await;
    let alice = server.register("alice").await;
    let flows = server.get("v3/login").send().await.ok();
    let token_flow = json!({ "type": "m.login.token", "get_login_token": true });
    assert!(flows["flows"].as_array().unwrap().contains(&token_flow), "{flows}");
    let capabilities = server.get("v3/capabilities").token(&alice.token).send().await.ok();
    assert_eq!(capabilities["capabilities"]["m.get_login_token"], json!({ "enabled": true }));
    let token = get_token(&server, &alice, "alice").await;
    let (one, other) = tokio::join!(login(&server, &token, None), login(&server, &token, None));
    let mut outcomes = [one.outcome(), other.outcome()];
    outcomes.sort_unstable();
    assert_eq!(outcomes, [(200, ""), (403, "M_FORBIDDEN")]);
    let winner = if one.status == 200 { one } else { other };
    assert_eq!(winner.body["user_id"], json!("@alice:example.org"));
    assert_eq!(login(&server, &token, None).await.outcome(), (403, "M_FORBIDDEN"));
    for wrong in ["", "clt_", "clt_AAAA", &token[4..], &alice.token] {
        assert_eq!(login(&server, wrong, None).await.outcome(), (403, "M_FORBIDDEN"), "{wrong}");
    }
}

#[tokio::test]
async fn t73_a_login_token_is_good_for_two_minutes() {
    let server = TestServer::new().await;
    let alice = server.register("alice").await;
    let token = get_token(&server, &alice, "alice").await;
    server.pass(119);
    login(&server, &token, None).await.ok();
    let token = get_token(&server, &alice, "alice").await;
    server.pass(120);
    assert_eq!(login(&server, &token, None).await.outcome(), (403, "M_FORBIDDEN"));
}

#[tokio::test]
async fn t73_a_login_token_reaches_no_device_of_another_account() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let token = get_token(&server, &bob, "bob").await;
    let body = login(&server, &token, Some(&alice.device_id)).await.ok();
    assert_eq!(body["user_id"], json!("@bob:example.org"));
    // Alice's device of that name is another one, and still hers.
    let whoami = server.get("v3/account/whoami").token(&alice.token).send().await.ok();
    assert_eq!(whoami["user_id"], json!("@alice:example.org"));
}

#[tokio::test]
async fn login_tokens_may_be_off() {
    let server = TestServer::with(|config| config.login.tokens = false).await;
    let alice = server.register("alice").await;
    let answer = server.post("v1/login/get_token", json!({})).token(&alice.token).send().await;
    assert_eq!(answer.outcome(), (404, "M_UNRECOGNIZED"));
    assert_eq!(login(&server, "clt_x", None).await.outcome(), (400, "M_UNKNOWN"));
    let flows = server.get("v3/login").send().await.ok();
    let flows = flows["flows"].as_array().unwrap();
    assert!(flows.iter().all(|flow| flow["type"] != "m.login.token"), "{flows:?}");
}

#[tokio::test]
async fn there_is_no_single_sign_on_and_no_oauth() {
    let server = TestServer::new().await;
    for path in ["v3/login/sso/redirect", "v3/login/sso/redirect/x"] {
        let path = format!("{path}?redirectUrl=javascript:alert(1)");
        assert_eq!(server.get(&path).send().await.outcome(), (404, "M_NOT_FOUND"));
    }
    let answer = server.get("v1/auth_metadata").send().await;
    assert_eq!(answer.outcome(), (404, "M_UNRECOGNIZED"));
}

#[tokio::test]
async fn clients_that_know_no_login_show_a_page() {
    let server = TestServer::new().await;
    for path in ["/_matrix/static/client/login/?device_id=D", "/_matrix/static/client/login"] {
        let page = server.get(path).send().await;
        assert_eq!(page.status, 200);
        assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
        assert!(page.text.contains("window.matrixLogin.onLogin(response)"));
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'nonce-"), "{policy}");
        assert!(policy.contains("connect-src 'self'"), "{policy}");
    }
}

#[tokio::test]
async fn t73_a_login_token_ends_with_the_password() {
    let server = TestServer::new().await;
    let alice = server.register("alice").await;
    let token = get_token(&server, &alice, "alice").await;
    let change = |auth: Value| {
        let body = json!({ "new_password": "brand new", "logout_devices": false, "auth": auth });
        server.post("v3/account/password", body).token(&alice.token).send()
    };
    let challenge = change(Value::Null).await;
    let session = challenge.body["session"].as_str().unwrap();
    change(password_stage("alice", PASSWORD, session)).await.ok();
    assert_eq!(login(&server, &token, None).await.outcome(), (403, "M_FORBIDDEN"));
}

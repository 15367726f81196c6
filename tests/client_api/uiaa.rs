//! User-interactive authentication.

use serde_json::{Value, json};

use crate::harness::{Answer, PASSWORD, TestServer, TestUser, password_stage};

async fn delete_devices(
    server: &TestServer,
    user: &TestUser,
    devices: &[&str],
    auth: Option<Value>,
) -> Answer {
    let mut body = json!({ "devices": devices });
    if let Some(auth) = auth {
        body["auth"] = auth;
    }
    server.post("v3/delete_devices", body).token(&user.token).send().await
}

async fn begin(server: &TestServer, user: &TestUser, devices: &[&str]) -> String {
    let answer = delete_devices(server, user, devices, None).await;
    assert_eq!(answer.outcome(), (401, ""));
    let flows = json!([{ "stages": ["m.login.password"] }]);
    assert_eq!(answer.body["flows"], flows);
    assert_eq!(answer.body["params"], json!({}));
    answer.body["session"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn t69_a_stage_that_is_in_no_flow_proves_nothing() {
    let server = TestServer::new().await;
    let alice = server.register("alice").await;
    let session = begin(&server, &alice, &["A"]).await;
    for kind in ["m.login.dummy", "m.login.sso", "m.login.unheard_of"] {
        let auth = json!({ "type": kind, "session": session });
        let answer = delete_devices(&server, &alice, &["A"], Some(auth)).await;
        assert_eq!(answer.status, 401, "{kind}");
        assert!(answer.body["flows"].is_array());
    }
    let auth = json!({ "session": session });
    let answer = delete_devices(&server, &alice, &["A"], Some(auth)).await;
    assert_eq!(answer.outcome(), (401, ""));
    assert_eq!(answer.body["session"], json!(session));
}

#[tokio::test]
async fn the_user_may_be_named_as_in_old_versions() {
    let server = TestServer::new().await;
    let alice = server.register("alice").await;
    for user in ["alice", alice.user_id.as_str()] {
        let session = begin(&server, &alice, &["A"]).await;
        let proof = |password: &str| {
            let kind = "m.login.password";
            json!({ "type": kind, "user": user, "password": password, "session": session })
        };
        let answer = delete_devices(&server, &alice, &["A"], Some(proof("wrong"))).await;
        assert_eq!(answer.outcome().0, 401);
        delete_devices(&server, &alice, &["A"], Some(proof(PASSWORD))).await.ok();
    }
}

#[tokio::test]
async fn t69_a_session_belongs_to_one_user() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let session = begin(&server, &alice, &["A"]).await;
    let auth = password_stage("bob", PASSWORD, &session);
    let answer = delete_devices(&server, &bob, &["A"], Some(auth)).await;
    assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"));
    // Nor does another user's right password prove anything.
    let auth = password_stage("bob", PASSWORD, &session);
    let answer = delete_devices(&server, &alice, &["A"], Some(auth)).await;
    assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"));
}

#[tokio::test]
async fn t69_a_session_belongs_to_one_operation_and_one_body() {
    let server = TestServer::new().await;
    let alice = server.register("alice").await;
    let session = begin(&server, &alice, &["A"]).await;
    let auth = password_stage("alice", PASSWORD, &session);
    let body = json!({ "new_password": "stolen", "auth": auth });
    let answer = server.post("v3/account/password", body).token(&alice.token).send().await;
    assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"));
    let answer = delete_devices(&server, &alice, &["B"], Some(auth.clone())).await;
    assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"));
    delete_devices(&server, &alice, &["A"], Some(auth)).await.ok();
}

#[tokio::test]
async fn nobody_drops_the_sessions_of_others() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let session = begin(&server, &alice, &["A"]).await;
    let first = begin(&server, &bob, &["A"]).await;
    for number in 0..20 {
        begin(&server, &bob, &["A", &number.to_string()]).await;
        let answer = server.post("v3/register", json!({})).send().await;
        assert_eq!(answer.outcome(), (401, ""));
    }
    let auth = password_stage("alice", PASSWORD, &session);
    delete_devices(&server, &alice, &["A"], Some(auth)).await.ok();
    let auth = password_stage("bob", PASSWORD, &first);
    assert_eq!(delete_devices(&server, &bob, &["A"], Some(auth)).await.outcome(), (401, ""));
    let long = "x".repeat(256);
    let answer = delete_devices(&server, &bob, &[&long], None).await;
    assert_eq!(answer.outcome(), (400, "M_INVALID_PARAM"));
    let path = format!("v3/devices/{long}");
    for call in [server.delete(&path), server.get(&path), server.put(&path, json!({}))] {
        let answer = call.token(&bob.token).send().await;
        assert_eq!(answer.outcome(), (400, "M_INVALID_PARAM"));
    }
}

#[tokio::test]
async fn t69_a_session_is_good_once_and_for_a_while() {
    let server = TestServer::new().await;
    let alice = server.register("alice").await;
    let session = begin(&server, &alice, &["A"]).await;
    let auth = password_stage("alice", PASSWORD, &session);
    delete_devices(&server, &alice, &["A"], Some(auth.clone())).await.ok();
    let answer = delete_devices(&server, &alice, &["A"], Some(auth)).await;
    assert_eq!(answer.outcome(), (401, ""));
    let session = begin(&server, &alice, &["A"]).await;
    server.pass(15 * 60);
    let auth = password_stage("alice", PASSWORD, &session);
    let answer = delete_devices(&server, &alice, &["A"], Some(auth)).await;
    assert_eq!(answer.outcome(), (401, ""));
    assert_ne!(answer.body["session"], json!(session));
}

#[tokio::test]
async fn t69_an_account_without_a_password_proves_nothing() {
    let server = TestServer::new().await;
    let user_id = server.server.users.accounts().create_by_admin("bot", None, false).await.unwrap();
    let session = causerie::users::NewSession {
        user_id: user_id.clone(),
        device_id: None,
        display_name: None,
        refresh: false,
        account: None,
    };
    let issued = server.server.users.sessions().open(session).await.unwrap();
    let token = issued.access_token.reveal().to_owned();
    let bot = TestUser { user_id, device_id: issued.device_id.to_string(), token };
    let session = begin(&server, &bot, &["A"]).await;
    for password in ["", "x", PASSWORD] {
        let auth = password_stage("bot", password, &session);
        let answer = delete_devices(&server, &bot, &["A"], Some(auth)).await;
        assert_eq!(answer.outcome(), (401, "M_FORBIDDEN"));
    }
    assert_eq!(server.try_login("bot", "").await.outcome(), (403, "M_FORBIDDEN"));
}

#[tokio::test]
async fn t69_the_sixth_wrong_password_is_one_too_many() {
    let server = TestServer::new().await;
    let alice = server.register("alice").await;
    let session = begin(&server, &alice, &["A"]).await;
    for _ in 0..5 {
        let auth = password_stage("alice", "wrong", &session);
        let answer = delete_devices(&server, &alice, &["A"], Some(auth)).await;
        assert_eq!(answer.outcome(), (401, "M_FORBIDDEN"));
        assert_eq!(answer.body["session"], json!(session));
    }
    for password in ["wrong", PASSWORD] {
        let auth = password_stage("alice", password, &session);
        let answer = delete_devices(&server, &alice, &["A"], Some(auth)).await;
        assert_eq!(answer.outcome(), (429, "M_LIMIT_EXCEEDED"));
    }
}

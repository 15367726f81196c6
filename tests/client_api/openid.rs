//! Tokens by which third parties learn who a user is.

use serde_json::json;

use crate::harness::{Answer, TestServer};

async fn userinfo(server: &TestServer, token: &str) -> Answer {
    server.get(&format!("/_matrix/federation/v1/openid/userinfo?access_token={token}")).send().await
}

#[tokio::test]
async fn a_token_tells_who_somebody_is_for_an_hour() {
    let server = TestServer::new().await;
    let alice = server.register("alice").await;
    let path = format!("v3/user/{}/openid/request_token", alice.user_id);
    let body = server.post(&path, json!({})).token(&alice.token).send().await.ok();
    assert_eq!(body["token_type"], json!("Bearer"));
    assert_eq!(body["matrix_server_name"], json!("example.org"));
    assert_eq!(body["expires_in"], json!(3_600));
    let token = body["access_token"].as_str().unwrap();
    assert_eq!(userinfo(&server, token).await.ok(), json!({ "sub": "@alice:example.org" }));
    assert_eq!(userinfo(&server, token).await.status, 200, "more than once");
    // It is no access token.
    let answer = server.get("v3/account/whoami").token(token).send().await;
    assert_eq!(answer.outcome(), (401, "M_UNKNOWN_TOKEN"));
    server.pass(3_600);
    assert_eq!(userinfo(&server, token).await.outcome(), (401, "M_UNKNOWN_TOKEN"));
}

#[tokio::test]
async fn t66_other_tokens_tell_nothing() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    for token in ["x", "cot_", "cot_AAAA", &alice.token] {
        assert_eq!(userinfo(&server, token).await.outcome(), (401, "M_UNKNOWN_TOKEN"), "{token}");
    }
    let path = format!("v3/user/{}/openid/request_token", alice.user_id);
    let answer = server.post(&path, json!({})).token(&bob.token).send().await;
    assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"));
}

//! Registration tokens that are good for so many accounts, or so long.

use causerie::users::TokenChange;
use serde_json::json;

use crate::harness::{Answer, PASSWORD, TestServer};

async fn server() -> TestServer {
    TestServer::with(|config| {
        config.registration.open_without_token = false;
        config.registration.enabled = true;
    })
    .await
}

async fn register(server: &TestServer, name: &str, token: &str) -> Answer {
    let auth = json!({ "type": "m.login.registration_token", "token": token });
    let body = json!({ "username": name, "password": PASSWORD, "auth": auth });
    server.post("v3/register", body).send().await
}

async fn is_valid(server: &TestServer, token: &str) -> bool {
    let path = format!("v1/register/m.login.registration_token/validity?token={token}");
    server.get(&path).send().await.ok()["valid"].as_bool().unwrap()
}

#[tokio::test]
async fn a_token_makes_so_many_accounts() {
    let server = server().await;
    let tokens = server.server.users.registration_tokens();
    let token = tokens.create(None, Some(2), None).await.unwrap();
    assert!(is_valid(&server, &token).await);
    let (one, two, three) = tokio::join!(
        register(&server, "one", &token),
        register(&server, "two", &token),
        register(&server, "three", &token),
    );
    let mut made = [one.status, two.status, three.status].map(|status| status.as_u16());
    made.sort_unstable();
    assert_eq!(made[..2], [200, 200]);
    assert_ne!(made[2], 200);
    assert!(!is_valid(&server, &token).await);
    let change = TokenChange { uses_allowed: Some(Some(3)), ..TokenChange::default() };
    assert_eq!(tokens.update(&token, change).await.unwrap().uses, 2);
    register(&server, "four", &token).await.ok();
    assert!(tokens.delete(&token).await.unwrap());
    assert!(!tokens.delete(&token).await.unwrap());
}

#[tokio::test]
async fn a_token_ends() {
    let server = server().await;
    let tokens = server.server.users.registration_tokens();
    let ends = u64::from(server.clock.now().get()) + 60_000;
    let token = tokens.create(Some("a.b".to_owned()), None, Some(ends)).await.unwrap();
    register(&server, "alice", &token).await.ok();
    server.pass(60);
    assert_eq!(register(&server, "bob", &token).await.outcome(), (401, "M_FORBIDDEN"));
    assert!(tokens.create(Some("a.b".to_owned()), None, None).await.is_err(), "twice");
    assert!(tokens.create(Some("a b".to_owned()), None, None).await.is_err());
    assert_eq!(tokens.list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn who_is_about_to_register_counts() {
    let server = TestServer::with(|config| {
        config.registration.open_without_token = false;
        config.registration.enabled = true;
        config.registration.terms = vec![causerie::config::Policy {
            name: "terms".to_owned(),
            version: "1".to_owned(),
            title: "Terms".to_owned(),
            language: "en".to_owned(),
            url: "https://example.org/".parse().unwrap(),
        }];
    })
    .await;
    let tokens = server.server.users.registration_tokens();
    let token = tokens.create(None, Some(1), None).await.unwrap();
    let first = register(&server, "one", &token).await;
    assert_eq!(first.outcome(), (401, ""));
    assert_eq!(first.body["completed"], json!(["m.login.registration_token"]));
    assert!(!is_valid(&server, &token).await);
    assert_eq!(register(&server, "two", &token).await.outcome(), (401, "M_FORBIDDEN"));
    let auth = json!({ "type": "m.login.terms", "session": first.body["session"] });
    let body = json!({ "username": "one", "password": PASSWORD, "auth": auth });
    server.post("v3/register", body).send().await.ok();
}

#[tokio::test]
async fn where_nobody_may_register_no_token_is_judged() {
    let server = TestServer::with(|config| {
        config.registration.open_without_token = false;
        config.registration.enabled = false;
    })
    .await;
    let path = "v1/register/m.login.registration_token/validity";
    let answer = server.get(&format!("{path}?token=x")).send().await;
    assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"));
    assert_eq!(server.get(path).send().await.outcome(), (400, "M_MISSING_PARAM"));
}

//! Terms at registration, and the pages of stages.

use causerie::config::Policy;
use serde_json::{Value, json};

use crate::harness::{Answer, PASSWORD, TestServer};

async fn with_terms() -> TestServer {
    TestServer::with(|config| {
        config.registration.terms = vec![Policy {
            name: "privacy".to_owned(),
            version: "1.2".to_owned(),
            title: "<b>Privacy</b>".to_owned(),
            language: "en".to_owned(),
            url: "https://example.org/privacy".parse().unwrap(),
        }];
    })
    .await
}

async fn register(server: &TestServer, auth: Value) -> Answer {
    let body = json!({ "username": "alice", "password": PASSWORD, "auth": auth });
    server.post("v3/register", body).send().await
}

#[tokio::test]
async fn terms_are_shown_and_their_acceptance_is_kept() {
    let server = with_terms().await;
    let challenge = server.post("v3/register", json!({})).send().await;
    assert_eq!(challenge.body["flows"], json!([{ "stages": ["m.login.terms"] }]));
    let policy = json!({
        "version": "1.2",
        "en": { "name": "<b>Privacy</b>", "url": "https://example.org/privacy" },
    });
    let params = json!({ "m.login.terms": { "policies": { "privacy": policy } } });
    assert_eq!(challenge.body["params"], params);
    assert_eq!(register(&server, json!({ "type": "m.login.dummy" })).await.status, 401);
    let auth = json!({ "type": "m.login.terms", "session": challenge.body["session"] });
    register(&server, auth).await.ok();
    let user_id = ruma::user_id!("@alice:example.org");
    let account = server.server.users.accounts().get(user_id).await.unwrap().unwrap();
    assert_eq!(account.accepted_terms.get("privacy").map(String::as_str), Some("1.2"));
}

#[tokio::test]
async fn t74_a_page_stands_for_a_stage() {
    let server = with_terms().await;
    let challenge = register(&server, json!(null)).await;
    let session = challenge.body["session"].as_str().unwrap();
    let path = format!("v3/auth/m.login.terms/fallback/web?session={session}");
    let page = server.get(&path).send().await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("&lt;b&gt;Privacy&lt;/b&gt;"), "{}", page.text);
    assert_eq!(page.headers["x-frame-options"], "DENY");
    assert_eq!(page.headers["x-content-type-options"], "nosniff");
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("frame-ancestors 'none'"));
    let call = server.call(http::Method::POST, "v3/auth/m.login.terms/fallback/web");
    let form = format!("session={session}");
    let done = call.header("content-type", "application/x-www-form-urlencoded").body(form);
    let done = done.send().await;
    assert_eq!(done.status, 200);
    assert!(done.text.contains("onAuthDone"));
    // The client goes on with nothing but the session.
    register(&server, json!({ "session": session })).await.ok();
}

#[tokio::test]
async fn t74_what_is_in_the_address_is_escaped() {
    let server = with_terms().await;
    let path = "v3/auth/m.login.terms/fallback/web?session=%22%3E%3Cscript%3E";
    let page = server.get(path).send().await;
    assert_eq!(page.status, 404);
    assert!(!page.text.contains("\"><script>"));
    let path = "unstable/causerie/email/confirm?sid=%22%3E%3Cscript%3E&token=%3Cb%3E";
    let page = server.get(path).send().await;
    assert!(page.text.contains("&quot;&gt;&lt;script&gt;"), "{}", page.text);
    assert!(!page.text.contains("<script>"));
    assert!(!page.text.contains("<b>"));
    let challenge = server.post("v3/register", json!({})).send().await;
    let session = challenge.body["session"].as_str().unwrap();
    let path = format!("v3/auth/m.login.dummy/fallback/web?session={session}");
    assert_eq!(server.get(&path).send().await.status, 404, "no stage of the session");
}

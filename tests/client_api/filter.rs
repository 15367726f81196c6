//! Stored filters.

use serde_json::{Value, json};

use crate::harness::{Answer, TestServer, TestUser};

async fn create(server: &TestServer, user: &TestUser, filter: Value) -> Answer {
    let path = format!("v3/user/{}/filter", user.user_id);
    server.post(&path, filter).token(&user.token).send().await
}

async fn get(server: &TestServer, user: &TestUser, filter_id: &str) -> Answer {
    let path = format!("v3/user/{}/filter/{filter_id}", user.user_id);
    server.get(&path).token(&user.token).send().await
}

#[tokio::test]
async fn t89_filters_are_kept_once_and_clamped() {
    let server = TestServer::new().await;
    let alice = server.register("alice").await;
    let filter = json!({ "room": { "timeline": { "limit": 1_000_000_000 } } });
    let first = create(&server, &alice, filter.clone()).await.ok();
    assert_eq!(create(&server, &alice, filter).await.ok(), first);
    let stored = get(&server, &alice, first["filter_id"].as_str().unwrap()).await.ok();
    assert_eq!(stored, json!({ "room": { "timeline": { "limit": 1_000 } } }));
    for limit in [json!(-1), json!("x"), json!(0.5)] {
        let filter = json!({ "room": { "timeline": { "limit": limit } } });
        assert_eq!(create(&server, &alice, filter).await.outcome(), (400, "M_BAD_JSON"));
    }
    for filter_id in ["99", "x", "-1", "99999999999999"] {
        assert_eq!(get(&server, &alice, filter_id).await.outcome(), (404, "M_NOT_FOUND"));
    }
}

#[tokio::test]
async fn t89_a_filter_has_a_size() {
    let server = TestServer::new().await;
    let alice = server.register("alice").await;
    let filter = json!({ "event_fields": ["x".repeat(65 * 1024)] });
    assert_eq!(create(&server, &alice, filter).await.outcome(), (413, "M_TOO_LARGE"));
}

#[tokio::test]
async fn t89_the_lists_of_a_filter_have_a_length() {
    let server = TestServer::new().await;
    let alice = server.register("alice").await;
    let types: Vec<_> = (0..51).map(|number| format!("{number}*")).collect();
    let filter = json!({ "room": { "timeline": { "types": types } } });
    assert_eq!(create(&server, &alice, filter).await.outcome(), (400, "M_INVALID_PARAM"));
}

#[tokio::test]
async fn t89_the_oldest_filter_makes_room() {
    let server = TestServer::new().await;
    let alice = server.register("alice").await;
    for number in 0..101 {
        let filter = json!({ "event_fields": [number.to_string()] });
        let created = create(&server, &alice, filter).await.ok();
        assert_eq!(created["filter_id"], json!(number.to_string()));
    }
    assert_eq!(get(&server, &alice, "0").await.outcome(), (404, "M_NOT_FOUND"));
    get(&server, &alice, "1").await.ok();
    get(&server, &alice, "100").await.ok();
}

#[tokio::test]
async fn filters_are_their_users_own() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let path = format!("v3/user/{}/filter", alice.user_id);
    let answer = server.post(&path, json!({})).token(&bob.token).send().await;
    assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"));
}

//! Deactivation with erasure.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Client, PASSWORD, TestServer, password_stage, texts};

#[tokio::test]
async fn who_comes_after_an_erasure_sees_no_content() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    bob.send(&room, "secret").await;
    alice.send(&room, "plain").await;
    let old = server.client("old").await;
    old.join(&room).await;
    let deactivate =
        |auth| bob.post("v3/account/deactivate", json!({ "erase": true, "auth": auth }));
    let challenge = deactivate(json!(null)).await;
    let auth = password_stage("bob", PASSWORD, challenge.body["session"].as_str().unwrap());
    deactivate(auth).await.ok();
    let carol = server.client("carol").await;
    carol.join(&room).await;
    let page = carol.messages(&room, "dir=b&limit=50").await.ok();
    assert_eq!(texts(&page["chunk"]), ["plain"]);
    for there in [&alice, &old] {
        let page = there.messages(&room, "dir=b&limit=50").await.ok();
        assert_eq!(texts(&page["chunk"]), ["plain", "secret"]);
    }
    let criteria = json!({ "search_categories": { "room_events": { "search_term": "secret" } } });
    let count = async |user: &Client<'_>| {
        let found = user.post("v3/search", criteria.clone()).await.ok();
        found["search_categories"]["room_events"]["count"].clone()
    };
    for _ in 0..500 {
        if count(&alice).await == json!(1) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(count(&alice).await, json!(1));
    assert_eq!(count(&carol).await, json!(0), "not even that the word was said");
    let login = server.try_login("bob", PASSWORD).await;
    assert_eq!(login.outcome(), (403, "M_USER_DEACTIVATED"));
}

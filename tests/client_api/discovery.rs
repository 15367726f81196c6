//! Versions, capabilities and the well-known files.

use serde_json::json;

use crate::harness::TestServer;

#[tokio::test]
async fn each_version_stands_by_itself() {
    let server = TestServer::new().await;
    let body = server.get("versions").send().await.ok();
    let versions = body["versions"].as_array().unwrap();
    for version in ["v1.1", "v1.4", "v1.11", "v1.19"] {
        assert!(versions.contains(&json!(version)), "{version}");
    }
    let stale = server.get("versions").token("cat_stale").send().await;
    assert_eq!(stale.outcome(), (401, "M_UNKNOWN_TOKEN"));
}

#[tokio::test]
async fn capabilities_name_the_room_versions() {
    let server = TestServer::new().await;
    let alice = server.register("alice").await;
    let body = server.get("v3/capabilities").token(&alice.token).send().await.ok();
    let capabilities = &body["capabilities"];
    assert_eq!(capabilities["m.room_versions"]["default"], json!("12"));
    assert_eq!(capabilities["m.room_versions"]["available"]["6"], json!("stable"));
    assert_eq!(capabilities["m.3pid_changes"], json!({ "enabled": false }));
    assert_eq!(capabilities["m.profile_fields"], json!({ "enabled": true }));
    assert_eq!(server.get("v3/capabilities").send().await.outcome().0, 401);
}

#[tokio::test]
async fn well_known_files_are_served_where_there_is_a_public_address() {
    let server = TestServer::new().await;
    let answer = server.get("/.well-known/matrix/client").send().await;
    assert_eq!(answer.outcome(), (404, "M_NOT_FOUND"));
    let server = TestServer::with(|config| {
        let url = "https://matrix.example.org/".parse().unwrap();
        config.server.public_base_url = Some(url);
    })
    .await;
    let answer = server.get("/.well-known/matrix/client").send().await;
    assert_eq!(answer.headers["access-control-allow-origin"], "*");
    let expected = json!({ "m.homeserver": { "base_url": "https://matrix.example.org" } });
    assert_eq!(answer.ok(), expected);
    let answer = server.get("/.well-known/matrix/server").send().await;
    assert_eq!(answer.ok(), json!({ "m.server": "matrix.example.org:443" }));
}

#[tokio::test]
async fn what_is_not_there_yet_is_empty() {
    let server = TestServer::new().await;
    let alice = server.register("alice").await;
    let get = |path: &'static str| server.get(path).token(&alice.token).send();
    assert_eq!(get("v3/thirdparty/protocols").await.ok(), json!({}));
    assert_eq!(get("v3/voip/turnServer").await.ok(), json!({}));
    assert_eq!(get("v3/pushers").await.ok(), json!({ "pushers": [] }));
}

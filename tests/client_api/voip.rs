//! Calls: the servers that carry them.

use causerie::config::Secret;
use serde_json::json;

use crate::harness::TestServer;

#[tokio::test]
async fn without_servers_nothing_is_told() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    assert_eq!(alice.get("v3/voip/turnServer").await.ok(), json!({}));
    let transports = alice.get("unstable/org.matrix.msc4143/rtc/transports").await.ok();
    assert_eq!(transports, json!({ "rtc_transports": [] }));
    let answer = server.get("v3/voip/turnServer").send().await;
    assert_eq!(answer.outcome(), (401, "M_MISSING_TOKEN"));
    let answer = server.get("unstable/org.matrix.msc4143/rtc/transports").send().await;
    assert_eq!(answer.outcome(), (401, "M_MISSING_TOKEN"));
}

#[tokio::test]
async fn clients_are_told_where_calls_are_carried() {
    let server = TestServer::with(|config| {
        config.server.public_base_url = Some("https://chat.example.org".parse().unwrap());
        let tiles = json!({ "map_style_url": "https://maps.example.org/style.json" });
        config.server.well_known_client.insert("m.tile_server".to_owned(), tiles);
        let calls = &mut config.calls;
        calls.turn_uris = vec!["turn:turn.example.org?transport=udp".to_owned()];
        calls.turn_secret = Some(Secret::new("secret"));
        calls.livekit_service_url = Some("https://livekit.example.org".parse().unwrap());
    })
    .await;
    let alice = server.client("alice").await;
    let turn = alice.get("v3/voip/turnServer").await.ok();
    assert!(turn["username"].as_str().unwrap().ends_with(&format!(":{}", alice.id())));
    assert_eq!(turn["ttl"], 86400);
    let livekit =
        json!({ "type": "livekit", "livekit_service_url": "https://livekit.example.org" });
    let transports = alice.get("unstable/org.matrix.msc4143/rtc/transports").await.ok();
    assert_eq!(transports, json!({ "rtc_transports": [livekit] }));
    let known = server.get("/.well-known/matrix/client").send().await.ok();
    assert_eq!(known["m.homeserver"]["base_url"], "https://chat.example.org");
    assert_eq!(known["org.matrix.msc4143.rtc_foci"], json!([livekit]));
    assert_eq!(known["m.tile_server"]["map_style_url"], "https://maps.example.org/style.json");
}

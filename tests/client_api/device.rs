//! Devices.

use serde_json::json;

use crate::harness::{PASSWORD, TestServer, login_body};

#[tokio::test]
async fn devices_are_listed_with_what_is_known_of_them() {
    let server = TestServer::new().await;
    let alice = server.register("alice").await;
    assert_eq!(server.outcome_of(&alice.token).await.0, 200);
    let path = format!("v3/devices/{}", alice.device_id);
    // That the device was seen is written without being waited for.
    let mut device = json!(null);
    for _ in 0..200 {
        device = server.get(&path).token(&alice.token).send().await.ok();
        if device["last_seen_ip"].is_string() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(device["last_seen_ip"], json!("203.0.113.1"));
    assert_eq!(device["last_seen_ts"], json!(1_800_000_000_000_u64));
    let body = server.get("v3/devices").token(&alice.token).send().await.ok();
    assert_eq!(body["devices"][0]["device_id"], json!(alice.device_id));
    // Clients are told also what is not known of a device, as of one that did nothing yet.
    let idle = server.login("alice").await;
    let body = server.get("v3/devices").token(&alice.token).send().await.ok();
    let shown = body["devices"].as_array().unwrap();
    let shown = shown.iter().find(|device| device["device_id"] == json!(idle.device_id)).unwrap();
    assert_eq!(shown["last_seen_ts"], json!(1_800_000_000_000_u64));
    for field in ["display_name", "last_seen_ip"] {
        assert_eq!(shown.get(field), Some(&json!(null)), "{field}");
    }
    let missing = server.get("v3/devices/NONE").token(&alice.token).send().await;
    assert_eq!(missing.outcome(), (404, "M_NOT_FOUND"));
}

#[tokio::test]
async fn t90_the_name_of_a_device_has_a_length() {
    let server = TestServer::new().await;
    let alice = server.register("alice").await;
    let path = format!("v3/devices/{}", alice.device_id);
    let rename = |name: String| {
        server.put(&path, json!({ "display_name": name })).token(&alice.token).send()
    };
    rename("x".repeat(100)).await.ok();
    assert_eq!(rename("x".repeat(101)).await.outcome(), (400, "M_TOO_LARGE"));
    let device = server.get(&path).token(&alice.token).send().await.ok();
    assert_eq!(device["display_name"], json!("x".repeat(100)));
    let missing = server.put("v3/devices/NONE", json!({ "display_name": "x" }));
    assert_eq!(missing.token(&alice.token).send().await.outcome(), (404, "M_NOT_FOUND"));
}

#[tokio::test]
async fn the_device_that_was_not_seen_for_longest_makes_room() {
    let server = TestServer::with(|config| config.limits.devices_per_user_max = 2).await;
    let first = server.register("alice").await;
    server.pass(60);
    let second = server.login("alice").await;
    server.pass(600);
    assert_eq!(server.outcome_of(&first.token).await.0, 200);
    let third = server.login("alice").await;
    assert_eq!(server.outcome_of(&first.token).await.0, 200);
    assert_eq!(server.outcome_of(&second.token).await.0, 401);
    assert_eq!(server.outcome_of(&third.token).await.0, 200);
}

#[tokio::test]
async fn t90_a_device_id_has_a_length() {
    let server = TestServer::new().await;
    server.register("alice").await;
    let mut body = login_body("alice", PASSWORD);
    body["device_id"] = json!("x".repeat(256));
    let answer = server.post("v3/login", body).send().await;
    assert_eq!(answer.outcome(), (400, "M_INVALID_PARAM"));
}

//! Attack cases T77 and T79: what is refused of keys, and that none is handed out twice.

use std::collections::BTreeSet;

use causerie::storage::schema::encryption::{
    DEVICE_LISTS, ONE_TIME_KEY_COUNTS, ONE_TIME_KEY_IDS, ONE_TIME_KEYS,
};
use futures::future::join_all;
use kv::Direction;
use serde_json::{Map, Value, json};

use crate::{
    bridge::{AS_TOKEN, registration},
    harness::TestServer,
    keys::{ALGORITHM, DeviceSigner, claim, query, upload},
};

#[tokio::test]
async fn t77_bad_device_keys_are_refused_and_null_is_nothing() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let second = server.device_of("alice").await;
    let signer = DeviceSigner::new(&alice);
    let without_signature = || {
        let mut keys = signer.device_keys();
        keys["signatures"] = json!({});
        keys
    };
    let forged = || {
        let mut keys = signer.device_keys();
        keys["algorithms"] = json!(["m.other"]);
        keys
    };
    let (user_id, device_id) = (alice.id(), alice.user.device_id.as_str());
    let cases = [
        (DeviceSigner::new(&bob).device_keys(), (400, "M_INVALID_PARAM")),
        (DeviceSigner::new(&second).device_keys(), (400, "M_INVALID_PARAM")),
        (without_signature(), (400, "M_INVALID_PARAM")),
        (forged(), (400, "M_INVALID_PARAM")),
        (json!({ "user_id": user_id, "device_id": device_id }), (400, "M_BAD_JSON")),
        (json!({ "user_id": "@bob:example.org", "device_id": "D" }), (400, "M_BAD_JSON")),
        (json!("keys"), (400, "M_BAD_JSON")),
        (json!({ "x": "x".repeat(1 << 20) }), (413, "M_TOO_LARGE")),
    ];
    for (keys, outcome) in cases {
        let body = json!({ "device_keys": keys, "one_time_keys": signer.one_time_keys(&["A"]) });
        assert_eq!(alice.post("v3/keys/upload", body).await.outcome(), outcome);
    }
    let seen = query(&bob, alice.id()).await;
    assert_eq!(seen["device_keys"], json!({ alice.id(): {} }), "nothing is stored");
    let null = json!({ "device_keys": null, "one_time_keys": null, "fallback_keys": null });
    assert_eq!(upload(&alice, null).await, json!({ ALGORITHM: 0 }), "no one-time key either");
    let large = json!({ "x": "x".repeat(2 << 20) });
    assert_eq!(alice.post("v3/keys/upload", large).await.outcome(), (413, "M_TOO_LARGE"));
}

#[tokio::test]
async fn t77_one_time_keys_beyond_the_limit_or_with_another_value_are_refused() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let key = |value: &str| json!({ "key": value, "signatures": {} });
    let many = |from: u32, to: u32| {
        let keys = (from..to).map(|id| (format!("{ALGORITHM}:{id}"), key(&id.to_string())));
        json!({ "one_time_keys": keys.collect::<Map<_, _>>() })
    };
    let refused = async |body: Value| {
        let answer = alice.post("v3/keys/upload", body).await;
        assert_eq!(answer.outcome(), (400, "M_INVALID_PARAM"), "{}", answer.body);
    };
    refused(many(0, 257)).await;
    assert_eq!(upload(&alice, json!({})).await, json!({ ALGORITHM: 0 }), "nothing is stored");
    assert_eq!(upload(&alice, many(0, 256)).await, json!({ ALGORITHM: 256 }));
    refused(many(256, 257)).await;
    assert_eq!(upload(&alice, many(0, 256)).await, json!({ ALGORITHM: 256 }), "none is new");
    assert!(claim(&alice, &alice).await.is_some());
    assert_eq!(upload(&alice, many(255, 257)).await, json!({ ALGORITHM: 256 }));
    for id in ["0", "1"] {
        // One that was handed out and one that waits.
        let id = format!("{ALGORITHM}:{id}");
        refused(json!({ "one_time_keys": { id: key("another") } })).await;
    }
    let twice = br#"{"one_time_keys":{"a:1":"x","a:1":"y"}}"#;
    let answer = alice.call(http::Method::POST, "v3/keys/upload").body(*twice).send().await;
    assert_eq!(answer.status.as_u16(), 400);
    let algorithms = (0..17).map(|n| (format!("a{n}:1"), json!("x"))).collect::<Map<_, _>>();
    refused(json!({ "one_time_keys": algorithms })).await;
    refused(json!({ "fallback_keys": algorithms })).await;
    let two = json!({ "fallback_keys": { "a:1": "x", "a:2": "y" } });
    refused(two).await;
}

#[tokio::test]
async fn t77_without_a_device_or_a_token_nothing_is_uploaded() {
    let server = TestServer::new().await;
    for path in ["v3/keys/upload", "v3/keys/query", "v3/keys/claim"] {
        let answer = server.post(path, json!({})).send().await;
        assert_eq!(answer.outcome(), (401, "M_MISSING_TOKEN"), "{path}");
    }
    let alice = server.client("alice").await;
    let multipart = server.post("v3/keys/upload", json!({})).token(&alice.user.token);
    let multipart = multipart.header("content-type", "multipart/form-data").send().await;
    assert_eq!(multipart.status.as_u16(), 415);
    // An application service that names no device.
    server.server.appservices.register(&registration(None)).await.unwrap();
    let upload = server.post("v3/keys/upload", json!({})).token(AS_TOKEN).send().await;
    assert_eq!(upload.outcome(), (400, "M_INVALID_PARAM"));
}

#[tokio::test]
async fn an_answer_with_many_large_keys_comes_whole() {
    let server = TestServer::new().await;
    let carol = server.client("carol").await;
    let mut expected = Map::new();
    for name in ["alice", "bob"] {
        server.client(name).await;
        let mut devices = Map::new();
        for _ in 0..12 {
            let device = server.device_of(name).await;
            let signer = DeviceSigner::new(&device);
            let mut keys = signer.device_keys();
            keys.as_object_mut().unwrap().remove("signatures");
            keys["org.example.filler"] = json!("x".repeat(30_000));
            let mut keys = signer.sign(keys);
            upload(&device, json!({ "device_keys": keys })).await;
            keys["unsigned"] = json!({});
            devices.insert(device.user.device_id.clone(), keys);
        }
        expected.insert(format!("@{name}:example.org"), devices.into());
    }
    expected.insert("@nobody:example.org".to_owned(), json!({}));
    let wanted: Map<_, _> = expected.keys().map(|user| (user.clone(), json!([]))).collect();
    let answer = carol.post("v3/keys/query", json!({ "device_keys": wanted })).await;
    assert!(!answer.headers.contains_key("content-length"), "it is sent as it is read");
    let answer = answer.ok();
    assert_eq!(answer["device_keys"], Value::Object(expected));
    assert_eq!(answer["failures"], json!({}));
    assert_eq!(answer["master_keys"], json!({}));
}

#[tokio::test]
async fn what_is_asked_for_is_checked_and_bounded() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let users = |count: usize, value: Value| {
        let users = (0..count).map(|n| (format!("@u{n}:example.org"), value.clone()));
        users.collect::<Map<_, _>>()
    };
    let devices = (0..10_001).map(|n| (format!("D{n}"), json!("x"))).collect::<Map<_, _>>();
    let as_map = json!({ "device_keys": { alice.id(): { "D": true } } });
    let cases = [
        ("query", as_map, "M_BAD_JSON"),
        ("query", json!({ "device_keys": users(5_001, json!([])) }), "M_INVALID_PARAM"),
        ("query", json!({ "device_keys": { "alice": [] } }), "M_BAD_JSON"),
        ("query", json!({}), "M_BAD_JSON"),
        ("claim", json!({ "one_time_keys": { alice.id(): devices } }), "M_INVALID_PARAM"),
        ("claim", json!({ "one_time_keys": { alice.id(): [] } }), "M_BAD_JSON"),
        ("claim", json!({}), "M_BAD_JSON"),
    ];
    for (operation, body, errcode) in cases {
        let answer = alice.post(&format!("v3/keys/{operation}"), body).await;
        assert_eq!(answer.outcome(), (400, errcode), "{operation}: {}", answer.body);
    }
    let all = json!({ "device_keys": users(5_000, json!([])) });
    let answer = alice.post("v3/keys/query", all).await.ok();
    assert_eq!(answer["device_keys"].as_object().unwrap().len(), 5_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn t79_parallel_claims_hand_out_each_key_once() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let signer = DeviceSigner::new(&bob);
    let ids: Vec<_> = (0..50).map(|n| format!("K{n:02}")).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    let body = json!({ "device_keys": signer.device_keys(),
        "one_time_keys": signer.one_time_keys(&ids), "fallback_keys": signer.fallback_key("F") });
    upload(&bob, body).await;
    let claimed = join_all((0..1_000).map(|_| claim(&alice, &bob))).await;
    let claimed: Vec<_> = claimed.into_iter().map(|id| id.unwrap()).collect();
    let one_time: Vec<_> = claimed.iter().filter(|id| *id != "F").collect();
    assert_eq!(one_time.len(), 50);
    assert_eq!(one_time.iter().collect::<BTreeSet<_>>().len(), 50);
    assert_eq!(upload(&bob, json!({})).await, json!({ ALGORITHM: 0 }));
}

#[tokio::test]
async fn nothing_is_left_of_a_device_that_is_removed_and_who_shares_a_room_is_told() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let second = server.device_of("alice").await;
    let signer = DeviceSigner::new(&second);
    let body = json!({ "device_keys": signer.device_keys(),
        "one_time_keys": signer.one_time_keys(&["0", "1"]) });
    upload(&second, body).await;
    claim(&alice, &second).await.unwrap();
    let user = alice.id().to_owned();
    let marked = || server.server.store.reader().get(&DEVICE_LISTS, &user).unwrap();
    let before = marked();
    assert!(before.is_some());
    second.post("v3/logout", json!({})).await.ok();
    assert!(marked() > before);
    let reader = server.server.store.reader();
    let device = (user.clone(), second.user.device_id.clone());
    let forward = Direction::Forward;
    assert!(
        reader.scan(&ONE_TIME_KEYS, &ONE_TIME_KEYS.prefix(&device), forward, 1).unwrap().is_empty()
    );
    let ids = ONE_TIME_KEY_IDS.prefix(&device);
    assert!(reader.scan(&ONE_TIME_KEY_IDS, &ids, forward, 1).unwrap().is_empty());
    let counts = ONE_TIME_KEY_COUNTS.prefix(&device);
    assert!(reader.scan(&ONE_TIME_KEY_COUNTS, &counts, forward, 1).unwrap().is_empty());
}

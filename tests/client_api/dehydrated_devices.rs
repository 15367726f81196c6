//! Dehydrated devices (MSC3814): made with their keys, sent to, read by the next device.

use causerie::storage::schema::{
    encryption::{
        DEHYDRATED_DEVICES, DEVICE_KEYS, FALLBACK_KEYS, KEY_COUNT_CHANGES, ONE_TIME_KEYS,
        SIGNATURES, TO_DEVICE,
    },
    users::DeviceKey,
};
use kv::Direction;
use serde_json::{Value, json};

use super::{
    cross_signing::Keys,
    keys::{ALGORITHM, DeviceSigner, claim, query},
};
use crate::harness::{Client, PASSWORD, TestServer, encode, password_stage, text};

const PATH: &str = "unstable/org.matrix.msc3814.v1/dehydrated_device";

/// What a user's device is called that is not there.
fn dry<'a>(of: &Client<'a>, device_id: &str) -> Client<'a> {
    let mut dry = of.clone();
    device_id.clone_into(&mut dry.user.device_id);
    dry
}

/// What is uploaded for it.
fn body(of: &Client<'_>) -> Value {
    let signer = DeviceSigner::new(of);
    let mut keys = signer.device_keys();
    keys["dehydrated"] = json!(true);
    keys.as_object_mut().unwrap().remove("signatures");
    json!({
        "device_id": of.user.device_id,
        "device_data": { "algorithm": "org.matrix.msc3814.v2", "device_pickle": "p", "nonce": "n" },
        "initial_device_display_name": "Dehydrated device",
        "device_keys": signer.sign(keys),
        "one_time_keys": signer.one_time_keys(&["1"]),
        "fallback_keys": signer.fallback_key("f"),
    })
}

async fn tell(from: &Client<'_>, to: &Client<'_>, number: u64) {
    let body = json!({ "messages": { to.id(): { &to.user.device_id: { "number": number } } } });
    from.put(&format!("v3/sendToDevice/m.test/{number}"), body).await.ok();
}

/// The messages of one answer, and the token to go on with.
async fn events(client: &Client<'_>, device: &str, next: Option<&str>) -> (Vec<u64>, String) {
    let body = next.map_or_else(|| json!({}), |next| json!({ "next_batch": next }));
    let answer = client.post(&format!("{PATH}/{}/events", encode(device)), body).await.ok();
    let numbers = answer["events"].as_array().unwrap().iter();
    let numbers = numbers.map(|event| event["content"]["number"].as_u64().unwrap());
    (numbers.collect(), text(&answer["next_batch"]))
}

fn count<K: kv::Key, V: kv::Value>(
    server: &TestServer,
    table: &kv::Table<K, V>,
    device: &Client<'_>,
) -> usize {
    let prefix = (device.id().to_owned(), device.user.device_id.clone());
    let range = table.prefix(&prefix);
    server.server.store.reader().scan(table, &range, Direction::Forward, 100).unwrap().len()
}

/// How many rows there are of a device in each table.
fn rows(server: &TestServer, device: &Client<'_>) -> [usize; 5] {
    [
        count(server, &DEVICE_KEYS, device),
        count(server, &ONE_TIME_KEYS, device),
        count(server, &FALLBACK_KEYS, device),
        count(server, &KEY_COUNT_CHANGES, device),
        count(server, &TO_DEVICE, device),
    ]
}

#[tokio::test]
async fn one_is_made_seen_and_removed() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let dry = dry(&alice, "DRY+/");
    for answer in [alice.get(PATH).await, alice.delete(PATH).await] {
        assert_eq!(answer.outcome(), (404, "M_NOT_FOUND"));
    }
    let body = body(&dry);
    assert_eq!(alice.put(PATH, body.clone()).await.ok(), json!({ "device_id": "DRY+/" }));
    let expected = json!({ "device_id": "DRY+/", "device_data": body["device_data"] });
    assert_eq!(alice.get(PATH).await.ok(), expected);
    assert_eq!(bob.get(PATH).await.outcome(), (404, "M_NOT_FOUND"));
    // Others see its keys and claim some; it is no session.
    let seen = query(&bob, alice.id()).await;
    let keys = &seen["device_keys"][alice.id()]["DRY+/"];
    assert_eq!(keys["keys"], body["device_keys"]["keys"]);
    assert_eq!(keys["dehydrated"], json!(true));
    assert_eq!(keys["unsigned"], json!({ "device_display_name": "Dehydrated device" }));
    assert_eq!(claim(&bob, &dry).await.as_deref(), Some("1"));
    assert_eq!(claim(&bob, &dry).await.as_deref(), Some("f"));
    let devices = alice.get("v3/devices").await.ok();
    assert_eq!(devices["devices"].as_array().unwrap().len(), 1);
    // A login leaves it where it is.
    let next = server.device_of("alice").await;
    assert_eq!(next.get(PATH).await.ok(), expected);
    assert_eq!(next.delete(PATH).await.ok(), json!({ "device_id": "DRY+/" }));
    assert_eq!(alice.get(PATH).await.outcome(), (404, "M_NOT_FOUND"));
    let seen = query(&bob, alice.id()).await;
    assert_eq!(seen["device_keys"], json!({ alice.id(): {} }));
    assert_eq!(claim(&bob, &dry).await, None);
    assert_eq!(rows(&server, &dry), [0; 5]);
}

#[tokio::test]
async fn another_takes_its_place_and_those_who_share_a_room_are_told() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    let (one, two) = (dry(&alice, "ONE"), dry(&alice, "TWO"));
    let since = bob.now().await;
    alice.put(PATH, body(&one)).await.ok();
    let answer = bob.sync(Some(&since)).await;
    assert_eq!(answer["device_lists"]["changed"], json!([alice.id()]));
    tell(&bob, &one, 1).await;
    assert_eq!(rows(&server, &one), [1; 5]);
    let since = bob.now().await;
    alice.put(PATH, body(&two)).await.ok();
    let answer = bob.sync(Some(&since)).await;
    assert_eq!(answer["device_lists"]["changed"], json!([alice.id()]));
    assert_eq!((rows(&server, &one), rows(&server, &two)), ([0; 5], [1, 1, 1, 1, 0]));
    let seen = query(&bob, alice.id()).await;
    let devices = seen["device_keys"][alice.id()].as_object().unwrap();
    assert_eq!(devices.keys().collect::<Vec<_>>(), ["TWO"]);
    // What is sent to the old one is lost, and nothing is kept for it.
    tell(&bob, &one, 2).await;
    assert_eq!(rows(&server, &one), [0; 5]);
    let since = bob.now().await;
    alice.delete(PATH).await.ok();
    let answer = bob.sync(Some(&since)).await;
    assert_eq!(answer["device_lists"]["changed"], json!([alice.id()]));
}

#[tokio::test]
async fn the_same_again_changes_nothing() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let dry = dry(&alice, "DRY");
    let mut body = body(&dry);
    alice.put(PATH, body.clone()).await.ok();
    tell(&bob, &dry, 1).await;
    assert_eq!(claim(&bob, &dry).await.as_deref(), Some("1"));
    let before = server.server.store.position();
    alice.put(PATH, body.clone()).await.ok();
    assert_eq!(server.server.store.position(), before);
    assert_eq!(events(&alice, "DRY", None).await.0, [1]);
    assert_eq!(claim(&bob, &dry).await.as_deref(), Some("f"), "the key is not revived");
    // What the client keeps in it may change, and its name.
    body["device_data"]["device_pickle"] = json!("other");
    body["initial_device_display_name"] = json!("x".repeat(1_000));
    alice.put(PATH, body.clone()).await.ok();
    assert_eq!(alice.get(PATH).await.ok()["device_data"], body["device_data"]);
    let seen = query(&bob, alice.id()).await;
    let name = &seen["device_keys"][alice.id()]["DRY"]["unsigned"]["device_display_name"];
    assert_eq!(text(name).len(), 100);
    assert_eq!(events(&alice, "DRY", None).await.0, [1]);
    // Other keys are another device.
    let other = super::dehydrated_devices::body(&dry);
    assert_eq!(alice.put(PATH, other).await.outcome(), (400, "M_INVALID_PARAM"));
    assert_eq!(query(&bob, alice.id()).await["device_keys"], seen["device_keys"]);
}

#[tokio::test]
async fn its_messages_are_read_in_pages_and_stay_until_it_goes() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let dry = dry(&alice, "DRY");
    alice.put(PATH, body(&dry)).await.ok();
    for number in 0..101 {
        tell(&bob, &dry, number).await;
    }
    let (page, next) = events(&alice, "DRY", None).await;
    assert_eq!(page, (0..100).collect::<Vec<_>>());
    let (page, last) = events(&alice, "DRY", Some(&next)).await;
    assert_eq!(page, [100]);
    let (page, end) = events(&alice, "DRY", Some(&last)).await;
    assert!(page.is_empty() && end == last);
    tell(&bob, &dry, 101).await;
    assert_eq!(events(&alice, "DRY", Some(&end)).await.0, [101]);
    // By GET the last answer has no token: clients go on while there is one.
    let listed = format!("{PATH}/DRY/events");
    let page = alice.get(&listed).await.ok();
    assert_eq!(page["events"].as_array().unwrap().len(), 100);
    let rest = format!("{listed}?from={}", text(&page["next_batch"]));
    let page = alice.get(&rest).await.ok();
    let message = json!({ "type": "m.test", "sender": bob.id(), "content": { "number": 101 } });
    assert_eq!(page["events"][1], message);
    assert!(page.get("next_batch").is_none());
    assert_eq!(bob.get(&listed).await.outcome(), (403, "M_FORBIDDEN"));
    let garbage = alice.get(&format!("{listed}?from=x")).await;
    assert_eq!(garbage.outcome(), (400, "M_INVALID_PARAM"));
    // Who read them may be gone before they are of use: another device begins anew.
    let next_device = server.device_of("alice").await;
    assert_eq!(events(&next_device, "DRY", None).await.0.len(), 100);
    assert_eq!(events(&next_device, "DRY", Some("dffff_1")).await.0[0], 0, "another epoch");
    let path = |device: &str| format!("{PATH}/{device}/events");
    for token in ["x", "", "s0_1", "d0_-1"] {
        let answer = alice.post(&path("DRY"), json!({ "next_batch": token })).await;
        assert_eq!(answer.outcome(), (400, "M_INVALID_PARAM"), "{token}");
    }
    let own = path(&alice.user.device_id);
    for answer in [
        alice.post(&own, json!({})).await,
        alice.post(&path("OTHER"), json!({})).await,
        bob.post(&path("DRY"), json!({})).await,
    ] {
        assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"));
    }
}

#[tokio::test]
async fn what_is_no_dehydrated_device_is_refused() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let dry = dry(&alice, "DRY");
    let good = body(&dry);
    let with = |field: &str, value: Value| {
        let mut body = good.clone();
        body[field] = value;
        body
    };
    let large = json!({ "algorithm": "a", "device_pickle": "x".repeat(64 * 1024) });
    let mut forged = good["device_keys"].clone();
    forged["algorithms"] = json!([]);
    let twice = json!({ format!("{ALGORITHM}:1"): { "key": "x" }, format!("{ALGORITHM}:2"): 5 });
    let refused = [
        (with("device_id", json!("")), (400, "M_INVALID_PARAM")),
        (with("device_id", json!("x".repeat(256))), (400, "M_INVALID_PARAM")),
        (with("device_id", json!("OTHER")), (400, "M_INVALID_PARAM")),
        (with("device_id", Value::Null), (400, "M_BAD_JSON")),
        (with("device_data", json!("x")), (400, "M_BAD_JSON")),
        (with("device_data", json!({})), (400, "M_BAD_JSON")),
        (with("device_data", large), (413, "M_TOO_LARGE")),
        (with("device_keys", Value::Null), (400, "M_BAD_JSON")),
        (with("device_keys", forged), (400, "M_INVALID_PARAM")),
        (with("one_time_keys", twice), (400, "M_BAD_JSON")),
        (json!({}), (400, "M_BAD_JSON")),
    ];
    for (body, outcome) in refused {
        let answer = alice.put(PATH, body).await;
        assert_eq!(answer.outcome(), outcome, "{}", answer.body);
    }
    assert_eq!(alice.get(PATH).await.outcome(), (404, "M_NOT_FOUND"));
    assert_eq!(rows(&server, &dry), [0; 5]);
}

#[tokio::test]
async fn nothing_has_the_name_of_something_else() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let own = alice.put(PATH, body(&alice)).await;
    assert_eq!(own.outcome(), (400, "M_INVALID_PARAM"), "a real device");
    let keys = Keys::new(alice.id());
    alice.post("v3/keys/device_signing/upload", keys.body()).await.ok();
    let named = dry(&alice, &keys.self_signing.public);
    assert_eq!(alice.put(PATH, body(&named)).await.outcome(), (400, "M_INVALID_PARAM"));
    alice.put(PATH, body(&dry(&alice, "DRY"))).await.ok();
    for device_id in ["DRY", &keys.master.public] {
        let mut login = crate::harness::login_body("alice", PASSWORD);
        login["device_id"] = json!(device_id);
        let answer = server.post("v3/login", login).send().await;
        assert_eq!(answer.outcome(), (400, "M_INVALID_PARAM"), "{device_id}");
    }
    assert_eq!(alice.get(PATH).await.ok()["device_id"], "DRY");
}

#[tokio::test]
async fn it_is_signed_as_other_devices_are_and_goes_with_the_account() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    let dry = dry(&alice, "DRY");
    let body = body(&dry);
    alice.put(PATH, body.clone()).await.ok();
    let keys = Keys::new(alice.id());
    alice.post("v3/keys/device_signing/upload", keys.body()).await.ok();
    let signed = keys.self_signing.sign(body["device_keys"].clone());
    let signed = json!({ alice.id(): { "DRY": signed } });
    let answer = alice.post("v3/keys/signatures/upload", signed).await.ok();
    assert_eq!(answer, json!({ "failures": {} }));
    let seen = query(&bob, alice.id()).await;
    let by = seen["device_keys"][alice.id()]["DRY"]["signatures"][alice.id()].clone();
    assert_eq!(by.as_object().unwrap().len(), 2);
    tell(&bob, &dry, 1).await;
    let since = bob.now().await;
    let answer = alice.post("v3/account/deactivate", json!({})).await;
    let auth = password_stage("alice", PASSWORD, &text(&answer.body["session"]));
    alice.post("v3/account/deactivate", json!({ "auth": auth })).await.ok();
    let answer = bob.sync(Some(&since)).await;
    let told = &answer["device_lists"];
    assert!(told["changed"] == json!([alice.id()]) || told["left"] == json!([alice.id()]));
    assert_eq!(rows(&server, &dry), [0; 5]);
    let reader = server.server.store.reader();
    assert!(!reader.contains(&DEHYDRATED_DEVICES, &alice.id().to_owned()).unwrap());
    let range = SIGNATURES.prefix(&alice.id().to_owned());
    assert!(reader.scan(&SIGNATURES, &range, Direction::Forward, 1).unwrap().is_empty());
    let key = DeviceKey { user_id: alice.id().to_owned(), device_id: "DRY".to_owned() };
    assert!(!reader.contains(&DEVICE_KEYS, &key).unwrap());
}

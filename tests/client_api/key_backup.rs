//! Backups of the keys of rooms.

use causerie::storage::schema::encryption::{BACKUP_KEYS, BACKUP_VERSIONS};
use futures::future::join_all;
use kv::Direction;
use serde_json::{Value, json};

use crate::harness::{Answer, Client, PASSWORD, TestServer, encode, password_stage};

const VERSION: &str = "v3/room_keys/version";
const ALGORITHM: &str = "m.megolm_backup.v1.curve25519-aes-sha2";
const ROOM: &str = "!room:example.org";

fn description(public_key: &str) -> Value {
    json!({ "algorithm": ALGORITHM,
        "auth_data": { "public_key": public_key, "signatures": { "@a:b": { "ed25519:D": "s" } } } })
}

fn key(first_message_index: u64, data: &str) -> Value {
    json!({ "first_message_index": first_message_index, "forwarded_count": 0, "is_verified": true,
        "session_data": { "ephemeral": "e", "ciphertext": data, "mac": "m" } })
}

async fn new_version(client: &Client<'_>) -> String {
    let body = client.post(VERSION, description("key")).await.ok();
    body["version"].as_str().unwrap().to_owned()
}

fn keys_path(parts: &[&str], version: &str) -> String {
    let parts: Vec<_> = ["v3/room_keys/keys".to_owned()]
        .into_iter()
        .chain(parts.iter().map(|part| encode(part)))
        .collect();
    format!("{}?version={version}", parts.join("/"))
}

async fn put_key(client: &Client<'_>, session: &str, version: &str, key: Value) -> Answer {
    client.put(&keys_path(&[ROOM, session], version), key).await
}

/// The etag and the count of an answer.
fn state(body: &Value) -> (String, u64) {
    (body["etag"].as_str().unwrap().to_owned(), body["count"].as_u64().unwrap())
}

async fn state_of(client: &Client<'_>, version: &str) -> (String, u64) {
    state(&client.get(&format!("{VERSION}/{version}")).await.ok())
}

#[tokio::test]
async fn versions_ascend_and_are_described_as_they_came() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    assert_eq!(alice.get(VERSION).await.outcome(), (404, "M_NOT_FOUND"));
    assert_eq!(new_version(&alice).await, "1");
    assert_eq!(new_version(&alice).await, "2");
    let mut expected = description("key");
    expected["version"] = json!("2");
    expected["count"] = json!(0);
    expected["etag"] = json!("0");
    assert_eq!(alice.get(VERSION).await.ok(), expected);
    let first = alice.get("v3/room_keys/version/1").await.ok();
    assert_eq!(first["version"], "1");
    for other in ["3", "01", "+1", "x", "-1", "18446744073709551616"] {
        let path = format!("{VERSION}/{other}");
        assert_eq!(alice.get(&path).await.outcome(), (404, "M_NOT_FOUND"), "{other}");
        assert_eq!(alice.delete(&path).await.outcome(), (404, "M_NOT_FOUND"), "{other}");
        let changed = alice.put(&path, description("key")).await;
        assert_eq!(changed.outcome(), (404, "M_NOT_FOUND"), "{other}");
    }
    let bob = server.client("bob").await;
    assert_eq!(bob.get("v3/room_keys/version/1").await.outcome(), (404, "M_NOT_FOUND"));
}

#[tokio::test]
async fn what_describes_no_backup_is_refused() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let cases = [
        (json!({ "auth_data": {} }), (400, "M_BAD_JSON")),
        (json!({ "algorithm": ALGORITHM }), (400, "M_BAD_JSON")),
        (json!({ "algorithm": ALGORITHM, "auth_data": [] }), (400, "M_BAD_JSON")),
        (json!({ "algorithm": "", "auth_data": {} }), (400, "M_INVALID_PARAM")),
        (description(&"x".repeat(70_000)), (413, "M_TOO_LARGE")),
    ];
    for (body, expected) in cases {
        assert_eq!(alice.post(VERSION, body).await.outcome(), expected);
    }
    assert_eq!(alice.get(VERSION).await.outcome(), (404, "M_NOT_FOUND"));
}

#[tokio::test]
async fn only_the_auth_data_of_a_version_changes() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let version = new_version(&alice).await;
    put_key(&alice, "s", &version, key(0, "x")).await.ok();
    let before = state_of(&alice, &version).await;
    let path = format!("{VERSION}/{version}");
    assert_eq!(alice.put(&path, description("other")).await.ok(), json!({}));
    let mut named = description("third");
    named["version"] = json!(version);
    alice.put(&path, named.clone()).await.ok();
    let body = alice.get(&path).await.ok();
    assert_eq!(body["auth_data"]["public_key"], "third");
    assert_eq!(state(&body), before);
    named["version"] = json!("2");
    assert_eq!(alice.put(&path, named).await.outcome(), (400, "M_INVALID_PARAM"));
    let mut algorithm = description("key");
    algorithm["algorithm"] = json!("m.other");
    assert_eq!(alice.put(&path, algorithm).await.outcome(), (400, "M_INVALID_PARAM"));
}

#[tokio::test]
async fn a_deleted_version_is_gone_and_its_number_not_given_again() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    for _ in 0..3 {
        new_version(&alice).await;
    }
    put_key(&alice, "s", "3", key(0, "x")).await.ok();
    alice.delete("v3/room_keys/version/3").await.ok();
    alice.delete("v3/room_keys/version/3").await.ok();
    assert_eq!(alice.get("v3/room_keys/version/3").await.outcome(), (404, "M_NOT_FOUND"));
    let all = alice.get(&keys_path(&[], "3")).await;
    assert_eq!(all.outcome(), (404, "M_NOT_FOUND"));
    assert_eq!(put_key(&alice, "s", "3", key(0, "x")).await.outcome(), (404, "M_NOT_FOUND"));
    assert_eq!(alice.get(VERSION).await.ok()["version"], "2", "the newest that is left");
    put_key(&alice, "s", "2", key(0, "x")).await.ok();
    alice.delete("v3/room_keys/version/1").await.ok();
    alice.delete("v3/room_keys/version/2").await.ok();
    assert_eq!(alice.get(VERSION).await.outcome(), (404, "M_NOT_FOUND"));
    assert_eq!(new_version(&alice).await, "4");
    assert_eq!(alice.get(&keys_path(&[], "4")).await.ok(), json!({ "rooms": {} }));
    for deleted in ["1", "2", "3"] {
        alice.delete(&format!("{VERSION}/{deleted}")).await.ok();
    }
    assert_eq!(alice.delete("v3/room_keys/version/5").await.outcome(), (404, "M_NOT_FOUND"));
}

#[tokio::test]
async fn keys_go_into_the_newest_version_alone() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    new_version(&alice).await;
    put_key(&alice, "s", "1", key(0, "x")).await.ok();
    new_version(&alice).await;
    let body = json!({ "sessions": { "s": key(0, "x") } });
    let calls = [
        put_key(&alice, "t", "1", key(0, "x")).await,
        alice.put(&keys_path(&[ROOM], "1"), body.clone()).await,
        alice.put(&keys_path(&[], "1"), json!({ "rooms": { ROOM: body } })).await,
    ];
    for refused in calls {
        assert_eq!(refused.outcome(), (403, "M_WRONG_ROOM_KEYS_VERSION"));
        assert_eq!(refused.body["current_version"], "2");
    }
    assert_eq!(alice.get(&keys_path(&[ROOM, "s"], "1")).await.ok(), key(0, "x"), "still there");
    assert_eq!(state_of(&alice, "1").await.1, 1);
    let missing = alice.put("v3/room_keys/keys", json!({ "rooms": {} })).await;
    assert_eq!(missing.outcome(), (400, "M_MISSING_PARAM"));
}

#[tokio::test]
async fn keys_are_given_back_by_session_by_room_and_all() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let version = new_version(&alice).await;
    let other = "!other";
    let rooms = json!({ "rooms": {
        ROOM: { "sessions": { "s/1": key(0, "a"), "s\"2": key(1, "b") } },
        other: { "sessions": { "s/1": key(2, "c") } },
    } });
    let put = alice.put(&keys_path(&[], &version), rooms.clone()).await.ok();
    assert_eq!(state(&put).1, 3);
    assert_eq!(alice.get(&keys_path(&[], &version)).await.ok(), rooms);
    let room = alice.get(&keys_path(&[ROOM], &version)).await.ok();
    assert_eq!(room, rooms["rooms"][ROOM]);
    let session = alice.get(&keys_path(&[other, "s/1"], &version)).await.ok();
    assert_eq!(session, key(2, "c"));
    let none = alice.get(&keys_path(&["!none:example.org"], &version)).await.ok();
    assert_eq!(none, json!({ "sessions": {} }));
    let missing = alice.get(&keys_path(&[ROOM, "s"], &version)).await;
    assert_eq!(missing.outcome(), (404, "M_NOT_FOUND"));
    for parts in [&[][..], &[ROOM], &[ROOM, "s"]] {
        let missing = alice.get(&keys_path(parts, "9")).await;
        assert_eq!(missing.outcome(), (404, "M_NOT_FOUND"));
        let missing = alice.delete(&keys_path(parts, "9")).await;
        assert_eq!(missing.outcome(), (404, "M_NOT_FOUND"));
    }
    let old = alice.get(&format!("r0/room_keys/keys?version={version}")).await.ok();
    assert_eq!(old, rooms);
}

#[tokio::test]
async fn the_etag_changes_with_the_keys_and_only_then() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let version = new_version(&alice).await;
    let empty = state_of(&alice, &version).await;
    let first = state(&put_key(&alice, "s", &version, key(5, "a")).await.ok());
    assert!(first.0 != empty.0 && first.1 == 1, "{first:?}");
    // Neither the same again nor a worse one.
    for index in [5, 6] {
        let same = state(&put_key(&alice, "s", &version, key(index, "b")).await.ok());
        assert_eq!(same, first);
    }
    assert_eq!(alice.get(&keys_path(&[ROOM, "s"], &version)).await.ok(), key(5, "a"));
    let better = state(&put_key(&alice, "s", &version, key(4, "c")).await.ok());
    assert!(better.0 != first.0 && better.1 == 1, "{better:?}");
    assert_eq!(alice.get(&keys_path(&[ROOM, "s"], &version)).await.ok(), key(4, "c"));
    // One better among others.
    let body = json!({ "sessions": { "s": key(9, "x"), "t": key(0, "y") } });
    let mixed = state(&alice.put(&keys_path(&[ROOM], &version), body).await.ok());
    assert!(mixed.0 != better.0 && mixed.1 == 2, "{mixed:?}");
    let gone = state(&alice.delete(&keys_path(&[ROOM, "none"], &version)).await.ok());
    assert_eq!(gone, mixed);
    let gone = state(&alice.delete(&keys_path(&["!none"], &version)).await.ok());
    assert_eq!(gone, mixed);
    assert_eq!(state_of(&alice, &version).await, mixed);
}

#[tokio::test]
async fn keys_are_deleted_by_session_by_room_and_all() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let version = new_version(&alice).await;
    let sessions = json!({ "sessions": { "s": key(0, "a"), "t": key(0, "b"), "u": key(0, "c") } });
    let rooms = json!({ "rooms": { ROOM: sessions, "!b": sessions, "!c": sessions } });
    alice.put(&keys_path(&[], &version), rooms).await.ok();
    let mut seen = vec![state_of(&alice, &version).await];
    assert_eq!(seen[0].1, 9);
    for (parts, left) in [(&[ROOM, "s"][..], 8), (&["!b"], 5), (&[], 0)] {
        let now = state(&alice.delete(&keys_path(parts, &version)).await.ok());
        assert_eq!(now.1, left);
        assert!(!seen.contains(&now) && seen.iter().all(|(etag, _)| *etag != now.0));
        seen.push(now);
        let room = alice.get(&keys_path(&["!b"], &version)).await.ok();
        let expected = if left == 8 { &sessions } else { &json!({ "sessions": {} }) };
        assert_eq!(room, *expected);
    }
    assert_eq!(alice.get(&keys_path(&[], &version)).await.ok(), json!({ "rooms": {} }));
}

#[tokio::test]
async fn counts_are_exact_when_devices_upload_at_once() {
    let server = TestServer::new().await;
    let phone = server.client("alice").await;
    let laptop = server.device_of("alice").await;
    let version = new_version(&phone).await;
    let uploads = (0..40_u64).map(|number| {
        // Every key comes from both devices.
        let client = if number % 2 == 0 { &phone } else { &laptop };
        let session = format!("s{}", number / 2);
        let version = version.clone();
        async move { put_key(client, &session, &version, key(number, "x")).await.ok() }
    });
    let answers = join_all(uploads).await;
    let (etag, count) = state_of(&phone, &version).await;
    assert_eq!(count, 20);
    let all = phone.get(&keys_path(&[], &version)).await.ok();
    assert_eq!(all["rooms"][ROOM]["sessions"].as_object().unwrap().len(), 20);
    assert!(answers.iter().any(|body| state(body) == (etag.clone(), count)));
    for number in 0..20 {
        let kept = &all["rooms"][ROOM]["sessions"][format!("s{number}")];
        assert_eq!(kept["first_message_index"], json!(2 * number), "the better one");
    }
}

#[tokio::test]
async fn a_large_backup_comes_whole() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let version = new_version(&alice).await;
    let mut expected = json!({ "rooms": {} });
    let data = "d".repeat(21_000);
    for part in 0..4 {
        let sessions: serde_json::Map<_, _> =
            (0..20).map(|number| (format!("s{part}-{number}"), key(number, &data))).collect();
        let rooms = json!({ format!("!{part}"): { "sessions": sessions },
            "!same": { "sessions": sessions } });
        let body = json!({ "rooms": rooms });
        assert!(body.to_string().len() > 800_000, "two batches each");
        let count = state(&alice.put(&keys_path(&[], &version), body).await.ok()).1;
        assert_eq!(count, (part + 1) * 40);
        for (room, keys) in rooms.as_object().unwrap() {
            let known = expected["rooms"][room]["sessions"].take();
            let mut known = known.as_object().cloned().unwrap_or_default();
            known.extend(keys["sessions"].as_object().unwrap().clone());
            expected["rooms"][room] = json!({ "sessions": known });
        }
    }
    let answer = alice.get(&keys_path(&[], &version)).await;
    assert_eq!(answer.headers["content-type"], "application/json");
    assert!(answer.bytes.len() > 3_000_000);
    assert_eq!(answer.ok(), expected);
    let room = alice.get(&keys_path(&["!same"], &version)).await.ok();
    assert_eq!(room, expected["rooms"]["!same"]);
}

#[tokio::test]
async fn what_is_too_much_is_refused() {
    let server = TestServer::with(|config| {
        config.encryption.backup_keys_max = 3;
        config.encryption.backup_key_size_bytes_max = 1_000;
    })
    .await;
    let alice = server.client("alice").await;
    let version = new_version(&alice).await;
    let large = put_key(&alice, "s", &version, key(0, &"x".repeat(1_000))).await;
    assert_eq!(large.outcome(), (413, "M_TOO_LARGE"));
    let four: serde_json::Map<_, _> =
        (0..4).map(|number| (number.to_string(), key(5, "x"))).collect();
    let path = keys_path(&[ROOM], &version);
    let refused = alice.put(&path, json!({ "sessions": four })).await;
    assert_eq!(refused.outcome(), (413, "M_TOO_LARGE"));
    assert_eq!(state_of(&alice, &version).await, ("0".to_owned(), 0), "whole or not at all");
    for session in ["0", "1", "2"] {
        put_key(&alice, session, &version, key(5, "x")).await.ok();
    }
    assert_eq!(put_key(&alice, "3", &version, key(5, "x")).await.outcome(), (413, "M_TOO_LARGE"));
    put_key(&alice, "0", &version, key(0, "a better one goes on")).await.ok();
    let long = "s".repeat(256);
    let refused = put_key(&alice, &long, &version, key(0, "x")).await;
    assert_eq!(refused.outcome(), (400, "M_INVALID_PARAM"));
    let refused = put_key(&alice, "s", &version, json!({ "session_data": {} })).await;
    assert_eq!(refused.outcome(), (400, "M_BAD_JSON"));
    for _ in 1..100 {
        new_version(&alice).await;
    }
    let refused = alice.post(VERSION, description("key")).await;
    assert_eq!(refused.outcome(), (413, "M_TOO_LARGE"));
    alice.delete("v3/room_keys/version/1").await.ok();
    assert_eq!(new_version(&alice).await, "101");
}

#[tokio::test]
async fn the_keys_in_all_backups_of_a_user_have_a_size() {
    let server = TestServer::with(|config| config.encryption.backup_size_bytes_max = 2_500).await;
    let alice = server.client("alice").await;
    let first = new_version(&alice).await;
    let large = || key(5, &"x".repeat(900));
    for session in ["a", "b"] {
        put_key(&alice, session, &first, large()).await.ok();
    }
    assert_eq!(put_key(&alice, "c", &first, large()).await.outcome(), (413, "M_TOO_LARGE"));
    // What takes the place of another counts instead of it.
    put_key(&alice, "a", &first, key(4, &"y".repeat(900))).await.ok();
    put_key(&alice, "a", &first, key(3, "small")).await.ok();
    put_key(&alice, "c", &first, large()).await.ok();
    let second = new_version(&alice).await;
    assert_eq!(put_key(&alice, "a", &second, large()).await.outcome(), (413, "M_TOO_LARGE"));
    alice.delete(&keys_path(&[ROOM, "b"], &first)).await.ok();
    put_key(&alice, "a", &second, large()).await.ok();
    assert_eq!(put_key(&alice, "b", &second, large()).await.outcome(), (413, "M_TOO_LARGE"));
    alice.delete(&format!("v3/room_keys/version/{first}")).await.ok();
    put_key(&alice, "b", &second, large()).await.ok();
    alice.delete(&keys_path(&[ROOM], &second)).await.ok();
    for session in ["a", "b"] {
        put_key(&alice, session, &second, large()).await.ok();
    }
}

#[tokio::test]
async fn a_backup_is_the_users_own_and_survives_a_restart() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let bob = server.client("bob").await;
    let version = new_version(&alice).await;
    put_key(&alice, "s", &version, key(0, "x")).await.ok();
    new_version(&bob).await;
    assert_eq!(bob.get(&keys_path(&[], &version)).await.ok(), json!({ "rooms": {} }));
    let before = state_of(&alice, &version).await;
    let user = alice.user.clone();
    let server = server.restart().await;
    let alice = Client { server: &server, user };
    assert_eq!(state_of(&alice, &version).await, before);
    assert_eq!(alice.get(&keys_path(&[ROOM, "s"], &version)).await.ok(), key(0, "x"));
}

#[tokio::test]
async fn an_upload_that_broke_off_is_completed_by_the_same_again() {
    // Forty keys are two batches, of which the second is refused: as after a crash between them.
    let server = TestServer::with(|config| config.encryption.backup_keys_max = 39).await;
    let alice = server.client("alice").await;
    let version = new_version(&alice).await;
    let data = "d".repeat(21_000);
    let sessions: serde_json::Map<_, _> =
        (0..40).map(|number| (format!("s{number}"), key(0, &data))).collect();
    let sessions = json!({ "sessions": sessions });
    let path = keys_path(&[ROOM], &version);
    assert_eq!(alice.put(&path, sessions.clone()).await.outcome(), (413, "M_TOO_LARGE"));
    let (etag, count) = state_of(&alice, &version).await;
    let stored = alice.get(&path).await.ok();
    assert_eq!(stored["sessions"].as_object().unwrap().len() as u64, count);
    assert!((1..40).contains(&count), "{count}");
    let user = alice.user.clone();
    let server = server.restarted(|config| config.encryption.backup_keys_max = 40).await;
    let alice = Client { server: &server, user };
    let completed = state(&alice.put(&path, sessions.clone()).await.ok());
    assert!(completed.0 != etag && completed.1 == 40, "{completed:?}");
    assert_eq!(alice.get(&path).await.ok(), sessions);
}

#[tokio::test]
async fn nothing_of_it_is_left_of_an_account_that_ends() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let bob = server.client("bob").await;
    for client in [&alice, &bob] {
        let version = new_version(client).await;
        put_key(client, "s", &version, key(0, "x")).await.ok();
    }
    let path = "v3/account/deactivate";
    let asked = alice.post(path, json!({})).await;
    let session = asked.body["session"].as_str().unwrap();
    let auth = password_stage("alice", PASSWORD, session);
    alice.post(path, json!({ "auth": auth })).await.ok();
    let reader = server.server.store.reader();
    let left = |user: &String| {
        let keys = reader.scan(&BACKUP_KEYS, &BACKUP_KEYS.prefix(user), Direction::Forward, 9);
        let range = BACKUP_VERSIONS.prefix(user);
        let versions = reader.scan(&BACKUP_VERSIONS, &range, Direction::Forward, 9);
        (keys.unwrap().len(), versions.unwrap().len())
    };
    assert_eq!(left(&alice.id().to_owned()), (0, 0));
    assert_eq!(left(&bob.id().to_owned()), (1, 1));
}

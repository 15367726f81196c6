//! Attacks with messages to devices.

use causerie::storage::schema::encryption::{TO_DEVICE, TO_DEVICE_TRANSACTIONS};
use kv::Direction;
use serde_json::{Value, json};

use crate::{
    harness::{Client, PASSWORD, TestServer, password_stage, text},
    to_device::{numbers, put, stored, stores, tell},
};

/// So many devices that are not there.
fn devices(count: usize) -> Value {
    (0..count)
        .map(|number| (format!("D{number}"), json!({})))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[tokio::test]
async fn t65_only_devices_that_are_there_get_rows() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let carol = server.client("carol").await;
    let challenge = carol.post("v3/account/deactivate", json!({})).await;
    let auth = password_stage("carol", PASSWORD, &text(&challenge.body["session"]));
    carol.post("v3/account/deactivate", json!({ "auth": auth })).await.ok();
    for round in 0..2 {
        let many = devices(50_000);
        for (target, name) in [("@nobody:example.org", "n"), (carol.id(), "c"), (alice.id(), "a")] {
            let messages = json!({ target: many });
            put(&bob, &format!("{name}{round}"), messages).await.ok();
        }
    }
    for (number, target) in ["@nobody:example.org", carol.id()].iter().enumerate() {
        put(&bob, &format!("all{number}"), json!({ *target: { "*": {} } })).await.ok();
    }
    let rows = || {
        let reader = server.server.store.reader();
        let all = TO_DEVICE.prefix(&());
        let messages = reader.scan(&TO_DEVICE, &all, Direction::Forward, usize::MAX).unwrap();
        let all = TO_DEVICE_TRANSACTIONS.prefix(&());
        let sent = reader.scan(&TO_DEVICE_TRANSACTIONS, &all, Direction::Forward, usize::MAX);
        (messages.len(), sent.unwrap().len())
    };
    assert_eq!(rows(), (0, 0), "nothing was written at all");
    put(&bob, "alice", json!({ alice.id(): { "*": { "n": 1 } } })).await.ok();
    assert_eq!((stored(&alice), stored(&carol), rows()), ((1, 1), (0, 0), (1, 1)));
}

#[tokio::test]
async fn t91_what_is_too_large_is_refused() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let filler = "x".repeat(65_536 - r#"{"a":""}"#.len());
    let message = |content: Value| json!({ alice.id(): { "*": content } });
    put(&bob, "1", message(json!({ "a": filler }))).await.ok();
    let larger = put(&bob, "2", message(json!({ "a": format!("{filler}x") }))).await;
    assert_eq!(larger.outcome(), (413, "M_TOO_LARGE"));
    let filler = "x".repeat(1024 * 1024);
    let whole = bob.put("v3/sendToDevice/a/3", json!({ "messages": {}, "x": filler })).await;
    assert_eq!(whole.outcome(), (413, "M_TOO_LARGE"));
    let long = "x".repeat(256);
    for path in [format!("v3/sendToDevice/a/{long}"), format!("v3/sendToDevice/{long}/1")] {
        let answer = bob.put(&path, json!({ "messages": {} })).await;
        assert_eq!(answer.outcome(), (400, "M_INVALID_PARAM"));
    }
    for body in [json!({}), json!({ "messages": [] }), json!({ "messages": message(json!("a")) })] {
        let answer = bob.put("v3/sendToDevice/a/4", body).await;
        assert_eq!(answer.outcome(), (400, "M_BAD_JSON"));
    }
    assert_eq!(stored(&alice), (1, 1));
}

#[tokio::test]
async fn t91_a_star_does_not_multiply_beyond_a_bound() {
    let server = TestServer::new().await;
    let bob = server.client("bob").await;
    let mut targets = serde_json::Map::new();
    let content = json!({ "a": "x".repeat(60_000) });
    for user in 0..16 {
        let name = format!("u{user}");
        let client = server.client(&name).await;
        for _ in 0..9 {
            server.login(&name).await;
        }
        targets.insert(client.id().to_owned(), json!({ "*": content }));
    }
    let refused = put(&bob, "1", targets.clone().into()).await;
    assert_eq!(refused.outcome(), (413, "M_TOO_LARGE"));
    let half: serde_json::Map<String, Value> = targets.into_iter().take(8).collect();
    put(&bob, "1", half.into()).await.ok();
}

#[tokio::test]
async fn t91_a_device_that_fetches_nothing_keeps_what_it_has() {
    let server = TestServer::with(|config| config.encryption.waiting_messages_max = 5).await;
    let (alice, phone) = (server.client("alice").await, server.device_of("alice").await);
    let bob = server.client("bob").await;
    for number in 0..5 {
        tell(&bob, &alice, number).await;
    }
    let full = put(&bob, "6", json!({ alice.id(): { &alice.user.device_id: { "n": 6 } } })).await;
    assert_eq!(full.outcome(), (429, "M_LIMIT_EXCEEDED"));
    assert!(full.headers.contains_key("retry-after"));
    // The other device still gets its own.
    put(&bob, "7", json!({ alice.id(): { "*": { "n": 7 } } })).await.ok();
    assert_eq!((stored(&alice), stored(&phone)), ((5, 5), (1, 1)));
    let told = alice.sync(None).await;
    assert_eq!(numbers(&told["to_device"]["events"]), [0, 1, 2, 3, 4]);
    alice.sync(Some(&text(&told["next_batch"]))).await;
    stores(&alice, 0).await;
    // What was refused may be sent again, by the same transaction.
    put(&bob, "6", json!({ alice.id(): { &alice.user.device_id: { "n": 6 } } })).await.ok();
    assert_eq!(stored(&alice), (1, 1));
}

#[tokio::test]
async fn t91_a_device_has_only_so_many_bytes() {
    let server = TestServer::with(|config| {
        config.encryption.waiting_messages_size_bytes_max = 160_000;
    })
    .await;
    let (alice, phone) = (server.client("alice").await, server.device_of("alice").await);
    let bob = server.client("bob").await;
    let large = |client: &Client<'_>, number: usize| {
        let content = json!({ "n": number, "x": "x".repeat(50_000) });
        json!({ client.id(): { &client.user.device_id: content } })
    };
    for number in 0..3 {
        put(&bob, &number.to_string(), large(&alice, number)).await.ok();
    }
    assert_eq!(put(&bob, "3", large(&alice, 3)).await.outcome(), (429, "M_LIMIT_EXCEEDED"));
    // What is small has its place still, and the other device all of its own.
    tell(&bob, &alice, 4).await;
    put(&bob, "5", large(&phone, 5)).await.ok();
    assert_eq!((stored(&alice), stored(&phone)), ((4, 4), (1, 1)));

    let (alice, bob) = (alice.user.clone(), bob.user.clone());
    let server = server.restart().await;
    let alice = Client { server: &server, user: alice };
    let bob = Client { server: &server, user: bob };
    assert_eq!(put(&bob, "3", large(&alice, 3)).await.outcome(), (429, "M_LIMIT_EXCEEDED"));
    let told = alice.sync(None).await;
    assert_eq!(numbers(&told["to_device"]["events"]), [0, 1, 2, 4]);
    alice.sync(Some(&text(&told["next_batch"]))).await;
    stores(&alice, 0).await;
    for number in 6..9 {
        put(&bob, &number.to_string(), large(&alice, number)).await.ok();
    }
    assert_eq!(put(&bob, "9", large(&alice, 9)).await.outcome(), (429, "M_LIMIT_EXCEEDED"));
    assert_eq!(stored(&alice), (3, 3), "exactly as many as before");
}

#[tokio::test]
async fn t91_ten_thousand_wait_and_none_is_lost() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let send = async |number: usize| {
        let messages = json!({ alice.id(): { "*": { "n": number } } });
        put(&bob, &number.to_string(), messages).await.status.as_u16()
    };
    for hundred in 0..99 {
        let numbers = hundred * 100..(hundred + 1) * 100;
        let answers = futures::future::join_all(numbers.map(&send)).await;
        assert!(answers.iter().all(|status| *status == 200));
    }
    for number in 9_900..10_000 {
        assert_eq!(send(number).await, 200);
    }
    for number in 10_000..10_200 {
        assert_eq!(send(number).await, 429);
    }
    let mut since = None;
    let mut got = Vec::new();
    loop {
        let answer = alice.sync(since.as_deref()).await;
        let page = numbers(&answer["to_device"]["events"]);
        assert!(page.len() <= 100);
        since = Some(text(&answer["next_batch"]));
        if page.is_empty() {
            break;
        }
        got.extend(page);
    }
    assert_eq!(got[9_900..], (9_900..10_000).collect::<Vec<u64>>());
    got.sort_unstable();
    assert_eq!(got, (0..10_000).collect::<Vec<u64>>());
    stores(&alice, 0).await;
}

#[tokio::test]
async fn nobody_reads_the_messages_of_another() {
    let server = TestServer::new().await;
    let (alice, mallory) = (server.client("alice").await, server.client("mallory").await);
    let bob = server.client("bob").await;
    // A device id is only one of a user's.
    let body = json!({ "type": "m.login.password", "identifier": { "type": "m.id.user", "user": "mallory" },
        "password": PASSWORD, "device_id": alice.user.device_id });
    let login = server.post("v3/login", body).send().await.ok();
    let mut same = mallory.user.clone();
    same.token = text(&login["access_token"]);
    same.device_id.clone_from(&alice.user.device_id);
    let same = Client { server: &server, user: same };
    tell(&bob, &alice, 1).await;
    for client in [&mallory, &same] {
        let answer = client.sync(None).await;
        client.sync(Some(&text(&answer["next_batch"]))).await;
        assert_eq!(answer.get("to_device"), None);
    }
    assert_eq!(stored(&alice), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn t65_a_device_that_ends_meanwhile_leaves_no_message_behind() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    for round in 0..20 {
        let phone = server.device_of("alice").await;
        let names: Vec<String> = (0..6).map(|number| format!("{round}-{number}")).collect();
        let sends = names.iter().map(|name| put(&bob, name, json!({ alice.id(): { "*": {} } })));
        let fetches = async {
            let told = phone.sync(None).await;
            phone.sync(Some(&text(&told["next_batch"]))).await;
            phone.post("v3/logout", json!({})).await.ok();
        };
        let (sent, ()) = tokio::join!(futures::future::join_all(sends), fetches);
        assert!(sent.iter().all(|answer| answer.status == 200));
        // What the client had is removed on the side.
        stores(&phone, 0).await;
    }
    assert_eq!(stored(&alice), (120, 120));
}

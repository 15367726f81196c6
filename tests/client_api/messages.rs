//! Sending, redacting, states, and paging through history.

use serde_json::{Value, json};

use crate::harness::{TestServer, encode, ids, text, texts};

#[tokio::test]
async fn a_transaction_makes_one_event_for_its_device_and_endpoint() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let phone = server.device_of("alice").await;
    let room = alice.create_room(json!({})).await;
    let other = alice.create_room(json!({})).await;
    let path = |room: &str, kind: &str| format!("v3/rooms/{room}/send/{kind}/t1");
    let first = alice.put(&path(&room, "m.room.message"), json!({ "body": "1" })).await.ok();
    let again = alice.put(&path(&room, "m.room.message"), json!({ "body": "2" })).await.ok();
    assert_eq!(first, again);
    let event = alice.event(&room, &text(&first["event_id"])).await.ok();
    assert_eq!(event["unsigned"]["transaction_id"], json!("t1"));
    let event = phone.event(&room, &text(&first["event_id"])).await.ok();
    assert!(event["unsigned"].get("transaction_id").is_none(), "{event}");
    let mut made = vec![first];
    for (device, path) in [
        (&phone, path(&room, "m.room.message")),
        (&alice, path(&room, "org.other")),
        (&alice, path(&other, "m.room.message")),
    ] {
        let next = device.put(&path, json!({ "body": "3" })).await.ok();
        assert!(!made.contains(&next), "{path}");
        made.push(next);
    }
    let target = encode(made[0]["event_id"].as_str().unwrap());
    let redact = format!("v3/rooms/{room}/redact/{target}/t1");
    let redaction = alice.put(&redact, json!({})).await.ok();
    assert!(!made.contains(&redaction));
    assert_eq!(alice.put(&redact, json!({})).await.ok(), redaction);
    let long = format!("v3/rooms/{room}/send/m.room.message/{}", "x".repeat(256));
    let answer = alice.put(&long, json!({})).await;
    assert_eq!(answer.outcome(), (400, "M_INVALID_PARAM"));
}

#[tokio::test]
async fn an_empty_state_key_may_be_left_out() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.create_room(json!({})).await;
    let path = |rest: &str| format!("v3/rooms/{room}/state/{rest}");
    let first = alice.put(&path("m.room.topic"), json!({ "topic": "1" })).await.ok();
    for rest in ["m.room.topic", "m.room.topic/"] {
        assert_eq!(alice.get(&path(rest)).await.ok(), json!({ "topic": "1" }));
        // The same again changes nothing.
        let again = alice.put(&path(rest), json!({ "topic": "1" })).await.ok();
        assert_eq!(again, first);
    }
    alice.put(&path("m.room.topic/"), json!({ "topic": "2" })).await.ok();
    assert_eq!(alice.get(&path("m.room.topic")).await.ok(), json!({ "topic": "2" }));
    alice.put(&path("org.x/a%2Fb"), json!({ "x": 1 })).await.ok();
    assert_eq!(alice.get(&path("org.x/a%2Fb")).await.ok(), json!({ "x": 1 }));
    assert_eq!(alice.get(&path("org.x")).await.outcome(), (404, "M_NOT_FOUND"));
    let whole = alice.get(&path("m.room.topic?format=event")).await.ok();
    assert_eq!((&whole["type"], &whole["state_key"]), (&json!("m.room.topic"), &json!("")));
    let answer = alice.get(&path("m.room.topic?format=x")).await;
    assert_eq!(answer.outcome(), (400, "M_INVALID_PARAM"));
    let all = alice.get(&format!("v3/rooms/{room}/state")).await.ok();
    let topics: Vec<_> = all.as_array().unwrap().iter().collect();
    assert_eq!(topics.iter().filter(|event| event["type"] == "m.room.topic").count(), 1);
}

#[tokio::test]
async fn pages_hold_each_event_once_in_both_directions() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.create_room(json!({})).await;
    let mut sent = Vec::new();
    for number in 0..23 {
        sent.push(alice.send(&room, &number.to_string()).await);
    }
    let mut pages = Vec::new();
    for direction in ["b", "f"] {
        let (mut seen, mut from) = (Vec::new(), None::<String>);
        for _ in 0..20 {
            let from_part = from.map(|from| format!("&from={from}")).unwrap_or_default();
            let query = format!("dir={direction}&limit=4{from_part}");
            let page = alice.messages(&room, &query).await.ok();
            seen.extend(ids(&page["chunk"]));
            from = page["end"].as_str().map(str::to_owned);
            // New events come after every page: they shift nothing that lies behind.
            if direction == "b" {
                alice.send(&room, "later").await;
            }
            if from.is_none() || page["chunk"] == json!([]) {
                break;
            }
        }
        pages.push(seen);
    }
    pages[0].reverse();
    assert!(pages[0].ends_with(&sent));
    assert!(pages[1].starts_with(&pages[0]));
    let mut unique = pages[1].clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), pages[1].len());
    let around = alice.get(&format!("v3/rooms/{room}/context/{}?limit=4", sent[10])).await.ok();
    assert_eq!(texts(&around["events_before"]), ["9", "8"]);
    assert_eq!(around["event"]["event_id"], json!(sent[10]));
    assert_eq!(texts(&around["events_after"]), ["11", "12"]);
    let from = around["start"].as_str().unwrap();
    let page = alice.messages(&room, &format!("dir=b&from={from}&limit=2")).await.ok();
    assert_eq!(texts(&page["chunk"]), ["7", "6"]);
    let from = around["end"].as_str().unwrap();
    let page = alice.messages(&room, &format!("dir=f&from={from}&limit=2")).await.ok();
    assert_eq!(texts(&page["chunk"]), ["13", "14"]);
}

#[tokio::test]
async fn an_empty_token_is_none() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.public_room().await;
    let sent = alice.send(&room, "hi").await;
    let page = alice.messages(&room, "dir=b&limit=1&from=&to=").await.ok();
    assert_eq!(texts(&page["chunk"]), ["hi"]);
    for path in [
        format!("v1/rooms/{room}/relations/{sent}?from=&to="),
        format!("v1/rooms/{room}/threads?from="),
        format!("v1/rooms/{room}/hierarchy?from="),
        "v3/notifications?from=".to_owned(),
        "v3/publicRooms?since=".to_owned(),
    ] {
        alice.get(&path).await.ok();
    }
    // Nothing lies around the event, and its lists are there.
    let around = alice.get(&format!("v3/rooms/{room}/context/{sent}?limit=0")).await.ok();
    assert_eq!((&around["events_before"], &around["events_after"]), (&json!([]), &json!([])));
}

#[tokio::test]
async fn t89_limits_are_clamped_and_tokens_checked() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.create_room(json!({})).await;
    alice.send(&room, "hi").await;
    let page = alice.messages(&room, "dir=b&limit=1000000000").await.ok();
    assert_eq!(page["chunk"].as_array().unwrap().len(), 7);
    for query in ["dir=b&limit=-1", "dir=b&limit=x", "dir=x", "dir=b&from=x", "dir=b&to=t0"] {
        let answer = alice.messages(&room, query).await;
        assert_eq!(answer.outcome().0, 400, "{query}: {}", answer.body);
    }
    for query in ["timeout=x", "since=garbage", "filter=%7B", "full_state=2", "filter=999"] {
        let answer = alice.get(&format!("v3/sync?{query}")).await;
        assert_eq!(answer.outcome(), (400, "M_INVALID_PARAM"), "{query}");
    }
    let now = alice.now().await;
    let (epoch, _) = now.split_once('_').unwrap();
    for since in [format!("{epoch}_99999999999"), "sdead_1".to_owned()] {
        let told = alice.sync(Some(&since)).await;
        assert!(told["rooms"]["join"][&room]["state"].is_object(), "{since}: {told}");
    }
    let since = alice.now().await;
    let poll = alice.sync_with(Some(&since), "timeout=1000000000000");
    let wake = async {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        alice.send(&room, "wake").await
    };
    let (told, _) = tokio::join!(poll, wake);
    assert_eq!(texts(&told["rooms"]["join"][&room]["timeline"]["events"]), ["wake"]);
}

#[tokio::test]
async fn t46_redactions_need_power_and_a_target() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let (bob, carol) = (server.client("bob").await, server.client("carol").await);
    let room = alice.public_room().await;
    let other = alice.public_room().await;
    bob.join(&room).await;
    carol.join(&room).await;
    let event = bob.send(&room, "mine").await;
    let elsewhere = alice.send(&other, "elsewhere").await;
    assert_eq!(carol.try_redact(&room, &event).await.outcome(), (403, "M_FORBIDDEN"));
    let sent = carol.try_send(&room, "m.room.redaction", json!({ "redacts": event })).await;
    assert_eq!(sent.outcome(), (403, "M_FORBIDDEN"));
    let sent = carol.try_send(&room, "m.room.redaction", json!({})).await;
    assert_eq!(sent.outcome(), (400, "M_BAD_JSON"));
    assert_eq!(alice.try_redact(&room, &elsewhere).await.outcome(), (404, "M_NOT_FOUND"));
    assert_eq!(alice.try_redact(&room, "$none").await.outcome(), (404, "M_NOT_FOUND"));
    assert_eq!(bob.event(&room, &event).await.ok()["content"]["body"], json!("mine"));
    assert_eq!(alice.event(&other, &elsewhere).await.ok()["content"]["body"], json!("elsewhere"));
    bob.try_redact(&room, &event).await.ok();
    assert_eq!(bob.event(&room, &event).await.ok()["content"], json!({}));
    // What the room rests on keeps what it rests on.
    for (kind, field) in [("m.room.join_rules", "join_rule"), ("m.room.power_levels", "ban")] {
        let path = format!("v3/rooms/{room}/state/{kind}?format=event");
        let state = alice.get(&path).await.ok();
        alice.try_redact(&room, &text(&state["event_id"])).await.ok();
        let redacted = alice.get(&path).await.ok();
        assert_eq!(redacted["content"][field], state["content"][field]);
        assert!(redacted["unsigned"]["redacted_because"].is_object());
    }
}

#[tokio::test]
async fn t47_a_redacted_text_is_gone_everywhere() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    let since = bob.now().await;
    let secret = "xyzzy-secret";
    let event = alice.send(&room, secret).await;
    let topic = alice.set(&room, "m.room.topic", json!({ "topic": secret })).await;
    let later = alice.send(&room, "later").await;
    assert!(bob.sync(Some(&since)).await.to_string().contains(secret));
    alice.try_redact(&room, &event).await.ok();
    alice.try_redact(&room, &topic).await.ok();
    let fresh = server.device_of("bob").await;
    for user in [&alice, &bob, &fresh] {
        let answers = [
            user.event(&room, &event).await.ok(),
            user.event(&room, &topic).await.ok(),
            user.context(&room, &later).await.ok(),
            user.context(&room, &event).await.ok(),
            user.messages(&room, "dir=b&limit=100").await.ok(),
            user.messages(&room, "dir=f&limit=100").await.ok(),
            user.get(&format!("v3/rooms/{room}/state")).await.ok(),
            user.state(&room, "m.room.topic").await.ok(),
            user.sync(None).await,
            user.sync(Some(&since)).await,
        ];
        for (number, answer) in answers.iter().enumerate() {
            assert!(!answer.to_string().contains(secret), "{number}: {answer}");
        }
        assert!(answers[0]["unsigned"]["redacted_because"].is_object(), "{}", answers[0]);
    }
}

#[tokio::test]
async fn lazy_pages_name_their_senders_only() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let (bob, carol) = (server.client("bob").await, server.client("carol").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    carol.join(&room).await;
    bob.send(&room, "hi").await;
    let filter = encode(r#"{"lazy_load_members":true}"#);
    let page = alice.messages(&room, &format!("dir=b&limit=1&filter={filter}")).await.ok();
    let members: Vec<&Value> =
        page["state"].as_array().unwrap().iter().map(|event| &event["state_key"]).collect();
    assert_eq!(members, [&json!(bob.id())]);
}

//! The event that is closest to a time.

use serde_json::json;

use crate::harness::{Answer, Client, TestServer, text};

async fn closest(user: &Client<'_>, room: &str, time: u64, direction: &str) -> Answer {
    let path = format!("v1/rooms/{room}/timestamp_to_event?ts={time}&dir={direction}");
    user.get(&path).await
}

#[tokio::test]
async fn the_closest_event_in_a_direction_is_found() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.create_room(json!({})).await;
    let other = alice.create_room(json!({})).await;
    let mut sent = Vec::new();
    for number in 0..300 {
        server.pass(60);
        sent.push(alice.send(&room, &number.to_string()).await);
        alice.send(&other, "elsewhere").await;
    }
    let told = alice.event(&room, &sent[0]).await.ok();
    let start = told["origin_server_ts"].as_u64().unwrap();
    for index in [0, 1, 17, 150, 298, 299] {
        let time = start + index * 60_000;
        for (time, direction, expected) in [
            (time, "f", Some(index)),
            (time, "b", Some(index)),
            (time + 1, "b", Some(index)),
            (time + 59_999, "b", Some(index)),
            (time + 1, "f", (index < 299).then_some(index + 1)),
            (time - 1, "f", Some(index)),
        ] {
            let answer = closest(&alice, &room, time, direction).await;
            let Some(expected) = expected else {
                assert_eq!(answer.outcome(), (404, "M_NOT_FOUND"));
                continue;
            };
            let found = answer.ok();
            let event = &sent[usize::try_from(expected).unwrap()];
            assert_eq!(text(&found["event_id"]), *event, "{index} {direction}");
            assert_eq!(found["origin_server_ts"], json!(start + expected * 60_000));
        }
    }
    assert_eq!(closest(&alice, &room, 0, "b").await.outcome(), (404, "M_NOT_FOUND"));
    let first = closest(&alice, &room, 0, "f").await.ok();
    let first = alice.event(&room, &text(&first["event_id"])).await.ok();
    assert_eq!(first["type"], json!("m.room.create"));
    let unstable =
        format!("unstable/org.matrix.msc3030/rooms/{room}/timestamp_to_event?ts={start}&dir=f");
    assert_eq!(alice.get(&unstable).await.ok()["event_id"], json!(sent[0]));
    for query in ["", "?ts=1", "?dir=f", "?ts=x&dir=f", "?ts=1&dir=x", "?ts=-1&dir=f"] {
        let answer = alice.get(&format!("v1/rooms/{room}/timestamp_to_event{query}")).await;
        assert_eq!(answer.outcome().0, 400, "{query}");
    }
}

#[tokio::test]
async fn t56_no_event_is_found_that_may_not_be_seen() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let carol = server.client("carol").await;
    let content = json!({ "history_visibility": "joined" });
    let state = json!([{ "type": "m.room.history_visibility", "content": content }]);
    let wanted = json!({ "preset": "public_chat", "initial_state": state });
    let room = alice.create_room(wanted).await;
    server.pass(60);
    let hidden = alice.send(&room, "hidden").await;
    server.pass(60);
    bob.join(&room).await;
    server.pass(60);
    let seen = alice.send(&room, "seen").await;
    server.pass(60);
    bob.leave(&room).await;
    server.pass(60);
    alice.send(&room, "later").await;
    let time = async |event: &str| {
        alice.event(&room, event).await.ok()["origin_server_ts"].as_u64().unwrap()
    };
    let (before, at) = (time(&hidden).await, time(&seen).await);
    let found = closest(&bob, &room, before, "f").await.ok();
    let join = bob.event(&room, &text(&found["event_id"])).await.ok();
    assert_eq!(join["content"]["membership"], json!("join"));
    assert_eq!(closest(&bob, &room, at, "f").await.ok()["event_id"], json!(seen));
    let later = closest(&bob, &room, at + 120_000, "f").await;
    assert_eq!(later.outcome(), (404, "M_NOT_FOUND"));
    for room in [room.as_str(), "!unknown:example.org"] {
        let answer = closest(&carol, room, at, "f").await;
        assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"));
    }
}

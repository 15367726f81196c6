//! The rooms that two users share.

use std::collections::BTreeSet;

use serde_json::json;

use crate::harness::{TestServer, encode, text};

#[tokio::test]
async fn the_rooms_that_both_have_joined() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let shared = alice.public_room().await;
    let left = alice.public_room().await;
    let closed = alice.create_room(json!({})).await;
    alice.public_room().await;
    bob.public_room().await;
    bob.join(&shared).await;
    bob.join(&left).await;
    bob.leave(&left).await;
    alice.invite(&closed, &bob).await;
    let path = format!("v1/mutual_rooms?user_id={}", encode(bob.id()));
    let expected = json!({ "joined": [shared], "count": 1 });
    assert_eq!(alice.get(&path).await.ok(), expected);
    let path = "unstable/uk.half-shot.msc2666/user/mutual_rooms";
    let path = format!("{path}?user_id={}", encode(alice.id()));
    assert_eq!(bob.get(&path).await.ok(), json!({ "joined": [shared] }));
    let nobody = alice.get("v1/mutual_rooms?user_id=@none:example.org").await.ok();
    assert_eq!(nobody, json!({ "joined": [], "count": 0 }));
    for wrong in [
        format!("?user_id={}", encode(alice.id())),
        "?user_id=x".to_owned(),
        "?user_id=@bob:example.org&from=zz".to_owned(),
    ] {
        let answer = alice.get(&format!("v1/mutual_rooms{wrong}")).await;
        assert_eq!(answer.outcome(), (400, "M_INVALID_PARAM"), "{wrong}");
    }
    assert_eq!(alice.get("v1/mutual_rooms").await.status, 400);
}

#[tokio::test]
async fn many_rooms_come_in_pages() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let mut rooms = BTreeSet::new();
    for _ in 0..105 {
        server.pass(1);
        let room = alice.public_room().await;
        bob.join(&room).await;
        rooms.insert(room);
    }
    let path = format!("v1/mutual_rooms?user_id={}", encode(bob.id()));
    let first = alice.get(&path).await.ok();
    assert_eq!((&first["count"], first["joined"].as_array().unwrap().len()), (&json!(105), 100));
    let path = format!("{path}&from={}", text(&first["next_batch"]));
    let second = alice.get(&path).await.ok();
    assert!(second.get("next_batch").is_none());
    let all = [&first, &second].into_iter().flat_map(|page| page["joined"].as_array().unwrap());
    assert_eq!(all.map(text).collect::<BTreeSet<_>>(), rooms);
}

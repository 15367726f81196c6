//! What a room is to those who are not in it.

use serde_json::{Value, json};

use crate::harness::{TestServer, encode};

#[tokio::test]
async fn a_room_tells_what_it_is() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice
        .create_room(json!({
            "preset": "public_chat", "room_alias_name": "place", "name": "Place",
            "topic": "Things", "room_version": "11",
            "initial_state": [
                { "type": "m.room.encryption", "content": { "algorithm": "m.megolm.v1.aes-sha2" } },
            ],
        }))
        .await;
    let paths = [
        format!("v1/room_summary/{room}"),
        format!("v1/room_summary/{}?via=example.org", encode("#place:example.org")),
        format!("unstable/im.nheko.summary/rooms/{room}/summary"),
        format!("unstable/im.nheko.summary/summary/{room}"),
    ];
    for path in &paths {
        let summary = bob.get(path).await.ok();
        for (field, value) in [
            ("room_id", json!(room)),
            ("canonical_alias", json!("#place:example.org")),
            ("name", json!("Place")),
            ("topic", json!("Things")),
            ("num_joined_members", json!(1)),
            // A public room may leave its rule out.
            ("join_rule", Value::Null),
            ("world_readable", json!(false)),
            ("guest_can_join", json!(false)),
            ("encryption", json!("m.megolm.v1.aes-sha2")),
            ("room_version", json!("11")),
            ("membership", json!("leave")),
        ] {
            assert_eq!(summary[field], value, "{path} {field}");
        }
        let anonymous = server.get(path).send().await.ok();
        assert_eq!(anonymous.get("membership"), None);
        assert_eq!(anonymous["name"], json!("Place"));
    }
    assert_eq!(alice.get(&paths[0]).await.ok()["membership"], json!("join"));
}

#[tokio::test]
async fn t59_a_private_room_is_as_one_that_there_is_not() {
    let server = TestServer::new().await;
    let (alice, eve) = (server.client("alice").await, server.client("eve").await);
    let room = alice.create_room(json!({ "name": "secret" })).await;
    let path = format!("v1/room_summary/{room}");
    let none = eve.get("v1/room_summary/!none:example.org").await;
    assert_eq!(none.outcome(), (404, "M_NOT_FOUND"));
    for answer in [
        eve.get(&path).await,
        server.get(&path).send().await,
        eve.get(&format!("v1/room_summary/{}", encode("#none:example.org"))).await,
    ] {
        assert_eq!((answer.status, &answer.body), (none.status, &none.body));
    }
    alice.invite(&room, &eve).await;
    let summary = eve.get(&path).await.ok();
    assert_eq!((&summary["name"], &summary["membership"]), (&json!("secret"), &json!("invite")));
    assert_eq!(server.get(&path).send().await.outcome(), (404, "M_NOT_FOUND"));
    let readable = json!({ "history_visibility": "world_readable" });
    alice.set(&room, "m.room.history_visibility", readable).await;
    assert_eq!(server.get(&path).send().await.ok()["world_readable"], json!(true));
}

//! Rooms that are encrypted by default.

use causerie::config::EncryptedRooms;
use serde_json::{Value, json};

use crate::{
    bridge::{AS_TOKEN, registration},
    harness::{Client, TestServer, text},
};

async fn server(default_for: EncryptedRooms) -> TestServer {
    TestServer::with(|config| config.encryption.default_for = default_for).await
}

async fn is_encrypted(client: &Client<'_>, wanted: Value) -> bool {
    let room = client.create_room(wanted).await;
    let answer = client.state(&room, "m.room.encryption").await;
    if answer.status == 404 {
        return false;
    }
    assert_eq!(answer.ok()["algorithm"], "m.megolm.v1.aes-sha2");
    true
}

#[tokio::test]
async fn rooms_are_encrypted_as_the_operator_wishes() {
    let direct = json!({ "is_direct": true, "preset": "trusted_private_chat",
        "invite": ["@bob:example.org"] });
    let trusted = json!({ "preset": "trusted_private_chat", "invite": ["@bob:example.org"] });
    let join_rules = json!({ "type": "m.room.join_rules", "content": { "join_rule": "public" } });
    let cases = [
        (direct, [false, true, true]),
        (trusted, [false, true, true]),
        (json!({ "is_direct": true }), [false, true, true]),
        (json!({ "preset": "trusted_private_chat" }), [false, false, true]),
        (json!({ "preset": "private_chat" }), [false, false, true]),
        (json!({ "name": "A room" }), [false, false, true]),
        (json!({ "preset": "public_chat" }), [false; 3]),
        (json!({ "visibility": "public" }), [false; 3]),
        (json!({ "initial_state": [join_rules] }), [false; 3]),
        (json!({ "creation_content": { "type": "m.space" } }), [false; 3]),
    ];
    let settings = [EncryptedRooms::None, EncryptedRooms::Direct, EncryptedRooms::Private];
    for (place, default_for) in settings.into_iter().enumerate() {
        let server = server(default_for).await;
        let alice = server.client("alice").await;
        server.client("bob").await;
        for (wanted, expected) in &cases {
            let encrypted = is_encrypted(&alice, wanted.clone()).await;
            assert_eq!(encrypted, expected[place], "{default_for:?} {wanted}");
        }
    }
}

#[tokio::test]
async fn what_the_client_says_stands_and_comes_with_the_initial_state() {
    let server = server(EncryptedRooms::Private).await;
    let alice = server.client("alice").await;
    let own = json!({ "type": "m.room.encryption", "state_key": "",
        "content": { "algorithm": "m.other" } });
    let room = alice.create_room(json!({ "initial_state": [own] })).await;
    let content = alice.state(&room, "m.room.encryption").await.ok();
    assert_eq!(content, json!({ "algorithm": "m.other" }));
    let initial = json!([{ "type": "m.x", "content": {} }]);
    let room = alice.create_room(json!({ "initial_state": initial, "name": "A room" })).await;
    let body = alice.messages(&room, "dir=f&limit=50").await.ok();
    let kinds: Vec<_> =
        body["chunk"].as_array().unwrap().iter().map(|event| &event["type"]).collect();
    assert_eq!(kinds[kinds.len() - 3..], ["m.x", "m.room.encryption", "m.room.name"]);
}

#[tokio::test]
async fn clients_are_told() {
    let get = async |default_for, own: bool| {
        let server = TestServer::with(|config| {
            let url = "https://matrix.example.org/".parse().unwrap();
            config.server.public_base_url = Some(url);
            config.encryption.default_for = default_for;
            if own {
                let known = json!({ "default": false, "force_disable": true });
                config.server.well_known_client.insert("io.element.e2ee".to_owned(), known);
            }
        })
        .await;
        let known = server.get("/.well-known/matrix/client").send().await.ok();
        let features = server.get("versions").send().await.ok()["unstable_features"].take();
        let forced = ["public", "private", "trusted_private"]
            .map(|preset| features[format!("io.element.e2ee_forced.{preset}")].clone());
        (known["io.element.e2ee"].clone(), json!(forced))
    };
    let none = get(EncryptedRooms::None, false).await;
    assert_eq!(none, (Value::Null, json!([false, false, false])));
    let direct = get(EncryptedRooms::Direct, false).await;
    assert_eq!(direct, (json!({ "default": true }), json!([false, false, true])));
    let private = get(EncryptedRooms::Private, false).await;
    assert_eq!(private, (json!({ "default": true }), json!([false, true, true])));
    let own = get(EncryptedRooms::Private, true).await;
    assert_eq!(own.0, json!({ "default": false, "force_disable": true }), "the operator's word");
}

#[tokio::test]
async fn bridges_that_cannot_decrypt_are_not_shut_out() {
    let server = server(EncryptedRooms::Private).await;
    let plain = registration(None);
    server.server.appservices.register(&plain).await.unwrap();
    let alice = server.client("alice").await;
    let with_bot = json!({ "is_direct": true, "invite": ["@bot:example.org"] });
    assert!(!is_encrypted(&alice, with_bot.clone()).await);
    // Of its own rooms it says so itself.
    let made = server.post("v3/createRoom", json!({})).token(AS_TOKEN).send().await.ok();
    let path = format!("v3/rooms/{}/state/m.room.encryption", text(&made["room_id"]));
    let state = server.get(&path).token(AS_TOKEN).send().await;
    assert_eq!(state.outcome(), (404, "M_NOT_FOUND"));
    server.server.appservices.unregister("irc").await.unwrap();
    let able = format!("{plain}\norg.matrix.msc3202: true\n");
    server.server.appservices.register(&able).await.unwrap();
    assert!(is_encrypted(&alice, with_bot).await);
}

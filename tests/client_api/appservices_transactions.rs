//! What application services are sent.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    bridge::{AS_TOKEN, Bridge, registration},
    harness::{Client, TestServer, encode, text},
};

async fn bridged() -> (TestServer, Bridge) {
    let bridge = Bridge::start().await;
    let server = TestServer::new().await;
    server.server.appservices.register(&registration(Some(&bridge.url))).await.unwrap();
    (server, bridge)
}

async fn ghost(server: &TestServer, name: &str) {
    let body = json!({
        "type": "m.login.application_service", "username": name, "inhibit_login": true,
    });
    server.post("v3/register", body).token(AS_TOKEN).send().await.ok();
}

async fn ghost_acts(server: &TestServer, name: &str, room: &str, verb: &str) {
    let user = encode(&format!("@{name}:example.org"));
    let path = format!("v3/rooms/{room}/{verb}?user_id={user}");
    server.post(&path, json!({})).token(AS_TOKEN).send().await.ok();
}

fn bodies(bridge: &Bridge) -> Vec<String> {
    let events = bridge.events();
    events.iter().filter_map(|event| event["content"]["body"].as_str().map(str::to_owned)).collect()
}

/// A room of alice in which a user of the bridge is.
async fn shared_room(server: &TestServer, alice: &Client<'_>) -> String {
    let room = alice.public_room().await;
    ghost(server, "_irc_bob").await;
    ghost_acts(server, "_irc_bob", &room, "join").await;
    room
}

#[tokio::test]
async fn events_come_in_order_and_once() {
    let (server, bridge) = bridged().await;
    let alice = server.client("alice").await;
    let elsewhere = alice.public_room().await;
    let room = shared_room(&server, &alice).await;
    let mut sent = Vec::new();
    for number in 0..250 {
        alice.send(&elsewhere, "not for the bridge").await;
        alice.send(&room, &number.to_string()).await;
        sent.push(number.to_string());
    }
    bridge.wait("all events", |bridge| bodies(bridge).len() >= 250).await;
    assert_eq!(bodies(&bridge), sent);
    let transactions = bridge.transactions();
    assert!(transactions.iter().all(|one| one.body["events"].as_array().unwrap().len() <= 100));
    let ids: BTreeSet<_> = transactions.iter().map(|one| one.id.clone()).collect();
    assert_eq!(ids.len(), transactions.len());
    // The join came first, whole.
    let events = bridge.events();
    assert_eq!(events[0]["state_key"], "@_irc_bob:example.org");
    assert_eq!(events[0]["room_id"], json!(room));
    assert!(events.iter().all(|event| event["room_id"] == json!(room)));
}

#[tokio::test]
async fn invites_leaves_and_what_comes_after() {
    let (server, bridge) = bridged().await;
    let alice = server.client("alice").await;
    let room = alice.create_room(json!({})).await;
    ghost(&server, "_irc_bob").await;
    let body = json!({ "user_id": "@_irc_bob:example.org" });
    alice.post(&format!("v3/rooms/{room}/invite"), body).await.ok();
    ghost_acts(&server, "_irc_bob", &room, "join").await;
    alice.send(&room, "while there").await;
    ghost_acts(&server, "_irc_bob", &room, "leave").await;
    alice.send(&room, "after").await;
    // A later event of another room says that all before it was looked at.
    let other = alice.public_room().await;
    ghost_acts(&server, "_irc_bob", &other, "join").await;
    alice.send(&other, "end").await;
    bridge.wait("the end", |bridge| bodies(bridge).last().is_some_and(|text| text == "end")).await;
    assert_eq!(bodies(&bridge), ["while there", "end"]);
    let memberships: Vec<_> = bridge
        .events()
        .iter()
        .filter(|event| event["type"] == "m.room.member" && event["room_id"] == json!(room))
        .map(|event| text(&event["content"]["membership"]))
        .collect();
    assert_eq!(memberships, ["invite", "join", "leave"]);
    let leave =
        bridge.events().into_iter().find(|e| e["content"]["membership"] == "leave").unwrap();
    assert_eq!(leave["unsigned"]["prev_content"]["membership"], "join");
}

#[tokio::test]
async fn a_room_with_an_alias_of_the_namespace_concerns_it() {
    let (server, bridge) = bridged().await;
    let alice = server.client("alice").await;
    let room = alice.public_room().await;
    let other = shared_room(&server, &alice).await;
    alice.send(&room, "before").await;
    // What was sent is looked at in its order: by now the one before was.
    alice.send(&other, "start").await;
    bridge.wait("the start", |bridge| !bodies(bridge).is_empty()).await;
    let path = format!("v3/directory/room/{}", encode("#_irc_x:example.org"));
    server.put(&path, json!({ "room_id": room })).token(AS_TOKEN).send().await.ok();
    alice.send(&room, "with").await;
    bridge.wait("the event", |bridge| bodies(bridge).len() > 1).await;
    server.delete(&path).token(AS_TOKEN).send().await.ok();
    alice.send(&room, "without").await;
    alice.send(&other, "end").await;
    bridge.wait("the end", |bridge| bodies(bridge).last().is_some_and(|text| text == "end")).await;
    assert_eq!(bodies(&bridge), ["start", "with", "end"]);
}

#[tokio::test]
async fn a_transaction_is_sent_again_as_it_was() {
    let (server, bridge) = bridged().await;
    let alice = server.client("alice").await;
    let room = shared_room(&server, &alice).await;
    bridge.wait("the join", |bridge| !bridge.events().is_empty()).await;
    bridge.fail_with(500);
    alice.send(&room, "one").await;
    bridge.wait("a refusal", |bridge| !bridge.refused().is_empty()).await;
    alice.send(&room, "two").await;
    bridge.wait("another", |bridge| bridge.refused().len() >= 2).await;
    bridge.fail_with(200);
    // A ping ends the pause.
    let ping = server.post("v1/appservice/irc/ping", json!({})).token(AS_TOKEN);
    ping.send().await.ok();
    bridge.wait("both", |bridge| bodies(bridge).len() >= 2).await;
    assert_eq!(bodies(&bridge), ["one", "two"]);
    let refused = bridge.refused();
    assert!(refused.iter().all(|one| *one == refused[0]), "{refused:#?}");
    let arrived = bridge.transactions();
    assert!(arrived.contains(&refused[0]), "{arrived:#?}");
}

#[tokio::test]
async fn what_waits_survives_a_restart() {
    let (server, bridge) = bridged().await;
    let alice = server.client("alice").await;
    let room = shared_room(&server, &alice).await;
    bridge.wait("the join", |bridge| !bridge.events().is_empty()).await;
    bridge.fail_with(503);
    alice.send(&room, "one").await;
    bridge.wait("a refusal", |bridge| !bridge.refused().is_empty()).await;
    alice.send(&room, "two").await;
    let user = alice.user.clone();
    let server = server.restart().await;
    let alice = Client { server: &server, user };
    alice.send(&room, "three").await;
    bridge.fail_with(200);
    bridge.wait("all", |bridge| bodies(bridge).len() >= 3).await;
    assert_eq!(bodies(&bridge), ["one", "two", "three"]);
    let first = &bridge.refused()[0];
    assert!(bridge.transactions().contains(first), "the transaction was made anew");
}

#[tokio::test]
async fn typing_and_receipts_are_told() {
    let (server, bridge) = bridged().await;
    let alice = server.client("alice").await;
    let room = shared_room(&server, &alice).await;
    let event = alice.send(&room, "hi").await;
    let typing = format!("v3/rooms/{room}/typing/{}", encode(alice.id()));
    alice.put(&typing, json!({ "typing": true, "timeout": 30000 })).await.ok();
    let of = |bridge: &Bridge, kind: &str| -> Vec<Value> {
        bridge.ephemeral().into_iter().filter(|one| one["type"] == kind).collect()
    };
    bridge.wait("typing", |bridge| !of(bridge, "m.typing").is_empty()).await;
    let expected = json!({
        "type": "m.typing", "room_id": room, "content": { "user_ids": [alice.id()] },
    });
    assert_eq!(of(&bridge, "m.typing")[0], expected);
    let receipt = |kind: &str| format!("v3/rooms/{room}/receipt/{kind}/{}", encode(&event));
    // Private ones of others are not.
    alice.post(&receipt("m.read.private"), json!({})).await.ok();
    alice.post(&receipt("m.read"), json!({})).await.ok();
    bridge.wait("the receipt", |bridge| !of(bridge, "m.receipt").is_empty()).await;
    let receipts = of(&bridge, "m.receipt");
    assert_eq!(receipts.len(), 1);
    let users = &receipts[0]["content"][&event]["m.read"];
    assert!(users[alice.id()]["ts"].is_u64(), "{receipts:?}");
    assert_eq!(receipts[0]["room_id"], json!(room));
    // Both names are there.
    let told = bridge.transactions();
    let one = told.iter().find(|one| one.body.get("ephemeral").is_some()).unwrap();
    assert_eq!(one.body["ephemeral"], one.body["de.sorunome.msc2409.ephemeral"]);
}

#[tokio::test]
async fn one_that_is_removed_is_sent_nothing() {
    let (server, bridge) = bridged().await;
    let alice = server.client("alice").await;
    let room = shared_room(&server, &alice).await;
    bridge.wait("the join", |bridge| !bridge.events().is_empty()).await;
    server.server.appservices.unregister("irc").await.unwrap();
    alice.send(&room, "nobody listens").await;
    let second = Bridge::start().await;
    server.server.appservices.register(&registration(Some(&second.url))).await.unwrap();
    // What is committed once it is known is for it.
    for number in 0..200 {
        alice.send(&room, &number.to_string()).await;
        if !second.events().is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    second.wait("an event", |second| !second.events().is_empty()).await;
    assert!(bodies(&bridge).is_empty());
}

#[tokio::test]
async fn presence_of_those_in_its_rooms_is_told() {
    let bridge = Bridge::start().await;
    let server = TestServer::with(|config| config.presence.enabled = true).await;
    server.server.appservices.register(&registration(Some(&bridge.url))).await.unwrap();
    let (alice, carol) = (server.client("alice").await, server.client("carol").await);
    shared_room(&server, &alice).await;
    carol.public_room().await;
    let tells = async |client: &Client<'_>, status: &str| {
        let path = format!("v3/presence/{}/status", client.id());
        client.put(&path, json!({ "presence": "busy", "status_msg": status })).await.ok();
        client.sync_with(None, "timeout=0&set_presence=online").await;
    };
    tells(&carol, "elsewhere").await;
    tells(&alice, "in a meeting").await;
    let of = |bridge: &Bridge, user: &str| -> Vec<Value> {
        let events = bridge.ephemeral().into_iter();
        events.filter(|event| event["type"] == "m.presence" && event["sender"] == user).collect()
    };
    let is_told = |bridge: &Bridge| {
        let events = of(bridge, alice.id());
        events.iter().any(|event| event["content"]["status_msg"] == "in a meeting")
    };
    bridge.wait("the presence", is_told).await;
    assert_eq!(of(&bridge, carol.id()), Vec::<Value>::new());
}

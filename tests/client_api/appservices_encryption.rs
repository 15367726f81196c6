//! What application services are sent and asked for encryption.

use causerie::storage::{
    identity::renew_epoch,
    schema::{
        encryption::{TO_DEVICE_COUNTS, TO_DEVICE_SIZES},
        users::DeviceKey,
    },
};
use serde_json::{Value, json};

use crate::{
    bridge::{AS_TOKEN, Bridge, registration},
    harness::{Client, TestServer, TestUser, encode},
    keys::{ALGORITHM, DeviceSigner, claim, query, upload},
};

const LISTS: &str = "org.matrix.msc3202.device_lists";
const COUNTS: &str = "org.matrix.msc3202.device_one_time_keys_count";
const FALLBACK: &str = "org.matrix.msc3202.device_unused_fallback_key_types";
const CLAIM: &str = "/_matrix/app/unstable/org.matrix.msc3983/keys/claim";
const QUERY: &str = "/_matrix/app/unstable/org.matrix.msc3984/keys/query";
const DEVICE: &str = "BRIDGE";

fn encrypting(url: &str) -> String {
    format!("{}org.matrix.msc3202: true\nio.element.msc4190: true\n", registration(Some(url)))
}

async fn bridged() -> (TestServer, Bridge) {
    bridged_by(encrypting).await
}

async fn bridged_by(registration: impl Fn(&str) -> String) -> (TestServer, Bridge) {
    let bridge = Bridge::start().await;
    let server = TestServer::new().await;
    server.server.appservices.register(&registration(&bridge.url)).await.unwrap();
    (server, bridge)
}

/// A user of the bridge with a device. The token is the bridge's: requests name the user.
async fn ghost<'a>(server: &'a TestServer, name: &str) -> Client<'a> {
    let body = json!({
        "type": "m.login.application_service", "username": name, "inhibit_login": true,
    });
    server.post("v3/register", body).token(AS_TOKEN).send().await.ok();
    let user_id = format!("@{name}:example.org").try_into().unwrap();
    let user = TestUser { user_id, device_id: DEVICE.to_owned(), token: AS_TOKEN.to_owned() };
    let ghost = Client { server, user };
    let path = format!("v3/devices/{DEVICE}?user_id={}", encode(ghost.id()));
    let made = ghost.put(&path, json!({ "display_name": "Bridge" })).await;
    assert_eq!(made.status, 201, "{}", made.body);
    ghost
}

/// A path by which the bridge acts as a device of its user.
fn as_ghost(ghost: &Client<'_>, path: &str) -> String {
    format!("{path}?user_id={}&device_id={}", encode(ghost.id()), ghost.user.device_id)
}

async fn tell(from: &Client<'_>, to: &Client<'_>, number: usize) {
    let path = format!("v3/sendToDevice/m.room.encrypted/{number}");
    let content = json!({ "number": number });
    let body = json!({ "messages": { to.id(): { &to.user.device_id: content } } });
    from.put(&path, body).await.ok();
}

fn numbers(bridge: &Bridge) -> Vec<u64> {
    bridge.to_device().iter().map(|event| event["content"]["number"].as_u64().unwrap()).collect()
}

/// The device lists that were told, as pairs of what happened and to whom.
fn lists(bridge: &Bridge) -> Vec<(&'static str, String)> {
    let mut all = Vec::new();
    for told in bridge.told(LISTS) {
        for kind in ["changed", "left"] {
            let users = told[kind].as_array().cloned().unwrap_or_default();
            all.extend(users.iter().map(|user| (kind, user.as_str().unwrap().to_owned())));
        }
    }
    all
}

fn count(bridge: &Bridge, ghost: &Client<'_>) -> Option<u64> {
    bridge.told(COUNTS).last()?[ghost.id()][DEVICE][ALGORITHM].as_u64()
}

#[tokio::test]
async fn messages_for_its_devices_come_in_order_and_once() {
    let (server, bridge) = bridged().await;
    let alice = server.client("alice").await;
    let bob = ghost(&server, "_irc_bob").await;
    for number in 0..150 {
        tell(&alice, &bob, number).await;
    }
    bridge.wait("all messages", |bridge| bridge.to_device().len() >= 150).await;
    assert_eq!(numbers(&bridge), (0..150).collect::<Vec<_>>());
    let expected = json!({
        "type": "m.room.encrypted", "sender": alice.id(), "content": { "number": 0 },
        "to_user_id": bob.id(), "to_device_id": DEVICE,
    });
    assert_eq!(bridge.to_device()[0], expected);
    for transaction in bridge.transactions() {
        assert_eq!(
            transaction.body["to_device"],
            transaction.body["de.sorunome.msc2409.to_device"]
        );
        assert!(transaction.body["to_device"].as_array().unwrap().len() <= 100);
        assert_eq!(transaction.body["events"], json!([]));
    }
    // The device has no inbox that would fill.
    let synced = bob.get(&format!("{}&timeout=0", as_ghost(&bob, "v3/sync"))).await.ok();
    assert_eq!(synced["to_device"]["events"].as_array().map_or(0, Vec::len), 0, "{synced}");
    // The device is gone, and so is what would be for it.
    bob.delete(&as_ghost(&bob, &format!("v3/devices/{DEVICE}"))).await.ok();
    tell(&alice, &bob, 150).await;
    let carol = ghost(&server, "_irc_carol").await;
    tell(&alice, &carol, 151).await;
    bridge.wait("the end", |bridge| numbers(bridge).last() == Some(&151)).await;
    assert_eq!(bridge.to_device().len(), 151);
}

#[tokio::test]
async fn a_refused_transaction_comes_again_as_it_was_also_after_a_restart() {
    let (server, bridge) = bridged().await;
    let alice = server.client("alice").await;
    let bob = ghost(&server, "_irc_bob").await;
    tell(&alice, &bob, 0).await;
    bridge.wait("the first", |bridge| !bridge.to_device().is_empty()).await;
    bridge.fail_with(503);
    tell(&alice, &bob, 1).await;
    bridge.wait("a refusal", |bridge| !bridge.refused().is_empty()).await;
    tell(&alice, &bob, 2).await;
    let signer = DeviceSigner::new(&bob);
    let keys = json!({ "one_time_keys": signer.one_time_keys(&["a"]) });
    bob.post(&as_ghost(&bob, "v3/keys/upload"), keys).await.ok();
    let (alice_user, bob_user) = (alice.user.clone(), bob.user.clone());
    let server = server.restart().await;
    let alice = Client { server: &server, user: alice_user };
    let bob = Client { server: &server, user: bob_user };
    tell(&alice, &bob, 3).await;
    bridge.fail_with(200);
    bridge.wait("all", |bridge| bridge.to_device().len() >= 4).await;
    assert_eq!(numbers(&bridge), [0, 1, 2, 3]);
    let refused = bridge.refused();
    assert!(refused.iter().all(|one| *one == refused[0]), "{refused:#?}");
    assert!(bridge.transactions().contains(&refused[0]), "the transaction was made anew");
    bridge.wait("the count", |bridge| count(bridge, &bob) == Some(1)).await;
}

#[tokio::test]
async fn no_event_overtakes_the_messages_that_were_sent_before_it() {
    let (server, bridge) = bridged().await;
    let alice = server.client("alice").await;
    let room = alice.public_room().await;
    let bob = ghost(&server, "_irc_bob").await;
    bob.post(&as_ghost(&bob, &format!("v3/rooms/{room}/join")), json!({})).await.ok();
    bridge.wait("the join", |bridge| !lists(bridge).is_empty()).await;
    bridge.fail_with(503);
    tell(&alice, &bob, 0).await;
    bridge.wait("a refusal", |bridge| !bridge.refused().is_empty()).await;
    for number in 1..250 {
        tell(&alice, &bob, number).await;
    }
    alice.send(&room, "encrypted with what the last one brought").await;
    bridge.fail_with(200);
    server.post("v1/appservice/irc/ping", json!({})).token(AS_TOKEN).send().await.ok();
    let is_message = |event: &Value| event["type"] == "m.room.message";
    bridge.wait("the event", |bridge| bridge.events().iter().any(is_message)).await;
    assert_eq!(numbers(&bridge), (0..250).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_waits_goes_with_its_registration() {
    let (server, bridge) = bridged().await;
    let alice = server.client("alice").await;
    let bob = ghost(&server, "_irc_bob").await;
    bridge.fail_with(503);
    tell(&alice, &bob, 1).await;
    bridge.wait("a refusal", |bridge| !bridge.refused().is_empty()).await;
    tell(&alice, &bob, 2).await;
    server.server.appservices.unregister("irc").await.unwrap();
    // Now nobody takes it, and the device keeps it for itself.
    tell(&alice, &bob, 3).await;
    let second = Bridge::start().await;
    let pause = std::time::Duration::from_millis(100);
    tokio::time::sleep(pause).await;
    server.server.appservices.register(&encrypting(&second.url)).await.unwrap();
    tell(&alice, &bob, 4).await;
    second.wait("the last", |second| !second.to_device().is_empty()).await;
    assert_eq!(numbers(&second), [4]);
    let synced = bob.get(&format!("{}&timeout=0", as_ghost(&bob, "v3/sync"))).await.ok();
    assert_eq!(synced["to_device"]["events"][0]["content"]["number"], 3);
}

#[tokio::test]
async fn one_that_wants_no_encryption_gets_none_and_its_devices_sync() {
    let (server, bridge) = bridged_by(|url| registration(Some(url))).await;
    let alice = server.client("alice").await;
    let room = alice.public_room().await;
    let bob = ghost(&server, "_irc_bob").await;
    bob.post(&as_ghost(&bob, &format!("v3/rooms/{room}/join")), json!({})).await.ok();
    upload(&alice, json!({ "device_keys": DeviceSigner::new(&alice).device_keys() })).await;
    tell(&alice, &bob, 7).await;
    query(&alice, bob.id()).await;
    assert_eq!(claim(&alice, &bob).await, None);
    let synced = bob.get(&format!("{}&timeout=0", as_ghost(&bob, "v3/sync"))).await.ok();
    assert_eq!(synced["to_device"]["events"][0]["content"]["number"], 7);
    alice.send(&room, "end").await;
    let is_end = |event: &Value| event["content"]["body"] == "end";
    bridge.wait("the end", |bridge| bridge.events().iter().any(is_end)).await;
    for transaction in bridge.transactions() {
        let names: Vec<_> = transaction.body.as_object().unwrap().keys().collect();
        assert_eq!(names, ["events"]);
    }
    assert_eq!(bridge.key_questions(), []);
}

#[tokio::test]
async fn those_with_other_clients_get_their_messages_twice() {
    let open = |url: &str| encrypting(url).replacen("exclusive: true", "exclusive: false", 1);
    let (server, bridge) = bridged_by(open).await;
    let (alice, bob) = (server.client("alice").await, server.client("_irc_bob").await);
    tell(&alice, &bob, 1).await;
    bridge.wait("the message", |bridge| !bridge.to_device().is_empty()).await;
    let synced = bob.sync(None).await;
    assert_eq!(synced["to_device"]["events"][0]["content"]["number"], 1);
    // A device without a session is the bridge's.
    let carol = ghost(&server, "_irc_carol").await;
    tell(&alice, &carol, 2).await;
    bridge.wait("the other", |bridge| numbers(bridge) == [1, 2]).await;
    let synced = carol.get(&format!("{}&timeout=0", as_ghost(&carol, "v3/sync"))).await.ok();
    assert_eq!(synced["to_device"]["events"].as_array().map_or(0, Vec::len), 0, "{synced}");
}

#[tokio::test]
async fn device_lists_of_those_who_share_a_room_are_told() {
    let (server, bridge) = bridged().await;
    let (alice, carol) = (server.client("alice").await, server.client("carol").await);
    let dave = server.client("dave").await;
    let (room, other) = (alice.public_room().await, dave.public_room().await);
    let bob = ghost(&server, "_irc_bob").await;
    let join = async |room: &str| {
        bob.post(&as_ghost(&bob, &format!("v3/rooms/{room}/join")), json!({})).await.ok();
    };
    join(&room).await;
    let has = |kind: &'static str, client: &Client<'_>| {
        let expected = (kind, client.id().to_owned());
        move |bridge: &Bridge| lists(bridge).contains(&expected)
    };
    // Who was there before it is new to it.
    bridge.wait("alice", has("changed", &alice)).await;
    for client in [&dave, &carol, &alice] {
        upload(client, json!({ "device_keys": DeviceSigner::new(client).device_keys() })).await;
    }
    let of_alice = |bridge: &Bridge| {
        lists(bridge).into_iter().filter(|(_, user)| user.starts_with("@alice:")).count()
    };
    bridge.wait("alice's device", |bridge| of_alice(bridge) == 2).await;
    // Its own user's too.
    let keys = json!({ "device_keys": DeviceSigner::new(&bob).device_keys() });
    bob.post(&as_ghost(&bob, "v3/keys/upload"), keys).await.ok();
    bridge.wait("bob's device", has("changed", &bob)).await;
    carol.join(&room).await;
    bridge.wait("carol's join", has("changed", &carol)).await;
    carol.leave(&room).await;
    bridge.wait("carol's leave", has("left", &carol)).await;
    assert!(!has("changed", &dave)(&bridge), "dave shares no room: {:?}", lists(&bridge));
    join(&other).await;
    bridge.wait("dave", has("changed", &dave)).await;
    bob.post(&as_ghost(&bob, &format!("v3/rooms/{other}/leave")), json!({})).await.ok();
    bridge.wait("dave is left", has("left", &dave)).await;
    assert_eq!(of_alice(&bridge), 2, "{:?}", lists(&bridge));
}

#[tokio::test]
async fn a_second_of_its_users_makes_nobody_new() {
    let (server, bridge) = bridged().await;
    let alice = server.client("alice").await;
    let room = alice.public_room().await;
    for name in ["_irc_a", "_irc_b", "_irc_c"] {
        let ghost = ghost(&server, name).await;
        ghost.post(&as_ghost(&ghost, &format!("v3/rooms/{room}/join")), json!({})).await.ok();
    }
    // A change of the profile is no join.
    let path = format!("v3/profile/{}/displayname", encode(alice.id()));
    alice.put(&path, json!({ "displayname": "Alice" })).await.ok();
    alice.send(&room, "end").await;
    let is_end = |event: &Value| event["content"]["body"] == "end";
    bridge.wait("the end", |bridge| bridge.events().iter().any(is_end)).await;
    assert_eq!(lists(&bridge), [("changed", alice.id().to_owned())]);
}

#[tokio::test]
async fn what_changed_while_it_was_away_is_told_after_a_restart() {
    let (server, bridge) = bridged().await;
    let alice = server.client("alice").await;
    let room = alice.public_room().await;
    let bob = ghost(&server, "_irc_bob").await;
    bob.post(&as_ghost(&bob, &format!("v3/rooms/{room}/join")), json!({})).await.ok();
    bridge.wait("the join", |bridge| !lists(bridge).is_empty()).await;
    bridge.fail_with(500);
    upload(&alice, json!({ "device_keys": DeviceSigner::new(&alice).device_keys() })).await;
    let server = server.restart().await;
    bridge.fail_with(200);
    bridge.wait("the change", |bridge| lists(bridge).len() >= 2).await;
    assert_eq!(lists(&bridge), vec![("changed", "@alice:example.org".to_owned()); 2]);
    drop(server);
}

#[tokio::test]
async fn what_changed_right_before_a_crash_is_told_after_it() {
    let (server, bridge) = bridged().await;
    let (alice, carol) = (server.client("alice").await, server.client("carol").await);
    let dave = server.client("dave").await;
    let (room, elsewhere) = (alice.public_room().await, dave.public_room().await);
    carol.join(&elsewhere).await;
    let bob = ghost(&server, "_irc_bob").await;
    bob.post(&as_ghost(&bob, &format!("v3/rooms/{room}/join")), json!({})).await.ok();
    bridge.wait("the join", |bridge| !lists(bridge).is_empty()).await;
    let told_before = lists(&bridge).len();
    let users = [alice.user.clone(), carol.user.clone(), dave.user.clone()];
    // Nobody follows the commits: it is as if the server crashed after each of them.
    let server = server.idle().await;
    let [alice, carol, dave] = users.map(|user| Client { server: &server, user });
    for client in [&alice, &dave] {
        upload(client, json!({ "device_keys": DeviceSigner::new(client).device_keys() })).await;
    }
    carol.join(&room).await;
    let (alice_id, carol_id) = (alice.id().to_owned(), carol.id().to_owned());
    let server = server.restart().await;
    bridge.wait("both", |bridge| lists(bridge).len() >= told_before + 2).await;
    let mut told = lists(&bridge).split_off(told_before);
    told.sort();
    assert_eq!(told, [("changed", alice_id), ("changed", carol_id)], "dave shares no room");
    drop(server);
}

#[tokio::test]
async fn an_alias_brings_the_members_of_its_room_along() {
    let (server, bridge) = bridged().await;
    let (alice, carol) = (server.client("alice").await, server.client("carol").await);
    let (room, shared) = (alice.public_room().await, carol.public_room().await);
    carol.join(&room).await;
    let bob = ghost(&server, "_irc_bob").await;
    bob.post(&as_ghost(&bob, &format!("v3/rooms/{shared}/join")), json!({})).await.ok();
    bridge.wait("carol", |bridge| !lists(bridge).is_empty()).await;
    let path = |alias: &str| format!("v3/directory/room/{}", encode(alias));
    let name = async |alias: &str| {
        server.put(&path(alias), json!({ "room_id": room })).token(AS_TOKEN).send().await.ok();
    };
    let entry = |kind: &'static str, client: &Client<'_>| (kind, client.id().to_owned());
    let (changed, left) = (entry("changed", &alice), entry("left", &alice));
    assert!(!lists(&bridge).contains(&changed));
    name("#_irc_x:example.org").await;
    bridge.wait("alice", |bridge| lists(bridge).contains(&changed)).await;
    // From now on as in any shared room.
    let count = |bridge: &Bridge| lists(bridge).iter().filter(|told| **told == changed).count();
    upload(&alice, json!({ "device_keys": DeviceSigner::new(&alice).device_keys() })).await;
    bridge.wait("her device", |bridge| count(bridge) == 2).await;
    // A second alias makes nobody new, and while there is one the room is shared.
    name("#_irc_y:example.org").await;
    for alias in ["#_irc_x:example.org", "#_irc_y:example.org"] {
        assert!(!lists(&bridge).contains(&left));
        server.delete(&path(alias)).token(AS_TOKEN).send().await.ok();
    }
    bridge.wait("the end", |bridge| lists(bridge).contains(&left)).await;
    assert_eq!(count(&bridge), 2, "{:?}", lists(&bridge));
    assert!(!lists(&bridge).contains(&entry("left", &carol)), "another room is shared");
}

#[tokio::test]
async fn counts_of_keys_are_told_again_after_a_restore() {
    let (server, bridge) = bridged().await;
    let bob = ghost(&server, "_irc_bob").await;
    let signer = DeviceSigner::new(&bob);
    let keys = json!({
        "one_time_keys": signer.one_time_keys(&["a", "b"]), "fallback_keys": signer.fallback_key("f"),
    });
    bob.post(&as_ghost(&bob, "v3/keys/upload"), keys).await.ok();
    bridge.wait("two keys", |bridge| count(bridge, &bob) == Some(2)).await;
    let alice = server.client("alice").await;
    upload(&alice, json!({ "one_time_keys": DeviceSigner::new(&alice).one_time_keys(&["a"]) }))
        .await;
    let (bob_user, transactions) = (bob.user.clone(), bridge.transactions().len());
    // A restart alone changes nothing; in another epoch the keys are gone.
    let server = server.restart().await;
    let name = server.server.config.server.name.clone();
    renew_epoch(&server.server.store, &name).await.unwrap();
    let server = server.restart().await;
    let bob = Client { server: &server, user: bob_user };
    bridge.wait("no keys", |bridge| count(bridge, &bob) == Some(0)).await;
    assert_eq!(bridge.told(FALLBACK).pop().unwrap()[bob.id()][DEVICE], json!([]));
    let told = bridge.told(COUNTS).split_off(1);
    let expected = json!({ bob.id(): { DEVICE: { ALGORITHM: 0 } } });
    assert_eq!(told, [expected], "once, and of its users alone");
    assert!(bridge.transactions().len() > transactions);
}

#[tokio::test]
async fn what_waited_for_a_removed_one_does_not_count_for_its_devices() {
    let bridge = Bridge::start().await;
    let server = TestServer::with(|config| config.encryption.waiting_messages_max = 5).await;
    server.server.appservices.register(&encrypting(&bridge.url)).await.unwrap();
    let alice = server.client("alice").await;
    let bob = ghost(&server, "_irc_bob").await;
    bridge.fail_with(503);
    tell(&alice, &bob, 0).await;
    bridge.wait("a refusal", |bridge| !bridge.refused().is_empty()).await;
    for number in 1..=5 {
        tell(&alice, &bob, number).await;
    }
    let path = "v3/sendToDevice/m.room.encrypted/6";
    let body = json!({ "messages": { bob.id(): { DEVICE: {} } } });
    assert_eq!(alice.put(path, body.clone()).await.outcome(), (429, "M_LIMIT_EXCEEDED"));
    server.server.appservices.unregister("irc").await.unwrap();
    // Once what waited is dropped there is room again, and the counters are as new.
    bridge.wait("the end of it", |_| waiting(&bob) == (Some(0), Some(0))).await;
    alice.put(path, body).await.ok();
    assert_eq!(waiting(&bob).0, Some(1));
}

/// What the counters of a ghost's device say.
fn waiting(ghost: &Client<'_>) -> (Option<i64>, Option<i64>) {
    let reader = ghost.server.server.store.reader();
    let key = DeviceKey { user_id: ghost.id().to_owned(), device_id: DEVICE.to_owned() };
    (reader.get(&TO_DEVICE_COUNTS, &key).unwrap(), reader.get(&TO_DEVICE_SIZES, &key).unwrap())
}

#[tokio::test]
async fn counts_of_keys_are_told_when_they_change() {
    let (server, bridge) = bridged().await;
    let alice = server.client("alice").await;
    let bob = ghost(&server, "_irc_bob").await;
    let signer = DeviceSigner::new(&bob);
    let keys = json!({
        "device_keys": signer.device_keys(),
        "one_time_keys": signer.one_time_keys(&["a", "b"]),
        "fallback_keys": signer.fallback_key("f"),
    });
    bob.post(&as_ghost(&bob, "v3/keys/upload"), keys).await.ok();
    bridge.wait("two keys", |bridge| count(bridge, &bob) == Some(2)).await;
    let unused = |bridge: &Bridge| bridge.told(FALLBACK).pop().unwrap()[bob.id()][DEVICE].take();
    assert_eq!(unused(&bridge), json!([ALGORITHM]));
    for left in [1, 0] {
        assert!(claim(&alice, &bob).await.is_some());
        bridge.wait("a key less", |bridge| count(bridge, &bob) == Some(left)).await;
    }
    assert_eq!(claim(&alice, &bob).await.as_deref(), Some("f"));
    bridge.wait("no fallback key", |bridge| unused(bridge) == json!([])).await;
    assert_eq!(count(&bridge, &bob), Some(0));
}

#[tokio::test]
async fn one_time_keys_that_it_keeps_are_claimed_from_it() {
    let (server, bridge) = bridged().await;
    let alice = server.client("alice").await;
    let bob = ghost(&server, "_irc_bob").await;
    let signer = DeviceSigner::new(&bob);
    let keys = json!({
        "one_time_keys": signer.one_time_keys(&["stored"]),
        "fallback_keys": signer.fallback_key("f"),
    });
    bob.post(&as_ghost(&bob, "v3/keys/upload"), keys).await.ok();
    let mut given = signer.one_time_keys(&["given"]);
    given["curve25519:other"] = json!("AAAA");
    let others = json!({ "OTHER": signer.one_time_keys(&["unasked"]) });
    let answer = json!({
        bob.id(): { DEVICE: given, "OTHER": signer.one_time_keys(&["unasked"]) },
        alice.id(): others,
    });
    bridge.answer_keys(CLAIM, answer);
    // What is stored goes first, and nobody is asked.
    assert_eq!(claim(&alice, &bob).await.as_deref(), Some("stored"));
    assert_eq!(bridge.key_questions(), []);
    assert_eq!(claim(&alice, &bob).await.as_deref(), Some("given"));
    let asked = json!({ bob.id(): { DEVICE: [ALGORITHM] } });
    assert_eq!(bridge.key_questions(), [(CLAIM.to_owned(), asked)]);
    // What it lacks is made up for by the fallback key.
    bridge.answer_keys(CLAIM, json!({}));
    assert_eq!(claim(&alice, &bob).await.as_deref(), Some("f"));
    bridge.stop().await;
    assert_eq!(claim(&alice, &bob).await.as_deref(), Some("f"));
}

#[tokio::test]
async fn one_that_does_not_know_the_question_is_not_asked_again() {
    let (server, bridge) = bridged().await;
    let alice = server.client("alice").await;
    let bob = ghost(&server, "_irc_bob").await;
    for _ in 0..2 {
        assert_eq!(claim(&alice, &bob).await, None);
        assert_eq!(query(&alice, bob.id()).await["device_keys"], json!({ bob.id(): {} }));
    }
    assert_eq!(bridge.key_questions().len(), 2, "{:?}", bridge.key_questions());
    // A ping says that it may be another one now.
    server.post("v1/appservice/irc/ping", json!({})).token(AS_TOKEN).send().await.ok();
    assert_eq!(claim(&alice, &bob).await, None);
    assert_eq!(bridge.key_questions().len(), 3);
    // Nobody is asked about users of others.
    query(&bob_of(&server).await, alice.id()).await;
    assert_eq!(bridge.key_questions().len(), 3);
}

async fn bob_of(server: &TestServer) -> Client<'_> {
    server.client("bob").await
}

#[tokio::test]
async fn device_keys_that_it_keeps_go_before_those_that_are_stored() {
    let (server, bridge) = bridged().await;
    let alice = server.client("alice").await;
    let bob = ghost(&server, "_irc_bob").await;
    let stored = DeviceSigner::new(&bob).device_keys();
    bob.post(&as_ghost(&bob, "v3/keys/upload"), json!({ "device_keys": stored })).await.ok();
    let device = |name: &str| {
        let user = TestUser { device_id: name.to_owned(), ..bob.user.clone() };
        DeviceSigner::new(&Client { server: &server, user }).device_keys()
    };
    let mut second = device("SECOND");
    second["unsigned"] = json!({ "device_display_name": "Second", "more": true });
    let mut forged = device("FORGED");
    forged["keys"]["curve25519:FORGED"] = second["keys"]["curve25519:SECOND"].clone();
    let master = json!({
        "user_id": bob.id(), "usage": ["master"], "keys": { "ed25519:abc": "abc" },
    });
    let of_alice = json!({ alice.id(): { "X": stored.clone() } });
    let mut device_keys = json!({ bob.id(): { "SECOND": second, "FORGED": forged, "X": stored } });
    device_keys[alice.id()] = of_alice[alice.id()].clone();
    bridge.answer_keys(
        QUERY,
        json!({
            "device_keys": device_keys,
            "master_keys": { bob.id(): master, alice.id(): master },
            "user_signing_keys": { bob.id(): master },
        }),
    );
    let seen = query(&alice, bob.id()).await;
    assert_eq!(bridge.key_questions(), [(QUERY.to_owned(), json!({ bob.id(): [] }))]);
    let devices: Vec<_> = seen["device_keys"][bob.id()].as_object().unwrap().keys().collect();
    assert_eq!(devices, [DEVICE, "SECOND"]);
    let second = &seen["device_keys"][bob.id()]["SECOND"];
    assert_eq!(second["unsigned"], json!({ "device_display_name": "Second" }));
    assert_eq!(seen["master_keys"], json!({ bob.id(): master }));
    assert_eq!(seen["user_signing_keys"], json!({}));
    let named = json!({ "device_keys": { bob.id(): [DEVICE] } });
    let named = alice.post("v3/keys/query", named).await.ok();
    let devices: Vec<_> = named["device_keys"][bob.id()].as_object().unwrap().keys().collect();
    assert_eq!(devices, [DEVICE]);
    // Without an answer, what is stored is all there is.
    bridge.answer_without_end();
    bridge.stop().await;
    let seen = query(&alice, bob.id()).await;
    let devices: Vec<_> = seen["device_keys"][bob.id()].as_object().unwrap().keys().collect();
    assert_eq!(devices, [DEVICE]);
}

#[tokio::test]
async fn one_that_manages_devices_does_not_log_in() {
    let (server, _bridge) = bridged().await;
    let bob = ghost(&server, "_irc_bob").await;
    let login = json!({
        "type": "m.login.application_service",
        "identifier": { "type": "m.id.user", "user": bob.id() },
    });
    let refused = server.post("v3/login", login).token(AS_TOKEN).send().await;
    assert_eq!(refused.outcome(), (400, "M_APPSERVICE_LOGIN_UNSUPPORTED"));
    let register = json!({ "type": "m.login.application_service", "username": "_irc_carol" });
    let refused = server.post("v3/register", register).token(AS_TOKEN).send().await;
    assert_eq!(refused.outcome(), (400, "M_APPSERVICE_LOGIN_UNSUPPORTED"));
    // It names devices that are there, and removes them without anybody's password.
    let path = as_ghost(&bob, &format!("v3/devices/{DEVICE}"));
    bob.put(&path, json!({ "display_name": "Other" })).await.ok();
    bob.delete(&path).await.ok();
    let devices = bob.get(&format!("v3/devices?user_id={}", encode(bob.id()))).await.ok();
    assert_eq!(devices["devices"], json!([]));
    let unknown = as_ghost(&bob, "v3/account/whoami");
    assert_eq!(bob.get(&unknown).await.outcome(), (400, "M_UNKNOWN_DEVICE"));
}

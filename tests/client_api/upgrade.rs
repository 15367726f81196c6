//! Upgrading rooms, and what follows members into the new room.

use std::{future::poll_fn, task::Poll};

use causerie::rooms::{membership::MemberProfile, upgrade::Upgrade};
use futures::FutureExt;
use http::Method;
use ruma::RoomVersionId;
use serde_json::{Value, json};

use crate::harness::{Client, TestServer, encode, text};

async fn try_upgrade(user: &Client<'_>, room: &str, body: Value) -> crate::harness::Answer {
    user.post(&format!("v3/rooms/{room}/upgrade"), body).await
}

async fn upgrade(user: &Client<'_>, room: &str, version: &str) -> String {
    let answer = try_upgrade(user, room, json!({ "new_version": version })).await;
    text(&answer.ok()["replacement_room"])
}

#[tokio::test]
async fn a_new_room_takes_over_what_the_old_one_was() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let carol = server.client("carol").await;
    let old = alice
        .create_room(json!({
            "preset": "public_chat",
            "visibility": "public",
            "room_version": "10",
            "room_alias_name": "place",
            "name": "Place",
            "topic": "Things",
            "power_level_content_override": { "users": { alice.id(): 100, bob.id(): 70 } },
            "creation_content": { "type": "m.space" },
            "initial_state": [
                { "type": "m.room.server_acl", "content": { "allow": ["*"] } },
                { "type": "m.room.encryption", "content": { "algorithm": "m.megolm.v1.aes-sha2" } },
                { "type": "org.x", "content": { "mine": true } },
                { "type": "m.space.child", "state_key": "!child:example.org",
                  "content": { "via": ["example.org"] } },
            ],
        }))
        .await;
    bob.join(&old).await;
    alice.act_on(&old, "ban", &carol).await.ok();
    for version in ["11", "12"] {
        let room = upgrade_and_check(&alice, &old, version).await;
        let levels = alice.state(&room, "m.room.power_levels").await.ok();
        assert_eq!(levels["users"][bob.id()], json!(70));
        assert_eq!(levels["users"].get(alice.id()).is_some(), version == "11");
        let tombstone = levels["events"]["m.room.tombstone"].clone();
        assert_eq!(tombstone, json!(if version == "11" { 100 } else { 150 }));
        let path = format!("v3/rooms/{room}/state/m.room.member/{}", carol.id());
        assert_eq!(alice.get(&path).await.ok()["membership"], json!("ban"));
        let child = format!("v3/rooms/{room}/state/m.space.child/!child:example.org");
        assert_eq!(alice.get(&child).await.ok()["via"], json!(["example.org"]));
        assert_eq!(carol.act(&room, "join").await.outcome(), (403, "M_FORBIDDEN"));
        bob.join(&room).await;
    }
    // Who has not the power to send after that is only read to.
    let answer = bob.try_send(&old, "m.room.message", json!({ "body": "x" })).await;
    assert_eq!(answer.outcome(), (200, ""), "70 is above 50");
    let levels = alice.state(&old, "m.room.power_levels").await.ok();
    assert_eq!((&levels["events_default"], &levels["invite"]), (&json!(50), &json!(50)));
}

async fn upgrade_and_check(alice: &Client<'_>, old: &str, version: &str) -> String {
    let room = upgrade(alice, old, version).await;
    // Trying again is the same upgrade.
    assert_eq!(upgrade(alice, old, version).await, room);
    let tombstone = alice.state(old, "m.room.tombstone").await.ok();
    assert_eq!(tombstone["replacement_room"], json!(room));
    let create = alice.state(&room, "m.room.create").await.ok();
    assert_eq!(create["predecessor"]["room_id"], json!(old));
    assert_eq!(create["predecessor"].get("event_id").is_some(), version == "11");
    assert_eq!((&create["type"], &create["room_version"]), (&json!("m.space"), &json!(version)));
    for kind in [
        "m.room.name",
        "m.room.topic",
        "m.room.join_rules",
        "m.room.server_acl",
        "m.room.encryption",
        "m.room.guest_access",
        "m.room.history_visibility",
    ] {
        let (new, before) = (alice.state(&room, kind).await, alice.state(old, kind).await);
        assert_eq!(new.ok(), before.ok(), "{kind}");
    }
    assert_eq!(alice.state(&room, "org.x").await.outcome(), (404, "M_NOT_FOUND"));
    if version == "11" {
        let path = format!("v3/directory/room/{}", encode("#place:example.org"));
        assert_eq!(alice.get(&path).await.ok()["room_id"], json!(room));
        let alias = alice.state(&room, "m.room.canonical_alias").await.ok();
        assert_eq!(alias["alias"], json!("#place:example.org"));
        assert_eq!(alice.state(old, "m.room.canonical_alias").await.ok(), json!({}));
        for (room, visibility) in [(old, "private"), (&*room, "public")] {
            let answer = alice.get(&format!("v3/directory/list/room/{room}")).await.ok();
            assert_eq!(answer["visibility"], json!(visibility));
        }
    }
    room
}

#[tokio::test]
async fn who_may_upgrade_and_to_what_is_checked() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat", "room_version": "11" })).await;
    let body = json!({ "new_version": "12" });
    assert_eq!(try_upgrade(&bob, &room, body.clone()).await.outcome(), (403, "M_FORBIDDEN"));
    bob.join(&room).await;
    assert_eq!(try_upgrade(&bob, &room, body).await.outcome(), (403, "M_FORBIDDEN"));
    let answer = try_upgrade(&alice, &room, json!({ "new_version": "99" })).await;
    assert_eq!(answer.outcome(), (400, "M_UNSUPPORTED_ROOM_VERSION"));
    assert_eq!(try_upgrade(&alice, &room, json!({})).await.outcome(), (400, "M_BAD_JSON"));
    let answer = try_upgrade(&alice, "!none:example.org", json!({ "new_version": "12" })).await;
    assert_eq!(answer.outcome(), (404, "M_NOT_FOUND"));
    let body = json!({ "new_version": "12", "additional_creators": [bob.id()] });
    let new = text(&try_upgrade(&alice, &room, body).await.ok()["replacement_room"]);
    let create = alice.state(&new, "m.room.create").await.ok();
    assert_eq!(create["additional_creators"], json!([bob.id()]));
    // Back to a version in which the creators' power is written down.
    bob.join(&new).await;
    let third = upgrade(&bob, &new, "11").await;
    let levels = bob.state(&third, "m.room.power_levels").await.ok();
    assert_eq!(levels["users"][bob.id()], json!(100));
}

#[tokio::test]
async fn rules_that_the_version_does_not_know_close_the_room() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.create_room(json!({ "room_version": "11" })).await;
    alice.set(&room, "m.room.join_rules", json!({ "join_rule": "restricted", "allow": [] })).await;
    let new = upgrade(&alice, &room, "7").await;
    let rules = alice.state(&new, "m.room.join_rules").await.ok();
    assert_eq!(rules, json!({ "join_rule": "invite" }));
}

/// Bob's settings of a room: a tag, a direct chat, a rule.
async fn set_up(bob: &Client<'_>, room: &str) {
    let user = bob.id();
    bob.put(&format!("v3/user/{user}/rooms/{room}/tags/u.work"), json!({})).await.ok();
    let direct = json!({ "@alice:example.org": [room] });
    bob.put(&format!("v3/user/{user}/account_data/m.direct"), direct).await.ok();
    let rule = format!("v3/pushrules/global/room/{}", encode(room));
    bob.put(&rule, json!({ "actions": ["notify"] })).await.ok();
    let rule = format!("v3/pushrules/global/override/{}", encode(room));
    let condition = json!({ "kind": "event_match", "key": "room_id", "pattern": room });
    bob.put(&rule, json!({ "conditions": [condition], "actions": [] })).await.ok();
}

/// Whether they are there.
async fn has(bob: &Client<'_>, room: &str) -> [bool; 4] {
    let user = bob.id();
    let tags = bob.get(&format!("v3/user/{user}/rooms/{room}/tags")).await.ok();
    let direct = bob.get(&format!("v3/user/{user}/account_data/m.direct")).await.ok();
    let direct = direct["@alice:example.org"].as_array().unwrap().contains(&json!(room));
    let mut rules = [false, false];
    for (found, kind) in rules.iter_mut().zip(["room", "override"]) {
        let path = format!("v3/pushrules/global/{kind}/{}", encode(room));
        *found = bob.call(Method::GET, &path).send().await.status == 200;
    }
    [tags["tags"].get("u.work").is_some(), direct, rules[0], rules[1]]
}

#[tokio::test]
async fn t83_settings_move_only_where_the_old_room_says_so() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let evil = server.client("evil").await;
    let wanted = json!({
        "preset": "public_chat", "visibility": "public", "room_alias_name": "r",
        "room_version": "11",
    });
    let room = alice.create_room(wanted).await;
    bob.join(&room).await;
    set_up(&bob, &room).await;
    let fake = evil
        .create_room(json!({
            "preset": "public_chat",
            "creation_content": { "predecessor": { "room_id": room, "event_id": "$x" } },
        }))
        .await;
    bob.join(&fake).await;
    assert_eq!(has(&bob, &fake).await, [false; 4]);
    let path = format!("v3/directory/room/{}", encode("#r:example.org"));
    assert_eq!(bob.get(&path).await.ok()["room_id"], json!(room));
    let listed = bob.get(&format!("v3/directory/list/room/{room}")).await.ok();
    assert_eq!(listed["visibility"], json!("public"));
    let new = upgrade(&alice, &room, "12").await;
    assert_eq!(bob.get(&path).await.ok()["room_id"], json!(new));
    bob.join(&new).await;
    assert_eq!(has(&bob, &new).await, [true; 4]);
    assert_eq!(has(&bob, &room).await, [true; 4]);
}

#[tokio::test]
async fn a_moderator_who_upgrades_stays_one() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let carol = server.client("carol").await;
    let levels = json!({
        "users": { alice.id(): 100, bob.id(): 50 },
        "events": { "m.room.tombstone": 50, "m.room.power_levels": 100 },
        "ban": 100,
    });
    let wanted = json!({
        "preset": "public_chat", "room_version": "10", "power_level_content_override": levels,
    });
    let old = alice.create_room(wanted).await;
    bob.join(&old).await;
    alice.act_on(&old, "ban", &carol).await.ok();
    let before = alice.state(&old, "m.room.power_levels").await.ok();
    let new = upgrade(&bob, &old, "11").await;
    assert_eq!(bob.state(&new, "m.room.power_levels").await.ok(), before);
    let path = format!("v3/rooms/{new}/state/m.room.member/{}", carol.id());
    assert_eq!(bob.get(&path).await.ok()["membership"], json!("ban"));
    // In the old room the sender may not change the levels: they stay.
    assert_eq!(alice.state(&old, "m.room.power_levels").await.ok(), before);
    assert!(bob.state(&old, "m.room.tombstone").await.status.is_success());
}

#[tokio::test]
async fn an_upgrade_asked_for_twice_at_once_happens_once() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let old = alice.create_room(json!({ "room_version": "11" })).await;
    let (one, other) = tokio::join!(upgrade(&alice, &old, "12"), upgrade(&alice, &old, "12"));
    let page = alice.messages(&old, "dir=b&limit=50").await.ok();
    let events = page["chunk"].as_array().unwrap();
    let tombstones: Vec<_> =
        events.iter().filter(|event| event["type"] == json!("m.room.tombstone")).collect();
    assert_eq!(tombstones.len(), 1, "{page}");
    assert_eq!(text(&tombstones[0]["content"]["replacement_room"]), one);
    assert_eq!(one, other);
}

/// Polls until the future is woken and polled again, or gives what it comes to.
async fn step<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    let mut woken = false;
    poll_fn(|context| match future.poll_unpin(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if woken => Poll::Ready(None),
        Poll::Pending => {
            woken = true;
            Poll::Pending
        }
    })
    .await
}

/// Begins an upgrade and breaks it off after so many steps, as a crash would; whether it was done.
async fn break_off(server: &TestServer, alice: &Client<'_>, old: &str, steps: usize) -> bool {
    let rooms = &server.server.rooms;
    let room = rooms.known_room(old.try_into().unwrap()).await.unwrap();
    let wanted = Upgrade {
        sender: alice.user.user_id.clone(),
        profile: MemberProfile::default(),
        version: RoomVersionId::V12,
        additional_creators: Vec::new(),
    };
    let mut upgrade = Box::pin(rooms.upgrade(&room, wanted));
    for _ in 0..steps {
        if let Some(result) = step(&mut upgrade).await {
            result.unwrap();
            return true;
        }
    }
    false
}

#[tokio::test]
async fn an_upgrade_that_was_broken_off_anywhere_goes_on_with_the_same_room() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let (mut rooms, mut steps, mut is_done) = (0, 0, false);
    while !is_done {
        let name = format!("place{steps}");
        let old = alice
            .create_room(json!({ "room_version": "11", "room_alias_name": name, "name": name }))
            .await;
        alice.act_on(&old, "ban", &bob).await.ok();
        // Twice: the second try is broken off too, a little later.
        is_done = break_off(&server, &alice, &old, steps).await;
        break_off(&server, &alice, &old, steps + 1).await;
        let new = upgrade(&alice, &old, "12").await;
        assert_eq!(upgrade(&alice, &old, "12").await, new);
        let tombstone = alice.state(&old, "m.room.tombstone").await.ok();
        assert_eq!(tombstone["replacement_room"], json!(new), "{steps} steps");
        let alias = encode(&format!("#{name}:{}", server.server.config.server.name));
        let found = alice.get(&format!("v3/directory/room/{alias}")).await.ok();
        assert_eq!(found["room_id"], json!(new), "{steps} steps");
        assert_eq!(alice.state(&new, "m.room.name").await.ok()["name"], json!(name));
        let path = format!("v3/rooms/{new}/state/m.room.member/{}", bob.id());
        assert_eq!(alice.get(&path).await.ok()["membership"], json!("ban"), "{steps} steps");
        // The old one and the new one, and no other.
        rooms += 2;
        let joined = alice.get("v3/joined_rooms").await.ok();
        assert_eq!(joined["joined_rooms"].as_array().unwrap().len(), rooms, "{steps} steps");
        steps += 1;
    }
    assert!(steps > 3, "it was broken off at {steps} places");
}

//! Sliding sync and memberships: invites, knocks, leaves, and what nobody is told any more; the
//! filters of lists.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    harness::{Client, TestServer, ids, text, texts},
    sliding::{all_rooms, pos, slide, try_slide},
};

/// The membership that the room's answer says the user has, by the state alone.
fn own_membership(room: &Value, user: &Client<'_>) -> Option<String> {
    let events = room["required_state"].as_array()?;
    let own = events.iter().find(|event| {
        event["type"] == json!("m.room.member") && event["state_key"] == json!(user.id())
    })?;
    Some(text(&own["content"]["membership"]))
}

async fn soon<T>(then: impl Future<Output = T>) -> T {
    tokio::time::sleep(Duration::from_millis(50)).await;
    then.await
}

#[tokio::test]
async fn an_invite_is_told_with_its_state_and_becomes_a_room() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.create_room(json!({ "name": "Hall" })).await;
    alice.send(&room, "a secret").await;
    let body = all_rooms(19);
    let first = slide(&bob, None, &body).await;
    let last = pos(&first);
    let poll = try_slide(&bob, (Some(&last), 30_000), &body);
    let (told, ()) = tokio::join!(poll, soon(alice.invite(&room, &bob)));
    let told = told.ok();
    let invite = &told["rooms"][&room];
    assert_eq!(told["lists"]["all_rooms"]["count"], json!(1));
    assert_eq!(invite["timeline"], json!([]));
    assert_eq!(invite["required_state"], json!([]));
    for absent in ["name", "joined_count", "heroes", "prev_batch"] {
        assert!(invite.get(absent).is_none(), "{absent}");
    }
    let stripped = invite["invite_state"].as_array().unwrap();
    assert!(stripped.iter().any(|event| event["content"]["name"] == json!("Hall")));
    assert!(stripped.iter().any(|event| event["state_key"] == json!(bob.id())));
    assert!(!told.to_string().contains("a secret"));
    let again = slide(&bob, Some(&pos(&told)), &body).await;
    assert_eq!(again["rooms"], json!({}));
    bob.join(&room).await;
    let told = slide(&bob, Some(&pos(&again)), &body).await;
    let joined = &told["rooms"][&room];
    assert_eq!((&joined["initial"], &joined["name"]), (&json!(true), &json!("Hall")));
    assert!(joined.get("invite_state").is_none());
    assert_eq!(own_membership(joined, &bob).as_deref(), Some("join"));
    assert_eq!(joined["num_live"], json!(1), "the join has just happened");
}

#[tokio::test]
async fn an_invite_that_ends_is_told_with_the_own_member_event() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let body = all_rooms(19);
    for verb in ["reject", "kick", "ban"] {
        let room = alice.create_room(json!({ "invite": [bob.id()] })).await;
        let told = slide(&bob, None, &body).await;
        assert!(told["rooms"][&room]["invite_state"].is_array());
        match verb {
            "reject" => bob.leave(&room).await,
            _ => drop(alice.act_on(&room, verb, &bob).await.ok()),
        }
        let told = slide(&bob, Some(&pos(&told)), &body).await;
        let left = &told["rooms"][&room];
        let is = if verb == "ban" { "ban" } else { "leave" };
        assert_eq!(own_membership(left, &bob).as_deref(), Some(is), "{verb}: {told}");
        assert!(left.get("invite_state").is_none());
        assert_eq!(left["timeline"], json!([]), "bob was never in");
        let told = slide(&bob, Some(&pos(&told)), &body).await;
        assert_eq!(told["rooms"], json!({}));
    }
}

#[tokio::test]
async fn a_knock_is_told_like_an_invite() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let rules = json!({ "type": "m.room.join_rules", "content": { "join_rule": "knock" } });
    let room = alice.create_room(json!({ "name": "Hall", "initial_state": [rules] })).await;
    let body = all_rooms(19);
    let told = slide(&bob, None, &body).await;
    bob.post(&format!("v3/knock/{room}"), json!({})).await.ok();
    let told = slide(&bob, Some(&pos(&told)), &body).await;
    let stripped = told["rooms"][&room]["invite_state"].as_array().unwrap();
    let own = stripped.iter().find(|event| event["state_key"] == json!(bob.id())).unwrap();
    assert_eq!(own["content"]["membership"], json!("knock"));
    assert_eq!(told["rooms"][&room]["membership"], json!("knock"));
}

#[tokio::test]
async fn t57_whoever_leaves_during_a_connection_is_told_so_and_nothing_after() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    let body = all_rooms(19);
    for verb in ["leave", "kick", "ban"] {
        bob.join(&room).await;
        let first = slide(&bob, None, &body).await;
        let last = pos(&first);
        let poll = try_slide(&bob, (Some(&last), 30_000), &body);
        let remove = async {
            match verb {
                "leave" => bob.leave(&room).await,
                _ => drop(alice.act_on(&room, verb, &bob).await.ok()),
            }
            alice.send(&room, "after").await;
            alice.set(&room, "m.room.topic", json!({ "topic": "after" })).await;
        };
        let (told, ()) = tokio::join!(poll, soon(remove));
        let told = told.ok();
        let left = &told["rooms"][&room];
        let is = if verb == "ban" { "ban" } else { "leave" };
        assert_eq!(own_membership(left, &bob).as_deref(), Some(is), "{verb}: {told}");
        let events = left["timeline"].as_array().unwrap();
        assert_eq!(events.last().unwrap()["content"]["membership"], json!(is));
        let next = slide(&bob, Some(&pos(&told)), &body).await;
        assert_eq!(next["rooms"], json!({}), "{verb}");
        let mut opened = body.clone();
        opened["room_subscriptions"] =
            json!({ &room: { "required_state": [["*", "*"]], "timeline_limit": 50 } });
        let next = slide(&bob, Some(&pos(&next)), &opened).await;
        assert!(!next.to_string().contains("after"), "{verb}: {next}");
    }
}

#[tokio::test]
async fn t57_a_slow_client_gets_the_leave_and_what_was_before_it() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    let mut body = all_rooms(19);
    body["lists"]["all_rooms"]["timeline_limit"] = json!(10);
    let first = slide(&bob, None, &body).await;
    alice.send(&room, "before").await;
    alice.act_on(&room, "kick", &bob).await.ok();
    alice.send(&room, "after").await;
    alice.set(&room, "m.room.name", json!({ "name": "after" })).await;
    let told = slide(&bob, Some(&pos(&first)), &body).await;
    let left = &told["rooms"][&room];
    assert_eq!(texts(&left["timeline"]), ["before"]);
    assert_eq!(own_membership(left, &bob).as_deref(), Some("leave"));
    assert!(!told.to_string().contains("after"));
    // Back again: a room that is new to the client.
    bob.join(&room).await;
    let told = slide(&bob, Some(&pos(&told)), &body).await;
    assert_eq!(told["rooms"][&room]["initial"], json!(true));
    assert_eq!(told["rooms"][&room]["name"], json!("after"));
}

#[tokio::test]
async fn a_new_connection_is_told_of_kicks_but_not_of_what_one_left() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let (left, kicked) = (alice.public_room().await, alice.public_room().await);
    for room in [&left, &kicked] {
        bob.join(room).await;
    }
    bob.leave(&left).await;
    alice.act_on(&kicked, "kick", &bob).await.ok();
    alice.send(&kicked, "after").await;
    let body = all_rooms(19);
    let told = slide(&bob, None, &body).await;
    assert!(told["rooms"].get(&left).is_none());
    assert_eq!(own_membership(&told["rooms"][&kicked], &bob).as_deref(), Some("leave"));
    assert!(!told.to_string().contains("after"));
    bob.act(&kicked, "forget").await.ok();
    let told = slide(&bob, None, &body).await;
    assert_eq!(told["rooms"], json!({}));
}

#[tokio::test]
async fn who_is_ignored_is_not_heard() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let carol = server.client("carol").await;
    let room = alice.public_room().await;
    for user in [&bob, &carol] {
        user.join(&room).await;
    }
    let path = format!("v3/user/{}/account_data/m.ignored_user_list", bob.id());
    bob.put(&path, json!({ "ignored_users": { carol.id(): {} } })).await.ok();
    let mut body = all_rooms(19);
    body["lists"]["all_rooms"]["timeline_limit"] = json!(5);
    let told = slide(&bob, None, &body).await;
    carol.send(&room, "hush").await;
    carol.create_room(json!({ "invite": [bob.id()] })).await;
    let told = slide(&bob, Some(&pos(&told)), &body).await;
    assert_eq!(told["rooms"], json!({}), "neither the message nor the invite");
    assert_eq!(told["lists"]["all_rooms"]["count"], json!(1));
    let heard = alice.send(&room, "hello").await;
    let told = slide(&bob, Some(&pos(&told)), &body).await;
    assert_eq!(ids(&told["rooms"][&room]["timeline"]), [heard]);
}

#[tokio::test]
async fn filters_choose_rooms() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let plain = alice.public_room().await;
    let encryption = json!({ "type": "m.room.encryption",
        "content": { "algorithm": "m.megolm.v1.aes-sha2" } });
    let secret = alice.create_room(json!({ "initial_state": [encryption] })).await;
    let space = alice.create_room(json!({ "creation_content": { "type": "m.space" } })).await;
    let invited = bob.create_room(json!({ "invite": [alice.id()] })).await;
    let direct = alice.create_room(json!({ "is_direct": true, "invite": [bob.id()] })).await;
    let path = format!("v3/user/{}/account_data/m.direct", alice.id());
    alice.put(&path, json!({ bob.id(): [&direct] })).await.ok();
    let all = [&plain, &secret, &space, &invited, &direct];
    let cases = [
        (json!({}), all.to_vec()),
        (json!({ "is_dm": true }), vec![&direct]),
        (json!({ "is_dm": false }), vec![&plain, &secret, &space, &invited]),
        (json!({ "is_encrypted": true }), vec![&secret]),
        (json!({ "is_encrypted": false, "is_invite": false }), vec![&plain, &space, &direct]),
        (json!({ "is_invite": true }), vec![&invited]),
        (json!({ "room_types": ["m.space"] }), vec![&space]),
        (json!({ "room_types": [null], "is_dm": false }), vec![&plain, &secret, &invited]),
        (json!({ "not_room_types": ["m.space"] }), vec![&plain, &secret, &invited, &direct]),
        (json!({ "room_types": ["m.space"], "not_room_types": ["m.space"] }), vec![]),
    ];
    for (filters, mut expected) in cases {
        let list = json!({ "ranges": [[0, 99]], "timeline_limit": 1, "filters": filters });
        let told = slide(&alice, None, &json!({ "lists": { "a": list } })).await;
        expected.sort_unstable();
        let found: Vec<&String> = told["rooms"].as_object().unwrap().keys().collect();
        assert_eq!(found, expected, "{filters}");
        assert_eq!(told["lists"]["a"]["count"], json!(expected.len()), "{filters}");
    }
    // A room that becomes encrypted changes its list.
    let list = json!({ "ranges": [[0, 99]], "timeline_limit": 1,
        "filters": { "is_encrypted": true } });
    let body = json!({ "lists": { "a": list } });
    let told = slide(&alice, None, &body).await;
    alice.set(&plain, "m.room.encryption", json!({ "algorithm": "m.megolm.v1.aes-sha2" })).await;
    let told = slide(&alice, Some(&pos(&told)), &body).await;
    assert_eq!(told["lists"]["a"]["count"], json!(2));
    assert_eq!(told["rooms"][&plain]["initial"], json!(true));
}

#[tokio::test]
async fn a_room_becomes_direct_and_ceases_to_be() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.public_room().await;
    let path = format!("v3/user/{}/account_data/m.direct", alice.id());
    let body = all_rooms(19);
    let told = slide(&alice, None, &body).await;
    alice.put(&path, json!({ "@bob:example.org": [&room] })).await.ok();
    let told = slide(&alice, Some(&pos(&told)), &body).await;
    assert_eq!(told["rooms"][&room]["is_dm"], json!(true));
    let fresh = server.device_of("alice").await;
    let first = slide(&fresh, None, &body).await;
    assert_eq!(first["rooms"][&room]["is_dm"], json!(true));
    alice.put(&path, json!({})).await.ok();
    let told = slide(&alice, Some(&pos(&told)), &body).await;
    assert_eq!(told["rooms"][&room]["is_dm"], json!(false));
}

#[tokio::test]
async fn the_notification_process_gets_invites_and_its_rooms() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    let event = alice.send(&room, "ping").await;
    let invited = alice.create_room(json!({ "invite": [bob.id()] })).await;
    let body = json!({
        "conn_id": "notifications",
        "lists": { "invites": { "ranges": [[0, 16]], "timeline_limit": 8,
            "required_state": [["m.room.member", "$ME"]], "filters": { "is_invite": true } } },
        "room_subscriptions": { &room: { "timeline_limit": 16,
            "required_state": [["m.room.member", "$LAZY"]] } },
        "extensions": { "account_data": { "enabled": true } },
    });
    let told = slide(&bob, None, &body).await;
    assert_eq!(told["lists"]["invites"]["count"], json!(1));
    assert!(told["rooms"][&invited]["invite_state"].is_array());
    assert_eq!(ids(&told["rooms"][&room]["timeline"]).last(), Some(&event));
}

#[tokio::test]
async fn reading_makes_the_count_fall() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    let event = alice.send(&room, "unread").await;
    let body = all_rooms(19);
    let told = slide(&bob, None, &body).await;
    assert_eq!(told["rooms"][&room]["notification_count"], json!(1));
    let last = pos(&told);
    let poll = try_slide(&bob, (Some(&last), 30_000), &body);
    let other = server.device_of("bob").await;
    let path = format!("v3/rooms/{room}/receipt/m.read/{}", crate::harness::encode(&event));
    let (told, _) = tokio::join!(poll, soon(other.post(&path, json!({}))));
    let told = told.ok();
    assert_eq!(told["rooms"][&room]["notification_count"], json!(0));
    assert_eq!(told["rooms"][&room]["timeline"], json!([]));
    // A receipt of somebody else changes nothing.
    alice.post(&path, json!({})).await.ok();
    let told = slide(&bob, Some(&pos(&told)), &body).await;
    assert_eq!(told["rooms"], json!({}));
}

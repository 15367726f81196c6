//! Invites that are not wanted, and users who are ignored.

use serde_json::{Value, json};

use crate::{
    harness::{Client, TestServer, texts},
    sliding::{all_rooms, pos, slide},
};

async fn set(user: &Client<'_>, kind: &str, content: Value) {
    user.put(&format!("v3/user/{}/account_data/{kind}", user.id()), content).await.ok();
}

async fn is_invited(user: &Client<'_>, room: &str, since: Option<&str>) -> bool {
    user.sync(since).await["rooms"]["invite"].get(room).is_some()
}

const PERMISSION: &str = "m.invite_permission_config";
const RULES: &str = "org.matrix.msc4155.invite_permission_config";

#[tokio::test]
async fn who_blocks_invites_gets_none() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let early = alice.create_room(json!({ "invite": [bob.id()] })).await;
    let room = alice.create_room(json!({})).await;
    for (kind, content, back) in [
        (PERMISSION, json!({ "default_action": "block" }), json!({})),
        (RULES, json!({ "blocked_users": ["@alice:*"] }), json!({ "enabled": false })),
        (RULES, json!({ "blocked_servers": ["example.*"] }), json!({})),
    ] {
        set(&bob, kind, content).await;
        let answer = alice.act_on(&room, "invite", &bob).await;
        assert_eq!(answer.outcome(), (403, "M_INVITE_BLOCKED"));
        let path = format!("v3/rooms/{room}/state/m.room.member/{}", bob.id());
        let answer = alice.put(&path, json!({ "membership": "invite" })).await;
        assert_eq!(answer.outcome(), (403, "M_INVITE_BLOCKED"));
        let answer = alice.post("v3/createRoom", json!({ "invite": [bob.id()] })).await;
        assert_eq!(answer.outcome(), (403, "M_INVITE_BLOCKED"));
        assert!(!is_invited(&bob, &early, None).await, "also those that were there");
        let now = bob.now().await;
        set(&bob, kind, back).await;
        assert!(is_invited(&bob, &early, Some(&now)).await, "and they come back");
    }
    set(&bob, RULES, json!({ "allowed_users": [alice.id()], "blocked_users": ["*"] })).await;
    alice.invite(&room, &bob).await;
    assert!(is_invited(&bob, &room, None).await);
    let versions = server.get("versions").send().await.ok();
    for feature in ["org.matrix.msc4155", "org.matrix.msc4380.stable", "org.matrix.msc4140"] {
        assert_eq!(versions["unstable_features"][feature], json!(true));
    }
}

#[tokio::test]
async fn ignored_invites_are_made_and_not_shown() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    for (kind, content) in [
        (RULES, json!({ "ignored_users": [alice.id()] })),
        ("m.ignored_user_list", json!({ "ignored_users": { alice.id(): {} } })),
    ] {
        set(&bob, kind, content).await;
        let room = alice.create_room(json!({})).await;
        let before = bob.now().await;
        alice.invite(&room, &bob).await;
        assert!(!is_invited(&bob, &room, Some(&before)).await);
        let now = bob.now().await;
        let empty = match kind {
            RULES => json!({}),
            _ => json!({ "ignored_users": {} }),
        };
        set(&bob, kind, empty).await;
        assert!(is_invited(&bob, &room, Some(&now)).await);
        bob.join(&room).await;
    }
}

#[tokio::test]
async fn messages_of_ignored_users_are_left_out_of_history() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    alice.send(&room, "one").await;
    let middle = bob.send(&room, "two").await;
    alice.send(&room, "three").await;
    let list = json!({ "ignored_users": { alice.id(): {}, bob.id(): {} } });
    set(&bob, "m.ignored_user_list", list).await;
    let page = bob.messages(&room, "dir=f&limit=100").await.ok();
    assert_eq!(texts(&page["chunk"]), ["two"], "nobody ignores themselves");
    let types: Vec<&str> = page["chunk"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|event| event["type"].as_str())
        .collect();
    assert!(types.contains(&"m.room.create"), "state stays");
    let context = bob.context(&room, &middle).await.ok();
    assert!(texts(&context["events_after"]).is_empty());
    let sync = bob.sync(None).await;
    assert_eq!(texts(&sync["rooms"]["join"][&room]["timeline"]["events"]), ["two"]);
    let now = bob.now().await;
    set(&bob, "m.ignored_user_list", json!({ "ignored_users": {} })).await;
    alice.send(&room, "four").await;
    let sync = bob.sync(Some(&now)).await;
    assert_eq!(texts(&sync["rooms"]["join"][&room]["timeline"]["events"]), ["four"]);
    let page = bob.messages(&room, "dir=f&limit=100").await.ok();
    assert_eq!(texts(&page["chunk"]), ["one", "two", "three", "four"]);
}

#[tokio::test]
async fn nobody_is_invited_by_mail() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.create_room(json!({})).await;
    let body = json!({
        "id_server": "id.example.org", "id_access_token": "x", "medium": "email",
        "address": "bob@example.org",
    });
    let answer = alice.post(&format!("v3/rooms/{room}/invite"), body.clone()).await;
    assert_eq!(answer.outcome(), (403, "M_THREEPID_DENIED"));
    let answer = alice.post("v3/createRoom", json!({ "invite_3pid": [body] })).await;
    assert_eq!(answer.outcome(), (403, "M_THREEPID_DENIED"));
}

#[tokio::test]
async fn who_knocks_is_let_in() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.create_room(json!({ "room_version": "10" })).await;
    let knock = format!("v3/knock/{room}?via=example.org&server_name=example.org");
    assert_eq!(bob.post(&knock, json!({})).await.outcome(), (403, "M_FORBIDDEN"));
    for rule in
        [json!({ "join_rule": "knock" }), json!({ "join_rule": "knock_restricted", "allow": [] })]
    {
        alice.set(&room, "m.room.join_rules", rule).await;
        let reason = json!({ "reason": "Let me in" });
        assert_eq!(bob.post(&knock, reason).await.ok()["room_id"], json!(room));
        assert!(bob.sync(None).await["rooms"]["knock"].get(&room).is_some());
        let path = format!("v3/rooms/{room}/state/m.room.member/{}", bob.id());
        assert_eq!(alice.get(&path).await.ok()["reason"], json!("Let me in"));
        assert_eq!(bob.act(&room, "join").await.outcome(), (403, "M_FORBIDDEN"));
        alice.invite(&room, &bob).await;
        bob.join(&room).await;
        bob.leave(&room).await;
    }
    let old = alice.create_room(json!({ "room_version": "6" })).await;
    alice.set(&old, "m.room.join_rules", json!({ "join_rule": "knock" })).await;
    let answer = bob.post(&format!("v3/knock/{old}"), json!({})).await;
    assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"));
}

#[tokio::test]
async fn sliding_sync_holds_back_the_same_invites() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.create_room(json!({ "invite": [bob.id()] })).await;
    let body = all_rooms(20);
    let first = slide(&bob, None, &body).await;
    assert!(first["rooms"][&room]["invite_state"].is_array());
    let mut since = pos(&first);
    for (kind, content, back) in [
        (PERMISSION, json!({ "default_action": "block" }), json!({})),
        (RULES, json!({ "ignored_users": [alice.id()] }), json!({})),
        (
            "m.ignored_user_list",
            json!({ "ignored_users": { alice.id(): {} } }),
            json!({ "ignored_users": {} }),
        ),
    ] {
        set(&bob, kind, content).await;
        let fresh = slide(&bob, None, &json!({ "conn_id": "other", "lists": body["lists"] })).await;
        assert_eq!(fresh["lists"]["all_rooms"]["count"], 0, "{kind}");
        assert!(fresh["rooms"].get(&room).is_none(), "{kind}");
        let hidden = slide(&bob, Some(&since), &body).await;
        assert_eq!(hidden["lists"]["all_rooms"]["count"], 0, "{kind}");
        set(&bob, kind, back).await;
        let again = slide(&bob, Some(&pos(&hidden)), &body).await;
        assert!(again["rooms"][&room]["invite_state"].is_array(), "{kind}");
        let quiet = slide(&bob, Some(&pos(&again)), &body).await;
        assert!(quiet["rooms"].get(&room).is_none(), "{kind}: told once");
        since = pos(&quiet);
    }
}

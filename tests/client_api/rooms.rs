//! Making rooms, memberships, and the aliases of rooms.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Client, TestServer, encode, text};

/// The power levels of a room.
async fn levels(user: &Client<'_>, room: &str) -> Value {
    user.state(room, "m.room.power_levels").await.ok()
}

/// One field of a state with an empty key.
async fn field(user: &Client<'_>, room: &str, kind: &str, field: &str) -> Value {
    user.state(room, kind).await.ok()[field].clone()
}

/// The membership of a user as another sees it.
async fn membership(viewer: &Client<'_>, room: &str, of: &Client<'_>) -> String {
    let path = format!("v3/rooms/{room}/state/m.room.member/{}", of.id());
    text(&viewer.get(&path).await.ok()["membership"])
}

#[tokio::test]
async fn a_preset_decides_who_gets_in() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    for (wanted, join_rule, guests) in [
        (json!({}), "invite", "can_join"),
        (json!({ "visibility": "private" }), "invite", "can_join"),
        (json!({ "visibility": "public" }), "public", "forbidden"),
        (json!({ "preset": "public_chat" }), "public", "forbidden"),
        (json!({ "preset": "trusted_private_chat" }), "invite", "can_join"),
        (json!({ "preset": "private_chat", "visibility": "public" }), "invite", "can_join"),
    ] {
        let room = alice.create_room(wanted.clone()).await;
        let is = field(&alice, &room, "m.room.join_rules", "join_rule").await;
        assert_eq!(is, json!(join_rule), "{wanted}");
        let is = field(&alice, &room, "m.room.guest_access", "guest_access").await;
        assert_eq!(is, json!(guests), "{wanted}");
        let is = field(&alice, &room, "m.room.history_visibility", "history_visibility").await;
        assert_eq!(is, json!("shared"), "{wanted}");
    }
    let answer = alice.post("v3/createRoom", json!({ "preset": "no_such_chat" })).await;
    assert_eq!(answer.outcome(), (400, "M_INVALID_PARAM"));
    let answer = alice.post("v3/createRoom", json!({ "room_version": "0" })).await;
    assert_eq!(answer.outcome(), (400, "M_UNSUPPORTED_ROOM_VERSION"));
    let answer = alice.post("v3/createRoom", json!({ "room_version": 12 })).await;
    assert_eq!(answer.outcome(), (400, "M_BAD_JSON"));
}

#[tokio::test]
async fn rooms_of_all_versions_work() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    for version in 6..=12 {
        let wanted = json!({ "room_version": version.to_string(), "preset": "public_chat" });
        let room = alice.create_room(wanted).await;
        let create = alice.state(&room, "m.room.create").await.ok();
        assert_eq!(create["room_version"], json!(version.to_string()));
        assert_eq!(create.get("creator").is_some(), version <= 10, "version {version}");
        assert_eq!(room.contains(':'), version <= 11, "version {version}: {room}");
        let powers = levels(&alice, &room).await["users"].clone();
        assert_eq!(powers.get(alice.id()).is_some(), version <= 11, "version {version}");
        bob.join(&room).await;
        let event = bob.send(&room, "hello").await;
        assert_eq!(alice.event(&room, &event).await.ok()["content"]["body"], json!("hello"));
        alice.try_redact(&room, &event).await.ok();
        assert_eq!(bob.event(&room, &event).await.ok()["content"], json!({}));
        bob.leave(&room).await;
    }
    let room = alice.create_room(json!({})).await;
    let version = field(&alice, &room, "m.room.create", "room_version").await;
    let capabilities = alice.get("v3/capabilities").await.ok();
    assert_eq!(capabilities["capabilities"]["m.room_versions"]["default"], version);
}

#[tokio::test]
async fn what_a_new_room_shall_be_is_what_it_is() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice
        .create_room(json!({
            "room_version": "11",
            "name": "The room",
            "topic": "Things",
            "preset": "private_chat",
            "invite": [bob.id()],
            "is_direct": true,
            "creation_content": { "m.federate": false, "creator": "@evil:example.org" },
            "initial_state": [
                { "type": "m.room.encryption", "content": { "algorithm": "m.megolm.v1.aes-sha2" } },
                { "type": "m.room.history_visibility", "state_key": "",
                  "content": { "history_visibility": "joined" } },
                { "type": "m.room.name", "state_key": "", "content": { "name": "Another" } },
                { "type": "org.x", "state_key": "y", "content": { "z": 1 } },
            ],
            "power_level_content_override": { "events_default": 10, "redact": 77 },
        }))
        .await;
    assert_eq!(field(&alice, &room, "m.room.name", "name").await, json!("The room"));
    assert_eq!(field(&alice, &room, "m.room.topic", "topic").await, json!("Things"));
    let create = alice.state(&room, "m.room.create").await.ok();
    assert_eq!(create, json!({ "room_version": "11", "m.federate": false }));
    let visibility = field(&alice, &room, "m.room.history_visibility", "history_visibility").await;
    assert_eq!(visibility, json!("joined"));
    let powers = levels(&alice, &room).await;
    assert_eq!((&powers["events_default"], &powers["redact"]), (&json!(10), &json!(77)));
    assert_eq!(powers["users"], json!({ alice.id(): 100 }));
    let other = alice.get(&format!("v3/rooms/{room}/state/org.x/y")).await.ok();
    assert_eq!(other, json!({ "z": 1 }));
    let invited = bob.sync(None).await;
    let state = &invited["rooms"]["invite"][&room]["invite_state"]["events"];
    let state = state.as_array().unwrap();
    let find = |kind: &str| state.iter().find(|event| event["type"] == kind);
    let own = state.iter().find(|event| event["state_key"] == bob.id()).unwrap();
    assert_eq!(own["content"]["membership"], json!("invite"));
    assert_eq!(own["content"]["is_direct"], json!(true));
    assert_eq!(find("m.room.name").unwrap()["content"]["name"], json!("The room"));
    for kind in ["m.room.create", "m.room.join_rules", "m.room.encryption"] {
        assert!(find(kind).is_some(), "{kind}");
    }
    assert!(find("m.room.topic").is_some());
    assert!(find("org.x").is_none());
}

#[tokio::test]
async fn in_a_trusted_room_all_have_the_creators_power() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    for version in ["11", "12"] {
        let wanted = json!({
            "room_version": version,
            "preset": "trusted_private_chat",
            "invite": [bob.id()],
        });
        let room = alice.create_room(wanted).await;
        bob.join(&room).await;
        bob.set(&room, "m.room.tombstone", json!({ "body": "", "replacement_room": "!x:y" })).await;
    }
}

#[tokio::test]
async fn a_wrong_wish_makes_no_room() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    for (wanted, outcome) in [
        (json!({ "invite": ["bob"] }), (400, "M_BAD_JSON")),
        (json!({ "invite": ["@x:elsewhere.example"] }), (403, "M_FORBIDDEN")),
        (json!({ "room_alias_name": "a:b" }), (400, "M_INVALID_PARAM")),
        (json!({ "room_alias_name": "" }), (400, "M_INVALID_PARAM")),
        (json!({ "room_alias_name": "x".repeat(255) }), (400, "M_INVALID_PARAM")),
        (json!({ "initial_state": [{ "type": "m.room.name" }] }), (400, "M_BAD_JSON")),
        (json!({ "initial_state": [{ "content": {} }] }), (400, "M_BAD_JSON")),
        (json!({ "initial_state": {} }), (400, "M_BAD_JSON")),
        (json!({ "creation_content": [] }), (400, "M_BAD_JSON")),
        (json!({ "power_level_content_override": { "ban": "50" } }), (400, "M_BAD_JSON")),
        (
            json!({ "room_version": "11", "power_level_content_override": { "users": {} },
                    "name": "x" }),
            (400, "M_INVALID_ROOM_STATE"),
        ),
        (json!({ "creation_content": { "additional_creators": ["x"] } }), (400, "M_BAD_JSON")),
        (json!({ "name": "x".repeat(66_000) }), (413, "M_TOO_LARGE")),
    ] {
        let answer = alice.post("v3/createRoom", wanted.clone()).await;
        assert_eq!(answer.outcome(), outcome, "{wanted} {}", answer.body);
    }
    assert_eq!(alice.get("v3/joined_rooms").await.ok(), json!({ "joined_rooms": [] }));
    assert!(alice.sync(None).await.get("rooms").is_none());
}

#[tokio::test]
async fn an_invite_is_accepted_or_refused() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.create_room(json!({})).await;
    assert_eq!(bob.act(&room, "join").await.outcome(), (403, "M_FORBIDDEN"));
    assert_eq!(bob.act(&room, "leave").await.outcome(), (403, "M_FORBIDDEN"));
    alice.invite(&room, &bob).await;
    assert_eq!(membership(&alice, &room, &bob).await, "invite");
    bob.leave(&room).await;
    assert_eq!(membership(&alice, &room, &bob).await, "leave");
    assert_eq!(bob.act(&room, "join").await.outcome(), (403, "M_FORBIDDEN"));
    alice.invite(&room, &bob).await;
    bob.join(&room).await;
    bob.join(&room).await;
    assert_eq!(membership(&alice, &room, &bob).await, "join");
    assert_eq!(alice.act_on(&room, "invite", &bob).await.outcome(), (403, "M_FORBIDDEN"));
    assert_eq!(bob.get("v3/joined_rooms").await.ok(), json!({ "joined_rooms": [room] }));
    let members = alice.get(&format!("v3/rooms/{room}/members?membership=join")).await.ok();
    assert_eq!(members["chunk"].as_array().unwrap().len(), 2);
    let members = alice.get(&format!("v3/rooms/{room}/members?not_membership=join")).await.ok();
    assert_eq!(members["chunk"], json!([]));
    let members = alice.get(&format!("v3/rooms/{room}/members?membership=x")).await;
    assert_eq!(members.outcome(), (400, "M_INVALID_PARAM"));
}

#[tokio::test]
async fn kicks_and_bans_need_power() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let (bob, carol) = (server.client("bob").await, server.client("carol").await);
    let room = alice.public_room().await;
    assert_eq!(alice.act_on(&room, "kick", &bob).await.outcome(), (403, "M_FORBIDDEN"));
    bob.join(&room).await;
    carol.join(&room).await;
    for verb in ["kick", "ban", "unban"] {
        let status = bob.act_on(&room, verb, &carol).await.outcome().0;
        assert!(status == 403 || status == 400, "{verb}: {status}");
        assert_eq!(membership(&bob, &room, &carol).await, "join");
    }
    alice.act_on(&room, "kick", &carol).await.ok();
    carol.join(&room).await;
    let body = json!({ "user_id": carol.id(), "reason": "spam" });
    alice.post(&format!("v3/rooms/{room}/ban"), body).await.ok();
    let path = format!("v3/rooms/{room}/state/m.room.member/{}?format=event", carol.id());
    let member = alice.get(&path).await.ok();
    assert_eq!(member["content"]["reason"], json!("spam"));
    assert_eq!(member["sender"], json!(alice.id()));
    assert_eq!(carol.act(&room, "join").await.outcome(), (403, "M_FORBIDDEN"));
    assert_eq!(carol.act(&room, "leave").await.outcome(), (403, "M_FORBIDDEN"));
    assert_eq!(alice.act_on(&room, "invite", &carol).await.outcome(), (403, "M_FORBIDDEN"));
    assert_eq!(alice.act_on(&room, "kick", &carol).await.outcome(), (403, "M_FORBIDDEN"));
    assert_eq!(bob.act_on(&room, "unban", &carol).await.outcome(), (403, "M_FORBIDDEN"));
    alice.act_on(&room, "unban", &carol).await.ok();
    assert_eq!(alice.act_on(&room, "unban", &carol).await.outcome().1, "M_BAD_STATE");
    carol.join(&room).await;
    let long = json!({ "user_id": bob.id(), "reason": "x".repeat(2001) });
    let answer = alice.post(&format!("v3/rooms/{room}/kick"), long).await;
    assert_eq!(answer.outcome(), (400, "M_INVALID_PARAM"));
}

#[tokio::test]
async fn a_knock_is_answered() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let knock = async |room: &str| {
        bob.post(&format!("v3/knock/{room}"), json!({ "reason": "please" })).await
    };
    let rules =
        |rule: &str| json!([{ "type": "m.room.join_rules", "content": { "join_rule": rule } }]);
    for (version, rule) in [("7", "invite"), ("10", "public"), ("12", "restricted"), ("6", "knock")]
    {
        let wanted = json!({ "room_version": version, "initial_state": rules(rule) });
        let room = alice.create_room(wanted).await;
        assert_eq!(knock(&room).await.outcome(), (403, "M_FORBIDDEN"), "{rule} in {version}");
    }
    let room = alice.create_room(json!({ "initial_state": rules("knock") })).await;
    knock(&room).await.ok();
    assert_eq!(membership(&alice, &room, &bob).await, "knock");
    let told = bob.sync(None).await;
    assert!(told["rooms"]["knock"][&room]["knock_state"]["events"].is_array(), "{told}");
    bob.leave(&room).await;
    knock(&room).await.ok();
    alice.invite(&room, &bob).await;
    bob.join(&room).await;
    assert_eq!(knock(&room).await.outcome(), (403, "M_FORBIDDEN"));
    bob.leave(&room).await;
    alice.act_on(&room, "ban", &bob).await.ok();
    assert_eq!(knock(&room).await.outcome(), (403, "M_FORBIDDEN"));
    assert_eq!(knock("!none:example.org").await.outcome(), (404, "M_NOT_FOUND"));
}

#[tokio::test]
async fn a_room_that_was_left_can_be_forgotten() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    assert_eq!(bob.act(&room, "forget").await.outcome(), (404, "M_NOT_FOUND"));
    bob.join(&room).await;
    bob.send(&room, "hi").await;
    assert_eq!(bob.act(&room, "forget").await.outcome(), (400, "M_UNKNOWN"));
    bob.leave(&room).await;
    bob.messages(&room, "dir=b").await.ok();
    let archived = r#"{"room":{"include_leave":true}}"#;
    let query = format!("filter={}", encode(archived));
    let told = bob.sync_with(None, &query).await;
    assert!(told["rooms"]["leave"][&room]["timeline"].is_object(), "{told}");
    bob.act(&room, "forget").await.ok();
    bob.act(&room, "forget").await.ok();
    assert_eq!(bob.messages(&room, "dir=b").await.outcome(), (403, "M_FORBIDDEN"));
    assert_eq!(bob.state(&room, "m.room.name").await.outcome(), (403, "M_FORBIDDEN"));
    assert!(bob.sync_with(None, &query).await.get("rooms").is_none());
    bob.join(&room).await;
    assert!(bob.sync(None).await["rooms"]["join"][&room].is_object());
    let found = bob.messages(&room, "dir=b&limit=100").await.ok();
    assert!(found["chunk"].as_array().unwrap().len() > 6);
}

#[tokio::test]
async fn restricted_rooms_let_members_of_others_in() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let space = alice.public_room().await;
    for (version, rule) in [("8", "restricted"), ("12", "restricted"), ("10", "knock_restricted")] {
        let rules = json!({
            "join_rule": rule,
            "allow": [{ "type": "m.room_membership", "room_id": space }],
        });
        let room = alice
            .create_room(json!({
                "room_version": version,
                "initial_state": [{ "type": "m.room.join_rules", "content": rules }],
            }))
            .await;
        assert_eq!(bob.act(&room, "join").await.outcome(), (403, "M_FORBIDDEN"), "{version}");
        bob.join(&space).await;
        bob.join(&room).await;
        bob.send(&room, "in").await;
        bob.leave(&space).await;
        bob.leave(&room).await;
    }
}

#[tokio::test]
async fn t82_aliases_are_their_owners() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let (bob, carol) = (server.client("bob").await, server.client("carol").await);
    let wanted = json!({ "preset": "public_chat", "room_alias_name": "first" });
    let room = alice.create_room(wanted.clone()).await;
    let answer = alice.post("v3/createRoom", wanted).await;
    assert_eq!(answer.outcome(), (400, "M_ROOM_IN_USE"));
    let canonical = field(&alice, &room, "m.room.canonical_alias", "alias").await;
    assert_eq!(canonical, json!("#first:example.org"));
    let path = |name: &str| format!("v3/directory/room/{}", encode(name));
    let found = server.get(&path("#first:example.org")).send().await.ok();
    assert_eq!(found, json!({ "room_id": room, "servers": ["example.org"] }));
    bob.post(&format!("v3/join/{}", encode("#first:example.org")), json!({})).await.ok();
    let put = async |user: &Client<'_>, alias: &str| {
        user.put(&path(alias), json!({ "room_id": room })).await
    };
    put(&bob, "#bobs:example.org").await.ok();
    let taken = put(&alice, "#bobs:example.org").await;
    assert_eq!(taken.outcome(), (409, "M_UNKNOWN"));
    let foreign = put(&alice, "#x:elsewhere.example").await;
    assert_eq!(foreign.outcome(), (400, "M_INVALID_PARAM"));
    assert_eq!(put(&carol, "#carols:example.org").await.outcome(), (403, "M_FORBIDDEN"));
    let list = async |user: &Client<'_>| user.get(&format!("v3/rooms/{room}/aliases")).await;
    let mut named = list(&bob).await.ok()["aliases"].as_array().unwrap().clone();
    named.sort_by_key(ToString::to_string);
    assert_eq!(named, [json!("#bobs:example.org"), json!("#first:example.org")]);
    assert_eq!(list(&carol).await.outcome(), (403, "M_FORBIDDEN"));
    assert_eq!(carol.delete(&path("#bobs:example.org")).await.outcome(), (403, "M_FORBIDDEN"));
    assert_eq!(bob.delete(&path("#first:example.org")).await.outcome(), (403, "M_FORBIDDEN"));
    // Whoever may set the canonical alias may remove any.
    alice.delete(&path("#bobs:example.org")).await.ok();
    assert_eq!(alice.delete(&path("#bobs:example.org")).await.outcome(), (404, "M_NOT_FOUND"));
    let gone = server.get(&path("#bobs:example.org")).send().await;
    assert_eq!(gone.outcome(), (404, "M_NOT_FOUND"));
    for wrong in ["#nocolon", "first", "#:example.org "] {
        let answer = server.get(&path(wrong)).send().await;
        assert!(matches!(answer.outcome().0, 400 | 404), "{wrong}: {answer:?}");
    }
}

#[tokio::test]
async fn t82_a_room_does_not_begin_with_what_is_not_its_own() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    alice.create_room(json!({ "room_alias_name": "official" })).await;
    let create = async |alias: Option<&str>, kind: &str, key: &str, content: Value| {
        let event = json!({ "type": kind, "state_key": key, "content": content });
        let mut body = json!({ "initial_state": [event] });
        if let Some(alias) = alias {
            body["room_alias_name"] = json!(alias);
        }
        bob.post("v3/createRoom", body).await
    };
    let kind = "m.room.canonical_alias";
    for content in
        [json!({ "alias": "#official:example.org" }), json!({ "alt_aliases": ["#x:example.org"] })]
    {
        assert_eq!(create(None, kind, "", content).await.outcome(), (400, "M_BAD_ALIAS"));
    }
    create(Some("own"), kind, "", json!({ "alias": "#own:example.org" })).await.ok();
    // Invites have limits and checks that this way does not have.
    let invite = create(None, "m.room.member", alice.id(), json!({ "membership": "invite" })).await;
    assert_eq!(invite.outcome(), (400, "M_INVALID_ROOM_STATE"));
    let many: Vec<_> = (0..501)
        .map(|key| json!({ "type": "a", "state_key": key.to_string(), "content": {} }))
        .collect();
    let many = bob.post("v3/createRoom", json!({ "initial_state": many })).await;
    assert_eq!(many.outcome(), (400, "M_INVALID_PARAM"));
}

#[tokio::test]
async fn t58_the_invited_learn_no_state_by_the_context_of_their_invite() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let visibility = json!({ "history_visibility": "invited" });
    let state = json!([
        { "type": "m.room.history_visibility", "content": visibility },
        { "type": "org.example.secret", "content": { "secret": true } },
    ]);
    let room = alice.create_room(json!({ "initial_state": state })).await;
    alice.invite(&room, &bob).await;
    let path = format!("v3/rooms/{room}/state/m.room.member/{}?format=event", bob.id());
    let invite = alice.get(&path).await.ok()["event_id"].as_str().unwrap().to_owned();
    let around = bob.get(&format!("v3/rooms/{room}/context/{invite}?limit=0")).await;
    if around.status == 200 {
        let told = around.body.to_string();
        assert!(!told.contains("secret"), "{told}");
    }
    let all = alice.get(&format!("v3/rooms/{room}/context/{invite}?limit=0")).await.ok();
    assert!(all["state"].to_string().contains("secret"));
}

#[tokio::test]
async fn t82_a_canonical_alias_leads_to_its_room() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.create_room(json!({ "room_alias_name": "one" })).await;
    let other = alice.create_room(json!({ "room_alias_name": "other" })).await;
    let set = async |content: Value| alice.try_set(&room, "m.room.canonical_alias", content).await;
    for (content, outcome) in [
        (json!({ "alias": "#none:example.org" }), (400, "M_BAD_ALIAS")),
        (json!({ "alias": "#other:example.org" }), (400, "M_BAD_ALIAS")),
        (json!({ "alt_aliases": ["#other:example.org"] }), (400, "M_BAD_ALIAS")),
        (json!({ "alias": "one" }), (400, "M_INVALID_PARAM")),
        (json!({ "alias": 1 }), (400, "M_BAD_JSON")),
    ] {
        assert_eq!(set(content.clone()).await.outcome(), outcome, "{content}");
    }
    // What was there before stays, even where its alias is gone.
    let path = format!("v3/directory/room/{}", encode("#one:example.org"));
    alice.delete(&path).await.ok();
    set(json!({ "alias": "#one:example.org", "org.x": 1 })).await.ok();
    alice.put(&path, json!({ "room_id": other })).await.ok();
    set(json!({})).await.ok();
    let moved = set(json!({ "alias": "#one:example.org" })).await;
    assert_eq!(moved.outcome(), (400, "M_BAD_ALIAS"));
}

#[tokio::test]
async fn t58_whoever_is_not_in_a_room_learns_nothing_of_it() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.create_room(json!({ "name": "Secret" })).await;
    let since = alice.now().await;
    let event = alice.send(&room, "secret").await;
    let calls = |room: &str| {
        [
            format!("v3/rooms/{room}/members"),
            format!("v3/rooms/{room}/members?at={since}"),
            format!("v3/rooms/{room}/joined_members"),
            format!("v3/rooms/{room}/state"),
            format!("v3/rooms/{room}/state/m.room.name"),
            format!("v3/rooms/{room}/state/m.room.none/"),
            format!("v3/rooms/{room}/messages?dir=b"),
            format!("v3/rooms/{room}/messages?dir=b&from={since}"),
        ]
    };
    // A room that is not there answers the same.
    for room in [&*room, "!none:example.org"] {
        for path in calls(room) {
            let answer = bob.get(&path).await;
            assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"), "{path}");
        }
        let other = bob.event(room, &event).await;
        assert_eq!(other.outcome(), (404, "M_NOT_FOUND"));
        assert_eq!(bob.context(room, &event).await.body, other.body);
        assert_eq!(bob.event(room, "$none").await.body, other.body);
    }
    assert_eq!(bob.get(&format!("v3/rooms/{room}/aliases")).await.outcome().0, 403);
    for path in calls(&room) {
        let answer = alice.get(&path).await;
        assert!(answer.status == 200 || path.contains("none"), "{path}: {}", answer.body);
    }
}

#[tokio::test]
async fn what_is_done_to_a_room_that_is_not_there_is_not_found() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = "!none:example.org";
    for verb in ["join", "leave", "forget"] {
        assert_eq!(alice.act(room, verb).await.outcome(), (404, "M_NOT_FOUND"), "{verb}");
    }
    for verb in ["invite", "kick", "ban", "unban"] {
        let answer = alice.act_on(room, verb, &alice).await;
        assert_eq!(answer.outcome(), (404, "M_NOT_FOUND"), "{verb}");
    }
    let sent = alice.try_send(room, "m.room.message", json!({})).await;
    assert_eq!(sent.outcome(), (404, "M_NOT_FOUND"));
    let path = format!("v3/join/{}", encode("#none:example.org"));
    assert_eq!(alice.post(&path, json!({})).await.outcome(), (404, "M_NOT_FOUND"));
    let answer = alice.call(Method::POST, "v3/join/none").json(json!({})).send().await;
    assert_eq!(answer.outcome().0, 400);
    assert_eq!(alice.act("none", "join").await.outcome().0, 400);
}

//! Attack cases on single events: their size, their JSON, their names, and the levels of power.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Client, TestServer, text};

const EVENT_BYTES_MAX: usize = 65_536;

async fn send_raw(user: &Client<'_>, room: &str, number: usize, body: &[u8]) -> Answer {
    let path = format!("v3/rooms/{room}/send/org.raw/raw{number}");
    user.call(Method::PUT, &path).body(body).send().await
}

#[tokio::test]
async fn t19_an_event_has_65536_bytes_and_no_more() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    for version in ["10", "12"] {
        let room = alice.create_room(json!({ "room_version": version })).await;
        let send = async |size: usize| {
            alice.try_send(&room, "org.large", json!({ "x": "x".repeat(size) })).await
        };
        // How large it is only the server knows; the step from the one to the other is one byte.
        let (mut fits, mut too_large) = (0, EVENT_BYTES_MAX);
        assert_eq!(send(too_large).await.outcome(), (413, "M_TOO_LARGE"));
        while too_large - fits > 1 {
            let middle = usize::midpoint(fits, too_large);
            match send(middle).await.status.as_u16() {
                200 => fits = middle,
                413 => too_large = middle,
                status => panic!("{status}"),
            }
        }
        let event = text(&send(fits).await.ok()["event_id"]);
        let found = alice.event(&room, &event).await.ok();
        assert_eq!(found["content"]["x"].as_str().unwrap().len(), fits);
        let store = &server.server.store;
        let rooms = server.server.rooms.clone();
        let room_id = ruma::RoomId::parse(&room).unwrap();
        let event_id = ruma::EventId::parse(&event).unwrap();
        let known = rooms.room(&room_id).await.unwrap().unwrap();
        let stored = store
            .read(move |reader| rooms.event_by_id(reader, &known, &event_id))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(stored.pdu.json().len(), EVENT_BYTES_MAX, "version {version}");
        let answer = send(fits + 1).await;
        assert_eq!(answer.outcome(), (413, "M_TOO_LARGE"));
        let state = json!({ "topic": "x".repeat(EVENT_BYTES_MAX) });
        let answer = alice.try_set(&room, "m.room.topic", state).await;
        assert_eq!(answer.outcome(), (413, "M_TOO_LARGE"));
    }
}

#[tokio::test]
async fn t22_t23_t24_t25_what_is_no_event_content_is_refused() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.create_room(json!({})).await;
    let nested = |depth: usize| format!("{{\"x\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    let (deep, deeper, deepest) = (nested(65), nested(10_000), nested(500_000));
    for (number, (body, outcome)) in [
        (&br#"{"x":9007199254740992}"#[..], (400, "M_BAD_JSON")),
        (br#"{"x":-9007199254740992}"#, (400, "M_BAD_JSON")),
        (br#"{"x":1.0}"#, (400, "M_BAD_JSON")),
        (br#"{"x":1e2}"#, (400, "M_BAD_JSON")),
        (br#"{"x":[{"y":1.1}]}"#, (400, "M_BAD_JSON")),
        (br#"{"x":-0}"#, (400, "M_BAD_JSON")),
        (br#"{"x":NaN}"#, (400, "M_NOT_JSON")),
        (br#"{"x":Infinity}"#, (400, "M_NOT_JSON")),
        (br#"{"x":1,"x":2}"#, (400, "M_NOT_JSON")),
        (br#"{"x":{"y":1,"\u0079":2}}"#, (400, "M_NOT_JSON")),
        (deep.as_bytes(), (400, "M_NOT_JSON")),
        (deeper.as_bytes(), (400, "M_NOT_JSON")),
        (deepest.as_bytes(), (400, "M_NOT_JSON")),
        (b"{\"x\":\"\xff\"}", (400, "M_NOT_JSON")),
        (br#"{"x":"\ud800"}"#, (400, "M_NOT_JSON")),
        (b"\xef\xbb\xbf{}", (400, "M_NOT_JSON")),
        (b"{\"x\":\"\0\"}", (400, "M_NOT_JSON")),
        (b"[]", (400, "M_BAD_JSON")),
        (b"\"x\"", (400, "M_BAD_JSON")),
        (b"{", (400, "M_NOT_JSON")),
    ]
    .into_iter()
    .enumerate()
    {
        let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        let answer = send_raw(&alice, &room, number, body).await;
        assert_eq!(answer.outcome(), outcome, "message {shown}");
        let path = format!("v3/rooms/{room}/state/org.raw");
        let answer = alice.call(Method::PUT, &path).body(body).send().await;
        assert_eq!(answer.outcome(), outcome, "state {shown}");
    }
    for (number, body) in [
        &br#"{"x":9007199254740991,"y":-9007199254740991}"#[..],
        br#"{"x":"\u0000","a\u0000b":1,"\u00ff":"\uffff"}"#,
        r#"{"x":"ééé🎉"}"#.as_bytes(),
        nested(60).as_bytes(),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = send_raw(&alice, &room, 100 + number, body).await.ok();
        let event = alice.event(&room, &text(&answer["event_id"])).await.ok();
        assert_eq!(event["content"], serde_json::from_slice::<Value>(body).unwrap());
    }
    alice.sync(None).await;
}

#[tokio::test]
async fn t24_depth_is_bounded_wherever_json_is_taken() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let id = alice.id();
    for (method, path) in [
        (Method::POST, format!("v3/user/{id}/filter")),
        (Method::PUT, format!("v3/user/{id}/account_data/org.x")),
        (Method::PUT, "v3/pushrules/global/override/x".to_owned()),
        (Method::POST, "v3/createRoom".to_owned()),
    ] {
        let answer = alice.call(method, &path).body(deep.clone()).send().await;
        assert_eq!(answer.outcome(), (400, "M_NOT_JSON"), "{path}");
    }
}

#[tokio::test]
async fn t26_names_have_255_bytes() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.create_room(json!({})).await;
    for (name, status) in [("x".repeat(255), 200), ("x".repeat(256), 413), ("é".repeat(128), 413)]
    {
        let name = crate::harness::encode(&name);
        for path in [
            format!("v3/rooms/{room}/send/{name}/t{status}{}", name.len()),
            format!("v3/rooms/{room}/state/{name}"),
            format!("v3/rooms/{room}/state/org.x/{name}"),
        ] {
            let answer = alice.put(&path, json!({})).await;
            assert_eq!(answer.status.as_u16(), status, "{path}: {}", answer.body);
            if status != 200 {
                assert_eq!(answer.outcome(), (413, "M_TOO_LARGE"));
            }
        }
    }
    for path in [
        format!("v3/rooms/!{}:example.org/join", "x".repeat(256)),
        format!("v3/rooms/{room}/event/${}", "x".repeat(256)),
    ] {
        let answer = alice.call(Method::POST, &path).json(json!({})).send().await;
        assert!(matches!(answer.outcome().0, 400 | 404 | 405 | 413), "{answer:?}");
    }
}

#[tokio::test]
async fn t36_creators_have_no_place_in_the_power_levels() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let wanted = json!({
        "room_version": "12",
        "creation_content": { "additional_creators": [bob.id()], "room_id": "!x:example.org" },
    });
    let room = alice.create_room(wanted).await;
    for creator in [&alice, &bob] {
        let levels = json!({ "users": { creator.id(): 100 } });
        let answer = alice.try_set(&room, "m.room.power_levels", levels).await;
        assert_eq!(answer.outcome(), (400, "M_BAD_JSON"));
    }
    let levels = json!({ "users": { alice.id(): 100 } });
    let wanted = json!({ "room_version": "12", "power_level_content_override": levels });
    let answer = alice.post("v3/createRoom", wanted).await;
    assert_eq!(answer.outcome(), (400, "M_BAD_JSON"));
    let again = alice.try_set(&room, "m.room.create", json!({ "room_version": "12" })).await;
    assert_eq!(again.outcome(), (403, "M_FORBIDDEN"));
}

#[tokio::test]
async fn t37_power_levels_are_integers_within_ones_own_power() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let carol = server.client("carol").await;
    for version in ["9", "11"] {
        let wanted = json!({ "room_version": version, "preset": "public_chat" });
        let room = alice.create_room(wanted).await;
        bob.join(&room).await;
        carol.join(&room).await;
        let base = alice.state(&room, "m.room.power_levels").await.ok();
        let set = async |user: &Client<'_>, change: &dyn Fn(&mut Value)| {
            let mut levels = base.clone();
            change(&mut levels);
            user.try_set(&room, "m.room.power_levels", levels).await
        };
        for wrong in [json!("50"), json!(50.5), json!(9_007_199_254_740_992_u64), json!({})] {
            let answer = set(&alice, &|levels| levels["ban"] = wrong.clone()).await;
            assert_eq!(answer.outcome(), (400, "M_BAD_JSON"), "{wrong}");
            let answer = set(&alice, &|levels| levels["users"][bob.id()] = wrong.clone()).await;
            assert_eq!(answer.outcome(), (400, "M_BAD_JSON"), "{wrong}");
        }
        let answer = set(&alice, &|levels| levels["users"]["bob"] = json!(1)).await;
        assert_eq!(answer.outcome(), (400, "M_BAD_JSON"));
        let forbidden = (403, "M_FORBIDDEN");
        let answer = set(&alice, &|levels| levels["users"][alice.id()] = json!(101)).await;
        assert_eq!(answer.outcome(), forbidden);
        set(&alice, &|levels| levels["kick"] = json!(-5)).await.ok();
        let both = |levels: &mut Value| {
            levels["users"][bob.id()] = json!(100);
            levels["users"][carol.id()] = json!(50);
        };
        set(&alice, &both).await.ok();
        // An equal is not lowered, and those below lower nobody.
        let lowered = |levels: &mut Value| {
            both(levels);
            levels["users"][alice.id()] = json!(0);
        };
        assert_eq!(set(&bob, &lowered).await.outcome(), forbidden);
        assert_eq!(set(&carol, &|levels| levels["ban"] = json!(0)).await.outcome(), forbidden);
        // All defaults.
        let users = json!({ alice.id(): 100, bob.id(): 100 });
        alice.set(&room, "m.room.power_levels", json!({ "users": users })).await;
        let topic = json!({ "topic": "x" });
        assert_eq!(carol.try_set(&room, "m.room.topic", topic).await.outcome(), forbidden);
        carol.send(&room, "hi").await;
    }
}

#[tokio::test]
async fn t38_without_power_nobody_but_the_creator_sends_state() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    for version in ["10", "12"] {
        let wanted = json!({ "room_version": version, "preset": "public_chat" });
        let room = alice.create_room(wanted).await;
        bob.join(&room).await;
        for (kind, content) in [
            ("m.room.name", json!({ "name": "x" })),
            ("m.room.power_levels", json!({ "users": { bob.id(): 100 } })),
            ("m.room.join_rules", json!({ "join_rule": "invite" })),
            ("org.x", json!({})),
        ] {
            let answer = bob.try_set(&room, kind, content).await;
            assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"), "{kind}");
        }
        let path = format!("v3/rooms/{room}/state/m.room.member/{}", alice.id());
        let answer = bob.put(&path, json!({ "membership": "leave" })).await;
        assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"));
        let path = format!("v3/rooms/{room}/state/org.x/{}", alice.id());
        let answer = bob.put(&path, json!({})).await;
        assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"));
    }
}

#[tokio::test]
async fn t86_a_body_is_read_up_to_its_cap_everywhere() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.create_room(json!({})).await;
    let large = format!("{{\"x\":\"{}\"}}", "x".repeat(3 * 1024 * 1024));
    let id = alice.id();
    for (method, path) in [
        (Method::POST, "v3/createRoom".to_owned()),
        (Method::POST, format!("v3/rooms/{room}/join")),
        (Method::POST, format!("v3/rooms/{room}/invite")),
        (Method::PUT, format!("v3/rooms/{room}/send/m.room.message/1")),
        (Method::PUT, format!("v3/rooms/{room}/state/m.room.topic")),
        (Method::PUT, format!("v3/rooms/{room}/redact/$x/1")),
        (Method::PUT, format!("v3/rooms/{room}/typing/{id}")),
        (Method::POST, format!("v3/rooms/{room}/receipt/m.read/$x")),
        (Method::POST, format!("v3/rooms/{room}/read_markers")),
        (Method::PUT, format!("v3/user/{id}/account_data/x")),
        (Method::PUT, format!("v3/user/{id}/rooms/{room}/tags/x")),
        (Method::POST, format!("v3/user/{id}/filter")),
    ] {
        let answer = alice.call(method, &path).body(large.clone()).send().await;
        assert_eq!(answer.outcome(), (413, "M_TOO_LARGE"), "{path}");
    }
    alice.sync(None).await;
}

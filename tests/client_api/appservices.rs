//! Application services: who they act as, what is reserved for them, what they are asked.

use http::Method;
use serde_json::{Value, json};

use crate::{
    bridge::{AS_TOKEN, Bridge, registration},
    harness::{Answer, PASSWORD, TestServer, encode, text},
};

/// A server with the bridge, whose own users are `@bot` and `@_irc_…`.
async fn bridged() -> (TestServer, Bridge) {
    let bridge = Bridge::start().await;
    let server = TestServer::new().await;
    server.server.appservices.register(&registration(Some(&bridge.url))).await.unwrap();
    (server, bridge)
}

async fn act(server: &TestServer, method: Method, path: &str, body: Value) -> Answer {
    server.call(method, path).token(AS_TOKEN).json(body).send().await
}

async fn register_ghost(server: &TestServer, name: &str) -> Answer {
    let body = json!({
        "type": "m.login.application_service", "username": name, "inhibit_login": true,
    });
    act(server, Method::POST, "v3/register", body).await
}

async fn whoami(server: &TestServer, query: &str) -> Answer {
    server.get(&format!("v3/account/whoami?{query}")).token(AS_TOKEN).send().await
}

#[tokio::test]
async fn t84_it_acts_as_its_own_users_alone() {
    let (server, _bridge) = bridged().await;
    server.register("alice").await;
    // Its own user is there at once, and has no device.
    let body = whoami(&server, "").await.ok();
    assert_eq!(body, json!({ "user_id": "@bot:example.org" }));
    // A user of its namespace must be registered first.
    let ghost = format!("user_id={}", encode("@_irc_bob:example.org"));
    assert_eq!(whoami(&server, &ghost).await.outcome(), (403, "M_FORBIDDEN"));
    register_ghost(&server, "_irc_bob").await.ok();
    assert_eq!(whoami(&server, &ghost).await.ok()["user_id"], "@_irc_bob:example.org");
    for stranger in ["@alice:example.org", "@_irc_bob:elsewhere.org", "@x_irc_bob:example.org"] {
        let query = format!("user_id={}", encode(stranger));
        assert_eq!(whoami(&server, &query).await.outcome(), (403, "M_FORBIDDEN"), "{stranger}");
    }
    assert_eq!(whoami(&server, "user_id=bob").await.outcome(), (400, "M_INVALID_PARAM"));
    // What a user asserts means nothing.
    let carol = server.register("carol").await;
    let call = server.get(&format!("v3/account/whoami?{ghost}")).token(&carol.token);
    assert_eq!(call.send().await.ok()["user_id"], "@carol:example.org");
}

#[tokio::test]
async fn t84_a_device_must_be_of_the_user() {
    let (server, _bridge) = bridged().await;
    register_ghost(&server, "_irc_bob").await.ok();
    register_ghost(&server, "_irc_eve").await.ok();
    let bob = format!("user_id={}", encode("@_irc_bob:example.org"));
    let eve = format!("user_id={}", encode("@_irc_eve:example.org"));
    let made = act(&server, Method::PUT, &format!("v3/devices/D1?{bob}"), json!({})).await;
    assert_eq!(made.status, 201);
    let renamed = json!({ "display_name": "bridge" });
    let again = act(&server, Method::PUT, &format!("v3/devices/D1?{bob}"), renamed).await;
    assert_eq!(again.status, 200);
    for name in ["device_id", "org.matrix.msc3202.device_id"] {
        let body = whoami(&server, &format!("{bob}&{name}=D1")).await.ok();
        assert_eq!(body["device_id"], "D1");
        let other = whoami(&server, &format!("{eve}&{name}=D1")).await;
        assert_eq!(other.outcome(), (400, "M_UNKNOWN_DEVICE"));
    }
    // It is deleted without user-interactive authentication.
    act(&server, Method::DELETE, &format!("v3/devices/D1?{bob}"), json!({})).await.ok();
    let gone = whoami(&server, &format!("{bob}&device_id=D1")).await;
    assert_eq!(gone.outcome(), (400, "M_UNKNOWN_DEVICE"));
    // For users it makes none.
    let alice = server.client("alice").await;
    assert_eq!(alice.put("v3/devices/D2", json!({})).await.outcome(), (404, "M_NOT_FOUND"));
}

#[tokio::test]
async fn t75_names_of_a_namespace_are_reserved() {
    let (server, _bridge) = bridged().await;
    for name in ["_irc_x", "bot"] {
        let body = json!({
            "username": name, "password": PASSWORD, "auth": { "type": "m.login.dummy" },
        });
        let answer = server.post("v3/register", body).send().await;
        assert_eq!(answer.outcome(), (400, "M_EXCLUSIVE"), "{name}");
        let available = server.get(&format!("v3/register/available?username={name}"));
        assert_eq!(available.send().await.outcome(), (400, "M_EXCLUSIVE"), "{name}");
    }
    assert_eq!(register_ghost(&server, "alice").await.outcome(), (400, "M_EXCLUSIVE"));
    register_ghost(&server, "_irc_x").await.ok();
    assert_eq!(register_ghost(&server, "_irc_x").await.outcome(), (400, "M_USER_IN_USE"));
    let body = json!({ "type": "m.login.application_service", "username": "_irc_y" });
    let none = server.post("v3/register", body.clone()).send().await;
    assert_eq!(none.outcome(), (401, "M_MISSING_TOKEN"));
    let alice = server.register("alice").await;
    let user = server.post("v3/register", body).token(&alice.token).send().await;
    assert_eq!(user.outcome(), (401, "M_UNKNOWN_TOKEN"));
}

#[tokio::test]
async fn it_logs_its_users_in() {
    let (server, _bridge) = bridged().await;
    let flows = server.get("v3/login").send().await.ok();
    let types: Vec<_> =
        flows["flows"].as_array().unwrap().iter().map(|f| text(&f["type"])).collect();
    assert!(types.contains(&"m.login.application_service".to_owned()), "{types:?}");
    register_ghost(&server, "_irc_bob").await.ok();
    let login = |user: &str| {
        let body = json!({
            "type": "m.login.application_service",
            "identifier": { "type": "m.id.user", "user": user },
            "device_id": "BRIDGE",
        });
        server.post("v3/login", body)
    };
    let body = login("_irc_bob").token(AS_TOKEN).send().await.ok();
    assert_eq!(body["device_id"], "BRIDGE");
    assert_eq!(server.outcome_of(&text(&body["access_token"])).await.0, 200);
    assert_eq!(login("alice").token(AS_TOKEN).send().await.outcome(), (400, "M_EXCLUSIVE"));
    assert_eq!(login("_irc_eve").token(AS_TOKEN).send().await.outcome(), (403, "M_FORBIDDEN"));
    assert_eq!(login("_irc_bob").send().await.outcome(), (401, "M_MISSING_TOKEN"));
    assert_eq!(login("_irc_bob").token("x").send().await.outcome(), (401, "M_UNKNOWN_TOKEN"));
}

#[tokio::test]
async fn aliases_of_a_namespace_are_reserved_and_asked_for() {
    let (server, bridge) = bridged().await;
    let alice = server.client("alice").await;
    let room = alice.public_room().await;
    let directory =
        |name: &str| format!("v3/directory/room/{}", encode(&format!("#{name}:example.org")));
    let target = json!({ "room_id": room });
    let taken = alice.put(&directory("_irc_x"), target.clone()).await;
    assert_eq!(taken.outcome(), (400, "M_EXCLUSIVE"));
    let named = alice.post("v3/createRoom", json!({ "room_alias_name": "_irc_x" })).await;
    assert_eq!(named.outcome(), (400, "M_EXCLUSIVE"));
    let outside = act(&server, Method::PUT, &directory("free"), target.clone()).await;
    assert_eq!(outside.outcome(), (400, "M_EXCLUSIVE"));
    act(&server, Method::PUT, &directory("_irc_x"), target).await.ok();
    assert_eq!(alice.delete(&directory("_irc_x")).await.outcome(), (400, "M_EXCLUSIVE"));
    act(&server, Method::DELETE, &directory("_irc_x"), json!({})).await.ok();
    // An unknown one is asked for; the bridge knows of none.
    let unknown = server.get(&directory("_irc_y")).send().await;
    assert_eq!(unknown.outcome(), (404, "M_NOT_FOUND"));
    let asked = bridge.asked();
    assert!(asked.contains(&"/_matrix/app/v1/rooms/%23_irc_y:example.org".to_owned()), "{asked:?}");
    // And so is a user.
    let profile = format!("v3/profile/{}", encode("@_irc_new:example.org"));
    assert_eq!(server.get(&profile).send().await.outcome(), (404, "M_NOT_FOUND"));
    let asked = bridge.asked();
    assert!(asked.contains(&"/_matrix/app/v1/users/@_irc_new:example.org".to_owned()), "{asked:?}");
}

#[tokio::test]
async fn it_gives_events_another_time() {
    let (server, _bridge) = bridged().await;
    let alice = server.client("alice").await;
    let room = alice.public_room().await;
    act(&server, Method::POST, &format!("v3/rooms/{room}/join"), json!({})).await.ok();
    let path = format!("v3/rooms/{room}/send/m.room.message/1?ts=1234");
    let content = json!({ "msgtype": "m.text", "body": "old" });
    let sent = act(&server, Method::PUT, &path, content.clone()).await.ok();
    let event = alice.event(&room, &text(&sent["event_id"])).await.ok();
    assert_eq!(event["origin_server_ts"], 1234);
    // A user may not.
    let sent = alice.put(&path, content).await.ok();
    let event = alice.event(&room, &text(&sent["event_id"])).await.ok();
    assert_eq!(event["origin_server_ts"], 1_800_000_000_000_u64);
    let bad = format!("v3/rooms/{room}/send/m.room.message/2?ts=-1");
    assert_eq!(act(&server, Method::PUT, &bad, json!({})).await.status, 400);
}

#[tokio::test]
async fn t84_pings_tell_what_is_wrong() {
    let (server, bridge) = bridged().await;
    let ping = |id: &str| {
        let body = json!({ "transaction_id": "meow" });
        server.post(&format!("v1/appservice/{id}/ping"), body)
    };
    let body = ping("irc").token(AS_TOKEN).send().await.ok();
    assert!(body["duration_ms"].is_u64(), "{body}");
    assert_eq!(bridge.pings(), [json!({ "transaction_id": "meow" })]);
    assert_eq!(ping("other").token(AS_TOKEN).send().await.outcome(), (403, "M_FORBIDDEN"));
    let alice = server.register("alice").await;
    assert_eq!(ping("irc").token(&alice.token).send().await.outcome(), (403, "M_FORBIDDEN"));
    assert_eq!(ping("irc").token("nobody").send().await.outcome(), (401, "M_UNKNOWN_TOKEN"));
    bridge.fail_with(403);
    let refused = ping("irc").token(AS_TOKEN).send().await;
    assert_eq!(refused.outcome(), (502, "M_BAD_STATUS"));
    assert_eq!(refused.body["status"], 403);
    // An answer without end is cut.
    bridge.answer_without_end();
    ping("irc").token(AS_TOKEN).send().await.ok();
    bridge.stop().await;
    assert_eq!(ping("irc").token(AS_TOKEN).send().await.outcome(), (502, "M_CONNECTION_FAILED"));
    server.server.appservices.unregister("irc").await.unwrap();
    assert_eq!(ping("irc").token(AS_TOKEN).send().await.outcome(), (401, "M_UNKNOWN_TOKEN"));
    server.server.appservices.register(&registration(None)).await.unwrap();
    assert_eq!(ping("irc").token(AS_TOKEN).send().await.outcome(), (400, "M_URL_NOT_SET"));
}

#[tokio::test]
async fn networks_behind_bridges_are_looked_up() {
    let (server, bridge) = bridged().await;
    let alice = server.client("alice").await;
    let protocols = alice.get("v3/thirdparty/protocols").await.ok();
    assert_eq!(protocols["irc"]["instances"][0]["instance_id"], "irc|libera");
    let protocol = alice.get("v3/thirdparty/protocol/irc").await.ok();
    assert_eq!(protocol["user_fields"], json!(["nick"]));
    let users = alice.get("v3/thirdparty/user/irc?nick=bob").await.ok();
    assert_eq!(users[0]["userid"], "@_irc_bob:example.org");
    let asked = bridge.asked();
    let expected = "/_matrix/app/v1/thirdparty/user/irc?nick=bob".to_owned();
    assert!(asked.contains(&expected), "{asked:?}");
    let query = format!("v3/thirdparty/location?alias={}", encode("#_irc_x:example.org"));
    assert_eq!(alice.get(&query).await.ok(), json!([]));
    let unknown = alice.get("v3/thirdparty/protocol/xmpp").await;
    assert_eq!(unknown.outcome(), (404, "M_NOT_FOUND"));
    assert_eq!(alice.get("v3/thirdparty/location/xmpp").await.status, 404);
}

#[tokio::test]
async fn rooms_are_listed_under_a_network() {
    let (server, _bridge) = bridged().await;
    let alice = server.client("alice").await;
    let room = alice.public_room().await;
    let path = format!("v3/directory/list/appservice/libera/{room}");
    let visibility = |value: &str| json!({ "visibility": value });
    assert_eq!(alice.put(&path, visibility("public")).await.outcome(), (403, "M_FORBIDDEN"));
    act(&server, Method::PUT, &path, visibility("public")).await.ok();
    let appservices = &server.server.appservices;
    assert_eq!(appservices.rooms_of_network(Some("irc|libera")).await.unwrap().len(), 1);
    assert_eq!(appservices.rooms_of_network(Some("irc|other")).await.unwrap().len(), 0);
    assert_eq!(appservices.rooms_of_network(None).await.unwrap().len(), 1);
    let shown = async |wanted: Value| {
        let page = alice.post("v3/publicRooms", wanted).await.ok();
        let rooms = page["chunk"].as_array().unwrap().iter();
        rooms.map(|room| text(&room["room_id"])).collect::<Vec<_>>()
    };
    let general = json!({ "visibility": "public", "preset": "public_chat" });
    let general = alice.create_room(general).await;
    assert_eq!(shown(json!({})).await, std::slice::from_ref(&general));
    assert_eq!(
        shown(json!({ "third_party_instance_id": "irc|libera" })).await,
        std::slice::from_ref(&room)
    );
    let other = shown(json!({ "third_party_instance_id": "irc|other" })).await;
    assert_eq!(other, Vec::<String>::new());
    let mut all = shown(json!({ "include_all_networks": true })).await;
    let mut both = vec![general, room.clone()];
    all.sort();
    both.sort();
    assert_eq!(all, both);
    act(&server, Method::PUT, &path, visibility("private")).await.ok();
    assert_eq!(appservices.rooms_of_network(None).await.unwrap().len(), 0);
}

#[tokio::test]
async fn its_users_pass_the_rate_limits() {
    let bridge = Bridge::start().await;
    let server = TestServer::with(|config| {
        config.rate_limits.enabled = true;
        config.rate_limits.messages.burst = 2;
        config.rate_limits.messages.per_second = 0.001;
    })
    .await;
    server.server.appservices.register(&registration(Some(&bridge.url))).await.unwrap();
    let room = act(&server, Method::POST, "v3/createRoom", json!({})).await.ok();
    let room = text(&room["room_id"]);
    let content = json!({ "msgtype": "m.text", "body": "x" });
    for number in 0..5 {
        let path = format!("v3/rooms/{room}/send/m.room.message/{number}");
        act(&server, Method::PUT, &path, content.clone()).await.ok();
    }
}

#[tokio::test]
async fn places_and_people_behind_bridges_are_looked_up() {
    let (server, bridge) = bridged().await;
    let alice = server.client("alice").await;
    let rooms = alice.get("v3/thirdparty/location/irc?channel=x").await.ok();
    assert_eq!(rooms[0]["alias"], "#_irc_x:example.org");
    let user_id = encode("@_irc_bob:example.org");
    let users = alice.get(&format!("v3/thirdparty/user?userid={user_id}")).await.ok();
    assert_eq!(users[0]["protocol"], "irc");
    let asked = bridge.asked();
    let expected = format!("/_matrix/app/v1/thirdparty/user?userid={user_id}");
    assert!(asked.contains(&expected), "{asked:?}");
    // What cannot be asked for.
    assert_eq!(alice.get("v3/thirdparty/user/xmpp").await.outcome(), (404, "M_NOT_FOUND"));
    for wrong in ["user?userid=x", "user", "location?alias=x", "location"] {
        assert_eq!(alice.get(&format!("v3/thirdparty/{wrong}")).await.status, 400, "{wrong}");
    }
}

#[tokio::test]
async fn locks_and_suspensions_hold_for_whom_it_acts_as() {
    let (server, _bridge) = bridged().await;
    register_ghost(&server, "_irc_bob").await.ok();
    let admin = server.client("admin").await;
    server.server.users.set_admin(&admin.user.user_id, true).await.unwrap();
    let room = admin.public_room().await;
    let ghost = "@_irc_bob:example.org";
    let bob = format!("user_id={}", encode(ghost));
    let join = format!("v3/rooms/{room}/join?{bob}");
    admin.put(&format!("v1/admin/suspend/{ghost}"), json!({ "suspended": true })).await.ok();
    let answer = act(&server, Method::POST, &join, json!({})).await;
    assert_eq!(answer.outcome(), (403, "M_USER_SUSPENDED"));
    assert_eq!(whoami(&server, &bob).await.status, 200);
    admin.put(&format!("v1/admin/lock/{ghost}"), json!({ "locked": true })).await.ok();
    assert_eq!(whoami(&server, &bob).await.outcome(), (401, "M_USER_LOCKED"));
    // Its other users are not concerned.
    assert_eq!(whoami(&server, "").await.status, 200);
    admin.put(&format!("v1/admin/lock/{ghost}"), json!({ "locked": false })).await.ok();
    admin.put(&format!("v1/admin/suspend/{ghost}"), json!({ "suspended": false })).await.ok();
    act(&server, Method::POST, &join, json!({})).await.ok();
}

#[tokio::test]
async fn without_a_device_it_does_all_that_needs_none() {
    let bridge = Bridge::start().await;
    let server = TestServer::with(|config| config.presence.enabled = true).await;
    server.server.appservices.register(&registration(Some(&bridge.url))).await.unwrap();
    let room = act(&server, Method::POST, "v3/createRoom", json!({})).await.ok();
    let room = text(&room["room_id"]);
    let content = json!({ "msgtype": "m.text", "body": "x" });
    let path = format!("v3/rooms/{room}/send/m.room.message/1");
    let sent = act(&server, Method::PUT, &path, content.clone()).await.ok();
    assert_eq!(act(&server, Method::PUT, &path, content).await.ok(), sent, "sent once");
    let bot = encode("@bot:example.org");
    let presence = json!({ "presence": "online", "status_msg": "bridging" });
    let path = format!("v3/presence/{bot}/status");
    act(&server, Method::PUT, &path, presence).await.ok();
    let filter = json!({ "room": { "timeline": { "limit": 1 } } });
    let filter = act(&server, Method::POST, &format!("v3/user/{bot}/filter"), filter).await.ok();
    let path = format!("v3/sync?filter={}", text(&filter["filter_id"]));
    let synced = act(&server, Method::GET, &path, Value::Null).await.ok();
    let timeline = &synced["rooms"]["join"][&room]["timeline"]["events"];
    assert_eq!(timeline[0]["event_id"], sent["event_id"]);
    let body = crate::sliding::all_rooms(5);
    let slid = act(&server, Method::POST, crate::sliding::PATH, body.clone()).await.ok();
    assert_eq!(slid["rooms"][&room]["timeline"][0]["event_id"], sent["event_id"]);
    let path = format!("{}?pos={}", crate::sliding::PATH, text(&slid["pos"]));
    act(&server, Method::POST, &path, body).await.ok();
    let pusher = json!({
        "kind": "http", "app_id": "a", "pushkey": "k", "app_display_name": "a",
        "device_display_name": "d", "lang": "en",
        "data": { "url": "https://push.example.org/_matrix/push/v1/notify" },
    });
    let answer = act(&server, Method::POST, "v3/pushers/set", pusher).await;
    assert_eq!(answer.outcome(), (400, "M_MISSING_PARAM"));
}

//! Guests.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Client, PASSWORD, TestServer, TestUser};

async fn server() -> TestServer {
    TestServer::with(|config| config.registration.guests = true).await
}

async fn guest(server: &TestServer) -> Client<'_> {
    let body = json!({ "initial_device_display_name": "N", "device_id": "MINE", "password": "x" });
    let body = server.post("v3/register?kind=guest", body).send().await.ok();
    let text = |name: &str| body[name].as_str().unwrap().to_owned();
    assert_ne!(text("device_id"), "MINE");
    let user = TestUser {
        user_id: text("user_id").try_into().unwrap(),
        device_id: text("device_id"),
        token: text("access_token"),
    };
    Client { server, user }
}

async fn room_for_guests(alice: &Client<'_>) -> String {
    let room = alice.public_room().await;
    alice.set(&room, "m.room.guest_access", json!({ "guest_access": "can_join" })).await;
    room
}

#[tokio::test]
async fn t76_guests_do_what_guests_may() {
    let server = server().await;
    let alice = server.client("alice").await;
    let guest = guest(&server).await;
    let whoami = guest.get("v3/account/whoami").await.ok();
    assert_eq!(whoami["is_guest"], json!(true));
    let room = room_for_guests(&alice).await;
    guest.join(&room).await;
    guest.send(&room, "hello").await;
    guest.messages(&room, "dir=b").await.ok();
    guest.sync(None).await;
    guest.get("v3/devices").await.ok();
    let profile = format!("v3/profile/{}", guest.id());
    let name = format!("{profile}/displayname");
    guest.put(&name, json!({ "displayname": "G" })).await.ok();
    let member = |user: &str| format!("v3/rooms/{room}/state/m.room.member/{user}");
    let refused = [
        guest.put(&member("@bob:example.org"), json!({ "membership": "invite" })).await,
        guest.put(&member(alice.id()), json!({ "membership": "leave" })).await,
        guest.put(&member(guest.id()), json!({ "membership": "knock" })).await,
        guest.post("v3/createRoom", json!({})).await,
        guest.act_on(&room, "invite", &alice).await,
        guest.act_on(&room, "kick", &alice).await,
        guest.post("v3/account/deactivate", json!({})).await,
        guest.post("v1/login/get_token", json!({})).await,
        guest.get("v3/account/3pid").await,
        guest.get("v3/pushrules/").await,
        guest.get("v3/pushers").await,
        guest.put(&format!("{profile}/avatar_url"), json!({ "avatar_url": "mxc://a/b" })).await,
        guest.put("v3/directory/room/%23a:example.org", json!({ "room_id": room })).await,
        guest.post(&format!("v3/user/{}/filter", guest.id()), json!({})).await,
        guest.delete("v3/devices/X").await,
    ];
    for answer in refused {
        assert_eq!(answer.outcome(), (403, "M_GUEST_ACCESS_FORBIDDEN"), "{}", answer.body);
    }
    guest.leave(&room).await;
    guest.post("v3/logout", json!({})).await.ok();
}

#[tokio::test]
async fn t76_guests_join_only_where_they_are_let_in() {
    let server = server().await;
    let alice = server.client("alice").await;
    let guest = guest(&server).await;
    let room = alice.public_room().await;
    alice.set(&room, "m.room.guest_access", json!({ "guest_access": "forbidden" })).await;
    let forbidden = (403, "M_GUEST_ACCESS_FORBIDDEN");
    assert_eq!(guest.act(&room, "join").await.outcome(), forbidden);
    let path = format!("v3/join/{room}");
    assert_eq!(guest.post(&path, json!({})).await.outcome(), forbidden);
    let member = format!("v3/rooms/{room}/state/m.room.member/{}", guest.id());
    let joins = guest.put(&member, json!({ "membership": "join" })).await;
    assert_eq!(joins.outcome(), forbidden);
    let off = TestServer::new().await;
    let answer = off.post("v3/register?kind=guest", json!({})).send().await;
    assert_eq!(answer.outcome(), forbidden);
}

#[tokio::test]
async fn guests_leave_when_a_room_wants_them_no_more() {
    let server = server().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let guest = guest(&server).await;
    let room = room_for_guests(&alice).await;
    guest.join(&room).await;
    bob.join(&room).await;
    alice.set(&room, "m.room.guest_access", json!({ "guest_access": "forbidden" })).await;
    let member = |user: &str| format!("v3/rooms/{room}/state/m.room.member/{user}");
    let mut left = false;
    for _ in 0..1_000 {
        let seen = alice.get(&member(guest.id())).await.ok();
        left = seen["membership"] == json!("leave");
        if left {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(left, "the guest is still there");
    assert_eq!(alice.get(&member(bob.id())).await.ok()["membership"], json!("join"));
}

#[tokio::test]
async fn a_guest_becomes_a_user() {
    let server = server().await;
    let alice = server.client("alice").await;
    let guest = guest(&server).await;
    let room = room_for_guests(&alice).await;
    guest.join(&room).await;
    let name = guest.user.user_id.localpart();
    let auth = json!({ "type": "m.login.dummy" });
    let upgrade = |username: &str, token: &str| {
        let body = json!({
            "username": username,
            "password": PASSWORD,
            "guest_access_token": token,
            "auth": auth,
        });
        server.post("v3/register", body).send()
    };
    let other = upgrade("somebody", &guest.user.token).await;
    assert_eq!(other.outcome(), (403, "M_FORBIDDEN"));
    assert_eq!(upgrade("alice", &alice.user.token).await.outcome(), (403, "M_FORBIDDEN"));
    let body = upgrade(name, &guest.user.token).await.ok();
    assert_eq!(body["user_id"], json!(guest.id()));
    guest.post("v3/createRoom", json!({})).await.ok();
    assert_eq!(guest.get("v3/account/whoami").await.ok().get("is_guest"), None);
    server.try_login(name, PASSWORD).await.ok();
    assert_eq!(upgrade(name, &guest.user.token).await.outcome(), (403, "M_FORBIDDEN"));
}

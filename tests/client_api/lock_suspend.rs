//! What administrators do to accounts.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Answer, Client, PASSWORD, TestServer, TestUser};

async fn with_admin(server: &TestServer) -> Client<'_> {
    let admin = server.client("admin").await;
    server.server.users.set_admin(&admin.user.user_id, true).await.unwrap();
    admin
}

async fn set(admin: &Client<'_>, what: &str, user: &str, value: bool) -> Answer {
    let name = if what == "lock" { "locked" } else { "suspended" };
    admin.put(&format!("v1/admin/{what}/{user}"), json!({ name: value })).await
}

#[tokio::test]
async fn t68_a_locked_user_can_log_out_and_nothing_else() {
    let server = TestServer::new().await;
    let admin = with_admin(&server).await;
    let bob = server.client("bob").await;
    let since = bob.now().await;
    let path = format!("v3/sync?timeout=30000&since={since}");
    let poll = bob.get(&path);
    let lock = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        set(&admin, "lock", bob.id(), true).await.ok()
    };
    let (polled, locked) = tokio::join!(poll, lock);
    assert_eq!(locked, json!({ "locked": true }));
    assert_eq!(polled.outcome(), (401, "M_USER_LOCKED"), "the poll ends");
    let answer = bob.get("v3/account/whoami").await;
    assert_eq!(answer.outcome(), (401, "M_USER_LOCKED"));
    assert_eq!(answer.body["soft_logout"], json!(true));
    let answer = server.try_login("bob", PASSWORD).await;
    assert_eq!(answer.outcome(), (401, "M_USER_LOCKED"));
    let status = admin.get(&format!("v1/admin/lock/{}", bob.id())).await.ok();
    assert_eq!(status, json!({ "locked": true }));
    set(&admin, "lock", bob.id(), false).await.ok();
    bob.get("v3/account/whoami").await.ok();
    set(&admin, "lock", bob.id(), true).await.ok();
    bob.post("v3/logout", json!({})).await.ok();
    assert_eq!(bob.get("v3/account/whoami").await.outcome(), (401, "M_UNKNOWN_TOKEN"));
}

#[tokio::test]
async fn t68_a_locked_user_cannot_refresh() {
    let server = TestServer::new().await;
    let admin = with_admin(&server).await;
    let auth = json!({ "type": "m.login.dummy" });
    let body =
        json!({ "username": "bob", "password": PASSWORD, "auth": auth, "refresh_token": true });
    let bob = server.post("v3/register", body).send().await.ok();
    set(&admin, "lock", "@bob:example.org", true).await.ok();
    let body = json!({ "refresh_token": bob["refresh_token"] });
    let answer = server.post("v3/refresh", body.clone()).send().await;
    assert_eq!(answer.outcome(), (401, "M_USER_LOCKED"));
    set(&admin, "lock", "@bob:example.org", false).await.ok();
    server.post("v3/refresh", body).send().await.ok();
}

#[tokio::test]
async fn t68_a_suspended_user_reads_and_leaves() {
    let server = TestServer::new().await;
    let admin = with_admin(&server).await;
    let bob = server.client("bob").await;
    let room = admin.public_room().await;
    let other = admin.public_room().await;
    bob.join(&room).await;
    let mine = bob.send(&room, "mine").await;
    let theirs = admin.send(&room, "theirs").await;
    set(&admin, "suspend", bob.id(), true).await.ok();
    let refused = [
        bob.act(&other, "join").await,
        bob.post(&format!("v3/join/{other}"), json!({})).await,
        bob.act_on(&room, "invite", &admin).await,
        bob.try_send(&room, "m.room.message", json!({ "msgtype": "m.text", "body": "x" })).await,
        bob.try_set(&room, "m.room.topic", json!({ "topic": "x" })).await,
        bob.put(&format!("v3/profile/{}/displayname", bob.id()), json!({ "displayname": "x" }))
            .await,
        bob.delete(&format!("v3/profile/{}/displayname", bob.id())).await,
        bob.post("v3/createRoom", json!({})).await,
        bob.try_redact(&room, &theirs).await,
    ];
    for answer in refused {
        assert_eq!(answer.outcome(), (403, "M_USER_SUSPENDED"));
    }
    bob.sync(None).await;
    bob.messages(&room, "dir=b").await.ok();
    bob.try_redact(&room, &mine).await.ok();
    bob.leave(&room).await;
    server.login("bob").await;
    let status = admin.get(&format!("v1/admin/suspend/{}", bob.id())).await.ok();
    assert_eq!(status, json!({ "suspended": true }));
    set(&admin, "suspend", bob.id(), false).await.ok();
    bob.join(&other).await;
}

#[tokio::test]
async fn t85_only_administrators_moderate() {
    let server = TestServer::new().await;
    let admin = with_admin(&server).await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    for what in ["lock", "suspend"] {
        for user in [bob.id(), alice.id(), "@nobody:example.org", "@x:elsewhere.org"] {
            assert_eq!(set(&alice, what, user, true).await.outcome(), (403, "M_FORBIDDEN"));
            let get = alice.get(&format!("v1/admin/{what}/{user}")).await;
            assert_eq!(get.outcome(), (403, "M_FORBIDDEN"));
        }
        let outcome = |answer: Answer| (answer.status.as_u16(), answer.outcome().1.to_owned());
        let expect = |status: u16, code: &str| (status, code.to_owned());
        assert_eq!(outcome(set(&admin, what, admin.id(), true).await), expect(403, "M_FORBIDDEN"));
        let other = set(&admin, what, "@nobody:example.org", true).await;
        assert_eq!(outcome(other), expect(404, "M_NOT_FOUND"));
        let other = set(&admin, what, "@x:elsewhere.org", true).await;
        assert_eq!(outcome(other), expect(400, "M_INVALID_PARAM"));
    }
    server.server.users.set_admin(&bob.user.user_id, true).await.unwrap();
    assert_eq!(set(&admin, "lock", bob.id(), true).await.outcome(), (403, "M_FORBIDDEN"));
    let unstable = format!("unstable/uk.timedout.msc4323/admin/lock/{}", alice.id());
    assert_eq!(admin.get(&unstable).await.ok(), json!({ "locked": false }));
}

#[tokio::test]
async fn whois_is_for_oneself_and_administrators() {
    let server = TestServer::new().await;
    let admin = with_admin(&server).await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let whois = format!("v3/admin/whois/{}", alice.id());
    let device = alice.user.device_id.as_str();
    let mut address = Value::Null;
    // Where a device was seen is written without waiting for it.
    for _ in 0..1_000 {
        let own = alice.get(&whois).await.ok();
        address = own["devices"][device]["sessions"][0]["connections"][0]["ip"].clone();
        if !address.is_null() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(address, json!("203.0.113.1"));
    assert_eq!(admin.get(&whois).await.ok()["user_id"], json!(alice.id()));
    assert_eq!(bob.get(&whois).await.outcome(), (403, "M_FORBIDDEN"));
    let nobody = admin.get("v3/admin/whois/@nobody:example.org").await;
    assert_eq!(nobody.outcome(), (404, "M_NOT_FOUND"));
    let capabilities = |body: Value| body["capabilities"]["m.account_moderation"].clone();
    let seen = capabilities(admin.get("v3/capabilities").await.ok());
    assert_eq!(seen, json!({ "lock": true, "suspend": true }));
    assert_eq!(capabilities(alice.get("v3/capabilities").await.ok()), Value::Null);
}

#[tokio::test]
async fn a_poll_ends_with_its_access_token() {
    let server = TestServer::with(|config| config.limits.access_token_lifetime_ms = 60_000).await;
    let auth = json!({ "type": "m.login.dummy" });
    let body =
        json!({ "username": "bob", "password": PASSWORD, "auth": auth, "refresh_token": true });
    let body = server.post("v3/register", body).send().await.ok();
    let text = |name: &str| body[name].as_str().unwrap().to_owned();
    let user = TestUser {
        user_id: text("user_id").try_into().unwrap(),
        device_id: text("device_id"),
        token: text("access_token"),
    };
    let bob = Client { server: &server, user };
    let since = bob.now().await;
    server.pass(59);
    let answer = bob.get(&format!("v3/sync?timeout=60000&since={since}")).await;
    assert_eq!(answer.outcome(), (401, "M_UNKNOWN_TOKEN"));
    assert_eq!(answer.body["soft_logout"], json!(true));
}

#[tokio::test]
async fn whom_to_ask_is_published() {
    let server = TestServer::new().await;
    let answer = server.get("/.well-known/matrix/support").send().await;
    assert_eq!(answer.outcome(), (404, "M_NOT_FOUND"));
    let server = TestServer::with(|config| {
        config.support.contacts = vec![causerie::config::SupportContact {
            role: "m.role.admin".to_owned(),
            matrix_id: Some("@admin:example.org".try_into().unwrap()),
            email_address: Some("admin@example.org".to_owned()),
        }];
        config.support.page = Some("https://example.org/help".parse().unwrap());
    })
    .await;
    let contact = json!({
        "role": "m.role.admin",
        "matrix_id": "@admin:example.org",
        "email_address": "admin@example.org",
    });
    let expected = json!({ "contacts": [contact], "support_page": "https://example.org/help" });
    assert_eq!(server.get("/.well-known/matrix/support").send().await.ok(), expected);
}

//! Whose devices clients are told to ask for again, over HTTP.

use serde_json::{Value, json};

use crate::{
    harness::{Client, PASSWORD, TestServer, password_stage, text},
    keys::{DeviceSigner, query, upload},
};

type Lists = (Vec<String>, Vec<String>);

fn lists(told: &Value) -> Lists {
    let names = |field: &str| told[field].as_array().into_iter().flatten().map(text).collect();
    (names("changed"), names("left"))
}

fn told(changed: &[&Client<'_>], left: &[&Client<'_>]) -> Lists {
    let names =
        |clients: &[&Client<'_>]| clients.iter().map(|client| client.id().to_owned()).collect();
    (names(changed), names(left))
}

/// Syncs, and gives what is told of device lists.
async fn news(client: &Client<'_>, since: &mut String) -> Lists {
    let answer = client.sync(Some(since)).await;
    *since = text(&answer["next_batch"]);
    lists(&answer["device_lists"])
}

async fn changes(client: &Client<'_>, from: &str, to: &str) -> Lists {
    lists(&client.get(&format!("v3/keys/changes?from={from}&to={to}")).await.ok())
}

/// Uploads new keys: those of another device that the user logs in on.
async fn log_in_on_another_device(server: &TestServer, of: &Client<'_>) {
    let name = of.id().split([':', '@']).nth(1).unwrap();
    let device = server.device_of(name).await;
    let keys = DeviceSigner::new(&device).device_keys();
    upload(&device, json!({ "device_keys": keys })).await;
}

#[tokio::test]
async fn new_keys_are_told_to_those_who_share_a_room() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let carol = server.client("carol").await;
    let room = alice.public_room().await;
    bob.join(&room).await;
    let first = alice.sync(None).await;
    assert!(first.get("device_lists").is_none());
    let (mut since, mut strangers) = (text(&first["next_batch"]), carol.now().await);
    let mut own = bob.now().await;
    let signer = DeviceSigner::new(&bob);
    upload(&bob, json!({ "device_keys": signer.device_keys() })).await;
    assert_eq!(news(&alice, &mut since).await, told(&[&bob], &[]));
    assert_eq!(news(&bob, &mut own).await, told(&[&bob], &[]));
    assert_eq!(news(&carol, &mut strangers).await, told(&[], &[]));
    let keys = json!({ "device_keys": signer.device_keys(),
        "one_time_keys": signer.one_time_keys(&["a"]) });
    upload(&bob, keys).await;
    assert_eq!(news(&alice, &mut since).await, told(&[], &[]), "the same keys again");
}

#[tokio::test]
async fn who_joins_a_room_of_mine_is_told() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    log_in_on_another_device(&server, &bob).await;
    let mut since = alice.now().await;
    bob.join(&room).await;
    assert_eq!(news(&alice, &mut since).await, told(&[&bob], &[]));
    log_in_on_another_device(&server, &bob).await;
    assert_eq!(news(&alice, &mut since).await, told(&[&bob], &[]));
}

#[tokio::test]
async fn the_members_of_a_room_that_i_join_are_told() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = bob.public_room().await;
    let mut since = alice.now().await;
    alice.join(&room).await;
    assert_eq!(news(&alice, &mut since).await, told(&[&bob], &[]));
    log_in_on_another_device(&server, &bob).await;
    assert_eq!(news(&alice, &mut since).await, told(&[&bob], &[]));
}

#[tokio::test]
async fn who_leaves_the_last_room_of_mine_is_told_and_what_comes_after_is_not() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    for leaves in [&bob, &alice] {
        alice.join(&room).await;
        bob.join(&room).await;
        let mut since = alice.now().await;
        leaves.leave(&room).await;
        assert_eq!(news(&alice, &mut since).await, told(&[], &[&bob]), "{}", leaves.id());
        log_in_on_another_device(&server, &bob).await;
        assert_eq!(news(&alice, &mut since).await, told(&[], &[]), "{}", leaves.id());
        leaves.join(&room).await;
        assert_eq!(news(&alice, &mut since).await, told(&[&bob], &[]), "{}", leaves.id());
    }
}

#[tokio::test]
async fn the_end_of_a_device_is_told_and_that_of_an_account() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    let without = server.device_of("bob").await;
    let device = server.device_of("bob").await;
    let keys = DeviceSigner::new(&device).device_keys();
    upload(&device, json!({ "device_keys": keys })).await;
    let mut since = alice.now().await;
    without.post("v3/logout", json!({})).await.ok();
    assert_eq!(news(&alice, &mut since).await, told(&[], &[]), "it had no keys");
    device.post("v3/logout", json!({})).await.ok();
    assert_eq!(news(&alice, &mut since).await, told(&[&bob], &[]));
    assert_eq!(query(&alice, bob.id()).await["device_keys"], json!({ bob.id(): {} }));
    let challenge = bob.post("v3/account/deactivate", json!({})).await;
    let auth = password_stage("bob", PASSWORD, &text(&challenge.body["session"]));
    bob.post("v3/account/deactivate", json!({ "auth": auth })).await.ok();
    // The rooms are left in the background.
    let answer = alice.sync_with(Some(&since), "timeout=30000").await;
    assert_eq!(lists(&answer["device_lists"]), told(&[], &[&bob]));
}

#[tokio::test]
async fn a_new_name_of_a_device_is_told_to_those_who_see_it() {
    for visible in [true, false] {
        let change = |config: &mut causerie::config::Config| {
            config.encryption.device_names_visible = visible;
        };
        let server = TestServer::with(change).await;
        let (alice, bob) = (server.client("alice").await, server.client("bob").await);
        let room = alice.public_room().await;
        bob.join(&room).await;
        let mut since = alice.now().await;
        let path = format!("v3/devices/{}", bob.user.device_id);
        let rename = async |name: &str| {
            bob.put(&path, json!({ "display_name": name })).await.ok();
        };
        rename("Phone").await;
        assert_eq!(news(&alice, &mut since).await, told(&[], &[]), "it has no keys");
        upload(&bob, json!({ "device_keys": DeviceSigner::new(&bob).device_keys() })).await;
        assert_eq!(news(&alice, &mut since).await, told(&[&bob], &[]));
        rename("Phone").await;
        assert_eq!(news(&alice, &mut since).await, told(&[], &[]), "it has this name");
        rename("Telephone").await;
        let expected = if visible { told(&[&bob], &[]) } else { told(&[], &[]) };
        assert_eq!(news(&alice, &mut since).await, expected);
    }
}

#[tokio::test]
async fn who_was_away_asks_for_changes() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let (carol, dora) = (server.client("carol").await, server.client("dora").await);
    let room = alice.public_room().await;
    for member in [&bob, &carol] {
        member.join(&room).await;
    }
    let from = alice.now().await;
    let none = alice.get(&format!("v3/keys/changes?from={from}&to={from}")).await.ok();
    assert_eq!(none, json!({ "changed": [], "left": [] }));
    log_in_on_another_device(&server, &bob).await;
    log_in_on_another_device(&server, &dora).await;
    carol.leave(&room).await;
    let to = alice.now().await;
    assert_eq!(changes(&alice, &from, &to).await, told(&[&bob], &[&carol]));
    assert_eq!(changes(&alice, &to, &to).await, told(&[], &[]));
    assert_eq!(changes(&alice, &to, &from).await, told(&[], &[]));
    let lost = "sfeed_1";
    assert_eq!(changes(&alice, lost, &to).await, told(&[&bob], &[]), "of another epoch");
    for query in [format!("from={from}"), format!("to={to}"), String::new()] {
        assert_eq!(alice.get(&format!("v3/keys/changes?{query}")).await.status, 400, "{query}");
    }
    for (from, to) in [("x", &*to), (&*from, "x"), ("", &to), ("s1_1_1_1", &to)] {
        let answer = alice.get(&format!("v3/keys/changes?from={from}&to={to}")).await;
        assert_eq!(answer.outcome(), (400, "M_INVALID_PARAM"), "{from} {to}");
    }
    let path = format!("v3/keys/changes?from={from}&to={to}");
    assert_eq!(server.get(&path).send().await.outcome(), (401, "M_MISSING_TOKEN"));
}

#[tokio::test]
async fn whole_rooms_are_looked_through_so_often() {
    let server = TestServer::with(|config| {
        config.rate_limits.enabled = true;
        config.rate_limits.registration.burst = 9;
    })
    .await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    let now = alice.now().await;
    log_in_on_another_device(&server, &bob).await;
    let epoch = now.split_once('_').unwrap().0;
    let ask = async |from: &str| {
        let answer = alice.get(&format!("v3/keys/changes?from={from}&to={now}")).await;
        answer.status.as_u16()
    };
    // Of another epoch, and by a client that claims to know of nothing yet.
    let old = ["sfeed_1".to_owned(), format!("{epoch}_0")];
    let mut asked = 0;
    while ask(&old[asked % 2]).await == 200 {
        asked += 1;
        assert!(asked < 1_000, "it is not limited");
    }
    assert!(asked >= 20);
    let refused = alice.get(&format!("v3/keys/changes?from=sfeed_1&to={now}")).await;
    assert_eq!(refused.outcome(), (429, "M_LIMIT_EXCEEDED"));
    // What a client asks that was away for a while is not.
    for _ in 0..50 {
        assert_eq!(changes(&alice, &now, &now).await, told(&[], &[]));
        assert_eq!(ask(&now).await, 200);
    }
    let of_bob = bob.get(&format!("v3/keys/changes?from=sfeed_1&to={now}")).await;
    assert_eq!(of_bob.status, 200);
}

#[tokio::test]
async fn a_token_from_before_a_restart_is_as_good() {
    let server = TestServer::new().await;
    let from = {
        let (alice, bob) = (server.client("alice").await, server.client("bob").await);
        let room = alice.public_room().await;
        bob.join(&room).await;
        let from = alice.now().await;
        log_in_on_another_device(&server, &bob).await;
        from
    };
    let server = server.restart().await;
    let (alice, bob) = (server.device_of("alice").await, server.device_of("bob").await);
    assert_eq!(news(&alice, &mut from.clone()).await, told(&[&bob], &[]));
    let to = alice.now().await;
    assert_eq!(changes(&alice, &from, &to).await, told(&[&bob], &[]));
    assert_eq!(changes(&alice, &to, &to).await, told(&[], &[]));
}

//! What each kind of action is charged for.

use std::time::Duration;

use causerie::config::{Config, RateLimit, RateLimitsConfig};
use serde_json::{Value, json};

use crate::{
    harness::{Answer, TestServer, TestUser},
    keys::{DeviceSigner, claim, upload},
};

const LIMITED: (u16, &str) = (429, "M_LIMIT_EXCEEDED");

/// A server with one limit: so often at once.
async fn limited(limit: fn(&mut RateLimitsConfig) -> &mut RateLimit, burst: u32) -> TestServer {
    TestServer::with(|config: &mut Config| {
        let limits = &mut config.rate_limits;
        limits.enabled = true;
        for limit in [
            &mut limits.messages,
            &mut limits.registration,
            &mut limits.joins,
            &mut limits.joins_per_room,
            &mut limits.invites_per_room,
            &mut limits.invites_per_user,
            &mut limits.invites_per_issuer,
            &mut limits.room_creation,
        ] {
            *limit = RateLimit { per_second: 1_000.0, burst: 1_000 };
        }
        *limit(limits) = RateLimit { per_second: 0.001, burst };
    })
    .await
}

async fn act(server: &TestServer, user: &TestUser, room: &str, what: &str, body: Value) -> Answer {
    server.post(&format!("v3/rooms/{room}/{what}"), body).token(&user.token).send().await
}

/// Somebody who is not there.
fn nobody(number: usize) -> TestUser {
    TestUser {
        user_id: format!("@nobody{number}:example.org").try_into().unwrap(),
        device_id: "D".to_owned(),
        token: String::new(),
    }
}

async fn put_member(
    server: &TestServer,
    user: &TestUser,
    (room, target): (&str, &TestUser),
    membership: &str,
) -> Answer {
    let path = format!("v3/rooms/{room}/state/m.room.member/{}", target.user_id);
    server.put(&path, json!({ "membership": membership })).token(&user.token).send().await
}

#[tokio::test]
async fn who_is_not_in_a_room_does_not_use_up_its_invites() {
    let server = limited(|limits| &mut limits.invites_per_room, 1).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = server.create_room(&alice).await;
    let invite = |user: &str| json!({ "user_id": user });
    for _ in 0..3 {
        let answer = act(&server, &bob, &room, "invite", invite("@carol:example.org")).await;
        assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"));
    }
    let carol = server.register("carol").await;
    act(&server, &alice, &room, "invite", invite("@bob:example.org")).await.ok();
    let answer = act(&server, &alice, &room, "invite", invite("@carol:example.org")).await;
    assert_eq!(answer.outcome(), LIMITED);
    assert_eq!(put_member(&server, &alice, (&room, &carol), "invite").await.outcome(), LIMITED);
}

#[tokio::test]
async fn t98_invites_that_are_refused_use_up_nobodys() {
    let limits: [fn(&mut RateLimitsConfig) -> &mut RateLimit; 2] =
        [|limits| &mut limits.invites_per_room, |limits| &mut limits.invites_per_user];
    for limit in limits {
        let server = limited(limit, 1).await;
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let victim = server.register("victim").await;
        let body = json!({
            "preset": "public_chat",
            "power_level_content_override": { "invite": 50 },
        });
        let room = server.post("v3/createRoom", body).token(&alice.token).send().await.ok();
        let room = room["room_id"].as_str().unwrap();
        act(&server, &bob, room, "join", json!({})).await.ok();
        let invite = json!({ "user_id": victim.user_id });
        for _ in 0..3 {
            let refused = [
                act(&server, &bob, room, "invite", invite.clone()).await,
                put_member(&server, &bob, (room, &victim), "invite").await,
            ];
            for answer in refused {
                assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"), "{}", answer.body);
            }
            let body = json!({ "preset": "none", "invite": [victim.user_id] });
            let answer = server.post("v3/createRoom", body).token(&bob.token).send().await;
            assert_eq!(answer.outcome().0, 400, "{}", answer.body);
        }
        act(&server, &alice, room, "invite", invite).await.ok();
    }
}

#[tokio::test]
async fn who_may_not_join_does_not_use_up_the_joins_of_a_room() {
    let server = limited(|limits| &mut limits.joins_per_room, 2).await;
    let alice = server.register("alice").await;
    let (bob, carol) = (server.register("bob").await, server.register("carol").await);
    let room = server.create_room(&alice).await;
    for _ in 0..3 {
        let answer = act(&server, &bob, &room, "join", json!({})).await;
        assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"));
        let answer = put_member(&server, &bob, (&room, &bob), "join").await;
        assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"));
    }
    for user in [&bob, &carol] {
        put_member(&server, &alice, (&room, user), "invite").await.ok();
    }
    act(&server, &bob, &room, "join", json!({})).await.ok();
    put_member(&server, &carol, (&room, &carol), "join").await.ok();
    act(&server, &bob, &room, "leave", json!({})).await.ok();
    put_member(&server, &alice, (&room, &bob), "invite").await.ok();
    assert_eq!(act(&server, &bob, &room, "join", json!({})).await.outcome(), LIMITED);
    assert_eq!(put_member(&server, &bob, (&room, &bob), "join").await.outcome(), LIMITED);
}

#[tokio::test]
async fn changes_of_members_count_as_messages() {
    let server = limited(|limits| &mut limits.messages, 2).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = server.create_room(&alice).await;
    let who = json!({ "user_id": bob.user_id });
    act(&server, &alice, &room, "ban", who.clone()).await.ok();
    act(&server, &alice, &room, "unban", who.clone()).await.ok();
    for what in ["kick", "ban", "unban", "leave"] {
        assert_eq!(act(&server, &alice, &room, what, who.clone()).await.outcome(), LIMITED);
    }
}

#[tokio::test]
async fn a_new_name_counts_as_a_message() {
    let server = limited(|limits| &mut limits.messages, 1).await;
    let alice = server.register("alice").await;
    let path = format!("v3/profile/{}/displayname", alice.user_id);
    let name = |name: &str| server.put(&path, json!({ "displayname": name })).token(&alice.token);
    name("a").send().await.ok();
    assert_eq!(name("b").send().await.outcome(), LIMITED);
    assert_eq!(server.delete(&path).token(&alice.token).send().await.outcome(), LIMITED);
}

#[tokio::test]
async fn searches_for_users_have_a_limit_of_their_own() {
    let server = limited(|limits| &mut limits.user_searches, 2).await;
    let alice = server.register("alice").await;
    let search = || {
        let body = json!({ "search_term": "alice" });
        server.post("v3/user_directory/search", body).token(&alice.token).send()
    };
    search().await.ok();
    search().await.ok();
    assert_eq!(search().await.outcome(), LIMITED);
}

/// Sends a message to all devices of each of these users.
async fn tell(
    server: &TestServer,
    from: &TestUser,
    (kind, id): (&str, &str),
    to: &[&TestUser],
) -> Answer {
    let messages = to.iter().map(|user| (user.user_id.to_string(), json!({ "*": {} })));
    let body = json!({ "messages": messages.collect::<serde_json::Map<_, _>>() });
    server.put(&format!("v3/sendToDevice/{kind}/{id}"), body).token(&from.token).send().await
}

#[tokio::test]
async fn messages_to_devices_count_by_the_device() {
    let server = limited(|limits| &mut limits.to_device_messages, 6).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let carol = server.register("carol").await;
    for _ in 0..3 {
        server.login("bob").await;
    }
    let send = async |id: &str, to: &[&TestUser]| tell(&server, &alice, ("m.x", id), to).await;
    send("1", &[&bob]).await.ok();
    // The same again is answered from the first, and a refusal costs nothing.
    for _ in 0..3 {
        send("1", &[&bob]).await.ok();
        let refused = send("2", &[&bob]).await;
        assert_eq!(refused.outcome(), LIMITED);
        assert!(refused.body["retry_after_ms"].as_u64() > Some(0), "{}", refused.body);
        assert!(refused.headers.contains_key("retry-after"));
    }
    send("3", &[&alice, &carol]).await.ok();
    // Whoever has no device counts too: he has to be looked for.
    assert_eq!(send("4", &[&nobody(0)]).await.outcome(), LIMITED);
    send("1", &[&bob]).await.ok();
    tell(&server, &carol, ("m.x", "1"), &[&bob]).await.ok();
    let told = server.get("v3/sync").token(&bob.token).send().await.ok();
    assert_eq!(
        told["to_device"]["events"].as_array().unwrap().len(),
        2,
        "what was refused was not sent"
    );
}

#[tokio::test]
async fn a_request_to_more_devices_than_all_may_get_passes_at_first() {
    let server = limited(|limits| &mut limits.to_device_messages, 2).await;
    let alice = server.register("alice").await;
    let others: Vec<_> = (0..5).map(nobody).collect();
    let others: Vec<_> = others.iter().collect();
    tell(&server, &alice, ("m.x", "1"), &others).await.ok();
    assert_eq!(tell(&server, &alice, ("m.x", "2"), &others[..1]).await.outcome(), LIMITED);
}

#[tokio::test]
async fn a_room_of_five_hundred_devices_is_never_slowed() {
    let server = TestServer::with(|config: &mut Config| config.rate_limits.enabled = true).await;
    let alice = server.register("alice").await;
    let members: Vec<_> = (0..500).map(nobody).collect();
    // The keys of twenty such rooms, as clients send them: so many devices with each request.
    for room in 0..20 {
        for (part, members) in members.chunks(20).enumerate() {
            let members: Vec<_> = members.iter().collect();
            let id = format!("{room}-{part}");
            tell(&server, &alice, ("m.room.encrypted", &id), &members).await.ok();
        }
    }
}

#[tokio::test]
async fn t65_keys_are_asked_for_so_often_but_of_own_devices_always() {
    let server = limited(|limits| &mut limits.key_requests, 3).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let ask =
        async |id: &str, kind: &str, to: &[&TestUser]| tell(&server, &alice, (kind, id), to).await;
    for number in 0..10 {
        ask(&number.to_string(), "m.room_key_request", &[&alice]).await.ok();
        ask(&number.to_string(), "m.secret.request", &[&alice]).await.ok();
        ask(&number.to_string(), "m.room.encrypted", &[&bob]).await.ok();
    }
    ask("a", "m.room_key_request", &[&alice, &bob]).await.ok();
    ask("a", "m.secret.request", &[&bob]).await.ok();
    ask("b", "m.room_key_request", &[&bob]).await.ok();
    for kind in ["m.room_key_request", "m.secret.request"] {
        assert_eq!(ask("c", kind, &[&bob]).await.outcome(), LIMITED);
    }
    ask("b", "m.room_key_request", &[&bob]).await.ok();
    ask("c", "m.room_key_request", &[&alice]).await.ok();
}

#[tokio::test]
async fn what_is_refused_costs_no_requests_for_keys() {
    let server = TestServer::with(|config: &mut Config| {
        config.rate_limits.enabled = true;
        config.rate_limits.key_requests = RateLimit { per_second: 0.001, burst: 2 };
        config.rate_limits.to_device_messages = RateLimit { per_second: 2.0, burst: 1 };
    })
    .await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let ask = async |id: &str, kind: &str| tell(&server, &alice, (kind, id), &[&bob]).await;
    ask("a", "m.room.encrypted").await.ok();
    // Tries that are refused for the messages: were they charged for, no later one could pass.
    for _ in 0..5 {
        assert_eq!(ask("b", "m.room_key_request").await.outcome(), LIMITED);
    }
    for _ in 0..500 {
        if ask("b", "m.room_key_request").await.outcome() != LIMITED {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("refused without end");
}

#[tokio::test]
async fn keys_are_claimed_so_often() {
    let server = limited(|limits| &mut limits.key_claims, 2).await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    claim(&alice, &bob).await;
    claim(&alice, &bob).await;
    let body = json!({ "one_time_keys": { bob.user.user_id.as_str(): {
        bob.user.device_id.as_str(): "signed_curve25519"
    } } });
    assert_eq!(alice.post("v3/keys/claim", body.clone()).await.outcome(), LIMITED);
    bob.post("v3/keys/claim", body).await.ok();
}

#[tokio::test]
async fn changes_of_devices_that_others_are_told_are_limited() {
    let server = limited(|limits| &mut limits.device_list_changes, 3).await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let signer = DeviceSigner::new(&alice);
    let keys = json!({ "device_keys": signer.device_keys() });
    let path = format!("v3/devices/{}", alice.user.device_id);
    alice.post("v3/keys/upload", keys.clone()).await.ok();
    alice.put(&path, json!({ "display_name": "Phone" })).await.ok();
    alice.post("v3/keys/signatures/upload", json!({})).await.ok();
    for answer in [
        alice.post("v3/keys/upload", keys).await,
        alice.put(&path, json!({ "display_name": "Telephone" })).await,
        alice.post("v3/keys/signatures/upload", json!({})).await,
        alice.post("v3/keys/device_signing/upload", json!({})).await,
    ] {
        assert_eq!(answer.outcome(), LIMITED);
    }
    // What nobody else is told is free, and so is another user.
    for id in ["a", "b", "c", "d"] {
        upload(&alice, json!({ "one_time_keys": signer.one_time_keys(&[id]) })).await;
    }
    upload(&bob, json!({ "device_keys": DeviceSigner::new(&bob).device_keys() })).await;
}

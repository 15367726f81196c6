//! What must not come of cross-signing: keys in the place of others without a proof, names that stand
//! for two things, signatures that outlive their keys or tell whom somebody knows.

use causerie::storage::schema::encryption::{OWN_SIGNATURE_CHANGES, SIGNATURES};
use futures::future::join_all;
use kv::Direction;
use serde_json::{Value, json};

use super::{
    cross_signing::{Key, Keys, SIGNATURES as SIGNATURES_PATH, SIGNING, person},
    keys::{DeviceSigner, query, upload},
};
use crate::{
    bridge::{AS_TOKEN, registration},
    harness::{Client, PASSWORD, TestServer, login_body, password_stage, text},
};

/// Signs the master key of somebody else.
async fn verify(signer: &Client<'_>, keys: &Keys, other: &Client<'_>, of_other: &Keys) {
    let master = keys.user_signing.sign(of_other.master.bare("master"));
    let body = json!({ other.id(): { &of_other.master.public: master } });
    assert_eq!(signer.post(SIGNATURES_PATH, body).await.ok(), json!({ "failures": {} }));
}

/// Puts keys in the place of those that are there.
async fn replace(client: &Client<'_>, name: &str, mut body: Value) {
    let answer = client.post(SIGNING, body.clone()).await;
    body["auth"] = password_stage(name, PASSWORD, &text(&answer.body["session"]));
    client.post(SIGNING, body).await.ok();
}

/// The key ids of what `signer` signed of `user`, as it is stored.
fn stored(server: &TestServer, user: &Client<'_>, signer: &Client<'_>) -> Vec<String> {
    let range = SIGNATURES.prefix(&(user.id().to_owned(), signer.id().to_owned()));
    let reader = server.server.store.reader();
    let rows = reader.scan(&SIGNATURES, &range, Direction::Forward, 100).unwrap();
    rows.into_iter().map(|(key, _)| key.key_id).collect()
}

#[tokio::test]
async fn t80_a_wrong_proof_and_one_of_other_keys_do_not_count() {
    let server = TestServer::new().await;
    let (alice, _, old) = person(&server, "alice").await;
    let new = Keys::new(alice.id());
    let mut body = new.body();
    let session = text(&alice.post(SIGNING, body.clone()).await.body["session"]);
    body["auth"] = password_stage("alice", "wrong", &session);
    assert_eq!(alice.post(SIGNING, body.clone()).await.outcome(), (401, "M_FORBIDDEN"));
    let mut other = Keys::new(alice.id()).body();
    other["auth"] = password_stage("alice", PASSWORD, &session);
    assert_ne!(alice.post(SIGNING, other).await.status, 200, "the session is for other keys");
    let seen = query(&alice, alice.id()).await;
    assert_eq!(seen["master_keys"][alice.id()], old.master.bare("master"));
    // Clients that still know the password send it at once.
    let mut auth = password_stage("alice", PASSWORD, "");
    auth["session"] = Value::Null;
    body["auth"] = auth;
    alice.post(SIGNING, body).await.ok();
    let seen = query(&alice, alice.id()).await;
    assert_eq!(seen["master_keys"][alice.id()], new.master.bare("master"));
}

#[tokio::test]
async fn t80_of_two_first_uploads_one_needs_a_proof() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let all: Vec<_> = (0..8).map(|_| Keys::new(alice.id())).collect();
    let answers = join_all(all.iter().map(|keys| alice.post(SIGNING, keys.body()))).await;
    let won: Vec<_> = answers.iter().map(|answer| answer.status == 200).collect();
    assert_eq!(won.iter().filter(|won| **won).count(), 1, "{won:?}");
    assert!(answers.iter().all(|answer| answer.status == 200 || answer.status == 401));
    let winner = &all[won.iter().position(|won| *won).unwrap()];
    let seen = query(&alice, alice.id()).await;
    for (kind, usage) in [("master_keys", "master"), ("self_signing_keys", "self_signing")] {
        assert_eq!(seen[kind][alice.id()], winner.body()[format!("{usage}_key")]);
    }
}

#[tokio::test]
async fn a_key_has_one_name_and_no_device_has_it() {
    let server = TestServer::new().await;
    let (alice, _, keys) = person(&server, "alice").await;
    let bob = server.client("bob").await;
    let key = Key::new(bob.id());
    let mut padded = key.bare("master");
    let name = format!("{}=", key.public);
    padded["keys"] = json!({ format!("ed25519:{name}"): name });
    let answer = bob.post(SIGNING, json!({ "master_key": padded })).await;
    assert_eq!(answer.outcome(), (400, "M_INVALID_PARAM"));
    for key in [&keys.master, &keys.self_signing, &keys.user_signing] {
        let mut login = login_body("alice", PASSWORD);
        login["device_id"] = json!(key.public);
        let answer = server.post("v3/login", login).send().await;
        assert_eq!(answer.outcome(), (400, "M_INVALID_PARAM"));
    }
    // Of somebody else, the name says nothing.
    let mut login = login_body("bob", PASSWORD);
    login["device_id"] = json!(keys.master.public);
    server.post("v3/login", login).send().await.ok();
    assert_eq!(alice.get("v3/devices").await.ok()["devices"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_others_say_of_a_key_is_not_shown_for_its_owner_s_word() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let (keys, of_bob) = (Keys::new(alice.id()), Key::new(bob.id()));
    let mut body = keys.body();
    body["master_key"] = of_bob.sign(body["master_key"].clone());
    body["self_signing_key"] = of_bob.sign(body["self_signing_key"].clone());
    alice.post(SIGNING, body).await.ok();
    let seen = query(&bob, alice.id()).await;
    let signers = |kind: &str| {
        let signatures = seen[kind][alice.id()]["signatures"].as_object().unwrap();
        signatures.keys().cloned().collect::<Vec<_>>()
    };
    assert!(signers("master_keys").is_empty());
    assert_eq!(signers("self_signing_keys"), [alice.id()]);
}

#[tokio::test]
async fn whom_one_verified_only_the_own_devices_are_told() {
    let server = TestServer::new().await;
    let (alice, _, keys) = person(&server, "alice").await;
    let (bob, _, of_bob) = person(&server, "bob").await;
    let (carol, laptop) = (server.client("carol").await, server.device_of("alice").await);
    let room = alice.public_room().await;
    carol.join(&room).await;
    bob.join(&room).await;
    let [own, bobs, carols] = [laptop.now().await, bob.now().await, carol.now().await];
    verify(&alice, &keys, &bob, &of_bob).await;
    let told = |answer: Value| answer["device_lists"]["changed"].clone();
    let answer = laptop.sync(Some(&own)).await;
    let next = text(&answer["next_batch"]);
    assert_eq!(told(answer), json!([bob.id()]));
    for (client, since) in [(&bob, bobs), (&carol, carols), (&laptop, next)] {
        let changed = told(client.sync(Some(&since)).await);
        assert!(changed.as_array().is_none_or(Vec::is_empty), "{}: {changed}", client.id());
    }
    let own = laptop.now().await;
    verify(&alice, &keys, &bob, &of_bob).await;
    let changed = told(laptop.sync(Some(&own)).await);
    assert!(changed.as_array().is_none_or(Vec::is_empty), "the same again: {changed}");
}

#[tokio::test]
async fn signatures_go_with_the_keys_they_are_by_and_on() {
    let server = TestServer::new().await;
    let (alice, device, keys) = person(&server, "alice").await;
    let (bob, _, of_bob) = person(&server, "bob").await;
    verify(&alice, &keys, &bob, &of_bob).await;
    assert_eq!(stored(&server, &bob, &alice).len(), 1);
    // Another user-signing key: what it signs takes the place of what the old one signed.
    let mut new = Keys { master: keys.master, ..Keys::new(alice.id()) };
    new.self_signing = keys.self_signing;
    let body =
        json!({ "user_signing_key": new.master.sign(new.user_signing.bare("user_signing")) });
    replace(&alice, "alice", body).await;
    verify(&alice, &new, &bob, &of_bob).await;
    assert_eq!(stored(&server, &bob, &alice), [format!("ed25519:{}", new.user_signing.public)]);
    // A device that signed the master key goes, and so does what it signed.
    let laptop = server.device_of("alice").await;
    let of_laptop = DeviceSigner::new(&laptop);
    upload(&laptop, json!({ "device_keys": of_laptop.device_keys() })).await;
    for signer in [&device, &of_laptop] {
        let signed = signer.sign(new.master.bare("master"));
        let body = json!({ alice.id(): { &new.master.public: signed } });
        assert_eq!(alice.post(SIGNATURES_PATH, body).await.ok(), json!({ "failures": {} }));
    }
    assert_eq!(stored(&server, &alice, &alice).len(), 2);
    laptop.post("v3/logout", json!({})).await.ok();
    let left = [format!("ed25519:{}", alice.user.device_id)];
    assert_eq!(stored(&server, &alice, &alice), left);
    // A new master key is signed by nobody.
    verify(&bob, &of_bob, &alice, &new).await;
    replace(&alice, "alice", Keys::new(alice.id()).body()).await;
    assert!(stored(&server, &alice, &alice).is_empty());
    assert!(stored(&server, &alice, &bob).is_empty());
}

#[tokio::test]
async fn what_one_signed_goes_with_the_account() {
    let server = TestServer::new().await;
    let (alice, _, keys) = person(&server, "alice").await;
    let (bob, _, of_bob) = person(&server, "bob").await;
    verify(&alice, &keys, &bob, &of_bob).await;
    verify(&bob, &of_bob, &alice, &keys).await;
    let answer = alice.post("v3/account/deactivate", json!({})).await;
    let auth = password_stage("alice", PASSWORD, &text(&answer.body["session"]));
    alice.post("v3/account/deactivate", json!({ "auth": auth })).await.ok();
    assert!(stored(&server, &bob, &alice).is_empty());
    assert!(stored(&server, &alice, &bob).is_empty());
    let reader = server.server.store.reader();
    let range = OWN_SIGNATURE_CHANGES.prefix(&alice.id().to_owned());
    let rows = reader.scan(&OWN_SIGNATURE_CHANGES, &range, Direction::Forward, 1).unwrap();
    assert!(rows.is_empty());
}

#[tokio::test]
async fn an_application_service_replaces_keys_without_a_proof() {
    let server = TestServer::new().await;
    server.server.appservices.register(&registration(None)).await.unwrap();
    for number in 0..2 {
        let keys = Keys::new("@bot:example.org");
        let call = server.post(SIGNING, keys.body()).token(AS_TOKEN);
        assert_eq!(call.send().await.ok(), json!({}), "{number}");
        let wanted = json!({ "device_keys": { "@bot:example.org": [] } });
        let seen = server.post("v3/keys/query", wanted).token(AS_TOKEN).send().await.ok();
        let master = &seen["master_keys"]["@bot:example.org"];
        assert_eq!(*master, keys.master.bare("master"));
    }
}

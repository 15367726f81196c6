//! Cross-signing keys and signatures: who may upload them, and who sees them.

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use ruma::{CanonicalJsonObject, signatures::Ed25519KeyPair};
use serde_json::{Value, json};

use super::keys::{DeviceSigner, query, upload};
use crate::harness::{Answer, Client, PASSWORD, TestServer, password_stage, text};

pub(crate) const SIGNING: &str = "v3/keys/device_signing/upload";
pub(crate) const SIGNATURES: &str = "v3/keys/signatures/upload";

/// A cross-signing key, as a client makes it.
pub(crate) struct Key {
    user_id: String,
    pub(crate) public: String,
    pair: Ed25519KeyPair,
}

impl Key {
    pub(crate) fn new(user_id: &str) -> Self {
        let der = Ed25519KeyPair::generate();
        let public = STANDARD_NO_PAD
            .encode(Ed25519KeyPair::from_der(&der, "1".into()).unwrap().public_key());
        let pair = Ed25519KeyPair::from_der(&der, public.clone()).unwrap();
        Self { user_id: user_id.to_owned(), public, pair }
    }

    /// The key itself, without signatures.
    pub(crate) fn bare(&self, usage: &str) -> Value {
        json!({
            "user_id": self.user_id,
            "usage": [usage],
            "keys": { format!("ed25519:{}", self.public): self.public },
        })
    }

    /// An object with this key's signature.
    pub(crate) fn sign(&self, object: Value) -> Value {
        let mut object: CanonicalJsonObject = serde_json::from_value(object).unwrap();
        ruma::signatures::sign_json(&self.user_id, &self.pair, &mut object).unwrap();
        serde_json::to_value(object).unwrap()
    }
}

/// All keys of a user.
pub(crate) struct Keys {
    pub(crate) master: Key,
    pub(crate) self_signing: Key,
    pub(crate) user_signing: Key,
}

impl Keys {
    pub(crate) fn new(user_id: &str) -> Self {
        let [master, self_signing, user_signing] = [(); 3].map(|()| Key::new(user_id));
        Self { master, self_signing, user_signing }
    }

    /// What is uploaded.
    pub(crate) fn body(&self) -> Value {
        json!({
            "master_key": self.master.bare("master"),
            "self_signing_key": self.master.sign(self.self_signing.bare("self_signing")),
            "user_signing_key": self.master.sign(self.user_signing.bare("user_signing")),
        })
    }
}

async fn try_upload(client: &Client<'_>, body: Value) -> Answer {
    client.post(SIGNING, body).await
}

/// A user with a device that has keys, and with cross-signing keys.
pub(crate) async fn person<'a>(
    server: &'a TestServer,
    name: &str,
) -> (Client<'a>, DeviceSigner, Keys) {
    let client = server.client(name).await;
    let signer = DeviceSigner::new(&client);
    upload(&client, json!({ "device_keys": signer.device_keys() })).await;
    let keys = Keys::new(client.id());
    try_upload(&client, keys.body()).await.ok();
    (client, signer, keys)
}

fn of(answer: &Value, kind: &str, client: &Client<'_>) -> Value {
    answer[kind][client.id()].clone()
}

#[tokio::test]
async fn the_first_keys_and_the_same_again_need_no_password() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let keys = Keys::new(alice.id());
    assert_eq!(try_upload(&alice, keys.body()).await.ok(), json!({}));
    assert_eq!(try_upload(&alice, keys.body()).await.ok(), json!({}));
    let part = json!({ "master_key": keys.master.bare("master") });
    assert_eq!(try_upload(&alice, part).await.ok(), json!({}));
    let seen = query(&alice, alice.id()).await;
    assert_eq!(of(&seen, "self_signing_keys", &alice), keys.body()["self_signing_key"]);
    assert_eq!(of(&seen, "user_signing_keys", &alice), keys.body()["user_signing_key"]);
}

#[tokio::test]
async fn t80_keys_in_the_place_of_others_need_the_password() {
    let server = TestServer::new().await;
    let (alice, device, old) = person(&server, "alice").await;
    let signed = old.self_signing.sign(device.device_keys());
    let body = json!({ alice.id(): { &alice.user.device_id: signed } });
    assert_eq!(alice.post(SIGNATURES, body).await.ok(), json!({ "failures": {} }));
    let new = Keys::new(alice.id());
    let mut body = new.body();
    let answer = try_upload(&alice, body.clone()).await;
    assert_eq!(answer.status, 401);
    assert!(answer.body["flows"].is_array());
    let seen = query(&alice, alice.id()).await;
    assert_eq!(of(&seen, "master_keys", &alice), old.master.bare("master"), "nothing changed");
    // A key beside those that are there is new too.
    let other = Key::new(alice.id());
    let beside = json!({ "user_signing_key": old.master.sign(other.bare("user_signing")) });
    assert_eq!(try_upload(&alice, beside).await.status, 401);
    body["auth"] = password_stage("alice", PASSWORD, &text(&answer.body["session"]));
    assert_eq!(try_upload(&alice, body).await.ok(), json!({}));
    let seen = query(&alice, alice.id()).await;
    assert_eq!(of(&seen, "master_keys", &alice), new.master.bare("master"));
    let known = &seen["device_keys"][alice.id()][&alice.user.device_id];
    let by_device = known["signatures"][alice.id()].as_object().unwrap();
    assert_eq!(by_device.len(), 1, "what the old key signed is gone");
}

#[tokio::test]
async fn t80_other_keys_need_a_master_key_and_its_signature() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let (keys, other) = (Keys::new(alice.id()), Key::new(alice.id()));
    let alone = json!({ "self_signing_key": keys.body()["self_signing_key"] });
    assert_eq!(try_upload(&alice, alone).await.outcome(), (400, "M_MISSING_PARAM"));
    assert_eq!(try_upload(&alice, json!({})).await.outcome(), (400, "M_MISSING_PARAM"));
    let mut body = keys.body();
    body["self_signing_key"] = other.sign(keys.self_signing.bare("self_signing"));
    assert_eq!(try_upload(&alice, body).await.outcome(), (400, "M_INVALID_SIGNATURE"));
    let mut body = keys.body();
    body["user_signing_key"] = keys.user_signing.bare("user_signing");
    assert_eq!(try_upload(&alice, body).await.outcome(), (400, "M_INVALID_SIGNATURE"));
    // The signature is right, but what it is of was changed.
    let mut body = keys.body();
    body["self_signing_key"]["more"] = json!(true);
    assert_eq!(try_upload(&alice, body).await.outcome(), (400, "M_INVALID_SIGNATURE"));
    assert_eq!(query(&alice, alice.id()).await.get("master_keys"), Some(&json!({})));
}

#[tokio::test]
async fn what_is_no_cross_signing_key_is_refused() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let key = Key::new(alice.id());
    let good = key.bare("master");
    let with = |field: &str, value: Value| {
        let mut body = good.clone();
        body[field] = value;
        json!({ "master_key": body })
    };
    let named = format!("ed25519:{}", key.public);
    let refused = [
        (with("user_id", json!("@bob:example.org")), "M_INVALID_PARAM"),
        (with("usage", json!(["self_signing"])), "M_INVALID_PARAM"),
        (with("usage", json!("master")), "M_BAD_JSON"),
        (with("keys", json!({})), "M_INVALID_PARAM"),
        (with("keys", json!({ "ed25519:other": key.public })), "M_INVALID_PARAM"),
        (with("keys", json!({ "ed25519:short": "short" })), "M_INVALID_PARAM"),
        (with("keys", json!({ &named: key.public, "ed25519:x": "x" })), "M_INVALID_PARAM"),
        (with("signatures", json!([])), "M_BAD_JSON"),
        (with("more", json!("x".repeat(40_000))), "M_TOO_LARGE"),
        (json!({ "master_key": [] }), "M_BAD_JSON"),
    ];
    for (body, errcode) in refused {
        let answer = try_upload(&alice, body.clone()).await;
        assert_eq!(answer.outcome().1, errcode, "{body}: {}", answer.body);
    }
    // A device of the same name could be taken for the key.
    let login = json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": "alice" },
        "password": PASSWORD,
        "device_id": key.public,
    });
    server.post("v3/login", login).send().await.ok();
    let answer = try_upload(&alice, json!({ "master_key": good })).await;
    assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"));
}

#[tokio::test]
async fn signatures_are_seen_by_those_whom_they_concern() {
    let server = TestServer::new().await;
    let (alice, device, keys) = person(&server, "alice").await;
    let (bob, _, of_bob) = person(&server, "bob").await;
    let carol = server.client("carol").await;
    let body = json!({
        alice.id(): {
            &alice.user.device_id: keys.self_signing.sign(device.device_keys()),
            &keys.master.public: device.sign(keys.master.bare("master")),
        },
        bob.id(): { &of_bob.master.public: keys.user_signing.sign(of_bob.master.bare("master")) },
    });
    assert_eq!(alice.post(SIGNATURES, body.clone()).await.ok(), json!({ "failures": {} }));
    assert_eq!(alice.post(SIGNATURES, body).await.ok(), json!({ "failures": {} }), "again");
    let signers = |answer: &Value, client: &Client<'_>| {
        let signatures = &of(answer, "master_keys", client)["signatures"];
        let users = signatures.as_object().map(|users| users.keys().cloned().collect::<Vec<_>>());
        users.unwrap_or_default()
    };
    for asker in [&alice, &bob, &carol] {
        let seen = query(asker, alice.id()).await;
        let device = &seen["device_keys"][alice.id()][&alice.user.device_id];
        let by = device["signatures"][alice.id()].as_object().unwrap();
        assert_eq!(by.len(), 2, "the device's own and that of the self-signing key");
        assert_eq!(signers(&seen, &alice), [alice.id()]);
        let is_own = asker.id() == alice.id();
        assert_eq!(seen["user_signing_keys"].get(alice.id()).is_some(), is_own);
        let seen = query(asker, bob.id()).await;
        let expected: &[&str] = if is_own { &[alice.id()] } else { &[] };
        assert_eq!(signers(&seen, &bob), expected, "{}", asker.id());
    }
}

#[tokio::test]
async fn t78_what_may_not_be_signed_so_is_a_failure_and_not_stored() {
    let server = TestServer::new().await;
    let (alice, device, keys) = person(&server, "alice").await;
    let (bob, of_bob, bobs) = person(&server, "bob").await;
    let other = Key::new(alice.id());
    let mut forged = keys.self_signing.sign(device.device_keys());
    let signature =
        &mut forged["signatures"][alice.id()][format!("ed25519:{}", keys.self_signing.public)];
    *signature = json!(STANDARD_NO_PAD.encode([7; 64]));
    let mut changed = device.device_keys();
    changed["algorithms"] = json!([]);
    let device_id = alice.user.device_id.as_str();
    let master = bobs.master.bare("master");
    let cases = [
        (alice.id(), device_id, forged, "M_INVALID_SIGNATURE"),
        (alice.id(), device_id, keys.self_signing.sign(changed), "M_INVALID_SIGNATURE"),
        (alice.id(), device_id, other.sign(device.device_keys()), "M_INVALID_SIGNATURE"),
        (alice.id(), device_id, device.device_keys(), "M_INVALID_SIGNATURE"),
        (alice.id(), device_id, json!({ "signatures": 5 }), "M_INVALID_SIGNATURE"),
        (alice.id(), device_id, json!([]), "M_INVALID_SIGNATURE"),
        (alice.id(), "OTHER", keys.self_signing.sign(device.device_keys()), "M_NOT_FOUND"),
        (
            alice.id(),
            &keys.master.public,
            other.sign(keys.master.bare("master")),
            "M_INVALID_SIGNATURE",
        ),
        // Not the self-signing key on others' keys, nor anything on others' devices.
        (
            bob.id(),
            &bobs.master.public,
            keys.self_signing.sign(master.clone()),
            "M_INVALID_SIGNATURE",
        ),
        (
            bob.id(),
            &bob.user.device_id,
            keys.user_signing.sign(of_bob.device_keys()),
            "M_NOT_FOUND",
        ),
        (
            bob.id(),
            &bobs.self_signing.public,
            keys.user_signing.sign(bobs.self_signing.bare("self_signing")),
            "M_NOT_FOUND",
        ),
        ("@nobody:example.org", "X", keys.user_signing.sign(master.clone()), "M_NOT_FOUND"),
        ("@dave:elsewhere.org", "X", keys.user_signing.sign(master), "M_NOT_FOUND"),
    ];
    let before = (query(&alice, alice.id()).await, query(&alice, bob.id()).await);
    for (user, name, object, errcode) in cases {
        let body = json!({ user: { name: object } });
        let answer = alice.post(SIGNATURES, body.clone()).await.ok();
        let failure = &answer["failures"][user][name];
        assert_eq!(failure["errcode"], errcode, "{body}");
        assert!(failure["error"].is_string());
    }
    let after = (query(&alice, alice.id()).await, query(&alice, bob.id()).await);
    assert_eq!(before, after);
}

#[tokio::test]
async fn what_is_right_is_stored_beside_what_is_wrong() {
    let server = TestServer::new().await;
    let (alice, device, keys) = person(&server, "alice").await;
    let bob = server.client("bob").await;
    let device_id = alice.user.device_id.as_str();
    let body = json!({ alice.id(): {
        device_id: keys.self_signing.sign(device.device_keys()),
        "OTHER": device.device_keys(),
    } });
    let answer = alice.post(SIGNATURES, body).await.ok();
    assert_eq!(answer["failures"][alice.id()].as_object().unwrap().len(), 1);
    let seen = query(&bob, alice.id()).await;
    let by = seen["device_keys"][alice.id()][device_id]["signatures"][alice.id()].clone();
    assert_eq!(by.as_object().unwrap().len(), 2);
    let many = (0..501).map(|number| (number.to_string(), json!({}))).collect();
    let body = json!({ alice.id(): Value::Object(many) });
    assert_eq!(alice.post(SIGNATURES, body).await.outcome(), (400, "M_INVALID_PARAM"));
    let refused = alice.post(SIGNATURES, json!({ "alice": {} })).await;
    assert_eq!(refused.status, 400);
}

#[tokio::test]
async fn keys_go_with_the_account() {
    let server = TestServer::new().await;
    let (alice, _, _) = person(&server, "alice").await;
    let bob = server.client("bob").await;
    let answer = alice.post("v3/account/deactivate", json!({})).await;
    let auth = password_stage("alice", PASSWORD, &text(&answer.body["session"]));
    alice.post("v3/account/deactivate", json!({ "auth": auth })).await.ok();
    let seen = query(&bob, alice.id()).await;
    assert_eq!(seen["master_keys"], json!({}));
    assert_eq!(seen["device_keys"], json!({ alice.id(): {} }));
}

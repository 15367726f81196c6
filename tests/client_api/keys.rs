//! Keys of devices: uploading, asking for and claiming them.

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use ruma::{CanonicalJsonObject, signatures::Ed25519KeyPair};
use serde_json::{Map, Value, json};

use crate::harness::{Client, TestServer, text};

pub(crate) const ALGORITHM: &str = "signed_curve25519";

/// The keys of a device, as a client makes them.
pub(crate) struct DeviceSigner {
    user_id: String,
    device_id: String,
    pair: Ed25519KeyPair,
}

impl DeviceSigner {
    pub(crate) fn new(client: &Client<'_>) -> Self {
        let (user_id, device_id) = (client.id().to_owned(), client.user.device_id.clone());
        let der = Ed25519KeyPair::generate();
        let pair = Ed25519KeyPair::from_der(&der, device_id.clone()).unwrap();
        Self { user_id, device_id, pair }
    }

    /// An object with this device's signature.
    pub(crate) fn sign(&self, object: Value) -> Value {
        let mut object: CanonicalJsonObject = serde_json::from_value(object).unwrap();
        ruma::signatures::sign_json(&self.user_id, &self.pair, &mut object).unwrap();
        serde_json::to_value(object).unwrap()
    }

    /// The identity keys, signed.
    pub(crate) fn device_keys(&self) -> Value {
        let key = STANDARD_NO_PAD.encode(self.pair.public_key());
        self.sign(json!({
            "user_id": self.user_id,
            "device_id": self.device_id,
            "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
            "keys": {
                format!("ed25519:{}", self.device_id): key,
                format!("curve25519:{}", self.device_id): key,
            },
        }))
    }

    /// One-time keys with these ids, signed.
    pub(crate) fn one_time_keys(&self, ids: &[&str]) -> Value {
        let keys = ids.iter().map(|id| {
            let key = STANDARD_NO_PAD.encode(format!("{id:0>32}"));
            (format!("{ALGORITHM}:{id}"), self.sign(json!({ "key": key })))
        });
        Value::Object(keys.collect::<Map<_, _>>())
    }

    /// A fallback key, signed.
    pub(crate) fn fallback_key(&self, id: &str) -> Value {
        let key = STANDARD_NO_PAD.encode(format!("{id:0>32}"));
        json!({ format!("{ALGORITHM}:{id}"): self.sign(json!({ "key": key, "fallback": true })) })
    }
}

/// Uploads; gives the counts.
pub(crate) async fn upload(client: &Client<'_>, body: Value) -> Value {
    client.post("v3/keys/upload", body).await.ok()["one_time_key_counts"].take()
}

/// What somebody sees of a user.
pub(crate) async fn query(client: &Client<'_>, user: &str) -> Value {
    client.post("v3/keys/query", json!({ "device_keys": { user: [] } })).await.ok()
}

/// Claims a key of a device; gives its id, or nothing.
pub(crate) async fn claim(client: &Client<'_>, of: &Client<'_>) -> Option<String> {
    let (user, device) = (of.id(), of.user.device_id.as_str());
    let body = json!({ "timeout": 10_000, "one_time_keys": { user: { device: ALGORITHM } } });
    let answer = client.post("v3/keys/claim", body).await.ok();
    assert_eq!(answer["failures"], json!({}));
    let Some(keys) = answer["one_time_keys"].get(user) else {
        assert_eq!(answer["one_time_keys"], json!({}));
        return None;
    };
    let keys = keys[device].as_object().unwrap();
    assert_eq!(keys.len(), 1);
    keys.keys().next().map(|id| id.strip_prefix("signed_curve25519:").unwrap().to_owned())
}

#[tokio::test]
async fn keys_of_a_device_are_uploaded_and_seen() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let signer = DeviceSigner::new(&alice);
    let keys = signer.device_keys();
    let none = json!({ ALGORITHM: 0 });
    assert_eq!(upload(&alice, json!({ "device_keys": keys })).await, none);
    alice
        .put(&format!("v3/devices/{}", alice.user.device_id), json!({ "display_name": "Phone" }))
        .await
        .ok();
    let seen = query(&bob, alice.id()).await;
    let mut expected = keys.clone();
    expected["unsigned"] = json!({ "device_display_name": "Phone" });
    assert_eq!(seen["device_keys"], json!({ alice.id(): { &alice.user.device_id: expected } }));
    assert_eq!(seen["failures"], json!({}));
    assert_eq!(query(&alice, alice.id()).await["device_keys"], seen["device_keys"]);
    // Named devices only; other servers' users are not known.
    let wanted = json!({ "device_keys": {
        alice.id(): ["OTHER", alice.user.device_id, alice.user.device_id],
        bob.id(): [],
        "@carol:elsewhere.org": [],
    }, "timeout": 10_000 });
    let named = bob.post("v3/keys/query", wanted).await.ok();
    let users = named["device_keys"].as_object().unwrap();
    assert_eq!(users.keys().collect::<Vec<_>>(), [alice.id(), bob.id()]);
    assert_eq!(users[alice.id()], seen["device_keys"][alice.id()]);
    assert_eq!(users[bob.id()], json!({}));
    let other = json!({ "device_keys": { alice.id(): ["OTHER"] } });
    let other = bob.post("v3/keys/query", other).await.ok();
    assert_eq!(other["device_keys"], json!({ alice.id(): {} }));
}

#[tokio::test]
async fn a_user_who_does_not_exist_looks_like_one_without_keys() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let nobody = "@nobody:example.org";
    let (of_nobody, of_bob) = (query(&alice, nobody).await, query(&alice, bob.id()).await);
    assert_eq!(of_nobody["device_keys"], json!({ nobody: {} }));
    assert_eq!(of_bob["device_keys"], json!({ bob.id(): {} }));
}

#[tokio::test]
async fn names_of_devices_are_hidden_from_others_where_the_operator_wants_it() {
    let server = TestServer::with(|config| config.encryption.device_names_visible = false).await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    upload(&alice, json!({ "device_keys": DeviceSigner::new(&alice).device_keys() })).await;
    let device = &alice.user.device_id;
    alice.put(&format!("v3/devices/{device}"), json!({ "display_name": "Phone" })).await.ok();
    let of = async |asker| {
        query(asker, alice.id()).await["device_keys"][alice.id()][device]["unsigned"].take()
    };
    assert_eq!(of(&bob).await, json!({}));
    assert_eq!(of(&alice).await, json!({ "device_display_name": "Phone" }));
}

#[tokio::test]
async fn keys_are_claimed_once_then_the_fallback_key_again_and_again() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let signer = DeviceSigner::new(&bob);
    assert_eq!(claim(&alice, &bob).await, None);
    let body = json!({ "device_keys": signer.device_keys(),
        "one_time_keys": signer.one_time_keys(&["AAAAAQ", "AAAAAA"]),
        "fallback_keys": signer.fallback_key("AAAAAF") });
    assert_eq!(upload(&bob, body).await, json!({ ALGORITHM: 2 }));
    let (user, device) = (bob.id(), bob.user.device_id.as_str());
    let body = json!({ "one_time_keys": {
        user: { device: ALGORITHM, "OTHER": ALGORITHM },
        "@nobody:example.org": { "D": ALGORITHM },
        "@carol:elsewhere.org": { "D": ALGORITHM },
    } });
    let answer = alice.post("v3/keys/claim", body).await.ok();
    let id = format!("{ALGORITHM}:AAAAAA");
    let key = signer.one_time_keys(&["AAAAAA"])[&id].take();
    // The test's own JSON is sorted, and so is the order of its upload.
    assert_eq!(answer["one_time_keys"], json!({ user: { device: { id: key } } }));
    // Also for one's own devices.
    assert_eq!(claim(&bob, &bob).await.as_deref(), Some("AAAAAQ"));
    for _ in 0..2 {
        assert_eq!(claim(&alice, &bob).await.as_deref(), Some("AAAAAF"));
    }
    let other = json!({ "one_time_keys": { user: { device: "curve25519" } } });
    assert_eq!(alice.post("v3/keys/claim", other).await.ok()["one_time_keys"], json!({}));
    assert_eq!(upload(&bob, json!({})).await, json!({ ALGORITHM: 0 }));
}

#[tokio::test]
async fn the_same_upload_again_is_no_error_and_counts_once() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let signer = DeviceSigner::new(&alice);
    let keys = signer.one_time_keys(&["0", "1", "2", "3"]);
    let with_device = json!({ "device_keys": signer.device_keys(), "one_time_keys": keys });
    let without = json!({ "one_time_keys": keys });
    for body in [&with_device, &without, &with_device] {
        assert_eq!(upload(&alice, body.clone()).await, json!({ ALGORITHM: 4 }));
    }
    let bob = server.client("bob").await;
    upload(&bob, json!({ "one_time_keys": signer.one_time_keys(&["A", "B", "C"]) })).await;
    let overlap = json!({ "one_time_keys": signer.one_time_keys(&["B", "C", "D"]) });
    assert_eq!(upload(&bob, overlap).await, json!({ ALGORITHM: 4 }));
    let string = json!({ "one_time_keys": { "curve25519:A": "AAAA" } });
    assert_eq!(upload(&bob, string).await, json!({ ALGORITHM: 4, "curve25519": 1 }));
}

#[tokio::test]
async fn keys_come_in_the_order_of_their_uploads() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let signer = DeviceSigner::new(&alice);
    for id in ["1", "0"] {
        upload(&alice, json!({ "one_time_keys": signer.one_time_keys(&[id]) })).await;
    }
    for id in ["1", "0"] {
        assert_eq!(claim(&alice, &alice).await.as_deref(), Some(id));
    }
}

#[tokio::test]
async fn a_restart_revives_nothing() {
    let server = TestServer::new().await;
    let user = server.register("alice").await;
    let alice = Client { server: &server, user: user.clone() };
    let signer = DeviceSigner::new(&alice);
    let body = json!({ "device_keys": signer.device_keys(),
        "one_time_keys": signer.one_time_keys(&["0", "1", "2"]) });
    upload(&alice, body.clone()).await;
    assert_eq!(claim(&alice, &alice).await.as_deref(), Some("0"));
    let server = server.restart().await;
    let alice = Client { server: &server, user };
    assert_eq!(upload(&alice, body).await, json!({ ALGORITHM: 2 }));
    assert_eq!(claim(&alice, &alice).await.as_deref(), Some("1"));
    let seen = query(&alice, alice.id()).await;
    assert!(seen["device_keys"][alice.id()][&alice.user.device_id].is_object());
}

#[tokio::test]
async fn keys_go_with_their_device() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let second = server.device_of("bob").await;
    for client in [&bob, &second] {
        let signer = DeviceSigner::new(client);
        let body = json!({ "device_keys": signer.device_keys(),
            "one_time_keys": signer.one_time_keys(&["0"]),
            "fallback_keys": signer.fallback_key("F") });
        upload(client, body).await;
    }
    let devices = async || {
        let seen = query(&alice, bob.id()).await;
        seen["device_keys"][bob.id()].as_object().unwrap().len()
    };
    assert_eq!(devices().await, 2);
    second.post("v3/logout", json!({})).await.ok();
    assert_eq!(devices().await, 1);
    assert_eq!(claim(&alice, &second).await, None);
    assert_eq!(claim(&alice, &bob).await.as_deref(), Some("0"));
}

#[tokio::test]
async fn fallback_keys_are_also_taken_by_their_old_name() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let signer = DeviceSigner::new(&alice);
    let body = json!({ "org.matrix.msc2732.fallback_keys": signer.fallback_key("F") });
    alice.post("r0/keys/upload", body).await.ok();
    assert_eq!(claim(&alice, &alice).await.as_deref(), Some("F"));
}

#[tokio::test]
async fn device_keys_may_be_replaced() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        let keys = DeviceSigner::new(&alice).device_keys();
        upload(&alice, json!({ "device_keys": keys })).await;
        let mut now = query(&alice, alice.id()).await;
        let now = now["device_keys"][alice.id()][&alice.user.device_id].take();
        assert_eq!(now["keys"], keys["keys"]);
        assert_eq!(now["signatures"], keys["signatures"]);
        seen.push(text(&now["keys"][format!("ed25519:{}", alice.user.device_id)]));
    }
    assert_ne!(seen[0], seen[1]);
}

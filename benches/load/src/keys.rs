//! What a message in an encrypted room with many devices asks of the server: whose keys, one-time
//! keys to begin with, and a message to each device.
//!
//! The keys are random text: the server is told not to want signatures, and nobody decrypts.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use hyper::Method;
use serde_json::{Map, Value, json};

use crate::{
    client::Client,
    measure::{Rate, Stopwatch},
    people::{self, Person},
    server::Process,
};

/// How many users there are.
pub(crate) const USERS: usize = 50;
/// How many devices each of them has.
pub(crate) const DEVICES: usize = 10;
/// How many one-time keys each device uploads; as many claims are measured, less one to warm up.
const ONE_TIME_KEYS: usize = 40;
/// How many messages are sent to all devices.
const FAN_OUTS: usize = 40;
/// How many log in at once.
const LOGINS_AT_ONCE: usize = 8;
/// About what a room key takes, encrypted for one device.
const CIPHERTEXT_BYTES: usize = 900;

/// A device, by what it is called.
struct Device {
    user_id: String,
    device_id: String,
}

/// The sender and all devices of everybody, the sender's own among them.
pub(crate) struct World {
    sender: Person,
    devices: Vec<Device>,
}

/// What was measured.
pub(crate) struct Outcome {
    /// `/keys/query` of all users.
    pub(crate) query: Rate,
    /// The bytes of its answer.
    pub(crate) query_bytes: usize,
    /// `/keys/claim` of one key of each device.
    pub(crate) claim: Rate,
    /// One message to each device, until it is on disk.
    pub(crate) fan_out: Rate,
}

/// Registers the users, logs their devices in and uploads keys for each.
pub(crate) async fn prepare(address: SocketAddr) -> Result<World> {
    let mut people = people::register(address, USERS).await?;
    let room = people[0].create_channel("secrets").await?;
    for person in people.iter_mut().skip(1) {
        person.join(&room).await?;
    }
    let mut devices = Vec::new();
    for person in &mut people {
        let whoami = person.client.ask(Method::GET, "/v3/account/whoami", Bytes::new()).await?;
        let whoami: Value = serde_json::from_slice(&whoami)?;
        let device = device(&whoami)?;
        upload(&mut person.client, &device).await?;
        devices.push(device);
    }
    let users: Vec<String> = devices.iter().map(|device| device.user_id.clone()).collect();
    let logins = users.iter().flat_map(|user| std::iter::repeat_n(user, DEVICES - 1));
    let more: Vec<Device> = stream::iter(logins.map(|user| login(address, user)))
        .buffer_unordered(LOGINS_AT_ONCE)
        .try_collect()
        .await?;
    devices.extend(more);
    let sender = people.into_iter().next().context("nobody sends")?;
    Ok(World { sender, devices })
}

async fn login(address: SocketAddr, user_id: &str) -> Result<Device> {
    let mut client = Client::connect(address).await?;
    let body = json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": user_id },
        "password": people::PASSWORD,
    });
    let answer = client.post("/v3/login", &body).await?;
    client.authenticate(answer["access_token"].as_str().context("a login without a token")?);
    let device = device(&answer)?;
    upload(&mut client, &device).await?;
    Ok(device)
}

fn device(answer: &Value) -> Result<Device> {
    let text = |key: &str| answer[key].as_str().map(str::to_owned);
    Ok(Device {
        user_id: text("user_id").context("an answer without a user")?,
        device_id: text("device_id").context("an answer without a device")?,
    })
}

/// Uploads identity keys, one-time keys and no fallback key.
async fn upload(client: &mut Client, device: &Device) -> Result<()> {
    let Device { user_id, device_id } = device;
    let signatures = json!({ user_id: { format!("ed25519:{device_id}"): filler(86, 0) } });
    let one_time_keys: Map<String, Value> = (0..ONE_TIME_KEYS)
        .map(|number| {
            let key = json!({ "key": filler(43, number + 1), "signatures": signatures });
            (format!("signed_curve25519:AAAA{number:05}"), key)
        })
        .collect();
    let body = json!({
        "device_keys": {
            "user_id": user_id,
            "device_id": device_id,
            "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
            "keys": {
                format!("curve25519:{device_id}"): filler(43, 1),
                format!("ed25519:{device_id}"): filler(43, 2),
            },
        },
        "one_time_keys": one_time_keys,
    });
    client.post("/v3/keys/upload", &body).await?;
    Ok(())
}

/// Text of the length of a key, a signature or a message; base64 of some bytes.
fn filler(length: usize, seed: usize) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut state = seed.wrapping_mul(0x9e37_79b9).wrapping_add(12_345);
    let mut letter = || {
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        char::from(ALPHABET[state / 65_536 % 64])
    };
    // The last letter of unpadded base64 has bits that must be zero.
    (1..length).map(|_| letter()).chain(['A']).collect()
}

impl World {
    /// Measures all there is.
    pub(crate) async fn measure(
        mut self,
        duration: Duration,
        process: Option<Process>,
    ) -> Result<Outcome> {
        let (query, query_bytes) = self.query(duration, process).await?;
        let claim = self.claim(process).await?;
        let fan_out = self.fan_out(process).await?;
        Ok(Outcome { query, query_bytes, claim, fan_out })
    }

    async fn query(
        &mut self,
        duration: Duration,
        process: Option<Process>,
    ) -> Result<(Rate, usize)> {
        let users: Map<String, Value> =
            self.devices.iter().map(|device| (device.user_id.clone(), json!([]))).collect();
        let body = Bytes::from(json!({ "device_keys": users }).to_string());
        let client = &mut self.sender.client;
        let answer = client.ask(Method::POST, "/v3/keys/query", body.clone()).await?;
        let known: Value = serde_json::from_slice(&answer)?;
        let known = known["device_keys"].as_object().context("an answer without keys")?;
        let count: usize = known.values().filter_map(Value::as_object).map(Map::len).sum();
        ensure!(count == self.devices.len(), "{count} devices are known");
        let stopwatch = Stopwatch::start(process)?;
        let (end, mut samples) = (Instant::now() + duration, Vec::new());
        while Instant::now() < end {
            let begun = Instant::now();
            client.ask(Method::POST, "/v3/keys/query", body.clone()).await?;
            samples.push(begun.elapsed());
        }
        Ok((stopwatch.rate(samples)?, answer.len()))
    }

    async fn claim(&mut self, process: Option<Process>) -> Result<Rate> {
        let body = Bytes::from(
            json!({ "one_time_keys": self.of_each_device(|| json!("signed_curve25519")) })
                .to_string(),
        );
        let client = &mut self.sender.client;
        let answer = client.ask(Method::POST, "/v3/keys/claim", body.clone()).await?;
        let claimed: Value = serde_json::from_slice(&answer)?;
        let claimed = claimed["one_time_keys"].as_object().context("an answer without keys")?;
        let count: usize = claimed.values().filter_map(Value::as_object).map(Map::len).sum();
        ensure!(count == self.devices.len(), "{count} keys were claimed");
        let stopwatch = Stopwatch::start(process)?;
        let mut samples = Vec::new();
        for _ in 1..ONE_TIME_KEYS {
            let begun = Instant::now();
            client.ask(Method::POST, "/v3/keys/claim", body.clone()).await?;
            samples.push(begun.elapsed());
        }
        stopwatch.rate(samples)
    }

    async fn fan_out(&mut self, process: Option<Process>) -> Result<Rate> {
        let content = json!({
            "algorithm": "m.olm.v1.curve25519-aes-sha2",
            "sender_key": filler(43, 3),
            "ciphertext": { filler(43, 4): { "type": 0, "body": filler(CIPHERTEXT_BYTES, 5) } },
        });
        let body = json!({ "messages": self.of_each_device(|| content.clone()) }).to_string();
        let body = Bytes::from(body);
        let client = &mut self.sender.client;
        let stopwatch = Stopwatch::start(process)?;
        let mut samples = Vec::new();
        for number in 0..FAN_OUTS {
            let begun = Instant::now();
            let path = format!("/v3/sendToDevice/m.room.encrypted/fan-out-{number}");
            client.ask(Method::PUT, &path, body.clone()).await?;
            samples.push(begun.elapsed());
        }
        stopwatch.rate(samples)
    }

    /// Something for each device, by user and device.
    fn of_each_device(&self, value: impl Fn() -> Value) -> Value {
        let mut users = Map::new();
        for Device { user_id, device_id } in &self.devices {
            let devices = users.entry(user_id.clone()).or_insert_with(|| json!({}));
            devices[device_id] = value();
        }
        Value::Object(users)
    }
}

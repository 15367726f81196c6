//! The simulated users and their rooms.

use std::{
    fmt::Write,
    net::SocketAddr,
    process,
    sync::atomic::{AtomicUsize, Ordering},
};

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use hyper::Method;
use serde_json::{Value, json};

use crate::client::Client;

/// How many events a new channel has: creation, its creator, power levels, join rules, history
/// visibility, name.
pub(crate) const EVENTS_PER_CHANNEL: usize = 6;

/// Passwords are hashed on all cores of the server, so a few registrations go on at once.
const REGISTRATIONS_AT_ONCE: usize = 8;

/// The password of everybody.
pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// How many users were registered: each has a number of its own.
static REGISTERED: AtomicUsize = AtomicUsize::new(0);

/// A room, by its id as it stands in a path.
#[derive(Clone, Default)]
pub(crate) struct Channel {
    pub(crate) quoted_id: String,
}

/// One user with one connection.
pub(crate) struct Person {
    pub(crate) client: Client,
    /// The token of the last sync; empty before the first.
    since: String,
    filter: String,
    /// The value of the header that authenticates.
    pub(crate) token: String,
    sent: u64,
}

/// Registers so many users.
pub(crate) async fn register(address: SocketAddr, count: usize) -> Result<Vec<Person>> {
    let first = REGISTERED.fetch_add(count, Ordering::Relaxed);
    stream::iter((first..first + count).map(|number| Person::register(address, number)))
        .buffered(REGISTRATIONS_AT_ONCE)
        .try_collect()
        .await
}

impl Person {
    async fn register(address: SocketAddr, number: usize) -> Result<Self> {
        let mut client = Client::connect(address).await?;
        // The process id makes the names fresh on a server that was measured before.
        let body = json!({
            "username": format!("load-{}-{number}", process::id()),
            "password": PASSWORD,
            "auth": { "type": "m.login.dummy" },
        });
        let answer = client.post("/v3/register", &body).await?;
        let token = text(&answer, "access_token")?;
        client.authenticate(token);
        let token = format!("Bearer {token}");
        // Presence would wake the waiting clients at times of its own.
        let filter = json!({
            "presence": { "not_types": ["*"] },
            "room": { "state": { "lazy_load_members": true } },
        });
        let path = format!("/v3/user/{}/filter", quoted(text(&answer, "user_id")?));
        let filter = client.post(&path, &filter).await?;
        let filter = text(&filter, "filter_id")?.to_owned();
        Ok(Self { client, since: String::new(), filter, token, sent: 0 })
    }

    /// Makes a room that everybody may join.
    pub(crate) async fn create_channel(&mut self, name: &str) -> Result<Channel> {
        let body = json!({ "preset": "public_chat", "name": name });
        let answer = self.client.post("/v3/createRoom", &body).await?;
        Ok(Channel { quoted_id: quoted(text(&answer, "room_id")?) })
    }

    /// Joins a room.
    pub(crate) async fn join(&mut self, channel: &Channel) -> Result<()> {
        self.client.post(&format!("/v3/join/{}", channel.quoted_id), &json!({})).await?;
        Ok(())
    }

    /// Sends a message and waits for its acknowledgment.
    pub(crate) async fn send(&mut self, channel: &Channel) -> Result<()> {
        let number = self.sent + 1;
        self.say(channel, &format!("Message {number}: shall we meet at three today?")).await
    }

    /// Sends this text.
    pub(crate) async fn say(&mut self, channel: &Channel, text: &str) -> Result<()> {
        self.sent += 1;
        let sent = self.sent;
        let path = format!("/v3/rooms/{}/send/m.room.message/txn-{sent}", channel.quoted_id);
        let body = format!(r#"{{"msgtype":"m.text","body":"{text}"}}"#);
        self.client.ask(Method::PUT, &path, Bytes::from(body)).await?;
        Ok(())
    }

    /// The path of a sync from the last token on.
    pub(crate) fn poll_path(&self, timeout_ms: u32) -> String {
        let (filter, since) = (&self.filter, &self.since);
        format!("/v3/sync?filter={filter}&timeout={timeout_ms}&since={since}")
    }

    /// Syncs from the last token on and keeps the new one; returns the answer's bytes.
    pub(crate) async fn sync(&mut self, timeout_ms: u32) -> Result<Bytes> {
        let mut path = format!("/v3/sync?filter={}&timeout={timeout_ms}", self.filter);
        if !self.since.is_empty() {
            write!(path, "&since={}", self.since)?;
        }
        let answer = self.client.ask(Method::GET, &path, Bytes::new()).await?;
        self.since = next_batch(&answer)?;
        Ok(answer)
    }

    /// Syncs until the server has nothing new.
    pub(crate) async fn catch_up(&mut self) -> Result<()> {
        self.sync(0).await?;
        while has_rooms(&self.sync(0).await?)? {}
        Ok(())
    }
}

/// Whether an answer to `/sync` brings anything of a room.
fn has_rooms(answer: &Bytes) -> Result<bool> {
    let answer: Value = serde_json::from_slice(answer)?;
    let joined = answer.pointer("/rooms/join").and_then(Value::as_object);
    Ok(joined.is_some_and(|rooms| !rooms.is_empty()))
}

/// The token of an answer to `/sync`, as it stands in a query.
///
/// Looked for and not parsed, as 200 answers are read within one measurement; nobody here sends an
/// event with such a key.
fn next_batch(answer: &[u8]) -> Result<String> {
    const KEY: &str = r#""next_batch":"#;
    let answer = std::str::from_utf8(answer)?;
    let (_, rest) = answer.rsplit_once(KEY).context("a sync without a token")?;
    let token = rest.trim_start().trim_start_matches('"').split('"').next();
    Ok(quoted(token.context("a sync with half a token")?))
}

fn text<'a>(answer: &'a Value, key: &str) -> Result<&'a str> {
    answer[key].as_str().ok_or_else(|| anyhow!("an answer without `{key}`: {answer}"))
}

/// A part of a path.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            quoted.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(quoted, "%{byte:02X}");
        }
    }
    quoted
}

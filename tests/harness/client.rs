//! What a user does, as verbs: `alice.send(&room, "hi")`.
//!
//! Verbs that tests rely on without asking answer what came of it and fail the test otherwise;
//! those beginning with `try_` answer what the server said.

use std::sync::atomic::Ordering;

use http::Method;
use serde_json::{Value, json};

use super::{Answer, Call, TestServer, TestUser};

/// A user with one device of theirs.
#[derive(Clone)]
pub(crate) struct Client<'a> {
    pub(crate) server: &'a TestServer,
    pub(crate) user: TestUser,
}

impl TestServer {
    /// A new user.
    pub(crate) async fn client(&self, name: &str) -> Client<'_> {
        Client { server: self, user: self.register(name).await }
    }

    /// Another device of a user.
    pub(crate) async fn device_of(&self, name: &str) -> Client<'_> {
        Client { server: self, user: self.login(name).await }
    }

    pub(crate) fn next_transaction(&self) -> u64 {
        self.transactions.fetch_add(1, Ordering::Relaxed)
    }
}

impl Client<'_> {
    /// The user's id.
    pub(crate) fn id(&self) -> &str {
        self.user.user_id.as_str()
    }

    /// A request of this user.
    pub(crate) fn call(&self, method: Method, path: &str) -> Call<'_> {
        self.server.call(method, path).token(&self.user.token)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path).send().await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PUT, path).json(body).send().await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path).json(body).send().await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path).send().await
    }

    /// Makes a room and answers its id.
    #[track_caller]
    pub(crate) fn create_room(&self, wanted: Value) -> impl Future<Output = String> {
        let made = self.post("v3/createRoom", wanted);
        async move { text(&made.await.ok()["room_id"]) }
    }

    /// A room that everybody may join.
    pub(crate) async fn public_room(&self) -> String {
        self.create_room(json!({ "preset": "public_chat" })).await
    }

    /// What one does to a room or in it: `join`, `leave`, `forget`.
    pub(crate) async fn act(&self, room: &str, verb: &str) -> Answer {
        self.post(&format!("v3/rooms/{room}/{verb}"), json!({})).await
    }

    /// What one does to another in a room: `invite`, `kick`, `ban`, `unban`.
    pub(crate) async fn act_on(&self, room: &str, verb: &str, other: &Client<'_>) -> Answer {
        let body = json!({ "user_id": other.id() });
        self.post(&format!("v3/rooms/{room}/{verb}"), body).await
    }

    pub(crate) async fn join(&self, room: &str) {
        self.act(room, "join").await.ok();
    }

    pub(crate) async fn leave(&self, room: &str) {
        self.act(room, "leave").await.ok();
    }

    pub(crate) async fn invite(&self, room: &str, other: &Client<'_>) {
        self.act_on(room, "invite", other).await.ok();
    }

    /// Sends an event with a transaction id of its own.
    pub(crate) async fn try_send(&self, room: &str, kind: &str, content: Value) -> Answer {
        let transaction = self.server.next_transaction();
        self.put(&format!("v3/rooms/{room}/send/{kind}/{transaction}"), content).await
    }

    /// Sends a text and answers the event's id.
    pub(crate) async fn send(&self, room: &str, body: &str) -> String {
        let content = json!({ "msgtype": "m.text", "body": body });
        text(&self.try_send(room, "m.room.message", content).await.ok()["event_id"])
    }

    pub(crate) async fn try_redact(&self, room: &str, event: &str) -> Answer {
        let transaction = self.server.next_transaction();
        let path = format!("v3/rooms/{room}/redact/{}/{transaction}", encode(event));
        self.put(&path, json!({ "reason": "no" })).await
    }

    /// Sets a state with an empty key.
    pub(crate) async fn try_set(&self, room: &str, kind: &str, content: Value) -> Answer {
        self.put(&format!("v3/rooms/{room}/state/{kind}"), content).await
    }

    /// Sets a state with an empty key and answers the event's id.
    pub(crate) async fn set(&self, room: &str, kind: &str, content: Value) -> String {
        text(&self.try_set(room, kind, content).await.ok()["event_id"])
    }

    /// Reads a state with an empty key.
    pub(crate) async fn state(&self, room: &str, kind: &str) -> Answer {
        self.get(&format!("v3/rooms/{room}/state/{kind}")).await
    }

    pub(crate) async fn event(&self, room: &str, event: &str) -> Answer {
        self.get(&format!("v3/rooms/{room}/event/{}", encode(event))).await
    }

    pub(crate) async fn context(&self, room: &str, event: &str) -> Answer {
        self.get(&format!("v3/rooms/{room}/context/{}?limit=100", encode(event))).await
    }

    /// A page of history; the query without its `?`.
    pub(crate) async fn messages(&self, room: &str, query: &str) -> Answer {
        self.get(&format!("v3/rooms/{room}/messages?{query}")).await
    }

    /// What is new since a token, or everything.
    pub(crate) async fn sync(&self, since: Option<&str>) -> Value {
        self.sync_with(since, "timeout=0").await
    }

    /// The same with further parameters.
    pub(crate) async fn sync_with(&self, since: Option<&str>, query: &str) -> Value {
        let since = since.map(|since| format!("&since={since}")).unwrap_or_default();
        self.get(&format!("v3/sync?{query}{since}")).await.ok()
    }

    /// The token of now.
    pub(crate) async fn now(&self) -> String {
        text(&self.sync(None).await["next_batch"])
    }
}

/// A string of an answer.
#[track_caller]
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is not a string")).to_owned()
}

/// The ids of a list of events.
pub(crate) fn ids(events: &Value) -> Vec<String> {
    events.as_array().into_iter().flatten().map(|event| text(&event["event_id"])).collect()
}

/// The texts of a list of events, for those that have one.
pub(crate) fn texts(events: &Value) -> Vec<String> {
    let events = events.as_array().into_iter().flatten();
    events.filter_map(|event| event["content"]["body"].as_str().map(str::to_owned)).collect()
}

/// As a part of a path or a query.
pub(crate) fn encode(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

//! A server in the process of the test: on the memory store, with a clock that stands still.
//!
//! Requests go through everything but the socket. [`TestServer::build`] is the one place that knows
//! how a server is put together.

mod client;
pub(crate) mod origin;
pub(crate) mod record;

use std::{
    net::IpAddr,
    path::Path,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use axum::body::Body;
use causerie::{
    config::{Config, Serves},
    http::{App, Peer},
    server::Server,
    storage::schema::FAMILIES,
    time::Clock,
};
use futures::FutureExt;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use kv::{EngineOptions, Store};
use ruma::{MilliSecondsSinceUnixEpoch, OwnedUserId, ServerName};
use serde_json::{Value, json};

pub(crate) use self::client::{Client, encode, ids, text, texts};

/// The password of every test user.
pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// A server without a socket.
pub(crate) struct TestServer {
    pub(crate) app: App,
    pub(crate) server: Server,
    pub(crate) clock: Clock,
    transactions: AtomicU64,
    /// Where its files lie.
    pub(crate) media_folder: tempfile::TempDir,
}

/// A user with a session.
#[derive(Clone, Debug)]
pub(crate) struct TestUser {
    pub(crate) user_id: OwnedUserId,
    pub(crate) device_id: String,
    pub(crate) token: String,
}

/// What the server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    /// The body as it came, for pages.
    pub(crate) text: String,
    /// The body as it came.
    pub(crate) bytes: bytes::Bytes,
}

impl Answer {
    /// The status and the errcode, as tests compare them.
    pub(crate) fn outcome(&self) -> (u16, &str) {
        (self.status.as_u16(), self.body["errcode"].as_str().unwrap_or_default())
    }

    /// The body of an answer that must be 200.
    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.body);
        self.body
    }
}

/// A request that is being put together.
pub(crate) struct Call<'a> {
    server: &'a TestServer,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Option<Vec<u8>>,
    peer: IpAddr,
}

impl Call<'_> {
    /// With an access token.
    pub(crate) fn token(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// With a header.
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, value.parse().unwrap());
        self
    }

    /// With another header, also where there is one of this name.
    pub(crate) fn also(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(name, value.parse().unwrap());
        self
    }

    /// With a JSON body.
    #[expect(clippy::needless_pass_by_value, reason = "bodies are written in place")]
    pub(crate) fn json(mut self, body: Value) -> Self {
        self.body = Some(body.to_string().into_bytes());
        self
    }

    /// With a body of any bytes.
    pub(crate) fn body(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.body = Some(bytes.into());
        self
    }

    /// From another address.
    pub(crate) fn from(mut self, address: &str) -> Self {
        self.peer = address.parse().unwrap();
        self
    }

    /// Sends it.
    pub(crate) async fn send(self) -> Answer {
        let app = self.server.app.clone();
        let (method, path) = (self.method.clone(), self.path.clone());
        let request = self.body.clone().filter(|_| record::folder().is_some());
        let response = app.answer(self.into_request()).await;
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let answer = Answer { status: head.status, headers: head.headers, body, text, bytes };
        record::exchange(&method, &path, request.as_deref(), &answer);
        answer
    }

    /// Sends it and hangs up as soon as the server has to wait for something.
    pub(crate) fn hang_up(self) {
        let app = self.server.app.clone();
        let answer = app.answer(self.into_request()).now_or_never();
        assert!(answer.is_none(), "the answer was there at once");
    }

    fn into_request(self) -> Request<Body> {
        let mut request = Request::new(Body::from(self.body.unwrap_or_default()));
        *request.method_mut() = self.method;
        *request.uri_mut() = self.path.parse().unwrap();
        *request.headers_mut() = self.headers;
        request.extensions_mut().insert(Peer::Tcp(self.peer));
        request
    }
}

impl TestServer {
    /// A server with open registration and without rate limits.
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// The same with other settings.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::on(Store::memory(&FAMILIES), change).await
    }

    /// A server whose database is in this folder.
    pub(crate) async fn on_disk(database: &Path) -> Self {
        let options = EngineOptions::with_memory(32 << 20);
        Self::on(Store::open(database, &FAMILIES, &options).unwrap(), |_| {}).await
    }

    async fn on(store: Store, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::for_server(ServerName::parse("example.org").unwrap());
        config.registration.open_without_token = true;
        // Names are told where a test is about them.
        config.registration.display_name_from_id = false;
        config.rate_limits.enabled = false;
        // It is told when it comes, between whatever else a test waits for.
        config.presence.enabled = false;
        let media_folder = tempfile::tempdir().unwrap();
        // The disk of whoever runs the tests may be rather full.
        config.media.remote_disk_free_percent_min = 0;
        config.media.path = Some(media_folder.path().to_owned());
        config.media.thumbnail_program = Some(env!("CARGO_BIN_EXE_causerie").into());
        change(&mut config);
        let start = MilliSecondsSinceUnixEpoch(1_800_000_000_000_u64.try_into().unwrap());
        let built = Self::build(config, store, Clock::manual(start), media_folder).await;
        built.server.work();
        built
    }

    /// The same server, stopped and started again with other settings.
    pub(crate) async fn restarted(self, change: impl FnOnce(&mut Config)) -> Self {
        let Self { app, server, clock, transactions, media_folder } = self;
        let (mut config, store) = ((*server.config).clone(), server.store.clone());
        change(&mut config);
        // The tasks end with the last handle.
        drop((app, server));
        let built = Self { transactions, ..Self::build(config, store, clock, media_folder).await };
        built.server.work();
        built
    }

    /// The same server, stopped and started again, which does nothing but answer. Before a restart it
    /// is one that crashes right after what it answered.
    pub(crate) async fn idle(self) -> Self {
        let Self { app, server, clock, transactions, media_folder } = self;
        let (config, store) = ((*server.config).clone(), server.store.clone());
        drop((app, server));
        Self { transactions, ..Self::build(config, store, clock, media_folder).await }
    }

    async fn build(
        config: Config,
        store: Store,
        clock: Clock,
        media_folder: tempfile::TempDir,
    ) -> Self {
        let built = Server::build(Arc::new(config), store, clock.clone()).await;
        let server = built.expect("a server is built on an empty store");
        let app = server.app(Serves::Both);
        Self { app, server, clock, transactions: AtomicU64::new(0), media_folder }
    }

    /// Another server on the same store, as after a kill: nothing is finished or told before.
    pub(crate) async fn restart(self) -> Self {
        self.restarted(|_| {}).await
    }

    /// A request to a path below `/_matrix/client`, or to any other that begins with a slash.
    pub(crate) fn call(&self, method: Method, path: &str) -> Call<'_> {
        let path = match path.strip_prefix('/') {
            Some(_) => path.to_owned(),
            None => format!("/_matrix/client/{path}"),
        };
        let peer = "203.0.113.1".parse().unwrap();
        Call { server: self, method, path, headers: HeaderMap::new(), body: None, peer }
    }

    pub(crate) fn get(&self, path: &str) -> Call<'_> {
        self.call(Method::GET, path)
    }

    pub(crate) fn put(&self, path: &str, body: Value) -> Call<'_> {
        self.call(Method::PUT, path).json(body)
    }

    pub(crate) fn post(&self, path: &str, body: Value) -> Call<'_> {
        self.call(Method::POST, path).json(body)
    }

    pub(crate) fn delete(&self, path: &str) -> Call<'_> {
        self.call(Method::DELETE, path)
    }

    /// Registers a user.
    pub(crate) async fn register(&self, name: &str) -> TestUser {
        let body = json!({
            "username": name,
            "password": PASSWORD,
            "auth": { "type": "m.login.dummy" },
        });
        user(&self.post("v3/register", body).send().await.ok())
    }

    /// Logs a user in on a new device.
    pub(crate) async fn login(&self, name: &str) -> TestUser {
        user(&self.try_login(name, PASSWORD).await.ok())
    }

    pub(crate) async fn try_login(&self, name: &str, password: &str) -> Answer {
        self.post("v3/login", login_body(name, password)).send().await
    }

    /// Makes a room; gives its id.
    pub(crate) async fn create_room(&self, user: &TestUser) -> String {
        let call = self.post("v3/createRoom", json!({})).token(&user.token);
        call.send().await.ok()["room_id"].as_str().unwrap().to_owned()
    }

    /// Whether the token still works.
    pub(crate) async fn outcome_of(&self, token: &str) -> (u16, String) {
        let answer = self.get("v3/account/whoami").token(token).send().await;
        let (status, errcode) = answer.outcome();
        (status, errcode.to_owned())
    }

    /// Lets time pass.
    pub(crate) fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

/// The body of a login by password.
pub(crate) fn login_body(name: &str, password: &str) -> Value {
    json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": name },
        "password": password,
    })
}

/// An answer to the stage `m.login.password`.
pub(crate) fn password_stage(name: &str, password: &str, session: &str) -> Value {
    json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": name },
        "password": password,
        "session": session,
    })
}

fn user(body: &Value) -> TestUser {
    let text = |field: &str| body[field].as_str().unwrap().to_owned();
    TestUser {
        user_id: text("user_id").try_into().unwrap(),
        device_id: text("device_id"),
        token: text("access_token"),
    }
}

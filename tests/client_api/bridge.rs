//! A bridge as an application service sees itself: a listener that notes what it is told.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{StatusCode, header::AUTHORIZATION};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

pub(crate) const AS_TOKEN: &str = "as-secret";
const HS_TOKEN: &str = "hs-secret";

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_mins(1);

/// The registration of the bridge at an address.
pub(crate) fn registration(url: Option<&str>) -> String {
    let url = url.map_or("null".to_owned(), str::to_owned);
    format!(
        "
id: irc
url: {url}
as_token: {AS_TOKEN}
hs_token: {HS_TOKEN}
sender_localpart: bot
rate_limited: false
receive_ephemeral: true
de.sorunome.msc2409.push_ephemeral: true
protocols: [irc]
namespaces:
  users:
    - exclusive: true
      regex: '@_irc_.*'
  aliases:
    - exclusive: true
      regex: '#_irc_.*'
"
    )
}

/// The listener.
pub(crate) struct Bridge {
    pub(crate) url: String,
    notes: Arc<Mutex<Notes>>,
    task: JoinHandle<()>,
}

/// A transaction, by its id.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Received {
    pub(crate) id: String,
    pub(crate) body: Value,
}

#[derive(Default)]
struct Notes {
    asked: Vec<String>,
    pings: Vec<Value>,
    transactions: Vec<Received>,
    /// What came while it failed.
    refused: Vec<Received>,
    status: Option<u16>,
    endless: bool,
    /// What it answers to questions about keys, by path.
    keys: BTreeMap<&'static str, Value>,
    /// Those questions.
    key_questions: Vec<(String, Value)>,
}

impl Bridge {
    pub(crate) async fn start() -> Self {
        Self::at(0, Arc::default()).await
    }

    async fn at(port: u16, notes: Arc<Mutex<Notes>>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(notes.clone());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, notes, task }
    }

    /// Refuses everything with a status; 200: no more.
    pub(crate) fn fail_with(&self, status: u16) {
        self.notes.lock().unwrap().status = Some(status).filter(|status| *status != 200);
    }

    /// Answers with bodies that have no end.
    pub(crate) fn answer_without_end(&self) {
        let mut notes = self.notes.lock().unwrap();
        notes.status = None;
        notes.endless = true;
    }

    /// Answers a question about keys.
    pub(crate) fn answer_keys(&self, path: &'static str, answer: Value) {
        self.notes.lock().unwrap().keys.insert(path, answer);
    }

    /// The questions about keys, by path.
    pub(crate) fn key_questions(&self) -> Vec<(String, Value)> {
        self.notes.lock().unwrap().key_questions.clone()
    }

    pub(crate) async fn stop(&self) {
        self.task.abort();
        while !self.task.is_finished() {
            tokio::task::yield_now().await;
        }
    }

    /// The questions, by path and query.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.notes.lock().unwrap().asked.clone()
    }

    pub(crate) fn pings(&self) -> Vec<Value> {
        self.notes.lock().unwrap().pings.clone()
    }

    pub(crate) fn transactions(&self) -> Vec<Received> {
        self.notes.lock().unwrap().transactions.clone()
    }

    pub(crate) fn refused(&self) -> Vec<Received> {
        self.notes.lock().unwrap().refused.clone()
    }

    /// All events in their order.
    pub(crate) fn events(&self) -> Vec<Value> {
        let all = self.transactions();
        let events = all.iter().flat_map(|one| one.body["events"].as_array().unwrap().clone());
        events.collect()
    }

    /// All that is not kept.
    pub(crate) fn ephemeral(&self) -> Vec<Value> {
        let all = self.transactions();
        let lists = all.iter().filter_map(|one| one.body["ephemeral"].as_array().cloned());
        lists.flatten().collect()
    }

    /// What its transactions hold under a name, one after the other. One that it knows already, as
    /// after a crash, says nothing new.
    pub(crate) fn told(&self, name: &str) -> Vec<Value> {
        let mut all = self.transactions();
        all.dedup();
        all.iter().filter_map(|one| one.body.get(name).cloned()).collect()
    }

    /// All messages to devices.
    pub(crate) fn to_device(&self) -> Vec<Value> {
        let lists = self.told("de.sorunome.msc2409.to_device");
        lists.iter().flat_map(|list| list.as_array().unwrap().clone()).collect()
    }

    /// Waits until something is true.
    pub(crate) async fn wait(&self, what: &str, is: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !is(self) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let came = tokio::time::timeout(PATIENCE, waiting).await.is_ok();
        assert!(came, "{what}: {:#?}", self.transactions());
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(State(notes): State<Arc<Mutex<Notes>>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let asked = request.uri().path_and_query().unwrap().to_string();
    let authorization = request.headers().get(AUTHORIZATION).cloned();
    let bytes = request.into_body().collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    if authorization.as_ref().map(http::HeaderValue::as_bytes) != Some(b"Bearer hs-secret") {
        return (StatusCode::FORBIDDEN, json!({ "errcode": "M_FORBIDDEN" }).to_string())
            .into_response();
    }
    let mut notes = notes.lock().unwrap();
    let transaction = path.strip_prefix("/_matrix/app/v1/transactions/");
    let transaction = transaction.map(|id| Received { id: id.to_owned(), body: body.clone() });
    if let Some(status) = notes.status {
        notes.refused.extend(transaction);
        let text = json!({ "errcode": "M_FORBIDDEN" }).to_string();
        return (StatusCode::from_u16(status).unwrap(), text).into_response();
    }
    if path == "/_matrix/app/v1/ping" {
        notes.pings.push(body);
    } else if let Some(transaction) = transaction {
        notes.transactions.push(transaction);
    } else if path.contains("/keys/") {
        let answer = notes.keys.get(&*path).cloned();
        notes.key_questions.push((path, body));
        let unknown = || (StatusCode::NOT_FOUND, json!({ "errcode": "M_UNRECOGNIZED" }));
        let (status, answer) = answer.map_or_else(unknown, |answer| (StatusCode::OK, answer));
        return (status, answer.to_string()).into_response();
    } else {
        notes.asked.push(asked);
        return known(&path);
    }
    if notes.endless {
        let chunks =
            std::iter::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 65536])));
        return Body::from_stream(futures::stream::iter(chunks)).into_response();
    }
    "{}".into_response()
}

/// What the bridge knows of its network.
fn known(path: &str) -> Response {
    let field = json!({ "regexp": ".*", "placeholder": "x" });
    let protocol = json!({
        "user_fields": ["nick"], "location_fields": ["channel"], "icon": "mxc://x/y",
        "field_types": { "nick": field },
        "instances": [{ "network_id": "libera", "desc": "Libera", "fields": {} }],
    });
    let user = json!([
        { "userid": "@_irc_bob:example.org", "protocol": "irc", "fields": { "nick": "bob" } }
    ]);
    let answer = match path {
        "/_matrix/app/v1/thirdparty/protocol/irc" => protocol,
        "/_matrix/app/v1/thirdparty/user/irc" | "/_matrix/app/v1/thirdparty/user" => user,
        "/_matrix/app/v1/thirdparty/location/irc" => json!([
            { "alias": "#_irc_x:example.org", "protocol": "irc", "fields": { "channel": "x" } }
        ]),
        "/_matrix/app/v1/thirdparty/location" => json!([]),
        _ => {
            let text = json!({ "errcode": "M_NOT_FOUND" }).to_string();
            return (StatusCode::NOT_FOUND, text).into_response();
        }
    };
    answer.to_string().into_response()
}

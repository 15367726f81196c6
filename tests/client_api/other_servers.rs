//! Requests of other servers: what proves who they are, and the files that they are given.
//!
//! Attack cases T01 to T09 as far as requests without a body go.

use std::sync::{Arc, Mutex};

use axum::{Router, extract::State, response::IntoResponse, routing::get};
use causerie::config::RateLimit;
use http::{Method, Request, StatusCode};
use ruma::{
    CanonicalJsonObject, OwnedServerName, ServerName,
    api::federation::authentication::{XMatrix, XMatrixSigningInput},
    serde::Base64,
    signatures::{Ed25519KeyPair, sign_json},
};
use serde_json::{Value, json};

use crate::harness::{
    Answer, TestServer,
    origin::{Origin, authority},
};

const FILE: &str = "/_matrix/federation/v1/media/download/nosuchfile";
/// What the test servers' clock shows at the start.
const NOW: u64 = 1_800_000_000_000;
const DAY: u64 = 24 * 60 * 60 * 1000;

/// Another server, whose keys can be asked for.
struct Evil {
    origin: Origin,
    key_pair: Ed25519KeyPair,
    /// What it answers when asked for its keys; none: an error.
    published: Arc<Mutex<Option<Value>>>,
}

impl Evil {
    async fn new() -> Self {
        let published = Arc::<Mutex<Option<Value>>>::default();
        let router = Router::new()
            .route("/_matrix/key/v2/server", get(keys))
            .with_state(Arc::clone(&published));
        let origin = Origin::start(router).await;
        let evil = Self { origin, key_pair: key_pair("1"), published };
        evil.publish(evil.document(NOW + DAY));
        evil
    }

    fn name(&self) -> OwnedServerName {
        self.origin.name()
    }

    fn publish(&self, document: Value) {
        *self.published.lock().unwrap() = Some(document);
    }

    /// Its keys, not signed.
    fn unsigned(&self, valid_until_ts: u64) -> Value {
        let key = Base64::<ruma::serde::base64::Standard>::new(self.key_pair.public_key().to_vec());
        json!({
            "server_name": self.name(),
            "verify_keys": { "ed25519:1": { "key": key } },
            "old_verify_keys": {},
            "valid_until_ts": valid_until_ts,
        })
    }

    fn document(&self, valid_until_ts: u64) -> Value {
        self.signed(self.unsigned(valid_until_ts))
    }

    fn signed(&self, document: Value) -> Value {
        let mut object: CanonicalJsonObject = serde_json::from_value(document).unwrap();
        sign_json(self.name().as_str(), &self.key_pair, &mut object).unwrap();
        serde_json::to_value(object).unwrap()
    }

    /// What it says to prove who it is.
    fn proof(&self, method: &Method, target: &str, destination: &str) -> String {
        let mut request = Request::new(Vec::new());
        *request.method_mut() = method.clone();
        *request.uri_mut() = target.parse().unwrap();
        let destination = ServerName::parse(destination).unwrap();
        let input = XMatrixSigningInput::new(self.name(), destination, &self.key_pair);
        XMatrix::sign_http_request(&request, input).unwrap().to_string()
    }

    /// A request as it should be.
    async fn get(&self, server: &TestServer, target: &str) -> Answer {
        let proof = self.proof(&Method::GET, target, "example.org");
        server.get(target).header("authorization", &proof).send().await
    }
}

async fn keys(State(published): State<Arc<Mutex<Option<Value>>>>) -> impl IntoResponse {
    match &*published.lock().unwrap() {
        Some(document) => document.to_string().into_response(),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn key_pair(version: &str) -> Ed25519KeyPair {
    Ed25519KeyPair::from_der(&Ed25519KeyPair::generate(), version.to_owned()).unwrap()
}

/// A server that can ask others on loopback.
async fn server() -> TestServer {
    TestServer::with(|config| {
        config.egress.allowed_networks = vec!["127.0.0.1".parse().unwrap()];
        config.egress.trusted_certificates = vec![authority()];
    })
    .await
}

const UNAUTHORIZED: (u16, &str) = (401, "M_UNAUTHORIZED");
/// What a server learns that has proven who it is: there is no such file.
const KNOWN: (u16, &str) = (404, "M_NOT_FOUND");

/// Attack cases T01 to T03, T05, T06, T11.
#[tokio::test]
async fn t01_to_t11_only_what_was_signed_is_answered() {
    let (server, evil) = (server().await, Evil::new().await);
    assert_eq!(server.get(FILE).send().await.outcome(), UNAUTHORIZED);
    server.get("/_matrix/federation/v1/version").send().await.ok();
    server.get("/_matrix/key/v2/server").send().await.ok();
    assert_eq!(evil.get(&server, FILE).await.outcome(), KNOWN);
    let good = evil.proof(&Method::GET, FILE, "example.org");
    let with = async |target: &str, proof: &str| {
        let answer = server.get(target).header("authorization", proof).send().await;
        let (status, errcode) = answer.outcome();
        (status, errcode.to_owned())
    };
    let refused = (401, "M_UNAUTHORIZED".to_owned());
    // T02: another destination, said or signed.
    let other = evil.proof(&Method::GET, FILE, "other.example");
    assert_eq!(with(FILE, &other).await, refused);
    assert_eq!(with(FILE, &other.replace("other.example", "example.org")).await, refused);
    // T03: the destination is signed but not said.
    let unsaid = good.replace("destination=example.org,", "");
    assert_ne!(unsaid, good);
    assert_eq!(with(FILE, &unsaid).await, (404, "M_NOT_FOUND".to_owned()));
    // T05, T06: another query, another spelling, another address, another method.
    for target in [
        format!("{FILE}?timeout_ms=1"),
        FILE.replace("nosuchfile", "nosuch%66ile"),
        FILE.replace("nosuchfile", "nosuchfild"),
    ] {
        assert_eq!(with(&target, &good).await, refused, "{target}");
    }
    let put = evil.proof(&Method::PUT, FILE, "example.org");
    assert_eq!(with(FILE, &put).await, refused);
    // T11: our own name.
    let own = good.replace(evil.name().as_str(), "example.org");
    assert_ne!(own, good);
    assert_eq!(with(FILE, &own).await, refused);
    // A key of another name, and what is no proof at all.
    assert_eq!(with(FILE, &good.replace("ed25519:1", "ed25519:2")).await, refused);
    for proof in ["X-Matrix", "X-Matrix origin=a", "Bearer abc", "X-Matrix ,,,", "é"] {
        assert_eq!(with(FILE, proof).await, refused, "{proof}");
    }
    let twice = server.get(FILE).header("authorization", &good);
    assert_eq!(twice.also("authorization", &good).send().await.outcome(), UNAUTHORIZED);
}

/// Attack case T102: who uses the name of a server learns nothing of what names lead to here.
#[tokio::test]
async fn t102_nothing_is_told_of_our_network() {
    let (server, evil) = (TestServer::new().await, Evil::new().await);
    let proof = evil.proof(&Method::GET, FILE, "example.org");
    for name in [evil.name().as_str(), "localhost:8448", "10.0.0.1:8448", "1.1.1.1:22"] {
        let proof = proof.replace(evil.name().as_str(), name);
        let answer = server.get(FILE).header("authorization", &proof).send().await;
        assert_eq!(answer.outcome(), UNAUTHORIZED);
        let expected = format!("The keys of {name} cannot be had: it cannot be reached");
        assert!(answer.text.contains(&expected), "{}", answer.text);
    }
    assert_eq!(evil.origin.connections(), 0);
}

/// Attack case T10: forms that RFC 9110 allows.
#[tokio::test]
async fn t10_all_legal_forms_of_the_header_are_understood() {
    let (server, evil) = (server().await, Evil::new().await);
    let proof = evil.proof(&Method::GET, FILE, "example.org");
    let signed = XMatrix::parse(&proof).unwrap();
    let (origin, key, sig) = (&signed.origin, &signed.key, signed.sig.encode());
    for proof in [
        format!(r#"X-Matrix origin="{origin}",destination="example.org",key="{key}",sig="{sig}""#),
        format!(r#"x-matrix ORIGIN="{origin}" , Key="{key}",	SIG="{sig}""#),
        format!(r#"X-Matrix origin={origin},key={key},sig="{sig}",unknown="a\"b""#),
        format!(r#"X-Matrix   sig="{sig}",key="ed25519\:1",origin="{origin}""#),
    ] {
        let answer = server.get(FILE).header("authorization", &proof).send().await;
        assert_eq!(answer.outcome(), KNOWN, "{proof}");
    }
    let twice = format!(r#"X-Matrix origin="{origin}",origin="a",key="{key}",sig="{sig}""#);
    let answer = server.get(FILE).header("authorization", &twice).send().await;
    assert_eq!(answer.outcome(), UNAUTHORIZED);
}

/// Attack case T07.
#[tokio::test]
async fn t07_an_old_key_signs_no_request() {
    let (server, evil) = (server().await, Evil::new().await);
    let mut document = evil.unsigned(NOW + DAY);
    let old = document["verify_keys"]["ed25519:1"]["key"].clone();
    document["old_verify_keys"] = json!({ "ed25519:1": { "key": old, "expired_ts": NOW + DAY } });
    let new = key_pair("2");
    let key = Base64::<ruma::serde::base64::Standard>::new(new.public_key().to_vec());
    document["verify_keys"] = json!({ "ed25519:2": { "key": key } });
    let mut object: CanonicalJsonObject = serde_json::from_value(document).unwrap();
    sign_json(evil.name().as_str(), &new, &mut object).unwrap();
    evil.publish(serde_json::to_value(object).unwrap());
    assert_eq!(evil.get(&server, FILE).await.outcome(), UNAUTHORIZED);
}

/// Attack case T08.
#[tokio::test]
async fn t08_a_key_is_believed_a_week_at_most() {
    let (server, evil) = (server().await, Evil::new().await);
    evil.publish(evil.document(NOW - 1));
    assert_eq!(evil.get(&server, FILE).await.outcome(), UNAUTHORIZED);
    // Not asked again at once.
    evil.publish(evil.document(NOW + 3650 * DAY));
    assert_eq!(evil.get(&server, FILE).await.outcome(), UNAUTHORIZED);
    server.pass(61);
    assert_eq!(evil.get(&server, FILE).await.outcome(), KNOWN);
    // After half of its time it is read again, but still believed.
    *evil.published.lock().unwrap() = None;
    server.pass(6 * 24 * 60 * 60);
    assert_eq!(evil.get(&server, FILE).await.outcome(), KNOWN);
    server.pass(24 * 60 * 60);
    assert_eq!(evil.get(&server, FILE).await.outcome(), UNAUTHORIZED);
}

/// Attack case T09.
#[tokio::test]
async fn t09_keys_that_are_not_signed_by_their_server_are_none() {
    let evil = Evil::new().await;
    let good = evil.document(NOW + DAY);
    let change = |change: &dyn Fn(&mut Value)| {
        let mut document = good.clone();
        change(&mut document);
        document
    };
    let name = evil.name();
    let documents = [
        change(&|document| document["signatures"] = json!({})),
        change(&|document| drop(document.as_object_mut().unwrap().remove("signatures"))),
        change(&|document| {
            let own = document["signatures"][name.as_str()].take();
            document["signatures"] = json!({ "other.example": own });
        }),
        change(&|document| document["signatures"][name.as_str()] = json!({})),
        change(&|document| document["server_name"] = json!("other.example")),
        change(&|document| document["valid_until_ts"] = json!(NOW + 2 * DAY)),
        evil.signed(change(&|document| document["server_name"] = json!("other.example"))),
        evil.signed(change(&|document| document["verify_keys"] = json!({}))),
        json!([]),
    ];
    for document in documents {
        let server = server().await;
        evil.publish(document.clone());
        assert_eq!(evil.get(&server, FILE).await.outcome(), UNAUTHORIZED, "{document}");
    }
    // The same name for another key, while the first one is valid.
    let server = server().await;
    evil.publish(good);
    assert_eq!(evil.get(&server, FILE).await.outcome(), KNOWN);
    let other = Evil { key_pair: key_pair("1"), ..evil };
    other.publish(other.document(NOW + DAY));
    server.pass(13 * 60 * 60);
    assert_eq!(other.get(&server, FILE).await.outcome(), UNAUTHORIZED);
}

#[tokio::test]
async fn files_of_users_are_given_to_servers_alone() {
    let (server, evil) = (server().await, Evil::new().await);
    let alice = server.client("alice").await;
    let upload = alice.call(Method::POST, "/_matrix/media/v3/upload?filename=a%22b.txt");
    let uploaded = upload.header("content-type", "text/html").body(*b"<hello>").send().await.ok();
    let uri = uploaded["content_uri"].as_str().unwrap();
    let media_id = uri.strip_prefix("mxc://example.org/").unwrap();
    let target = format!("/_matrix/federation/v1/media/download/{media_id}?timeout_ms=100");
    let answer = evil.get(&server, &target).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let content_type = answer.headers["content-type"].to_str().unwrap();
    let boundary = content_type.strip_prefix("multipart/mixed; boundary=").unwrap();
    let expected = format!(
        "--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n\
         --{boundary}\r\nContent-Type: text/html\r\n\
         Content-Disposition: attachment; filename*=UTF-8''a%22b.txt\r\n\r\n<hello>\r\n\
         --{boundary}--\r\n"
    );
    assert_eq!(answer.text, expected);
    assert_eq!(answer.headers["content-length"], expected.len().to_string());
    // Not to be seen as a picture; and there is nothing without a proof, or of another server.
    let thumbnail = target.replace("download", "thumbnail").replace("timeout_ms", "width=9&height");
    let answer = evil.get(&server, &thumbnail).await;
    assert!(answer.status.is_client_error(), "{}", answer.text);
    let missing = evil.get(&server, &FILE.replace("download", "thumbnail")).await;
    assert_eq!(missing.outcome(), (400, "M_MISSING_PARAM"));
    assert_eq!(server.get(&target).send().await.outcome(), UNAUTHORIZED);
    let odd = evil.get(&server, &target.replace(media_id, "a%2fb")).await;
    assert_eq!(odd.outcome(), (400, "M_INVALID_PARAM"));
}

#[tokio::test]
async fn the_operator_says_whom_the_server_talks_with() {
    let (evil, other) = (Evil::new().await, Evil::new().await);
    let name = evil.name();
    let server = TestServer::with(|config| {
        config.egress.allowed_networks = vec!["127.0.0.1".parse().unwrap()];
        config.egress.trusted_certificates = vec![authority()];
        config.federation.allowed_servers = vec![name];
    })
    .await;
    assert_eq!(evil.get(&server, FILE).await.outcome(), KNOWN);
    assert_eq!(other.get(&server, FILE).await.outcome(), (403, "M_FORBIDDEN"));
    let alice = server.client("alice").await;
    let path = format!("v1/media/download/{}/abc", other.name());
    assert_eq!(alice.get(&path).await.outcome(), KNOWN);
    assert_eq!(other.origin.connections(), 0, "nobody asked it");
    let server = TestServer::with(|config| config.federation.enabled = false).await;
    assert_eq!(evil.get(&server, FILE).await.outcome(), (404, "M_UNRECOGNIZED"));
}

#[tokio::test]
async fn one_server_may_not_ask_for_everything_at_once() {
    let server = TestServer::with(|config| {
        config.egress.allowed_networks = vec!["127.0.0.1".parse().unwrap()];
        config.egress.trusted_certificates = vec![authority()];
        config.rate_limits.enabled = true;
        config.rate_limits.federation_requests = RateLimit::new(0.001, 2);
    })
    .await;
    let (evil, other) = (Evil::new().await, Evil::new().await);
    for expected in [KNOWN, KNOWN, (429, "M_LIMIT_EXCEEDED")] {
        assert_eq!(evil.get(&server, FILE).await.outcome(), expected);
    }
    assert_eq!(other.get(&server, FILE).await.outcome(), KNOWN);
}

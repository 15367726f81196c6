//! Requests to other servers, which are routers behind TLS on loopback.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    response::{IntoResponse, Redirect},
    routing::get,
};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use parking_lot::Mutex;
use ruma::{
    CanonicalJsonObject, MilliSecondsSinceUnixEpoch, ServerName, UInt,
    api::federation::authentication::XMatrix,
    serde::Base64,
    server_name,
    signatures::{Ed25519KeyPair, PublicKeyMap, PublicKeySet, sign_json},
};
use serde_json::json;
use tokio::sync::Notify;

use super::{
    client::{Federation, FederationError},
    discovery::{Discovered, Discovery},
    dns::{Dns, Target},
    origin::{self, Origin},
    remote_media::RemoteFile,
    server_keys::Signer,
};
use crate::{
    config::{EgressConfig, FederationConfig},
    egress::{Egress, EgressError},
    time::Clock,
};

/// An egress that may reach loopback.
fn egress() -> Egress {
    let config = EgressConfig {
        allowed_networks: vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()],
        trusted_certificates: vec![origin::authority()],
        ..EgressConfig::default()
    };
    Egress::new(&config).unwrap()
}

fn clock() -> Clock {
    Clock::manual(MilliSecondsSinceUnixEpoch(UInt::from(1_700_000_000_u32)))
}

fn signer() -> Arc<Signer> {
    let key_pair = Ed25519KeyPair::from_der(&Ed25519KeyPair::generate(), "1".into()).unwrap();
    Arc::new(Signer { server_name: server_name!("hs1").to_owned(), key_pair })
}

fn made(egress: Egress, signer: Arc<Signer>, clock: Clock) -> Federation {
    Federation::new(egress, FederationConfig::default(), signer, clock)
}

fn federation() -> (Federation, Clock, Arc<Signer>) {
    let (clock, signer) = (clock(), signer());
    (made(egress(), Arc::clone(&signer), clock.clone()), clock, signer)
}

/// What a router was asked.
type Seen = Arc<Mutex<Vec<(String, HeaderMap)>>>;

async fn seeing(State(seen): State<Seen>, request: Request) -> impl IntoResponse {
    seen.lock().push((request.uri().to_string(), request.headers().clone()));
    parts("text/plain", "hello")
}

/// A file as the specification has it.
fn parts(content_type: &str, content: &str) -> impl IntoResponse + use<> {
    let body = format!(
        "\r\n--b\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--b\r\n\
         Content-Type: {content_type}\r\n\
         Content-Disposition: attachment; filename=\"a b.txt\"\r\n\r\n{content}\r\n--b--\r\n"
    );
    ([(header::CONTENT_TYPE, "multipart/mixed; boundary=b")], body)
}

async fn read(mut file: RemoteFile) -> Result<Vec<u8>, FederationError> {
    let mut content = Vec::new();
    while let Some(chunk) = file.chunk().await? {
        content.extend_from_slice(&chunk);
    }
    Ok(content)
}

/// Opens and reads a file of a server.
async fn fetch(
    federation: &Federation,
    server: &ServerName,
    media_id: &str,
) -> Result<Vec<u8>, FederationError> {
    read(federation.open_media(server, media_id, 100_000).await?).await
}

#[tokio::test]
async fn a_request_is_signed_for_its_destination() {
    let seen = Seen::default();
    let router = Router::new().fallback(seeing).with_state(Arc::clone(&seen));
    let origin = Origin::start(router).await;
    let (federation, _, signer) = federation();
    let file = federation.open_media(&origin.name(), "abc", 100).await.unwrap();
    assert_eq!(file.content_type.as_deref(), Some("text/plain"));
    assert_eq!(file.file_name.as_deref(), Some("a b.txt"));
    assert!(file.size_bytes_max.unwrap() > 5);
    assert_eq!(read(file).await.unwrap(), b"hello");
    let (target, headers) = seen.lock().pop().unwrap();
    assert_eq!(target, "/_matrix/federation/v1/media/download/abc");
    assert_eq!(headers[header::HOST], origin.name().as_str());
    let mut request = http::Request::get(format!("https://unknown{target}")).body(Bytes::new());
    *request.as_mut().unwrap().headers_mut() = headers;
    let proof = XMatrix::extract_from_http_headers(request.as_ref().unwrap().headers()).unwrap();
    assert_eq!(proof.destination.as_ref(), Some(&origin.name()));
    let key = Base64::new(signer.key_pair.public_key().to_vec());
    let keys = PublicKeySet::from([("ed25519:1".to_owned(), key)]);
    let keys = PublicKeyMap::from([("hs1".to_owned(), keys)]);
    proof.verify_http_request(request.as_ref().unwrap(), server_name!("hs1"), &keys).unwrap_err();
    proof.verify_http_request(request.as_ref().unwrap(), &origin.name(), &keys).unwrap();
}

#[tokio::test]
async fn a_file_may_lie_elsewhere_and_old_servers_are_asked_as_before() {
    let router = Router::new()
        .route(
            "/_matrix/federation/v1/media/download/elsewhere",
            get(|State(port): State<Arc<Mutex<u16>>>| async move {
                let body = format!(
                    "--b\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--b\r\n\
                     Location: https://localhost:{}/there\r\n\r\n\r\n--b--",
                    port.lock()
                );
                ([(header::CONTENT_TYPE, "multipart/mixed; boundary=\"b\"")], body)
            }),
        )
        .route("/there", get(|| async { Redirect::temporary("/here") }))
        .route("/here", get(|| async { "from there" }))
        .route("/_matrix/media/v3/download/{origin}/old", get(|| async { "of old" }))
        .route(
            "/_matrix/federation/v1/media/download/moved",
            get(|| async { Redirect::temporary("/here") }),
        )
        .fallback(|| async {
            (StatusCode::NOT_FOUND, json!({ "errcode": "M_UNRECOGNIZED" }).to_string())
        });
    let port = Arc::<Mutex<u16>>::default();
    let origin = Origin::start(router.with_state(Arc::clone(&port))).await;
    *port.lock() = origin.port();
    let (federation, ..) = federation();
    let name = origin.name();
    assert_eq!(fetch(&federation, &name, "elsewhere").await.unwrap(), b"from there");
    assert_eq!(fetch(&federation, &name, "old").await.unwrap(), b"of old");
    // T102: what is signed goes nowhere else.
    let moved = fetch(&federation, &name, "moved").await;
    let status = StatusCode::TEMPORARY_REDIRECT;
    assert!(matches!(moved, Err(FederationError::Refused { status: s, .. }) if s == status));
    let none = fetch(&federation, &name, "none").await;
    assert!(
        matches!(none, Err(FederationError::Refused { errcode, .. }) if errcode == "M_UNRECOGNIZED")
    );
}

#[tokio::test]
async fn files_are_bounded_and_broken_ones_refused() {
    let router = Router::new()
        .route(
            "/_matrix/federation/v1/media/download/{id}",
            get(|axum::extract::Path(id): axum::extract::Path<String>| async move {
                let head = "--b\r\nContent-Type: application/json\r\n\r\n".to_owned();
                let body = match id.as_str() {
                    // Larger than its Content-Length would have to say.
                    "large" => return parts("a/b", &"x".repeat(200_000)).into_response(),
                    "preamble" => "x".repeat(150_000),
                    "metadata" => head + &"x".repeat(150_000),
                    "one" => format!("{head}{{}}\r\n--b--\r\n"),
                    "cut" => format!("{head}{{}}\r\n--b\r\n\r\nhell"),
                    _ => "hello".to_owned(),
                };
                ([(header::CONTENT_TYPE, "multipart/mixed; boundary=b")], body).into_response()
            }),
        )
        .route("/_matrix/federation/v1/media/download/plain", get(|| async { "hello" }));
    let origin = Origin::start(router).await;
    let (federation, ..) = federation();
    for id in ["preamble", "metadata", "one", "cut", "plain", "other"] {
        let outcome = fetch(&federation, &origin.name(), id).await;
        assert!(matches!(outcome, Err(FederationError::BadAnswer(_))), "{id}: {outcome:?}");
    }
    let large = fetch(&federation, &origin.name(), "large").await;
    assert!(matches!(large, Err(FederationError::Egress(EgressError::TooLarge))), "{large:?}");
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_left_alone_for_a_while() {
    let origin = Origin::start(Router::new().fallback(|| async { parts("a/b", "hello") })).await;
    let (federation, clock, _) = federation();
    let name = origin.name();
    drop(origin);
    // Whoever has its port now speaks no TLS.
    let outcome = fetch(&federation, &name, "abc").await;
    assert!(matches!(outcome, Err(FederationError::Egress(_))), "{outcome:?}");
    let outcome = fetch(&federation, &name, "abc").await;
    assert!(matches!(outcome, Err(FederationError::BackingOff(_))), "{outcome:?}");
    clock.advance(Duration::from_secs(7));
    let outcome = fetch(&federation, &name, "abc").await;
    assert!(matches!(outcome, Err(FederationError::Egress(_))), "{outcome:?}");
    clock.advance(Duration::from_secs(7));
    let outcome = fetch(&federation, &name, "abc").await;
    assert!(matches!(outcome, Err(FederationError::BackingOff(_))), "{outcome:?}");
}

/// A name that stands for another by `.well-known` or by the DNS, and nobody else.
struct Named {
    discovery: Discovery,
    clock: Clock,
}

impl Named {
    /// Where `.well-known` files are read from a router.
    fn new(well_known: &Origin, targets: Vec<Target>) -> Self {
        let clock = clock();
        let mut discovery = Discovery::new(egress(), clock.clone());
        discovery.in_test(Dns::Fixed(targets), well_known.port());
        Self { discovery, clock }
    }

    /// The URL and the `Host` of all ways.
    async fn ways(&self, server: &str, known: &mut Discovered) -> Vec<(String, String)> {
        let server = ServerName::parse(server).unwrap();
        let ways = self.discovery.ways(&server, known).await.unwrap();
        let said = |way: &super::discovery::Way| {
            (way.url.to_string(), way.host.to_str().unwrap().to_owned())
        };
        ways.iter().map(said).collect()
    }
}

fn said(url: &str, host: &str) -> Vec<(String, String)> {
    vec![(url.to_owned(), host.to_owned())]
}

/// A router with one `.well-known` file.
fn well_known(answer: impl IntoResponse + Clone + Send + Sync + 'static) -> Router {
    Router::new()
        .route("/.well-known/matrix/server", get(move || async move { answer }))
        .route("/moved", get(|| async { r#"{"m.server": "moved.test:1"}"# }))
}

#[tokio::test]
async fn a_name_is_found_as_the_specification_says() {
    let target = |port| Target { host: "localhost".into(), port };
    let none = Origin::start(Router::new()).await;
    let named = Named::new(&none, vec![]);
    let new = Discovered::default;
    // 1 and 2: addresses.
    assert_eq!(named.ways("1.2.3.4", &mut new()).await, said("https://1.2.3.4:8448/", "1.2.3.4"));
    assert_eq!(named.ways("[::2]:5", &mut new()).await, said("https://[::2]:5/", "[::2]:5"));
    let port = said("https://localhost:7000/", "localhost:7000");
    assert_eq!(named.ways("localhost:7000", &mut new()).await, port);
    // 6: nothing is said of the name.
    let plain = said("https://localhost:8448/", "localhost");
    assert_eq!(named.ways("localhost", &mut new()).await, plain);
    // 4: a record of the service.
    let named = Named::new(&none, vec![target(1111), target(2222)]);
    let ways = named.ways("localhost", &mut new()).await;
    let urls: Vec<&str> = ways.iter().map(|(url, _)| url.as_str()).collect();
    assert_eq!(urls, ["https://localhost:1111/", "https://localhost:2222/"]);
    assert_eq!(ways[0].1, "localhost");
    // 3: a delegation, to an address, to a host with a port, to one with a record.
    for (server, url, host) in [
        ("127.0.0.1", "https://127.0.0.1:8448/", "127.0.0.1"),
        ("other.test:99", "https://other.test:99/", "other.test:99"),
        ("remote.test", "https://remote.test:1111/", "remote.test"),
    ] {
        let file = json!({ "m.server": server }).to_string();
        let origin = Origin::start(well_known(file)).await;
        let named = Named::new(&origin, vec![target(1111)]);
        assert_eq!(named.ways("localhost", &mut new()).await, said(url, host));
    }
    let origin = Origin::start(well_known(Redirect::temporary("/moved"))).await;
    let named = Named::new(&origin, vec![]);
    let moved = said("https://moved.test:1/", "moved.test:1");
    assert_eq!(named.ways("localhost", &mut new()).await, moved);
}

#[tokio::test]
async fn a_record_leads_to_another_host_that_proves_the_name() {
    let origin = Origin::start(Router::new().fallback(|| async { parts("a/b", "hello") })).await;
    for (name, works) in [("remote.test", true), ("other.test", false)] {
        let (mut federation, ..) = federation();
        let record = Target { host: "localhost".into(), port: origin.port() };
        let parts = Arc::get_mut(&mut federation.0).unwrap();
        // No well-known file: nobody can reach that port.
        parts.discovery.in_test(Dns::Fixed(vec![record]), 1);
        let outcome = fetch(&federation, ServerName::parse(name).unwrap().as_ref(), "abc").await;
        assert_eq!(outcome.is_ok(), works, "{name}: {outcome:?}");
    }
}

/// Attack case T96.
#[tokio::test]
async fn t96_a_hostile_well_known_costs_little_and_leads_nowhere() {
    let plain = said("https://localhost:8448/", "localhost");
    let huge = "x".repeat(1 << 20);
    let file = |server: &str| json!({ "m.server": server }).to_string();
    let routers = [
        well_known(huge),
        well_known(Redirect::temporary("/.well-known/matrix/server")),
        well_known(Redirect::temporary("http://localhost/")),
        well_known(Redirect::temporary("https://127.0.0.2:1111/")),
        well_known("{}"),
        well_known(file("a b")),
        well_known((StatusCode::NOT_FOUND, file("found.test"))),
    ];
    for router in routers {
        let origin = Origin::start(router).await;
        let named = Named::new(&origin, vec![]);
        let mut known = Discovered::default();
        assert_eq!(named.ways("localhost", &mut known).await, plain);
        let asked = origin.connections();
        // Neither at once, nor much later, is it asked again.
        for _ in 0..3 {
            named.clock.advance(Duration::from_mins(1));
            assert_eq!(named.ways("localhost", &mut known).await, plain);
        }
        assert_eq!(origin.connections(), asked);
    }
}

/// Attack case T102: neither a name nor what it stands for leads inside.
#[tokio::test]
async fn t102_no_name_leads_inside() {
    let canary = Origin::start(Router::new().fallback(|| async { "caught" })).await;
    let config =
        EgressConfig { trusted_certificates: vec![origin::authority()], ..EgressConfig::default() };
    let egress = Egress::new(&config).unwrap();
    let names = [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "10.0.0.1",
        "169.254.169.254",
        "0.0.0.0",
    ];
    for name in names {
        let mut federation = made(egress.clone(), signer(), clock());
        Arc::get_mut(&mut federation.0).unwrap().discovery.in_test(Dns::Fixed(vec![]), 1);
        let name = ServerName::parse(format!("{name}:{}", canary.port())).unwrap();
        let outcome = fetch(&federation, &name, "abc").await;
        let blocked = matches!(outcome, Err(FederationError::Egress(EgressError::Blocked(_))));
        assert!(blocked, "{name}: {outcome:?}");
    }
    // The same by a record, and by a port that speaks something else.
    let mut federation = made(egress.clone(), signer(), clock());
    let record = Target { host: "localhost".into(), port: canary.port() };
    Arc::get_mut(&mut federation.0).unwrap().discovery.in_test(Dns::Fixed(vec![record]), 1);
    for name in ["remote.test", "1.1.1.1:22"] {
        let outcome = fetch(&federation, ServerName::parse(name).unwrap().as_ref(), "abc").await;
        let blocked = matches!(outcome, Err(FederationError::Egress(EgressError::Blocked(_))));
        assert!(blocked, "{name}: {outcome:?}");
    }
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn a_delegation_is_kept_as_long_as_it_says_and_a_while_longer() {
    let fails = Arc::<Mutex<bool>>::default();
    let router = Router::new()
        .route(
            "/.well-known/matrix/server",
            get(|State(fails): State<Arc<Mutex<bool>>>| async move {
                if *fails.lock() {
                    return StatusCode::INTERNAL_SERVER_ERROR.into_response();
                }
                let body = r#"{"m.server": "other.test:99"}"#;
                ([(header::CACHE_CONTROL, "public, max-age=600")], body).into_response()
            }),
        )
        .with_state(Arc::clone(&fails));
    let origin = Origin::start(router).await;
    let named = Named::new(&origin, vec![]);
    let mut known = Discovered::default();
    let other = said("https://other.test:99/", "other.test:99");
    assert_eq!(named.ways("localhost", &mut known).await, other);
    *fails.lock() = true;
    named.clock.advance(Duration::from_mins(11));
    assert_eq!(named.ways("localhost", &mut known).await, other);
    named.clock.advance(Duration::from_hours(49));
    let plain = said("https://localhost:8448/", "localhost");
    assert_eq!(named.ways("localhost", &mut known).await, plain);
    *fails.lock() = false;
    named.clock.advance(Duration::from_hours(2));
    assert_eq!(named.ways("localhost", &mut known).await, other);
}

/// A server that publishes keys as a test says, with those who ask held while a test wants that.
#[derive(Clone, Default)]
struct Publisher {
    document: Arc<Mutex<Option<CanonicalJsonObject>>>,
    is_asked: Arc<Notify>,
    held: Arc<tokio::sync::Mutex<()>>,
}

impl Publisher {
    async fn start(&self) -> Origin {
        let router = Router::new().route("/_matrix/key/v2/server", get(published));
        Origin::start(router.with_state(self.clone())).await
    }

    /// Publishes keys under these ids, all of them the same one, and others.
    fn publish(&self, server: &ServerName, ids: &[&str], others: &serde_json::Value) {
        let der = Ed25519KeyPair::generate();
        let (_, version) = ids[0].split_once(':').unwrap();
        let pair = Ed25519KeyPair::from_der(&der, version.to_owned()).unwrap();
        let key = Base64::<ruma::serde::base64::Standard>::new(pair.public_key().to_vec());
        let mut keys = others.clone();
        for id in ids {
            keys[*id] = json!({ "key": key });
        }
        let document = json!({
            "server_name": server,
            "verify_keys": keys,
            "valid_until_ts": u64::from(u32::MAX) * 1000,
        });
        let mut document = serde_json::from_value(document).unwrap();
        sign_json(server.as_str(), &pair, &mut document).unwrap();
        *self.document.lock() = Some(document);
    }
}

async fn published(State(publisher): State<Publisher>) -> impl IntoResponse {
    publisher.is_asked.notify_one();
    drop(publisher.held.lock().await);
    serde_json::to_string(&*publisher.document.lock()).unwrap()
}

/// Attack case T07: a key that its server lists no more is not believed until it would expire.
#[tokio::test]
async fn t07_a_key_that_is_taken_back_is_believed_no_more() {
    let publisher = Publisher::default();
    let origin = publisher.start().await;
    let (federation, clock, _) = federation();
    let name = origin.name();
    publisher.publish(&name, &["ed25519:1"], &json!({}));
    assert!(federation.verify_key(&name, "ed25519:1").await.unwrap().is_some());
    publisher.publish(&name, &["ed25519:2"], &json!({}));
    clock.advance(Duration::from_secs(61));
    assert!(federation.verify_key(&name, "ed25519:2").await.unwrap().is_some());
    assert!(federation.verify_key(&name, "ed25519:1").await.unwrap().is_none());
}

/// Attack case T09: what a server publishes takes little memory, and other kinds do not matter.
#[tokio::test]
async fn t09_keys_are_few_and_short() {
    let long = format!("ed25519:{}", "x".repeat(300));
    let many: Vec<String> = (0..17).map(|number| format!("ed25519:{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let cases = [
        (vec!["ed25519:1"], json!({ "other:1": { "shape": [1] } }), true),
        (vec!["ed25519:1", &long], json!({}), false),
        (vec!["ed25519:1"], json!({ "ed25519:2": { "key": "AAAA" } }), false),
        (many, json!({}), false),
    ];
    for (ids, others, works) in cases {
        let publisher = Publisher::default();
        let origin = publisher.start().await;
        let (federation, ..) = federation();
        publisher.publish(&origin.name(), &ids, &others);
        let outcome = federation.verify_key(&origin.name(), ids[0]).await;
        assert_eq!(outcome.is_ok(), works, "{ids:?} {others}: {outcome:?}");
    }
}

/// Whoever uses a server's name without its key does not keep that server waiting.
#[tokio::test]
async fn a_made_up_key_delays_no_real_one() {
    let publisher = Publisher::default();
    let origin = publisher.start().await;
    let (federation, clock, _) = federation();
    let name = origin.name();
    publisher.publish(&name, &["ed25519:1"], &json!({}));
    assert!(federation.verify_key(&name, "ed25519:1").await.unwrap().is_some());
    publisher.is_asked.notified().await;
    clock.advance(Duration::from_secs(61));
    let held = publisher.held.lock().await;
    let forged = tokio::spawn({
        let (federation, name) = (federation.clone(), name.clone());
        async move { federation.verify_key(&name, "ed25519:9").await }
    });
    publisher.is_asked.notified().await;
    assert!(federation.verify_key(&name, "ed25519:1").await.unwrap().is_some());
    assert!(!forged.is_finished());
    drop(held);
    assert!(forged.await.unwrap().unwrap().is_none());
}

#[tokio::test]
async fn requests_that_fail_together_count_as_one() {
    let (federation, clock, _) = federation();
    let name = ServerName::parse("127.0.0.1:1").unwrap();
    let peer = federation.peer(&name);
    for _ in 0..20 {
        peer.note(&Err(EgressError::Timeout.into()), clock.monotonic());
    }
    clock.advance(Duration::from_secs(7));
    let outcome = fetch(&federation, &name, "abc").await;
    assert!(matches!(outcome, Err(FederationError::Egress(_))), "{outcome:?}");
}

/// A server that was away for long comes back: it is heard when it asks, and asked from then on.
#[tokio::test]
async fn a_server_that_is_left_alone_is_heard() {
    let publisher = Publisher::default();
    let origin = publisher.start().await;
    let (federation, clock, _) = federation();
    let name = origin.name();
    publisher.publish(&name, &["ed25519:1"], &json!({}));
    let fails = || {
        let peer = federation.peer(&name);
        peer.note(&Err(EgressError::Timeout.into()), clock.monotonic());
    };
    fails();
    assert!(federation.verify_key(&name, "ed25519:1").await.unwrap().is_some());
    let is_asked = async || {
        let outcome = fetch(&federation, &name, "abc").await;
        !matches!(outcome, Err(FederationError::BackingOff(_)))
    };
    assert!(is_asked().await);
    // With a key that is known it is enough that it asks.
    fails();
    assert!(!is_asked().await);
    federation.heard_from(&name);
    assert!(is_asked().await);
}

/// A server that takes a request and says nothing keeps nobody for the time a large file may take.
#[tokio::test]
async fn a_server_that_never_begins_to_answer_is_given_up() {
    let router = Router::new()
        .route(
            "/_matrix/federation/v1/media/download/head",
            get(|| async {
                std::future::pending::<()>().await;
            }),
        )
        .fallback(|| async {
            let never = futures::stream::pending::<Result<Bytes, std::io::Error>>();
            let headers = [(header::CONTENT_TYPE, "multipart/mixed; boundary=b")];
            (headers, axum::body::Body::from_stream(never))
        });
    let origin = Origin::start(router).await;
    for id in ["head", "parts"] {
        let (mut federation, ..) = federation();
        Arc::get_mut(&mut federation.0).unwrap().head_duration_max = Duration::from_millis(200);
        let outcome = fetch(&federation, &origin.name(), id).await;
        let timeout = matches!(outcome, Err(FederationError::Egress(EgressError::Timeout)));
        assert!(timeout, "{id}: {outcome:?}");
    }
}

//! Files of other servers, which are routers behind TLS on loopback.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use causerie::{
    config::{Config, RateLimit},
    media::Media,
    storage::{
        rows::media::MediaKind,
        schema::media::{
            MEDIA, MEDIA_ACCESS, MediaKey, REMOTE_MEDIA_BY_USE, REMOTE_MEDIA_BYTES, RemoteUseKey,
        },
    },
};
use futures::{FutureExt, StreamExt, future::join_all};
use http::{Method, StatusCode, header};
use image::ImageFormat;
use kv::Direction;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Semaphore;

use super::media_thumbnails::{encoded, shape};
use crate::harness::{
    Answer, Client, TestServer,
    origin::{self, Origin},
};

const HOUR: u64 = 60 * 60;
const DAY: u64 = 24 * HOUR;

/// Another server with files.
struct Elsewhere {
    origin: Origin,
    state: Arc<Files>,
}

/// What it has, and what it was asked for.
struct Files {
    kept: Mutex<HashMap<String, Kept>>,
    asked: Mutex<Vec<String>>,
    /// One is added for each request that came.
    came: Semaphore,
    /// What requests wait for.
    may_answer: Semaphore,
}

#[derive(Clone)]
struct Kept {
    content_type: &'static str,
    disposition: &'static str,
    bytes: Bytes,
}

impl Elsewhere {
    async fn start() -> Self {
        let state = Arc::new(Files {
            kept: Mutex::default(),
            asked: Mutex::default(),
            came: Semaphore::new(0),
            may_answer: Semaphore::new(1_000),
        });
        let path = "/_matrix/federation/v1/media/download/{media_id}";
        let router = Router::new().route(path, get(answer)).with_state(Arc::clone(&state));
        Self { origin: Origin::start(router).await, state }
    }

    /// Puts a file there; gives its place.
    fn put(&self, media_id: &str, content_type: &'static str, bytes: impl Into<Bytes>) -> String {
        let disposition = "attachment; filename=\"a file\"";
        let kept = Kept { content_type, disposition, bytes: bytes.into() };
        self.state.kept.lock().insert(media_id.to_owned(), kept);
        self.place(media_id)
    }

    fn place(&self, media_id: &str) -> String {
        format!("{}/{media_id}", self.origin.name())
    }

    /// How often it was asked for anything.
    fn asked(&self) -> usize {
        self.state.asked.lock().len()
    }

    /// Lets requests wait from now on.
    fn hold(&self) {
        self.state.may_answer.forget_permits(usize::MAX);
    }

    fn release(&self) {
        self.state.may_answer.add_permits(1_000);
    }

    /// Waits until so many more requests have come.
    async fn wait_for(&self, count: u32) {
        self.state.came.acquire_many(count).await.unwrap().forget();
    }

    /// A server that may ask this one.
    async fn server(&self, change: impl FnOnce(&mut Config)) -> TestServer {
        TestServer::with(|config| {
            config.egress.allowed_networks = vec!["127.0.0.1".parse().unwrap()];
            config.egress.trusted_certificates = vec![origin::authority()];
            change(config);
        })
        .await
    }
}

async fn answer(State(files): State<Arc<Files>>, Path(media_id): Path<String>) -> Response {
    files.asked.lock().push(media_id.clone());
    files.came.add_permits(1);
    drop(files.may_answer.acquire().await);
    let refuse = |status: u16, errcode: &str| {
        let status = StatusCode::from_u16(status).unwrap();
        (status, json!({ "errcode": errcode, "error": "no" }).to_string()).into_response()
    };
    let kept = files.kept.lock().get(&media_id).cloned();
    match (media_id.as_str(), kept) {
        ("late", _) => refuse(504, "M_NOT_YET_UPLOADED"),
        ("forbidden", _) => refuse(403, "M_FORBIDDEN"),
        ("busy", _) => refuse(429, "M_LIMIT_EXCEEDED"),
        ("strange", _) => "no parts".into_response(),
        (_, None) => refuse(404, "M_NOT_FOUND"),
        (_, Some(kept)) => parts(&media_id, &kept),
    }
}

/// A file as the specification has it. `broken…` ends in the middle of it, and the length of
/// `unannounced…` is not told.
fn parts(media_id: &str, kept: &Kept) -> Response {
    let head = format!(
        "--b\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--b\r\nContent-Type: {}\r\n\
         Content-Disposition: {}\r\n\r\n",
        kept.content_type, kept.disposition
    );
    let body = [head.as_bytes(), &kept.bytes, b"\r\n--b--\r\n"].concat();
    let body = if media_id.starts_with("broken") {
        let half = Bytes::copy_from_slice(&body[..body.len() / 2]);
        Body::from_stream(futures::stream::iter([
            Ok(half),
            Err(std::io::Error::other("the connection breaks")),
        ]))
    } else if media_id.starts_with("unannounced") {
        let parts: Vec<Bytes> = body.chunks(10_000).map(Bytes::copy_from_slice).collect();
        Body::from_stream(futures::stream::iter(parts).map(Ok::<_, std::io::Error>))
    } else {
        Body::from(body)
    };
    ([(header::CONTENT_TYPE, "multipart/mixed; boundary=b")], body).into_response()
}

fn head<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers.get(name).map_or("", |value| value.to_str().unwrap())
}

fn seven(count: usize) -> Vec<u8> {
    vec![7; count]
}

/// No file that no row names, and no note of one; every copy is listed once, with their sum.
async fn is_tidy(server: &TestServer, files: usize) {
    assert_eq!(server.stored_files(), files);
    assert_eq!(server.server.media.tidy().await.unwrap(), 0);
    let reader = server.server.store.reader();
    let rows = reader.scan(&MEDIA, &MEDIA.prefix(&()), Direction::Forward, usize::MAX).unwrap();
    let mut expected: Vec<(RemoteUseKey, i64)> = Vec::new();
    for (MediaKey { origin, media_id }, kv::Json(row)) in rows {
        if row.kind != MediaKind::Remote || row.quarantined_ts.is_some() {
            continue;
        }
        let key = MediaKey { origin: origin.clone(), media_id: media_id.clone() };
        let read_ts = reader.get(&MEDIA_ACCESS, &key).unwrap().unwrap_or(0);
        let used_ts = row.created_ts.max(read_ts.try_into().unwrap());
        let key = RemoteUseKey { used_ts, origin, media_id };
        expected.push((key, row.size_bytes.try_into().unwrap()));
    }
    expected.sort_by_key(|one| one.0.used_ts);
    let range = REMOTE_MEDIA_BY_USE.prefix(&());
    let listed = reader.scan(&REMOTE_MEDIA_BY_USE, &range, Direction::Forward, usize::MAX);
    assert_eq!(listed.unwrap(), expected);
    let sum = reader.get(&REMOTE_MEDIA_BYTES, &()).unwrap().unwrap_or(0);
    assert_eq!(sum, expected.iter().map(|(_, size_bytes)| size_bytes).sum::<i64>());
}

#[tokio::test]
async fn a_file_of_another_server_is_fetched_once() {
    let elsewhere = Elsewhere::start().await;
    let server = elsewhere.server(|config| config.media.legacy_unauthenticated = true).await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let bytes: Vec<u8> = (0..700_000_u32).map(|number| (number / 251).to_le_bytes()[0]).collect();
    let place = elsewhere.put("video", "video/mp4", bytes.clone());
    // Who says nothing of themselves has nothing fetched.
    let legacy = format!("/_matrix/media/v3/download/{place}");
    assert_eq!(server.get(&legacy).send().await.outcome(), (404, "M_NOT_FOUND"));
    let answer = alice.get(&format!("v1/media/download/{place}?allow_remote=false")).await;
    assert_eq!(answer.outcome(), (404, "M_NOT_FOUND"));
    assert_eq!(elsewhere.asked(), 0);

    let answer = alice.download(&place).await;
    assert_eq!((answer.status, &answer.bytes[..]), (StatusCode::OK, &bytes[..]));
    assert_eq!(head(&answer, "content-type"), "video/mp4");
    assert_eq!(head(&answer, "content-length"), "700000");
    assert_eq!(head(&answer, "content-disposition"), "inline; filename=\"a file\"");
    // A part, another name, another user, and nobody: all of the copy.
    let path = format!("v1/media/download/{place}/my%20film.mp4");
    let part = bob.call(Method::GET, &path).header("range", "bytes=300000-300009").send().await;
    assert_eq!(part.status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.bytes, bytes[300_000..300_010]);
    assert_eq!(head(&part, "content-disposition"), "inline; filename=\"my film.mp4\"");
    assert_eq!(server.get(&legacy).send().await.bytes, bytes);
    assert_eq!(elsewhere.asked(), 1);
    assert_eq!(server.server.media.cached_bytes().await.unwrap(), 700_000);
    // The same content is stored once, whoever has it.
    bob.upload("video/mp4", bytes).await;
    is_tidy(&server, 1).await;
    // A part is enough to have all of it fetched.
    let place = elsewhere.put("text", "text/plain; charset=utf-8", "0123456789");
    let path = format!("v1/media/download/{place}");
    let part = bob.call(Method::GET, &path).header("range", "bytes=2-4").send().await;
    assert_eq!((part.status, &part.bytes[..]), (StatusCode::PARTIAL_CONTENT, &b"234"[..]));
    assert_eq!(&alice.download(&place).await.bytes[..], b"0123456789");
    assert_eq!(elsewhere.asked(), 2);
}

#[tokio::test]
async fn thumbnails_are_made_of_what_is_fetched() {
    let elsewhere = Elsewhere::start().await;
    let server = elsewhere.server(|config| config.media.legacy_unauthenticated = true).await;
    let alice = server.client("alice").await;
    let place = elsewhere.put("picture", "image/png", encoded(400, 200, ImageFormat::Png));
    let query = "width=96&height=96&method=crop";
    let legacy = format!("/_matrix/media/v3/thumbnail/{place}?{query}");
    assert_eq!(server.get(&legacy).send().await.outcome(), (404, "M_NOT_FOUND"));
    assert_eq!(elsewhere.asked(), 0);
    let path = format!("v1/media/thumbnail/{place}?{query}");
    let answer = alice.get(&path).await;
    let (_, width, height) = shape(&answer);
    assert_eq!((width, height), (96, 96));
    assert_eq!(server.get(&legacy).send().await.bytes, answer.bytes);
    alice.download(&place).await;
    assert_eq!(elsewhere.asked(), 1);
    let place = elsewhere.put("text", "image/png", "no picture");
    let answer = alice.get(&format!("v1/media/thumbnail/{place}?{query}")).await;
    assert_eq!(answer.outcome(), (400, "M_UNKNOWN"));
    // The thumbnail goes with its file.
    assert_eq!(server.stored_files(), 3);
    assert!(server.delete_media(&elsewhere.place("picture")).await);
    is_tidy(&server, 1).await;
}

#[tokio::test]
async fn guests_may_read_the_files_of_events() {
    let elsewhere = Elsewhere::start().await;
    let server = elsewhere.server(|config| config.registration.guests = true).await;
    let place = elsewhere.put("text", "text/plain", "x");
    let guest = server.post("v3/register?kind=guest", json!({})).send().await.ok();
    let token = guest["access_token"].as_str().unwrap();
    let answer = server.get(&format!("v1/media/download/{place}")).token(token).send().await;
    assert_eq!(&answer.bytes[..], b"x");
}

#[tokio::test]
async fn t106_t107_what_another_server_says_of_a_file_is_not_believed() {
    let elsewhere = Elsewhere::start().await;
    let server = elsewhere.server(|_| {}).await;
    let alice = server.client("alice").await;
    for (number, content_type) in ["text/html", "IMAGE/SVG+XML", "nonsense"].iter().enumerate() {
        let place = elsewhere.put(&format!("page{number}"), content_type, "<script>alert(1)");
        let answer = alice.download(&place).await;
        assert_eq!(head(&answer, "content-disposition"), "attachment; filename=\"a file\"");
        assert!(head(&answer, "content-security-policy").starts_with("sandbox;"));
        assert_eq!(head(&answer, "x-content-type-options"), "nosniff");
    }
    let answer = alice.download(&elsewhere.place("page2")).await;
    assert_eq!(head(&answer, "content-type"), "application/octet-stream");
    let place = elsewhere.put("named", "text/plain", "x");
    let disposition = "inline; filename*=utf-8''a%0D%0ASet-Cookie%3A%20b%E2%80%AEgpj.exe";
    elsewhere.state.kept.lock().get_mut("named").unwrap().disposition = disposition;
    let answer = alice.download(&place).await;
    assert!(answer.headers.get("set-cookie").is_none());
    let expected = "inline; filename=\"aSet-Cookie: bgpj.exe\"";
    assert_eq!(head(&answer, "content-disposition"), expected);
}

#[tokio::test]
async fn what_goes_wrong_elsewhere_is_told_and_nothing_is_kept() {
    let elsewhere = Elsewhere::start().await;
    let server = elsewhere.server(|config| config.media.remote_size_bytes_max = 300_000).await;
    let alice = server.client("alice").await;
    elsewhere.put("large", "text/plain", seven(500_000));
    elsewhere.put("unannounced-large", "text/plain", seven(500_000));
    elsewhere.put("unannounced-almost", "text/plain", seven(300_001));
    elsewhere.put("broken", "text/plain", seven(200_000));
    let cases = [
        ("missing", (404, "M_NOT_FOUND")),
        ("late", (504, "M_NOT_YET_UPLOADED")),
        ("forbidden", (502, "M_UNKNOWN")),
        ("busy", (502, "M_UNKNOWN")),
        ("strange", (502, "M_UNKNOWN")),
        ("large", (502, "M_TOO_LARGE")),
        ("unannounced-large", (502, "M_TOO_LARGE")),
        ("unannounced-almost", (502, "M_TOO_LARGE")),
        ("broken", (502, "M_UNKNOWN")),
    ];
    for (media_id, outcome) in cases {
        let place = elsewhere.place(media_id);
        let before = elsewhere.asked();
        let answer = alice.download(&place).await;
        assert_eq!(answer.outcome(), outcome, "{media_id}: {}", answer.text);
        if outcome.1 == "M_UNKNOWN" {
            let name = elsewhere.origin.name();
            assert!(answer.text.contains(name.as_str()), "{media_id}: {}", answer.text);
        }
        assert!(head(&answer, "content-security-policy").starts_with("sandbox;"));
        assert_eq!(elsewhere.asked(), before + 1, "{media_id}");
        is_tidy(&server, 0).await;
        // A server whose connection broke is left alone for some time.
        server.pass(HOUR);
    }
    let answer = alice.get("v1/media/thumbnail/127.0.0.1:9/x?width=9&height=9").await;
    assert_eq!(answer.outcome(), (502, "M_UNKNOWN"));
    let answer = alice.download("127.0.0.1:9/x").await;
    assert_eq!(answer.outcome(), (502, "M_UNKNOWN"));
    assert!(answer.text.contains("127.0.0.1:9 did not answer lately"), "{}", answer.text);
    assert_eq!(server.server.media.cached_bytes().await.unwrap(), 0);
    // This server asks itself for nothing, however its name is written.
    assert_eq!(alice.download("EXAMPLE.org/x").await.outcome(), (404, "M_NOT_FOUND"));
}

#[tokio::test]
async fn several_who_want_the_same_file_have_it_fetched_once() {
    let elsewhere = Elsewhere::start().await;
    let server = elsewhere.server(|_| {}).await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let place = elsewhere.put("text", "text/plain", "x");
    elsewhere.hold();
    let release = async {
        elsewhere.wait_for(1).await;
        elsewhere.release();
    };
    let wanted = join_all((0..10).map(|_| alice.download(&place)));
    let (one, all, ()) = tokio::join!(bob.download(&place), wanted, release);
    for answer in all.iter().chain([&one]) {
        assert_eq!((answer.status, &answer.bytes[..]), (StatusCode::OK, &b"x"[..]));
    }
    assert_eq!(elsewhere.asked(), 1);
    is_tidy(&server, 1).await;
}

#[tokio::test]
async fn who_hangs_up_takes_nothing_from_others_and_leaves_nothing() {
    let elsewhere = Elsewhere::start().await;
    let server = elsewhere.server(|_| {}).await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let whole = elsewhere.put("text", "text/plain", "x");
    let broken = elsewhere.put("broken", "text/plain", seven(600_000));
    for (place, status) in [(whole, 200), (broken, 502)] {
        elsewhere.hold();
        alice.call(Method::GET, &format!("v1/media/download/{place}")).hang_up();
        elsewhere.wait_for(1).await;
        let mut waiting = Box::pin(bob.download(&place));
        assert!((&mut waiting).now_or_never().is_none());
        elsewhere.release();
        assert_eq!(waiting.await.status, status);
        is_tidy(&server, 1).await;
    }
    assert_eq!(elsewhere.asked(), 2);
}

#[tokio::test]
async fn t110_six_are_fetched_at_once_for_a_user_and_an_address() {
    let elsewhere = Elsewhere::start().await;
    let server = elsewhere.server(|_| {}).await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let kept = elsewhere.put("kept", "text/plain", "kept");
    alice.download(&kept).await;
    elsewhere.wait_for(1).await;
    let places: Vec<String> =
        (0..9).map(|number| elsewhere.put(&format!("f{number}"), "text/plain", "x")).collect();
    elsewhere.hold();
    let six = join_all(places[..6].iter().map(|place| alice.download(place)));
    let others = async {
        elsewhere.wait_for(6).await;
        // The seventh, from a user or an address that has six, does not wait any longer than it says.
        let path = format!("v1/media/download/{}?timeout_ms=0", places[6]);
        let other_address = |token: &str| server.get(&path).token(token).from("203.0.113.77");
        for call in [
            alice.call(Method::GET, &path),
            bob.call(Method::GET, &path),
            other_address(&alice.user.token),
        ] {
            let answer = call.send().await;
            assert_eq!(answer.outcome(), (429, "M_LIMIT_EXCEEDED"));
            assert!(answer.body["retry_after_ms"].as_u64().unwrap() > 0);
            assert!(!head(&answer, "retry-after").is_empty());
        }
        assert_eq!(elsewhere.asked(), 7);
        // What is here, and what is being fetched already, takes no place.
        assert_eq!(&alice.download(&kept).await.bytes[..], b"kept");
        let mut same = Box::pin(bob.download(&places[0]));
        assert!((&mut same).now_or_never().is_none());
        alice.upload("text/plain", "uploaded").await;
        // Another user at another address has places of their own.
        let mut waiting = Box::pin(other_address(&bob.user.token).send());
        assert!((&mut waiting).now_or_never().is_none());
        elsewhere.wait_for(1).await;
        // Whoever may wait gets a place once one is free.
        let path = format!("v1/media/download/{}?timeout_ms=60000", places[7]);
        let mut patient = Box::pin(alice.get(&path));
        assert!((&mut patient).now_or_never().is_none());
        elsewhere.release();
        [same.await, waiting.await, patient.await]
    };
    let (six, others) = tokio::join!(six, others);
    for answer in six.iter().chain(&others) {
        assert_eq!((answer.status, &answer.bytes[..]), (StatusCode::OK, &b"x"[..]));
    }
    assert_eq!(elsewhere.asked(), 9);
}

#[tokio::test]
async fn t110_so_many_bytes_are_fetched_for_a_user_and_an_address() {
    let elsewhere = Elsewhere::start().await;
    let server = elsewhere
        .server(|config| {
            config.rate_limits.enabled = true;
            config.rate_limits.remote_media_bytes = RateLimit::new(0.001, 100_000);
        })
        .await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let one = elsewhere.put("one", "text/plain", seven(40_000));
    let two = elsewhere.put("unannounced-two", "text/plain", seven(40_001));
    let three = elsewhere.put("three", "text/plain", seven(40_002));
    let four = elsewhere.put("unannounced-four", "text/plain", seven(40_003));
    for place in [&one, &two] {
        assert_eq!(alice.download(place).await.status, 200);
    }
    // Whether it is announced or found out on the way.
    for place in [&three, &four] {
        let answer = alice.download(place).await;
        assert_eq!(answer.outcome(), (429, "M_LIMIT_EXCEEDED"), "{}", answer.text);
        assert!(answer.body["retry_after_ms"].as_u64().unwrap() > 0);
        is_tidy(&server, 2).await;
    }
    // What is not there counts a little too. In the end the server is not even asked.
    let mut asked = elsewhere.asked();
    let missing = elsewhere.place("missing");
    for _ in 0..100_000 / 4_096 {
        if alice.download(&missing).await.outcome() == (429, "M_LIMIT_EXCEEDED") {
            break;
        }
        asked += 1;
    }
    assert_eq!(alice.download(&missing).await.outcome(), (429, "M_LIMIT_EXCEEDED"));
    assert_eq!(elsewhere.asked(), asked);
    // Nor for another user at the same address.
    assert_eq!(bob.download(&three).await.outcome(), (429, "M_LIMIT_EXCEEDED"));
    // What is here costs nothing, and uploads are not concerned.
    assert_eq!(alice.download(&one).await.bytes.len(), 40_000);
    alice.upload("text/plain", "x").await;
    let path = format!("v1/media/download/{three}");
    let answer = bob.call(Method::GET, &path).from("203.0.113.77").send().await;
    assert_eq!(answer.bytes.len(), 40_002);
}

#[tokio::test]
async fn t110_what_was_read_the_longest_ago_makes_room() {
    let elsewhere = Elsewhere::start().await;
    let server = elsewhere
        .server(|config| {
            config.media.remote_size_bytes_max = 50_000;
            config.media.remote_cache_bytes_max = 100_000;
        })
        .await;
    let alice = server.client("alice").await;
    let [one, two, three, four] = ["one", "two", "three", "four"].map(|name| {
        let bytes = [name.as_bytes(), &seven(40_000 - name.len())].concat();
        elsewhere.put(name, "text/plain", bytes)
    });
    for place in [&one, &two] {
        alice.download(place).await;
        server.pass(HOUR);
    }
    server.pass(HOUR);
    alice.download(&one).await;
    let cached = async || server.server.media.cached_bytes().await.unwrap();
    assert_eq!((elsewhere.asked(), cached().await), (2, 80_000));
    // One was read since, so two goes, and no more than is needed.
    assert_eq!(alice.download(&three).await.bytes.len(), 40_000);
    assert_eq!((elsewhere.asked(), cached().await), (3, 80_000));
    is_tidy(&server, 2).await;
    alice.download(&one).await;
    assert_eq!(elsewhere.asked(), 3);
    server.pass(2 * HOUR);
    alice.download(&three).await;
    assert_eq!(alice.download(&two).await.bytes.len(), 40_000);
    assert_eq!((elsewhere.asked(), cached().await), (4, 80_000));
    // Files of this server's own users are none of it.
    let own = alice.upload("text/plain", seven(200_000)).await;
    assert_eq!(alice.download(&four).await.bytes.len(), 40_000);
    assert_eq!(alice.download(&own).await.bytes.len(), 200_000);
    // A smaller setting holds for what is there.
    let server = server.restarted(|config| config.media.remote_cache_bytes_max = 50_000).await;
    assert_eq!(server.shrink_cache().await, 1);
    assert_eq!(server.server.media.cached_bytes().await.unwrap(), 40_000);
    is_tidy(&server, 2).await;
}

#[tokio::test]
async fn t110_a_full_disk_takes_uploads_and_no_files_of_others() {
    let elsewhere = Elsewhere::start().await;
    let server = elsewhere.server(|_| {}).await;
    let alice = server.client("alice").await;
    let one = elsewhere.put("one", "text/plain", "one");
    let two = elsewhere.put("two", "text/plain", "two");
    alice.download(&one).await;
    let own = alice.upload("text/plain", "own").await;
    let user = alice.user.clone();
    // No disk has all of it free.
    let server = server.restarted(|config| config.media.remote_disk_free_percent_min = 100).await;
    let alice = Client { server: &server, user };
    // What is here is served until it has to go.
    assert_eq!(&alice.download(&one).await.bytes[..], b"one");
    let answer = alice.download(&two).await;
    assert_eq!(answer.outcome(), (429, "M_LIMIT_EXCEEDED"));
    assert!(answer.body["retry_after_ms"].as_u64().unwrap() >= 60_000);
    assert_eq!(elsewhere.asked(), 1);
    is_tidy(&server, 1).await;
    assert_eq!(server.server.media.cached_bytes().await.unwrap(), 0);
    assert_eq!(&alice.download(&own).await.bytes[..], b"own");
    alice.upload("text/plain", "another").await;
    assert_eq!(alice.download(&one).await.outcome(), (429, "M_LIMIT_EXCEEDED"));
    let user = alice.user.clone();
    let server = server.restarted(|config| config.media.remote_disk_free_percent_min = 0).await;
    let alice = Client { server: &server, user };
    assert_eq!(&alice.download(&two).await.bytes[..], b"two");
}

#[tokio::test]
async fn what_is_withheld_is_not_fetched_again() {
    let elsewhere = Elsewhere::start().await;
    let server = elsewhere.server(|config| config.media.remote_unused_days = 90).await;
    let alice = server.client("alice").await;
    let here = elsewhere.put("here", "text/plain", "here");
    let unknown = elsewhere.put("unknown", "text/plain", "unknown");
    alice.download(&here).await;
    let media = &server.server.media;
    let key = |place: &str| Media::key_of_uri(&format!("mxc://{place}")).unwrap();
    for place in [&here, &unknown] {
        assert!(media.quarantine(&key(place), true).await.unwrap());
        assert!(media.quarantine(&key(place), true).await.unwrap());
    }
    assert!(!media.quarantine(&key("example.org/x"), true).await.unwrap());
    // Neither age nor the need for room makes it forgotten.
    server.pass(200 * DAY);
    assert_eq!(server.remove_old().await, 0);
    assert_eq!(media.cached_bytes().await.unwrap(), 0);
    for place in [&here, &unknown] {
        assert_eq!(alice.download(place).await.outcome(), (404, "M_NOT_FOUND"));
        let path = format!("v1/media/thumbnail/{place}?width=1&height=1");
        assert_eq!(alice.get(&path).await.outcome(), (404, "M_NOT_FOUND"));
    }
    assert_eq!(elsewhere.asked(), 1);
    for place in [&here, &unknown] {
        assert!(media.quarantine(&key(place), false).await.unwrap());
    }
    assert!(!media.quarantine(&key(&unknown), false).await.unwrap());
    assert_eq!(media.cached_bytes().await.unwrap(), 4);
    assert_eq!(&alice.download(&here).await.bytes[..], b"here");
    assert_eq!(elsewhere.asked(), 1);
    assert_eq!(&alice.download(&unknown).await.bytes[..], b"unknown");
    assert_eq!(elsewhere.asked(), 2);
    // It counts as a copy again, and as one that was read.
    assert_eq!(media.cached_bytes().await.unwrap(), 11);
    server.pass(91 * DAY);
    assert_eq!(server.remove_old().await, 2);
    assert_eq!(media.cached_bytes().await.unwrap(), 0);
    is_tidy(&server, 0).await;
    assert_eq!(&alice.download(&here).await.bytes[..], b"here");
    assert_eq!(elsewhere.asked(), 3);
}

#[tokio::test]
async fn what_is_withheld_while_it_comes_is_not_given() {
    let elsewhere = Elsewhere::start().await;
    let server = elsewhere.server(|_| {}).await;
    let alice = server.client("alice").await;
    let place = elsewhere.put("text", "text/plain", "x");
    elsewhere.hold();
    let withhold = async {
        elsewhere.wait_for(1).await;
        let key = Media::key_of_uri(&format!("mxc://{place}")).unwrap();
        assert!(server.server.media.quarantine(&key, true).await.unwrap());
        elsewhere.release();
    };
    let (answer, ()) = tokio::join!(alice.download(&place), withhold);
    assert_eq!(answer.outcome(), (404, "M_NOT_FOUND"));
    is_tidy(&server, 0).await;
}

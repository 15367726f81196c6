//! Login by QR code: where two devices meet (MSC4108, MSC4388).

use http::Method;
use serde_json::json;

use crate::harness::{Answer, TestServer, text};

const PATH: &str = "unstable/org.matrix.msc4108/rendezvous";
const JSON_PATH: &str = "unstable/io.element.msc4388/rendezvous";

async fn server() -> TestServer {
    TestServer::with(|config| {
        config.server.public_base_url = Some("https://matrix.example.org/".parse().unwrap());
        config.encryption.qr_login = true;
    })
    .await
}

async fn create(server: &TestServer, data: &str) -> Answer {
    server.call(Method::POST, PATH).header("content-type", "text/plain").body(data).send().await
}

/// The path of a rendezvous that was made.
fn path(answer: &Answer) -> String {
    let url = text(&answer.body["url"]);
    url.strip_prefix("https://matrix.example.org").unwrap().to_owned()
}

fn etag(answer: &Answer) -> String {
    answer.headers["etag"].to_str().unwrap().to_owned()
}

async fn write(server: &TestServer, path: &str, seen: &str, data: &str) -> Answer {
    let call = server.call(Method::PUT, path).header("content-type", "text/plain;charset=UTF-8");
    call.header("if-match", seen).body(data).send().await
}

#[tokio::test]
async fn two_devices_write_in_turn() {
    let server = server().await;
    let made = create(&server, "").await;
    assert_eq!(made.status, 201);
    assert_eq!(made.headers["cache-control"], "no-store");
    assert_eq!(made.headers["access-control-expose-headers"], "ETag");
    assert_eq!(made.headers["last-modified"], "Fri, 15 Jan 2027 08:00:00 GMT");
    assert_eq!(made.headers["expires"], "Fri, 15 Jan 2027 08:05:00 GMT");
    let path = path(&made);
    assert_eq!(path.rsplit('/').next().unwrap().len(), 24, "144 bits: {path}");
    let first = etag(&made);
    let waits = server.get(&path).header("if-none-match", &first).send().await;
    assert_eq!((waits.status.as_u16(), waits.bytes.len()), (304, 0));
    assert_eq!(etag(&waits), first);
    let written = write(&server, &path, &first, "hello").await;
    assert_eq!((written.status.as_u16(), written.bytes.len()), (202, 0));
    let second = etag(&written);
    assert_ne!(second, first);
    let unseen = write(&server, &path, &first, "overwritten").await;
    assert_eq!(unseen.outcome(), (412, "M_CONCURRENT_WRITE"));
    assert_eq!(etag(&unseen), second);
    let read = server.get(&path).header("if-none-match", &first).send().await;
    assert_eq!((read.status.as_u16(), &*read.text), (200, "hello"));
    assert_eq!(read.headers["content-type"], "text/plain");
    assert_eq!(read.headers["x-content-type-options"], "nosniff");
    assert_eq!(etag(&read), second);
    // The same again is another revision.
    assert_ne!(etag(&write(&server, &path, &second, "hello").await), second);
    assert_eq!(server.delete(&path).send().await.status, 204);
    assert_eq!(server.delete(&path).send().await.outcome(), (404, "M_NOT_FOUND"));
    assert_eq!(server.get(&path).send().await.outcome(), (404, "M_NOT_FOUND"));
    assert_eq!(write(&server, &path, &second, "x").await.outcome(), (404, "M_NOT_FOUND"));
}

#[tokio::test]
async fn what_does_not_fit_is_refused() {
    let server = server().await;
    let made = create(&server, &"x".repeat(4_096)).await;
    assert_eq!(made.status, 201);
    assert_eq!(create(&server, &"x".repeat(4_097)).await.outcome(), (413, "M_TOO_LARGE"));
    let json = server.post(PATH, json!({})).header("content-type", "application/json");
    assert_eq!(json.send().await.outcome(), (400, "M_INVALID_PARAM"));
    let path = path(&made);
    let call = server.call(Method::PUT, &path).header("content-type", "text/plain").body("x");
    assert_eq!(call.send().await.outcome(), (400, "M_MISSING_PARAM"));
    let long = write(&server, &path, &etag(&made), &"x".repeat(4_097)).await;
    assert_eq!(long.outcome(), (413, "M_TOO_LARGE"));
    let page = server.get(&path).header("sec-fetch-mode", "navigate").send().await;
    assert_eq!(page.outcome(), (403, "M_FORBIDDEN"));
}

#[tokio::test]
async fn it_ends_when_nobody_comes_or_after_a_while() {
    let server = server().await;
    let idle = path(&create(&server, "x").await);
    let busy = path(&create(&server, "x").await);
    for _ in 0..5 {
        server.pass(59);
        assert_eq!(server.get(&busy).send().await.status, 200);
    }
    assert_eq!(server.get(&idle).send().await.outcome(), (404, "M_NOT_FOUND"));
    server.pass(5);
    assert_eq!(server.get(&busy).send().await.outcome(), (404, "M_NOT_FOUND"), "five minutes");
}

#[tokio::test]
async fn there_are_only_so_many() {
    let server = server().await;
    for _ in 0..1_000 {
        assert_eq!(create(&server, "x").await.status, 201);
    }
    assert_eq!(create(&server, "x").await.outcome(), (429, "M_LIMIT_EXCEEDED"));
    server.pass(60);
    assert_eq!(create(&server, "x").await.status, 201);
}

#[tokio::test]
async fn an_address_makes_only_so_many() {
    let server = TestServer::with(|config| {
        config.server.public_base_url = Some("https://matrix.example.org".parse().unwrap());
        config.encryption.qr_login = true;
        config.rate_limits.enabled = true;
    })
    .await;
    for _ in 0..10 {
        assert_eq!(create(&server, "x").await.status, 201);
    }
    assert_eq!(create(&server, "x").await.outcome(), (429, "M_LIMIT_EXCEEDED"));
    let call = server.call(Method::POST, PATH).header("content-type", "text/plain").body("x");
    assert_eq!(call.from("203.0.113.2").send().await.status, 201);
}

#[tokio::test]
async fn two_devices_write_json_in_turn() {
    let server = server().await;
    let alice = server.client("alice").await;
    let unknown = server.get(JSON_PATH).send().await.ok();
    assert_eq!(unknown, json!({ "create_available": false }));
    assert_eq!(alice.get(JSON_PATH).await.ok(), json!({ "create_available": true }));
    let body = json!({ "data": "" });
    let refused = server.post(JSON_PATH, body.clone()).send().await;
    assert_eq!(refused.outcome(), (403, "M_FORBIDDEN"));
    let stale = server.post(JSON_PATH, body.clone()).token("cat_stale").send().await;
    assert_eq!(stale.outcome(), (401, "M_UNKNOWN_TOKEN"));
    let made = alice.post(JSON_PATH, body).await.ok();
    assert_eq!(made["expires_in_ms"], 300_000);
    let path = format!("{JSON_PATH}/{}", text(&made["id"]));
    let first = &made["sequence_token"];
    let body = json!({ "sequence_token": first, "data": "hello" });
    let written = server.put(&path, body.clone()).send().await.ok();
    assert_ne!(&written["sequence_token"], first);
    let unseen = server.put(&path, body).send().await;
    assert_eq!(unseen.outcome(), (409, "IO_ELEMENT_MSC4388_CONCURRENT_WRITE"));
    server.pass(30);
    let read = server.get(&path).send().await;
    assert_eq!(read.headers["cache-control"], "no-store");
    let expected = json!({ "data": "hello", "sequence_token": written["sequence_token"],
        "expires_in_ms": 270_000 });
    assert_eq!(read.ok(), expected);
    let page = server.get(&path).header("sec-fetch-mode", "navigate").send().await;
    assert_eq!(page.outcome(), (403, "M_FORBIDDEN"));
    let body = json!({ "sequence_token": written["sequence_token"], "data": "x".repeat(4_097) });
    assert_eq!(server.put(&path, body).send().await.outcome(), (413, "M_TOO_LARGE"));
    assert_eq!(server.delete(&path).send().await.ok(), json!({}));
    assert_eq!(server.delete(&path).send().await.outcome(), (404, "M_NOT_FOUND"));
    assert_eq!(server.get(&path).send().await.outcome(), (404, "M_NOT_FOUND"));
}

#[tokio::test]
async fn nothing_of_it_is_there_by_default() {
    let plain = TestServer::new().await;
    assert_eq!(create(&plain, "x").await.outcome(), (404, "M_UNRECOGNIZED"));
    assert_eq!(plain.get(JSON_PATH).send().await.outcome(), (404, "M_UNRECOGNIZED"));
    let alice = plain.client("alice").await;
    let made = alice.post(JSON_PATH, json!({ "data": "" })).await;
    assert_eq!(made.outcome(), (404, "M_UNRECOGNIZED"));
    let features = async |server: &TestServer| {
        let body = server.get("versions").send().await.ok();
        ["org.matrix.msc4108", "io.element.msc4388"]
            .map(|name| body["unstable_features"][name] == true)
    };
    assert_eq!(features(&plain).await, [false, false]);
    assert_eq!(features(&server().await).await, [true, true]);
}

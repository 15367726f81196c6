//! Attack cases on uploads and downloads: T105 to T107, T109.

use http::Method;
use serde_json::json;

use super::media::place;
use crate::harness::{Client, TestServer, origin::Origin};

const CONTAINMENT: [(&str, &str); 4] = [
    (
        "content-security-policy",
        "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; \
         style-src 'unsafe-inline'; object-src 'self';",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("cross-origin-resource-policy", "cross-origin"),
];

async fn create(client: &Client<'_>) -> String {
    place(&client.post("/_matrix/media/v1/create", json!({})).await.ok())
}

async fn put(client: &Client<'_>, place: &str) -> (u16, String) {
    let path = format!("/_matrix/media/v3/upload/{place}");
    let answer = client.call(Method::PUT, &path).body("x").send().await;
    let (status, errcode) = answer.outcome();
    (status, errcode.to_owned())
}

#[tokio::test]
async fn t105_uploads_have_bounds() {
    let server = TestServer::with(|config| config.media.upload_size_bytes_max = 1_000).await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    alice.upload("text/plain", vec![0; 1_000]).await;
    let answer = alice.try_upload("", "text/plain", vec![0; 1_001]).await;
    assert_eq!(answer.outcome(), (413, "M_TOO_LARGE"));
    let outcome = |status: u16, errcode: &str| (status, errcode.to_owned());

    let place = create(&alice).await;
    assert_eq!(put(&bob, &place).await, outcome(403, "M_FORBIDDEN"));
    assert_eq!(put(&alice, &place).await.0, 200);
    assert_eq!(put(&alice, &place).await, outcome(409, "M_CANNOT_OVERWRITE_MEDIA"));
    assert_eq!(put(&alice, "example.org/unknown").await, outcome(404, "M_NOT_FOUND"));
    assert_eq!(put(&alice, "other.example/unknown").await, outcome(404, "M_NOT_FOUND"));
    // A file that was uploaded at once is no promise either.
    let other = alice.upload("text/plain", "x").await;
    assert_eq!(put(&alice, &other).await, outcome(409, "M_CANNOT_OVERWRITE_MEDIA"));

    let mut places = Vec::new();
    for _ in 0..5 {
        places.push(create(&alice).await);
    }
    let answer = alice.post("/_matrix/media/v1/create", json!({})).await;
    assert_eq!(answer.outcome(), (429, "M_LIMIT_EXCEEDED"));
    assert!(answer.body["retry_after_ms"].as_u64().unwrap() > 0);
    assert_eq!(put(&alice, &places[0]).await.0, 200);
    places.push(create(&alice).await);
    server.pass(24 * 60 * 60);
    assert_eq!(put(&alice, &places[1]).await, outcome(404, "M_NOT_FOUND"));
    assert_eq!(alice.download(&places[1]).await.outcome(), (404, "M_NOT_FOUND"));
    create(&alice).await;
}

#[tokio::test]
async fn t105_two_uploads_to_one_address_are_not_both_taken() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let place = create(&alice).await;
    let (one, other) = tokio::join!(put(&alice, &place), put(&alice, &place));
    let mut statuses = [one.0, other.0];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
}

#[tokio::test]
async fn t106_names_lead_nowhere_else() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let long = "x".repeat(300);
    let cases = [
        "..%2f..%2fetc/passwd".to_owned(),
        "example.org/..%2f..%2fetc%2fpasswd".to_owned(),
        "example.org/%2e%2e".to_owned(),
        "exam%2fple.org/x".to_owned(),
        "example.org%00/x".to_owned(),
        "example.org/x%00".to_owned(),
        format!("{long}.org/x"),
        format!("example.org/{long}"),
        "example.org/caf%C3%A9".to_owned(),
    ];
    for case in cases {
        for what in ["download", "thumbnail"] {
            let path = format!("v1/media/{what}/{case}?width=1&height=1");
            let answer = alice.get(&path).await;
            assert_eq!(answer.outcome(), (400, "M_INVALID_PARAM"), "{path}");
        }
        let answer = put(&alice, &case).await;
        assert_eq!(answer.0, 400, "{case}");
    }
    let query = "?filename=a%0D%0ASet-Cookie%3A%20x%22%E2%80%AEgpj.exe";
    let place = place(&alice.try_upload(query, "text/plain", "x").await.ok());
    let answer = alice.download(&place).await;
    assert!(answer.headers.get("set-cookie").is_none());
    let disposition = answer.headers.get("content-disposition").unwrap();
    assert_eq!(disposition, "inline; filename*=UTF-8''aSet-Cookie%3A%20x%22gpj.exe");
    let answer = alice.download(&format!("{place}/a%0D%0ASet-Cookie%3A%20x")).await;
    assert!(answer.headers.get("set-cookie").is_none());
    let disposition = answer.headers.get("content-disposition").unwrap();
    assert_eq!(disposition, "inline; filename*=UTF-8''a%0D%0ASet-Cookie%3A%20x");
}

#[tokio::test]
async fn t107_nothing_that_was_uploaded_runs() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let long = format!("text/{}", "x".repeat(1_024));
    let cases = [
        ("text/html", "text/html", "attachment"),
        ("TEXT/HTML;x", "TEXT/HTML;x", "attachment"),
        ("image/svg+xml", "image/svg+xml", "attachment"),
        ("application/xhtml+xml", "application/xhtml+xml", "attachment"),
        ("text/xml", "text/xml", "attachment"),
        ("", "application/octet-stream", "attachment"),
        (&long, "application/octet-stream", "attachment"),
        ("nonsense", "application/octet-stream", "attachment"),
        ("text/plain; charset=utf-8", "text/plain; charset=utf-8", "inline"),
        ("IMAGE/PNG", "IMAGE/PNG", "inline"),
    ];
    for (sent, served, disposition) in cases {
        let place = alice.upload(sent, "<script>alert(1)</script>").await;
        let answer = alice.download(&place).await;
        let header = |name: &str| answer.headers.get(name).unwrap().to_str().unwrap();
        assert_eq!((header("content-type"), header("content-disposition")), (served, disposition));
        for (name, value) in CONTAINMENT {
            assert_eq!(header(name), value, "{sent}");
        }
    }
    // Refusals too.
    let answer = alice.download("example.org/nothing").await;
    for (name, value) in CONTAINMENT {
        assert_eq!(answer.headers.get(name).unwrap(), value);
    }
}

#[tokio::test]
async fn t109_only_those_with_an_account_have_others_asked_and_only_in_public() {
    let server = TestServer::with(|config| config.media.legacy_unauthenticated = true).await;
    let alice = server.client("alice").await;
    let evil = Origin::start(axum::Router::new()).await;
    for name in [evil.name().to_string(), format!("localhost:{}", evil.port())] {
        for what in ["download", "thumbnail"] {
            let place = format!("{name}/x?width=1&height=1");
            let answer = server.get(&format!("/_matrix/media/v3/{what}/{place}")).send().await;
            assert_eq!(answer.outcome(), (404, "M_NOT_FOUND"));
            let answer = alice.get(&format!("v1/media/{what}/{place}")).await;
            assert_eq!(answer.outcome(), (502, "M_UNKNOWN"));
        }
    }
    assert_eq!(evil.connections(), 0);
}

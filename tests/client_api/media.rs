//! Uploads and downloads.

use http::{Method, StatusCode};
use serde_json::json;

use crate::harness::{Answer, Client, TestServer, encode};

/// The two parts of an `mxc://` address, as they stand in a path.
pub(crate) fn place(answer: &serde_json::Value) -> String {
    answer["content_uri"].as_str().unwrap().strip_prefix("mxc://").unwrap().to_owned()
}

impl Client<'_> {
    /// Uploads a file; gives its place.
    pub(crate) async fn upload(&self, content_type: &str, bytes: impl Into<Vec<u8>>) -> String {
        place(&self.try_upload("", content_type, bytes).await.ok())
    }

    /// The query with its `?`.
    pub(crate) async fn try_upload(
        &self,
        query: &str,
        content_type: &str,
        bytes: impl Into<Vec<u8>>,
    ) -> Answer {
        let path = format!("/_matrix/media/v3/upload{query}");
        let call = self.call(Method::POST, &path).body(bytes);
        let call = match content_type {
            "" => call,
            _ => call.header("content-type", content_type),
        };
        call.send().await
    }

    pub(crate) async fn download(&self, place: &str) -> Answer {
        self.get(&format!("v1/media/download/{place}")).await
    }
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers.get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn a_file_is_given_back_as_it_came() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let query = format!("?filename={}", encode("a picture.png"));
    let place = place(&alice.try_upload(&query, "image/png", b"bytes".to_vec()).await.ok());
    assert!(place.starts_with("example.org/"));
    let answer = alice.download(&place).await;
    assert_eq!((answer.status, &answer.bytes[..]), (StatusCode::OK, &b"bytes"[..]));
    assert_eq!(header(&answer, "content-type"), "image/png");
    assert_eq!(header(&answer, "content-length"), "5");
    assert_eq!(header(&answer, "content-disposition"), "inline; filename=\"a picture.png\"");
    assert_eq!(header(&answer, "cache-control"), "private, max-age=31536000, immutable");
    // Under another name.
    let answer = alice.download(&format!("{place}/caf%C3%A9.png")).await;
    assert_eq!(header(&answer, "content-disposition"), "inline; filename*=UTF-8''caf%C3%A9.png");
    // Without its body.
    let path = format!("v1/media/download/{place}");
    let answer = alice.call(Method::HEAD, &path).send().await;
    assert_eq!((answer.status, answer.bytes.len()), (StatusCode::OK, 0));
    assert_eq!(header(&answer, "content-length"), "5");
    // Nobody gets it without saying who they are.
    let answer = server.get(&path).send().await;
    assert_eq!(answer.outcome(), (401, "M_MISSING_TOKEN"));
    let answer = alice.download("example.org/nothing").await;
    assert_eq!(answer.outcome(), (404, "M_NOT_FOUND"));
    let answer = server.call(Method::POST, "/_matrix/media/v3/upload").body("x").send().await;
    assert_eq!(answer.outcome(), (401, "M_MISSING_TOKEN"));
}

#[tokio::test]
async fn a_part_of_a_file_is_read() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    // Larger than one part of the store.
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|number| (number / 251).to_le_bytes()[0]).collect();
    let place = alice.upload("video/mp4", bytes.clone()).await;
    assert_eq!(alice.download(&place).await.bytes, bytes);
    let path = format!("v1/media/download/{place}");
    let part = |range: &str| alice.call(Method::GET, &path).header("range", range).send();
    let answer = part("bytes=400000-700000").await;
    assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(answer.bytes, bytes[400_000..=700_000]);
    assert_eq!(header(&answer, "content-range"), "bytes 400000-700000/1000000");
    assert_eq!(header(&answer, "content-length"), "300001");
    assert_eq!(part("bytes=-3").await.bytes, bytes[999_997..]);
    let answer = part("bytes=1000000-").await;
    assert_eq!(answer.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(header(&answer, "content-range"), "bytes */1000000");
    // What the client has it need not get.
    let answer = part("bytes=0-0").await;
    let tag = header(&answer, "etag").to_owned();
    let call = alice.call(Method::GET, &path).header("if-none-match", &tag);
    let answer = call.send().await;
    assert_eq!((answer.status, answer.bytes.len()), (StatusCode::NOT_MODIFIED, 0));
}

#[tokio::test]
async fn a_file_may_come_after_its_address() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let answer = alice.post("/_matrix/media/v1/create", json!({})).await.ok();
    assert_eq!(answer["unused_expires_at"], 1_800_000_000_000_u64 + 24 * 60 * 60 * 1_000);
    let place = place(&answer);
    let answer = bob.get(&format!("v1/media/download/{place}?timeout_ms=0")).await;
    assert_eq!(answer.outcome(), (504, "M_NOT_YET_UPLOADED"));
    // Who waits gets it once it is there.
    let path = format!("v1/media/download/{place}?timeout_ms=60000");
    let waiting = bob.get(&path);
    let uploading = async {
        tokio::task::yield_now().await;
        let path = format!("/_matrix/media/v3/upload/{place}?filename=x");
        let call = alice.call(Method::PUT, &path).header("content-type", "text/plain");
        call.body("late").send().await
    };
    let (answer, uploaded) = tokio::join!(waiting, uploading);
    assert_eq!(uploaded.ok(), json!({}));
    assert_eq!((answer.status, &answer.bytes[..]), (StatusCode::OK, &b"late"[..]));
    assert_eq!(header(&answer, "content-disposition"), "inline; filename=\"x\"");
}

#[tokio::test]
async fn clients_learn_how_large_a_file_may_be() {
    let server = TestServer::with(|config| config.media.upload_size_bytes_max = 1_000).await;
    let alice = server.client("alice").await;
    for path in ["v1/media/config", "/_matrix/media/v3/config", "/_matrix/media/r0/config"] {
        assert_eq!(alice.get(path).await.ok(), json!({ "m.upload.size": 1_000 }));
        assert_eq!(server.get(path).send().await.outcome(), (401, "M_MISSING_TOKEN"));
    }
    let capabilities = alice.get("v3/capabilities").await.ok();
    let previews = &capabilities["capabilities"]["io.element.msc4452.preview_url"];
    assert_eq!(previews, &json!({ "enabled": false }));
}

#[tokio::test]
async fn the_old_addresses_are_frozen_unless_they_are_not() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let place = alice.upload("text/plain", "x").await;
    let path = format!("/_matrix/media/v3/download/{place}");
    assert_eq!(server.get(&path).send().await.outcome(), (404, "M_NOT_FOUND"));
    // Some clients say who they are there too.
    assert_eq!(&alice.get(&path).await.bytes[..], b"x");
    let unknown = server.get(&path).token("unknown").send().await;
    assert_eq!(unknown.outcome(), (401, "M_UNKNOWN_TOKEN"));

    let server = TestServer::with(|config| config.media.legacy_unauthenticated = true).await;
    let alice = server.client("alice").await;
    let place = alice.upload("text/plain", "x").await;
    for version in ["r0", "v1", "v3"] {
        let path = format!("/_matrix/media/{version}/download/{place}");
        assert_eq!(&server.get(&path).send().await.bytes[..], b"x");
        let answer = server.get(&format!("{path}/name.txt")).send().await;
        assert_eq!(header(&answer, "content-disposition"), "inline; filename=\"name.txt\"");
    }
}

#[tokio::test]
async fn a_user_has_so_much_room() {
    let server = TestServer::with(|config| config.media.user_bytes_max = 10).await;
    let alice = server.client("alice").await;
    let place = alice.upload("text/plain", "123456").await;
    let answer = alice.try_upload("", "text/plain", "12345").await;
    assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"));
    alice.upload("text/plain", "1234").await;
    // Others have their own, and what is removed makes room.
    server.client("bob").await.upload("text/plain", "123456").await;
    let key = causerie::media::Media::key_of_uri(&format!("mxc://{place}")).unwrap();
    assert!(server.server.media.delete(&key).await.unwrap());
    alice.upload("text/plain", "654321").await;

    let server = TestServer::with(|config| {
        config.media.user_files_max = 1;
        config.media.limits_info_url = Some("https://example.org/limits".parse().unwrap());
    })
    .await;
    let alice = server.client("alice").await;
    alice.upload("text/plain", "1").await;
    let answer = alice.try_upload("", "text/plain", "2").await;
    assert_eq!(answer.outcome(), (403, "M_USER_LIMIT_EXCEEDED"));
    assert_eq!(answer.body["info_uri"], "https://example.org/limits");
}

#[tokio::test]
async fn what_is_not_there_is_not_found_under_any_path() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    for path in [
        "v1/media/download/example.org/nothing",
        "v1/media/download/example.org/nothing/name.png",
        "v1/media/thumbnail/example.org/nothing?width=10&height=10",
        "/_matrix/media/v3/download/example.org/nothing",
        "/_matrix/media/v3/download/example.org/nothing/name.png",
        "/_matrix/media/v3/thumbnail/example.org/nothing?width=10&height=10",
    ] {
        assert_eq!(alice.get(path).await.outcome(), (404, "M_NOT_FOUND"), "{path}");
    }
}

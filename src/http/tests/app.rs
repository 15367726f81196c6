//! Requests in process: routing, tokens, bodies, errors, CORS.

use std::{convert::Infallible, net::IpAddr, sync::Arc, time::Duration};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, Method, Request};
use http_body_util::BodyExt;
use serde_json::json;
use tower::ServiceExt;

use super::{ROOM, Server, ask, code, is, request, routes, server};
use crate::{
    error::ApiError,
    http::{App, AppSettings, Context, NoAuth, Peer, RawRequest, Routes},
};

const VERSIONS: &str = "/_matrix/client/versions";
const WHOAMI: &str = "/_matrix/client/v3/account/whoami";

fn assert_cors(headers: &HeaderMap, what: &str) {
    let value = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
    assert_eq!(value("access-control-allow-origin"), Some("*"), "{what}");
    assert_eq!(
        value("access-control-allow-methods"),
        Some("GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH"),
        "{what}"
    );
    assert_eq!(
        value("access-control-allow-headers"),
        Some("X-Requested-With, Content-Type, Authorization, Date, If-Match, If-None-Match"),
        "{what}"
    );
    assert_eq!(value("access-control-expose-headers"), Some("ETag"), "{what}");
}

#[tokio::test]
async fn cors_is_on_every_answer() {
    for (method, path, status) in [
        ("GET", VERSIONS, 200),
        ("GET", "/_matrix/client/nothing", 404),
        ("POST", VERSIONS, 405),
        ("OPTIONS", VERSIONS, 204),
        ("OPTIONS", "/anything", 204),
        ("POST", "/_matrix/client/v3/keys/upload", 500),
        ("PUT", &format!("{ROOM}/send/m.room.message/1"), 400),
    ] {
        let response = server().oneshot(request(method, path, "")).await.unwrap();
        assert_eq!(response.status(), status, "{method} {path}");
        assert_cors(response.headers(), path);
    }
}

#[tokio::test]
async fn t18_only_the_exact_path_reaches_a_handler() {
    for path in [
        "/",
        "/_matrix",
        "/_matrix/X/client/versions",
        "/_matrix/client/versions/extra",
        "/_matrix/client/versions/",
        "//_matrix/client/versions",
        "/_matrix//client/versions",
        "/_matrix/client/./versions",
        "/_matrix/client/v3/../versions",
        "/_matrix/client/v3/%2e%2e/versions",
        "/_matrix/client/%2e/versions",
        "/_matrix/client/%76ersions",
        "/_matrix/client%2fversions",
        "/_MATRIX/client/versions",
        "/_matrix/client/v3/rooms//state/m.room.name",
        "/_matrix/client/v3/rooms/!room:hs1/state//key",
        "/_matrix/client/v3/directory/room/",
    ] {
        assert_eq!(code("GET", path, "").await, is(404, "M_UNRECOGNIZED"), "{path}");
    }
    for (method, path) in [
        ("POST", VERSIONS),
        ("PATCH", WHOAMI),
        ("BREW", WHOAMI),
        ("GET", "/_matrix/client/v3/logout"),
        ("DELETE", "/_matrix/client/r0/pushrules/"),
    ] {
        assert_eq!(code(method, path, "").await, is(405, "M_UNRECOGNIZED"), "{method} {path}");
    }
}

#[tokio::test]
async fn get_endpoints_answer_head_without_a_body() {
    let response = server().answer(request("HEAD", WHOAMI, "")).await;
    assert_eq!(response.status(), 200);
    assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
}

#[tokio::test]
async fn harmless_oddities_of_paths_are_tolerated() {
    for path in [
        "/_matrix/client/versions?",
        "/_matrix/client/versions?_cacheBuster=1",
        "/_matrix/client/v3/pushrules/",
        "/_matrix/client/v3/pushrules",
        "/_matrix/client/r0/account/whoami?x=%zz&&=",
    ] {
        assert_eq!(code("GET", path, "").await, is(200, ""), "{path}");
    }
}

#[tokio::test]
async fn path_arguments_are_decoded_once_and_in_order() {
    let asked = async |path: &str| ask(server(), request("GET", path, "")).await.2;
    let state = "/_matrix/client/v3/rooms";
    for (path, expected) in [
        ("!room:hs1/state/m.room.name/key", ["!room:hs1", "m.room.name", "key"]),
        ("%21room%3Ahs1/state/m.room.name/@a:hs1", ["!room:hs1", "m.room.name", "@a:hs1"]),
        ("!room/state/m.room.name/%2Fa%252Fb", ["!room", "m.room.name", "/a%2Fb"]),
        ("!room:hs1/state/%C3%A9/a+b%20c", ["!room:hs1", "é", "a+b c"]),
        ("!room:hs1/state/m.room.name", ["!room:hs1", "m.room.name", ""]),
        ("!room:hs1/state/m.room.name/", ["!room:hs1", "m.room.name", ""]),
    ] {
        assert_eq!(asked(&format!("{state}/{path}")).await, json!(expected), "{path}");
    }
    let alias = asked("/_matrix/client/v3/directory/room/%23caf%C3%A9:hs1").await;
    assert_eq!(alias["error"], "#café:hs1");
    for path in ["rooms/!room/state/%ff/x", "rooms/noroom/state/a/b", "directory/room/%2e%2e"] {
        let path = format!("/_matrix/client/v3/{path}");
        assert_eq!(code("GET", &path, "").await, is(400, "M_INVALID_PARAM"), "{path}");
    }
}

#[tokio::test]
async fn query_parameters_are_missing_or_invalid() {
    let path = format!("{ROOM}/messages");
    assert_eq!(code("GET", &path, "").await, is(400, "M_MISSING_PARAM"));
    let (status, errcode, body) = ask(server(), request("GET", &format!("{path}?dir=x"), "")).await;
    assert_eq!((status, &*errcode), (400, "M_INVALID_PARAM"), "{body}");
    assert_eq!(code("GET", &format!("{path}?dir=b&limit=x"), "").await, is(400, "M_INVALID_PARAM"));
    assert_eq!(code("GET", &format!("{path}?dir=b"), "").await, is(200, ""));
}

#[tokio::test]
async fn t66_tokens_travel_in_the_header_only() {
    let with = async |header: Option<&str>, path: &str, settings: AppSettings| {
        let mut builder = Request::builder().uri(path);
        if let Some(header) = header {
            builder = builder.header("authorization", header);
        }
        let app = App::new(routes().into_router(), settings);
        let (status, errcode, _) = ask(app, builder.body(Body::empty()).unwrap()).await;
        (status, errcode)
    };
    let strict = AppSettings::default;
    let query = format!("{WHOAMI}?access_token=good");
    for header in [None, Some(""), Some("Bearer"), Some("Bearer "), Some("Bearer    ")] {
        assert_eq!(with(header, WHOAMI, strict()).await, is(401, "M_MISSING_TOKEN"), "{header:?}");
        assert_eq!(with(header, &query, strict()).await, is(401, "M_MISSING_TOKEN"), "{header:?}");
        assert_eq!(with(header, VERSIONS, strict()).await, is(200, ""), "{header:?}");
    }
    for header in ["Basic good", "good", "Bearer go od", "X-Matrix origin=\"a\""] {
        let answer = with(Some(header), WHOAMI, strict()).await;
        assert_eq!(answer, is(401, "M_MISSING_TOKEN"), "{header}");
    }
    assert_eq!(with(Some("Bearer x"), WHOAMI, strict()).await, is(401, "M_UNKNOWN_TOKEN"));
    assert_eq!(with(Some("Bearer x"), VERSIONS, strict()).await, is(401, "M_UNKNOWN_TOKEN"));
    assert_eq!(with(Some("bearer good"), WHOAMI, strict()).await, is(200, ""));
    let lenient = AppSettings { query_tokens: true, ..AppSettings::default() };
    assert_eq!(with(None, &query, lenient.clone()).await, is(200, ""));
    assert_eq!(with(None, WHOAMI, lenient).await, is(401, "M_MISSING_TOKEN"));
}

#[tokio::test]
async fn a_request_without_a_token_is_refused_before_its_body_is_read() {
    let path = format!("{ROOM}/send/m.room.message/1");
    let body = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
    let request = Request::builder().method("PUT").uri(path).body(body).unwrap();
    let (status, errcode, _) = ask(server(), request).await;
    assert_eq!((status, &*errcode), (401, "M_MISSING_TOKEN"));
}

#[tokio::test]
async fn bodies_are_json_and_what_the_endpoint_takes() {
    let typing = format!("{ROOM}/typing/@alice:hs1");
    for (body, expected) in [
        (r#"{"typing":false}"#, is(200, "")),
        (r#"{"typing":true,"timeout":1000,"new":[1.5]}"#, is(200, "")),
        (r#"{"typing":"x"}"#, is(400, "M_BAD_JSON")),
        ("{}", is(400, "M_BAD_JSON")),
        ("", is(400, "M_BAD_JSON")),
        ("[]", is(400, "M_BAD_JSON")),
        ("{", is(400, "M_NOT_JSON")),
        (r#"{"typing":false,"typing":true}"#, is(400, "M_NOT_JSON")),
        (r#"{"typing":NaN}"#, is(400, "M_NOT_JSON")),
    ] {
        assert_eq!(code("PUT", &typing, body).await, expected, "{body}");
    }
    assert_eq!(code("POST", "/_matrix/client/v3/logout", "").await, is(200, ""));
    assert_eq!(code("POST", "/_matrix/client/v3/logout", "{}").await, is(200, ""));
    assert_eq!(code("POST", "/_matrix/client/v3/logout", "x").await, is(400, "M_NOT_JSON"));
}

#[tokio::test]
async fn t22_t24_t25_events_are_canonical() {
    let send = format!("{ROOM}/send/m.room.message/1");
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(64), "]".repeat(64));
    for (body, expected) in [
        (&br#"{"body":"x","n":1}"#[..], is(200, "")),
        (br#"{"n":1.5}"#, is(400, "M_BAD_JSON")),
        (br#"{"n":9007199254740992}"#, is(400, "M_BAD_JSON")),
        (br#"{"n":Infinity}"#, is(400, "M_NOT_JSON")),
        (b"{\"body\":\"\xff\"}", is(400, "M_NOT_JSON")),
        (deep.as_bytes(), is(400, "M_NOT_JSON")),
        (b"", is(400, "M_NOT_JSON")),
    ] {
        let shown = String::from_utf8_lossy(body).into_owned();
        assert_eq!(code("PUT", &send, body.to_vec()).await, expected, "{shown}");
    }
}

#[tokio::test]
async fn t86_a_body_is_read_up_to_its_cap() {
    let typing = format!("{ROOM}/typing/@alice:hs1");
    let padded = |bytes: usize| format!("{{\"typing\":false,\"x\":\"{}\"}}", "x".repeat(bytes));
    assert_eq!(code("PUT", &typing, padded((1 << 20) - 100)).await, is(200, ""));
    assert_eq!(code("PUT", &typing, padded(1 << 20)).await, is(413, "M_TOO_LARGE"));
    // Without a length: an endless body is left after the cap.
    let chunk = Bytes::from(vec![b' '; 64 << 10]);
    let endless = stream::repeat_with(move || Ok::<_, Infallible>(chunk.clone()));
    let body = Body::from_stream(endless);
    assert_eq!(code("PUT", &typing, body).await, is(413, "M_TOO_LARGE"));
    // The announced length is enough to refuse.
    let over = vec![b' '; (64 << 10) + 1];
    assert_eq!(code("POST", "/echo/a/b", over).await, is(413, "M_TOO_LARGE"));
}

#[tokio::test]
async fn t17_t87_other_kinds_of_body_are_refused_unread() {
    let with = async |name: &str, value: &str| {
        let mut request = request("POST", "/_matrix/client/v3/logout", "{}");
        request.headers_mut().insert(
            http::HeaderName::try_from(name).unwrap(),
            http::HeaderValue::try_from(value).unwrap(),
        );
        ask(server(), request).await.0
    };
    for value in ["multipart/form-data; boundary=x", "Multipart/Form-Data", "image/png", "x"] {
        assert_eq!(with("content-type", value).await, 415, "{value}");
    }
    for value in ["application/json", "application/json; charset=utf-8", "text/plain", ""] {
        assert_eq!(with("content-type", value).await, 200, "{value}");
    }
    assert_eq!(with("content-type", "application/x-www-form-urlencoded").await, 200);
    assert_eq!(with("content-encoding", "identity").await, 200);
    for value in ["gzip", "br", "gzip, identity", "zstd"] {
        assert_eq!(with("content-encoding", value).await, 415, "{value}");
    }
}

#[tokio::test]
async fn a_panic_is_one_request_s_only() {
    let app = server();
    let broken = request("POST", "/_matrix/client/v3/keys/upload", "{}");
    let (status, errcode, body) = ask(app.clone(), broken).await;
    assert_eq!((status, &*errcode), (500, "M_UNKNOWN"));
    assert_eq!(body["error"], "Internal server error");
    assert_eq!(ask(app, request("GET", WHOAMI, "")).await.0, 200);
}

#[tokio::test]
async fn raw_endpoints_get_their_arguments_and_the_body() {
    let response = server().answer(request("POST", "/echo/a%20b/c", "12345")).await;
    assert_eq!(response.status(), 201);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "a b|c 5");
}

#[tokio::test]
async fn errors_say_when_to_try_again_rounded_up() {
    let error = ApiError::limit_exceeded(Duration::from_micros(1_000_001));
    assert_eq!(error.body()["retry_after_ms"], 1001);
    let response = error.into_response();
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "2");
}

/// Answers with the address the request is taken to come from.
async fn address(_: Arc<Server>, auth: NoAuth, request: RawRequest) -> Result<Response, ApiError> {
    assert_eq!(Context::of(&request.head.extensions).address, auth.address);
    Err(ApiError::not_found(auth.address.to_string()))
}

#[tokio::test]
async fn t71_the_address_is_the_proxys_word_only_where_it_is_trusted() {
    let asked = async |trusted: &str| {
        let routes = Routes::new(Arc::new(Server)).add_raw(&Method::GET, &["/"], address);
        let mut settings = AppSettings::default();
        settings.trusted_proxies.0.push(trusted.parse().unwrap());
        let mut request = request("GET", "/", "");
        request.extensions_mut().insert(Peer::Tcp(IpAddr::from([10, 0, 0, 1])));
        request.headers_mut().insert("x-forwarded-for", "203.0.113.7".parse().unwrap());
        ask(App::new(routes.into_router(), settings), request).await.2["error"].clone()
    };
    assert_eq!(asked("10.0.0.0/8").await, "203.0.113.7");
    assert_eq!(asked("192.168.0.0/16").await, "10.0.0.1");
}

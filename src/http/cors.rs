//! CORS: any web page may call the API, since tokens travel in headers and never in cookies.
//!
//! The headers stand on every answer, errors included, so that clients can read them.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#web-browser-clients>

use axum::{body::Body, response::Response};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    },
};

/// `PATCH` is what clients send to profiles; the conditional headers and `ETag` serve the
/// rendezvous of a login by QR code.
const HEADERS: [(HeaderName, &str); 4] = [
    (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    (ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH"),
    (
        ACCESS_CONTROL_ALLOW_HEADERS,
        "X-Requested-With, Content-Type, Authorization, Date, If-Match, If-None-Match",
    ),
    (ACCESS_CONTROL_EXPOSE_HEADERS, "ETag"),
];

/// Adds the headers; one that a handler has set itself stays.
pub(super) fn allow(headers: &mut HeaderMap) {
    for (name, value) in HEADERS {
        headers.entry(name).or_insert_with(|| HeaderValue::from_static(value));
    }
}

/// The answer to `OPTIONS` on any path.
pub(super) fn preflight() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    // A day: otherwise browsers ask again every five seconds.
    response.headers_mut().insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    allow(response.headers_mut());
    response
}

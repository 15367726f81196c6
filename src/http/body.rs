//! Reading a request's body: refused by its headers where they suffice, else read up to a cap.
//!
//! Nothing is allocated on the word of `Content-Length`; at most the cap is ever held.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};
use http_body_util::BodyExt;
use tokio::time::timeout;

use crate::error::ApiError;

/// The largest body where an endpoint says nothing else.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// How long a client may send nothing of its body.
pub const BODY_IDLE_MAX: Duration = Duration::from_secs(30);

/// How long a body may take in all.
const BODY_DURATION_MAX: Duration = Duration::from_mins(10);

/// Refuses what cannot be JSON by its headers. No content type and wrong ones of the harmless kind
/// are common and taken; a form with files is refused before it is read.
pub fn check_json_headers(headers: &HeaderMap) -> Result<(), ApiError> {
    check_encoding(headers)?;
    let Some(content_type) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let content_type = content_type.to_str().unwrap_or_default().trim_start();
    let main = content_type.split(['/', ';', ' ']).next().unwrap_or_default();
    if content_type.is_empty()
        || ["application", "text"].iter().any(|t| main.eq_ignore_ascii_case(t))
    {
        return Ok(());
    }
    Err(ApiError::unsupported_media_type(
        "The body must be JSON: use Content-Type application/json",
    ))
}

/// Bodies are taken as they are: a compressed one could be a thousand times its length.
pub fn check_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    let identity = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.get_all(CONTENT_ENCODING).iter().all(identity) {
        return Ok(());
    }
    Err(ApiError::unsupported_media_type("A body with a Content-Encoding is not accepted"))
}

/// Reads a whole body of at most `bytes_max`; `idle_max` is the longest pause within it.
pub async fn read_body(
    body: Body,
    bytes_max: usize,
    idle_max: Duration,
) -> Result<Bytes, ApiError> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > bytes_max {
        return Err(too_large(bytes_max));
    }
    match timeout(BODY_DURATION_MAX, collect(body, bytes_max, idle_max)).await {
        Ok(bytes) => bytes,
        Err(_) => Err(too_slow()),
    }
}

async fn collect(mut body: Body, bytes_max: usize, idle_max: Duration) -> Result<Bytes, ApiError> {
    // Most bodies are one frame: that one is not copied.
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = timeout(idle_max, body.frame()).await.map_err(|_| too_slow())? {
        let frame = frame.map_err(|_| ApiError::unknown("The connection broke within the body"))?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + rest.len() + data.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        if first.is_empty() {
            first = data;
        } else {
            rest.extend_from_slice(&data);
        }
    }
    if rest.is_empty() {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(first.len() + rest.len());
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&rest);
    Ok(whole.freeze())
}

fn too_large(bytes_max: usize) -> ApiError {
    ApiError::too_large(format!("The body is larger than {bytes_max} bytes"))
}

fn too_slow() -> ApiError {
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "M_UNKNOWN", "The body came too slowly")
}

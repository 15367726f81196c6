//! The head of an answer with a file: its type, its name, which part of it, and what a browser may
//! do with it.
//!
//! What a user uploaded never runs at this server's address: the policy sandboxes it, its type is
//! not guessed, and only types that are harmless are shown in place.
//!
//! Attack cases T106, T107.
//! <https://spec.matrix.org/v1.19/client-server-api/#serving-inline-content>

use std::ops::Range;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{
        ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE,
        CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, IF_RANGE, RANGE,
        REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
    },
    request::Parts,
};

use super::is_head;
use crate::{
    error::ApiError,
    media::{disposition, is_inline},
};

/// What a browser may do with a file, on every answer.
const CONTAINMENT: [(HeaderName, &str); 5] = [
    (
        CONTENT_SECURITY_POLICY,
        "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; \
         style-src 'unsafe-inline'; object-src 'self';",
    ),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "cross-origin"),
];

/// What is answered.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) content_type: Option<String>,
    pub(super) filename: Option<String>,
    /// The entity tag, in its quotes.
    pub(super) tag: String,
    pub(super) size_bytes: u64,
    /// Thumbnails have a type that is always shown in place.
    pub(super) is_thumbnail: bool,
}

/// Which bytes are read and told.
#[derive(Debug)]
pub(super) struct Reading {
    /// What is read: nothing for HEAD.
    pub(super) range: Range<u64>,
    /// What the head tells.
    told: Range<u64>,
    is_part: bool,
}

/// Adds what keeps a browser from running a file, to answers and refusals alike.
pub(super) fn contained(answer: Result<Response, ApiError>) -> Response {
    let mut response = answer.unwrap_or_else(IntoResponse::into_response);
    for (name, value) in CONTAINMENT {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The entity tag of a content, or of something made of it.
pub(super) fn tag(hash: &[u8; 32], what: &str) -> String {
    format!("\"{}{what}\"", URL_SAFE_NO_PAD.encode(&hash[..16]))
}

/// What of the file is asked for, or the answer where it is none of it.
pub(super) fn reading(head: &Parts, described: &Described) -> Result<Reading, Response> {
    let tag = described.tag.as_str();
    if matches_tag(&head.headers, tag) {
        let mut response = StatusCode::NOT_MODIFIED.into_response();
        cacheable(response.headers_mut(), tag);
        return Err(response);
    }
    let size = described.size_bytes;
    let (told, is_part) = match part(&head.headers, tag, size) {
        Part::All => (0..size, false),
        Part::Of(range) => (range, true),
        Part::Outside => {
            let error = ApiError::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "M_INVALID_PARAM",
                format!("The file has {size} bytes, and the range is outside of them"),
            );
            let mut response = error.into_response();
            if let Ok(value) = HeaderValue::try_from(format!("bytes */{size}")) {
                response.headers_mut().insert(CONTENT_RANGE, value);
            }
            return Err(response);
        }
    };
    let range = if is_head(head) { 0..0 } else { told.clone() };
    Ok(Reading { range, told, is_part })
}

/// The answer.
pub(super) fn of(described: &Described, reading: &Reading, body: Body) -> Response {
    let mut response = Response::new(body);
    let Range { start, end } = reading.told;
    if reading.is_part {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let text = format!("bytes {start}-{}/{}", end.saturating_sub(1), described.size_bytes);
        if let Ok(value) = HeaderValue::try_from(text) {
            response.headers_mut().insert(CONTENT_RANGE, value);
        }
    }
    let headers = response.headers_mut();
    cacheable(headers, &described.tag);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(end - start));
    let content_type = described.content_type.as_deref().unwrap_or("application/octet-stream");
    let disposition = disposition(
        described.is_thumbnail || is_inline(content_type),
        described.filename.as_deref(),
    );
    let octets = HeaderValue::from_static("application/octet-stream");
    headers.insert(CONTENT_TYPE, HeaderValue::from_str(content_type).unwrap_or(octets));
    headers.insert(CONTENT_DISPOSITION, disposition);
    response
}

/// A file never changes under its address; those on the way keep no copy of what is not public.
fn cacheable(headers: &mut HeaderMap, tag: &str) {
    if let Ok(tag) = HeaderValue::from_str(tag) {
        headers.insert(ETAG, tag);
    }
    let cache = HeaderValue::from_static("private, max-age=31536000, immutable");
    headers.insert(CACHE_CONTROL, cache);
}

fn matches_tag(headers: &HeaderMap, tag: &str) -> bool {
    let values = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|one| {
        let one = one.trim();
        one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    All,
    Of(Range<u64>),
    Outside,
}

/// The part that is asked for. Several parts at once, and what cannot be read, count as all.
fn part(headers: &HeaderMap, tag: &str, size: u64) -> Part {
    let Some(value) = headers.get(RANGE).and_then(|value| value.to_str().ok()) else {
        return Part::All;
    };
    // A range of another version of the file is none of this one.
    if headers.get(IF_RANGE).is_some_and(|value| value.as_bytes() != tag.as_bytes()) {
        return Part::All;
    }
    let Some((first, last)) = value.strip_prefix("bytes=").and_then(|it| it.split_once('-')) else {
        return Part::All;
    };
    let number = |text: &str| text.trim().parse::<u64>();
    let range = match (first.trim().is_empty(), last.trim().is_empty()) {
        (true, true) => return Part::All,
        (true, false) => match number(last) {
            Ok(0) => return Part::Outside,
            Ok(count) => size.saturating_sub(count)..size,
            Err(_) => return Part::All,
        },
        (false, is_open) => {
            let Ok(start) = number(first) else { return Part::All };
            let end = match (is_open, number(last)) {
                (true, _) => size,
                (false, Ok(last)) if last >= start => last.saturating_add(1).min(size),
                (false, _) => return Part::All,
            };
            start..end
        }
    };
    if range.start >= size { Part::Outside } else { Part::Of(range) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_understood() {
        let of = |range: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, range.parse().unwrap());
            part(&headers, "\"t\"", 100)
        };
        assert_eq!(of("bytes=0-9"), Part::Of(0..10));
        assert_eq!(of("bytes=90-"), Part::Of(90..100));
        assert_eq!(of("bytes=90-1000"), Part::Of(90..100));
        assert_eq!(of("bytes=-10"), Part::Of(90..100));
        assert_eq!(of("bytes=-1000"), Part::Of(0..100));
        assert_eq!(of("bytes=100-"), Part::Outside);
        assert_eq!(of("bytes=-0"), Part::Outside);
        for all in ["bytes=5-1", "bytes=0-1,3-4", "lines=1-2", "bytes=-", "bytes=x-1", "bytes"] {
            assert_eq!(of(all), Part::All, "{all}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, "bytes=0-9".parse().unwrap());
        headers.insert(IF_RANGE, "\"other\"".parse().unwrap());
        assert_eq!(part(&headers, "\"t\"", 100), Part::All);
    }
}

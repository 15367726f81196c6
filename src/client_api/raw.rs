//! Queries and answers that handlers read and write themselves, where ruma's types do not say all.

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{HeaderValue, header::CONTENT_TYPE};
use serde::Serialize;

pub(super) use crate::http::parameter;
use crate::{encryption::PagedJson, error::ApiError};

/// An answer.
pub(super) fn json(answer: &impl Serialize) -> Result<Response, ApiError> {
    Ok(written_json(serde_json::to_vec(answer).map_err(ApiError::internal)?))
}

/// An answer that is JSON already.
pub(super) fn written_json(body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// An answer that is sent as it is written.
pub(super) fn paged_json(pages: PagedJson) -> Response {
    let PagedJson { first, rest } = pages;
    match rest {
        None => written_json(first),
        Some(rest) => {
            let first = stream::once(async { Ok::<Bytes, ApiError>(first) });
            written_json(Body::from_stream(first.chain(rest)))
        }
    }
}

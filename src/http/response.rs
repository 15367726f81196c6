//! Answers: ruma's responses and [`ApiError`] as HTTP, and ruma's refusals as [`ApiError`].

use std::{borrow::Cow, fmt::Write};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{
    HeaderValue,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use ruma::api::{
    OutgoingResponse, OutgoingResponseExt,
    error::{DeserializationError, FromHttpRequestError, HeaderDeserializationError},
};
use serde_json::Value;

use crate::error::ApiError;

/// How much of ruma's explanation a client gets: it may repeat what the client sent.
const EXPLANATION_BYTES_MAX: usize = 300;

/// Left in an answer's extensions for the boundary, which logs it once.
#[derive(Clone)]
pub(super) struct Failure(pub(super) ApiError);

/// Left in an answer's extensions for the boundary, which counts it: the errcode.
#[derive(Clone)]
pub(super) struct Refusal(pub(super) &'static str);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body().to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(after) = self.retry_after {
            // Rounded up: whoever waits exactly this long must not come too early.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Cow::Borrowed(errcode) = self.errcode
            && !errcode.is_empty()
        {
            response.extensions_mut().insert(Refusal(errcode));
        }
        if self.status.is_server_error() {
            response.extensions_mut().insert(Failure(self));
        }
        response
    }
}

/// A ruma response as HTTP.
pub(super) fn render(
    response: impl OutgoingResponse,
    omits_nulls: bool,
) -> Result<Response, ApiError> {
    let mut response = response.try_into_http_response::<Vec<u8>>().map_err(ApiError::internal)?;
    if omits_nulls {
        let mut body: Value =
            serde_json::from_slice(response.body()).map_err(ApiError::internal)?;
        omit_nulls(&mut body);
        *response.body_mut() = serde_json::to_vec(&body).map_err(ApiError::internal)?;
    }
    Ok(response.map(Body::from))
}

fn omit_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(omit_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(omit_nulls),
        _ => {}
    }
}

/// Why ruma did not take a request.
///
/// ruma reports a bad identifier in the path and a bad or missing query parameter alike, as
/// `Query`; only the text tells them apart.
pub(super) fn refusal(error: &FromHttpRequestError) -> ApiError {
    let FromHttpRequestError::Deserialization(error) = error else {
        return ApiError::method_not_allowed("The method is not supported here");
    };
    let explanation = shorten(error.to_string());
    match error {
        DeserializationError::Json(error) if error.is_data() => {
            ApiError::bad_json(format!("The body is not acceptable: {explanation}"))
        }
        DeserializationError::Json(_) => {
            ApiError::not_json(format!("The body is not JSON: {explanation}"))
        }
        DeserializationError::Query(_) if explanation.contains("missing field") => {
            ApiError::missing_param(format!("A parameter is missing: {explanation}"))
        }
        DeserializationError::Header(HeaderDeserializationError::MissingHeader(_)) => {
            ApiError::missing_param(format!("A header is missing: {explanation}"))
        }
        DeserializationError::Header(_) => {
            ApiError::invalid_param(format!("A header is not valid: {explanation}"))
        }
        _ => ApiError::invalid_param(format!("A parameter is not valid: {explanation}")),
    }
}

fn shorten(mut text: String) -> String {
    if text.len() > EXPLANATION_BYTES_MAX {
        text.truncate(text.floor_char_boundary(EXPLANATION_BYTES_MAX));
        text.push_str("...");
    }
    text
}

/// An error and all its causes in one line, for the log.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        write!(line, ": {error}").expect("writing to a String cannot fail");
        cause = error.source();
    }
    line
}

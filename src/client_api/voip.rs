//! Calls between two.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#voice-over-ip>

use std::sync::Arc;

use axum::{body::Body, response::Response};
use http::{HeaderValue, header::CONTENT_TYPE};

use super::ClientApi;
use crate::{
    error::ApiError,
    http::{RawRequest, Requester},
};

/// The paths of [`get_turn_server_info`].
pub(super) const TURN_SERVER_PATHS: &[&str] =
    &["/_matrix/client/v3/voip/turnServer", "/_matrix/client/r0/voip/turnServer"];

/// `GET /_matrix/client/v3/voip/turnServer`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3voipturnserver>
///
/// No TURN server can be configured yet, which `{}` says; ruma's response cannot be empty.
pub(super) async fn get_turn_server_info(
    _app: Arc<ClientApi>,
    _auth: Requester,
    _request: RawRequest,
) -> Result<Response, ApiError> {
    let mut response = Response::new(Body::from("{}"));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    Ok(response)
}

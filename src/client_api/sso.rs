//! Single sign-on, which this server does not offer yet.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#client-login-via-sso>

use std::sync::Arc;

use axum::response::Response;

use super::ClientApi;
use crate::{
    error::ApiError,
    http::{NoAuth, RawRequest},
};

/// The paths of [`redirect`].
pub(super) const PATHS: &[&str] = &[
    "/_matrix/client/unstable/org.matrix.msc2858/login/sso/redirect/{idp_id}",
    "/_matrix/client/r0/login/sso/redirect",
    "/_matrix/client/r0/login/sso/redirect/{idp_id}",
    "/_matrix/client/v3/login/sso/redirect/{idp_id}",
    "/_matrix/client/v3/login/sso/redirect",
];

/// `GET /_matrix/client/v3/login/sso/redirect`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3loginssoredirect>
///
/// Wherever the client wants to be sent afterwards, nobody is sent anywhere.
pub(super) async fn redirect(
    _app: Arc<ClientApi>,
    _auth: NoAuth,
    _request: RawRequest,
) -> Result<Response, ApiError> {
    Err(ApiError::not_found("This server has no single sign-on; `GET /login` lists what it has"))
}

//! What this server is: its keys and its version.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#retrieving-server-keys>

use std::sync::Arc;

use ruma::{
    api::federation::discovery::{
        get_server_keys::v2 as keys,
        get_server_version::v1::{self as version, Server},
    },
    serde::Raw,
};

use super::FederationApi;
use crate::{error::ApiError, federation::server_keys, http::NoAuth};

/// `GET /_matrix/key/v2/server`
/// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixkeyv2server>
pub async fn get_server_keys(
    app: Arc<FederationApi>,
    _auth: NoAuth,
    _request: keys::Request,
) -> Result<keys::Response, ApiError> {
    let document = server_keys::document(&app.store, &app.signer, &app.clock).await?;
    let raw = Raw::new(&document).map_err(ApiError::internal)?;
    Ok(keys::Response::new(raw.cast_unchecked()))
}

/// `GET /_matrix/federation/v1/version`
/// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1version>
pub async fn get_server_version(
    _app: Arc<FederationApi>,
    _auth: NoAuth,
    _request: version::Request,
) -> Result<version::Response, ApiError> {
    let mut server = Server::new();
    server.name = Some("Causerie".to_owned());
    server.version = Some(env!("CARGO_PKG_VERSION").to_owned());
    let mut response = version::Response::new();
    response.server = Some(server);
    Ok(response)
}

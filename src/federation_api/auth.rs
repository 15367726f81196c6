//! Which server sends a request.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#request-authentication>

use ruma::{ServerName, serde::Base64};

use super::FederationApi;
use crate::{error::ApiError, http::ServerAuthenticator};

impl ServerAuthenticator for FederationApi {
    fn server_name(&self) -> &ServerName {
        &self.signer.server_name
    }

    async fn verify_key(
        &self,
        server: &ServerName,
        key_id: &str,
    ) -> Result<Option<Base64>, ApiError> {
        if !self.federation.allows(server) {
            return Err(ApiError::forbidden(format!("This server does not talk with {server}")));
        }
        self.federation.verify_key(server, key_id).await.map_err(|error| {
            ApiError::unauthorized(format!("The keys of {server} cannot be had: {error}"))
        })
    }
}

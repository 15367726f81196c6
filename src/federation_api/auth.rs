//! Which server sends a request.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#request-authentication>

use ruma::{ServerName, serde::Base64};

use super::FederationApi;
use crate::{error::ApiError, federation::client::FederationError, http::ServerAuthenticator};

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
            ApiError::unauthorized(format!("The keys of {server} cannot be had: {}", told(&error)))
        })
    }

    fn heard_from(&self, server: &ServerName) {
        self.federation.heard_from(server);
    }
}

/// What whoever uses a server's name learns of why its keys cannot be had: nothing of where requests
/// may go, nor what names lead to in our network, and no words of others.
fn told(error: &FederationError) -> String {
    match error {
        FederationError::NotAllowed(_) => "it is not talked with".to_owned(),
        FederationError::BackingOff(_) => "it did not answer lately".to_owned(),
        FederationError::Egress(_) => "it cannot be reached".to_owned(),
        FederationError::Refused { status, .. } => format!("it answered {}", status.as_u16()),
        FederationError::BadAnswer(why) => (*why).to_owned(),
    }
}

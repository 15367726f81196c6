//! Networks behind bridges.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#third-party-networks>

use std::{collections::BTreeMap, sync::Arc};

use ruma::api::client::thirdparty::get_protocols;

use super::ClientApi;
use crate::{error::ApiError, http::Requester};

/// `GET /_matrix/client/v3/thirdparty/protocols`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartyprotocols>
///
/// There are no bridges yet.
pub(super) async fn get_protocols(
    _app: Arc<ClientApi>,
    _auth: Requester,
    _request: get_protocols::v3::Request,
) -> Result<get_protocols::v3::Response, ApiError> {
    Ok(get_protocols::v3::Response::new(BTreeMap::new()))
}

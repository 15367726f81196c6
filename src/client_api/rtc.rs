//! Calls of many: where the servers are that carry them.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/4143>

use std::sync::Arc;

use ruma::api::client::rtc::{RtcTransport, transports};
use serde_json::{Map, Value, json};

use super::{ClientApi, discovery::base_url};
use crate::{config::CallsConfig, error::ApiError, http::Requester};

/// `GET /_matrix/client/unstable/org.matrix.msc4143/rtc/transports`
/// <https://github.com/matrix-org/matrix-spec-proposals/pull/4143>
pub(super) async fn get_transports(
    app: Arc<ClientApi>,
    _auth: Requester,
    _request: transports::v1::Request,
) -> Result<transports::v1::Response, ApiError> {
    let transports = livekit(&app.config.calls).map(|data| RtcTransport::new("livekit", data));
    let transports = transports.transpose().map_err(ApiError::internal)?;
    Ok(transports::v1::Response::new(transports.into_iter().collect()))
}

/// The same as `/.well-known/matrix/client` has it.
pub(super) fn foci(calls: &CallsConfig) -> Option<Value> {
    let mut livekit = livekit(calls)?;
    livekit.insert("type".to_owned(), json!("livekit"));
    Some(json!([livekit]))
}

fn livekit(calls: &CallsConfig) -> Option<Map<String, Value>> {
    let url = calls.livekit_service_url.as_ref()?;
    Some(Map::from_iter([("livekit_service_url".to_owned(), json!(base_url(url)))]))
}

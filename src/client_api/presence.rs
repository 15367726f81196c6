//! Presence.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#presence>

use std::sync::Arc;

use ruma::{
    api::client::presence::{get_presence, set_presence},
    presence::PresenceState as Name,
};

use super::{ClientApi, account_routes::check_self};
use crate::{
    ephemeral::presence::{PresenceState, STATUS_BYTES_MAX},
    error::ApiError,
    http::Requester,
};

/// `GET /_matrix/client/v3/presence/{userId}/status`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3presenceuseridstatus>
///
/// Of users with whom one shares no room nothing is told, not even whether there are any.
pub(super) async fn get_presence(
    app: Arc<ClientApi>,
    auth: Requester,
    request: get_presence::v3::Request,
) -> Result<get_presence::v3::Response, ApiError> {
    let is_own = request.user_id == auth.user_id;
    if !is_own && !app.rooms.share_a_room(&auth.user_id, &request.user_id).await? {
        return Err(ApiError::forbidden("You share no room with this user"));
    }
    let presence = app.presence.get(&request.user_id).await?;
    let mut response = get_presence::v3::Response::new(Name::from(presence.state.name()));
    response.status_msg = presence.status_msg;
    response.last_active_ago = presence.last_active_ago;
    response.currently_active = Some(presence.currently_active);
    Ok(response)
}

/// `PUT /_matrix/client/v3/presence/{userId}/status`
/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3presenceuseridstatus>
///
/// `busy` (MSC3026) is a state too.
pub(super) async fn set_presence(
    app: Arc<ClientApi>,
    auth: Requester,
    request: set_presence::v3::Request,
) -> Result<set_presence::v3::Response, ApiError> {
    check_self(&auth, &request.user_id)?;
    app.limits_of(&auth).presence.check(&auth.user_id)?;
    let state = PresenceState::from_name(request.presence.as_str())
        .ok_or_else(|| ApiError::invalid_param("This is no state of presence"))?;
    let status_msg = request.status_msg.filter(|text| !text.is_empty());
    if status_msg.as_ref().is_some_and(|text| text.len() > STATUS_BYTES_MAX) {
        return Err(ApiError::too_large(format!(
            "A status message has at most {STATUS_BYTES_MAX} bytes"
        )));
    }
    app.presence.set(&auth.user_id, &auth.device_id, (state, status_msg)).await?;
    Ok(set_presence::v3::Response::new())
}

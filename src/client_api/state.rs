//! The state of a room.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#getting-events-for-a-room>

use std::sync::Arc;

use ruma::{
    api::client::state::{get_state_event_for_key, get_state_events},
    serde::Raw,
};

use super::{ClientApi, read_routes::asker};
use crate::{
    error::ApiError,
    http::Requester,
    rooms::members::{self, StateEventRequest},
};

/// `GET /_matrix/client/v3/rooms/{roomId}/state`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidstate>
pub(super) async fn get_state_events(
    app: Arc<ClientApi>,
    auth: Requester,
    request: get_state_events::v3::Request,
) -> Result<get_state_events::v3::Response, ApiError> {
    let state = members::state_events(&app.rooms, asker(auth), request.room_id).await?;
    let state = state.into_iter().map(Raw::from_json).collect();
    Ok(get_state_events::v3::Response::new(state))
}

/// `GET /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidstateeventtypestatekey>
///
/// The state key and the slash before it may be missing.
pub(super) async fn get_state_event_for_key(
    app: Arc<ClientApi>,
    auth: Requester,
    request: get_state_event_for_key::v3::Request,
) -> Result<get_state_event_for_key::v3::Response, ApiError> {
    use get_state_event_for_key::v3::StateEventFormat;
    let request = StateEventRequest {
        room_id: request.room_id,
        event_type: request.event_type.to_string(),
        state_key: request.state_key,
        whole: match request.format {
            StateEventFormat::Event => true,
            StateEventFormat::Content => false,
            _ => return Err(ApiError::invalid_param("The format is not known")),
        },
    };
    let event = members::state_event(&app.rooms, asker(auth), request).await?;
    Ok(get_state_event_for_key::v3::Response::new(event))
}

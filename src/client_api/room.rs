//! Rooms as a whole, and single events of them.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#rooms-1>

use std::sync::Arc;

use ruma::{api::client::room::get_room_event, serde::Raw};

use super::{ClientApi, read_routes::asker};
use crate::{error::ApiError, http::Requester, rooms::history};

/// `GET /_matrix/client/v3/rooms/{roomId}/event/{eventId}`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomideventeventid>
pub(super) async fn get_room_event(
    app: Arc<ClientApi>,
    auth: Requester,
    request: get_room_event::v3::Request,
) -> Result<get_room_event::v3::Response, ApiError> {
    let asker = asker(auth);
    let event = history::event(&app.rooms, asker, request.room_id, request.event_id).await?;
    Ok(get_room_event::v3::Response::new(Raw::from_json(event)))
}

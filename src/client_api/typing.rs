//! Typing notifications.

use std::sync::Arc;

use ruma::api::client::typing::create_typing_event::{self, v3::Typing};

use super::ClientApi;
use crate::{ephemeral::reading::joined_room, error::ApiError, http::Requester};

/// `PUT /_matrix/client/v3/rooms/{roomId}/typing/{userId}`
/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidtypinguserid>
///
/// `timeout` is at most 30 seconds.
pub(super) async fn create_typing_event(
    app: Arc<ClientApi>,
    auth: Requester,
    request: create_typing_event::v3::Request,
) -> Result<create_typing_event::v3::Response, ApiError> {
    if request.user_id != auth.user_id {
        return Err(ApiError::forbidden("You can type for yourself only"));
    }
    let room = joined_room(&app.rooms, &request.room_id, &auth.user_id).await?;
    app.presence.is_active(&auth.user_id);
    match request.state {
        Typing::Yes(info) => app.typing.start(room.nid, &auth.user_id, info.timeout).await?,
        Typing::No => app.typing.stop(room.nid, &auth.user_id).await?,
    }
    Ok(create_typing_event::v3::Response::new())
}

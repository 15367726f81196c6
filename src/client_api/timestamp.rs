//! The event that is closest to a time.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidtimestamp_to_event>

use std::sync::Arc;

use kv::Direction;
use ruma::api::{Direction as Dir, client::room::get_event_by_timestamp};

use super::{ClientApi, read_routes::asker};
use crate::{
    error::ApiError,
    http::Requester,
    rooms::timestamp::{self, TimestampRequest},
};

/// `GET /_matrix/client/v1/rooms/{roomId}/timestamp_to_event`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidtimestamp_to_event>
pub(super) async fn get_event_by_timestamp(
    app: Arc<ClientApi>,
    auth: Requester,
    request: get_event_by_timestamp::v1::Request,
) -> Result<get_event_by_timestamp::v1::Response, ApiError> {
    let request = TimestampRequest {
        room_id: request.room_id,
        time: request.ts,
        direction: match request.dir {
            Dir::Forward => Direction::Forward,
            Dir::Backward => Direction::Backward,
        },
    };
    let (event_id, time) = timestamp::event_at(&app.rooms, asker(auth), request).await?;
    Ok(get_event_by_timestamp::v1::Response::new(event_id, time))
}

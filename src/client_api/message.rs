//! Messages of a room.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#getting-events-for-a-room>

use std::sync::Arc;

use kv::Direction;
use ruma::{
    api::{Direction as Dir, client::message::get_message_events},
    assign,
    serde::Raw,
};

use super::{
    ClientApi,
    extended::Extended,
    read_routes::{asker, bounded, token},
};
use crate::{
    error::ApiError,
    http::Requester,
    rooms::{
        filter::RelatedBy,
        history::{self, MessagesRequest},
    },
};

/// `GET /_matrix/client/v3/rooms/{roomId}/messages`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmessages>
///
/// At most `limits.messages_page_events_max` events. A page may be empty and still have an `end`: history lies behind it.
pub(super) async fn get_message_events(
    app: Arc<ClientApi>,
    auth: Requester,
    request: Extended<get_message_events::v3::Request, RelatedBy>,
) -> Result<get_message_events::v3::Response, ApiError> {
    let Extended { request, more: related } = request;
    let request = MessagesRequest {
        room_id: request.room_id,
        from: token(request.from.as_deref())?,
        to: token(request.to.as_deref())?,
        direction: match request.dir {
            Dir::Forward => Direction::Forward,
            Dir::Backward => Direction::Backward,
        },
        limit: bounded(request.limit, 1, app.config.limits.messages_page_events_max),
        filter: request.filter,
        related,
    };
    let page = history::messages(&app.rooms, asker(auth), request).await?;
    Ok(assign!(get_message_events::v3::Response::new(), {
        start: page.start.to_string(),
        end: page.end.map(|end| end.to_string()),
        chunk: page.chunk.into_iter().map(Raw::from_json).collect(),
        state: page.state.into_iter().map(Raw::from_json).collect(),
    }))
}

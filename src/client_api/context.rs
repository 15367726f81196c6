//! The surroundings of an event.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#event-context>

use std::sync::Arc;

use ruma::{api::client::context::get_context, assign, serde::Raw};

use super::{
    ClientApi,
    extended::Extended,
    read_routes::{asker, bounded},
};
use crate::{
    error::ApiError,
    http::Requester,
    rooms::{
        filter::RelatedBy,
        history::{self, ContextRequest},
    },
};

/// `GET /_matrix/client/v3/rooms/{roomId}/context/{eventId}`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidcontexteventid>
///
/// At most `limits.context_events_max` events around the one.
pub(super) async fn get_context(
    app: Arc<ClientApi>,
    auth: Requester,
    request: Extended<get_context::v3::Request, RelatedBy>,
) -> Result<get_context::v3::Response, ApiError> {
    let Extended { request, more: related } = request;
    let request = ContextRequest {
        room_id: request.room_id,
        event_id: request.event_id,
        limit: bounded(request.limit, 0, app.config.limits.context_events_max),
        filter: request.filter,
        related,
    };
    let context = history::context(&app.rooms, asker(auth), request).await?;
    Ok(assign!(get_context::v3::Response::new(), {
        start: Some(context.start.to_string()),
        end: Some(context.end.to_string()),
        events_before: context.before.into_iter().map(Raw::from_json).collect(),
        event: Some(Raw::from_json(context.event)),
        events_after: context.after.into_iter().map(Raw::from_json).collect(),
        state: context.state.into_iter().map(Raw::from_json).collect(),
    }))
}

//! The surroundings of an event.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#event-context>

use std::sync::Arc;

use axum::response::Response;
use ruma::api::client::context::get_context;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    ClientApi,
    extended::Extended,
    raw::json,
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

/// The answer to [`get_context`].
#[derive(Serialize)]
struct ContextAnswer {
    start: String,
    end: String,
    events_before: Vec<Box<RawValue>>,
    event: Box<RawValue>,
    events_after: Vec<Box<RawValue>>,
    state: Vec<Box<RawValue>>,
}

/// `GET /_matrix/client/v3/rooms/{roomId}/context/{eventId}`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidcontexteventid>
///
/// At most `limits.context_events_max` events around the one. Lists are there also when they are empty:
/// many clients read them without asking.
pub(super) async fn get_context(
    app: Arc<ClientApi>,
    auth: Requester,
    request: Extended<get_context::v3::Request, RelatedBy>,
) -> Result<Response, ApiError> {
    let Extended { request, more: related } = request;
    let request = ContextRequest {
        room_id: request.room_id,
        event_id: request.event_id,
        limit: bounded(request.limit, 0, app.config.limits.context_events_max),
        filter: request.filter,
        related,
    };
    let context = history::context(&app.rooms, asker(auth), request).await?;
    json(&ContextAnswer {
        start: context.start.to_string(),
        end: context.end.to_string(),
        events_before: context.before,
        event: context.event,
        events_after: context.after,
        state: context.state,
    })
}

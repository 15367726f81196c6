//! The events that relate to an event.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#relationships-api>

use std::sync::Arc;

use kv::Direction;
use ruma::{
    OwnedEventId, OwnedRoomId, UInt,
    api::{
        Direction as Dir,
        client::relations::{
            get_relating_events, get_relating_events_with_rel_type,
            get_relating_events_with_rel_type_and_event_type,
        },
    },
    assign,
    events::AnyMessageLikeEvent,
    serde::Raw,
};

use super::{
    ClientApi,
    read_routes::{asker, bounded, token},
};
use crate::{
    error::ApiError,
    http::Requester,
    rooms::relations::page::{self, DEPTH, RelationsRequest},
};

/// How many events an answer holds when the client does not say.
const LIMIT: u32 = 5;

/// `GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidrelationseventid>
///
/// By default 5 events, at most 100. Relations are followed three levels deep (MSC3981).
pub(super) async fn get_relating_events(
    app: Arc<ClientApi>,
    auth: Requester,
    request: get_relating_events::v1::Request,
) -> Result<get_relating_events::v1::Response, ApiError> {
    let query = Query {
        event: (request.room_id, request.event_id),
        kind: (None, None),
        range: (request.from, request.to),
        direction: request.dir,
        limit: request.limit,
        recurse: request.recurse,
    };
    let Page { chunk, next_batch, prev_batch, recursion_depth } = query.answer(&app, auth).await?;
    let response = get_relating_events::v1::Response::new(chunk);
    Ok(assign!(response, { next_batch, prev_batch, recursion_depth }))
}

/// `GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}/{relType}`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidrelationseventidreltype>
pub(super) async fn get_relating_events_with_rel_type(
    app: Arc<ClientApi>,
    auth: Requester,
    request: get_relating_events_with_rel_type::v1::Request,
) -> Result<get_relating_events_with_rel_type::v1::Response, ApiError> {
    let query = Query {
        event: (request.room_id, request.event_id),
        kind: (Some(request.rel_type.to_string()), None),
        range: (request.from, request.to),
        direction: request.dir,
        limit: request.limit,
        recurse: request.recurse,
    };
    let Page { chunk, next_batch, prev_batch, recursion_depth } = query.answer(&app, auth).await?;
    let response = get_relating_events_with_rel_type::v1::Response::new(chunk);
    Ok(assign!(response, { next_batch, prev_batch, recursion_depth }))
}

/// `GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}/{relType}/{eventType}`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidrelationseventidreltypeeventtype>
pub(super) async fn get_relating_events_with_rel_type_and_event_type(
    app: Arc<ClientApi>,
    auth: Requester,
    request: get_relating_events_with_rel_type_and_event_type::v1::Request,
) -> Result<get_relating_events_with_rel_type_and_event_type::v1::Response, ApiError> {
    let query = Query {
        event: (request.room_id, request.event_id),
        kind: (Some(request.rel_type.to_string()), Some(request.event_type.to_string())),
        range: (request.from, request.to),
        direction: request.dir,
        limit: request.limit,
        recurse: request.recurse,
    };
    let Page { chunk, next_batch, prev_batch, recursion_depth } = query.answer(&app, auth).await?;
    let response = get_relating_events_with_rel_type_and_event_type::v1::Response::new(chunk);
    Ok(assign!(response, { next_batch, prev_batch, recursion_depth }))
}

/// What the three endpoints have in common.
struct Query {
    event: (OwnedRoomId, OwnedEventId),
    /// The types of relation and event.
    kind: (Option<String>, Option<String>),
    range: (Option<String>, Option<String>),
    direction: Dir,
    limit: Option<UInt>,
    recurse: bool,
}

/// What their answers have in common.
struct Page {
    chunk: Vec<Raw<AnyMessageLikeEvent>>,
    next_batch: Option<String>,
    prev_batch: Option<String>,
    recursion_depth: Option<UInt>,
}

impl Query {
    async fn answer(self, app: &ClientApi, auth: Requester) -> Result<Page, ApiError> {
        let ((room_id, event_id), (rel_type, event_type)) = (self.event, self.kind);
        let (from, to) = self.range;
        let request = RelationsRequest {
            room_id,
            event_id,
            rel_type,
            event_type,
            from: token(from.as_deref())?,
            to: token(to.as_deref())?,
            direction: match self.direction {
                Dir::Forward => Direction::Forward,
                Dir::Backward => Direction::Backward,
            },
            limit: bounded(
                self.limit.unwrap_or(LIMIT.into()),
                1,
                app.config.limits.relations_page_events_max,
            ),
            recurse: self.recurse,
        };
        let found = page::relations(&app.rooms, asker(auth), request).await?;
        Ok(Page {
            chunk: found.chunk.into_iter().map(Raw::from_json).collect(),
            next_batch: found.next.map(|token| token.to_string()),
            prev_batch: from,
            recursion_depth: self.recurse.then_some(DEPTH.into()),
        })
    }
}

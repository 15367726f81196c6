//! The rooms of spaces, and what a room is to those who are not in it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#spaces>

use std::sync::Arc;

use ruma::{
    OwnedRoomId, RoomAliasId, RoomId, RoomOrAliasId,
    api::client::{
        room::get_summary,
        space::{SpaceHierarchyRoomsChunk, get_hierarchy},
    },
    assign,
    events::room::member::MembershipState,
    serde::Raw,
};

use super::{
    ClientApi,
    read_routes::{bounded, given},
};
use crate::{
    error::ApiError,
    http::{MaybeRequester, Requester},
    rooms::hierarchy::{DEPTH_MAX, HierarchyRequest},
};

/// The path of MSC3266 that some clients still use.
pub(super) const OLD_SUMMARY_PATHS: [&str; 1] =
    ["/_matrix/client/unstable/im.nheko.summary/summary/{room_id_or_alias}"];

/// `GET /_matrix/client/v1/rooms/{roomId}/hierarchy`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidhierarchy>
///
/// At most `limits.hierarchy_page_rooms_max` rooms a page, 16 spaces deep.
pub(super) async fn get_hierarchy(
    app: Arc<ClientApi>,
    auth: Requester,
    request: get_hierarchy::v1::Request,
) -> Result<get_hierarchy::v1::Response, ApiError> {
    let page_max = app.config.limits.hierarchy_page_rooms_max.max(1);
    let limit = request.limit.map_or(page_max, |limit| bounded(limit, 0, page_max));
    if limit == 0 {
        return Err(ApiError::invalid_param("`limit` is greater than zero"));
    }
    let depth = request.max_depth.map_or(DEPTH_MAX, |depth| {
        u8::try_from(u64::from(depth)).unwrap_or(DEPTH_MAX).min(DEPTH_MAX)
    });
    let wanted = HierarchyRequest {
        user_id: auth.user_id,
        room_id: request.room_id,
        suggested_only: request.suggested_only,
        max_depth: depth,
    };
    let page = app.rooms.hierarchy(wanted, given(request.from.as_deref()), limit).await?;
    let rooms = page.rooms.into_iter().map(|room| {
        let children = room.children.into_iter().map(Raw::from_json).collect();
        SpaceHierarchyRoomsChunk::new((*room.summary).clone(), children)
    });
    Ok(assign!(get_hierarchy::v1::Response::new(), {
        next_batch: page.next_batch,
        rooms: rooms.collect(),
    }))
}

/// `GET /_matrix/client/v1/room_summary/{roomIdOrAlias}`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1room_summaryroomidoralias>
///
/// Whoever may not know of a room is told the same as of one that there is not.
pub(super) async fn get_summary(
    app: Arc<ClientApi>,
    auth: MaybeRequester,
    request: get_summary::v1::Request,
) -> Result<get_summary::v1::Response, ApiError> {
    let not_found = || ApiError::not_found("Room not found");
    let user_id = auth.0.map(|requester| requester.user_id);
    let room_id = named(&app, &request.room_id_or_alias).await?.ok_or_else(not_found)?;
    let room = app.rooms.room(&room_id).await?.ok_or_else(not_found)?;
    let summary = app.rooms.room_summary(&room, user_id.as_deref()).await?;
    let (summary, membership) = summary.ok_or_else(not_found)?;
    Ok(assign!(get_summary::v1::Response::new(summary), {
        membership: user_id.map(|_| MembershipState::from(membership.name())),
    }))
}

async fn named(app: &ClientApi, name: &RoomOrAliasId) -> Result<Option<OwnedRoomId>, ApiError> {
    if let Ok(room_id) = <&RoomId>::try_from(name) {
        return Ok(Some(room_id.to_owned()));
    }
    let alias = <&RoomAliasId>::try_from(name)
        .map_err(|_| ApiError::invalid_param("This is neither a room id nor an alias"))?;
    Ok(app.rooms.resolve_alias(alias).await?.map(|row| row.room_id))
}

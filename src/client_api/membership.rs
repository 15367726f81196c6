//! Who is in a room, and which rooms a user is in.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-membership>

use std::{collections::BTreeMap, sync::Arc};

use axum::response::Response;
use ruma::{
    OwnedMxcUri,
    api::client::membership::{get_member_events, joined_members, joined_rooms},
    events::room::member::MembershipState,
    serde::Raw,
};
use serde::Serialize;
use serde_json::json;

use super::{ClientApi, raw::json, read_routes::asker};
use crate::{
    error::ApiError,
    http::Requester,
    rooms::members::{self, MembersRequest},
    storage::rows::Membership,
};

/// `GET /_matrix/client/v3/rooms/{roomId}/members`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmembers>
pub(super) async fn get_member_events(
    app: Arc<ClientApi>,
    auth: Requester,
    request: get_member_events::v3::Request,
) -> Result<get_member_events::v3::Response, ApiError> {
    let request = MembersRequest {
        room_id: request.room_id,
        at: request.at.as_deref().map(str::parse).transpose()?,
        membership: request.membership.as_ref().map(known_membership).transpose()?,
        not_membership: request.not_membership.as_ref().map(known_membership).transpose()?,
    };
    let members = members::members(&app.rooms, asker(auth), request).await?;
    let members = members.into_iter().map(Raw::from_json).collect();
    Ok(get_member_events::v3::Response::new(members))
}

fn known_membership(membership: &MembershipState) -> Result<Membership, ApiError> {
    match Membership::from_name(membership.as_str()) {
        Membership::None => Err(ApiError::invalid_param("The membership is not known")),
        membership => Ok(membership),
    }
}

/// A member as `/joined_members` shows it.
#[derive(Serialize)]
struct JoinedMember {
    display_name: Option<String>,
    avatar_url: Option<OwnedMxcUri>,
}

/// `GET /_matrix/client/v3/rooms/{roomId}/joined_members`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidjoined_members>
///
/// A name that is not there is `null`: matrix-nio 0.20, as in Debian 12, sends nothing into an encrypted
/// room where it is left out.
pub(super) async fn joined_members(
    app: Arc<ClientApi>,
    auth: Requester,
    request: joined_members::v3::Request,
) -> Result<Response, ApiError> {
    let members = members::joined_members(&app.rooms, auth.user_id, request.room_id).await?;
    let joined = members.into_iter().map(|(user_id, profile)| {
        let member =
            JoinedMember { display_name: profile.displayname, avatar_url: profile.avatar_url };
        (user_id, member)
    });
    let joined: BTreeMap<_, _> = joined.collect();
    json(&json!({ "joined": joined }))
}

/// `GET /_matrix/client/v3/joined_rooms`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3joined_rooms>
pub(super) async fn joined_rooms(
    app: Arc<ClientApi>,
    auth: Requester,
    _request: joined_rooms::v3::Request,
) -> Result<joined_rooms::v3::Response, ApiError> {
    let rooms = members::joined_rooms(&app.rooms, auth.user_id).await?;
    Ok(joined_rooms::v3::Response::new(rooms))
}

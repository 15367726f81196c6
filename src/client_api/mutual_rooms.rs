//! The rooms that one shares with another user.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#mutual-rooms>

use std::sync::Arc;

use ruma::{
    OwnedUserId, UInt,
    api::client::membership::get_mutual_rooms::{unstable, v1},
    assign,
};

use super::{ClientApi, read_routes::given};
use crate::{error::ApiError, http::Requester, id::RoomNid, rooms::mutual::MutualRooms};

/// How many rooms a page has.
const ROOMS_MAX: usize = 100;

/// `GET /_matrix/client/v1/mutual_rooms`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mutual_rooms>
///
/// 100 rooms a page. Tokens do not expire.
pub(super) async fn get_mutual_rooms(
    app: Arc<ClientApi>,
    auth: Requester,
    request: v1::Request,
) -> Result<v1::Response, ApiError> {
    let (mutual, next_batch) = look_up(&app, auth, request.user_id, request.from).await?;
    let count = UInt::try_from(mutual.count).unwrap_or(UInt::MAX);
    Ok(assign!(v1::Response::new(count, mutual.rooms), { next_batch }))
}

/// `GET /_matrix/client/unstable/uk.half-shot.msc2666/user/mutual_rooms`
/// <https://github.com/matrix-org/matrix-spec-proposals/pull/2666>
pub(super) async fn get_mutual_rooms_unstable(
    app: Arc<ClientApi>,
    auth: Requester,
    request: unstable::Request,
) -> Result<unstable::Response, ApiError> {
    let (mutual, next_batch) = look_up(&app, auth, request.user_id, request.from).await?;
    Ok(assign!(unstable::Response::new(mutual.rooms), { next_batch }))
}

async fn look_up(
    app: &ClientApi,
    auth: Requester,
    user_id: OwnedUserId,
    from: Option<String>,
) -> Result<(MutualRooms, Option<String>), ApiError> {
    if user_id == auth.user_id {
        return Err(ApiError::invalid_param("One shares all rooms with oneself"));
    }
    if user_id.validate_historical().is_err() {
        return Err(ApiError::invalid_param("`user_id` is not a valid user id"));
    }
    let after = given(from.as_deref()).map(parse_token).transpose()?;
    let mutual = app.rooms.mutual_rooms([auth.user_id, user_id], after, ROOMS_MAX).await?;
    let next_batch = mutual.last.map(|RoomNid(last)| format!("{last:x}"));
    Ok((mutual, next_batch))
}

fn parse_token(token: &str) -> Result<RoomNid, ApiError> {
    let number = u64::from_str_radix(token, 16);
    number.map(RoomNid).map_err(|_| ApiError::invalid_param("`from` is not a token of this list"))
}

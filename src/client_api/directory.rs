//! The directory of rooms.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#published-room-directory>

use std::sync::Arc;

use ruma::{
    ServerName, UInt,
    api::client::directory::{get_public_rooms, get_public_rooms_filtered},
    assign,
    directory::{PublicRoomsChunk, RoomNetwork},
};

use super::{
    ClientApi,
    read_routes::{bounded, token},
};
use crate::{
    error::ApiError,
    http::{MaybeRequester, Requester},
    rooms::published::{Published, PublishedRequest},
};

/// `GET /_matrix/client/v3/publicRooms`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3publicrooms>
///
/// At most `limits.directory_page_rooms_max` rooms a page. Without a login only where `rooms.directory_without_login` allows it.
pub(super) async fn get_public_rooms(
    app: Arc<ClientApi>,
    auth: MaybeRequester,
    request: get_public_rooms::v3::Request,
) -> Result<get_public_rooms::v3::Response, ApiError> {
    if auth.0.is_none() && !app.config.rooms.directory_without_login {
        return Err(ApiError::missing_token("The directory is shown to who is logged in"));
    }
    check_own(&app, request.server.as_deref())?;
    let request = PublishedRequest {
        term: None,
        types: Vec::new(),
        since: token(request.since.as_deref())?,
        limit: limit(request.limit, &app),
        general: true,
        others: Vec::new(),
    };
    let page = app.rooms.published(request).await?;
    let (chunk, next_batch, prev_batch, total) = parts(page);
    Ok(assign!(get_public_rooms::v3::Response::new(chunk), {
        next_batch,
        prev_batch,
        total_room_count_estimate: Some(total),
    }))
}

/// `POST /_matrix/client/v3/publicRooms`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3publicrooms>
///
/// At most `limits.directory_page_rooms_max` rooms a page. Rooms of a third-party network are those that its application service
/// lists.
pub(super) async fn get_public_rooms_filtered(
    app: Arc<ClientApi>,
    _auth: Requester,
    request: get_public_rooms_filtered::v3::Request,
) -> Result<get_public_rooms_filtered::v3::Response, ApiError> {
    check_own(&app, request.server.as_deref())?;
    let (general, others) = match &request.room_network {
        RoomNetwork::ThirdParty(instance) => {
            (false, app.appservices.rooms_of_network(Some(instance)).await?)
        }
        RoomNetwork::All => (true, app.appservices.rooms_of_network(None).await?),
        _ => (true, Vec::new()),
    };
    let wanted = PublishedRequest {
        term: request.filter.generic_search_term,
        types: request.filter.room_types,
        since: token(request.since.as_deref())?,
        limit: limit(request.limit, &app),
        general,
        others,
    };
    let page = app.rooms.published(wanted).await?;
    let (chunk, next_batch, prev_batch, total) = parts(page);
    Ok(assign!(get_public_rooms_filtered::v3::Response::new(), {
        chunk,
        next_batch,
        prev_batch,
        total_room_count_estimate: Some(total),
    }))
}

/// Zero asks for as many as there are.
fn limit(limit: Option<UInt>, app: &ClientApi) -> usize {
    let rooms_max = app.config.limits.directory_page_rooms_max.max(1);
    match limit.map(|limit| bounded(limit, 0, rooms_max)) {
        None | Some(0) => rooms_max,
        Some(limit) => limit,
    }
}

fn check_own(app: &ClientApi, server: Option<&ServerName>) -> Result<(), ApiError> {
    if server.is_none_or(|server| server == app.rooms.server_name()) {
        return Ok(());
    }
    Err(ApiError::not_found("This server does not ask other servers for their directories"))
}

type Parts = (Vec<PublicRoomsChunk>, Option<String>, Option<String>, UInt);

fn parts(page: Published) -> Parts {
    let rooms = page.rooms.into_iter().map(|room| PublicRoomsChunk::from((*room).clone()));
    (
        rooms.collect(),
        page.next.map(|token| token.to_string()),
        page.previous.map(|token| token.to_string()),
        UInt::try_from(page.total).unwrap_or(UInt::MAX),
    )
}

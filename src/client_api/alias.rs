//! Room aliases and whether the directory shows a room.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-aliases>

use std::sync::Arc;

use ruma::api::client::{
    alias::{create_alias, delete_alias, get_alias},
    directory::{get_room_visibility, set_room_visibility},
    room::{Visibility, aliases},
};

use super::{ClientApi, appservice};
use crate::{
    error::ApiError,
    http::{NoAuth, Requester},
};

/// `GET /_matrix/client/v3/directory/room/{roomAlias}`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3directoryroomroomalias>
pub async fn get(
    app: Arc<ClientApi>,
    _auth: NoAuth,
    request: get_alias::v3::Request,
) -> Result<get_alias::v3::Response, ApiError> {
    match appservice::resolve_alias(&app, &request.room_alias).await? {
        Some(row) => Ok(get_alias::v3::Response::new(row.room_id, row.servers)),
        None => Err(ApiError::not_found(format!("There is no alias {}", request.room_alias))),
    }
}

/// `PUT /_matrix/client/v3/directory/room/{roomAlias}`
/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3directoryroomroomalias>
///
/// Only members of a room give it names.
pub async fn create(
    app: Arc<ClientApi>,
    auth: Requester,
    request: create_alias::v3::Request,
) -> Result<create_alias::v3::Response, ApiError> {
    if request.room_alias.as_str().len() > 255 {
        return Err(ApiError::invalid_param("An alias has at most 255 bytes"));
    }
    let caller = auth.appservice.as_ref();
    app.appservices.check_alias(&request.room_alias, caller)?;
    let room = app.rooms.known_room(&request.room_id).await?;
    // An application service that comes this far has full control over the alias.
    if caller.is_none() && !app.rooms.has_joined(&room, &auth.user_id).await? {
        return Err(ApiError::forbidden("Only members of a room give it aliases"));
    }
    app.rooms.create_alias(&room, request.room_alias, auth.user_id).await?;
    Ok(create_alias::v3::Response::new())
}

/// `DELETE /_matrix/client/v3/directory/room/{roomAlias}`
/// <https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3directoryroomroomalias>
pub async fn delete(
    app: Arc<ClientApi>,
    auth: Requester,
    request: delete_alias::v3::Request,
) -> Result<delete_alias::v3::Response, ApiError> {
    let caller = auth.appservice.as_ref();
    app.appservices.check_alias(&request.room_alias, caller)?;
    let mut user_id = auth.user_id;
    if caller.is_some() {
        // It has full control over its aliases, whoever of its users made one.
        let row = app.rooms.resolve_alias(&request.room_alias).await?;
        user_id = row.map_or(user_id, |row| row.creator);
    }
    app.rooms.delete_alias(&request.room_alias, &user_id).await?;
    Ok(delete_alias::v3::Response::new())
}

/// `GET /_matrix/client/v3/rooms/{roomId}/aliases`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidaliases>
pub async fn list(
    app: Arc<ClientApi>,
    auth: Requester,
    request: aliases::v3::Request,
) -> Result<aliases::v3::Response, ApiError> {
    let room = app.rooms.known_room(&request.room_id).await?;
    if !app.rooms.has_joined(&room, &auth.user_id).await? && !app.rooms.is_open(&room).await? {
        return Err(ApiError::forbidden("You are not in this room"));
    }
    Ok(aliases::v3::Response::new(app.rooms.aliases(&room).await?))
}

/// `GET /_matrix/client/v3/directory/list/room/{roomId}`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3directorylistroomroomid>
pub async fn get_visibility(
    app: Arc<ClientApi>,
    _auth: NoAuth,
    request: get_room_visibility::v3::Request,
) -> Result<get_room_visibility::v3::Response, ApiError> {
    let room = app.rooms.known_room(&request.room_id).await?;
    let listed = app.rooms.is_listed(&room).await?;
    let visibility = if listed { Visibility::Public } else { Visibility::Private };
    Ok(get_room_visibility::v3::Response::new(visibility))
}

/// `PUT /_matrix/client/v3/directory/list/room/{roomId}`
/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3directorylistroomroomid>
pub async fn set_visibility(
    app: Arc<ClientApi>,
    auth: Requester,
    request: set_room_visibility::v3::Request,
) -> Result<set_room_visibility::v3::Response, ApiError> {
    let room = app.rooms.known_room(&request.room_id).await?;
    let listed = match request.visibility {
        Visibility::Public => true,
        Visibility::Private => false,
        _ => return Err(ApiError::invalid_param("The visibility is `public` or `private`")),
    };
    app.rooms.set_listed(&room, &auth.user_id, listed).await?;
    Ok(set_room_visibility::v3::Response::new())
}

//! Tags of rooms: account data with endpoints of their own.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-tagging>

use std::sync::Arc;

use ruma::api::client::tag::{create_tag, delete_tag, get_tags};

use super::{ClientApi, account_routes::check_self};
use crate::{error::ApiError, http::Requester};

/// `GET /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridroomsroomidtags>
pub(super) async fn get_tags(
    app: Arc<ClientApi>,
    auth: Requester,
    request: get_tags::v3::Request,
) -> Result<get_tags::v3::Response, ApiError> {
    check_self(&auth, &request.user_id)?;
    let tags = app.users.tags().get(&auth.user_id, &request.room_id).await?;
    Ok(get_tags::v3::Response::new(tags))
}

/// `PUT /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag}`
/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3useruseridroomsroomidtagstag>
pub(super) async fn create_tag(
    app: Arc<ClientApi>,
    auth: Requester,
    request: create_tag::v3::Request,
) -> Result<create_tag::v3::Response, ApiError> {
    check_self(&auth, &request.user_id)?;
    let tags = app.users.tags();
    tags.set(&auth.user_id, &request.room_id, &request.tag, &request.tag_info).await?;
    Ok(create_tag::v3::Response::new())
}

/// `DELETE /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag}`
/// <https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3useruseridroomsroomidtagstag>
pub(super) async fn delete_tag(
    app: Arc<ClientApi>,
    auth: Requester,
    request: delete_tag::v3::Request,
) -> Result<delete_tag::v3::Response, ApiError> {
    check_self(&auth, &request.user_id)?;
    app.users.tags().remove(&auth.user_id, &request.room_id, &request.tag).await?;
    Ok(delete_tag::v3::Response::new())
}

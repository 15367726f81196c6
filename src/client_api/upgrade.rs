//! Upgrading rooms.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-upgrades>

use std::sync::Arc;

use ruma::api::client::room::upgrade_room;

use super::{ClientApi, membership_change::member_profile};
use crate::{error::ApiError, http::Requester, rooms::upgrade::Upgrade, users::successors};

/// `POST /_matrix/client/v3/rooms/{roomId}/upgrade`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidupgrade>
///
/// Trying again answers the same room. Besides what the specification lists, bans and the children
/// of a space are taken over.
pub(super) async fn upgrade_room(
    app: Arc<ClientApi>,
    auth: Requester,
    request: upgrade_room::v3::Request,
) -> Result<upgrade_room::v3::Response, ApiError> {
    app.limits_of(&auth).room_creation.check(&auth.user_id)?;
    let room = app.rooms.known_room(&request.room_id).await?;
    let wanted = Upgrade {
        profile: member_profile(&app, &auth.user_id).await?,
        sender: auth.user_id.clone(),
        version: request.new_version,
        additional_creators: request.additional_creators,
    };
    let replacement = app.rooms.upgrade(&room, wanted).await?;
    let new = app.rooms.known_room(&replacement).await?;
    successors::carry_over(&app.users, &app.rooms, &new, &auth.user_id).await;
    Ok(upgrade_room::v3::Response::new(replacement))
}

//! Reporting what is inappropriate.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#reporting-content>

use std::sync::Arc;

use ruma::api::client::{
    reporting::report_user,
    room::{report_content, report_room},
};

use super::ClientApi;
use crate::{error::ApiError, http::Requester};

/// `POST /_matrix/client/v3/rooms/{roomId}/report`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidreport>
///
/// Answers 200 for a room that is not known too: the answer tells nothing about rooms.
pub(super) async fn report_room(
    app: Arc<ClientApi>,
    auth: Requester,
    request: report_room::v3::Request,
) -> Result<report_room::v3::Response, ApiError> {
    app.limits_of(&auth).reports.check(&auth.user_id)?;
    app.rooms.report_room(auth.user_id, &request.room_id, request.reason).await?;
    Ok(report_room::v3::Response::new())
}

/// `POST /_matrix/client/v3/rooms/{roomId}/report/{eventId}`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidreporteventid>
pub(super) async fn report_content(
    app: Arc<ClientApi>,
    auth: Requester,
    request: report_content::v3::Request,
) -> Result<report_content::v3::Response, ApiError> {
    app.limits_of(&auth).reports.check(&auth.user_id)?;
    let event = (&*request.room_id, &*request.event_id);
    app.rooms.report_event(auth.user_id, event, request.reason.unwrap_or_default()).await?;
    Ok(report_content::v3::Response::new())
}

/// `POST /_matrix/client/v3/users/{userId}/report`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3usersuseridreport>
///
/// Answers 200 for a user who is not known too.
pub(super) async fn report_user(
    app: Arc<ClientApi>,
    auth: Requester,
    request: report_user::v3::Request,
) -> Result<report_user::v3::Response, ApiError> {
    app.limits_of(&auth).reports.check(&auth.user_id)?;
    app.rooms.report_user(auth.user_id, request.user_id, request.reason).await?;
    Ok(report_user::v3::Response::new())
}

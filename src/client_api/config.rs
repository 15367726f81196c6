//! Account data: what clients keep for their user.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#client-config>

use std::sync::Arc;

use ruma::{
    api::client::config::{
        get_global_account_data, get_room_account_data, set_global_account_data,
        set_room_account_data,
    },
    serde::Raw,
};

use super::{ClientApi, account_routes::check_self};
use crate::{error::ApiError, http::Requester};

/// `GET /_matrix/client/v3/user/{userId}/account_data/{type}`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridaccount_datatype>
pub(super) async fn get_global_account_data(
    app: Arc<ClientApi>,
    auth: Requester,
    request: get_global_account_data::v3::Request,
) -> Result<get_global_account_data::v3::Response, ApiError> {
    check_self(&auth, &request.user_id)?;
    let kind = request.event_type.to_string();
    let content = app.users.account_data().get(&auth.user_id, None, &kind).await?;
    let content = content.ok_or_else(not_found)?;
    Ok(get_global_account_data::v3::Response::new(Raw::from_json(content)))
}

/// `PUT /_matrix/client/v3/user/{userId}/account_data/{type}`
/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3useruseridaccount_datatype>
pub(super) async fn set_global_account_data(
    app: Arc<ClientApi>,
    auth: Requester,
    request: set_global_account_data::v3::Request,
) -> Result<set_global_account_data::v3::Response, ApiError> {
    check_self(&auth, &request.user_id)?;
    let kind = request.event_type.to_string();
    app.users.account_data().set(&auth.user_id, None, &kind, request.data.json()).await?;
    Ok(set_global_account_data::v3::Response::new())
}

/// `GET /_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridroomsroomidaccount_datatype>
pub(super) async fn get_room_account_data(
    app: Arc<ClientApi>,
    auth: Requester,
    request: get_room_account_data::v3::Request,
) -> Result<get_room_account_data::v3::Response, ApiError> {
    check_self(&auth, &request.user_id)?;
    let (room_id, kind) = (request.room_id, request.event_type.to_string());
    let content = app.users.account_data().get(&auth.user_id, Some(&room_id), &kind).await?;
    let content = content.ok_or_else(not_found)?;
    Ok(get_room_account_data::v3::Response::new(Raw::from_json(content)))
}

/// `PUT /_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}`
/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3useruseridroomsroomidaccount_datatype>
pub(super) async fn set_room_account_data(
    app: Arc<ClientApi>,
    auth: Requester,
    request: set_room_account_data::v3::Request,
) -> Result<set_room_account_data::v3::Response, ApiError> {
    check_self(&auth, &request.user_id)?;
    let (room_id, kind) = (request.room_id, request.event_type.to_string());
    let content = request.data.json();
    app.users.account_data().set(&auth.user_id, Some(&room_id), &kind, content).await?;
    Ok(set_room_account_data::v3::Response::new())
}

fn not_found() -> ApiError {
    ApiError::not_found("There is no account data of this type")
}

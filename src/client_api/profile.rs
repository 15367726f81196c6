//! Profiles.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#profiles>

use std::sync::Arc;

use ruma::{
    UserId,
    api::client::profile::{
        delete_profile_field, get_profile, get_profile_field, set_profile_field,
    },
    profile::ProfileFieldValue,
};

use super::{ClientApi, account_routes::check_self};
use crate::{
    error::ApiError,
    http::{NoAuth, Requester},
    users::{Profile, in_rooms, is_in_rooms},
};

/// `GET /_matrix/client/v3/profile/{userId}`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3profileuserid>
pub(super) async fn get_profile(
    app: Arc<ClientApi>,
    auth: NoAuth,
    request: get_profile::v3::Request,
) -> Result<get_profile::v3::Response, ApiError> {
    app.users.profiles().limit_lookups(auth.address)?;
    let profile = look_up(&app, &request.user_id).await?;
    Ok(profile.into_fields().collect())
}

/// `GET /_matrix/client/v3/profile/{userId}/{keyName}`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3profileuseridkeyname>
pub(super) async fn get_profile_field(
    app: Arc<ClientApi>,
    auth: NoAuth,
    request: get_profile_field::v3::Request,
) -> Result<get_profile_field::v3::Response, ApiError> {
    app.users.profiles().limit_lookups(auth.address)?;
    let profile = look_up(&app, &request.user_id).await?;
    let field = request.field.as_str();
    let value = profile.field(field).ok_or_else(|| ApiError::not_found("The field is not set"))?;
    let value = ProfileFieldValue::new(field, value.clone()).map_err(ApiError::internal)?;
    Ok(get_profile_field::v3::Response::new(value))
}

/// `PUT /_matrix/client/v3/profile/{userId}/{keyName}`
/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3profileuseridkeyname>
pub(super) async fn set_profile_field(
    app: Arc<ClientApi>,
    auth: Requester,
    request: set_profile_field::v3::Request,
) -> Result<set_profile_field::v3::Response, ApiError> {
    check_self(&auth, &request.user_id)?;
    let field = request.value.field_name();
    let value = request.value.value().into_owned();
    charge(&app, &auth, field.as_str())?;
    let profile = app.users.profiles().set(&auth.user_id, field.as_str(), value).await?;
    update_rooms(&app, &auth.user_id, field.as_str(), &profile).await?;
    Ok(set_profile_field::v3::Response::new())
}

/// `DELETE /_matrix/client/v3/profile/{userId}/{keyName}`
/// <https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3profileuseridkeyname>
pub(super) async fn delete_profile_field(
    app: Arc<ClientApi>,
    auth: Requester,
    request: delete_profile_field::v3::Request,
) -> Result<delete_profile_field::v3::Response, ApiError> {
    check_self(&auth, &request.user_id)?;
    let field = request.field.as_str();
    charge(&app, &auth, field)?;
    let profile = app.users.profiles().remove(&auth.user_id, field).await?;
    update_rooms(&app, &auth.user_id, field, &profile).await?;
    Ok(delete_profile_field::v3::Response::new())
}

/// The profile of a user of this server.
async fn look_up(app: &ClientApi, user_id: &UserId) -> Result<Profile, ApiError> {
    let profiles = app.users.profiles();
    let mut profile = profiles.get(user_id).await?;
    if profile.is_none()
        && app.users.accounts().get(user_id).await?.is_none()
        && app.appservices.ask_user(user_id).await
    {
        profile = profiles.get(user_id).await?;
    }
    profile.ok_or_else(|| ApiError::not_found("The user has no profile here"))
}

/// A name or an avatar is sent to all rooms of the user, so it counts as a message.
fn charge(app: &ClientApi, auth: &Requester, field: &str) -> Result<(), ApiError> {
    if is_in_rooms(field) {
        app.limits_of(auth).messages.check(&auth.user_id)?;
    }
    Ok(())
}

/// Passes a new display name or avatar on to the member events of the user's rooms.
async fn update_rooms(
    app: &ClientApi,
    user_id: &UserId,
    field: &str,
    profile: &Profile,
) -> Result<(), ApiError> {
    if is_in_rooms(field) {
        in_rooms::tell_profile(&app.rooms, user_id, profile).await?;
    }
    Ok(())
}

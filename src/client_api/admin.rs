//! What administrators of the server do to accounts, as far as the specification has it.
//!
//! Whether somebody may ask is checked before anything is looked up, so that nobody learns here who
//! has an account.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#server-administration>

use std::sync::Arc;

use ruma::{
    MilliSecondsSinceUnixEpoch, UInt, UserId,
    api::client::admin::{
        get_user_info::{
            self,
            v3::{ConnectionInfo, DeviceInfo, SessionInfo},
        },
        is_user_locked, is_user_suspended, lock_user, suspend_user,
    },
};

use super::ClientApi;
use crate::{
    error::ApiError, http::Requester, storage::rows::users::AccountRow, users::KnownDevice,
};

/// `GET /_matrix/client/v3/admin/whois/{userId}`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3adminwhoisuserid>
///
/// For administrators, and for everybody about themselves.
pub(super) async fn get_user_info(
    app: Arc<ClientApi>,
    auth: Requester,
    request: get_user_info::v3::Request,
) -> Result<get_user_info::v3::Response, ApiError> {
    if auth.user_id != request.user_id {
        check_admin(&auth)?;
    }
    let account = app.users.accounts().get(&request.user_id).await?;
    account.ok_or_else(|| ApiError::not_found("There is no such user"))?;
    let devices = app.users.devices().list(&request.user_id).await?;
    let mut response = get_user_info::v3::Response::new();
    response.devices = devices.into_iter().map(|known| shown(&known)).collect();
    response.user_id = Some(request.user_id);
    Ok(response)
}

/// `GET /_matrix/client/v1/admin/lock/{userId}`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1adminlockuserid>
pub(super) async fn is_user_locked(
    app: Arc<ClientApi>,
    auth: Requester,
    request: is_user_locked::v1::Request,
) -> Result<is_user_locked::v1::Response, ApiError> {
    let account = account(&app, &auth, &request.user_id).await?;
    Ok(is_user_locked::v1::Response::new(account.locked))
}

/// `PUT /_matrix/client/v1/admin/lock/{userId}`
/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv1adminlockuserid>
pub(super) async fn lock_user(
    app: Arc<ClientApi>,
    auth: Requester,
    request: lock_user::v1::Request,
) -> Result<lock_user::v1::Response, ApiError> {
    account_of_other(&app, &auth, &request.user_id).await?;
    app.users.set_locked(&request.user_id, request.locked).await?;
    Ok(lock_user::v1::Response::new(request.locked))
}

/// `GET /_matrix/client/v1/admin/suspend/{userId}`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1adminsuspenduserid>
pub(super) async fn is_user_suspended(
    app: Arc<ClientApi>,
    auth: Requester,
    request: is_user_suspended::v1::Request,
) -> Result<is_user_suspended::v1::Response, ApiError> {
    let account = account(&app, &auth, &request.user_id).await?;
    Ok(is_user_suspended::v1::Response::new(account.suspended))
}

/// `PUT /_matrix/client/v1/admin/suspend/{userId}`
/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv1adminsuspenduserid>
pub(super) async fn suspend_user(
    app: Arc<ClientApi>,
    auth: Requester,
    request: suspend_user::v1::Request,
) -> Result<suspend_user::v1::Response, ApiError> {
    account_of_other(&app, &auth, &request.user_id).await?;
    app.users.set_suspended(&request.user_id, request.suspended).await?;
    Ok(suspend_user::v1::Response::new(request.suspended))
}

async fn account(
    app: &ClientApi,
    auth: &Requester,
    user_id: &UserId,
) -> Result<AccountRow, ApiError> {
    check_admin(auth)?;
    app.users.restrictable(&auth.user_id, user_id).await
}

async fn account_of_other(
    app: &ClientApi,
    auth: &Requester,
    user_id: &UserId,
) -> Result<(), ApiError> {
    check_admin(auth)?;
    if auth.user_id == user_id {
        return Err(ApiError::forbidden("You cannot do this to your own account"));
    }
    account(app, auth, user_id).await.map(drop)
}

fn check_admin(auth: &Requester) -> Result<(), ApiError> {
    if auth.admin {
        return Ok(());
    }
    Err(ApiError::forbidden("You are not an administrator of this server"))
}

fn shown(known: &KnownDevice) -> (String, DeviceInfo) {
    let connections = known.seen.iter().map(|seen| {
        let mut connection = ConnectionInfo::new();
        connection.ip = Some(seen.address.to_string());
        connection.last_seen = Some(MilliSecondsSinceUnixEpoch(UInt::new_saturating(seen.ts)));
        connection
    });
    let mut session = SessionInfo::new();
    session.connections = connections.collect();
    let mut device = DeviceInfo::new();
    device.sessions = vec![session];
    (known.device_id.to_string(), device)
}

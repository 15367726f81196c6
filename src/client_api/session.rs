//! Logging in and out, and new tokens for old.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#login>

use std::sync::Arc;

use ruma::api::client::{
    session::{get_login_types, login, logout, logout_all, refresh_token},
    uiaa::UserIdentifier,
};

use super::{ClientApi, appservice};
use crate::{
    error::ApiError,
    http::{MaybeAppservice, NoAuth, Requester},
    users::{LoginAttempt, Selection, secret::Token},
};

/// `GET /_matrix/client/v3/login`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3login>
pub(super) async fn get_login_types(
    _app: Arc<ClientApi>,
    _auth: NoAuth,
    _request: get_login_types::v3::Request,
) -> Result<get_login_types::v3::Response, ApiError> {
    use get_login_types::v3::{
        ApplicationServiceLoginType, LoginType, PasswordLoginType, Response,
    };
    Ok(Response::new(vec![
        LoginType::Password(PasswordLoginType::new()),
        LoginType::ApplicationService(ApplicationServiceLoginType::new()),
    ]))
}

/// `POST /_matrix/client/v3/login`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3login>
pub(super) async fn login(
    app: Arc<ClientApi>,
    auth: MaybeAppservice,
    request: login::v3::Request,
) -> Result<login::v3::Response, ApiError> {
    if let login::v3::LoginInfo::ApplicationService(info) = request.login_info.clone() {
        return appservice::login(&app, auth, request, info).await;
    }
    let login::v3::LoginInfo::Password(info) = request.login_info else {
        return Err(ApiError::unknown("This type of login is not supported"));
    };
    #[expect(deprecated, reason = "clients still name the user this way")]
    let user = match (info.identifier, info.user) {
        (Some(UserIdentifier::Matrix(identifier)), _) => identifier.user,
        (None, Some(user)) => user,
        (Some(_), _) => return Err(ApiError::forbidden("No user is known by this identifier")),
        (None, None) => return Err(ApiError::missing_param("`identifier` is missing")),
    };
    let attempt = LoginAttempt {
        user,
        password: info.password,
        device_id: request.device_id,
        display_name: request.initial_device_display_name,
        refresh: request.refresh_token,
        address: auth.address,
    };
    let (user_id, session) = app.users.login().with_password(attempt).await?;
    let access_token = session.access_token.into_string();
    let mut response = login::v3::Response::new(user_id, access_token, session.device_id);
    response.refresh_token = session.refresh_token.map(Token::into_string);
    response.expires_in = session.expires_in;
    response.well_known = app.config.server.public_base_url.as_ref().map(|url| {
        let homeserver = login::v3::HomeserverInfo::new(super::discovery::base_url(url));
        login::v3::DiscoveryInfo::new(homeserver)
    });
    Ok(response)
}

/// `POST /_matrix/client/v3/refresh`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3refresh>
pub(super) async fn refresh_token(
    app: Arc<ClientApi>,
    _auth: NoAuth,
    request: refresh_token::v3::Request,
) -> Result<refresh_token::v3::Response, ApiError> {
    let session = app.users.sessions().refresh(&request.refresh_token).await?;
    let mut response = refresh_token::v3::Response::new(session.access_token.into_string());
    response.refresh_token = session.refresh_token.map(Token::into_string);
    response.expires_in_ms = session.expires_in;
    Ok(response)
}

/// `POST /_matrix/client/v3/logout`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3logout>
pub(super) async fn logout(
    app: Arc<ClientApi>,
    auth: Requester,
    _request: logout::v3::Request,
) -> Result<logout::v3::Response, ApiError> {
    let device = [auth.device_id];
    app.users.devices().remove(&auth.user_id, Selection::These(&device)).await?;
    Ok(logout::v3::Response::new())
}

/// `POST /_matrix/client/v3/logout/all`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3logoutall>
pub(super) async fn logout_all(
    app: Arc<ClientApi>,
    auth: Requester,
    _request: logout_all::v3::Request,
) -> Result<logout_all::v3::Response, ApiError> {
    app.users.devices().remove(&auth.user_id, Selection::All).await?;
    Ok(logout_all::v3::Response::new())
}

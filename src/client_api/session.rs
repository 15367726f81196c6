//! Logging in and out, and new tokens for old.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#login>

use std::sync::Arc;

use ruma::api::client::{
    session::{get_login_token, get_login_types, login, logout, logout_all, refresh_token},
    uiaa::UserIdentifier,
};

use super::{ClientApi, appservice, uiaa};
use crate::{
    error::ApiError,
    http::{MaybeAppservice, NoAuth, Requester},
    users::{LoginAttempt, LoginName, LoginProof, Selection, email::canonical, secret::Token},
};

/// `GET /_matrix/client/v3/login`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3login>
pub(super) async fn get_login_types(
    app: Arc<ClientApi>,
    _auth: NoAuth,
    _request: get_login_types::v3::Request,
) -> Result<get_login_types::v3::Response, ApiError> {
    use get_login_types::v3::{
        ApplicationServiceLoginType, LoginType, PasswordLoginType, Response, TokenLoginType,
    };
    let mut flows = vec![LoginType::Password(PasswordLoginType::new())];
    if app.config.login.tokens {
        let mut token = TokenLoginType::new();
        token.get_login_token = true;
        flows.push(LoginType::Token(token));
    }
    flows.push(LoginType::ApplicationService(ApplicationServiceLoginType::new()));
    Ok(Response::new(flows))
}

/// `POST /_matrix/client/v1/login/get_token`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv1loginget_token>
pub(super) async fn get_login_token(
    app: Arc<ClientApi>,
    auth: Requester,
    request: get_login_token::v1::Request,
) -> Result<get_login_token::v1::Response, ApiError> {
    if !app.config.login.tokens {
        return Err(ApiError::unrecognized("This server gives out no login tokens"));
    }
    let operation = ("POST login/get_token", [].as_slice());
    uiaa::check_password(&app, &auth, request.auth.as_ref(), operation).await?;
    let token = app.users.grants().login_token(&auth.user_id).await?.into_string();
    Ok(get_login_token::v1::Response::new(app.config.limits.login_token_lifetime(), token))
}

fn password_proof(info: login::v3::Password) -> Result<LoginProof, ApiError> {
    let unknown = || ApiError::forbidden("No user is known by this identifier");
    #[expect(deprecated, reason = "clients still name the user this way")]
    let name = match (info.identifier, info.user, info.medium, info.address) {
        (Some(UserIdentifier::Matrix(identifier)), ..) => LoginName::Id(identifier.user),
        (Some(UserIdentifier::Email(email)), ..) => {
            LoginName::Email(canonical(&email.address).map_err(|_| unknown())?)
        }
        (Some(_), ..) => return Err(unknown()),
        (None, Some(user), ..) => LoginName::Id(user),
        (None, None, Some(medium), Some(address)) if medium == "email" => {
            LoginName::Email(canonical(&address).map_err(|_| unknown())?)
        }
        (None, None, ..) => return Err(ApiError::missing_param("`identifier` is missing")),
    };
    Ok(LoginProof::Password(name, info.password))
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
    let proof = match request.login_info {
        login::v3::LoginInfo::Password(info) => password_proof(info)?,
        login::v3::LoginInfo::Token(info) if app.config.login.tokens => {
            LoginProof::Token(info.token)
        }
        _ => return Err(ApiError::unknown("This type of login is not supported")),
    };
    let attempt = LoginAttempt {
        proof,
        device_id: request.device_id,
        display_name: request.initial_device_display_name,
        refresh: request.refresh_token,
        address: auth.address,
    };
    let (user_id, session) = app.users.login().open(attempt).await?;
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

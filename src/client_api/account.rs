//! Accounts: making, changing and ending them.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#account-management>

use std::sync::Arc;

use ruma::api::client::{
    account::{
        ThirdPartyIdRemovalStatus, change_password, check_registration_token_validity, deactivate,
        get_3pids, get_username_availability,
        register::{self, RegistrationKind},
        whoami,
    },
    uiaa::AuthData,
};

use super::{ClientApi, appservice, uiaa};
use crate::{
    error::ApiError,
    http::{ClientAddress, MaybeAppservice, MaybeRequester, NoAuth, Requester},
    users::{
        NewSession, RegistrationAttempt, Selection, in_rooms, secret,
        uiaa::{Operation, Owner},
    },
};

/// `POST /_matrix/client/v3/register`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3register>
///
/// No guests. A name that cannot be had is refused before anything is to be proven.
pub(super) async fn register(
    app: Arc<ClientApi>,
    auth: MaybeAppservice,
    request: register::v3::Request,
) -> Result<register::v3::Response, ApiError> {
    if request.login_type == Some(register::LoginType::ApplicationService) {
        return appservice::register(&app, auth, request).await;
    }
    if request.kind != RegistrationKind::User {
        return Err(ApiError::guest_access_forbidden("This server has no guests"));
    }
    if request.login_type.is_some() {
        return Err(ApiError::unknown("This type of registration is not supported"));
    }
    let registration = app.users.registration();
    let shows_token = matches!(request.auth, Some(AuthData::RegistrationToken(_)));
    registration.check_allowed(auth.address, shows_token)?;
    if let Some(username) = &request.username {
        registration.check_username(username).await?;
    }
    let operation = registration_operation(&app, &request, auth.address);
    let proof = app.users.uiaa().check(&operation, request.auth.as_ref()).await?;
    let attempt = RegistrationAttempt {
        username: request.username.as_deref(),
        password: request.password.as_deref(),
        token: proof.registration_token.map(secret::Token::into_string),
    };
    let user_id = registration.register(attempt, auth.address).await?;
    let mut response = register::v3::Response::new(user_id.clone());
    if request.inhibit_login {
        return Ok(response);
    }
    let session = NewSession {
        user_id,
        device_id: request.device_id,
        display_name: request.initial_device_display_name,
        refresh: request.refresh_token,
        account: None,
    };
    let session = app.users.sessions().open(session).await?;
    response.access_token = Some(session.access_token.into_string());
    response.device_id = Some(session.device_id);
    response.refresh_token = session.refresh_token.map(secret::Token::into_string);
    response.expires_in = session.expires_in;
    Ok(response)
}

fn registration_operation(
    app: &ClientApi,
    request: &register::v3::Request,
    address: ClientAddress,
) -> Operation {
    let text = |text: &Option<String>| text.clone().unwrap_or_default().into_bytes();
    let (username, password) = (text(&request.username), text(&request.password));
    Operation {
        owner: Owner::Address(address.limit_key()),
        name: "POST register".to_owned(),
        body: secret::hash_parts(&[&username, &password]),
        flows: app.users.registration().flows(),
    }
}

/// `GET /_matrix/client/v3/register/available`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3registeravailable>
pub(super) async fn get_username_availability(
    app: Arc<ClientApi>,
    auth: NoAuth,
    request: get_username_availability::v3::Request,
) -> Result<get_username_availability::v3::Response, ApiError> {
    let registration = app.users.registration();
    registration.check_allowed(auth.address, false)?;
    registration.check_username(&request.username).await?;
    Ok(get_username_availability::v3::Response::new(true))
}

/// `GET /_matrix/client/v1/register/m.login.registration_token/validity`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1registermloginregistration_tokenvalidity>
pub(super) async fn check_registration_token_validity(
    app: Arc<ClientApi>,
    auth: NoAuth,
    request: check_registration_token_validity::v1::Request,
) -> Result<check_registration_token_validity::v1::Response, ApiError> {
    let valid = app.users.registration().check_token(&request.token, auth.address).await?;
    Ok(check_registration_token_validity::v1::Response::new(valid))
}

/// `POST /_matrix/client/v3/account/password`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountpassword>
pub(super) async fn change_password(
    app: Arc<ClientApi>,
    auth: MaybeRequester,
    request: change_password::v3::Request,
) -> Result<change_password::v3::Response, ApiError> {
    let requester = logged_in(auth)?;
    let logout = [u8::from(request.logout_devices)];
    let parameters: [&[u8]; 2] = [request.new_password.as_bytes(), &logout];
    let operation = ("POST account/password", parameters.as_slice());
    uiaa::check_password(&app, &requester, request.auth.as_ref(), operation).await?;
    let logout = request.logout_devices.then_some(Selection::AllBut(&requester.device_id));
    app.users.set_password(&requester.user_id, &request.new_password, logout).await?;
    Ok(change_password::v3::Response::new())
}

/// `POST /_matrix/client/v3/account/deactivate`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountdeactivate>
pub(super) async fn deactivate(
    app: Arc<ClientApi>,
    auth: MaybeRequester,
    request: deactivate::v3::Request,
) -> Result<deactivate::v3::Response, ApiError> {
    let requester = logged_in(auth)?;
    let erase = [u8::from(request.erase)];
    let operation = ("POST account/deactivate", [erase.as_slice()]);
    let operation = (operation.0, operation.1.as_slice());
    uiaa::check_password(&app, &requester, request.auth.as_ref(), operation).await?;
    app.users.deactivate(&requester.user_id, request.erase).await?;
    in_rooms::leave_all(&app.rooms, &requester.user_id).await?;
    // No identity server was ever asked to bind anything.
    Ok(deactivate::v3::Response::new(ThirdPartyIdRemovalStatus::Success))
}

/// `GET /_matrix/client/v3/account/3pid`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3account3pid>
///
/// Accounts have no third-party identifiers yet.
pub(super) async fn get_3pids(
    _app: Arc<ClientApi>,
    _auth: Requester,
    _request: get_3pids::v3::Request,
) -> Result<get_3pids::v3::Response, ApiError> {
    Ok(get_3pids::v3::Response::new(Vec::new()))
}

/// `GET /_matrix/client/v3/account/whoami`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3accountwhoami>
pub(super) async fn whoami(
    _app: Arc<ClientApi>,
    auth: Requester,
    _request: whoami::v3::Request,
) -> Result<whoami::v3::Response, ApiError> {
    let mut response = whoami::v3::Response::new(auth.user_id, auth.guest);
    response.device_id = Some(auth.device_id).filter(|device| !device.as_str().is_empty());
    Ok(response)
}

/// The user of an endpoint that could also be called without a token, with a proof by mail: there
/// is none yet.
fn logged_in(auth: MaybeRequester) -> Result<Requester, ApiError> {
    auth.0.ok_or_else(|| ApiError::missing_token("The request has no access token"))
}

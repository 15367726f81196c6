//! Accounts: making, changing and ending them.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#account-management>

use std::sync::Arc;

use ruma::{
    OwnedUserId,
    api::client::{
        account::{
            ThirdPartyIdRemovalStatus, change_password, check_registration_token_validity,
            deactivate, get_username_availability,
            register::{self, RegistrationKind},
            whoami,
        },
        uiaa::{AuthData, AuthType},
    },
};
use serde_json::json;

use super::{ClientApi, appservice, uiaa};
use crate::{
    error::ApiError,
    http::{Caller, ClientAddress, MaybeAppservice, MaybeRequester, NoAuth, Requester, Standing},
    storage::rows::accounts::EmailPurpose,
    users::{
        NewSession, RegistrationAttempt, Selection, secret,
        uiaa::{Operation, Owner},
    },
};

/// `POST /_matrix/client/v3/register`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3register>
///
/// A name that cannot be had is refused before anything is to be proven.
pub(super) async fn register(
    app: Arc<ClientApi>,
    auth: MaybeAppservice,
    request: register::v3::Request,
) -> Result<register::v3::Response, ApiError> {
    if request.login_type == Some(register::LoginType::ApplicationService) {
        return appservice::register(&app, auth, request).await;
    }
    match request.kind {
        RegistrationKind::User => {}
        RegistrationKind::Guest => {
            return register_guest(&app, auth.address, request.initial_device_display_name).await;
        }
        _ => return Err(ApiError::invalid_param("`kind` is neither `user` nor `guest`")),
    }
    if request.login_type.is_some() {
        return Err(ApiError::unknown("This type of registration is not supported"));
    }
    let registration = app.users.registration();
    let shows_token = matches!(request.auth, Some(AuthData::RegistrationToken(_)));
    registration.check_allowed(auth.address, shows_token)?;
    let guest = upgraded_guest(&app, &request, auth.address).await?;
    if let Some(username) = request.username.as_ref().filter(|_| guest.is_none()) {
        registration.check_username(username).await?;
    }
    let operation = registration_operation(&app, &request, auth.address);
    let proof = app.users.uiaa().check(&operation, request.auth.as_ref()).await?;
    let attempt = RegistrationAttempt {
        username: request.username.as_deref(),
        password: request.password.as_deref(),
        proof,
    };
    let user_id = match guest {
        Some(guest) => app.users.upgrade_guest(guest, attempt, auth.address).await?,
        None => registration.register(attempt, auth.address).await?,
    };
    if request.inhibit_login {
        return Ok(register::v3::Response::new(user_id));
    }
    let session = NewSession {
        user_id,
        device_id: request.device_id,
        display_name: request.initial_device_display_name,
        refresh: request.refresh_token,
        account: None,
    };
    registered(&app, session).await
}

/// Of what the request holds only the name of the device counts.
async fn register_guest(
    app: &ClientApi,
    address: ClientAddress,
    display_name: Option<String>,
) -> Result<register::v3::Response, ApiError> {
    let registration = app.users.registration();
    registration.check_guests(address)?;
    let user_id = registration.register_guest().await?;
    let session =
        NewSession { user_id, device_id: None, display_name, refresh: false, account: None };
    registered(app, session).await
}

/// The guest who wants to become a user, if it is one.
async fn upgraded_guest(
    app: &ClientApi,
    request: &register::v3::Request,
    address: ClientAddress,
) -> Result<Option<OwnedUserId>, ApiError> {
    let Some(token) = &request.guest_access_token else { return Ok(None) };
    let guest = app.users.authenticate(token, address).await?;
    if !guest.guest || guest.standing != Standing::Good {
        return Err(ApiError::forbidden("`guest_access_token` is no guest's"));
    }
    match &request.username {
        Some(name) if name == guest.user_id.localpart() => Ok(Some(guest.user_id)),
        Some(_) => Err(ApiError::forbidden("`username` is not the guest's")),
        None => Err(ApiError::missing_param("`username` is missing: the guest keeps the name")),
    }
}

/// Logs in on the device with which somebody registered.
async fn registered(
    app: &ClientApi,
    session: NewSession,
) -> Result<register::v3::Response, ApiError> {
    let mut response = register::v3::Response::new(session.user_id.clone());
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
    let registration = app.users.registration();
    Operation {
        owner: Owner::Address(address.limit_key()),
        name: "POST register".to_owned(),
        body: secret::hash_parts(&[&username, &password]),
        flows: registration.flows(),
        params: registration.params(),
        email: EmailPurpose::Register,
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
    let pending = app.users.uiaa().pending_uses(&request.token);
    let registration = app.users.registration();
    let valid = registration.check_token(&request.token, pending, auth.address).await?;
    Ok(check_registration_token_validity::v1::Response::new(valid))
}

/// `POST /_matrix/client/v3/account/password`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountpassword>
///
/// Without an access token the user is proven by an e-mail address of the account.
pub(super) async fn change_password(
    app: Arc<ClientApi>,
    auth: Caller,
    request: change_password::v3::Request,
) -> Result<change_password::v3::Response, ApiError> {
    let logout = [u8::from(request.logout_devices)];
    let parameters: [&[u8]; 2] = [request.new_password.as_bytes(), &logout];
    let Some(requester) = auth.requester else {
        reset_password(&app, auth.address, &request, &parameters).await?;
        return Ok(change_password::v3::Response::new());
    };
    let operation = ("POST account/password", parameters.as_slice());
    uiaa::check_password(&app, &requester, request.auth.as_ref(), operation).await?;
    let logout = request.logout_devices.then_some(Selection::AllBut(&requester.device_id));
    app.users.set_password(&requester.user_id, &request.new_password, logout).await?;
    Ok(change_password::v3::Response::new())
}

async fn reset_password(
    app: &ClientApi,
    address: ClientAddress,
    request: &change_password::v3::Request,
    parameters: &[&[u8]],
) -> Result<(), ApiError> {
    let emails = app.users.emails();
    if !emails.is_enabled() {
        return Err(ApiError::missing_token("The request has no access token"));
    }
    emails.check_guess(address)?;
    let operation = Operation {
        owner: Owner::Address(address.limit_key()),
        name: "POST account/password without a token".to_owned(),
        body: secret::hash_parts(parameters),
        flows: vec![vec![AuthType::EmailIdentity]],
        params: json!({}),
        email: EmailPurpose::ResetPassword,
    };
    let proof = app.users.uiaa().check(&operation, request.auth.as_ref()).await?;
    let proven =
        proof.email.ok_or_else(|| ApiError::internal_text("a flow ended without its proof"))?;
    app.users.reset_password(&proven, &request.new_password, request.logout_devices).await?;
    Ok(())
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
    // No identity server was ever asked to bind anything.
    Ok(deactivate::v3::Response::new(ThirdPartyIdRemovalStatus::Success))
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

/// The user of an endpoint that could also be called without a token: none such is offered.
fn logged_in(auth: MaybeRequester) -> Result<Requester, ApiError> {
    auth.0.ok_or_else(|| ApiError::missing_token("The request has no access token"))
}

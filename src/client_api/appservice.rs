//! What application services do beyond what users do: registering and logging in their users,
//! pings, rooms of their networks. And what they are asked on behalf of users: unknown aliases.
//!
//! <https://spec.matrix.org/v1.19/application-service-api/#client-server-api-extensions>

use std::{sync::Arc, time::Duration};

use http::{Method, StatusCode};
use kv::Batch;
use ruma::{
    RoomAliasId,
    api::client::{
        account::register,
        appservice::{request_ping, set_room_visibility},
        room::Visibility,
        session::login,
        uiaa::UserIdentifier,
    },
};
use serde_json::json;
use tokio::time::Instant;

use super::ClientApi;
use crate::{
    appservices::{Body, Called, RequestError},
    egress::EgressError,
    error::ApiError,
    http::{AppserviceCaller, MaybeAppservice},
    storage::rows::rooms::AliasRow,
    users::{NewAccount, NewSession, secret::Token},
};

/// How long an application service may take to answer a ping.
const PING_DURATION_MAX: Duration = Duration::from_secs(30);
/// How much of the answer to a ping is shown.
const PING_BODY_BYTES_MAX: usize = 4096;

/// `POST /_matrix/client/v3/register` with the type `m.login.application_service`
/// <https://spec.matrix.org/v1.19/application-service-api/#server-admin-style-permissions>
///
/// Makes an account without a password. One whose registration says that it manages devices
/// (MSC4190) must not ask for a session with it.
pub(super) async fn register(
    app: &ClientApi,
    auth: MaybeAppservice,
    request: register::v3::Request,
) -> Result<register::v3::Response, ApiError> {
    let caller = auth.required()?;
    let username = request.username.as_deref();
    let username = username.ok_or_else(|| ApiError::missing_param("`username` is missing"))?;
    let accounts = app.users.accounts();
    let user_id = accounts.new_user_id(username)?;
    app.appservices.check_user(&user_id, Some(&caller))?;
    if !request.inhibit_login {
        check_login(app, &caller)?;
    }
    let new = NewAccount::user(&user_id, None);
    accounts.create(new, Batch::new()).await?;
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
    response.refresh_token = session.refresh_token.map(Token::into_string);
    response.expires_in = session.expires_in;
    Ok(response)
}

/// `POST /_matrix/client/v3/login` with the type `m.login.application_service`
/// <https://spec.matrix.org/v1.19/application-service-api/#server-admin-style-permissions>
///
/// Refused where the registration says that the application service manages devices (MSC4190).
pub(super) async fn login(
    app: &ClientApi,
    auth: MaybeAppservice,
    request: login::v3::Request,
    info: login::v3::ApplicationService,
) -> Result<login::v3::Response, ApiError> {
    let caller = auth.required()?;
    check_login(app, &caller)?;
    #[expect(deprecated, reason = "bridges still name the user this way")]
    let user = match (info.identifier, info.user) {
        (Some(UserIdentifier::Matrix(identifier)), _) => identifier.user,
        (None, Some(user)) => user,
        (Some(_), _) => return Err(ApiError::forbidden("No user is known by this identifier")),
        (None, None) => return Err(ApiError::missing_param("`identifier` is missing")),
    };
    let accounts = app.users.accounts();
    let user_id = accounts.parse(&user);
    let user_id = user_id.ok_or_else(|| ApiError::exclusive("Not a user of this server"))?;
    app.appservices.check_user(&user_id, Some(&caller))?;
    let account = accounts.get(&user_id).await?;
    let account = account.ok_or_else(|| {
        ApiError::forbidden("The application service has not registered this user")
    })?;
    let session = NewSession {
        user_id: user_id.clone(),
        device_id: request.device_id,
        display_name: request.initial_device_display_name,
        refresh: request.refresh_token,
        account: Some(account),
    };
    let session = app.users.sessions().open(session).await?;
    let access_token = session.access_token.into_string();
    let mut response = login::v3::Response::new(user_id, access_token, session.device_id);
    response.refresh_token = session.refresh_token.map(Token::into_string);
    response.expires_in = session.expires_in;
    Ok(response)
}

/// Refuses sessions to one that makes devices without them.
fn check_login(app: &ClientApi, caller: &AppserviceCaller) -> Result<(), ApiError> {
    if app.appservices.registry().get(&caller.id).is_some_and(|known| known.row.msc4190) {
        return Err(ApiError::appservice_login_unsupported(
            "By its registration, the application service makes devices and does not log in",
        ));
    }
    Ok(())
}

/// `POST /_matrix/client/v1/appservice/{appserviceId}/ping`
/// <https://spec.matrix.org/v1.19/application-service-api/#post_matrixclientv1appserviceappserviceidping>
///
/// A ping that succeeds also ends the wait of transactions that could not be sent.
pub(super) async fn request_ping(
    app: Arc<ClientApi>,
    auth: AppserviceCaller,
    request: request_ping::v1::Request,
) -> Result<request_ping::v1::Response, ApiError> {
    let known = app.appservices.registry().get(&request.appservice_id);
    let known = known.filter(|known| known.id == auth.id);
    let appservice = known
        .ok_or_else(|| ApiError::forbidden("The token is not that of this application service"))?;
    let body = match request.transaction_id {
        Some(id) => json!({ "transaction_id": id }),
        None => json!({}),
    };
    let started = Instant::now();
    let target: (_, &[&str]) = (Method::POST, &["_matrix", "app", "v1", "ping"]);
    let content: (&[(String, String)], _) = (&[], Body::Json(body.to_string().into()));
    let called = app.appservices.call(&appservice, target, content, PING_DURATION_MAX).await;
    let called = called.map_err(|error| ping_failure(&error))?;
    if !called.status.is_success() {
        return Err(bad_status(&called));
    }
    appservice.is_back();
    Ok(request_ping::v1::Response::new(started.elapsed()))
}

fn ping_failure(error: &RequestError) -> ApiError {
    match error {
        RequestError::NoUrl => ApiError::new(
            StatusCode::BAD_REQUEST,
            "M_URL_NOT_SET",
            "The application service has no address",
        ),
        RequestError::Egress(EgressError::Timeout) => ApiError::new(
            StatusCode::GATEWAY_TIMEOUT,
            "M_CONNECTION_TIMEOUT",
            "The application service took too long to answer",
        ),
        RequestError::Egress(_) => ApiError::new(
            StatusCode::BAD_GATEWAY,
            "M_CONNECTION_FAILED",
            "The application service cannot be reached",
        ),
    }
}

fn bad_status(called: &Called) -> ApiError {
    let status = called.status.as_u16();
    let body = String::from_utf8_lossy(&called.body[..called.body.len().min(PING_BODY_BYTES_MAX)]);
    let text = format!("The application service answered {status}");
    ApiError::new(StatusCode::BAD_GATEWAY, "M_BAD_STATUS", text)
        .with("status", json!(status))
        .with("body", json!(body))
}

/// `PUT /_matrix/client/v3/directory/list/appservice/{networkId}/{roomId}`
/// <https://spec.matrix.org/v1.19/application-service-api/#put_matrixclientv3directorylistappservicenetworkidroomid>
pub(super) async fn set_room_visibility(
    app: Arc<ClientApi>,
    auth: AppserviceCaller,
    request: set_room_visibility::v3::Request,
) -> Result<set_room_visibility::v3::Response, ApiError> {
    let room = app.rooms.known_room(&request.room_id).await?;
    let listed = match request.visibility {
        Visibility::Public => true,
        Visibility::Private => false,
        _ => return Err(ApiError::invalid_param("The visibility is `public` or `private`")),
    };
    let network = (&*auth.id, &*request.network_id);
    app.appservices.list_room(network, room.nid, listed).await?;
    Ok(set_room_visibility::v3::Response::new())
}

/// The room behind an alias. One of this server that is not known is asked for at the application
/// services whose it may be, which then make it.
///
/// # Errors
/// 408 when one of them does not answer.
pub(super) async fn resolve_alias(
    app: &ClientApi,
    alias: &RoomAliasId,
) -> Result<Option<AliasRow>, ApiError> {
    if let Some(row) = app.rooms.resolve_alias(alias).await? {
        return Ok(Some(row));
    }
    if alias.server_name() != app.rooms.server_name() {
        return Ok(None);
    }
    match app.appservices.ask_alias(alias).await {
        Some(false) => Ok(None),
        Some(true) => app.rooms.resolve_alias(alias).await,
        None => Err(ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            "M_UNKNOWN",
            "The application service that the alias belongs to does not answer",
        )),
    }
}

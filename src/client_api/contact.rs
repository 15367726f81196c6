//! The e-mail addresses of accounts: asking for a mail, following its link, adding and removing.
//!
//! Phone numbers are refused, and so is what needs an identity server: this server asks none.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#adding-account-administrative-contact-information>

use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedSessionId, UInt,
    api::client::account::{
        ThirdPartyIdRemovalStatus, add_3pid, bind_3pid, delete_3pid, get_3pids,
        request_3pid_management_token_via_email, request_3pid_management_token_via_msisdn,
        request_password_change_token_via_email, request_password_change_token_via_msisdn,
        request_registration_token_via_email, request_registration_token_via_msisdn, unbind_3pid,
    },
    thirdparty::{Medium, ThirdPartyIdentifierInit},
};

use super::{
    ClientApi,
    pages::{failure_page, fields, form, page, query, value},
    uiaa,
};
use crate::{
    error::ApiError,
    http::{NoAuth, RawRequest, Requester},
    storage::rows::accounts::EmailPurpose,
    users::{
        EmailRequest,
        email::{CONFIRM_PATH, canonical},
    },
};

/// The paths of [`add_by_identity_server`].
pub(super) const OLD_ADD_PATHS: &[&str] =
    &["/_matrix/client/r0/account/3pid", "/_matrix/client/v3/account/3pid"];

/// The path of the page that mails lead to.
pub(super) const CONFIRM_PATHS: &[&str] = &[CONFIRM_PATH];

/// `GET /_matrix/client/v3/account/3pid`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3account3pid>
pub(super) async fn get_3pids(
    app: Arc<ClientApi>,
    auth: Requester,
    _request: get_3pids::v3::Request,
) -> Result<get_3pids::v3::Response, ApiError> {
    let time = |ts| MilliSecondsSinceUnixEpoch(UInt::new_saturating(ts));
    let known = app.users.third_party_ids().list(&auth.user_id).await?;
    let shown = known.into_iter().map(|(key, row)| {
        ThirdPartyIdentifierInit {
            address: key.address,
            medium: Medium::from(key.medium),
            validated_at: time(row.validated_ts),
            added_at: time(row.added_ts),
        }
        .into()
    });
    Ok(get_3pids::v3::Response::new(shown.collect()))
}

/// `POST /_matrix/client/v3/account/3pid`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3account3pid>
///
/// The old form of binding; it is refused like the new one.
pub(super) async fn add_by_identity_server(
    _app: Arc<ClientApi>,
    _auth: Requester,
    _request: RawRequest,
) -> Result<Response, ApiError> {
    Err(ApiError::new(
        StatusCode::FORBIDDEN,
        "M_THREEPID_AUTH_FAILED",
        "This server asks no identity servers; use `/account/3pid/add`",
    ))
}

/// `POST /_matrix/client/v3/account/3pid/add`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3account3pidadd>
pub(super) async fn add_3pid(
    app: Arc<ClientApi>,
    auth: Requester,
    request: add_3pid::v3::Request,
) -> Result<add_3pid::v3::Response, ApiError> {
    let (sid, client_secret) = (request.sid.as_str(), request.client_secret.as_str());
    let parameters: [&[u8]; 2] = [sid.as_bytes(), client_secret.as_bytes()];
    let operation = ("POST account/3pid/add", parameters.as_slice());
    uiaa::check_password(&app, &auth, request.auth.as_ref(), operation).await?;
    let proven = app.users.emails().proven(EmailPurpose::Add, sid, client_secret).await?;
    let proven = proven.ok_or_else(|| {
        ApiError::threepid_auth_failed("The link in the mail was not followed yet")
    })?;
    app.users.third_party_ids().add(&auth.user_id, &proven).await?;
    Ok(add_3pid::v3::Response::new())
}

/// `POST /_matrix/client/v3/account/3pid/bind`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3account3pidbind>
pub(super) async fn bind_3pid(
    _app: Arc<ClientApi>,
    _auth: Requester,
    _request: bind_3pid::v3::Request,
) -> Result<bind_3pid::v3::Response, ApiError> {
    Err(ApiError::new(
        StatusCode::BAD_REQUEST,
        "M_SERVER_NOT_TRUSTED",
        "This server trusts no identity server, so nothing can be bound",
    ))
}

/// `POST /_matrix/client/v3/account/3pid/unbind`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3account3pidunbind>
///
/// Nothing was ever bound through this server.
pub(super) async fn unbind_3pid(
    _app: Arc<ClientApi>,
    _auth: Requester,
    _request: unbind_3pid::v3::Request,
) -> Result<unbind_3pid::v3::Response, ApiError> {
    Ok(unbind_3pid::v3::Response::new(ThirdPartyIdRemovalStatus::NoSupport))
}

/// `POST /_matrix/client/v3/account/3pid/delete`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3account3piddelete>
pub(super) async fn delete_3pid(
    app: Arc<ClientApi>,
    auth: Requester,
    request: delete_3pid::v3::Request,
) -> Result<delete_3pid::v3::Response, ApiError> {
    if request.medium == Medium::Email {
        let address = canonical(&request.address)?;
        app.users.third_party_ids().remove(&auth.user_id, &address).await?;
    }
    Ok(delete_3pid::v3::Response::new(ThirdPartyIdRemovalStatus::NoSupport))
}

/// `POST /_matrix/client/v3/account/3pid/email/requestToken`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3account3pidemailrequesttoken>
///
/// Whether somebody has the address is told in the mail alone. `next_link` is not followed.
pub(super) async fn request_3pid_management_token_via_email(
    app: Arc<ClientApi>,
    auth: NoAuth,
    request: request_3pid_management_token_via_email::v3::Request,
) -> Result<request_3pid_management_token_via_email::v3::Response, ApiError> {
    let wanted = EmailRequest {
        purpose: EmailPurpose::Add,
        client_secret: request.client_secret.to_string(),
        address: request.email,
        send_attempt: request.send_attempt.into(),
        client: auth.address,
    };
    let sid = request_mail(&app, wanted).await?;
    Ok(request_3pid_management_token_via_email::v3::Response::new(sid))
}

/// `POST /_matrix/client/v3/register/email/requestToken`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3registeremailrequesttoken>
///
/// Whether somebody has the address is told in the mail alone. `next_link` is not followed.
pub(super) async fn request_registration_token_via_email(
    app: Arc<ClientApi>,
    auth: NoAuth,
    request: request_registration_token_via_email::v3::Request,
) -> Result<request_registration_token_via_email::v3::Response, ApiError> {
    app.users.registration().check_allowed(auth.address, false)?;
    let wanted = EmailRequest {
        purpose: EmailPurpose::Register,
        client_secret: request.client_secret.to_string(),
        address: request.email,
        send_attempt: request.send_attempt.into(),
        client: auth.address,
    };
    let sid = request_mail(&app, wanted).await?;
    Ok(request_registration_token_via_email::v3::Response::new(sid))
}

/// `POST /_matrix/client/v3/account/password/email/requestToken`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountpasswordemailrequesttoken>
///
/// Whether somebody has the address is told in the mail alone. `next_link` is not followed.
pub(super) async fn request_password_change_token_via_email(
    app: Arc<ClientApi>,
    auth: NoAuth,
    request: request_password_change_token_via_email::v3::Request,
) -> Result<request_password_change_token_via_email::v3::Response, ApiError> {
    let wanted = EmailRequest {
        purpose: EmailPurpose::ResetPassword,
        client_secret: request.client_secret.to_string(),
        address: request.email,
        send_attempt: request.send_attempt.into(),
        client: auth.address,
    };
    let sid = request_mail(&app, wanted).await?;
    Ok(request_password_change_token_via_email::v3::Response::new(sid))
}

/// `POST /_matrix/client/v3/account/3pid/msisdn/requestToken`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3account3pidmsisdnrequesttoken>
pub(super) async fn request_3pid_management_token_via_msisdn(
    _app: Arc<ClientApi>,
    _auth: NoAuth,
    _request: request_3pid_management_token_via_msisdn::v3::Request,
) -> Result<request_3pid_management_token_via_msisdn::v3::Response, ApiError> {
    Err(no_phones())
}

/// `POST /_matrix/client/v3/register/msisdn/requestToken`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3registermsisdnrequesttoken>
pub(super) async fn request_registration_token_via_msisdn(
    _app: Arc<ClientApi>,
    _auth: NoAuth,
    _request: request_registration_token_via_msisdn::v3::Request,
) -> Result<request_registration_token_via_msisdn::v3::Response, ApiError> {
    Err(no_phones())
}

/// `POST /_matrix/client/v3/account/password/msisdn/requestToken`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountpasswordmsisdnrequesttoken>
pub(super) async fn request_password_change_token_via_msisdn(
    _app: Arc<ClientApi>,
    _auth: NoAuth,
    _request: request_password_change_token_via_msisdn::v3::Request,
) -> Result<request_password_change_token_via_msisdn::v3::Response, ApiError> {
    Err(no_phones())
}

/// `GET /_matrix/client/unstable/causerie/email/confirm`
/// <https://spec.matrix.org/v1.19/client-server-api/#adding-account-administrative-contact-information>
///
/// The page that a mail leads to. Programs that look into mails follow links too, so that only its
/// button confirms.
pub(super) async fn show_confirmation(
    _app: Arc<ClientApi>,
    _auth: NoAuth,
    request: RawRequest,
) -> Result<Response, ApiError> {
    let query = query(&request);
    let hidden = [("sid", value(&query, "sid")), ("token", value(&query, "token"))];
    Ok(page(StatusCode::OK, "Confirm your address", &form(&hidden, "", "Confirm")))
}

/// `POST /_matrix/client/unstable/causerie/email/confirm`
/// <https://spec.matrix.org/v1.19/client-server-api/#adding-account-administrative-contact-information>
///
/// The button of the page that a mail leads to.
pub(super) async fn confirm(
    app: Arc<ClientApi>,
    auth: NoAuth,
    request: RawRequest,
) -> Result<Response, ApiError> {
    let fields = fields(request).await?;
    let (sid, token) = (value(&fields, "sid"), value(&fields, "token"));
    match app.users.emails().confirm(sid, token, auth.address).await {
        Ok(()) => {
            let text = "<p>You can close this page and go back to your client.</p>";
            Ok(page(StatusCode::OK, "The address is confirmed", text))
        }
        Err(error) if error.status.is_server_error() => Err(error),
        Err(error) => Ok(failure_page(&error)),
    }
}

async fn request_mail(app: &ClientApi, wanted: EmailRequest) -> Result<OwnedSessionId, ApiError> {
    let sid = app.users.emails().request(wanted).await?;
    sid.try_into().map_err(ApiError::internal)
}

fn no_phones() -> ApiError {
    ApiError::threepid_medium_not_supported("This server takes no phone numbers")
}

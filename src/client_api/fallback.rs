//! Pages for the stages of user-interactive authentication, for clients that cannot show them.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#fallback>

use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;
use ruma::api::client::uiaa::{AuthData, AuthType, Dummy, RegistrationToken, Terms};
use serde_json::{Map, Value, json};

use super::{
    ClientApi,
    pages::{done_page, escape, failure_page, fields, form, page, query, value},
};
use crate::{
    error::ApiError,
    http::{ClientAddress, NoAuth, RawRequest},
    storage::rows::accounts::EmailPurpose,
    users::{EmailRequest, secret},
};

/// The paths of the pages.
pub(super) const PATHS: &[&str] = &[
    "/_matrix/client/r0/auth/{auth_type}/fallback/web",
    "/_matrix/client/v3/auth/{auth_type}/fallback/web",
];

/// `GET /_matrix/client/v3/auth/{authType}/fallback/web`
/// <https://spec.matrix.org/v1.19/client-server-api/#fallback>
pub(super) async fn show(
    app: Arc<ClientApi>,
    _auth: NoAuth,
    request: RawRequest,
) -> Result<Response, ApiError> {
    let stage = stage(&request);
    let query = query(&request);
    Ok(first_page(&app, &stage, value(&query, "session")))
}

/// `POST /_matrix/client/v3/auth/{authType}/fallback/web`
/// <https://spec.matrix.org/v1.19/client-server-api/#fallback>
///
/// Takes the form of the page.
pub(super) async fn submit(
    app: Arc<ClientApi>,
    auth: NoAuth,
    request: RawRequest,
) -> Result<Response, ApiError> {
    let stage = stage(&request);
    let fields = fields(request).await?;
    let session = value(&fields, "session").to_owned();
    match answer(&app, &stage, &session, &fields, auth.address).await {
        Ok(Some(next)) => Ok(next),
        Ok(None) => Ok(done_page("You can close this page and go back to your client.")),
        Err(error) if error.status.is_server_error() => Err(error),
        Err(error) => Ok(failure_page(&error)),
    }
}

fn stage(request: &RawRequest) -> AuthType {
    AuthType::from(request.path_arguments.first().map_or("", String::as_str))
}

fn first_page(app: &ClientApi, stage: &AuthType, session: &str) -> Response {
    let Some(params) = app.users.uiaa().stage_of_page(session, stage) else {
        return failure_page(&ApiError::not_found("There is no such session; begin again"));
    };
    let hidden = [("session", session)];
    let (title, html) = match stage {
        AuthType::Dummy => ("Go on", form(&hidden, "", "Go on")),
        AuthType::Terms => {
            let terms = policies(&params);
            ("Terms", format!("<ul>{terms}</ul>{}", form(&hidden, "", "I agree to all of these")))
        }
        AuthType::RegistrationToken => {
            let input = "<input name=\"token\" autocomplete=\"off\" maxlength=\"64\">";
            ("Your registration token", form(&hidden, input, "Go on"))
        }
        AuthType::EmailIdentity => {
            let input = "<input name=\"email\" type=\"email\" maxlength=\"254\">";
            ("Your e-mail address", form(&hidden, input, "Send me a mail"))
        }
        _ => return failure_page(&ApiError::not_found("There is no page for this stage")),
    };
    page(StatusCode::OK, title, &html)
}

/// Links to the policies. Their addresses come from the configuration and are web addresses.
fn policies(params: &Value) -> String {
    let policies = params["policies"].as_object().into_iter().flatten();
    let texts = policies.filter_map(|(_, policy)| policy.as_object()).flatten();
    let links = texts.filter_map(|(_, text)| {
        let (name, url) = (escape(text["name"].as_str()?), escape(text["url"].as_str()?));
        Some(format!("<li><a href=\"{url}\" rel=\"noreferrer\" target=\"_blank\">{name}</a></li>"))
    });
    links.collect()
}

/// Takes a form; gives the next page, if there is one.
async fn answer(
    app: &ClientApi,
    stage: &AuthType,
    session: &str,
    fields: &[(String, String)],
    address: ClientAddress,
) -> Result<Option<Response>, ApiError> {
    let uiaa = app.users.uiaa();
    if uiaa.stage_of_page(session, stage).is_none() {
        return Err(ApiError::not_found("There is no such session; begin again"));
    }
    let auth = match stage {
        AuthType::Dummy => AuthData::Dummy(Dummy::new()),
        AuthType::Terms => AuthData::Terms(Terms::new()),
        AuthType::RegistrationToken => {
            app.users.registration().check_allowed(address, true)?;
            let token = value(fields, "token").trim().to_owned();
            AuthData::RegistrationToken(RegistrationToken::new(token))
        }
        AuthType::EmailIdentity if !value(fields, "email").is_empty() => {
            return send_mail(app, session, value(fields, "email"), address).await.map(Some);
        }
        AuthType::EmailIdentity => email_proof(value(fields, "sid"), value(fields, "secret"))?,
        _ => return Err(ApiError::not_found("There is no page for this stage")),
    };
    uiaa.answer_on_page(session, &auth).await?;
    Ok(None)
}

async fn send_mail(
    app: &ClientApi,
    session: &str,
    email: &str,
    client: ClientAddress,
) -> Result<Response, ApiError> {
    let purpose = app.users.uiaa().email_purpose(session);
    let purpose =
        purpose.ok_or_else(|| ApiError::not_found("The session has ended; begin again"))?;
    if purpose == EmailPurpose::Register {
        app.users.registration().check_allowed(client, false)?;
    }
    let client_secret = secret::random_name(32);
    let request = EmailRequest {
        purpose,
        client_secret: client_secret.clone(),
        address: email.to_owned(),
        send_attempt: 1,
        client,
    };
    let sid = app.users.emails().request(request).await?;
    let hidden = [("session", session), ("sid", sid.as_str()), ("secret", client_secret.as_str())];
    let text = "<p>Follow the link in the mail, then come back and go on here.</p>";
    let html = format!("{text}{}", form(&hidden, "", "Go on"));
    Ok(page(StatusCode::OK, "Read your mail", &html))
}

fn email_proof(sid: &str, client_secret: &str) -> Result<AuthData, ApiError> {
    let mut data = Map::new();
    data.insert("type".to_owned(), json!("m.login.email.identity"));
    let creds = json!({ "sid": sid, "client_secret": client_secret });
    data.insert("threepid_creds".to_owned(), creds);
    AuthData::new("m.login.email.identity", None, data)
        .map_err(|_| ApiError::invalid_param("The form is not complete"))
}

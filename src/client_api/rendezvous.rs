//! Login by QR code: where two devices meet (MSC4108 as of 2024, and MSC4388). Served only where the
//! operator has it so. It is the same rendezvous by both: a text with headers, or JSON.
//!
//! A browser that is led to such an address is shown nothing, since anybody may have written it.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/4108>
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/4388>

use std::sync::Arc;

use axum::{body::Body, response::Response};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{
        CACHE_CONTROL, CONTENT_TYPE, ETAG, EXPIRES, HeaderName, IF_MATCH, IF_NONE_MATCH,
        LAST_MODIFIED, PRAGMA, X_CONTENT_TYPE_OPTIONS,
    },
};
use ruma::{
    MilliSecondsSinceUnixEpoch,
    api::client::rendezvous::{
        create_rendezvous_session::unstable_msc4388, delete_rendezvous_session,
        discover_rendezvous, get_rendezvous_session, update_rendezvous_session,
    },
    http_headers::system_time_to_http_date,
};
use serde_json::json;

use super::{ClientApi, discovery::base_url, raw};
use crate::{
    encryption::rendezvous::{DATA_BYTES_MAX, Met, Rendezvous, Written},
    error::ApiError,
    http::{BODY_IDLE_MAX, Caller, NoAuth, RawRequest, read_body},
};

/// Where devices meet by MSC4108.
pub(super) const PATH: &str = "/_matrix/client/unstable/org.matrix.msc4108/rendezvous";
/// One rendezvous.
pub(super) const PATH_OF_ONE: &str =
    "/_matrix/client/unstable/org.matrix.msc4108/rendezvous/{rendezvous_id}";

/// `POST /_matrix/client/unstable/org.matrix.msc4108/rendezvous`
/// <https://github.com/matrix-org/matrix-spec-proposals/pull/4108>
pub(super) async fn create(
    app: Arc<ClientApi>,
    auth: NoAuth,
    request: RawRequest,
) -> Result<Response, ApiError> {
    app.limits.rendezvous_creation.check(auth.address.limit_key())?;
    let needs = || ApiError::internal_text("`encryption.qr_login` without `public_base_url`");
    let url = app.config.server.public_base_url.as_ref().ok_or_else(needs)?;
    let (id, met) = app.encryption.rendezvous().create(text(request).await?)?;
    let url = format!("{}{PATH}/{id}", base_url(url));
    let mut response = raw::json(&json!({ "url": url }))?;
    *response.status_mut() = StatusCode::CREATED;
    describe(response.headers_mut(), &met)?;
    Ok(response)
}

/// `GET /_matrix/client/unstable/org.matrix.msc4108/rendezvous/{rendezvousId}`
/// <https://github.com/matrix-org/matrix-spec-proposals/pull/4108>
pub(super) async fn read(
    app: Arc<ClientApi>,
    auth: NoAuth,
    request: RawRequest,
) -> Result<Response, ApiError> {
    let met = look(&app, auth, &request)?;
    let is_known = names(&request.head.headers, &IF_NONE_MATCH)
        .is_some_and(|etags| etags.split(',').any(|etag| revision(etag) == met.revision));
    let mut response = Response::default();
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        *response.body_mut() = Body::from(met.data.clone());
        let plain = HeaderValue::from_static("text/plain");
        response.headers_mut().insert(CONTENT_TYPE, plain);
    }
    describe(response.headers_mut(), &met)?;
    Ok(response)
}

/// `PUT /_matrix/client/unstable/org.matrix.msc4108/rendezvous/{rendezvousId}`
/// <https://github.com/matrix-org/matrix-spec-proposals/pull/4108>
pub(super) async fn write(
    app: Arc<ClientApi>,
    auth: NoAuth,
    request: RawRequest,
) -> Result<Response, ApiError> {
    let rendezvous = rendezvous(&app, auth)?;
    let missing = || ApiError::missing_param("The header `If-Match` is missing");
    let seen = names(&request.head.headers, &IF_MATCH).map(revision).ok_or_else(missing)?;
    let (id, seen) = (id(&request).to_owned(), seen.to_owned());
    let data = text(request).await?;
    let mut response = Response::default();
    let met = match rendezvous.write(&id, &seen, data)? {
        Written::Done(met) => {
            *response.status_mut() = StatusCode::ACCEPTED;
            met
        }
        Written::Unseen(met) => {
            response = raw::json(&unseen(StatusCode::PRECONDITION_FAILED).body())?;
            *response.status_mut() = StatusCode::PRECONDITION_FAILED;
            met
        }
    };
    describe(response.headers_mut(), &met)?;
    Ok(response)
}

/// `DELETE /_matrix/client/unstable/org.matrix.msc4108/rendezvous/{rendezvousId}`
/// <https://github.com/matrix-org/matrix-spec-proposals/pull/4108>
pub(super) async fn end(
    app: Arc<ClientApi>,
    auth: NoAuth,
    request: RawRequest,
) -> Result<Response, ApiError> {
    rendezvous(&app, auth)?.end(id(&request))?;
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// `GET /_matrix/client/unstable/io.element.msc4388/rendezvous`
/// <https://github.com/matrix-org/matrix-spec-proposals/pull/4388>
pub(super) async fn discover_rendezvous(
    _app: Arc<ClientApi>,
    auth: Caller,
    _request: discover_rendezvous::unstable::Request,
) -> Result<discover_rendezvous::unstable::Response, ApiError> {
    Ok(discover_rendezvous::unstable::Response::new(auth.requester.is_some()))
}

/// `POST /_matrix/client/unstable/io.element.msc4388/rendezvous`
/// <https://github.com/matrix-org/matrix-spec-proposals/pull/4388>
///
/// Only for users, as the proposal has it by default.
pub(super) async fn create_rendezvous_session(
    app: Arc<ClientApi>,
    auth: Caller,
    request: unstable_msc4388::Request,
) -> Result<unstable_msc4388::Response, ApiError> {
    app.limits.rendezvous_creation.check(auth.address.limit_key())?;
    if auth.requester.is_none() {
        return Err(ApiError::forbidden("Only users of this server begin a login by QR code"));
    }
    let (id, met) = app.encryption.rendezvous().create(request.data)?;
    Ok(unstable_msc4388::Response::new(id, met.revision, met.expires_in))
}

/// `GET /_matrix/client/unstable/io.element.msc4388/rendezvous/{id}`
/// <https://github.com/matrix-org/matrix-spec-proposals/pull/4388>
pub(super) async fn get_rendezvous_session(
    app: Arc<ClientApi>,
    auth: NoAuth,
    request: RawRequest,
) -> Result<Response, ApiError> {
    let met = look(&app, auth, &request)?;
    let expires_in_ms = u64::try_from(met.expires_in.as_millis()).unwrap_or(u64::MAX);
    let mut response = raw::json(&json!({
        "data": met.data, "sequence_token": met.revision, "expires_in_ms": expires_in_ms,
    }))?;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// `PUT /_matrix/client/unstable/io.element.msc4388/rendezvous/{id}`
/// <https://github.com/matrix-org/matrix-spec-proposals/pull/4388>
pub(super) async fn update_rendezvous_session(
    app: Arc<ClientApi>,
    auth: NoAuth,
    request: update_rendezvous_session::unstable::Request,
) -> Result<update_rendezvous_session::unstable::Response, ApiError> {
    let written =
        rendezvous(&app, auth)?.write(&request.id, &request.sequence_token, request.data)?;
    match written {
        Written::Done(met) => Ok(update_rendezvous_session::unstable::Response::new(met.revision)),
        Written::Unseen(_) => Err(unseen(StatusCode::CONFLICT)),
    }
}

/// `DELETE /_matrix/client/unstable/io.element.msc4388/rendezvous/{id}`
/// <https://github.com/matrix-org/matrix-spec-proposals/pull/4388>
pub(super) async fn delete_rendezvous_session(
    app: Arc<ClientApi>,
    auth: NoAuth,
    request: delete_rendezvous_session::unstable::Request,
) -> Result<delete_rendezvous_session::unstable::Response, ApiError> {
    rendezvous(&app, auth)?.end(&request.id)?;
    Ok(delete_rendezvous_session::unstable::Response::new())
}

/// The paths of [`get_rendezvous_session`].
pub(super) fn session_paths() -> Vec<&'static str> {
    use ruma::api::{Metadata, path_builder::PathBuilder};
    get_rendezvous_session::unstable::Request::PATH_BUILDER.all_paths().collect()
}

/// Where they meet, for an address that does not come too often.
fn rendezvous(app: &ClientApi, auth: NoAuth) -> Result<&Rendezvous, ApiError> {
    app.limits.rendezvous.check(auth.address.limit_key())?;
    Ok(app.encryption.rendezvous())
}

/// What there is to read; nothing for a browser that shows it as a page.
fn look(app: &ClientApi, auth: NoAuth, request: &RawRequest) -> Result<Met, ApiError> {
    let rendezvous = rendezvous(app, auth)?;
    refuse_navigation(&request.head.headers)?;
    rendezvous.read(id(request))
}

fn id(request: &RawRequest) -> &str {
    request.path_arguments.first().map_or("", String::as_str)
}

/// A body of plain text.
async fn text(request: RawRequest) -> Result<String, ApiError> {
    let kind = request.head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let main = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default();
    if !main.trim().eq_ignore_ascii_case("text/plain") {
        return Err(ApiError::invalid_param("The body must be of the type text/plain"));
    }
    let body = read_body(request.body, DATA_BYTES_MAX, BODY_IDLE_MAX).await?;
    String::from_utf8(body.into()).map_err(|_| ApiError::invalid_param("The body is no text"))
}

fn names<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The revision in an `ETag`; a proxy that compresses makes it weak.
fn revision(etag: &str) -> &str {
    let etag = etag.trim();
    etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"')
}

fn describe(headers: &mut HeaderMap, met: &Met) -> Result<(), ApiError> {
    let etag = HeaderValue::try_from(format!("\"{}\"", met.revision));
    headers.insert(ETAG, etag.map_err(ApiError::internal)?);
    headers.insert(EXPIRES, date(met.expires_ts)?);
    headers.insert(LAST_MODIFIED, date(met.modified_ts)?);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(())
}

fn date(ts: MilliSecondsSinceUnixEpoch) -> Result<HeaderValue, ApiError> {
    let time = ts.to_system_time().ok_or_else(|| ApiError::internal_text("a time without end"))?;
    system_time_to_http_date(&time).map_err(ApiError::internal)
}

/// Refuses to show a text as a page.
fn refuse_navigation(headers: &HeaderMap) -> Result<(), ApiError> {
    let mode = headers.get("sec-fetch-mode");
    if mode.is_some_and(|mode| mode == "navigate") {
        return Err(ApiError::forbidden("This is no page"));
    }
    Ok(())
}

fn unseen(status: StatusCode) -> ApiError {
    let errcode = match status {
        StatusCode::CONFLICT => "IO_ELEMENT_MSC4388_CONCURRENT_WRITE",
        _ => "M_CONCURRENT_WRITE",
    };
    ApiError::new(status, errcode, "Something was written that you have not seen")
}

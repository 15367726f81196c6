//! The content repository: uploads, downloads, thumbnails, previews.
//!
//! These handlers take and answer bytes as a stream, so they are not ruma's: a file is never whole
//! in memory. Every answer with a file, and every refusal of one, has the headers that keep a
//! browser from running it (`answer.rs`).
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#content-repository>

mod answer;

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, HttpBody},
    response::Response,
};
use bytes::Bytes;
use futures::Stream;
use http::{
    Method, StatusCode,
    header::{CONTENT_TYPE, HeaderMap},
    request::Parts,
};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::{
    ClientApi,
    raw::{self, written_json},
};
use crate::{
    config::ThumbnailSize,
    error::ApiError,
    http::{BODY_IDLE_MAX, Context, MaybeRequester, RawRequest, Requester, check_encoding},
    media::{self, Caller, Found, Media, NewMedia, Thumbnail, Wait, Wanted},
    storage::{rows::media::MediaKind, schema::media::MediaKey},
};

/// How long an upload may take in all.
const UPLOAD_DURATION_MAX: Duration = Duration::from_mins(10);

/// `POST /_matrix/media/v3/upload`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixmediav3upload>
pub async fn create_content(
    app: Arc<ClientApi>,
    auth: Requester,
    request: RawRequest,
) -> Result<Response, ApiError> {
    check_upload(&app, &auth, &request)?;
    let new = described(&auth, &request);
    let key = app.media.upload(new, Box::pin(body_parts(request.body))).await?;
    Ok(json_answer(&json!({ "content_uri": media::uri(&key) })))
}

/// `PUT /_matrix/media/v3/upload/{serverName}/{mediaId}`
/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixmediav3uploadservernamemediaid>
pub async fn create_content_async(
    app: Arc<ClientApi>,
    auth: Requester,
    request: RawRequest,
) -> Result<Response, ApiError> {
    check_upload(&app, &auth, &request)?;
    let key = named(&request.path_arguments)?;
    let new = described(&auth, &request);
    app.media.upload_to(&key, new, Box::pin(body_parts(request.body))).await?;
    Ok(json_answer(&json!({})))
}

/// `POST /_matrix/media/v1/create`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixmediav1create>
pub async fn create_mxc_uri(
    app: Arc<ClientApi>,
    auth: Requester,
    _request: RawRequest,
) -> Result<Response, ApiError> {
    refuse_guests(&auth)?;
    app.limits_of(&auth).media_uploads.check(&auth.user_id)?;
    let promised = app.media.promise(&auth.user_id).await?;
    let uri = media::uri(&promised.key);
    Ok(json_answer(&json!({ "content_uri": uri, "unused_expires_at": promised.expires_ts })))
}

/// `GET /_matrix/client/v1/media/config`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediaconfig>
pub async fn get_media_config(
    app: Arc<ClientApi>,
    _auth: Requester,
    _request: RawRequest,
) -> Result<Response, ApiError> {
    Ok(json_answer(&json!({ "m.upload.size": app.media.upload_bytes_max() })))
}

/// `GET /_matrix/client/v1/media/preview_url`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediapreview_url>
///
/// `ts` is not looked at: there is only the newest version.
pub async fn get_media_preview(
    app: Arc<ClientApi>,
    auth: Requester,
    request: RawRequest,
) -> Result<Response, ApiError> {
    app.limits_of(&auth).url_previews.check(&auth.user_id)?;
    let url = parameter(&request.head, "url")
        .ok_or_else(|| ApiError::missing_param("The parameter `url` is missing"))?;
    let fields = app.media.preview(&url).await?;
    Ok(json_answer(&Value::Object((*fields).clone())))
}

/// `GET /_matrix/client/v1/media/download/{serverName}/{mediaId}`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediadownloadservernamemediaid>
pub async fn get_content(
    app: Arc<ClientApi>,
    auth: Requester,
    request: RawRequest,
) -> Result<Response, ApiError> {
    Ok(answer::contained(download(&app, &asked(request, Some(&auth))).await))
}

/// `GET /_matrix/media/v3/download/{serverName}/{mediaId}`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixmediav3downloadservernamemediaid>
///
/// For who says who they are, as [`get_content`]. For others it is frozen unless the configuration
/// says otherwise, and never asks another server.
pub async fn get_content_legacy(
    app: Arc<ClientApi>,
    auth: MaybeRequester,
    request: RawRequest,
) -> Result<Response, ApiError> {
    let answer = match check_legacy(&app, &auth) {
        Ok(()) => download(&app, &asked(request, auth.0.as_ref())).await,
        Err(error) => Err(error),
    };
    Ok(answer::contained(answer))
}

/// `GET /_matrix/client/v1/media/thumbnail/{serverName}/{mediaId}`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediathumbnailservernamemediaid>
pub async fn get_content_thumbnail(
    app: Arc<ClientApi>,
    auth: Requester,
    request: RawRequest,
) -> Result<Response, ApiError> {
    let may_make = || app.limits_of(&auth).thumbnails.check(&auth.user_id);
    let request = asked(request, Some(&auth));
    Ok(answer::contained(thumbnail(&app, &request, may_make).await))
}

/// `GET /_matrix/media/v3/thumbnail/{serverName}/{mediaId}`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixmediav3thumbnailservernamemediaid>
///
/// For who says who they are, as [`get_content_thumbnail`]. For others it is frozen unless the
/// configuration says otherwise, and never asks another server.
pub async fn get_content_thumbnail_legacy(
    app: Arc<ClientApi>,
    auth: MaybeRequester,
    request: RawRequest,
) -> Result<Response, ApiError> {
    let address = Context::of(&request.head.extensions).address;
    let may_make = || match &auth.0 {
        Some(auth) => app.limits_of(auth).thumbnails.check(&auth.user_id),
        None => app.limits.thumbnails.check(address.limit_key()),
    };
    let answer = match check_legacy(&app, &auth) {
        Ok(()) => thumbnail(&app, &asked(request, auth.0.as_ref()), may_make).await,
        Err(error) => Err(error),
    };
    Ok(answer::contained(answer))
}

/// A request whose body says nothing.
struct Asked {
    head: Parts,
    path_arguments: Vec<String>,
    /// For whom another server may be asked.
    caller: Option<Caller>,
}

/// Guests count as users: the specification lets them read the files of events. A client of theirs
/// may say `allow_remote=false`, which is known of the old addresses, at all of them.
fn asked(request: RawRequest, auth: Option<&Requester>) -> Asked {
    let RawRequest { head, path_arguments, .. } = request;
    let allows = parameter(&head, "allow_remote").is_none_or(|allowed| allowed != "false");
    let caller = auth.filter(|_| allows).map(|auth| Caller {
        user_id: auth.user_id.clone(),
        address: auth.address.limit_key(),
        is_limited: auth.is_rate_limited(),
    });
    Asked { head, path_arguments, caller }
}

async fn download(app: &ClientApi, request: &Asked) -> Result<Response, ApiError> {
    let found = find(app, request).await?;
    let filename = request.path_arguments.get(2).cloned().or_else(|| found.row.filename.clone());
    let described = answer::Described {
        content_type: found.row.content_type.clone(),
        filename,
        tag: answer::tag(&found.hash, ""),
        size_bytes: found.size_bytes(),
        is_thumbnail: false,
    };
    let reading = match answer::reading(&request.head, &described) {
        Ok(reading) => reading,
        Err(answer) => return Ok(answer),
    };
    let content = app.media.read(&found, reading.range.clone()).await?;
    Ok(answer::of(&described, &reading, Body::from_stream(content.parts)))
}

async fn thumbnail(
    app: &ClientApi,
    request: &Asked,
    may_make: impl FnOnce() -> Result<(), ApiError>,
) -> Result<Response, ApiError> {
    let wanted = Wanted::from_query(request.head.uri.query().unwrap_or_default())?;
    let found = find(app, request).await?;
    let thumbnail = app.media.thumbnail(&found, wanted, may_make).await?;
    let (content_type, size_bytes) = match &*thumbnail {
        Thumbnail::Original { content_type } => ((*content_type).to_owned(), found.size_bytes()),
        Thumbnail::Made { content_type, size_bytes, .. } => (content_type.clone(), *size_bytes),
    };
    let ending = content_type.rsplit('/').next().unwrap_or_default();
    let ThumbnailSize { width, height, method } = wanted.size;
    let moves = if wanted.animated { "a" } else { "" };
    let described = answer::Described {
        filename: Some(format!("thumbnail.{ending}")),
        tag: answer::tag(&found.hash, &format!("-{width}x{height}{method:?}{moves}")),
        content_type: Some(content_type),
        size_bytes,
        is_thumbnail: true,
    };
    let reading = match answer::reading(&request.head, &described) {
        Ok(reading) => reading,
        Err(answer) => return Ok(answer),
    };
    let content = match &*thumbnail {
        _ if reading.range.is_empty() => app.media.read(&found, 0..0).await?,
        Thumbnail::Original { .. } => app.media.read(&found, reading.range.clone()).await?,
        Thumbnail::Made { file, .. } => {
            app.media.read_thumbnail(file, reading.range.clone()).await?
        }
    };
    Ok(answer::of(&described, &reading, Body::from_stream(content.parts)))
}

async fn find(app: &ClientApi, request: &Asked) -> Result<Found, ApiError> {
    let key = named(&request.path_arguments)?;
    let wait = Wait::from_query(request.head.uri.query().unwrap_or_default())?;
    app.media.find(&key, wait, request.caller.as_ref()).await
}

fn named(arguments: &[String]) -> Result<MediaKey, ApiError> {
    let argument = |index: usize| arguments.get(index).map_or("", String::as_str);
    Media::key(argument(0), argument(1))
}

fn check_legacy(app: &ClientApi, auth: &MaybeRequester) -> Result<(), ApiError> {
    if auth.0.is_some() || app.media.serves_unauthenticated() {
        return Ok(());
    }
    Err(ApiError::not_found("Files are given only to those who are logged in and say so"))
}

fn refuse_guests(auth: &Requester) -> Result<(), ApiError> {
    if auth.guest {
        return Err(ApiError::guest_access_forbidden("Guests may not upload files"));
    }
    Ok(())
}

fn check_upload(app: &ClientApi, auth: &Requester, request: &RawRequest) -> Result<(), ApiError> {
    refuse_guests(auth)?;
    app.limits_of(auth).media_uploads.check(&auth.user_id)?;
    check_encoding(&request.head.headers)
}

/// What an upload says of itself.
fn described(auth: &Requester, request: &RawRequest) -> NewMedia {
    NewMedia {
        kind: MediaKind::Local,
        uploader: Some(auth.user_id.clone()),
        content_type: header(&request.head.headers, CONTENT_TYPE),
        filename: parameter(&request.head, "filename"),
        announced_bytes: Some(request.body.size_hint().lower()),
    }
}

fn header(headers: &HeaderMap, name: http::HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// A parameter of the query, the first of its name.
fn parameter(head: &Parts, name: &str) -> Option<String> {
    raw::parameter(head.uri.query()?, name)
}

/// The body of an upload, as it comes: with a longest pause and an end.
fn body_parts(body: Body) -> impl Stream<Item = Result<Bytes, ApiError>> + Send {
    let end = Instant::now() + UPLOAD_DURATION_MAX;
    futures::stream::try_unfold(body, move |mut body| async move {
        loop {
            let deadline = end.min(Instant::now() + BODY_IDLE_MAX);
            let frame = timeout_at(deadline, body.frame()).await.map_err(|_| too_slow())?;
            let Some(frame) = frame else { return Ok(None) };
            let broken = |_| ApiError::unknown("The connection broke within the file");
            if let Ok(bytes) = frame.map_err(broken)?.into_data() {
                return Ok(Some((bytes, body)));
            }
        }
    })
}

fn too_slow() -> ApiError {
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "M_UNKNOWN", "The file came too slowly")
}

fn json_answer(body: &Value) -> Response {
    written_json(body.to_string())
}

/// Whether the body of an answer is not asked for.
fn is_head(head: &Parts) -> bool {
    head.method == Method::HEAD
}

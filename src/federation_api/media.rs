//! Files of this server's users, for users of others. A file is never whole in memory, so these
//! handlers are not ruma's.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#content-repository>

use std::sync::Arc;

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{
    HeaderValue,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};

use super::FederationApi;
use crate::{
    error::ApiError,
    http::{OtherServer, RawRequest},
    media::{Content, Found, Media, Thumbnail, Wait, Wanted, disposition, is_inline},
};

/// `GET /_matrix/federation/v1/media/download/{mediaId}`
/// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1mediadownloadmediaid>
pub async fn get_content(
    app: Arc<FederationApi>,
    auth: OtherServer,
    request: RawRequest,
) -> Result<Response, ApiError> {
    app.limits.requests.check(auth.name()?)?;
    let found = find(&app, &asked(&request)?).await?;
    let content = app.media.read(&found, 0..found.size_bytes()).await?;
    answer(content, found.row.content_type.as_deref(), found.row.filename.as_deref())
}

/// `GET /_matrix/federation/v1/media/thumbnail/{mediaId}`
/// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1mediathumbnailmediaid>
pub async fn get_content_thumbnail(
    app: Arc<FederationApi>,
    auth: OtherServer,
    request: RawRequest,
) -> Result<Response, ApiError> {
    let server = auth.name()?;
    app.limits.requests.check(server)?;
    let wanted = Wanted::from_query(query(&request))?;
    let found = find(&app, &asked(&request)?).await?;
    let may_make = || app.limits.thumbnails.check(server);
    match &*app.media.thumbnail(&found, wanted, may_make).await? {
        Thumbnail::Original { content_type } => {
            let content = app.media.read(&found, 0..found.size_bytes()).await?;
            answer(content, Some(content_type), None)
        }
        Thumbnail::Made { content_type, size_bytes, file, .. } => {
            let content = app.media.read_thumbnail(file, 0..*size_bytes).await?;
            answer(content, Some(content_type), None)
        }
    }
}

/// Which file is asked for, and how long to wait for it.
fn asked(request: &RawRequest) -> Result<(&str, Wait), ApiError> {
    let media_id = request.path_arguments.first().map_or("", String::as_str);
    Ok((media_id, Wait::from_query(query(request))?))
}

fn query(request: &RawRequest) -> &str {
    request.head.uri.query().unwrap_or_default()
}

/// A file of this server: others are not asked for each other's.
async fn find(app: &FederationApi, (media_id, wait): &(&str, Wait)) -> Result<Found, ApiError> {
    let key = Media::key(app.signer.server_name.as_str(), media_id)?;
    app.media.find(&key, *wait, None).await
}

/// The two parts: what is known of the file, which is nothing, and the file.
fn answer(
    content: Content,
    content_type: Option<&str>,
    filename: Option<&str>,
) -> Result<Response, ApiError> {
    let boundary = boundary()?;
    let content_type = content_type
        .filter(|text| HeaderValue::from_str(text).is_ok())
        .unwrap_or("application/octet-stream");
    let disposition = disposition(is_inline(content_type), filename);
    let disposition = disposition.to_str().unwrap_or("attachment");
    let head = format!(
        "--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n\
         --{boundary}\r\nContent-Type: {content_type}\r\n\
         Content-Disposition: {disposition}\r\n\r\n"
    );
    let tail = format!("\r\n--{boundary}--\r\n");
    let size_bytes = head.len() as u64 + content.size_bytes + tail.len() as u64;
    let frame = |text: String| stream::iter([Ok(Bytes::from(text))]);
    let body = frame(head).chain(content.parts).chain(frame(tail));
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(size_bytes));
    let parts = HeaderValue::try_from(format!("multipart/mixed; boundary={boundary}"));
    headers.insert(CONTENT_TYPE, parts.map_err(ApiError::internal)?);
    Ok(response)
}

/// What stands in no file, since nobody knows it beforehand.
fn boundary() -> Result<String, ApiError> {
    let random = [getrandom::u64(), getrandom::u64()].map(|part| part.map_err(ApiError::internal));
    let [first, second] = random;
    Ok(format!("{:016x}{:016x}", first?, second?))
}

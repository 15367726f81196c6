//! The endpoints of the content repository: those of today, which want to know who asks, and those
//! of before version 1.11.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#content-repository>

use http::Method;

use super::{ClientApi, media};
use crate::http::Routes;

const UPLOAD: &[&str] =
    &["/_matrix/media/r0/upload", "/_matrix/media/v1/upload", "/_matrix/media/v3/upload"];
const UPLOAD_TO: &[&str] = &[
    "/_matrix/media/unstable/fi.mau.msc2246/upload/{server_name}/{media_id}",
    "/_matrix/media/v3/upload/{server_name}/{media_id}",
];
const CREATE: &[&str] =
    &["/_matrix/media/unstable/fi.mau.msc2246/create", "/_matrix/media/v1/create"];
const CONFIG: &[&str] = &[
    "/_matrix/media/r0/config",
    "/_matrix/media/v1/config",
    "/_matrix/media/v3/config",
    "/_matrix/client/unstable/org.matrix.msc3916/media/config",
    "/_matrix/client/v1/media/config",
];
const PREVIEW: &[&str] = &[
    "/_matrix/media/r0/preview_url",
    "/_matrix/media/v1/preview_url",
    "/_matrix/media/v3/preview_url",
    "/_matrix/client/unstable/org.matrix.msc3916/media/preview_url",
    "/_matrix/client/v1/media/preview_url",
];
const DOWNLOAD: &[&str] = &[
    "/_matrix/client/unstable/org.matrix.msc3916/media/download/{server_name}/{media_id}",
    "/_matrix/client/unstable/org.matrix.msc3916/media/download/{server_name}/{media_id}/{filename}",
    "/_matrix/client/v1/media/download/{server_name}/{media_id}/{filename}",
    "/_matrix/client/v1/media/download/{server_name}/{media_id}",
];
const THUMBNAIL: &[&str] = &[
    "/_matrix/client/unstable/org.matrix.msc3916/media/thumbnail/{server_name}/{media_id}",
    "/_matrix/client/v1/media/thumbnail/{server_name}/{media_id}",
];
const LEGACY_DOWNLOAD: &[&str] = &[
    "/_matrix/media/r0/download/{server_name}/{media_id}",
    "/_matrix/media/r0/download/{server_name}/{media_id}/{filename}",
    "/_matrix/media/v1/download/{server_name}/{media_id}",
    "/_matrix/media/v1/download/{server_name}/{media_id}/{filename}",
    "/_matrix/media/v3/download/{server_name}/{media_id}/{filename}",
    "/_matrix/media/v3/download/{server_name}/{media_id}",
];
const LEGACY_THUMBNAIL: &[&str] = &[
    "/_matrix/media/r0/thumbnail/{server_name}/{media_id}",
    "/_matrix/media/v1/thumbnail/{server_name}/{media_id}",
    "/_matrix/media/v3/thumbnail/{server_name}/{media_id}",
];

/// Adds the endpoints about files.
#[must_use]
pub(super) fn media_routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes
        .add_raw(&Method::POST, UPLOAD, media::create_content)
        .add_raw(&Method::PUT, UPLOAD_TO, media::create_content_async)
        .add_raw(&Method::POST, CREATE, media::create_mxc_uri)
        .add_raw(&Method::GET, CONFIG, media::get_media_config)
        .add_raw(&Method::GET, PREVIEW, media::get_media_preview)
        .add_raw(&Method::GET, DOWNLOAD, media::get_content)
        .add_raw(&Method::GET, THUMBNAIL, media::get_content_thumbnail)
        .add_raw(&Method::GET, LEGACY_DOWNLOAD, media::get_content_legacy)
        .add_raw(&Method::GET, LEGACY_THUMBNAIL, media::get_content_thumbnail_legacy)
}

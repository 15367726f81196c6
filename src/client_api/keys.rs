//! The keys of devices: uploading, asking for and claiming them.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#end-to-end-encryption>

use std::{collections::BTreeMap, sync::Arc};

use axum::response::Response;
use bytes::Bytes;
use ruma::api::client::keys::{claim_keys, get_keys};
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};

use super::{
    ClientApi,
    raw::{json, paged_json},
};
use crate::{
    encryption::{Claimed, Upload},
    error::ApiError,
    http::{
        BODY_IDLE_MAX, JsonRules, RawRequest, Requester, check_json, check_json_headers, read_body,
    },
    storage::schema::encryption::DeviceAlgorithmKey,
};

/// The paths of [`upload_keys`].
pub(super) const UPLOAD_PATHS: &[&str] =
    &["/_matrix/client/r0/keys/upload", "/_matrix/client/v3/keys/upload"];
/// The largest upload: a client may have many keys to upload at once.
const UPLOAD_BYTES_MAX: usize = 2 << 20;

/// What is answered to a claim.
#[derive(Serialize)]
struct ClaimAnswer {
    failures: BTreeMap<String, Value>,
    /// By user, device, and the id of the key.
    one_time_keys: BTreeMap<String, BTreeMap<String, BTreeMap<String, Box<RawValue>>>>,
}

/// `POST /_matrix/client/v3/keys/upload`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysupload>
///
/// At most 2 MiB. Fallback keys are also taken by the name of MSC2732.
pub(super) async fn upload_keys(
    app: Arc<ClientApi>,
    auth: Requester,
    request: RawRequest,
) -> Result<Response, ApiError> {
    let body = read_keys(request).await?;
    let upload: Upload<'_> = serde_json::from_slice(&body)
        .map_err(|error| ApiError::bad_json(format!("The keys are not valid: {error}")))?;
    if upload.has_device_keys() {
        app.charge_device_list_change(&auth)?;
    }
    let counts = app.encryption.upload_keys(&auth.user_id, &auth.device_id, &upload).await?;
    json(&json!({ "one_time_key_counts": counts }))
}

/// The JSON of a request that brings keys. Nothing counts as `{}`.
pub(super) async fn read_keys(request: RawRequest) -> Result<Bytes, ApiError> {
    check_json_headers(&request.head.headers)?;
    let body = read_body(request.body, UPLOAD_BYTES_MAX, BODY_IDLE_MAX).await?;
    let body = if body.is_empty() { Bytes::from_static(b"{}") } else { body };
    check_json(&body, JsonRules::REQUEST)?;
    Ok(body)
}

/// `POST /_matrix/client/v3/keys/query`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysquery>
///
/// At most 5,000 users.
pub(super) async fn get_keys(
    app: Arc<ClientApi>,
    auth: Requester,
    request: get_keys::v3::Request,
) -> Result<Response, ApiError> {
    let keys = app.encryption.query_keys(&auth.user_id, request.device_keys).await?;
    Ok(paged_json(keys))
}

/// `POST /_matrix/client/v3/keys/claim`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysclaim>
///
/// At most 10,000 devices. A user who takes too many keys gets 429, and none is taken.
pub(super) async fn claim_keys(
    app: Arc<ClientApi>,
    auth: Requester,
    request: claim_keys::v3::Request,
) -> Result<Response, ApiError> {
    let mut wanted = Vec::new();
    for (user_id, devices) in request.one_time_keys {
        for (device_id, algorithm) in devices {
            wanted.push(DeviceAlgorithmKey {
                user_id: user_id.to_string(),
                device_id: device_id.to_string(),
                algorithm: algorithm.to_string(),
            });
        }
    }
    app.limits_of(&auth).key_claims.check_many(&auth.user_id, wanted.len() as u64)?;
    let claimed = app.encryption.claim_keys(wanted).await?;
    json(&claim_answer(claimed, app.config.server.name.as_str()))
}

fn claim_answer(claimed: Claimed, server_name: &str) -> ClaimAnswer {
    let mut answer = ClaimAnswer { failures: BTreeMap::new(), one_time_keys: BTreeMap::new() };
    let mut incomplete = claimed.incomplete;
    for key in claimed.keys {
        let DeviceAlgorithmKey { user_id, device_id, algorithm } = key.queue;
        // The others are handed out and must be told, whatever is wrong with this one.
        let value = match serde_json::from_slice(&key.key) {
            Ok(value) => value,
            Err(error) => {
                tracing::error!(user_id, device_id, key.key_id, %error, "a stored key is corrupt");
                incomplete = true;
                continue;
            }
        };
        let device = answer.one_time_keys.entry(user_id).or_default().entry(device_id).or_default();
        device.insert(format!("{algorithm}:{}", key.key_id), value);
    }
    if incomplete {
        let failure = json!({ "message": "The server could not hand out all keys; try again" });
        answer.failures.insert(server_name.to_owned(), failure);
    }
    answer
}

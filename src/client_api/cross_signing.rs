//! Cross-signing keys and signatures.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#cross-signing>

use std::sync::Arc;

use axum::response::Response;
use ruma::{
    api::client::keys::{upload_signatures, upload_signing_keys},
    serde::Raw,
};
use serde_json::json;

use super::{ClientApi, raw, uiaa};
use crate::{
    encryption::{CrossSigningKeys, KeyChange, SignedKeys},
    error::ApiError,
    http::Requester,
};

/// `POST /_matrix/client/v3/keys/device_signing/upload`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysdevice_signingupload>
pub(super) async fn upload_signing_keys(
    app: Arc<ClientApi>,
    auth: Requester,
    request: upload_signing_keys::v3::Request,
) -> Result<upload_signing_keys::v3::Response, ApiError> {
    app.charge_device_list_change(&auth)?;
    let keys = [&request.master_key, &request.self_signing_key, &request.user_signing_key];
    let raw = keys.map(|key| key.as_ref().map(Raw::json));
    let keys = CrossSigningKeys::parse(&auth.user_id, raw)?;
    let mut allowed = app.encryption.cross_signing_change(&auth.user_id, &keys).await?;
    loop {
        if allowed == KeyChange::Replacement && auth.appservice.is_none() {
            let parameters: Vec<&[u8]> =
                raw.map(|key| key.map_or(&b""[..], |key| key.get().as_bytes())).to_vec();
            let operation = ("POST keys/device_signing/upload", parameters.as_slice());
            uiaa::check_password(&app, &auth, request.auth.as_ref(), operation).await?;
        }
        if app.encryption.set_cross_signing_keys(&auth.user_id, keys.clone(), allowed).await? {
            return Ok(upload_signing_keys::v3::Response::new());
        }
        // Another client was quicker, and now these would take the place of its keys.
        allowed = KeyChange::Replacement;
    }
}

/// `POST /_matrix/client/v3/keys/signatures/upload`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keyssignaturesupload>
pub(super) async fn upload_signatures(
    app: Arc<ClientApi>,
    auth: Requester,
    request: upload_signatures::v3::Request,
) -> Result<Response, ApiError> {
    app.charge_device_list_change(&auth)?;
    // ruma gives the entries by what it takes them for, and no way to their JSON by name.
    let keys = serde_json::to_vec(&request.signed_keys).map_err(ApiError::internal)?;
    let keys: SignedKeys = serde_json::from_slice(&keys).map_err(ApiError::internal)?;
    let failures = app.encryption.upload_signatures(&auth.user_id, keys).await?;
    raw::json(&json!({ "failures": failures }))
}

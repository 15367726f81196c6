//! The device that a user leaves behind to receive keys while none of theirs is there (MSC3814).
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/3814>

use std::sync::Arc;

use axum::response::Response;
use ruma::{
    OwnedDeviceId,
    api::client::dehydrated_device::{delete_dehydrated_device, get_dehydrated_device, get_events},
    serde::Raw,
};
use serde_json::json;

use super::{ClientApi, keys::read_keys, raw};
use crate::{
    encryption::NewDehydratedDevice,
    error::ApiError,
    http::{RawRequest, Requester},
};

/// The path of [`put_dehydrated_device`].
pub(super) const PUT_PATHS: &[&str] =
    &["/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"];

/// The path of [`get_events_by_query`].
pub(super) const EVENTS_PATHS: &[&str] =
    &["/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device/{device_id}/events"];

/// `PUT /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device`
/// <https://github.com/matrix-org/matrix-spec-proposals/pull/3814>
///
/// At most 2 MiB, and 64 KiB of `device_data`.
pub(super) async fn put_dehydrated_device(
    app: Arc<ClientApi>,
    auth: Requester,
    request: RawRequest,
) -> Result<Response, ApiError> {
    app.charge_device_list_change(&auth)?;
    let body = read_keys(request).await?;
    let device = NewDehydratedDevice::parse(&body)?;
    app.encryption.put_dehydrated_device(&auth.user_id, &device).await?;
    raw::json(&json!({ "device_id": device.device_id() }))
}

/// `GET /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device`
/// <https://github.com/matrix-org/matrix-spec-proposals/pull/3814>
pub(super) async fn get_dehydrated_device(
    app: Arc<ClientApi>,
    auth: Requester,
    _request: get_dehydrated_device::unstable::Request,
) -> Result<get_dehydrated_device::unstable::Response, ApiError> {
    let device = app.encryption.dehydrated_device(&auth.user_id).await?.ok_or_else(none)?;
    let data = Raw::from_json(device.device_data);
    Ok(get_dehydrated_device::unstable::Response::new(device.device_id.into(), data))
}

/// `DELETE /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device`
/// <https://github.com/matrix-org/matrix-spec-proposals/pull/3814>
pub(super) async fn delete_dehydrated_device(
    app: Arc<ClientApi>,
    auth: Requester,
    _request: delete_dehydrated_device::unstable::Request,
) -> Result<delete_dehydrated_device::unstable::Response, ApiError> {
    app.charge_device_list_change(&auth)?;
    let device_id = app.encryption.delete_dehydrated_device(&auth.user_id).await?;
    let device_id = device_id.ok_or_else(none)?;
    Ok(delete_dehydrated_device::unstable::Response::new(device_id.into()))
}

/// `POST /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device/{deviceId}/events`
/// <https://github.com/matrix-org/matrix-spec-proposals/pull/3814>
///
/// At most 100 messages. An answer without any says that these were all.
pub(super) async fn get_events(
    app: Arc<ClientApi>,
    auth: Requester,
    request: get_events::unstable::Request,
) -> Result<get_events::unstable::Response, ApiError> {
    let next_batch = request.next_batch.as_deref();
    let messages =
        app.encryption.dehydrated_messages(&auth.user_id, &request.device_id, next_batch).await?;
    let events = messages.events.into_iter().map(Raw::from_json).collect();
    let mut response = get_events::unstable::Response::new(events);
    response.next_batch = Some(messages.next_batch);
    Ok(response)
}

/// `GET /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device/{deviceId}/events`
/// <https://github.com/matrix-org/matrix-spec-proposals/pull/3814>
///
/// As matrix-js-sdk asks: it sends the token as `from` and goes on while there is a `next_batch`, so
/// that the last answer must have none.
pub(super) async fn get_events_by_query(
    app: Arc<ClientApi>,
    auth: Requester,
    request: RawRequest,
) -> Result<Response, ApiError> {
    let device_id = request.path_arguments.first().cloned().unwrap_or_default();
    let from = raw::parameter(request.head.uri.query().unwrap_or_default(), "from");
    drop(request);
    let (device_id, from) = (OwnedDeviceId::from(device_id), from.as_deref());
    let messages = app.encryption.dehydrated_messages(&auth.user_id, &device_id, from).await?;
    let mut answer = json!({ "events": messages.events });
    if messages.has_more {
        answer["next_batch"] = json!(messages.next_batch);
    }
    raw::json(&answer)
}

fn none() -> ApiError {
    ApiError::not_found("You have no dehydrated device")
}

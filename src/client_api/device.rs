//! Devices of the user who asks.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#device-management>

use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;
use ruma::{
    DeviceId, MilliSecondsSinceUnixEpoch, UInt,
    api::client::device::{
        Device, delete_device, delete_devices, get_device, get_devices, update_device,
    },
};

use super::{ClientApi, raw::written_json, uiaa};
use crate::{
    error::ApiError,
    http::Requester,
    users::{DEVICE_ID_BYTES_MAX, KnownDevice, Selection},
};

/// `GET /_matrix/client/v3/devices`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3devices>
///
/// What is not known of a device is `null`: matrix-nio takes no list that leaves it out.
pub(super) async fn get_devices(
    app: Arc<ClientApi>,
    auth: Requester,
    _request: get_devices::v3::Request,
) -> Result<get_devices::v3::Response, ApiError> {
    let devices = app.users.devices().list(&auth.user_id).await?;
    Ok(get_devices::v3::Response::new(devices.into_iter().map(shown).collect()))
}

/// `GET /_matrix/client/v3/devices/{deviceId}`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3devicesdeviceid>
pub(super) async fn get_device(
    app: Arc<ClientApi>,
    auth: Requester,
    request: get_device::v3::Request,
) -> Result<get_device::v3::Response, ApiError> {
    check_device_id(&request.device_id)?;
    let device = app.users.devices().get(&auth.user_id, &request.device_id).await?;
    let device = device.ok_or_else(|| ApiError::not_found("There is no such device"))?;
    Ok(get_device::v3::Response::new(shown(device)))
}

/// `PUT /_matrix/client/v3/devices/{deviceId}`
/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3devicesdeviceid>
///
/// For an application service, a device that is not there is made, and answered with 201.
pub(super) async fn update_device(
    app: Arc<ClientApi>,
    auth: Requester,
    request: update_device::v3::Request,
) -> Result<Response, ApiError> {
    check_device_id(&request.device_id)?;
    app.charge_device_list_change(&auth)?;
    let devices = app.users.devices();
    let mut response = written_json("{}");
    if auth.appservice.is_some() {
        let name = request.display_name.as_deref();
        let now = app.rooms.clock().now().get().into();
        if devices.create(&auth.user_id, &request.device_id, name, now).await? {
            *response.status_mut() = StatusCode::CREATED;
            return Ok(response);
        }
    }
    devices.rename(&auth.user_id, &request.device_id, request.display_name).await?;
    Ok(response)
}

/// `DELETE /_matrix/client/v3/devices/{deviceId}`
/// <https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3devicesdeviceid>
pub(super) async fn delete_device(
    app: Arc<ClientApi>,
    auth: Requester,
    request: delete_device::v3::Request,
) -> Result<delete_device::v3::Response, ApiError> {
    check_device_id(&request.device_id)?;
    if auth.appservice.is_none() {
        let name = format!("DELETE devices/{}", request.device_id);
        uiaa::check_password(&app, &auth, request.auth.as_ref(), (&name, &[])).await?;
    }
    let device = [request.device_id];
    app.users.devices().remove(&auth.user_id, Selection::These(&device)).await?;
    Ok(delete_device::v3::Response::new())
}

/// `POST /_matrix/client/v3/delete_devices`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3delete_devices>
pub(super) async fn delete_devices(
    app: Arc<ClientApi>,
    auth: Requester,
    request: delete_devices::v3::Request,
) -> Result<delete_devices::v3::Response, ApiError> {
    request.devices.iter().try_for_each(|device| check_device_id(device))?;
    let parameters: Vec<&[u8]> =
        request.devices.iter().map(|device| device.as_str().as_bytes()).collect();
    let operation = ("POST delete_devices", parameters.as_slice());
    if auth.appservice.is_none() {
        uiaa::check_password(&app, &auth, request.auth.as_ref(), operation).await?;
    }
    app.users.devices().remove(&auth.user_id, Selection::These(&request.devices)).await?;
    Ok(delete_devices::v3::Response::new())
}

/// Refuses an id that no device can have.
fn check_device_id(device_id: &DeviceId) -> Result<(), ApiError> {
    if device_id.as_str().len() > DEVICE_ID_BYTES_MAX {
        return Err(ApiError::invalid_param("The device id is too long"));
    }
    Ok(())
}

fn shown(known: KnownDevice) -> Device {
    let mut device = Device::new(known.device_id);
    device.display_name = known.row.display_name;
    device.last_seen_ip = known.seen.as_ref().map(|seen| seen.address.to_string());
    // That it was made is the first that was seen of it.
    let seen_ts = known.seen.map_or(known.row.created_ts, |seen| seen.ts);
    device.last_seen_ts = Some(MilliSecondsSinceUnixEpoch(UInt::new_saturating(seen_ts)));
    device
}

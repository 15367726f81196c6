//! Messages to devices.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging>

use std::sync::Arc;

use ruma::api::client::to_device::send_event_to_device;

use super::ClientApi;
use crate::{
    encryption::to_device::{Cost, Outgoing},
    error::ApiError,
    http::Requester,
};

/// `PUT /_matrix/client/v3/sendToDevice/{eventType}/{txnId}`
/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3sendtodeviceeventtypetxnid>
///
/// At most 64 KiB for each content. Suspended users may send: they verify their devices by it. A user
/// who asks others for too many keys, or sends to too many devices, gets 429; nothing is sent then.
pub(super) async fn send_event_to_device(
    app: Arc<ClientApi>,
    auth: Requester,
    request: send_event_to_device::v3::Request,
) -> Result<send_event_to_device::v3::Response, ApiError> {
    let limits = app.limits_of(&auth);
    let user_id = auth.user_id.clone();
    let charge = |cost: Cost| {
        let requests = cost.key_requests as u64;
        limits.key_requests.check_many(&user_id, requests)?;
        limits
            .to_device_messages
            .check_many(&user_id, cost.messages as u64)
            .inspect_err(|_| limits.key_requests.give_back(&user_id, requests))
    };
    let outgoing = Outgoing {
        sender: auth.user_id,
        device_id: auth.device_id,
        event_type: request.event_type.to_string(),
        transaction_id: request.txn_id.to_string(),
        messages: request.messages,
    };
    app.encryption.send_to_devices(outgoing, charge).await?;
    Ok(send_event_to_device::v3::Response::new())
}

//! Receipts.

use std::sync::Arc;

use ruma::api::client::receipt::create_receipt::{self, v3::ReceiptType};

use super::{ClientApi, read_marker::Markers};
use crate::{ephemeral::Thread, error::ApiError, http::Requester};

/// `POST /_matrix/client/v3/rooms/{roomId}/receipt/{receiptType}/{eventId}`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidreceiptreceipttypeeventid>
///
/// A receipt that would move back is accepted and changes nothing.
pub(super) async fn create_receipt(
    app: Arc<ClientApi>,
    auth: Requester,
    request: create_receipt::v3::Request,
) -> Result<create_receipt::v3::Response, ApiError> {
    let thread = Thread::from_request(&request.thread)?;
    let event_id = Some(request.event_id);
    let markers = match request.receipt_type {
        ReceiptType::Read => Markers { read: event_id, ..Markers::default() },
        ReceiptType::ReadPrivate => Markers { read_private: event_id, ..Markers::default() },
        ReceiptType::FullyRead if thread == Thread::none() => {
            Markers { fully_read: event_id, ..Markers::default() }
        }
        ReceiptType::FullyRead => {
            return Err(ApiError::invalid_param("m.fully_read takes no thread_id"));
        }
        _ => return Err(ApiError::invalid_param("This type of receipt is not known")),
    };
    markers.set(&app, &auth.user_id, &request.room_id, thread).await?;
    Ok(create_receipt::v3::Response::new())
}

//! Sending: messages, state and redactions.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#sending-events-to-a-room>

use std::sync::Arc;

use ruma::{
    TransactionId,
    api::client::{message::send_message_event, redact::redact_event, state::send_state_event},
    events::TimelineEventType,
};

use super::{
    ClientApi,
    membership_change::{charge_joined, charge_member_event},
};
use crate::{
    error::ApiError,
    http::Requester,
    rooms::{NewEvent, Transaction, redacts_of},
};

/// `PUT /_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}`
/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidsendeventtypetxnid>
///
/// A redaction may be sent like any event: then `redacts` stands in its content.
pub async fn send_message(
    app: Arc<ClientApi>,
    auth: Requester,
    request: send_message_event::v3::Request,
) -> Result<send_message_event::v3::Response, ApiError> {
    app.limits.messages.check(&auth.user_id)?;
    let room = app.rooms.known_room(&request.room_id).await?;
    let event_type = TimelineEventType::from(request.event_type.to_string());
    let content = request.body.into_json();
    let redacts = match event_type {
        TimelineEventType::RoomRedaction => redacts_of(&content),
        _ => None,
    };
    let endpoint = format!("send/{}/{event_type}", request.room_id);
    let transaction = transaction(&auth, endpoint, &request.txn_id)?;
    let sender = auth.user_id;
    let event = NewEvent { sender, event_type, state_key: None, content, redacts };
    app.presence.is_active(&event.sender);
    let sent = app.rooms.send(&room, event, Some(transaction)).await?;
    Ok(send_message_event::v3::Response::new(sent.event_id))
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}`
/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidstateeventtypestatekey>
pub async fn send_state(
    app: Arc<ClientApi>,
    auth: Requester,
    request: send_state_event::v3::Request,
) -> Result<send_state_event::v3::Response, ApiError> {
    app.limits.messages.check(&auth.user_id)?;
    let room = app.rooms.known_room(&request.room_id).await?;
    let event_type = TimelineEventType::from(request.event_type.to_string());
    let content = request.body.into_json();
    if event_type == TimelineEventType::RoomCanonicalAlias {
        app.rooms.check_canonical_alias(&room, &auth.user_id, &content).await?;
    }
    let joins = event_type == TimelineEventType::RoomMember && {
        let who = (&*auth.user_id, &*request.state_key);
        charge_member_event(&app, &room, who, &content).await?
    };
    let state_key = Some(request.state_key);
    let event = NewEvent { sender: auth.user_id, event_type, state_key, content, redacts: None };
    let sent = app.rooms.send(&room, event, None).await?;
    if joins {
        charge_joined(&app, &room);
    }
    Ok(send_state_event::v3::Response::new(sent.event_id))
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/redact/{eventId}/{txnId}`
/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidredacteventidtxnid>
pub async fn redact(
    app: Arc<ClientApi>,
    auth: Requester,
    request: redact_event::v3::Request,
) -> Result<redact_event::v3::Response, ApiError> {
    app.limits.messages.check(&auth.user_id)?;
    let room = app.rooms.known_room(&request.room_id).await?;
    let endpoint = format!("redact/{}/{}", request.room_id, request.event_id);
    let transaction = transaction(&auth, endpoint, &request.txn_id)?;
    let target = (&*request.event_id, request.reason);
    let sent = app.rooms.redact(&room, auth.user_id, target, Some(transaction)).await?;
    Ok(redact_event::v3::Response::new(sent.event_id))
}

fn transaction(
    auth: &Requester,
    endpoint: String,
    id: &TransactionId,
) -> Result<Transaction, ApiError> {
    if id.as_str().len() > 255 {
        return Err(ApiError::invalid_param("A transaction id has at most 255 bytes"));
    }
    let device_id = auth.device_id.to_string();
    Ok(Transaction { device_id, endpoint, transaction_id: id.to_string() })
}

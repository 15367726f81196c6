//! Sending: messages, state and redactions.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#sending-events-to-a-room>

use std::sync::Arc;

use ruma::{
    MilliSecondsSinceUnixEpoch, TransactionId, UserId,
    api::{
        client::{message::send_message_event, redact::redact_event, state::send_state_event},
        error::DeserializationError,
    },
    events::TimelineEventType,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    ClientApi,
    extended::{Extended, More},
    membership_change::{charge_joined, charge_member_event, give_back_invite},
    permissions::suspended,
};
use crate::{
    error::ApiError,
    http::{Requester, Standing},
    rooms::{NewEvent, Transaction, redacts_of, relations::redacted::Related},
    users::successors,
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
    app.limits_of(&auth).messages.check(&auth.user_id)?;
    let room = app.rooms.known_room(&request.room_id).await?;
    let event_type = TimelineEventType::from(request.event_type.to_string());
    let content = request.body.into_json();
    let redacts = match event_type {
        TimelineEventType::RoomRedaction => redacts_of(&content),
        _ => None,
    };
    let endpoint = format!("send/{}/{event_type}", request.room_id);
    let transaction = transaction(&auth, endpoint, &request.txn_id)?;
    let at = asserted_time(&auth, request.timestamp);
    let sender = auth.user_id;
    let event = NewEvent { sender, event_type, state_key: None, content, redacts };
    app.presence.is_active(&event.sender);
    let sent = app.rooms.send_at(&room, event, Some(transaction), at).await?;
    Ok(send_message_event::v3::Response::new(sent.event_id))
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}`
/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidstateeventtypestatekey>
pub async fn send_state(
    app: Arc<ClientApi>,
    auth: Requester,
    request: send_state_event::v3::Request,
) -> Result<send_state_event::v3::Response, ApiError> {
    app.limits_of(&auth).messages.check(&auth.user_id)?;
    let room = app.rooms.known_room(&request.room_id).await?;
    let event_type = TimelineEventType::from(request.event_type.to_string());
    let content = request.body.into_json();
    if event_type == TimelineEventType::RoomCanonicalAlias {
        app.rooms.check_canonical_alias(&room, &auth.user_id, &content).await?;
    }
    if auth.guest && event_type == TimelineEventType::RoomMember {
        check_guest_event(&auth, &request.state_key, &content)?;
    }
    // A guest who joins this way is treated like one who joins the other.
    let guest =
        (auth.guest && event_type == TimelineEventType::RoomMember).then(|| auth.user_id.clone());
    if let Some(guest) = &guest {
        app.users.admit_guest(&app.rooms, &room, guest).await?;
    }
    let joins = event_type == TimelineEventType::RoomMember && {
        let who = (&auth, &*request.state_key);
        charge_member_event(&app, &room, who, &content).await?
    };
    let invited = (event_type == TimelineEventType::RoomMember && invites(&content))
        .then(|| UserId::parse(&*request.state_key).ok())
        .flatten();
    let state_key = Some(request.state_key);
    let user_id = auth.user_id.clone();
    let at = asserted_time(&auth, request.timestamp);
    let limits = app.limits_of(&auth);
    let event = NewEvent { sender: auth.user_id, event_type, state_key, content, redacts: None };
    let sent = app.rooms.send_at(&room, event, None, at).await.inspect_err(|_| {
        if let Some(invited) = &invited {
            give_back_invite(limits, &room, invited);
        }
    })?;
    if joins {
        charge_joined(limits, &room);
        successors::carry_over(&app.users, &app.rooms, &room, &user_id).await;
    }
    if let Some(guest) = &guest {
        app.users.confirm_guest(&app.rooms, &room, guest).await?;
    }
    Ok(send_state_event::v3::Response::new(sent.event_id))
}

fn invites(content: &RawValue) -> bool {
    membership(content).is_some_and(|membership| membership == "invite")
}

fn membership(content: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Content {
        membership: Option<String>,
    }
    serde_json::from_str::<Content>(content.get()).ok()?.membership
}

/// A guest comes and goes, and does nothing with others.
fn check_guest_event(auth: &Requester, target: &str, content: &RawValue) -> Result<(), ApiError> {
    let is_own = target == auth.user_id.as_str()
        && membership(content).is_some_and(|name| ["join", "leave"].contains(&&*name));
    if is_own {
        Ok(())
    } else {
        Err(ApiError::guest_access_forbidden("Guests only join and leave"))
    }
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/redact/{eventId}/{txnId}`
/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidredacteventidtxnid>
///
/// With `with_rel_types` (MSC3912) up to 1,000 events that relate to the event are redacted too, before
/// the answer. They count as one message.
pub async fn redact(
    app: Arc<ClientApi>,
    auth: Requester,
    request: Extended<redact_event::v3::Request, RelTypes>,
) -> Result<redact_event::v3::Response, ApiError> {
    let Extended { request, more: RelTypes(rel_types) } = request;
    app.limits_of(&auth).messages.check(&auth.user_id)?;
    let room = app.rooms.known_room(&request.room_id).await?;
    let endpoint = format!("redact/{}/{}", request.room_id, request.event_id);
    let transaction = transaction(&auth, endpoint, &request.txn_id)?;
    let is_suspended = auth.standing == Standing::Suspended;
    if is_suspended && !app.rooms.is_sender(&room, &request.event_id, &auth.user_id).await? {
        return Err(suspended());
    }
    let target = (&*request.event_id, request.reason);
    let sent = if rel_types.is_empty() {
        app.rooms.redact(&room, auth.user_id, target, Some(transaction)).await?
    } else {
        let how = (transaction, Related { rel_types, of_others: !is_suspended });
        app.rooms.redact_with_related(&room, auth.user_id, target, how).await?
    };
    Ok(redact_event::v3::Response::new(sent.event_id))
}

/// In what ways the events relate to the target of a redaction that are redacted with it.
#[derive(Debug)]
pub struct RelTypes(Vec<String>);

impl More for RelTypes {
    fn read(request: &http::Request<&[u8]>) -> Result<Self, DeserializationError> {
        #[derive(Deserialize)]
        struct Body {
            #[serde(default)]
            with_rel_types: Vec<String>,
            /// As clients name it until the proposal is accepted.
            #[serde(default, rename = "org.matrix.msc3912.with_relations")]
            with_relations: Vec<String>,
        }
        let Body { with_rel_types: mut rel_types, with_relations } =
            serde_json::from_slice(request.body())?;
        rel_types.extend(with_relations);
        Ok(Self(rel_types))
    }
}

/// The time that an application service gives an event; nobody else may.
///
/// <https://spec.matrix.org/v1.19/application-service-api/#timestamp-massaging>
fn asserted_time(
    auth: &Requester,
    at: Option<MilliSecondsSinceUnixEpoch>,
) -> Option<MilliSecondsSinceUnixEpoch> {
    at.filter(|_| auth.appservice.is_some())
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

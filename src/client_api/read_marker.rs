//! Read markers: the fully read marker, and receipts along with it.

use std::sync::Arc;

use ruma::{EventId, OwnedEventId, RoomId, UserId, api::client::read_marker::set_read_marker};
use serde::{Deserialize, Serialize};
use serde_json::value::to_raw_value;

use super::ClientApi;
use crate::{
    ephemeral::{
        NewReceipt, Thread,
        reading::{joined_room, place_of, readable_place},
    },
    error::ApiError,
    http::Requester,
    rooms::Room,
    storage::{rows::TimelinePosition, schema::ephemeral::ReceiptKind},
    users::FULLY_READ,
};

/// The markers of one request.
#[derive(Debug, Default)]
pub(super) struct Markers {
    pub(super) fully_read: Option<OwnedEventId>,
    pub(super) read: Option<OwnedEventId>,
    pub(super) read_private: Option<OwnedEventId>,
}

/// `POST /_matrix/client/v3/rooms/{roomId}/read_markers`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidread_markers>
///
/// A marker that would move back is accepted and changes nothing.
pub(super) async fn set_read_marker(
    app: Arc<ClientApi>,
    auth: Requester,
    request: set_read_marker::v3::Request,
) -> Result<set_read_marker::v3::Response, ApiError> {
    let markers = Markers {
        fully_read: request.fully_read,
        read: request.read_receipt,
        read_private: request.private_read_receipt,
    };
    markers.set(&app, &auth.user_id, &request.room_id, Thread::none()).await?;
    Ok(set_read_marker::v3::Response::new())
}

impl Markers {
    /// Sets all of them; nothing when one of them may not be set.
    pub(super) async fn set(
        self,
        app: &ClientApi,
        user_id: &UserId,
        room_id: &RoomId,
        thread: Thread,
    ) -> Result<(), ApiError> {
        let rooms = &app.rooms;
        let room = joined_room(rooms, room_id, user_id).await?;
        app.presence.is_active(user_id);
        let mut receipts = Vec::new();
        let kinds = [(ReceiptKind::Read, self.read), (ReceiptKind::ReadPrivate, self.read_private)];
        for (kind, event_id) in kinds {
            let Some(event_id) = event_id else { continue };
            let place = readable_place(rooms, &room, user_id, (&event_id, &thread)).await?;
            let (thread, ts) = (thread.clone(), rooms.clock().now());
            receipts.push(NewReceipt { kind, thread, event_id, place, ts });
        }
        if let Some(event_id) = self.fully_read {
            let place = readable_place(rooms, &room, user_id, (&event_id, &thread)).await?;
            set_fully_read(app, user_id, &room, (&event_id, place)).await?;
        }
        app.receipts.set(room.nid, user_id, receipts).await?;
        Ok(())
    }
}

#[derive(Deserialize, Serialize)]
struct FullyRead {
    event_id: OwnedEventId,
}

async fn set_fully_read(
    app: &ClientApi,
    user_id: &UserId,
    room: &Room,
    (event_id, place): (&EventId, TimelinePosition),
) -> Result<(), ApiError> {
    let data = app.users.account_data();
    let old = data.get(user_id, Some(&room.id), FULLY_READ).await?;
    let old = old.and_then(|old| serde_json::from_str::<FullyRead>(old.get()).ok());
    if let Some(old) = old
        && place_of(&app.rooms, room, &old.event_id).await?.is_some_and(|old| old >= place)
    {
        return Ok(());
    }
    let content = FullyRead { event_id: event_id.to_owned() };
    let content = to_raw_value(&content).map_err(ApiError::internal)?;
    data.set_unchecked(user_id, Some(&room.id), FULLY_READ, &content).await?;
    Ok(())
}

//! Typing, receipts and presence as application services get them: as clients do, with the room's
//! id where it is one room's.
//!
//! <https://spec.matrix.org/v1.19/application-service-api/#pushing-ephemeral-data>

use std::collections::BTreeSet;

use kv::{Position, Reader};
use ruma::OwnedUserId;
use serde_json::{Value, json};

use super::Parts;
use crate::{
    error::ApiError,
    id::RoomNid,
    storage::schema::ephemeral::{RECEIPTS_BY_POSITION, ReceiptPositionKey},
};

/// Who types in a room now.
pub(super) fn typing(
    parts: &Parts,
    reader: &Reader<'_>,
    room: RoomNid,
) -> Result<Option<Value>, ApiError> {
    let Some(room) = parts.rooms.room_by_nid(reader, room)? else { return Ok(None) };
    let mut user_ids = Vec::new();
    for user_id in parts.typing.users(room.nid) {
        // Who left or was banned while typing is in the list until it runs out.
        if parts.rooms.is_joined(reader, &room, &user_id)? {
            user_ids.push(user_id);
        }
    }
    let content = json!({ "user_ids": user_ids });
    Ok(Some(json!({ "type": "m.typing", "room_id": room.id, "content": content })))
}

/// How these users are now.
pub(super) async fn presence(
    parts: &Parts,
    users: &BTreeSet<OwnedUserId>,
) -> Result<Vec<Value>, ApiError> {
    let mut events = Vec::new();
    for user_id in users {
        let person = parts.presence.get(user_id).await?;
        events.push(serde_json::to_value(person.event()).map_err(ApiError::internal)?);
    }
    Ok(events)
}

/// The receipt that was written at a position; `None` once a newer one has replaced it.
pub(super) fn receipt(
    parts: &Parts,
    reader: &Reader<'_>,
    room: RoomNid,
    position: Position,
) -> Result<Option<Value>, ApiError> {
    let key = ReceiptPositionKey { room, position };
    let Some(receipt) = reader.get(&RECEIPTS_BY_POSITION, &key)? else { return Ok(None) };
    let Some(room) = parts.rooms.room_by_nid(reader, room)? else { return Ok(None) };
    let mut data = json!({ "ts": receipt.ts });
    if !receipt.thread.is_empty() {
        data["thread_id"] = json!(receipt.thread);
    }
    let user = json!({ receipt.user_id: data });
    let kind = json!({ receipt.kind.name(): user });
    let content = json!({ receipt.event_id.as_str(): kind });
    Ok(Some(json!({ "type": "m.receipt", "room_id": room.id, "content": content })))
}

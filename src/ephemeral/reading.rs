//! What a user may mark as read: events of rooms that the user is in and may see, and of the
//! thread that is named.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#threaded-read-receipts>

use kv::Reader;
use ruma::{EventId, OwnedEventId, RoomId, UserId};
use serde::Deserialize;

use super::Thread;
use crate::{
    error::ApiError,
    rooms::{Room, Rooms, StoredEvent, visibility::Viewer},
    storage::rows::TimelinePosition,
};

/// How far relations are followed up to the thread.
const HOPS_MAX: usize = 3;

/// The room, when the user has joined it.
///
/// # Errors
/// 403 else, whether there is such a room or not.
pub async fn joined_room(
    rooms: &Rooms,
    room_id: &RoomId,
    user_id: &UserId,
) -> Result<Room, ApiError> {
    let forbidden = || ApiError::forbidden("You are not in this room");
    let room = rooms.room(room_id).await?.ok_or_else(forbidden)?;
    let (all, this, user_id) = (rooms.clone(), room.clone(), user_id.to_owned());
    let is_joined =
        rooms.store().read(move |reader| all.is_joined(reader, &this, &user_id)).await?;
    if is_joined { Ok(room) } else { Err(forbidden()) }
}

/// The place of an event that the user may mark as read.
///
/// # Errors
/// 404 for an event that the user may not see, as for one that is not there; 400 for one that is
/// not of the thread.
pub async fn readable_place(
    rooms: &Rooms,
    room: &Room,
    user_id: &UserId,
    (event_id, thread): (&EventId, &Thread),
) -> Result<TimelinePosition, ApiError> {
    let (all, room, user_id) = (rooms.clone(), room.clone(), user_id.to_owned());
    let (event_id, thread) = (event_id.to_owned(), thread.clone());
    rooms
        .store()
        .read(move |reader| {
            let not_found = || ApiError::not_found("There is no such event in this room");
            let event = all.event_by_id(reader, &room, &event_id)?.ok_or_else(not_found)?;
            if !Viewer::new(&all, reader, &room, &user_id)?.may_see(reader, &event)? {
                return Err(not_found());
            }
            let (thread_root, top) = thread_of(&all, reader, &room, &event)?;
            // What relates to the root of a thread is of the main timeline, and shown in the thread.
            let is_of_root = top.is_some_and(|top| thread.holds(&top, None));
            if !thread.holds(&event_id, thread_root.as_deref()) && !is_of_root {
                return Err(ApiError::invalid_param("The event is not of this thread"));
            }
            Ok(event.record.position)
        })
        .await
}

/// The place of an event; `None` when it is not there.
pub async fn place_of(
    rooms: &Rooms,
    room: &Room,
    event_id: &EventId,
) -> Result<Option<TimelinePosition>, ApiError> {
    let (all, room, event_id) = (rooms.clone(), room.clone(), event_id.to_owned());
    rooms
        .store()
        .read(move |reader| {
            let event = all.event_by_id(reader, &room, &event_id)?;
            Ok(event.map(|event| event.record.position))
        })
        .await
}

/// The root of the thread that an event is in; or, if it is in none, what it relates to in the end.
fn thread_of(
    rooms: &Rooms,
    reader: &Reader<'_>,
    room: &Room,
    event: &StoredEvent,
) -> Result<(Option<OwnedEventId>, Option<OwnedEventId>), ApiError> {
    let (mut relation, mut top) = (relation_of(event), None);
    for _ in 0..HOPS_MAX {
        let Some(Relation { rel_type, event_id: Some(parent) }) = relation else { break };
        if rel_type.as_deref() == Some("m.thread") {
            return Ok((Some(parent), None));
        }
        let event = rooms.event_by_id(reader, room, &parent)?;
        relation = event.and_then(|event| relation_of(&event));
        top = Some(parent);
    }
    Ok((None, top))
}

#[derive(Deserialize)]
struct Relation {
    rel_type: Option<String>,
    event_id: Option<OwnedEventId>,
}

fn relation_of(event: &StoredEvent) -> Option<Relation> {
    #[derive(Deserialize)]
    struct Content {
        #[serde(rename = "m.relates_to")]
        relates_to: Option<Relation>,
    }
    serde_json::from_str::<Content>(event.pdu.content().get()).ok()?.relates_to
}

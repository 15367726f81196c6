//! What the deprecated ways to follow rooms need: the events since a place, over all rooms of a
//! reader, and an event by nothing but its id.
//!
//! Both look at each room of the reader, which `/sync` does not: they are kept for old clients and
//! for peeking into one room.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3events>

use std::{
    collections::HashSet,
    ops::{Bound, ControlFlow},
};

use kv::{Direction, Reader, Topic};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, UserId};
use serde_json::value::RawValue;

use super::{
    Room, Rooms,
    filter::Filter,
    history::{Asker, no_such_event, visible_event},
    render::client_event,
    timeline::{PageRequest, PaginationToken, page},
    visibility::{Standing, Viewer, not_a_member},
};
use crate::{
    error::ApiError,
    id::{RoomNid, UserNid},
    storage::{
        rows::{Membership, MembershipRow, TimelinePosition},
        schema::rooms::MEMBERSHIPS,
        topic,
    },
};

/// How many events are told at once.
const EVENTS_MAX: usize = 100;

/// Events since a place that are asked for.
#[derive(Clone, Debug)]
pub struct EventsRequest {
    /// The only room; by default all that the reader has joined.
    pub room_id: Option<OwnedRoomId>,
    /// After this place; by default after now.
    pub from: Option<PaginationToken>,
    /// Whom the reader ignores.
    pub ignored: HashSet<OwnedUserId>,
}

/// Events since a place.
#[derive(Debug)]
pub struct Events {
    /// The place.
    pub start: PaginationToken,
    /// Where to go on.
    pub end: PaginationToken,
    /// The events, the oldest first.
    pub chunk: Vec<Box<RawValue>>,
    /// What to watch for more.
    pub topics: Vec<Topic>,
    /// What was known when it was read.
    pub at: kv::Position,
}

/// The events since a place.
///
/// # Errors
/// 403 for a room that the reader may not read.
pub async fn events_since(
    rooms: &Rooms,
    asker: Asker,
    request: EventsRequest,
) -> Result<Events, ApiError> {
    rooms.read(move |rooms, reader| read_events(rooms, reader, &asker, &request)).await
}

fn read_events(
    rooms: &Rooms,
    reader: &Reader<'_>,
    asker: &Asker,
    request: &EventsRequest,
) -> Result<Events, ApiError> {
    let now = PaginationToken::live(reader.position());
    let start = request.from.unwrap_or(now);
    let ignored: HashSet<UserNid> =
        request.ignored.iter().map(|user_id| rooms.interner().user(user_id)).collect();
    let viewers = viewers(rooms, reader, asker, request.room_id.as_ref())?;
    let user = rooms.interner().user(&asker.user_id);
    let mut topics = vec![topic::user(topic::USER_MEMBERSHIPS, user)];
    let mut found = Vec::new();
    let mut bound = Bound::Unbounded;
    for mut viewer in viewers {
        topics.push(topic::room(topic::ROOM_EVENTS, viewer.room().nid));
        let wanted = PageRequest {
            from: start,
            to: Some(now),
            direction: Direction::Forward,
            limit: EVENTS_MAX,
        };
        let page = page(reader, &mut viewer, &Filter::default(), &wanted)?;
        if let Some(end) = page.end.filter(|_| page.has_more) {
            bound = earlier(bound, end.upper());
        }
        for (position, event) in page.events {
            if !ignored.contains(&event.record.sender) {
                let event = client_event(reader, &mut viewer, &event, &asker.form(rooms))?;
                found.push((position, event));
            }
        }
    }
    found.sort_by_key(|(position, _)| *position);
    if let Some((last, _)) = found.get(EVENTS_MAX - 1).filter(|_| found.len() > EVENTS_MAX) {
        bound = earlier(bound, Bound::Included(*last));
    }
    let end = match bound {
        Bound::Included(last) | Bound::Excluded(last) => {
            found.retain(|(position, _)| *position <= last);
            PaginationToken::after(last)
        }
        Bound::Unbounded => now,
    };
    let chunk = found.into_iter().map(|(_, event)| event).collect();
    Ok(Events { start, end, chunk, topics, at: reader.position() })
}

fn earlier(
    one: Bound<TimelinePosition>,
    other: Bound<TimelinePosition>,
) -> Bound<TimelinePosition> {
    match (one, other) {
        (Bound::Unbounded, bound) | (bound, Bound::Unbounded) => bound,
        (
            Bound::Included(one) | Bound::Excluded(one),
            Bound::Included(other) | Bound::Excluded(other),
        ) => Bound::Included(one.min(other)),
    }
}

/// The rooms that are followed: one that may be read, or all that the reader has joined.
fn viewers(
    rooms: &Rooms,
    reader: &Reader<'_>,
    asker: &Asker,
    room_id: Option<&OwnedRoomId>,
) -> Result<Vec<Viewer>, ApiError> {
    if let Some(room_id) = room_id {
        let mut viewer = asker.viewer(rooms, reader, room_id)?.ok_or_else(not_a_member)?;
        if viewer.standing(reader)? == Standing::Stranger {
            return Err(not_a_member());
        }
        return Ok(vec![viewer]);
    }
    let mut viewers = Vec::new();
    for (nid, row) in memberships(reader, &asker.user_id)? {
        if row.membership == Membership::Join
            && let Some(room) = rooms.room_by_nid(reader, nid)?
        {
            viewers.push(Viewer::new(rooms, reader, &room, &asker.user_id)?);
        }
    }
    Ok(viewers)
}

fn memberships(
    reader: &Reader<'_>,
    user_id: &UserId,
) -> Result<Vec<(RoomNid, MembershipRow)>, kv::Error> {
    let mut rows = Vec::new();
    let range = MEMBERSHIPS.prefix(&user_id.to_string());
    reader.for_each(&MEMBERSHIPS, &range, Direction::Forward, |key, row| {
        rows.push((key.room, row));
        ControlFlow::Continue(())
    })?;
    Ok(rows)
}

/// The rooms of a user with their membership, but those that were forgotten.
pub async fn rooms_of(
    rooms: &Rooms,
    user_id: OwnedUserId,
) -> Result<Vec<(Room, MembershipRow)>, ApiError> {
    rooms
        .read(move |rooms, reader| {
            let mut found = Vec::new();
            for (nid, row) in memberships(reader, &user_id)? {
                let room = rooms.room_by_nid(reader, nid)?;
                found.extend(room.filter(|_| !row.forgotten).map(|room| (room, row)));
            }
            Ok(found)
        })
        .await
}

/// An event by its id, of whichever room of the reader has it. An id alone opens no other room.
///
/// # Errors
/// 404 when none has it, or the reader may not see it.
pub async fn event_anywhere(
    rooms: &Rooms,
    asker: Asker,
    event_id: OwnedEventId,
) -> Result<Box<RawValue>, ApiError> {
    rooms
        .read(move |rooms, reader| {
            for (nid, _) in memberships(reader, &asker.user_id)? {
                let Some(room) = rooms.room_by_nid(reader, nid)? else { continue };
                if rooms.event_nid(reader, &room, &event_id)?.is_some() {
                    let mut viewer = Viewer::new(rooms, reader, &room, &asker.user_id)?;
                    let event = visible_event(reader, &mut viewer, &event_id)?;
                    return client_event(reader, &mut viewer, &event, &asker.form(rooms));
                }
            }
            Err(no_such_event())
        })
        .await
}

/// The reader's own member event in a room: an invite is shown to whom it invites.
pub async fn own_member_event(
    rooms: &Rooms,
    asker: Asker,
    room: Room,
) -> Result<Option<Box<RawValue>>, ApiError> {
    rooms
        .read(move |rooms, reader| {
            let mut viewer = Viewer::new(rooms, reader, &room, &asker.user_id)?;
            let Some(row) = viewer.membership() else { return Ok(None) };
            let Some(event) = rooms.event(reader, &room, row.event)? else { return Ok(None) };
            let form = asker.form(rooms).of_state();
            client_event(reader, &mut viewer, &event, &form).map(Some)
        })
        .await
}

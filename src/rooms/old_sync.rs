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
    sync::Arc,
};

use kv::{Direction, Reader, Topic};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, UserId};
use serde_json::value::RawValue;

use super::{
    Room, Rooms, StoredEvent,
    filter::Filter,
    history::{Asker, no_such_event, visible_event},
    render::client_event,
    timeline::{PageRequest, PaginationToken, is_empty, page},
    visibility::{Standing, Viewer, not_a_member},
};
use crate::{
    error::ApiError,
    id::{RoomNid, UserNid},
    storage::{
        rows::{Membership, MembershipRow, TimelinePosition},
        schema::rooms::{MEMBERSHIPS, TIMELINE, TimelineKey},
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

/// The rooms one after the other, each up to where the page can still reach: a hundred events of the
/// first room leave of the others what came before the last of them.
fn read_events(
    rooms: &Rooms,
    reader: &Reader<'_>,
    asker: &Asker,
    request: &EventsRequest,
) -> Result<Events, ApiError> {
    let start = request.from.unwrap_or(PaginationToken::live(reader.position()));
    let ignored: HashSet<UserNid> =
        request.ignored.iter().map(|user_id| rooms.interner().user(user_id)).collect();
    let user = rooms.interner().user(&asker.user_id);
    let mut topics = vec![topic::user(topic::USER_MEMBERSHIPS, user)];
    let mut viewers = Vec::new();
    let mut found: Vec<(TimelinePosition, usize, Arc<StoredEvent>)> = Vec::new();
    let mut end = TimelinePosition::live(reader.position());
    for room in followed(rooms, reader, asker, request.room_id.as_ref())? {
        topics.push(topic::room(topic::ROOM_EVENTS, room.nid));
        let wanted = PageRequest {
            from: start,
            to: Some(PaginationToken::after(end)),
            direction: Direction::Forward,
            limit: EVENTS_MAX,
        };
        // Most rooms have none: a reader's standing in them need not be looked up.
        if is_quiet(reader, room.nid, &wanted)? {
            continue;
        }
        let mut viewer = Viewer::new(rooms, reader, &room, &asker.user_id)?;
        let page = page(reader, &mut viewer, &Filter::default(), &wanted)?;
        if let Some(last) = page.end.filter(|_| page.has_more) {
            end = end.min(last.position());
        }
        let events =
            page.events.into_iter().filter(|(_, event)| !ignored.contains(&event.record.sender));
        found.extend(events.map(|(position, event)| (position, viewers.len(), event)));
        viewers.push(viewer);
        found.sort_by_key(|(position, ..)| *position);
        found.truncate(EVENTS_MAX);
        if let Some((last, ..)) = found.get(EVENTS_MAX - 1) {
            end = end.min(*last);
        }
    }
    found.retain(|(position, ..)| *position <= end);
    let form = asker.form(rooms);
    let chunk = found
        .iter()
        .map(|(_, viewer, event)| client_event(reader, &mut viewers[*viewer], event, &form))
        .collect::<Result<_, _>>()?;
    let end = PaginationToken::after(end);
    Ok(Events { start, end, chunk, topics, at: reader.position() })
}

/// Whether a room has nothing in a range of its timeline: one seek.
fn is_quiet(reader: &Reader<'_>, room: RoomNid, wanted: &PageRequest) -> Result<bool, kv::Error> {
    let key = |position| TimelineKey { room, position };
    let to = wanted.to.map_or(Bound::Included(TimelinePosition::END), PaginationToken::upper);
    let (from, to) = (wanted.from.lower(), to);
    if is_empty(from, to) {
        return Ok(true);
    }
    let (from, to) = (from.map(key), to.map(key));
    let range = TIMELINE.range(from.as_ref(), to.as_ref());
    Ok(reader.scan(&TIMELINE, &range, Direction::Forward, 1)?.is_empty())
}

/// The rooms that are followed: one that may be read, or all that the reader has joined.
fn followed(
    rooms: &Rooms,
    reader: &Reader<'_>,
    asker: &Asker,
    room_id: Option<&OwnedRoomId>,
) -> Result<Vec<Room>, ApiError> {
    if let Some(room_id) = room_id {
        let mut viewer = asker.viewer(rooms, reader, room_id)?.ok_or_else(not_a_member)?;
        if viewer.standing(reader)? == Standing::Stranger {
            return Err(not_a_member());
        }
        return Ok(vec![viewer.room().clone()]);
    }
    let mut found = Vec::new();
    for (nid, row) in memberships(reader, &asker.user_id)? {
        if row.membership == Membership::Join {
            found.extend(rooms.room_by_nid(reader, nid)?);
        }
    }
    Ok(found)
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

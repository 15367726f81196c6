//! Reading the history of a room: pages, the surroundings of an event, single events.
//!
//! Each function is one read step on one view of the store. A room that is not known here answers
//! as one that the reader is not in.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#getting-events-for-a-room>

#[cfg(test)]
mod tests;

use std::{collections::HashSet, sync::Arc};

use kv::{Direction, Reader};
use ruma::{
    OwnedDeviceId, OwnedEventId, OwnedRoomId, OwnedUserId, api::client::filter::RoomEventFilter,
};
use serde_json::value::RawValue;

use super::{
    Rooms, StoredEvent,
    filter::{Filter, RelatedBy},
    render::{Form, client_event},
    state,
    state_view::{Part, events_of_state},
    timeline::{PageRequest, PaginationToken, last_entry, page},
    visibility::{Standing, Viewer, not_a_member},
};
use crate::{
    error::ApiError,
    storage::rows::{Membership, TimelinePosition},
};

/// Who reads: the user, and the device that their transaction ids are told to.
#[derive(Clone, Debug)]
pub struct Asker {
    /// The user.
    pub user_id: OwnedUserId,
    /// The device.
    pub device_id: Option<OwnedDeviceId>,
}

impl Asker {
    /// The asker as a reader of a room; `None` when the room is not known here.
    pub fn viewer(
        &self,
        rooms: &Rooms,
        reader: &Reader<'_>,
        room_id: &ruma::RoomId,
    ) -> Result<Option<Viewer>, ApiError> {
        let room = rooms.room_by_nid(reader, rooms.interner().room(room_id))?;
        match room.filter(|room| room.id == room_id) {
            Some(room) => Viewer::new(rooms, reader, &room, &self.user_id).map(Some),
            None => Ok(None),
        }
    }

    /// The form that the asker gets events in.
    pub fn form(&self, rooms: &Rooms) -> Form {
        Form::new(rooms.clock().now(), self.device_id.clone())
    }
}

/// A page of a room's history that is asked for.
#[derive(Clone, Debug)]
pub struct MessagesRequest {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Where to begin; by default at the end that the direction leads away from.
    pub from: Option<PaginationToken>,
    /// Where to stop.
    pub to: Option<PaginationToken>,
    /// Which way.
    pub direction: Direction,
    /// How many events at most.
    pub limit: usize,
    /// Which events.
    pub filter: RoomEventFilter,
    /// Which of them, by what relates to them.
    pub related: RelatedBy,
}

/// A page of a room's history.
#[derive(Debug)]
pub struct Messages {
    /// Where it begins.
    pub start: PaginationToken,
    /// Where to go on; `None` when there is nothing more.
    pub end: Option<PaginationToken>,
    /// The events.
    pub chunk: Vec<Box<RawValue>>,
    /// With lazy loading: the members who sent them.
    pub state: Vec<Box<RawValue>>,
}

/// A page of a room's history.
///
/// # Errors
/// 403 when the user is not, and was not, in the room.
pub async fn messages(
    rooms: &Rooms,
    asker: Asker,
    request: MessagesRequest,
) -> Result<Messages, ApiError> {
    let filter = Filter::compile(&request.filter, rooms.interner())?
        .with_related(&request.related, rooms.interner())?;
    rooms
        .read(move |rooms, reader| {
            let viewer = asker.viewer(rooms, reader, &request.room_id)?;
            let mut viewer = viewer.ok_or_else(not_a_member)?;
            let form = asker.form(rooms);
            read_messages(reader, &mut viewer, &filter, &request, &form)
        })
        .await
}

fn read_messages(
    reader: &Reader<'_>,
    viewer: &mut Viewer,
    filter: &Filter,
    request: &MessagesRequest,
    form: &Form,
) -> Result<Messages, ApiError> {
    let standing = viewer.standing(reader)?;
    if standing == Standing::Stranger {
        return Err(not_a_member());
    }
    let start = match request.from {
        Some(from) => from,
        None => first_place(reader, viewer, standing, request.direction)?,
    };
    if !filter.admits_room(&request.room_id) {
        return Ok(Messages { start, end: None, chunk: Vec::new(), state: Vec::new() });
    }
    let page_request = PageRequest {
        from: start,
        to: request.to,
        direction: request.direction,
        limit: request.limit,
    };
    let page = page(reader, viewer, filter, &page_request)?;
    let events: Vec<_> = page.events.into_iter().map(|(_, event)| event).collect();
    let state = if filter.lazy_loads_members() {
        members_of_senders(reader, viewer, &events, form)?
    } else {
        Vec::new()
    };
    // Who goes forward may come back for what is sent later; backwards, the beginning is the end.
    let goes_on = page.has_more || request.direction == Direction::Forward;
    Ok(Messages {
        start,
        end: page.end.filter(|_| goes_on),
        chunk: render(reader, viewer, &events, form)?,
        state,
    })
}

/// Where a page begins that names no beginning.
fn first_place(
    reader: &Reader<'_>,
    viewer: &mut Viewer,
    standing: Standing,
    direction: Direction,
) -> Result<PaginationToken, ApiError> {
    if direction == Direction::Forward {
        return Ok(PaginationToken::START);
    }
    // Nothing after the leave is shown to whoever left, unless they are invited again.
    let invited = viewer.membership().is_some_and(|row| row.membership == Membership::Invite);
    if let Standing::Departed(departure) = standing
        && !invited
        && !viewer.is_world_readable(reader)?
    {
        return Ok(PaginationToken::after(departure.position));
    }
    let last = last_entry(reader, viewer.room().nid, std::ops::Bound::Unbounded)?;
    Ok(last.map_or(PaginationToken::START, |(position, _)| PaginationToken::after(position)))
}

/// The surroundings of an event that are asked for.
#[derive(Clone, Debug)]
pub struct ContextRequest {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The event.
    pub event_id: OwnedEventId,
    /// How many events around it at most.
    pub limit: usize,
    /// Which of them.
    pub filter: RoomEventFilter,
    /// Which of them, by what relates to them.
    pub related: RelatedBy,
}

/// An event and its surroundings.
#[derive(Debug)]
pub struct Context {
    /// Where to go on backwards.
    pub start: PaginationToken,
    /// Where to go on forwards.
    pub end: PaginationToken,
    /// What came before it, the latest first.
    pub before: Vec<Box<RawValue>>,
    /// The event.
    pub event: Box<RawValue>,
    /// What came after it.
    pub after: Vec<Box<RawValue>>,
    /// The state at the last of them.
    pub state: Vec<Box<RawValue>>,
}

/// An event and its surroundings.
///
/// # Errors
/// 404 when there is no such event in the room or the user may not see it.
pub async fn context(
    rooms: &Rooms,
    asker: Asker,
    request: ContextRequest,
) -> Result<Context, ApiError> {
    let filter = Filter::compile(&request.filter, rooms.interner())?
        .with_related(&request.related, rooms.interner())?;
    rooms
        .read(move |rooms, reader| {
            let viewer = asker.viewer(rooms, reader, &request.room_id)?;
            let mut viewer = viewer.ok_or_else(no_such_event)?;
            let event = visible_event(reader, &mut viewer, &request.event_id)?;
            // An event without a place has no surroundings.
            if event.record.position == TimelinePosition::START {
                return Err(no_such_event());
            }
            let form = asker.form(rooms);
            read_context(reader, &mut viewer, (&filter, request.limit), &event, &form)
        })
        .await
}

fn read_context(
    reader: &Reader<'_>,
    viewer: &mut Viewer,
    (filter, limit): (&Filter, usize),
    event: &Arc<StoredEvent>,
    form: &Form,
) -> Result<Context, ApiError> {
    let position = event.record.position;
    let mut side = |from, direction, limit| {
        let request = PageRequest { from, to: None, direction, limit };
        page(reader, viewer, filter, &request)
    };
    let from = PaginationToken::before(position);
    let before = side(from, Direction::Backward, limit / 2)?;
    let start = before.end.unwrap_or(from);
    let from = PaginationToken::after(position);
    let after = side(from, Direction::Forward, limit - limit / 2)?;
    let end = after.end.unwrap_or(from);

    let events = |page: super::timeline::Page| {
        page.events.into_iter().map(|(_, event)| event).collect::<Vec<_>>()
    };
    let (before, after) = (events(before), events(after));
    let state = state_around(reader, viewer, filter, (&before, event, &after), form)?;
    Ok(Context {
        start,
        end,
        before: render(reader, viewer, &before, form)?,
        event: client_event(reader, viewer, event, form)?,
        after: render(reader, viewer, &after, form)?,
        state,
    })
}

type Around<'a> = (&'a [Arc<StoredEvent>], &'a Arc<StoredEvent>, &'a [Arc<StoredEvent>]);

/// The state at the last event; with lazy loading only of the members who sent something.
fn state_around(
    reader: &Reader<'_>,
    viewer: &mut Viewer,
    filter: &Filter,
    (before, event, after): Around<'_>,
    form: &Form,
) -> Result<Vec<Box<RawValue>>, ApiError> {
    let rooms = viewer.rooms().clone();
    let room = viewer.room().clone();
    let last = after.last().unwrap_or(event);
    let lazy = filter.lazy_loads_members();
    let part = if lazy { Part::Others } else { Part::All };
    // Who was never in the room, as one who is invited, sees no more of its state than of its events.
    let is_stranger = viewer.standing(reader)? == Standing::Stranger;
    let mut state = Vec::new();
    for nid in events_of_state(&rooms, reader, &room, last.record.state_after, &part)? {
        if let Some(event) = rooms.event(reader, &room, nid)?
            && filter.admits(&event)
            && (!is_stranger || viewer.may_see(reader, &event)?)
        {
            state.push(client_event(reader, viewer, &event, &form.clone().of_state())?);
        }
    }
    if lazy {
        let all: Vec<_> = before.iter().rev().chain([event]).chain(after).cloned().collect();
        state.extend(members_of_senders(reader, viewer, &all, form)?);
    }
    Ok(state)
}

/// One event of a room.
///
/// # Errors
/// 404 when there is no such event in the room or the user may not see it.
pub async fn event(
    rooms: &Rooms,
    asker: Asker,
    room_id: OwnedRoomId,
    event_id: OwnedEventId,
) -> Result<Box<RawValue>, ApiError> {
    rooms
        .read(move |rooms, reader| {
            let viewer = asker.viewer(rooms, reader, &room_id)?;
            let mut viewer = viewer.ok_or_else(no_such_event)?;
            let event = visible_event(reader, &mut viewer, &event_id)?;
            client_event(reader, &mut viewer, &event, &asker.form(rooms))
        })
        .await
}

/// An event that the reader may see.
pub fn visible_event(
    reader: &Reader<'_>,
    viewer: &mut Viewer,
    event_id: &ruma::EventId,
) -> Result<Arc<StoredEvent>, ApiError> {
    let event = viewer.rooms().event_by_id(reader, viewer.room(), event_id)?;
    let event = event.ok_or_else(no_such_event)?;
    if viewer.may_see(reader, &event)? { Ok(event) } else { Err(no_such_event()) }
}

/// The answer for an event that is not there, or must seem so.
pub fn no_such_event() -> ApiError {
    ApiError::not_found("Event not found")
}

/// Events in the form the reader gets them.
pub fn render(
    reader: &Reader<'_>,
    viewer: &mut Viewer,
    events: &[Arc<StoredEvent>],
    form: &Form,
) -> Result<Vec<Box<RawValue>>, ApiError> {
    events.iter().map(|event| client_event(reader, viewer, event, form)).collect()
}

/// The member events of those who sent events: each as of the sender's first event in the list.
pub fn members_of_senders(
    reader: &Reader<'_>,
    viewer: &mut Viewer,
    events: &[Arc<StoredEvent>],
    form: &Form,
) -> Result<Vec<Box<RawValue>>, ApiError> {
    let rooms = viewer.rooms().clone();
    let room = viewer.room().clone();
    let form = form.clone().of_state();
    let mut senders = HashSet::new();
    let mut members = Vec::new();
    for event in events {
        if !senders.insert(event.record.sender) {
            continue;
        }
        let key = rooms.interner().state_key("m.room.member", event.pdu.sender().as_str());
        if let Some(member) = state::lookup(reader, room.nid, event.record.state_after, key)?
            && let Some(member) = rooms.event(reader, &room, member)?
        {
            members.push(client_event(reader, viewer, &member, &form)?);
        }
    }
    Ok(members)
}

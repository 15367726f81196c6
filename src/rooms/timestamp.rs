//! The event that is closest to a time.
//!
//! Events carry the time that their servers say they were sent at: nearly in the order of the
//! timeline, but nobody can hold a server to the truth. So the place where the time is passed is
//! found by bisection (some twenty probes; an index would cost every message a row), and around it
//! the closest event is taken. An event whose time lies far from those around it is found by these.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidtimestamp_to_event>

use std::{ops::Bound, sync::Arc};

use kv::{Direction, Position, Reader};
use ruma::{MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId};

use super::{
    Rooms, StoredEvent,
    history::Asker,
    timeline::{self, EXAMINED_MAX},
    visibility::{Standing, Viewer, not_a_member},
};
use crate::{
    error::ApiError,
    storage::{
        rows::{TimelineEntry, TimelinePosition},
        schema::rooms::{EVENT_RECORDS, EventKey},
    },
};

/// How many events on the other side of the place are looked at, and how many more once one is
/// found.
const AROUND: usize = 50;

/// How many entries are read at once.
const BATCH: usize = 100;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct TimestampRequest {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The time.
    pub time: MilliSecondsSinceUnixEpoch,
    /// Whether the event is wanted from then on or up to then.
    pub direction: Direction,
}

/// The event that is closest to a time, of those the asker may see.
///
/// # Errors
/// 403 when the user is not, and was not, in the room; 404 when there is no such event.
pub async fn event_at(
    rooms: &Rooms,
    asker: Asker,
    request: TimestampRequest,
) -> Result<(OwnedEventId, MilliSecondsSinceUnixEpoch), ApiError> {
    rooms
        .read(move |rooms, reader| {
            let viewer = asker.viewer(rooms, reader, &request.room_id)?;
            let mut viewer = viewer.ok_or_else(not_a_member)?;
            if viewer.standing(reader)? == Standing::Stranger {
                return Err(not_a_member());
            }
            let found = closest(reader, &mut viewer, &request)?;
            let found = found.ok_or_else(|| {
                ApiError::not_found("There is no event in this direction from that time")
            })?;
            Ok((found.pdu.event_id().to_owned(), found.pdu.origin_server_ts()))
        })
        .await
}

fn closest(
    reader: &Reader<'_>,
    viewer: &mut Viewer,
    request: &TimestampRequest,
) -> Result<Option<Arc<StoredEvent>>, ApiError> {
    let place = place_of(reader, viewer, request.time)?;
    let room = viewer.room().nid;
    let direction = request.direction;
    // What is on the other side though its time is on this one.
    let (back, range) = match direction {
        Direction::Forward => (Direction::Backward, (Bound::Unbounded, Bound::Excluded(place))),
        Direction::Backward => (Direction::Forward, (Bound::Included(place), Bound::Unbounded)),
    };
    let behind = timeline::entries(reader, room, range, back, AROUND)?;
    let mut best = None;
    for (_, entry) in behind {
        consider(reader, viewer, request, (&entry, &mut best))?;
    }
    let mut range = match direction {
        Direction::Forward => (Bound::Included(place), Bound::Unbounded),
        Direction::Backward => (Bound::Unbounded, Bound::Excluded(place)),
    };
    let (mut examined, mut more) = (0, AROUND);
    while examined < EXAMINED_MAX {
        let entries = timeline::entries(reader, room, range, direction, BATCH)?;
        let Some((last, _)) = entries.last() else { break };
        match direction {
            Direction::Forward => range.0 = Bound::Excluded(*last),
            Direction::Backward => range.1 = Bound::Excluded(*last),
        }
        for (_, entry) in entries {
            examined += 1;
            consider(reader, viewer, request, (&entry, &mut best))?;
            if best.is_some() {
                more -= 1;
                if more == 0 {
                    return Ok(best);
                }
            }
        }
    }
    Ok(best)
}

/// Keeps an event when it is on the right side of the time and closer than the best so far.
fn consider(
    reader: &Reader<'_>,
    viewer: &mut Viewer,
    request: &TimestampRequest,
    (entry, best): (&TimelineEntry, &mut Option<Arc<StoredEvent>>),
) -> Result<(), ApiError> {
    let (rooms, room) = (viewer.rooms().clone(), viewer.room().clone());
    let Some(event) = rooms.event(reader, &room, entry.event)? else {
        return Ok(());
    };
    let time = event.pdu.origin_server_ts();
    let is_closer = match request.direction {
        Direction::Forward => {
            time >= request.time
                && best.as_ref().is_none_or(|best| time < best.pdu.origin_server_ts())
        }
        Direction::Backward => {
            time <= request.time
                && best.as_ref().is_none_or(|best| time > best.pdu.origin_server_ts())
        }
    };
    if is_closer
        && !viewer.ignores(reader, event.record.sender)?
        && viewer.may_see(reader, &event)?
    {
        *best = Some(event);
    }
    Ok(())
}

/// The place of the first event that was sent at a time or later, by bisection; the end when there
/// is none.
///
/// The middle of two positions is nothing but a place to look at: what is there decides, so the
/// numbers need not mean anything.
fn place_of(
    reader: &Reader<'_>,
    viewer: &Viewer,
    time: MilliSecondsSinceUnixEpoch,
) -> Result<TimelinePosition, ApiError> {
    let room = viewer.room().nid;
    let first = |from, to| {
        let found = timeline::entries(reader, room, (from, to), Direction::Forward, 1)?.pop();
        Ok::<_, ApiError>(found)
    };
    let is_before = |entry: &TimelineEntry| {
        let record = reader.get(&EVENT_RECORDS, &EventKey { room, event: entry.event })?;
        Ok::<_, ApiError>(record.is_some_and(|record| record.origin_server_ts < time.0.into()))
    };
    // Live events, unless the first of them is already too late.
    let middle = TimelinePosition::live(Position::ZERO);
    let line = match first(Bound::Included(middle), Bound::Unbounded)? {
        Some((_, entry)) if is_before(&entry)? => 1,
        _ => 0,
    };
    let at = |position| TimelinePosition { line, position: Position::from_u64(position) };
    let last = timeline::last_entry(reader, room, Bound::Included(at(u64::MAX)))?;
    let Some((last, _)) = last.filter(|(last, _)| last.line == line) else {
        return Ok(middle);
    };
    // Everything below `low` is before the time; nothing between `high` and the end is known not
    // to be at or after it.
    let (mut low, mut high) = (0, last.position.as_u64() + 1);
    while low < high {
        let probe = low + (high - low) / 2;
        let range = (Bound::Included(at(probe)), Bound::Excluded(at(high)));
        match first(range.0, range.1)? {
            Some((found, entry)) if is_before(&entry)? => low = found.position.as_u64() + 1,
            _ => high = probe,
        }
    }
    Ok(at(low))
}

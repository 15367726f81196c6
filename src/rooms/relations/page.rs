//! Pages of the events that relate to an event, directly or over others.
//!
//! Directly: the index is read in the order of the timeline. Indirectly: the relations are followed
//! three levels deep first, since what relates to an old reply may be new. That looks at a bounded
//! number of events around the page; a thread larger than that loses reactions to replies that lie
//! further back than the bound.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#relationships-api>

use std::{collections::HashSet, ops::Bound, sync::Arc};

use kv::{Direction, Reader};
use ruma::{OwnedEventId, OwnedRoomId};
use serde_json::value::RawValue;

use super::children;
use crate::{
    error::ApiError,
    rooms::{
        Rooms, StoredEvent,
        history::{Asker, no_such_event, render, visible_event},
        timeline::{EXAMINED_MAX, PaginationToken},
        visibility::Viewer,
    },
    storage::{
        rows::{RelationKind, RelationRow, TimelinePosition},
        schema::rooms::RELATIONS,
    },
};

/// How deep relations of relations are followed.
pub const DEPTH: u32 = 3;

/// How many events are looked at to follow relations, and how many of them behind the page.
const NODES_MAX: usize = 2_000;
const NODES_BEHIND_MAX: usize = 500;

/// How many rows are read at once, at least.
const BATCH_MIN: usize = 24;

/// What is asked of the relations to an event.
#[derive(Clone, Debug)]
pub struct RelationsRequest {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The event that is related to.
    pub event_id: OwnedEventId,
    /// The type of relation.
    pub rel_type: Option<String>,
    /// The type of the events that relate.
    pub event_type: Option<String>,
    /// Where to begin; by default at the end that the direction leads away from.
    pub from: Option<PaginationToken>,
    /// Where to stop.
    pub to: Option<PaginationToken>,
    /// Which way.
    pub direction: Direction,
    /// How many events at most.
    pub limit: usize,
    /// Whether what relates to what relates is wanted too.
    pub recurse: bool,
}

/// Some of the events that relate to an event.
#[derive(Debug)]
pub struct Relations {
    /// The events.
    pub chunk: Vec<Box<RawValue>>,
    /// Where to go on; `None` when there is nothing more.
    pub next: Option<PaginationToken>,
}

/// The events that relate to an event and that the asker may see.
///
/// # Errors
/// 404 when there is no such event in the room or the user may not see it.
pub async fn relations(
    rooms: &Rooms,
    asker: Asker,
    request: RelationsRequest,
) -> Result<Relations, ApiError> {
    rooms
        .read(move |rooms, reader| {
            let viewer = asker.viewer(rooms, reader, &request.room_id)?;
            let mut viewer = viewer.ok_or_else(no_such_event)?;
            let parent = visible_event(reader, &mut viewer, &request.event_id)?;
            let wanted = Wanted::new(rooms, &request);
            let (events, next) = if request.recurse {
                following(reader, &mut viewer, &parent, (&wanted, &request))?
            } else {
                direct(reader, &mut viewer, &parent, (&wanted, &request))?
            };
            let chunk = render(reader, &mut viewer, &events, &asker.form(rooms))?;
            Ok(Relations { chunk, next })
        })
        .await
}

type Found = (Vec<Arc<StoredEvent>>, Option<PaginationToken>);

/// Which relations are wanted.
struct Wanted {
    kinds: Vec<RelationKind>,
    rel_type: Option<String>,
    event_type: Option<u64>,
}

impl Wanted {
    fn new(rooms: &Rooms, request: &RelationsRequest) -> Self {
        let rel_type = request.rel_type.clone();
        let event_type = request.event_type.as_deref();
        Self {
            kinds: match &rel_type {
                Some(name) => vec![RelationKind::from_name(name)],
                None => RelationKind::ALL.to_vec(),
            },
            rel_type,
            event_type: event_type.map(|name| rooms.interner().event_type(name)),
        }
    }

    fn admits(&self, row: &RelationRow) -> bool {
        self.rel_type.as_ref().is_none_or(|rel_type| *rel_type == row.rel_type)
            && self.event_type.is_none_or(|event_type| event_type == row.event_type)
    }
}

impl RelationsRequest {
    fn start(&self) -> PaginationToken {
        self.from.unwrap_or(match self.direction {
            Direction::Forward => PaginationToken::START,
            Direction::Backward => PaginationToken::after(TimelinePosition::END),
        })
    }

    /// The places from one on, up to where to stop.
    fn range(&self, from: PaginationToken) -> (Bound<TimelinePosition>, Bound<TimelinePosition>) {
        match self.direction {
            Direction::Forward => {
                (from.lower(), self.to.map_or(Bound::Unbounded, PaginationToken::upper))
            }
            Direction::Backward => {
                (self.to.map_or(Bound::Unbounded, PaginationToken::lower), from.upper())
            }
        }
    }
}

fn direct(
    reader: &Reader<'_>,
    viewer: &mut Viewer,
    parent: &StoredEvent,
    (wanted, request): (&Wanted, &RelationsRequest),
) -> Result<Found, ApiError> {
    let room = viewer.room().clone();
    let mut events = Vec::new();
    let mut from = request.start();
    let mut examined = 0;
    loop {
        let count = (request.limit - events.len() + 1).max(BATCH_MIN);
        let parent = (&room, parent.record.hash);
        let order = (request.direction, count);
        let rows = children(reader, parent, &wanted.kinds, request.range(from), order)?;
        let is_last = rows.len() < count;
        for (position, row) in rows {
            if events.len() == request.limit || examined == EXAMINED_MAX {
                return Ok((events, Some(from)));
            }
            examined += 1;
            from = PaginationToken::beyond(position, request.direction);
            if wanted.admits(&row) {
                events.extend(shown(reader, viewer, &row)?);
            }
        }
        if is_last {
            return Ok((events, None));
        }
    }
}

/// The event of a row, when the reader is to see it.
fn shown(
    reader: &Reader<'_>,
    viewer: &mut Viewer,
    row: &RelationRow,
) -> Result<Option<Arc<StoredEvent>>, ApiError> {
    if viewer.ignores(reader, row.sender)? {
        return Ok(None);
    }
    let (rooms, room) = (viewer.rooms().clone(), viewer.room().clone());
    let Some(event) = rooms.event(reader, &room, row.event)? else {
        return Ok(None);
    };
    Ok(viewer.may_see(reader, &event)?.then_some(event))
}

type Rows = Vec<(TimelinePosition, RelationRow)>;

fn following(
    reader: &Reader<'_>,
    viewer: &mut Viewer,
    parent: &StoredEvent,
    (wanted, request): (&Wanted, &RelationsRequest),
) -> Result<Found, ApiError> {
    let (first, end) = first_level(reader, viewer, parent, (wanted, request))?;
    let mut rows = follow(reader, viewer, parent, (wanted, first))?;
    let (lower, upper) = request.range(request.start());
    rows.retain(|(position, _)| {
        // Beyond the end of what was looked at there may be more in between.
        let is_known = end.is_none_or(|end| match request.direction {
            Direction::Forward => *position <= end,
            Direction::Backward => *position >= end,
        });
        is_known && std::ops::RangeBounds::contains(&(lower, upper), position)
    });
    rows.sort_unstable_by_key(|(position, _)| *position);
    if request.direction == Direction::Backward {
        rows.reverse();
    }
    let mut events = Vec::new();
    let mut at = request.start();
    for (position, row) in rows {
        if events.len() == request.limit {
            return Ok((events, Some(at)));
        }
        at = PaginationToken::beyond(position, request.direction);
        events.extend(shown(reader, viewer, &row)?);
    }
    Ok((events, end.map(|end| PaginationToken::beyond(end, request.direction))))
}

/// The direct relations around a page, and the last of them when there are more.
fn first_level(
    reader: &Reader<'_>,
    viewer: &Viewer,
    parent: &StoredEvent,
    (wanted, request): (&Wanted, &RelationsRequest),
) -> Result<(Rows, Option<TimelinePosition>), ApiError> {
    let room = viewer.room();
    let parent = (room, parent.record.hash);
    let from = request.start();
    let mut behind = Vec::new();
    let (range, count) = match request.direction {
        // What comes before the page may have children in it.
        Direction::Forward => {
            let range = (Bound::Unbounded, from.upper());
            let order = (Direction::Backward, NODES_BEHIND_MAX);
            behind = children(reader, parent, &wanted.kinds, range, order)?;
            ((from.lower(), Bound::Unbounded), NODES_MAX - NODES_BEHIND_MAX)
        }
        Direction::Backward => ((Bound::Unbounded, from.upper()), NODES_MAX),
    };
    let rows = children(reader, parent, &wanted.kinds, range, (request.direction, count))?;
    let end = if rows.len() == count { rows.last().map(|(position, _)| *position) } else { None };
    behind.extend(rows);
    behind.retain(|(_, row)| wanted.admits(row));
    Ok((behind, end))
}

/// The direct relations and all that relates to them, as deep as it goes.
fn follow(
    reader: &Reader<'_>,
    viewer: &Viewer,
    parent: &StoredEvent,
    (wanted, first): (&Wanted, Rows),
) -> Result<Rows, ApiError> {
    let (rooms, room) = (viewer.rooms(), viewer.room());
    let mut seen: HashSet<_> = first.iter().map(|(_, row)| row.event).collect();
    seen.insert(parent.nid);
    let mut found = first.clone();
    let mut level = first;
    let mut budget = NODES_MAX;
    for _ in 1..DEPTH {
        let mut next = Vec::new();
        for (_, row) in level {
            let Some(event) = rooms.event(reader, room, row.event)? else { continue };
            let all = RELATIONS.prefix(&(room.nid, event.record.hash));
            let rows = reader.scan(&RELATIONS, &all, Direction::Forward, budget)?;
            budget -= rows.len();
            let rows = rows.into_iter().map(|(key, row)| (key.position, row));
            next.extend(rows.filter(|(_, row)| wanted.admits(row) && seen.insert(row.event)));
        }
        found.extend(next.iter().cloned());
        level = next;
    }
    Ok(found)
}

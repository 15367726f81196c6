//! A room's timeline: its order, tokens for places in it, and pages of what a reader may see.
//!
//! A token is a place *between* entries: just before or just after one. So pages neither overlap
//! nor leave a gap, whatever is added at either end meanwhile. A page looks at a bounded number of
//! entries; one that shows nothing still says where to go on.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmessages>

#[cfg(test)]
mod tests;

use std::{fmt, ops::Bound, str::FromStr, sync::Arc};

use kv::{Direction, Position, Reader};

use super::{StoredEvent, filter::Filter, visibility::Viewer};
use crate::{
    error::ApiError,
    id::RoomNid,
    storage::{
        rows::{EventFlags, TimelineEntry, TimelinePosition},
        schema::rooms::{TIMELINE, TimelineKey},
    },
};

/// How many entries one page looks at, at most.
pub const EXAMINED_MAX: usize = 2_000;

/// How many entries are read at once, at least.
const BATCH_MIN: usize = 24;

/// The entries of a room's timeline between two places.
pub fn entries(
    reader: &Reader<'_>,
    room: RoomNid,
    range: (Bound<TimelinePosition>, Bound<TimelinePosition>),
    direction: Direction,
    limit: usize,
) -> Result<Vec<(TimelinePosition, TimelineEntry)>, kv::Error> {
    let (from, to) = range;
    if is_empty(from, to) {
        return Ok(Vec::new());
    }
    let key = |position| TimelineKey { room, position };
    let from = match from {
        Bound::Unbounded => Bound::Included(key(TimelinePosition::START)),
        bound => bound.map(key),
    };
    let to = match to {
        Bound::Unbounded => Bound::Included(key(TimelinePosition::END)),
        bound => bound.map(key),
    };
    let range = TIMELINE.range(from.as_ref(), to.as_ref());
    let rows = reader.scan(&TIMELINE, &range, direction, limit)?;
    Ok(rows.into_iter().map(|(key, entry)| (key.position, entry)).collect())
}

/// The last entry at or before a place.
pub fn last_entry(
    reader: &Reader<'_>,
    room: RoomNid,
    to: Bound<TimelinePosition>,
) -> Result<Option<(TimelinePosition, TimelineEntry)>, kv::Error> {
    Ok(entries(reader, room, (Bound::Unbounded, to), Direction::Backward, 1)?.pop())
}

/// Whether no place can lie between the two.
pub(super) fn is_empty(from: Bound<TimelinePosition>, to: Bound<TimelinePosition>) -> bool {
    match (from, to) {
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to))
        | (Bound::Excluded(from), Bound::Included(to)) => from >= to,
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
    }
}

/// A place between two entries of a timeline, as clients know it.
///
/// Written `t{line}_{position}` just after an entry and `p{line}_{position}` just before it. A
/// token of `/sync` (`s{epoch}_{position}`), or the `pos` of sliding sync (which goes on with a dot
/// and a number), is the place after everything up to its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaginationToken {
    position: TimelinePosition,
    after: bool,
}

impl PaginationToken {
    /// The beginning of the timeline.
    pub const START: Self = Self::before(TimelinePosition::START);

    /// Just after an entry.
    pub const fn after(position: TimelinePosition) -> Self {
        Self { position, after: true }
    }

    /// Just before an entry.
    pub const fn before(position: TimelinePosition) -> Self {
        Self { position, after: false }
    }

    /// The end of what is committed up to a position.
    pub const fn live(position: Position) -> Self {
        Self::after(TimelinePosition::live(position))
    }

    /// The entry that it stands beside.
    pub(super) const fn position(self) -> TimelinePosition {
        self.position
    }

    /// Where a range that begins here begins.
    pub const fn lower(self) -> Bound<TimelinePosition> {
        if self.after { Bound::Excluded(self.position) } else { Bound::Included(self.position) }
    }

    /// Where a range that ends here ends.
    pub const fn upper(self) -> Bound<TimelinePosition> {
        if self.after { Bound::Included(self.position) } else { Bound::Excluded(self.position) }
    }

    /// The place of an entry just left behind by someone who goes in this direction.
    pub(super) const fn beyond(position: TimelinePosition, direction: Direction) -> Self {
        match direction {
            Direction::Forward => Self::after(position),
            Direction::Backward => Self::before(position),
        }
    }
}

impl fmt::Display for PaginationToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = if self.after { 't' } else { 'p' };
        write!(formatter, "{side}{}_{}", self.position.line, self.position.position)
    }
}

impl FromStr for PaginationToken {
    type Err = ApiError;

    fn from_str(token: &str) -> Result<Self, ApiError> {
        parse(token).ok_or_else(|| ApiError::invalid_param("The pagination token is not valid"))
    }
}

fn parse(token: &str) -> Option<PaginationToken> {
    if let Some(rest) = token.strip_prefix('s') {
        let (epoch, position) = rest.split_once('_')?;
        let is_epoch =
            (1..=16).contains(&epoch.len()) && epoch.bytes().all(|byte| byte.is_ascii_hexdigit());
        // What follows is no place: how far messages for a device were told, or the number of an
        // answer.
        let position = position.split_once(['.', '_']).map_or(position, |(position, _)| position);
        return is_epoch.then_some(PaginationToken::live(parse_position(position)?));
    }
    let after = token.starts_with('t');
    let (line, position) = token.strip_prefix(['t', 'p'])?.split_once('_')?;
    let line = match line {
        "0" => 0,
        "1" => 1,
        _ => return None,
    };
    let position = TimelinePosition { line, position: parse_position(position)? };
    Some(PaginationToken { position, after })
}

fn parse_position(digits: &str) -> Option<Position> {
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    // The highest numbers stand for positions that are not known yet.
    (number <= Position::MAX.as_u64()).then_some(Position::from_u64(number))
}

/// What a reader asks of a timeline.
#[derive(Clone, Copy, Debug)]
pub struct PageRequest {
    /// Where to begin.
    pub from: PaginationToken,
    /// Where to stop.
    pub to: Option<PaginationToken>,
    /// Which way to go.
    pub direction: Direction,
    /// How many events at most.
    pub limit: usize,
}

/// Some events of a timeline, in the order of the request's direction.
#[derive(Debug, Default)]
pub struct Page {
    /// The events, with their places.
    pub events: Vec<(TimelinePosition, Arc<StoredEvent>)>,
    /// Where the page ends: beyond the last entry that was looked at. `None`: nothing was.
    pub end: Option<PaginationToken>,
    /// Whether there are entries after the end.
    pub has_more: bool,
}

/// The events that a reader may see and wants to.
pub fn page(
    reader: &Reader<'_>,
    viewer: &mut Viewer,
    filter: &Filter,
    request: &PageRequest,
) -> Result<Page, ApiError> {
    let room = viewer.room().clone();
    let mut page = Page::default();
    let mut examined = 0;
    let mut from = request.from;
    loop {
        let count = (request.limit - page.events.len() + 1).max(BATCH_MIN);
        let range = match request.direction {
            Direction::Forward => {
                (from.lower(), request.to.map_or(Bound::Unbounded, PaginationToken::upper))
            }
            Direction::Backward => {
                (request.to.map_or(Bound::Unbounded, PaginationToken::lower), from.upper())
            }
        };
        let batch = entries(reader, room.nid, range, request.direction, count)?;
        let is_last = batch.len() < count;
        for (position, entry) in batch {
            if page.events.len() == request.limit || examined == EXAMINED_MAX {
                page.has_more = true;
                return Ok(page);
            }
            examined += 1;
            from = PaginationToken::beyond(position, request.direction);
            page.end = Some(from);
            if let Some(event) = wanted(reader, viewer, filter, &entry)? {
                page.events.push((position, event));
            }
        }
        if is_last {
            return Ok(page);
        }
    }
}

fn wanted(
    reader: &Reader<'_>,
    viewer: &mut Viewer,
    filter: &Filter,
    entry: &TimelineEntry,
) -> Result<Option<Arc<StoredEvent>>, ApiError> {
    let admitted = filter.admits_entry(entry);
    if admitted == Some(false) {
        return Ok(None);
    }
    if !entry.flags.has(EventFlags::STATE) && viewer.ignores(reader, entry.sender)? {
        return Ok(None);
    }
    let room = viewer.room().clone();
    let Some(event) = viewer.rooms().event(reader, &room, entry.event)? else {
        return Ok(None);
    };
    if admitted.is_none() && !filter.admits(&event) {
        return Ok(None);
    }
    if !filter.admits_related(reader, room.nid, &event)? {
        return Ok(None);
    }
    Ok(viewer.may_see(reader, &event)?.then_some(event))
}

//! How much of a room is unread: messages of others after the user's receipt, up to a bound.
//!
//! Push rules are not evaluated yet: every message counts, except notices and replacements, as the
//! default rules have it ([`EventFlags::NOTIFIES`]); nothing is a highlight. The last count of each
//! user and room is remembered, so that a sync counts only what came since.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications>

use std::{ops::Bound, sync::Arc};

use kv::{Direction, Position};
use quick_cache::sync::Cache;
use serde::Serialize;

use super::Step;
use crate::{
    ephemeral::receipts::read_up_to,
    error::ApiError,
    id::{RoomNid, UserNid},
    rooms::{Room, timeline::entries},
    storage::rows::{EventFlags, MembershipRow, TimelineEntry, TimelinePosition},
    sync::room_table::RoomPositions,
};

/// How many entries of the timeline are looked at; whoever is further behind sees this bound.
const EXAMINED_MAX: usize = 1000;
/// How many counts are remembered, of about 100 bytes each.
const REMEMBERED_MAX: usize = 100_000;

/// Counts of unread events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Unread {
    highlight_count: u64,
    notification_count: u64,
}

/// The last count of each user and room.
#[derive(Clone)]
pub(crate) struct UnreadCounts(Arc<Cache<(UserNid, RoomNid), Counted>>);

/// A count and what it was made of.
#[derive(Clone, Copy, Debug)]
struct Counted {
    count: u64,
    /// The newest entry that is counted.
    up_to: Position,
    /// The user's membership that it is for.
    joined: Position,
    /// The newest receipt of the room that was there.
    receipts: Position,
}

impl UnreadCounts {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Cache::new(REMEMBERED_MAX)))
    }
}

/// Counts what the user has not read of a room; whoever sends something has read what was before.
pub(crate) fn read(
    step: &Step<'_>,
    room: &Room,
    membership: &MembershipRow,
    positions: RoomPositions,
) -> Result<Unread, ApiError> {
    let counts = &step.sources.unread.0;
    let key = (step.interner().user(step.user_id), room.nid);
    let remembered = counts.get(&key).filter(|counted| {
        positions.events != Position::ZERO
            && counted.joined == membership.position
            && counted.receipts >= positions.receipts
            && counted.up_to <= step.now
    });
    let known = match remembered {
        Some(counted) => count_on(step, room, counted)?.map(|count| Counted {
            count,
            up_to: step.now,
            ..counted
        }),
        None => None,
    };
    let counted = match known {
        Some(counted) => counted,
        None => Counted {
            count: count_back(step, room, membership)?,
            up_to: step.now,
            joined: membership.position,
            receipts: positions.receipts,
        },
    };
    counts.insert(key, counted);
    Ok(Unread { highlight_count: 0, notification_count: counted.count })
}

/// Goes on from a count; `None` when too much has come since.
fn count_on(step: &Step<'_>, room: &Room, counted: Counted) -> Result<Option<u64>, ApiError> {
    if counted.up_to == step.now {
        return Ok(Some(counted.count));
    }
    let from = TimelinePosition::live(counted.up_to);
    let range = (Bound::Excluded(from), Bound::Included(TimelinePosition::live(step.now)));
    let new = entries(step.reader, room.nid, range, Direction::Forward, EXAMINED_MAX)?;
    if new.len() == EXAMINED_MAX {
        return Ok(None);
    }
    let own = step.interner().user(step.user_id);
    let count = new.into_iter().fold(counted.count, |count, (_, entry)| match entry {
        entry if is_own(&entry, own) => 0,
        entry if counts(step, &entry) => count + 1,
        _ => count,
    });
    Ok(Some(count))
}

/// Counts from the newest entry back to what the user has read.
fn count_back(step: &Step<'_>, room: &Room, membership: &MembershipRow) -> Result<u64, ApiError> {
    let read_to = read_up_to(step.reader, room.nid, step.user_id)?;
    let joined_at = TimelinePosition::live(membership.position);
    let from = read_to.map_or(joined_at, |place| place.max(joined_at));
    let range = (Bound::Excluded(from), Bound::Included(TimelinePosition::live(step.now)));
    let own = step.interner().user(step.user_id);
    let newest = entries(step.reader, room.nid, range, Direction::Backward, EXAMINED_MAX)?;
    let unread = newest.iter().take_while(|(_, entry)| !is_own(entry, own));
    let count = unread.filter(|(_, entry)| counts(step, entry)).count();
    Ok(u64::try_from(count).unwrap_or(u64::MAX))
}

fn is_own(entry: &TimelineEntry, own: UserNid) -> bool {
    entry.sender == own && entry.flags.has(EventFlags::NOTIFIES)
}

fn counts(step: &Step<'_>, entry: &TimelineEntry) -> bool {
    entry.flags.has(EventFlags::NOTIFIES) && !step.ignored.contains(&entry.sender)
}

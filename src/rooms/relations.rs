//! Relations between events: what an event relates to, and reading what relates to it.
//!
//! A rich reply (`m.in_reply_to` alone) is no relation in this sense. `index` writes, `bundle` tells
//! what relations amount to, `page` lists them, `redacted` redacts them with what they relate to.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#forming-relationships-between-events>

pub(super) mod bundle;
pub(super) mod check;
pub(super) mod damage;
pub(super) mod index;
pub mod page;
pub mod redacted;

#[cfg(test)]
mod tests;

use std::{ops::Bound, sync::Arc};

use kv::{Direction, Reader};
use ruma::{EventId, MilliSecondsSinceUnixEpoch, OwnedEventId};
use serde::Deserialize;

use super::{Pdu, Room, Rooms, StoredEvent, event::hash_of_event_id};
use crate::{
    error::ApiError,
    id::EventNid,
    storage::{
        rows::{EventFlags, RelationKind, RelationRow, TimelinePosition},
        schema::rooms::{RELATIONS, RelationKey},
    },
};

/// How many edits of one event are compared: the latest to come.
const EDITS_MAX: usize = 1_000;

/// What an event relates to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// The kind.
    pub kind: RelationKind,
    /// The kind's name.
    pub rel_type: String,
    /// The event it relates to.
    pub event_id: OwnedEventId,
    /// The hash which that event's id spells.
    pub(super) parent: [u8; 32],
}

/// What an event relates to, if it does. State events relate to nothing.
pub fn relation_of(pdu: &Pdu) -> Option<Relation> {
    if pdu.state_key().is_some() || pdu.redacts().is_some() {
        return None;
    }
    relation_in(pdu.content().get())
}

/// What an event with this content relates to.
fn relation_in(content: &str) -> Option<Relation> {
    #[derive(Deserialize)]
    struct Content {
        #[serde(rename = "m.relates_to")]
        relates_to: Option<Wire>,
    }
    #[derive(Deserialize)]
    struct Wire {
        rel_type: String,
        event_id: OwnedEventId,
    }
    if !content.contains("\"m.relates_to\"") {
        return None;
    }
    let Wire { rel_type, event_id } = serde_json::from_str::<Content>(content).ok()?.relates_to?;
    let parent = hash_of_event_id(&event_id)?;
    let kind = RelationKind::from_name(&rel_type);
    Some(Relation { kind, rel_type, event_id, parent })
}

/// The events that relate to an event in some ways, in the order of the timeline: at most `limit`
/// of those between two places.
fn children(
    reader: &Reader<'_>,
    (room, parent): (&Room, [u8; 32]),
    kinds: &[RelationKind],
    (from, to): (Bound<TimelinePosition>, Bound<TimelinePosition>),
    (direction, limit): (Direction, usize),
) -> Result<Vec<(TimelinePosition, RelationRow)>, ApiError> {
    let mut found = Vec::new();
    if super::timeline::is_empty(from, to) {
        return Ok(found);
    }
    for &kind in kinds {
        let key = |position| RelationKey { room: room.nid, parent, kind: kind as u8, position };
        let from = match from {
            Bound::Unbounded => Bound::Included(key(TimelinePosition::START)),
            bound => bound.map(key),
        };
        let to = match to {
            Bound::Unbounded => Bound::Included(key(TimelinePosition::END)),
            bound => bound.map(key),
        };
        let range = RELATIONS.range(from.as_ref(), to.as_ref());
        let rows = reader.scan(&RELATIONS, &range, direction, limit)?;
        found.extend(rows.into_iter().map(|(key, row)| (key.position, row)));
    }
    if kinds.len() > 1 {
        found.sort_unstable_by_key(|(position, _)| *position);
        if direction == Direction::Backward {
            found.reverse();
        }
        found.truncate(limit);
    }
    Ok(found)
}

/// Whether one event is a valid replacement of another.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#validity-of-replacement-events>
fn is_edit(original: &StoredEvent, edit: &StoredEvent) -> bool {
    original.record.sender == edit.record.sender
        && original.record.event_type == edit.record.event_type
        && !original.record.flags.has(EventFlags::STATE)
        && !edit.record.flags.has(EventFlags::STATE)
        && has_new_content(&edit.pdu)
        && relation_of(&original.pdu)
            .is_none_or(|relation| relation.kind != RelationKind::Replacement)
}

/// Of what is encrypted, only clients can tell.
fn has_new_content(pdu: &Pdu) -> bool {
    #[derive(Deserialize)]
    struct Content {
        #[serde(rename = "m.new_content")]
        new_content: Option<serde::de::IgnoredAny>,
    }
    pdu.event_type() == "m.room.encrypted"
        || serde_json::from_str::<Content>(pdu.content().get())
            .is_ok_and(|content| content.new_content.is_some())
}

/// What tells which of two edits is the more recent one.
fn age_of(edit: &StoredEvent) -> (MilliSecondsSinceUnixEpoch, &EventId) {
    (edit.pdu.origin_server_ts(), edit.pdu.event_id())
}

/// The most recent of the valid edits of an event that `admits` lets through.
pub fn newest_edit(
    rooms: &Rooms,
    reader: &Reader<'_>,
    room: &Room,
    original: &StoredEvent,
    admits: impl FnMut(&StoredEvent) -> Result<bool, ApiError>,
) -> Result<Option<Arc<StoredEvent>>, ApiError> {
    newest_edit_of(reader, (room, original), |event| rooms.event(reader, room, event), admits)
}

/// The same of the events that `load` gives.
pub fn newest_edit_of(
    reader: &Reader<'_>,
    (room, original): (&Room, &StoredEvent),
    load: impl Fn(EventNid) -> Result<Option<Arc<StoredEvent>>, ApiError>,
    mut admits: impl FnMut(&StoredEvent) -> Result<bool, ApiError>,
) -> Result<Option<Arc<StoredEvent>>, ApiError> {
    let kind = RelationKind::Replacement as u8;
    let all = RELATIONS.prefix(&(room.nid, original.record.hash, kind));
    let mut newest: Option<Arc<StoredEvent>> = None;
    for (_, row) in reader.scan(&RELATIONS, &all, Direction::Backward, EDITS_MAX)? {
        // The row tells of most that they are not valid.
        if row.sender != original.record.sender || row.event_type != original.record.event_type {
            continue;
        }
        let Some(edit) = load(row.event)? else { continue };
        let is_newest = newest.as_ref().is_none_or(|newest| age_of(&edit) > age_of(newest));
        if is_newest && is_edit(original, &edit) && admits(&edit)? {
            newest = Some(edit);
        }
    }
    Ok(newest)
}

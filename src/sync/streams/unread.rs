//! How much of a room is unread: messages of others after the user's receipt, up to a bound.
//!
//! Push rules are not evaluated yet: every message counts, except notices and replacements, as the
//! default rules have it; nothing is a highlight.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications>

use std::ops::Bound;

use kv::Direction;
use serde::{Deserialize, Serialize};

use super::Step;
use crate::{
    ephemeral::receipts::read_up_to,
    error::ApiError,
    rooms::{Room, StoredEvent, timeline::entries},
    storage::rows::{EventFlags, MembershipRow, TimelinePosition},
};

/// How many entries of the timeline are looked at.
const EXAMINED_MAX: usize = 100;

/// The types of events that the default push rules notify of.
const TYPES: [&str; 3] = ["m.room.message", "m.room.encrypted", "m.call.invite"];

/// Counts of unread events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Unread {
    highlight_count: u64,
    notification_count: u64,
}

/// Counts what the user has not read of a room; whoever sends something has read what was before.
pub(crate) fn read(
    step: &Step<'_>,
    room: &Room,
    membership: &MembershipRow,
) -> Result<Unread, ApiError> {
    let read_to = read_up_to(step.reader, room.nid, step.user_id)?;
    let joined_at = TimelinePosition::live(membership.position);
    let from = read_to.map_or(joined_at, |place| place.max(joined_at));
    let range = (Bound::Excluded(from), Bound::Included(TimelinePosition::live(step.now)));
    let interner = step.interner();
    let types = TYPES.map(|event_type| interner.event_type(event_type));
    let own = interner.user(step.user_id);
    let mut unread = Unread::default();
    for (_, entry) in entries(step.reader, room.nid, range, Direction::Backward, EXAMINED_MAX)? {
        if !types.contains(&entry.event_type) {
            continue;
        }
        if entry.sender == own {
            break;
        }
        if step.ignored.contains(&entry.sender) || entry.flags.has(EventFlags::REDACTED) {
            continue;
        }
        if notifies(&*step.event(room, entry.event)?) {
            unread.notification_count += 1;
        }
    }
    Ok(unread)
}

fn notifies(event: &StoredEvent) -> bool {
    #[derive(Deserialize)]
    struct Content {
        msgtype: Option<serde_json::Value>,
        #[serde(rename = "m.relates_to")]
        relates_to: Option<Relation>,
    }
    #[derive(Deserialize)]
    struct Relation {
        rel_type: Option<serde_json::Value>,
    }
    if event.record.flags.has(EventFlags::REDACTED) {
        return false;
    }
    let Ok(content) = serde_json::from_str::<Content>(event.pdu.content().get()) else {
        return true;
    };
    let is =
        |value: Option<serde_json::Value>, text: &str| value.is_some_and(|value| value == text);
    !is(content.msgtype, "m.notice")
        && !is(content.relates_to.and_then(|relation| relation.rel_type), "m.replace")
}

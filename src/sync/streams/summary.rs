//! The summary of a room: how many are in it, and after whom it is called when it has no name.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#calculating-the-display-name-for-a-room>

use kv::Direction;
use serde::Serialize;

use super::Step;
use crate::{
    error::ApiError,
    id::{EventNid, StateKeyNid},
    rooms::{Room, state},
    storage::{
        rows::{Membership, StateRef},
        schema::rooms::{MEMBERS, ROOM_HEADS},
    },
};

/// How many heroes are told.
const HEROES_MAX: usize = 5;
/// How many members are looked at for heroes: in small rooms the first to come are found, in large
/// ones, which have a name, any will do.
const CANDIDATES_MAX: usize = 100;

/// The summary of a room.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Summary {
    #[serde(rename = "m.heroes", skip_serializing_if = "Option::is_none")]
    pub(crate) heroes: Option<Vec<String>>,
    #[serde(rename = "m.joined_member_count", skip_serializing_if = "Option::is_none")]
    pub(crate) joined: Option<u64>,
    #[serde(rename = "m.invited_member_count", skip_serializing_if = "Option::is_none")]
    pub(crate) invited: Option<u64>,
}

impl Summary {
    /// The state keys of the heroes' member events.
    pub(crate) fn hero_keys(&self, step: &Step<'_>) -> Vec<StateKeyNid> {
        let heroes = self.heroes.iter().flatten();
        heroes.map(|hero| step.interner().state_key("m.room.member", hero)).collect()
    }
}

/// Reads the summary of a room.
pub(crate) fn read(step: &Step<'_>, room: &Room, at: StateRef) -> Result<Summary, ApiError> {
    let head = step.reader.get(&ROOM_HEADS, &room.nid)?;
    let heroes = if has_name(step, room, at)? { None } else { Some(heroes(step, room)?) };
    Ok(Summary {
        heroes,
        joined: head.as_ref().map(|head| head.joined_members),
        invited: head.as_ref().map(|head| head.invited_members),
    })
}

fn has_name(step: &Step<'_>, room: &Room, at: StateRef) -> Result<bool, ApiError> {
    for (event_type, field) in [("m.room.name", "name"), ("m.room.canonical_alias", "alias")] {
        let key = step.interner().state_key(event_type, "");
        if let Some(event) = state::lookup(step.reader, room.nid, at, key)? {
            let name: Option<String> = step.event(room, event)?.pdu.content_field(field);
            if name.is_some_and(|name| !name.is_empty()) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// The first members of the room without the reader; those who are gone when nobody else is there.
fn heroes(step: &Step<'_>, room: &Room) -> Result<Vec<String>, ApiError> {
    let present = candidates(step, room, [Membership::Join, Membership::Invite])?;
    if !present.is_empty() {
        return Ok(present);
    }
    candidates(step, room, [Membership::Leave, Membership::Ban])
}

fn candidates(
    step: &Step<'_>,
    room: &Room,
    memberships: [Membership; 2],
) -> Result<Vec<String>, ApiError> {
    let mut members: Vec<(EventNid, String)> = Vec::new();
    for membership in memberships {
        let range = MEMBERS.prefix(&(room.nid, membership as u8));
        let rows = step.reader.scan(&MEMBERS, &range, Direction::Forward, CANDIDATES_MAX)?;
        members.extend(rows.into_iter().map(|(key, event)| (event, key.user_id)));
    }
    members.retain(|(_, user_id)| user_id != step.user_id.as_str());
    members.sort_unstable();
    members.truncate(HEROES_MAX);
    Ok(members.into_iter().map(|(_, user_id)| user_id).collect())
}

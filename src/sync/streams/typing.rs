//! Typing: who types in a room now.

use ruma::OwnedUserId;
use serde::Serialize;

use super::{ClientEvent, Step, plain_event};
use crate::{error::ApiError, rooms::Room};

const TYPE: &str = "m.typing";

#[derive(Serialize)]
struct Content {
    user_ids: Vec<OwnedUserId>,
}

/// Who types; `None` when the client does not want to know. `changed`: also nobody is told.
pub(crate) fn read(
    step: &Step<'_>,
    room: &Room,
    changed: bool,
) -> Result<Option<ClientEvent>, ApiError> {
    if !step.filter.ephemeral.admits_type(TYPE, step.interner()) {
        return Ok(None);
    }
    let mut user_ids = Vec::new();
    for user_id in step.sources.typing.users(room.nid) {
        let ignored = step.ignored.contains(&step.interner().user(&user_id));
        // Who left or was banned while typing is in the list until it runs out.
        if !ignored && step.sources.rooms.is_joined(step.reader, room, &user_id)? {
            user_ids.push(user_id);
        }
    }
    if user_ids.is_empty() && !changed {
        return Ok(None);
    }
    plain_event(TYPE, &Content { user_ids }).map(Some)
}

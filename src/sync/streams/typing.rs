//! Typing: who types in a room now.

use ruma::OwnedUserId;
use serde::Serialize;

use super::{ClientEvent, Step, plain_event};
use crate::{error::ApiError, id::RoomNid};

const TYPE: &str = "m.typing";

#[derive(Serialize)]
struct Content {
    user_ids: Vec<OwnedUserId>,
}

/// Who types; `None` when the client does not want to know. `changed`: also nobody is told.
pub(crate) fn read(
    step: &Step<'_>,
    room: RoomNid,
    changed: bool,
) -> Result<Option<ClientEvent>, ApiError> {
    if !step.filter.ephemeral.admits_type(TYPE, step.interner()) {
        return Ok(None);
    }
    let mut user_ids = step.sources.typing.users(room);
    user_ids.retain(|user_id| !step.ignored.contains(&step.interner().user(user_id)));
    if user_ids.is_empty() && !changed {
        return Ok(None);
    }
    plain_event(TYPE, &Content { user_ids }).map(Some)
}

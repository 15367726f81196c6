//! Presence: how those are with whom the user shares a room.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#presence>

use kv::Position;

use super::{ClientEvent, Step};
use crate::{
    ephemeral::presence::TYPE, error::ApiError, id::RoomNid, storage::rows::Membership,
    sync::room_table::News,
};

/// The presence that changed since then (`None`: of all who are there), and of all who are there in
/// rooms that are new to the client.
pub(crate) fn read(
    step: &Step<'_>,
    since: Option<Position>,
    news: &News,
) -> Result<Vec<ClientEvent>, ApiError> {
    let filter = &step.filter.presence;
    let joined = || news.memberships.iter().filter(|row| row.1.membership == Membership::Join);
    let is_new = |position: Position| since.is_some_and(|since| position > since);
    let new_rooms: Vec<RoomNid> =
        joined().filter(|(_, row)| is_new(row.position)).map(|(room, _)| *room).collect();
    let nothing_new = since.is_some() && !news.presence && new_rooms.is_empty();
    if nothing_new || !filter.admits_type(TYPE, step.interner()) {
        return Ok(Vec::new());
    }
    let rooms: Vec<RoomNid> = joined().map(|(room, _)| *room).collect();
    let presence = &step.sources.presence;
    let mut told = presence.told(since, step.now, &rooms);
    if !new_rooms.is_empty() {
        let known = told.len();
        for person in presence.told(None, step.now, &new_rooms) {
            if !told[..known].iter().any(|other| other.user_id == person.user_id) {
                told.push(person);
            }
        }
    }
    told.retain(|person| {
        filter.admits_sender(&person.user_id, step.interner())
            && !step.ignored.contains(&step.interner().user(&person.user_id))
    });
    if let Some(limit) = filter.limit() {
        told.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    }
    let rendered = told.iter().map(|person| serde_json::value::to_raw_value(&person.event()));
    rendered.map(|event| event.map_err(ApiError::internal)).collect()
}

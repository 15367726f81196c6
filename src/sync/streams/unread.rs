//! How much of a room is unread.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications>

use super::Step;
use crate::{
    error::ApiError, push::Query, rooms::Room, storage::rows::MembershipRow,
    sync::room_table::RoomPositions,
};

pub(crate) use crate::push::unread::{Unread, UnreadCounts};

/// Counts what the user has not read of a room.
pub(crate) fn read(
    step: &Step<'_>,
    room: &Room,
    membership: &MembershipRow,
    _positions: RoomPositions,
) -> Result<Unread, ApiError> {
    let query = Query {
        user_id: step.user_id,
        room: room.nid,
        room_id: &room.id,
        joined: membership.position,
        now: step.now,
    };
    Ok(step.sources.rooms.push().unread(step.reader, query)?)
}

//! The rooms that two users share.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#mutual-rooms>

use std::{collections::BTreeSet, ops::ControlFlow};

use kv::{Direction, Reader};
use ruma::{OwnedRoomId, OwnedUserId, UserId};

use super::Rooms;
use crate::{
    error::ApiError,
    id::RoomNid,
    storage::{rows::Membership, schema::rooms::MEMBERSHIPS},
};

/// Rooms that two users have both joined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MutualRooms {
    /// Some of them.
    pub rooms: Vec<OwnedRoomId>,
    /// How many there are in all.
    pub count: usize,
    /// The last of them here, when there are more.
    pub last: Option<RoomNid>,
}

impl Rooms {
    /// The rooms that two users have both joined, `limit` of those after one.
    pub async fn mutual_rooms(
        &self,
        users: [OwnedUserId; 2],
        after: Option<RoomNid>,
        limit: usize,
    ) -> Result<MutualRooms, ApiError> {
        self.read(move |rooms, reader| {
            let [one, other] = &users;
            let theirs = joined(reader, other)?;
            let mut shared: Vec<RoomNid> = joined(reader, one)?;
            shared.retain(|room| theirs.binary_search(room).is_ok());
            let mut mutual = MutualRooms { count: shared.len(), ..MutualRooms::default() };
            let rest = shared.partition_point(|room| Some(*room) <= after);
            let rest = &shared[rest..];
            for nid in rest.iter().take(limit) {
                mutual.rooms.extend(rooms.room_by_nid(reader, *nid)?.map(|room| room.id.clone()));
            }
            if rest.len() > limit {
                mutual.last = rest[..limit].last().copied();
            }
            Ok(mutual)
        })
        .await
    }
}

/// The rooms that a user has joined, in the order of their numbers.
fn joined(reader: &Reader<'_>, user_id: &UserId) -> Result<Vec<RoomNid>, kv::Error> {
    let mut joined = BTreeSet::new();
    let range = MEMBERSHIPS.prefix(&user_id.to_string());
    reader.for_each(&MEMBERSHIPS, &range, Direction::Forward, |key, row| {
        if row.membership == Membership::Join {
            joined.insert(key.room);
        }
        ControlFlow::Continue(())
    })?;
    Ok(joined.into_iter().collect())
}

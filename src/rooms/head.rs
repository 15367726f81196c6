//! The head of a room: where the next event goes. Loaded once, kept under the room's lock.

use kv::Reader;
use ruma::OwnedEventId;

use super::{Room, Rooms};
use crate::{
    error::ApiError,
    id::EventNid,
    push::counts::Tail,
    storage::{rows::HeadRow, schema::rooms::ROOM_HEADS},
};

/// Where the next event of a room goes.
#[derive(Clone, Debug)]
pub(super) struct Head {
    /// The row as it is stored, or on its way to be.
    pub(super) row: HeadRow,
    /// The forward extremities, as the next event cites them.
    pub(super) extremities: Vec<Extremity>,
    /// Sums of counts that may not be on disk yet.
    pub(super) tail: Tail,
    /// Which reading from the store it goes back to.
    pub(super) generation: u64,
}

/// An event that no event follows yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extremity {
    pub(super) nid: EventNid,
    pub(super) event_id: OwnedEventId,
    pub(super) depth: u64,
}

impl Head {
    /// The head of a room that has no event yet.
    pub(super) fn of_new_room() -> Self {
        let row = HeadRow {
            next_event: EventNid(1),
            state_version: 0,
            next_branch: 0,
            extremities: Vec::new(),
            joined_members: 0,
            invited_members: 0,
        };
        Self { row, extremities: Vec::new(), tail: Tail::default(), generation: 0 }
    }

    /// Reads the head of a room.
    pub(super) fn load(rooms: &Rooms, reader: &Reader<'_>, room: &Room) -> Result<Self, ApiError> {
        let row = reader
            .get(&ROOM_HEADS, &room.nid)?
            .ok_or_else(|| ApiError::internal_text(format!("the room {} has no head", room.id)))?;
        let extremities = row
            .extremities
            .iter()
            .map(|&nid| {
                let event = rooms.stored_event(reader, room, nid)?;
                Ok(Extremity {
                    nid,
                    event_id: event.pdu.event_id().to_owned(),
                    depth: event.record.depth,
                })
            })
            .collect::<Result<_, ApiError>>()?;
        Ok(Self { row, extremities, tail: Tail::default(), generation: rooms.next_generation() })
    }
}

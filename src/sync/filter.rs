//! The filter of a sync, compiled once.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3useruseridfilter>

use ruma::{
    RoomId,
    api::client::filter::{EventFormat, FilterDefinition, RoomEventFilter},
};

use crate::{error::ApiError, id::Interner, rooms::filter::Filter};

/// Events of a timeline when the client does not say how many.
const TIMELINE_LIMIT: usize = 10;
/// The most events of one timeline.
const TIMELINE_LIMIT_MAX: u64 = 1_000;

/// What a client wants to be told.
#[derive(Clone, Debug, Default)]
pub(crate) struct SyncFilter {
    /// The shape of events.
    pub(crate) format: EventFormat,
    /// Global account data.
    pub(crate) account_data: Filter,
    /// Presence.
    pub(crate) presence: Filter,
    /// Whether rooms that were left long ago are in an initial sync.
    pub(crate) include_leave: bool,
    /// Events of timelines.
    pub(crate) timeline: Filter,
    /// How many of them at most, per room.
    pub(crate) timeline_limit: usize,
    /// State events.
    pub(crate) state: Filter,
    /// Typing and receipts.
    pub(crate) ephemeral: Filter,
    /// Account data of rooms.
    pub(crate) room_account_data: Filter,
    rooms: Filter,
}

impl SyncFilter {
    /// Compiles a filter. `event_fields` is not applied: a server may tell more than was asked for.
    ///
    /// # Errors
    /// `M_INVALID_PARAM` when a list is too long.
    pub(crate) fn compile(
        definition: &FilterDefinition,
        interner: &Interner,
    ) -> Result<Self, ApiError> {
        let room = &definition.room;
        let mut rooms = RoomEventFilter::empty();
        rooms.rooms.clone_from(&room.rooms);
        rooms.not_rooms.clone_from(&room.not_rooms);
        let compile = |filter| Filter::compile(filter, interner);
        let limit = room.timeline.limit.map(|limit| u64::from(limit).min(TIMELINE_LIMIT_MAX));
        Ok(Self {
            format: definition.event_format.clone(),
            account_data: Filter::compile_plain(&definition.account_data, interner)?,
            presence: Filter::compile_plain(&definition.presence, interner)?,
            include_leave: room.include_leave,
            timeline: compile(&room.timeline)?,
            timeline_limit: limit.map_or(TIMELINE_LIMIT, |limit| {
                usize::try_from(limit).expect("the limit was just clamped")
            }),
            state: compile(&room.state)?,
            ephemeral: compile(&room.ephemeral)?,
            room_account_data: compile(&room.account_data)?,
            rooms: compile(&rooms)?,
        })
    }

    /// Whether anything of a room is wanted.
    pub(crate) fn admits_room(&self, room_id: &RoomId) -> bool {
        self.rooms.admits_room(room_id)
    }

    /// Whether only members who matter to the other events are wanted.
    pub(crate) fn lazy_loads_members(&self) -> bool {
        self.state.lazy_loads_members() || self.timeline.lazy_loads_members()
    }

    /// Whether members are told again though the client knows them.
    pub(crate) fn repeats_members(&self) -> bool {
        use ruma::api::client::filter::LazyLoadOptions::Enabled;
        [self.state.lazy_load(), self.timeline.lazy_load()]
            .contains(&Enabled { include_redundant_members: true })
    }
}

//! Tables of the event graph. Owner: `rooms`.

use kv::{Json, Position, Table, key_structs};

use super::{CS, EI, EM, EV, IX, RM, SL, SV, TL, US};
use crate::{
    id::{BranchNid, EventNid, RoomNid, StateKeyNid, UserNid},
    storage::rows::{
        AggregationRow, EventBytes, EventRecord, HeadRow, MembershipRow, OverlayRow, RelationRow,
        StateChanges, StateKeyName, StateRef, ThreadRow, TimelineEntry, TimelinePosition,
        rooms::{AliasRow, RoomInfo},
    },
};

key_structs! {
    /// An event by its number.
    pub struct EventKey {
        /// The room.
        room: RoomNid,
        /// The number.
        event: EventNid,
    }

    /// An event by its id: always within a room.
    pub struct EventHashKey {
        /// The room.
        room: RoomNid,
        /// The reference hash, which the event id spells.
        hash: [u8; 32],
    }

    /// A redaction that waits for what it redacts.
    pub struct PendingRedactionKey {
        /// The room.
        room: RoomNid,
        /// The reference hash of the target.
        hash: [u8; 32],
        /// The redaction: several may wait, and not all may be allowed.
        redaction: EventNid,
    }

    /// A place in a room's timeline.
    pub struct TimelineKey {
        /// The room.
        room: RoomNid,
        /// The place.
        position: TimelinePosition,
    }

    /// One key of the state at one version of a branch, newest version first.
    pub struct StateVersionKey {
        /// The room.
        room: RoomNid,
        /// The branch.
        branch: BranchNid,
        /// The state key.
        key: StateKeyNid,
        /// `u32::MAX` less the version, so that the newest comes first.
        inverted_version: u32,
    }

    /// One version of a branch, or a part of it.
    pub struct StateLogKey {
        /// The room.
        room: RoomNid,
        /// The branch.
        branch: BranchNid,
        /// The version.
        version: u32,
        /// A version may change more keys than fit in a row (a join, a reset): parts from 0.
        part: u16,
    }

    /// A branch or an overlay of a room's state.
    pub struct BranchKey {
        /// The room.
        room: RoomNid,
        /// The branch or overlay.
        branch: BranchNid,
    }

    /// The overlays of a room by the hash of their content.
    pub struct OverlayHashKey {
        /// The room.
        room: RoomNid,
        /// The hash.
        hash: u64,
        /// The overlay: two contents may share a hash.
        branch: BranchNid,
    }

    /// A state key of a room.
    pub struct StateKeyKey {
        /// The room.
        room: RoomNid,
        /// The state key.
        key: StateKeyNid,
    }

    /// An entry of a room's current state.
    pub struct CurrentStateKey {
        /// The room.
        room: RoomNid,
        /// 0: any state; 1: `m.room.member`, which can be many.
        class: u8,
        /// The state key.
        key: StateKeyNid,
    }

    /// A member of a room, grouped by membership.
    pub struct MemberKey {
        /// The room.
        room: RoomNid,
        /// The membership, as [`crate::storage::rows::Membership`] numbers it.
        membership: u8,
        /// The user id.
        user_id: String,
    }

    /// A room of a user.
    pub struct MembershipKey {
        /// The user id.
        user_id: String,
        /// The room.
        room: RoomNid,
    }

    /// A client's transaction.
    pub struct TransactionKey {
        /// The user id.
        user_id: String,
        /// The device id (or what stands for it).
        device_id: String,
        /// Which endpoint the id was used at: ids of different endpoints do not meet.
        endpoint: String,
        /// The client's transaction id.
        transaction_id: String,
    }

    /// An alias of a room.
    pub struct RoomAliasKey {
        /// The room.
        room: RoomNid,
        /// The alias.
        alias: String,
    }

    /// An event that relates to another.
    pub struct RelationKey {
        /// The room.
        room: RoomNid,
        /// The reference hash of the event that is related to, which may come later.
        parent: [u8; 32],
        /// The kind of relation, as [`crate::storage::rows::RelationKind`] numbers it.
        kind: u8,
        /// The place of the event that relates.
        position: TimelinePosition,
    }

    /// An event by its hash, whether it is here or only related to.
    pub struct AggregationKey {
        /// The room.
        room: RoomNid,
        /// The reference hash of the event that is related to.
        parent: [u8; 32],
    }

    /// A thread by its latest reply.
    pub struct ThreadKey {
        /// The room.
        room: RoomNid,
        /// The place of the latest reply.
        latest: TimelinePosition,
    }

    /// Who wrote in a thread.
    pub struct ThreadSenderKey {
        /// The room.
        room: RoomNid,
        /// The reference hash of the thread's root.
        root: [u8; 32],
        /// The user.
        sender: UserNid,
    }
}

/// Each event as canonical JSON, signed, without `event_id` and `unsigned`; the redacted form once
/// it is redacted.
pub const EVENTS: Table<EventKey, EventBytes> = Table::new("events", EV, 0, "rooms");
/// All that is known of an event but its content.
pub const EVENT_RECORDS: Table<EventKey, EventRecord> = Table::new("event_records", EM, 0, "rooms");
/// Event ids to numbers, within a room.
pub const EVENTS_BY_HASH: Table<EventHashKey, EventNid> =
    Table::new("events_by_hash", EI, 0, "rooms");
/// The events that clients are shown, in their order.
pub const TIMELINE: Table<TimelineKey, TimelineEntry> = Table::new("timeline", TL, 0, "rooms");
/// The state of each branch by key: the newest version at or before the one asked for is it.
/// Event number 0: the key was removed (only a resolution does that).
pub const STATE_VERSIONS: Table<StateVersionKey, EventNid> =
    Table::new("state_versions", SV, 0, "rooms");
/// What each version of a branch changed.
pub const STATE_LOG: Table<StateLogKey, StateChanges> = Table::new("state_log", SL, 0, "rooms");
/// Where each branch but the trunk begins.
pub const STATE_BRANCHES: Table<BranchKey, StateRef> = Table::new("state_branches", SL, 1, "rooms");
/// Overlays: a state as a short list of differences to another.
pub const STATE_OVERLAYS: Table<BranchKey, OverlayRow> =
    Table::new("state_overlays", SL, 2, "rooms");
/// Overlays by content, so that equal ones are stored once.
pub const STATE_OVERLAYS_BY_HASH: Table<OverlayHashKey, ()> =
    Table::new("state_overlays_by_hash", SL, 3, "rooms");
/// The type and state key behind each number.
pub const STATE_KEYS: Table<StateKeyKey, StateKeyName> = Table::new("state_keys", SL, 4, "rooms");
/// The current state.
pub const CURRENT_STATE: Table<CurrentStateKey, EventNid> =
    Table::new("current_state", CS, 0, "rooms");
/// The current members by membership.
pub const MEMBERS: Table<MemberKey, EventNid> = Table::new("members", CS, 1, "rooms");
/// What a room is: written once.
pub const ROOMS: Table<RoomNid, Json<RoomInfo>> = Table::new("rooms", RM, 0, "rooms");
/// Each room's head: changed by every event.
pub const ROOM_HEADS: Table<RoomNid, HeadRow> = Table::new("room_heads", RM, 1, "rooms");
/// Aliases of this server.
pub const ALIASES: Table<String, Json<AliasRow>> = Table::new("aliases", RM, 2, "rooms");
/// The aliases of each room.
pub const ALIASES_BY_ROOM: Table<RoomAliasKey, ()> = Table::new("aliases_by_room", RM, 3, "rooms");
/// The rooms that the directory shows.
pub const PUBLIC_ROOMS: Table<RoomNid, Position> = Table::new("public_rooms", RM, 4, "rooms");
/// When something last happened in each room that moves it up in lists of rooms; see
/// [`crate::rooms::bump`].
pub const ROOM_BUMPS: Table<RoomNid, Position> = Table::new("room_bumps", US, 112, "rooms");
/// The rooms of each user, by what the room's current state says.
pub const MEMBERSHIPS: Table<MembershipKey, MembershipRow> =
    Table::new("memberships", US, 0, "rooms");
/// What a client's transaction made, so that a retry makes nothing more.
pub const TRANSACTIONS: Table<TransactionKey, EventKey> =
    Table::new("transactions", US, 1, "rooms");
/// The events that relate to an event, kind by kind; none that is redacted. (Tag 0 of the family
/// held an earlier form and is not used again.)
pub const RELATIONS: Table<RelationKey, RelationRow> = Table::new("relations", IX, 2, "rooms");
/// What the relations to an event amount to, kept up with each of them.
pub const AGGREGATIONS: Table<AggregationKey, AggregationRow> =
    Table::new("aggregations", IX, 3, "rooms");
/// The threads of each room in the order of their latest reply.
pub const THREADS: Table<ThreadKey, ThreadRow> = Table::new("threads", IX, 4, "rooms");
/// How many replies each user wrote in each thread.
pub const THREAD_SENDERS: Table<ThreadSenderKey, u32> =
    Table::new("thread_senders", IX, 5, "rooms");
/// Redactions that came before what they redact: by the hash of the target.
pub const PENDING_REDACTIONS: Table<PendingRedactionKey, ()> =
    Table::new("pending_redactions", IX, 1, "rooms");

//! Tables of unread counts. Owner: `push`. Tags 16 to 23 of family `rm`, 96 to 99 of family `us`.
//!
//! A thread is named as receipts name it: `main` or the id of its root.

use kv::{Position, Table, key_structs};

use super::{RM, US};
use crate::{
    id::RoomNid,
    storage::rows::{
        TimelinePosition,
        push::{CountRow, ThreadRow},
    },
};

key_structs! {
    /// A place in a thread of a room.
    pub struct PushSumKey {
        /// The room.
        room: RoomNid,
        /// The thread.
        thread: String,
        /// The place of the event.
        place: TimelinePosition,
    }

    /// A place in a thread of a room, for one user.
    pub struct PushExceptionKey {
        /// The user id.
        user_id: String,
        /// The room.
        room: RoomNid,
        /// The thread.
        thread: String,
        /// The place of the event.
        place: TimelinePosition,
    }

    /// What a user has done in a thread of a room.
    pub struct PushOwnKey {
        /// The user id.
        user_id: String,
        /// The room.
        room: RoomNid,
        /// The thread; empty for the user's join.
        thread: String,
    }

    /// An event of a thread, in the order of the room.
    pub struct PushThreadKey {
        /// The room.
        room: RoomNid,
        /// The place of the event.
        place: TimelinePosition,
    }
}

/// How many events of a thread notify by the default rules, up to and with each that does.
pub const PUSH_SUMS: Table<PushSumKey, CountRow> = Table::new("push_sums", RM, 16, "push");
/// What was counted of events that were redacted since.
pub const PUSH_CORRECTIONS: Table<PushSumKey, CountRow> =
    Table::new("push_corrections", RM, 17, "push");
/// The events of threads other than the main timeline that notify anybody.
pub const PUSH_THREADS: Table<PushThreadKey, ThreadRow> =
    Table::new("push_threads", RM, 18, "push");
/// How much more (or less) than the default rules say is counted for one user, up to and with each
/// event where that differs.
pub const PUSH_EXCEPTIONS: Table<PushExceptionKey, CountRow> =
    Table::new("push_exceptions", US, 96, "push");
/// When a user last sent something that would notify others, and when the user joined.
pub const PUSH_OWN: Table<PushOwnKey, Position> = Table::new("push_own", US, 97, "push");

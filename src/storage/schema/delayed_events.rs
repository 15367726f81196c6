//! Tables of delayed events (MSC4140). Owner: `delayed_events`.
//!
//! The rows hold all; the other tables say which are due, whose they are and which state they wait
//! to set. All are written together.

use kv::{Json, Table, key_structs};

use super::{US, rooms::TransactionKey};
use crate::{id::RoomNid, storage::rows::delayed_events::DelayedEventRow};

key_structs! {
    /// A delayed event by the time at which it is due.
    pub struct DelayedDueKey {
        /// When, in milliseconds.
        due_ts: u64,
        /// Its id.
        delay_id: String,
    }

    /// A delayed event of a user.
    pub struct DelayedUserKey {
        /// The user id.
        user_id: String,
        /// 0: it waits; 1: it came to its end.
        finalized: u8,
        /// When it was handed in, or came to its end, in milliseconds.
        ts: u64,
        /// Its id.
        delay_id: String,
    }

    /// A state event that waits for its time in a room.
    pub struct DelayedStateKey {
        /// The room.
        room: RoomNid,
        /// Its id.
        delay_id: String,
    }
}

/// Delayed events by their id.
pub const DELAYED_EVENTS: Table<String, Json<DelayedEventRow>> =
    Table::new("delayed_events", US, 128, "delayed_events");
/// Those that wait, by when they are due.
pub const DELAYED_EVENTS_DUE: Table<DelayedDueKey, ()> =
    Table::new("delayed_events_due", US, 129, "delayed_events");
/// The delayed events of each user.
pub const DELAYED_EVENTS_BY_USER: Table<DelayedUserKey, ()> =
    Table::new("delayed_events_by_user", US, 130, "delayed_events");
/// The state events that wait, by room.
pub const DELAYED_STATES: Table<DelayedStateKey, ()> =
    Table::new("delayed_states", US, 131, "delayed_events");
/// What a client's transaction handed in, so that a retry hands in nothing more.
pub const DELAYED_TRANSACTIONS: Table<TransactionKey, Json<String>> =
    Table::new("delayed_transactions", US, 132, "delayed_events");

//! Tables of pushers and of who changed their push rules. Owner: `users`; how far each pusher is:
//! `push_gateway`. Tags 100 to 103 and 205 of family `us`.

use kv::{Json, Position, Table, key_structs};

use super::US;
use crate::{
    id::RoomNid,
    storage::rows::push::{PusherCursorRow, PusherRow},
};

key_structs! {
    /// A pusher of a user.
    pub struct PusherKey {
        /// The user id.
        user_id: String,
        /// The application.
        app_id: String,
        /// What the application's provider knows the device by.
        pushkey: String,
    }

    /// A pusher by what its gateway knows it by.
    pub struct PusherByKey {
        /// The application.
        app_id: String,
        /// What the application's provider knows the device by.
        pushkey: String,
        /// The user id.
        user_id: String,
    }

    /// A room of a user.
    pub struct PushUnmutedKey {
        /// The user id.
        user_id: String,
        /// The room.
        room: RoomNid,
    }
}

/// Pushers.
pub const PUSHERS: Table<PusherKey, Json<PusherRow>> = Table::new("pushers", US, 100, "users");
/// Pushers by application and push key.
pub const PUSHERS_BY_KEY: Table<PusherByKey, ()> = Table::new("pushers_by_key", US, 101, "users");
/// How far each pusher is.
pub const PUSHER_CURSORS: Table<PusherKey, PusherCursorRow> =
    Table::new("pusher_cursors", US, 102, "push_gateway");
/// When a user's rules began to let something of a room through that they had muted; with the room 0
/// for all rooms.
pub const PUSH_UNMUTED: Table<PushUnmutedKey, Position> =
    Table::new("push_unmuted", US, 205, "users");
/// Who changed their push rules or whom they ignore, by the position of each last change.
pub const PUSH_RULE_CHANGES: Table<Position, Vec<u8>> =
    Table::new("push_rule_changes", US, 103, "users");

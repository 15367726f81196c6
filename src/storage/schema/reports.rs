//! Tables of reports and of upgrades that are under way. Owner: `rooms`.

use kv::{Json, Position, Table, key_structs};

use super::{GL, RM};
use crate::{
    id::RoomNid,
    storage::rows::reports::{ReportRow, UpgradeRow},
};

key_structs! {
    /// An upgrade that is under way.
    pub struct UpgradeKey {
        /// The old room.
        room: RoomNid,
        /// The new version.
        version: String,
    }
}

/// Reports by when they were made.
pub const REPORTS: Table<Position, Json<ReportRow>> = Table::new("reports", GL, 56, "rooms");
/// New rooms that their old room does not point to yet.
pub const ROOM_UPGRADES: Table<UpgradeKey, Json<UpgradeRow>> =
    Table::new("room_upgrades", RM, 5, "rooms");

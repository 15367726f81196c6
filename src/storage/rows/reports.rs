//! Rows of what users report, and of upgrades that are under way.

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde::{Deserialize, Serialize};

/// Something that a user found to be inappropriate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportRow {
    /// Who reported it.
    pub reporter: OwnedUserId,
    /// When, in milliseconds.
    pub ts: u64,
    /// Why, in the reporter's words.
    pub reason: String,
    /// What.
    pub subject: ReportSubject,
}

/// What is reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportSubject {
    /// A room.
    Room(OwnedRoomId),
    /// An event of a room, and who sent it.
    Event {
        /// The room.
        room_id: OwnedRoomId,
        /// The event.
        event_id: OwnedEventId,
        /// Its sender.
        sender: OwnedUserId,
    },
    /// A user.
    User(OwnedUserId),
}

/// The room that is to replace another: it exists, and the old room does not point to it yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeRow {
    /// The new room.
    pub replacement: OwnedRoomId,
    /// Who upgrades.
    pub creator: OwnedUserId,
    /// The creators besides.
    #[serde(default)]
    pub additional_creators: Vec<OwnedUserId>,
}

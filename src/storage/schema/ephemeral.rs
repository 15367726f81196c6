//! Tables of receipts. Owner: `ephemeral`. Typing lives in memory.

use kv::{Json, Table, key_structs};
use serde::{Deserialize, Serialize};

use super::US;
use crate::id::RoomNid;

key_structs! {
    /// A receipt: one per user, kind and thread in a room.
    pub struct ReceiptKey {
        /// The room.
        room: RoomNid,
        /// The user id.
        user_id: String,
        /// `m.read` or `m.read.private`.
        kind: String,
        /// The thread: empty (unthreaded), `main` or the id of its root.
        thread: String,
    }
}

/// A receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptRow {
    /// The event that was read.
    pub event_id: ruma::OwnedEventId,
    /// When, in milliseconds.
    pub ts: ruma::MilliSecondsSinceUnixEpoch,
}

/// Receipts by room.
pub const RECEIPTS: Table<ReceiptKey, PositionedReceipt> =
    Table::new("receipts", US, 32, "ephemeral");

/// A receipt with the position of its write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PositionedReceipt {
    /// When it was written.
    pub position: kv::Position,
    /// The receipt.
    pub receipt: ReceiptRow,
}

impl kv::Value for PositionedReceipt {
    fn encode(&self, writer: &mut kv::ValueWriter) {
        writer.position(self.position);
        Json(self.receipt.clone()).encode(writer);
    }

    fn decode(reader: &mut kv::ValueReader<'_>) -> Result<Self, kv::DecodeError> {
        let position = reader.position()?;
        Ok(Self { position, receipt: Json::decode(reader)?.0 })
    }
}

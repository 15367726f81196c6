//! Tables of receipts and of presence. Owner: `ephemeral`. Typing lives in memory.
//!
//! Each receipt stands in both of its tables, written in one batch: by whose it is, so that a new one
//! replaces it, and by when it was written, so that a sync reads only what is new.

use kv::{DecodeError, Json, Position, Table, Value, ValueReader, ValueWriter, key_structs};
use ruma::OwnedEventId;
use serde::{Deserialize, Serialize};

use super::US;
use crate::{id::RoomNid, storage::rows::TimelinePosition};

key_structs! {
    /// A receipt: one per user, kind and thread in a room.
    pub struct ReceiptKey {
        /// The room.
        room: RoomNid,
        /// The user id.
        user_id: String,
        /// The kind: see [`ReceiptKind`].
        kind: u8,
        /// The thread: empty (unthreaded), `main` or the id of its root.
        thread: String,
    }

    /// A receipt by the time it was written.
    pub struct ReceiptPositionKey {
        /// The room.
        room: RoomNid,
        /// When it was written.
        position: Position,
    }
}

/// Receipts by room and user.
pub const RECEIPTS: Table<ReceiptKey, ReceiptRow> = Table::new("receipts", US, 32, "ephemeral");
/// Receipts by room and the position of their write.
pub const RECEIPTS_BY_POSITION: Table<ReceiptPositionKey, ReceiptChange> =
    Table::new("receipts_by_position", US, 33, "ephemeral");

/// What users chose of their presence, by user id.
pub const PRESENCE: Table<String, Json<PresenceRow>> = Table::new("presence", US, 85, "ephemeral");
/// The users who are shown as present: offline after a restart, which others must learn.
pub const PRESENCE_SHOWN: Table<String, ()> = Table::new("presence_shown", US, 86, "ephemeral");

/// What a user chose of their presence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceRow {
    /// The state by its number: 0 offline, 1 unavailable, 2 online, 3 busy.
    pub chosen: u8,
    /// The status message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_msg: Option<String>,
}

/// The kinds of receipts that are stored here, as they are numbered in keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ReceiptKind {
    /// `m.read`
    Read = 1,
    /// `m.read.private`: told to its owner alone.
    ReadPrivate = 2,
}

impl ReceiptKind {
    /// By its number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Read),
            2 => Some(Self::ReadPrivate),
            _ => None,
        }
    }

    /// Its name in events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "m.read",
            Self::ReadPrivate => "m.read.private",
        }
    }
}

/// What a user has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptRow {
    /// When the receipt was written.
    pub position: Position,
    /// The place of the event in the timeline; `TimelinePosition::START` when it is not known.
    pub place: TimelinePosition,
    /// The event.
    pub event_id: OwnedEventId,
    /// When the receipt was made, in milliseconds.
    pub ts: u64,
}

/// A receipt as it is told to clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptChange {
    /// Whose it is.
    pub user_id: String,
    /// The kind.
    pub kind: ReceiptKind,
    /// The thread: empty (unthreaded), `main` or the id of its root.
    pub thread: String,
    /// The event.
    pub event_id: OwnedEventId,
    /// When the receipt was made, in milliseconds.
    pub ts: u64,
}

fn read_event_id(reader: &mut ValueReader<'_>) -> Result<OwnedEventId, DecodeError> {
    OwnedEventId::try_from(reader.string()?).map_err(|_| DecodeError("an event id is malformed"))
}

impl Value for ReceiptRow {
    fn encode(&self, writer: &mut ValueWriter) {
        writer.u8(1);
        writer.position(self.position);
        writer.u8(self.place.line);
        writer.position(self.place.position);
        writer.bytes(self.event_id.as_bytes());
        writer.u64(self.ts);
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        reader.version(1)?;
        Ok(Self {
            position: reader.position()?,
            place: TimelinePosition { line: reader.u8()?, position: reader.position()? },
            event_id: read_event_id(reader)?,
            ts: reader.u64()?,
        })
    }
}

impl Value for ReceiptChange {
    fn encode(&self, writer: &mut ValueWriter) {
        writer.u8(1);
        writer.bytes(self.user_id.as_bytes());
        writer.u8(self.kind as u8);
        writer.bytes(self.thread.as_bytes());
        writer.bytes(self.event_id.as_bytes());
        writer.u64(self.ts);
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        reader.version(1)?;
        Ok(Self {
            user_id: reader.string()?,
            kind: ReceiptKind::from_number(reader.u8()?)
                .ok_or(DecodeError("a kind of receipt is unknown"))?,
            thread: reader.string()?,
            event_id: read_event_id(reader)?,
            ts: reader.u64()?,
        })
    }
}

//! Tables of application services. Owners: `appservices` (tags 32 and up of family `gl`) and
//! `appservice_sender` (tags 120 and up, and 212, of family `us`).

use std::fmt;

use kv::{DecodeError, Json, Position, Table, Value, ValueReader, ValueWriter, key_structs};
use serde::{Deserialize, Serialize};

use super::{GL, US};
use crate::id::{EventNid, RoomNid};

key_structs! {
    /// A room that an application service lists under one of its networks.
    pub struct NetworkRoomKey {
        /// The application service.
        appservice: String,
        /// The network, as the application service calls it.
        network: String,
        /// The room.
        room: RoomNid,
    }

    /// Something that waits to be sent to an application service.
    pub struct AppserviceQueueKey {
        /// The application service.
        appservice: String,
        /// When it was committed.
        position: Position,
    }

    /// Something about device lists that waits to be told to an application service.
    pub struct AppserviceDeviceListKey {
        /// The application service.
        appservice: String,
        /// When it was committed.
        position: Position,
        /// Its place among what was found at once.
        index: u32,
    }

    /// A part of the transaction that is on its way to an application service.
    pub struct AppserviceTransactionKey {
        /// The application service.
        appservice: String,
        /// The part, from 0.
        part: u16,
    }
}

/// Application services that an administrator registered, by id; those of files are not here.
pub const APPSERVICES: Table<String, Json<AppserviceRow>> =
    Table::new("appservices", GL, 32, "appservices");
/// The rooms that application services list under their networks.
pub const NETWORK_ROOMS: Table<NetworkRoomKey, ()> =
    Table::new("network_rooms", GL, 33, "appservices");
/// What waits to be sent to each application service, in its order.
pub const APPSERVICE_OUTBOX: Table<AppserviceQueueKey, QueuedRow> =
    Table::new("appservice_outbox", US, 120, "appservice_sender");
/// The transaction that is on its way to each application service: the bytes, in parts, until it is
/// acknowledged.
pub const APPSERVICE_TRANSACTIONS: Table<AppserviceTransactionKey, TransactionPartRow> =
    Table::new("appservice_transactions", US, 121, "appservice_sender");
/// Up to where commits were looked at for application services, under the key 0.
pub const APPSERVICE_CURSOR: Table<u8, Position> =
    Table::new("appservice_cursor", US, 122, "appservice_sender");

/// Whose device lists application services are to be told of, in the order of the changes.
pub const APPSERVICE_DEVICE_LISTS: Table<AppserviceDeviceListKey, DeviceListRow> =
    Table::new("appservice_device_lists", US, 212, "appservice_sender");

/// A registration. The token that the application service shows is kept as its hash alone; the one
/// that it is shown must be known.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "a registration has that many flags")]
pub struct AppserviceRow {
    /// Where it listens; `None`: it wants no requests.
    pub url: Option<String>,
    /// The hash of the token that it shows.
    pub as_token_hash: [u8; 32],
    /// The token that it is shown.
    pub hs_token: String,
    /// The localpart of its own user.
    pub sender_localpart: String,
    /// The users it is interested in.
    #[serde(default)]
    pub users: Vec<NamespaceRow>,
    /// The aliases it is interested in.
    #[serde(default)]
    pub aliases: Vec<NamespaceRow>,
    /// The rooms it is interested in.
    #[serde(default)]
    pub rooms: Vec<NamespaceRow>,
    /// Whether the rate limits hold for its users, but never for its own.
    #[serde(default)]
    pub rate_limited: bool,
    /// Whether it is sent typing, receipts and presence.
    #[serde(default)]
    pub receive_ephemeral: bool,
    /// The same under the names of MSC2409.
    #[serde(default)]
    pub msc2409: bool,
    /// Whether it is sent what encryption needs (MSC3202).
    #[serde(default)]
    pub msc3202: bool,
    /// Whether it manages devices without logging in (MSC4190).
    #[serde(default)]
    pub msc4190: bool,
    /// The networks that it bridges to.
    #[serde(default)]
    pub protocols: Vec<String>,
}

/// A namespace as it was registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceRow {
    /// Whether nobody else may make or remove what matches.
    pub exclusive: bool,
    /// The regular expression.
    pub regex: String,
}

impl fmt::Debug for AppserviceRow {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("AppserviceRow")
            .field("url", &self.url)
            .field("sender_localpart", &self.sender_localpart)
            .finish_non_exhaustive()
    }
}

/// Something that waits to be sent to an application service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueuedRow {
    /// An event.
    Event(RoomNid, EventNid),
    /// A receipt: the one of the room that was written at the key's position.
    Receipt(RoomNid),
}

impl Value for QueuedRow {
    fn encode(&self, writer: &mut ValueWriter) {
        match self {
            Self::Event(room, event) => {
                writer.u8(1);
                writer.u64(room.0);
                writer.u32(event.0);
            }
            Self::Receipt(room) => {
                writer.u8(2);
                writer.u64(room.0);
            }
        }
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        match reader.u8()? {
            1 => Ok(Self::Event(RoomNid(reader.u64()?), EventNid(reader.u32()?))),
            2 => Ok(Self::Receipt(RoomNid(reader.u64()?))),
            _ => Err(DecodeError("what waits is neither an event nor a receipt")),
        }
    }
}

/// Whose devices an application service is to look at again, or no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceListRow {
    /// The user's devices changed, or the user is new in a room that concerns it.
    Changed(String),
    /// The user is in none of its rooms any more.
    Left(String),
    /// Its users are new in the room, so that it did not know the members.
    Members(RoomNid),
}

impl Value for DeviceListRow {
    fn encode(&self, writer: &mut ValueWriter) {
        match self {
            Self::Changed(user_id) => {
                writer.u8(1);
                writer.raw(user_id.as_bytes());
            }
            Self::Left(user_id) => {
                writer.u8(2);
                writer.raw(user_id.as_bytes());
            }
            Self::Members(room) => {
                writer.u8(3);
                writer.u64(room.0);
            }
        }
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        let kind = reader.u8()?;
        if kind == 3 {
            return Ok(Self::Members(RoomNid(reader.u64()?)));
        }
        let user_id = String::from_utf8(reader.rest().to_vec());
        let user_id = user_id.map_err(|_| DecodeError("a user id is not UTF-8"))?;
        match kind {
            1 => Ok(Self::Changed(user_id)),
            2 => Ok(Self::Left(user_id)),
            _ => Err(DecodeError("an unknown change of device lists")),
        }
    }
}

/// A part of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionPartRow {
    /// The transaction's id; the same in each part.
    pub transaction_id: String,
    /// How many parts there are; the same in each.
    pub parts: u16,
    /// The body, or a part of it.
    pub body: Vec<u8>,
}

impl Value for TransactionPartRow {
    fn encode(&self, writer: &mut ValueWriter) {
        writer.u8(1);
        writer.bytes(self.transaction_id.as_bytes());
        writer.u16(self.parts);
        writer.raw(&self.body);
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        reader.version(1)?;
        let transaction_id = reader.string()?;
        let parts = reader.u16()?;
        Ok(Self { transaction_id, parts, body: reader.rest().to_vec() })
    }
}

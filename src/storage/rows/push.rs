//! Rows of unread counts and of pushers.

use kv::{DecodeError, Position, Value, ValueReader, ValueWriter};
use ruma::{OwnedDeviceId, OwnedUserId};
use serde::{Deserialize, Serialize};

/// How many events notify, and how many of them highlight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events that notify.
    pub notify: i64,
    /// Events that highlight.
    pub highlight: i64,
}

impl Counts {
    /// Nothing.
    pub const ZERO: Self = Self { notify: 0, highlight: 0 };

    fn write(self, writer: &mut ValueWriter) {
        writer.i64(self.notify);
        writer.i64(self.highlight);
    }

    fn read(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { notify: reader.i64()?, highlight: reader.i64()? })
    }
}

impl std::ops::Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            notify: self.notify.saturating_add(other.notify),
            highlight: self.highlight.saturating_add(other.highlight),
        }
    }
}

impl std::ops::Sub for Counts {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            notify: self.notify.saturating_sub(other.notify),
            highlight: self.highlight.saturating_sub(other.highlight),
        }
    }
}

/// A running sum, and what the event of this row added to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CountRow {
    /// The sum with the event.
    pub total: Counts,
    /// The event alone.
    pub own: Counts,
}

impl Value for CountRow {
    fn encode(&self, writer: &mut ValueWriter) {
        writer.u8(1);
        self.total.write(writer);
        self.own.write(writer);
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        reader.version(1)?;
        Ok(Self { total: Counts::read(reader)?, own: Counts::read(reader)? })
    }
}

/// Which thread an event is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadRow {
    /// The id of the thread's root.
    pub root: String,
}

impl Value for ThreadRow {
    fn encode(&self, writer: &mut ValueWriter) {
        writer.u8(1);
        writer.bytes(self.root.as_bytes());
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        reader.version(1)?;
        Ok(Self { root: reader.string()? })
    }
}

/// A pusher: where a user's notifications go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PusherRow {
    /// Whose it is.
    pub user_id: OwnedUserId,
    /// The device that set it: they end together.
    pub device_id: OwnedDeviceId,
    /// When it was made: positions up to this one are not told.
    pub since: u64,
    /// When it was last set, in milliseconds.
    pub set_ts: u64,
    /// The name of the application.
    pub app_display_name: String,
    /// The name of the device.
    pub device_display_name: String,
    /// The language.
    pub lang: String,
    /// Which of the device's rules are meant; kept for clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile_tag: Option<String>,
    /// Where to: the address of the gateway.
    pub url: String,
    /// How much of an event is told; `None`: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// What else the client wants its gateway to know.
    #[serde(default)]
    pub data: serde_json::Map<String, serde_json::Value>,
}

/// How far a pusher is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PusherCursorRow {
    /// The pusher's `since`: a pusher that was made anew begins anew.
    pub since: u64,
    /// Everything up to here is dealt with.
    pub position: Position,
    /// How often the gateway has failed in a row.
    pub failures: u32,
    /// The unread count that was last told.
    pub badge: u64,
}

impl Value for PusherCursorRow {
    fn encode(&self, writer: &mut ValueWriter) {
        writer.u8(1);
        writer.u64(self.since);
        writer.position(self.position);
        writer.u32(self.failures);
        writer.u64(self.badge);
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        reader.version(1)?;
        Ok(Self {
            since: reader.u64()?,
            position: reader.position()?,
            failures: reader.u32()?,
            badge: reader.u64()?,
        })
    }
}

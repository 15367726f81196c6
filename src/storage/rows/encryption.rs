//! Rows of end-to-end encryption.

use kv::{DecodeError, Position, Value, ValueReader, ValueWriter};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A one-time key that waits to be claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneTimeKeyRow {
    /// Its id, without the algorithm.
    pub key_id: String,
    /// The key as JSON: an object, or a string for an algorithm without signatures.
    pub key: Vec<u8>,
}

/// What is known of a one-time key by its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneTimeKeyIdRow {
    /// The SHA-256 of the key's canonical JSON.
    pub hash: [u8; 32],
    /// When it was uploaded.
    pub position: Position,
    /// Its place among those that were uploaded with it.
    pub index: u16,
    /// Whether it was handed out; otherwise it waits.
    pub handed_out: bool,
}

/// A fallback key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FallbackKeyRow {
    /// Its id, without the algorithm.
    pub key_id: String,
    /// The key as JSON.
    pub key: Vec<u8>,
    /// Whether it was handed out.
    pub used: bool,
}

/// A message for a device that waits for an application service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppserviceMessageRow {
    /// Whether it counts as one that waits for the device, which does not get it otherwise.
    pub counted: bool,
    /// The event as JSON, as the device gets it.
    pub event: Vec<u8>,
}

/// A version of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupVersionRow {
    /// Counts the changes of its keys.
    pub etag: u64,
    /// How many keys it holds.
    pub count: u64,
    /// What they come to, in bytes.
    pub size_bytes: u64,
    /// Whether it was deleted, so that nothing but its number is left.
    pub deleted: bool,
    /// The algorithm.
    pub algorithm: String,
    /// What the algorithm needs, as JSON.
    pub auth_data: Vec<u8>,
}

/// A key in a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupKeyRow {
    /// The index of the first message that it decrypts.
    pub first_message_index: u64,
    /// How often it was forwarded.
    pub forwarded_count: u64,
    /// Whether the device verified where it is from.
    pub is_verified: bool,
    /// The encrypted key as JSON.
    pub session_data: Vec<u8>,
}

/// A dehydrated device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DehydratedDeviceRow {
    /// Its id.
    pub device_id: String,
    /// What a new device needs to read its messages, encrypted by the client.
    pub device_data: Box<RawValue>,
    /// What it is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
}

impl PartialEq for DehydratedDeviceRow {
    fn eq(&self, other: &Self) -> bool {
        let Self { device_id, device_data, display_name } = self;
        *device_id == other.device_id
            && device_data.get() == other.device_data.get()
            && *display_name == other.display_name
    }
}

impl Value for OneTimeKeyRow {
    fn encode(&self, writer: &mut ValueWriter) {
        writer.u8(1);
        writer.bytes(self.key_id.as_bytes());
        writer.raw(&self.key);
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        reader.version(1)?;
        Ok(Self { key_id: reader.string()?, key: reader.rest().to_vec() })
    }
}

impl Value for OneTimeKeyIdRow {
    fn encode(&self, writer: &mut ValueWriter) {
        writer.u8(1);
        writer.raw(&self.hash);
        writer.position(self.position);
        writer.u16(self.index);
        writer.u8(self.handed_out.into());
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        reader.version(1)?;
        let hash = reader.array()?;
        let (position, index) = (reader.position()?, reader.u16()?);
        Ok(Self { hash, position, index, handed_out: reader.u8()? != 0 })
    }
}

impl Value for FallbackKeyRow {
    fn encode(&self, writer: &mut ValueWriter) {
        writer.u8(1);
        writer.u8(self.used.into());
        writer.bytes(self.key_id.as_bytes());
        writer.raw(&self.key);
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        reader.version(1)?;
        let used = reader.u8()? != 0;
        Ok(Self { used, key_id: reader.string()?, key: reader.rest().to_vec() })
    }
}

impl Value for AppserviceMessageRow {
    fn encode(&self, writer: &mut ValueWriter) {
        writer.u8(1);
        writer.u8(self.counted.into());
        writer.raw(&self.event);
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        reader.version(1)?;
        let counted = reader.u8()? != 0;
        Ok(Self { counted, event: reader.rest().to_vec() })
    }
}

impl Value for BackupVersionRow {
    fn encode(&self, writer: &mut ValueWriter) {
        writer.u8(1);
        writer.u64(self.etag);
        writer.u64(self.count);
        writer.u64(self.size_bytes);
        writer.u8(self.deleted.into());
        writer.bytes(self.algorithm.as_bytes());
        writer.raw(&self.auth_data);
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        reader.version(1)?;
        Ok(Self {
            etag: reader.u64()?,
            count: reader.u64()?,
            size_bytes: reader.u64()?,
            deleted: reader.u8()? != 0,
            algorithm: reader.string()?,
            auth_data: reader.rest().to_vec(),
        })
    }
}

impl Value for BackupKeyRow {
    fn encode(&self, writer: &mut ValueWriter) {
        writer.u8(1);
        writer.u64(self.first_message_index);
        writer.u64(self.forwarded_count);
        writer.u8(self.is_verified.into());
        writer.raw(&self.session_data);
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        reader.version(1)?;
        Ok(Self {
            first_message_index: reader.u64()?,
            forwarded_count: reader.u64()?,
            is_verified: reader.u8()? != 0,
            session_data: reader.rest().to_vec(),
        })
    }
}

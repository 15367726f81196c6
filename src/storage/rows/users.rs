//! Rows of accounts and all that is a user's. No token is stored, only hashes of tokens.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use kv::{DecodeError, Position, Value, ValueReader, ValueWriter};
use ruma::{OwnedDeviceId, OwnedUserId};
use serde::{Deserialize, Serialize};

/// An account.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct AccountRow {
    /// When it was made, in milliseconds.
    pub created_ts: u64,
    /// The password's hash in PHC form; an account without one cannot log in by password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_hash: Option<String>,
    /// Whether the user may administer the server.
    #[serde(default)]
    pub admin: bool,
    /// Since when the account is deactivated, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deactivated_ts: Option<u64>,
    /// Whether the user asked to be forgotten by those who do not know them yet.
    #[serde(default)]
    pub erased: bool,
    /// Whether the account is a guest's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub guest: bool,
    /// Whether an administrator locked it: nothing can be done with it but logging out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub locked: bool,
    /// Whether an administrator suspended it: it can read, and little else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspended: bool,
    /// The terms that were accepted at registration: the version of each policy.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub accepted_terms: BTreeMap<String, String>,
}

impl fmt::Debug for AccountRow {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("AccountRow")
            .field("created_ts", &self.created_ts)
            .field("has_password", &self.password_hash.is_some())
            .field("admin", &self.admin)
            .field("deactivated_ts", &self.deactivated_ts)
            .field("erased", &self.erased)
            .field("guest", &self.guest)
            .field("locked", &self.locked)
            .field("suspended", &self.suspended)
            .finish_non_exhaustive()
    }
}

/// A profile: its fields by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProfileRow(pub BTreeMap<String, serde_json::Value>);

/// A device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRow {
    /// The name people know it by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// When it first logged in, in milliseconds.
    pub created_ts: u64,
    /// Counts the changes of its tokens, so that each change rewrites the row.
    pub revision: u64,
}

/// When and where from a device was last seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSeenRow {
    /// When, in milliseconds.
    pub ts: u64,
    /// Where from.
    pub address: IpAddr,
}

/// A session: what an access token stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessTokenRow {
    /// Whose.
    pub user_id: OwnedUserId,
    /// Of which device.
    pub device_id: OwnedDeviceId,
    /// Until when it is good, in milliseconds; `None`: until it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ts: Option<u64>,
    /// The access token that it replaces and that ends when this one is first used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<[u8; 32]>,
    /// Whether it was ever used; kept only for tokens that can be refreshed.
    #[serde(default)]
    pub used: bool,
}

/// The refresh tokens that one login brought forth, each replacing the one before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshFamilyRow {
    /// Whose.
    pub user_id: OwnedUserId,
    /// Of which device.
    pub device_id: OwnedDeviceId,
    /// The hash of the newest token.
    pub current: [u8; 32],
    /// The hash of the one before: good until the newest, or its access token, is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<[u8; 32]>,
    /// The hash of the access token that came with the newest.
    pub access: [u8; 32],
    /// When the newest was given out, in milliseconds.
    pub rotated_ts: u64,
}

/// A registration token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrationTokenRow {
    /// How many accounts it may make; `None`: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses_allowed: Option<u64>,
    /// How many accounts it made.
    #[serde(default)]
    pub uses: u64,
    /// Until when it is good, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ts: Option<u64>,
}

/// One type of account data, or a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountDataRow {
    /// When it was written.
    pub position: Position,
    /// How many parts there are; the same in each.
    pub parts: u16,
    /// The JSON, or a part of it.
    pub content: Vec<u8>,
}

impl Value for AccountDataRow {
    fn encode(&self, writer: &mut ValueWriter) {
        writer.u8(1);
        writer.position(self.position);
        writer.u16(self.parts);
        writer.raw(&self.content);
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        reader.version(1)?;
        let position = reader.position()?;
        let parts = reader.u16()?;
        Ok(Self { position, parts, content: reader.rest().to_vec() })
    }
}

/// Whether a user follows a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadSubscriptionRow {
    /// When it became so.
    pub position: Position,
    /// Whether the user follows it; else the user did.
    pub subscribed: bool,
    /// Whether a client decided that, and not the user.
    pub automatic: bool,
}

impl Value for ThreadSubscriptionRow {
    fn encode(&self, writer: &mut ValueWriter) {
        writer.u8(1);
        writer.position(self.position);
        writer.u8(u8::from(self.subscribed) | u8::from(self.automatic) << 1);
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        reader.version(1)?;
        let position = reader.position()?;
        let bits = reader.u8()?;
        Ok(Self { position, subscribed: bits & 1 != 0, automatic: bits & 2 != 0 })
    }
}

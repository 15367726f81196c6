//! Tables of the server itself: its identity and its signing keys. Owner: `server_keys`.

use kv::{Json, Table};
use serde::{Deserialize, Serialize};

use super::GL;

/// Facts of the database that are made once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityRow {
    /// The server's name; a database serves one name for ever.
    pub server_name: ruma::OwnedServerName,
    /// The secret of the interned numbers.
    pub interner: [u8; 16],
    /// Changed by every restore: tokens of another epoch lead to a full sync.
    pub epoch: u64,
    /// The version of the tables.
    pub schema_version: u32,
}

/// A signing key of this server.
#[derive(Clone, Serialize, Deserialize)]
pub struct SigningKeyRow {
    /// The key pair as a PKCS#8 document (version 1 or 2).
    pub der: Vec<u8>,
    /// The key's version: what follows `ed25519:` in its id.
    pub version: String,
    /// When it was made, in milliseconds.
    pub created_ts: u64,
    /// Since when it signs no more, in milliseconds.
    pub expired_ts: Option<u64>,
}

/// The identity, under the key 0.
pub const IDENTITY: Table<u8, Json<IdentityRow>> = Table::new("identity", GL, 0, "storage");
/// The signing keys by version.
pub const SIGNING_KEYS: Table<String, Json<SigningKeyRow>> =
    Table::new("signing_keys", GL, 1, "federation");

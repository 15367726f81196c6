//! Rows of what proves or belongs to an account beside its sessions. Of tokens and secrets only
//! hashes are stored.

use std::fmt;

use kv::{DecodeError, Position, Value, ValueReader, ValueWriter};
use ruma::OwnedUserId;
use serde::{Deserialize, Serialize};

/// Whose something is: a token that lives for a short while, an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerRow {
    /// Whose.
    pub user_id: OwnedUserId,
}

/// Whom a login token logs in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginTokenRow {
    /// Whom.
    pub user_id: OwnedUserId,
    /// The hash of the password as it is stored, when the token was made; `None`: there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<[u8; 32]>,
}

/// An address of a third party, such as an e-mail address, that belongs to an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThirdPartyIdRow {
    /// When the user proved to have it, in milliseconds.
    pub validated_ts: u64,
    /// When it came to the account, in milliseconds.
    pub added_ts: u64,
}

/// That a user asked to be erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErasureRow {
    /// When: whoever joined a room before has seen what there was.
    pub position: Position,
}

impl Value for ErasureRow {
    fn encode(&self, writer: &mut ValueWriter) {
        writer.u8(1);
        writer.position(self.position);
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        reader.version(1)?;
        Ok(Self { position: reader.position()? })
    }
}

/// What the proof of an e-mail address is for; a proof is good for nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmailPurpose {
    /// To make an account.
    Register,
    /// To add the address to an account.
    Add,
    /// To set a new password.
    ResetPassword,
}

/// Somebody proves to have an e-mail address.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmailSessionRow {
    /// What for.
    pub purpose: EmailPurpose,
    /// The address.
    pub address: String,
    /// The hash of the token in the mail; `None`: the mail tells that nothing can be proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<[u8; 32]>,
    /// The client's number of the last request that sent a mail.
    pub send_attempt: u64,
    /// How many wrong tokens were shown.
    #[serde(default)]
    pub failures: u32,
    /// When it was proven, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validated_ts: Option<u64>,
    /// Until when all this is good, in milliseconds.
    pub expires_ts: u64,
}

impl fmt::Debug for EmailSessionRow {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("EmailSessionRow")
            .field("purpose", &self.purpose)
            .field("validated_ts", &self.validated_ts)
            .field("expires_ts", &self.expires_ts)
            .finish_non_exhaustive()
    }
}

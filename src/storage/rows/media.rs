//! Rows of files, their contents and thumbnails, and of previews.

use ruma::OwnedUserId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A file as users name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaRow {
    /// What it is here.
    pub kind: MediaKind,
    /// When it was uploaded, promised or fetched, in milliseconds.
    pub created_ts: u64,
    /// Who uploaded it, of this server's users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uploader: Option<OwnedUserId>,
    /// The hash of its content; `None` while it is only promised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob: Option<[u8; 32]>,
    /// How large it is, in bytes.
    #[serde(default)]
    pub size_bytes: u64,
    /// What it claims to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// What it was called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
    /// Until when the promise is good, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ts: Option<u64>,
    /// Since when an administrator withholds it, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantined_ts: Option<u64>,
}

/// What a file is to this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MediaKind {
    /// Uploaded by one of its users.
    Local,
    /// A copy of another server's.
    Remote,
    /// The picture of a preview.
    Preview,
}

/// A content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRow {
    /// Its name in the object store.
    pub file: String,
    /// How large it is, in bytes.
    pub size_bytes: u64,
    /// How many rows of `media` name it.
    pub uses: u64,
}

/// A thumbnail, or that there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThumbnailRow {
    /// When it was made or refused, in milliseconds.
    pub created_ts: u64,
    /// Its name in the object store; `None`: the content is no picture that can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// How large it is, in bytes.
    #[serde(default)]
    pub size_bytes: u64,
    /// Its type.
    #[serde(default)]
    pub content_type: String,
}

/// What a user's files come to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaUsageRow {
    /// How many there are.
    pub files: u64,
    /// Their bytes together, each file counted by itself.
    pub bytes: u64,
    /// Counts the changes, so that two at once conflict.
    pub revision: u64,
}

/// A preview.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PreviewRow {
    /// When it was made, in milliseconds.
    pub created_ts: u64,
    /// What is answered.
    pub fields: Map<String, Value>,
}

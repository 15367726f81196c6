//! Tables of files. Owner: `media`. Tags 40 to 55 of family `gl`, 136 to 143 of family `us`.
//!
//! What users name (an origin and a media id) and what is stored (a content, by its hash) are two
//! things: the same content is stored once however often it was uploaded.

use kv::{Json, Table, key_structs};

use super::{GL, US};
use crate::storage::rows::media::{BlobRow, MediaRow, MediaUsageRow, PreviewRow, ThumbnailRow};

key_structs! {
    /// A file as users name it: `mxc://origin/media_id`.
    pub struct MediaKey {
        /// The server it comes from.
        origin: String,
        /// Its name there.
        media_id: String,
    }

    /// A thumbnail of a content.
    pub struct ThumbnailKey {
        /// The hash of the content.
        hash: [u8; 32],
        /// In pixels, as asked for; 0: as wide as the content.
        width: u32,
        /// In pixels, as asked for; 0: as high as the content.
        height: u32,
        /// 0: scaled; 1: cropped; 2 more if it is animated.
        method: u8,
    }

    /// A file of a user, in the order of their uploads.
    pub struct UserMediaKey {
        /// The user id.
        user_id: String,
        /// When it was uploaded or promised, in milliseconds.
        created_ts: u64,
        /// The media id; the origin is this server.
        media_id: String,
    }

    /// A copy of another server's file, in the order of their last use.
    pub struct RemoteUseKey {
        /// When it was fetched or last read, in milliseconds: what `media_access` says, if it says
        /// more than the row.
        used_ts: u64,
        /// The server it comes from.
        origin: String,
        /// Its name there.
        media_id: String,
    }

    /// An address that waits for its file.
    pub struct PendingMediaKey {
        /// The user id.
        user_id: String,
        /// The media id; the origin is this server.
        media_id: String,
    }
}

/// Files as users name them.
pub const MEDIA: Table<MediaKey, Json<MediaRow>> = Table::new("media", GL, 40, "media");
/// Contents by their SHA-256.
pub const BLOBS: Table<[u8; 32], Json<BlobRow>> = Table::new("blobs", GL, 41, "media");
/// Files in the object store that no row names: being written, or to be removed. Those found at the
/// start are removed.
pub const UNSETTLED_FILES: Table<String, ()> = Table::new("unsettled_files", GL, 42, "media");
/// Thumbnails of contents.
pub const THUMBNAILS: Table<ThumbnailKey, Json<ThumbnailRow>> =
    Table::new("thumbnails", GL, 43, "media");
/// When a file was last read, in milliseconds; coarse.
pub const MEDIA_ACCESS: Table<MediaKey, i64> = Table::new("media_access", GL, 44, "media");
/// Previews by the SHA-256 of their address.
pub const PREVIEWS: Table<[u8; 32], Json<PreviewRow>> = Table::new("previews", GL, 45, "media");
/// Copies of other servers' files that may be removed for others, with their bytes. What an
/// administrator withholds is not among them.
pub const REMOTE_MEDIA_BY_USE: Table<RemoteUseKey, i64> =
    Table::new("remote_media_by_use", GL, 46, "media");
/// What they come to in bytes: one row, the sum of the index.
pub const REMOTE_MEDIA_BYTES: Table<(), i64> = Table::new("remote_media_bytes", GL, 47, "media");
/// The files of each user.
pub const USER_MEDIA: Table<UserMediaKey, ()> = Table::new("user_media", US, 136, "media");
/// What each user's files come to. Whatever changes the number of a user's files rewrites the row.
pub const MEDIA_USAGE: Table<String, Json<MediaUsageRow>> =
    Table::new("media_usage", US, 137, "media");
/// Addresses that wait for their file, with when they expire, in milliseconds.
pub const PENDING_MEDIA: Table<PendingMediaKey, i64> =
    Table::new("pending_media", US, 138, "media");

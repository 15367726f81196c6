//! The section `[media]`: where files lie that users upload, how large and how many they may be, and
//! how long they are kept.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use url::Url;

use super::Secret;

/// Where files lie that users upload, how large and how many they may be, and how long they are kept.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct MediaConfig {
    /// The folder of the files. Without it they lie in the folder `media` beside that of the
    /// database. Not used once `s3_bucket` is set.
    ///
    /// Example: `"/var/lib/causerie/media"`
    pub path: Option<PathBuf>,

    /// The bucket of an S3 store that holds the files instead of a folder. It must be this server's
    /// alone, and needs a rule that ends incomplete uploads after some days.
    ///
    /// Example: `"media"`
    pub s3_bucket: Option<String>,

    /// The address of the S3 store; without it Amazon's.
    ///
    /// Example: `"https://s3.example.org"`
    pub s3_endpoint: Option<Url>,

    /// The region of the bucket.
    pub s3_region: String,

    /// What the names of the files begin with, so that one bucket may hold something else too.
    pub s3_prefix: String,

    /// The name of the access key; without it, and without `s3_secret_access_key`, the machine's own
    /// role is used.
    ///
    /// Example: `"AKIAEXAMPLE"`
    pub s3_access_key_id: Option<Secret>,

    /// The secret of the access key.
    ///
    /// Example: `"a-secret"`
    pub s3_secret_access_key: Option<Secret>,

    /// The largest file, in bytes.
    pub upload_size_bytes_max: u64,

    /// The bytes that the files of one user may have together; 0 for any number.
    pub user_bytes_max: u64,

    /// The files that one user may have; 0 for any number.
    pub user_files_max: u64,

    /// A page that tells users about the limits above; clients show it to who exceeds one.
    ///
    /// Example: `"https://example.org/limits"`
    pub limits_info_url: Option<Url>,

    /// The addresses that a user may have asked for without having uploaded the file.
    pub pending_uploads_max: usize,

    /// How long such an address waits for its file, in milliseconds.
    pub pending_upload_lifetime_ms: u64,

    /// Whether files are also given to those who do not say who they are, at the addresses of before
    /// version 1.11 of the specification. Old clients and bridges need it; everybody else who learns
    /// the address of a file can then read it.
    pub legacy_unauthenticated: bool,

    /// The sizes in which thumbnails are made. `method` is `"crop"` (cut to that size) or `"scale"`
    /// (made to fit in it).
    pub thumbnail_sizes: Vec<ThumbnailSize>,

    /// Whether thumbnails are made in every size that a client asks for. They take more room then.
    pub dynamic_thumbnails: bool,

    /// How many thumbnails are made at once, each in a process of its own with at most 256 MiB.
    pub thumbnail_processes_max: usize,

    /// The program that makes thumbnails; without it this one.
    ///
    /// Example: `"/usr/bin/causerie"`
    pub thumbnail_program: Option<PathBuf>,

    /// After how many days files of this server's users are removed; 0 for never.
    pub local_kept_days: u64,

    /// After how many days without a download files of this server's users are removed; 0 for never.
    pub local_unused_days: u64,

    /// The largest file of another server that is fetched, in bytes.
    pub remote_size_bytes_max: u64,

    /// How many files of other servers are fetched at once for one user, and for one address.
    /// Whoever wants more waits for as long as the client says, 20 seconds by default.
    pub remote_fetches_max: usize,

    /// The bytes that copies of other servers' files may have together; 0 for any number. Those that
    /// were read the longest ago are removed for new ones.
    pub remote_cache_bytes_max: u64,

    /// The share of the disk of the files, in percent, that copies of other servers' files leave
    /// free; 0 for none. When less is free, they are removed, and none are fetched once none are
    /// left. Uploads are not concerned. Not used once `s3_bucket` is set.
    pub remote_disk_free_percent_min: u8,

    /// After how many days copies of other servers' files are removed; 0 for never.
    pub remote_kept_days: u64,

    /// After how many days without a download copies of other servers' files are removed; 0 for never.
    pub remote_unused_days: u64,
}

/// A size of thumbnails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ThumbnailSize {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// How a picture comes to it.
    pub method: ThumbnailMethod,
}

/// How a picture becomes a thumbnail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ThumbnailMethod {
    /// Cut to the shape that is asked for.
    Crop,
    /// Made to fit in what is asked for.
    Scale,
}

impl Default for MediaConfig {
    fn default() -> Self {
        use ThumbnailMethod::{Crop, Scale};
        let size = |width, height, method| ThumbnailSize { width, height, method };
        Self {
            path: None,
            s3_bucket: None,
            s3_endpoint: None,
            s3_region: "us-east-1".to_owned(),
            s3_prefix: String::new(),
            s3_access_key_id: None,
            s3_secret_access_key: None,
            upload_size_bytes_max: 50 * 1024 * 1024,
            user_bytes_max: 0,
            user_files_max: 0,
            limits_info_url: None,
            pending_uploads_max: 5,
            pending_upload_lifetime_ms: 24 * 60 * 60 * 1_000,
            legacy_unauthenticated: false,
            thumbnail_sizes: vec![
                size(32, 32, Crop),
                size(96, 96, Crop),
                size(320, 240, Scale),
                size(640, 480, Scale),
                size(800, 600, Scale),
            ],
            dynamic_thumbnails: false,
            thumbnail_processes_max: 2,
            thumbnail_program: None,
            local_kept_days: 0,
            local_unused_days: 0,
            remote_size_bytes_max: 100 * 1024 * 1024,
            remote_fetches_max: 6,
            remote_cache_bytes_max: 10 * 1024 * 1024 * 1024,
            remote_disk_free_percent_min: 10,
            remote_kept_days: 0,
            remote_unused_days: 90,
        }
    }
}

//! The section `[url_previews]`: what the server fetches to show what is behind an address.

use serde::{Deserialize, Serialize};

/// Previews of the pages behind addresses in messages. To make one the server fetches the page, so
/// whoever runs it learns that somebody here was told of it. See `[egress]` for where it may go.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct UrlPreviewsConfig {
    /// Whether there are previews at all.
    pub enabled: bool,

    /// The only addresses that are fetched; all, when the list is empty. A pattern with `://` is for
    /// the whole address, another one for its host alone; `*` stands for anything.
    pub allowed_urls: Vec<String>,

    /// Addresses that are never fetched, also where another one leads there.
    ///
    /// Example: `["*.internal.example.org", "https://example.org/private/*"]`
    pub denied_urls: Vec<String>,

    /// How much of a page is read, in bytes.
    pub page_size_bytes_max: usize,

    /// The largest picture of a page, in bytes.
    pub image_size_bytes_max: usize,

    /// How long a preview may take to make, in milliseconds.
    pub timeout_ms: u64,

    /// How often an address may lead to another one.
    pub redirects_max: usize,

    /// How long a preview is good, in milliseconds.
    pub cache_lifetime_ms: u64,

    /// How many days the pictures of previews are kept.
    pub images_kept_days: u64,
}

impl Default for UrlPreviewsConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            allowed_urls: Vec::new(),
            denied_urls: Vec::new(),
            page_size_bytes_max: 1024 * 1024,
            image_size_bytes_max: 10 * 1024 * 1024,
            timeout_ms: 10_000,
            redirects_max: 5,
            cache_lifetime_ms: 60 * 60 * 1_000,
            images_kept_days: 7,
        }
    }
}

//! The server-server API. So far: what other servers read without authenticating, and files.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/>

mod auth;
pub mod discovery;
pub mod media;
pub mod openid;

use std::sync::Arc;

use http::Method;
use kv::Store;

use crate::{
    config::{RateLimit, RateLimitsConfig},
    federation::{client::Federation, server_keys::Signer},
    http::{RateLimiter, Routes},
    media::Media,
    time::Clock,
};

const DOWNLOAD: &str = "/_matrix/federation/v1/media/download/{media_id}";
const THUMBNAIL: &str = "/_matrix/federation/v1/media/thumbnail/{media_id}";

/// What the handlers of this API need.
#[derive(Debug)]
pub struct FederationApi {
    /// The store.
    pub store: Store,
    /// The server's name and key.
    pub signer: Arc<Signer>,
    /// Other servers.
    pub federation: Federation,
    /// Files.
    pub media: Media,
    /// How often they may ask.
    pub limits: ServerLimits,
    /// The time.
    pub clock: Clock,
}

/// What bounds the requests of one other server.
pub struct ServerLimits {
    /// All that it asks for.
    pub requests: RateLimiter,
    /// Thumbnails that have to be made for it.
    pub thumbnails: RateLimiter,
}

impl ServerLimits {
    /// From the configuration.
    pub fn new(config: &RateLimitsConfig) -> Self {
        let limiter = |name, limit: &RateLimit| RateLimiter::of(config, name, limit);
        Self {
            requests: limiter("federation_requests", &config.federation_requests),
            thumbnails: limiter("thumbnails", &config.thumbnails),
        }
    }
}

impl std::fmt::Debug for ServerLimits {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("ServerLimits")
    }
}

/// All routes of this API.
pub fn routes(state: Arc<FederationApi>) -> Routes<FederationApi> {
    Routes::new(state)
        .add(discovery::get_server_keys)
        .add(discovery::get_server_version)
        .add_raw(&Method::GET, &[DOWNLOAD], media::get_content)
        .add_raw(&Method::GET, &[THUMBNAIL], media::get_content_thumbnail)
}

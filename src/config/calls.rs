//! The section `[calls]`: the servers that carry voice and video.

use serde::{Deserialize, Serialize};
use url::Url;

use super::Secret;

/// The servers that carry voice and video. Causerie only tells clients where they are and, for
/// TURN, makes passwords that expire.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct CallsConfig {
    /// The TURN server for calls between two.
    ///
    /// Example: `["turn:turn.example.org?transport=udp", "turns:turn.example.org"]`
    pub turn_uris: Vec<String>,

    /// The secret shared with the TURN server (`static-auth-secret` of coturn): each user gets a
    /// name and password of their own that expire.
    ///
    /// Example: `"a-long-random-text"`
    pub turn_secret: Option<Secret>,

    /// A name at the TURN server that all users share, where there is no `turn_secret`.
    ///
    /// Example: `"matrix"`
    pub turn_username: Option<String>,

    /// The password of `turn_username`.
    ///
    /// Example: `"a-long-random-text"`
    pub turn_password: Option<Secret>,

    /// How long a name and password are good for. In milliseconds.
    pub turn_lifetime_ms: u64,

    /// The LiveKit service (`lk-jwt-service`) for calls of many, as Element Call uses it.
    ///
    /// Example: `"https://livekit.example.org"`
    pub livekit_service_url: Option<Url>,
}

impl Default for CallsConfig {
    fn default() -> Self {
        Self {
            turn_uris: Vec::new(),
            turn_secret: None,
            turn_username: None,
            turn_password: None,
            turn_lifetime_ms: 24 * 60 * 60 * 1000,
            livekit_service_url: None,
        }
    }
}

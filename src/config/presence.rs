//! The section `[presence]`: whether people see who is there.

use serde::{Deserialize, Serialize};

/// Whether people see of those they share a room with who is online, busy or away, and what they
/// say of it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct PresenceConfig {
    /// Whether the server keeps presence and tells it. Without it everybody is shown as offline.
    pub enabled: bool,
}

impl Default for PresenceConfig {
    fn default() -> Self {
        Self { enabled: true }
    }
}

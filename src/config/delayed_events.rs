//! The section `[delayed_events]`: events that are sent later (MSC4140).

use serde::{Deserialize, Serialize};

/// Events that clients hand in now and that are sent later: calls use them to leave a call whose
/// client went away.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DelayedEventsConfig {
    /// How long an event may wait, in seconds.
    pub delay_seconds_max: u64,
    /// How many events of one user may wait at a time.
    pub scheduled_per_user_max: usize,
}

impl Default for DelayedEventsConfig {
    fn default() -> Self {
        Self { delay_seconds_max: 24 * 60 * 60, scheduled_per_user_max: 100 }
    }
}

//! The section `[login]`: the ways to log in.

use serde::{Deserialize, Serialize};

/// The ways to log in beside the password.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoginConfig {
    /// Whether a client that is logged in may log in another one of the same user, with a token
    /// that is good once and for two minutes. The password is asked for first.
    pub tokens: bool,
}

impl Default for LoginConfig {
    fn default() -> Self {
        Self { tokens: true }
    }
}

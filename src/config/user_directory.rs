//! The section `[user_directory]`: whom people find when they look for somebody.

use serde::{Deserialize, Serialize};

/// Whom people find when they look for somebody by name.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct UserDirectoryConfig {
    /// Whether everybody with an account here finds everybody else: right for a company, where
    /// people look for colleagues whom they never wrote with. Without it people find only those
    /// with whom they share a room, and those who are in a room that is open to all. Guests find
    /// nobody in either case.
    pub search_all_users: bool,
}

impl Default for UserDirectoryConfig {
    fn default() -> Self {
        Self { search_all_users: true }
    }
}

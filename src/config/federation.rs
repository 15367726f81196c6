//! The section `[federation]`: which other servers this one talks with.

use ruma::{OwnedServerName, ServerName};
use serde::{Deserialize, Serialize};

/// Which other servers this one asks, and answers.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct FederationConfig {
    /// Whether it talks with any. Without, its listeners answer clients alone.
    pub enabled: bool,

    /// If there are any here: these servers and no others.
    ///
    /// Example: `["partner.example.org"]`
    pub allowed_servers: Vec<OwnedServerName>,
}

impl Default for FederationConfig {
    fn default() -> Self {
        Self { enabled: true, allowed_servers: Vec::new() }
    }
}

impl FederationConfig {
    /// Whether this server talks with another.
    pub fn allows(&self, server: &ServerName) -> bool {
        let is_listed =
            |listed: &OwnedServerName| listed.as_str().eq_ignore_ascii_case(server.as_str());
        self.enabled
            && (self.allowed_servers.is_empty() || self.allowed_servers.iter().any(is_listed))
    }
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;

    #[test]
    fn all_servers_or_those_that_are_listed() {
        let (one, other) = (server_name!("one.example"), server_name!("other.example"));
        let mut config = FederationConfig::default();
        assert!(config.allows(one) && config.allows(other));
        config.allowed_servers = vec![server_name!("ONE.example").to_owned()];
        assert!(config.allows(one) && !config.allows(other));
        config.enabled = false;
        assert!(!config.allows(one));
    }
}

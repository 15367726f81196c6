//! The section `[egress]`: where the server's own requests may go.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Network;

/// Where requests may go that the server makes because a user or another server asked for it:
/// previews of addresses, push gateways, files of other servers and the like. Without settings they
/// reach public addresses only, never the networks that the server itself stands in.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct EgressConfig {
    /// Networks that may be reached although they are not public, such as that of a push gateway
    /// of your own.
    ///
    /// Example: `["10.1.2.3", "fd00:1::/64"]`
    pub allowed_networks: Vec<Network>,

    /// Networks that may not be reached although they are public.
    pub denied_networks: Vec<Network>,

    /// Files with certificates (PEM) that are trusted besides those of the system: of authorities
    /// of your own network.
    ///
    /// Example: `["/etc/ssl/our-ca.pem"]`
    pub trusted_certificates: Vec<PathBuf>,
}

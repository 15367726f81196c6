//! The section `[metrics]`: where figures about the server are published.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Where figures about the server are published.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// An address of its own for Prometheus, at the path `/metrics`. It asks for no password: keep
    /// it inside. Without it no figures are collected.
    ///
    /// Example: `"127.0.0.1:9008"`
    pub listener: Option<SocketAddr>,
}

//! The section `[appservices]`: bridges, bots and the like.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Bridges, bots and the like: application services, each described by a registration file that it
/// comes with or generates. `causerie admin appservice add FILE` registers one in the database
/// instead.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AppservicesConfig {
    /// Registration files (YAML), read when the server starts. One that cannot be read or makes no
    /// sense keeps the server from starting.
    ///
    /// Example: `["/etc/causerie/telegram.yaml"]`
    pub registrations: Vec<PathBuf>,
}

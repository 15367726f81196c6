//! The settings: one struct a section, from a TOML file, then the environment, then the command
//! line, each overruling the one before.
//!
//! [`Config::load`] is called by every command. It refuses unknown keys (naming the nearest known
//! one), values of the wrong type, and settings that make no sense together, each in one sentence.
//! The doc comments of the sections are the text of `config.example.toml`, so they speak to
//! operators; a test in `example.rs` compares the two.

mod calls;
mod database;
mod egress;
mod error;
mod limits;
mod load;
mod logging;
mod metrics;
mod network;
mod presence;
mod rate_limits;
mod registration;
mod rooms;
mod secret;
mod server;
mod validate;

#[cfg(test)]
mod example;

use std::path::Path;

use ruma::OwnedServerName;
use serde::{Deserialize, Serialize};

pub use self::{
    calls::CallsConfig,
    database::DatabaseConfig,
    egress::EgressConfig,
    error::ConfigError,
    limits::LimitsConfig,
    logging::{LogFormat, LoggingConfig},
    metrics::MetricsConfig,
    network::Network,
    presence::PresenceConfig,
    rate_limits::{RateLimit, RateLimitsConfig},
    registration::RegistrationConfig,
    rooms::RoomsConfig,
    secret::Secret,
    server::{ListenAddress, Listener, ServerConfig, Serves, Tls},
};

/// All settings of one server.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Who the server is and where it listens.
    pub server: ServerConfig,
    /// Where data is kept.
    #[serde(default)]
    pub database: DatabaseConfig,
    /// Where the server's own requests may go.
    #[serde(default)]
    pub egress: EgressConfig,
    /// Who may make an account.
    #[serde(default)]
    pub registration: RegistrationConfig,
    /// How often something may be done.
    #[serde(default)]
    pub rate_limits: RateLimitsConfig,
    /// How rooms are made.
    #[serde(default)]
    pub rooms: RoomsConfig,
    /// Whether people see who is there.
    #[serde(default)]
    pub presence: PresenceConfig,
    /// The servers that carry voice and video.
    #[serde(default)]
    pub calls: CallsConfig,
    /// How large and how many things may be.
    #[serde(default)]
    pub limits: LimitsConfig,
    /// What is logged and how.
    #[serde(default)]
    pub logging: LoggingConfig,
    /// Where figures about the server are published.
    #[serde(default)]
    pub metrics: MetricsConfig,
}

impl Config {
    /// The defaults for a server of this name; the name alone has no default.
    pub fn for_server(name: OwnedServerName) -> Self {
        Self {
            server: ServerConfig::for_server(name),
            database: DatabaseConfig::default(),
            egress: EgressConfig::default(),
            registration: RegistrationConfig::default(),
            rate_limits: RateLimitsConfig::default(),
            rooms: RoomsConfig::default(),
            presence: PresenceConfig::default(),
            calls: CallsConfig::default(),
            limits: LimitsConfig::default(),
            logging: LoggingConfig::default(),
            metrics: MetricsConfig::default(),
        }
    }

    /// Reads the file, the environment and `overrides` (`section.key` and a value), and checks all.
    pub fn load(path: Option<&Path>, overrides: &[(String, String)]) -> Result<Self, ConfigError> {
        load::load(path, load::environment(), overrides)
    }

    /// Refuses settings that make no sense together.
    pub fn validate(&self) -> Result<(), ConfigError> {
        validate::validate(self)
    }
}

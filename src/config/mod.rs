//! The settings: one struct a section, from a TOML file, then the environment, then the command
//! line, each overruling the one before.
//!
//! [`Config::load`] is called by every command. It refuses unknown keys (naming the nearest known
//! one), values of the wrong type, and settings that make no sense together, each in one sentence.
//! The doc comments of the sections are the text of `config.example.toml`, so they speak to
//! operators; a test in `example.rs` compares the two.

mod calls;
mod appservices;
mod database;
mod delayed_events;
mod egress;
mod email;
mod encryption;
mod error;
mod federation;
mod limits;
mod load;
mod logging;
mod login;
mod media;
mod metrics;
mod network;
mod presence;
mod rate_limits;
mod registration;
mod rooms;
mod search;
mod secret;
mod server;
mod user_directory;
mod support;
mod url_previews;
mod validate;

#[cfg(test)]
mod example;

use std::path::Path;

use ruma::OwnedServerName;
use serde::{Deserialize, Serialize};

pub use self::{
    appservices::AppservicesConfig,
    calls::CallsConfig,
    database::DatabaseConfig,
    delayed_events::DelayedEventsConfig,
    egress::EgressConfig,
    email::EmailConfig,
    encryption::{EncryptedRooms, EncryptionConfig},
    error::ConfigError,
    federation::FederationConfig,
    limits::LimitsConfig,
    logging::{LogFormat, LoggingConfig},
    login::LoginConfig,
    media::{MediaConfig, ThumbnailMethod, ThumbnailSize},
    metrics::MetricsConfig,
    network::Network,
    presence::PresenceConfig,
    rate_limits::{RateLimit, RateLimitsConfig},
    registration::{Policy, RegistrationConfig},
    rooms::RoomsConfig,
    search::{SearchConfig, SearchLanguage},
    secret::Secret,
    server::{ListenAddress, Listener, ServerConfig, Serves, Tls},
    support::{SupportConfig, SupportContact},
    url_previews::UrlPreviewsConfig,
    user_directory::UserDirectoryConfig,
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
    /// Which other servers there are for this one.
    #[serde(default)]
    pub federation: FederationConfig,
    /// Bridges, bots and the like.
    #[serde(default)]
    pub appservices: AppservicesConfig,
    /// Who may make an account.
    #[serde(default)]
    pub registration: RegistrationConfig,
    /// The ways to log in.
    #[serde(default)]
    pub login: LoginConfig,
    /// How the server sends mail.
    #[serde(default)]
    pub email: EmailConfig,
    /// Whom people can ask.
    #[serde(default)]
    pub support: SupportConfig,
    /// How often something may be done.
    #[serde(default)]
    pub rate_limits: RateLimitsConfig,
    /// How rooms are made.
    #[serde(default)]
    pub rooms: RoomsConfig,
    /// End-to-end encryption.
    #[serde(default)]
    pub encryption: EncryptionConfig,
    /// Whether people see who is there.
    #[serde(default)]
    pub presence: PresenceConfig,
    /// The servers that carry voice and video.
    #[serde(default)]
    pub calls: CallsConfig,
    /// Events that are sent later.
    #[serde(default)]
    pub delayed_events: DelayedEventsConfig,
    /// The full-text search of messages.
    #[serde(default)]
    pub search: SearchConfig,
    /// Whom people find when they look for somebody.
    #[serde(default)]
    pub user_directory: UserDirectoryConfig,
    /// Where files lie and how many there may be.
    #[serde(default)]
    pub media: MediaConfig,
    /// What is fetched to show what is behind an address.
    #[serde(default)]
    pub url_previews: UrlPreviewsConfig,
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
            federation: FederationConfig::default(),
            appservices: AppservicesConfig::default(),
            registration: RegistrationConfig::default(),
            login: LoginConfig::default(),
            email: EmailConfig::default(),
            support: SupportConfig::default(),
            rate_limits: RateLimitsConfig::default(),
            rooms: RoomsConfig::default(),
            encryption: EncryptionConfig::default(),
            presence: PresenceConfig::default(),
            calls: CallsConfig::default(),
            delayed_events: DelayedEventsConfig::default(),
            search: SearchConfig::default(),
            user_directory: UserDirectoryConfig::default(),
            media: MediaConfig::default(),
            url_previews: UrlPreviewsConfig::default(),
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

//! The rules that a type cannot express: settings that make no sense, alone or together.
//!
//! Each rule answers with one sentence that names the setting and says what to do. The rules look
//! at nothing but the settings, so they can be tested as a table and run on any machine.

use ruma::RoomVersionId;
use serde::Serialize;
use tracing_subscriber::EnvFilter;
use url::Url;

use super::{
    Config, ConfigError, DatabaseConfig, LimitsConfig, ListenAddress, Listener, MediaConfig,
    RateLimit, RateLimitsConfig, RegistrationConfig, RoomsConfig,
};

mod accounts;

type Outcome = Result<(), ConfigError>;

pub(super) fn validate(config: &Config) -> Outcome {
    listeners(&config.server.listeners)?;
    metrics(config)?;
    if let Some(url) = &config.server.public_base_url {
        public_base_url(url)?;
    }
    database(&config.database)?;
    registration(&config.registration, &config.server.listeners)?;
    accounts::validate(config)?;
    rate_limits(&config.rate_limits)?;
    rooms(&config.rooms)?;
    limits(&config.limits)?;
    media(&config.media)?;
    remote_media(&config.media, &config.rate_limits)?;
    encryption(config)?;
    EnvFilter::try_new(&config.logging.filter)
        .map_err(|error| refusal(format!("`logging.filter` cannot be understood: {error}")))?;
    Ok(())
}

fn refusal(sentence: impl Into<String>) -> ConfigError {
    ConfigError::new(sentence)
}

fn listeners(listeners: &[Listener]) -> Outcome {
    if listeners.is_empty() {
        return Err(refusal(
            "`server.listeners` is empty: the server needs at least one place to listen",
        ));
    }
    for (index, listener) in listeners.iter().enumerate() {
        let address = &listener.address;
        let any_port = matches!(address, ListenAddress::Tcp(address) if address.port() == 0);
        if !any_port && listeners[..index].iter().any(|other| other.address == *address) {
            return Err(refusal(format!("`server.listeners` names {address} twice")));
        }
        let ListenAddress::Unix { path, .. } = address else { continue };
        if listener.tls.is_some() {
            return Err(refusal(format!(
                "The listener on the unix socket {address} has `tls`: leave TLS to the proxy in \
                 front of it"
            )));
        }
        if path.as_os_str().is_empty() {
            return Err(refusal("A `unix_socket` in `server.listeners` has an empty path"));
        }
    }
    Ok(())
}

fn metrics(config: &Config) -> Outcome {
    let Some(address) = config.metrics.listener else { return Ok(()) };
    let mut listeners = config.server.listeners.iter();
    if address.port() != 0 && listeners.any(|it| it.address == ListenAddress::Tcp(address)) {
        return Err(refusal(format!(
            "`metrics.listener` and `server.listeners` both name {address}: figures need an \
             address of their own"
        )));
    }
    Ok(())
}

fn public_base_url(url: &Url) -> Outcome {
    let is_web = matches!(url.scheme(), "http" | "https") && url.has_host();
    let is_plain = url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    if is_web && is_plain {
        return Ok(());
    }
    Err(refusal(
        "`server.public_base_url` must be a plain web address such as \
         `https://matrix.example.org`",
    ))
}

fn database(database: &DatabaseConfig) -> Outcome {
    if database.path.as_os_str().is_empty() {
        return Err(refusal("`database.path` is empty: give the folder for the data"));
    }
    backups(database)?;
    match database.memory_mb {
        Some(mib @ 0..16) => Err(refusal(format!(
            "`database.memory_mb` is {mib}: the database needs at least 16 MiB"
        ))),
        Some(mib) if mib > 4 * 1024 * 1024 => Err(refusal(format!(
            "`database.memory_mb` is {mib}, more than 4 TiB: it is a number of MiB, not of bytes"
        ))),
        _ => Ok(()),
    }
}

fn backups(database: &DatabaseConfig) -> Outcome {
    let Some(path) = &database.backup_path else { return Ok(()) };
    if path.as_os_str().is_empty() || path.starts_with(&database.path) {
        return Err(refusal(
            "`database.backup_path` must be a folder of its own, outside of `database.path`",
        ));
    }
    if database.backup_interval_hours == 0 || database.backup_keep == 0 {
        return Err(refusal(
            "`database.backup_interval_hours` and `database.backup_keep` must be more than 0",
        ));
    }
    Ok(())
}

fn registration(registration: &RegistrationConfig, listeners: &[Listener]) -> Outcome {
    for token in &registration.tokens {
        let token = token.reveal();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte);
        if token.is_empty() || token.len() > 64 || !token.bytes().all(allowed) {
            return Err(refusal(
                "A token in `registration.tokens` is not 1 to 64 letters, digits, `.`, `_`, `~` \
                 or `-`",
            ));
        }
    }
    if registration.open_without_token && !registration.enabled {
        return Err(refusal(
            "`registration.open_without_token` is set but registration is off: set \
             `registration.enabled` too",
        ));
    }
    let open =
        registration.open_without_token && !registration.i_understand_that_anyone_can_register;
    let reachable = listeners.iter().find(|it| it.serves.client() && !it.address.is_loopback());
    match reachable {
        Some(listener) if open => Err(refusal(format!(
            "`registration.open_without_token` would let anyone who reaches {} make accounts: \
             listen on a loopback address, use `registration.tokens`, or set \
             `registration.i_understand_that_anyone_can_register`",
            listener.address
        ))),
        _ => Ok(()),
    }
}

fn rate_limits(limits: &RateLimitsConfig) -> Outcome {
    for (name, value) in numbers(limits) {
        let Ok(RateLimit { per_second, burst }) = value.try_into() else { continue };
        if !per_second.is_finite() || per_second <= 0.0 || burst == 0 {
            return Err(refusal(format!(
                "`rate_limits.{name}` would allow nothing: `per_second` and `burst` must be more \
                 than 0 (`rate_limits.enabled = false` turns all limits off)"
            )));
        }
    }
    Ok(())
}

fn rooms(rooms: &RoomsConfig) -> Outcome {
    use RoomVersionId::{V6, V7, V8, V9, V10, V11, V12};
    match &rooms.default_version {
        V6 | V7 | V8 | V9 | V10 | V11 | V12 => Ok(()),
        other => Err(refusal(format!(
            "`rooms.default_version` is `{other}`: this server makes rooms of the versions 6 to 12"
        ))),
    }
}

fn limits(limits: &LimitsConfig) -> Outcome {
    for (name, value) in numbers(limits) {
        if value.as_integer() == Some(0) {
            return Err(refusal(format!("`limits.{name}` is 0: it would refuse everything")));
        }
    }
    Ok(())
}

fn media(media: &MediaConfig) -> Outcome {
    if media.upload_size_bytes_max == 0 || media.thumbnail_processes_max == 0 {
        return Err(refusal(
            "`media.upload_size_bytes_max` and `media.thumbnail_processes_max` must be more than 0",
        ));
    }
    if media.s3_access_key_id.is_some() != media.s3_secret_access_key.is_some() {
        return Err(refusal(
            "`media.s3_access_key_id` and `media.s3_secret_access_key` belong together: give both \
             or none",
        ));
    }
    let sized = |size: &super::ThumbnailSize| {
        (1..=2048).contains(&size.width) && (1..=2048).contains(&size.height)
    };
    if media.thumbnail_sizes.is_empty() || !media.thumbnail_sizes.iter().all(sized) {
        return Err(refusal(
            "`media.thumbnail_sizes` needs at least one size, each of 1 to 2048 pixels",
        ));
    }
    Ok(())
}

fn remote_media(media: &MediaConfig, limits: &RateLimitsConfig) -> Outcome {
    let largest = media.remote_size_bytes_max;
    if largest == 0 || media.remote_fetches_max == 0 {
        return Err(refusal(
            "`media.remote_size_bytes_max` and `media.remote_fetches_max` must be more than 0",
        ));
    }
    if media.remote_cache_bytes_max != 0 && media.remote_cache_bytes_max < largest {
        return Err(refusal(
            "`media.remote_cache_bytes_max` is less than `media.remote_size_bytes_max`: the \
             largest files would find no room (0 is for any number)",
        ));
    }
    if media.remote_disk_free_percent_min > 100 {
        return Err(refusal("`media.remote_disk_free_percent_min` is more than 100"));
    }
    if limits.enabled && u64::from(limits.remote_media_bytes.burst) < largest {
        return Err(refusal(
            "`rate_limits.remote_media_bytes.burst` is less than `media.remote_size_bytes_max`: \
             the largest files could never be fetched",
        ));
    }
    Ok(())
}

fn encryption(config: &Config) -> Outcome {
    let encryption = &config.encryption;
    if encryption.qr_login && config.server.public_base_url.is_none() {
        return Err(refusal(
            "`encryption.qr_login` needs `server.public_base_url`: devices are told where to meet",
        ));
    }
    // A content of 64 KiB, and what stands beside it.
    if encryption.waiting_messages_size_bytes_max < 128 * 1024 {
        return Err(refusal(
            "`encryption.waiting_messages_size_bytes_max` is less than 131072: a single message \
             may have more than half of that",
        ));
    }
    // What the store takes for a value, less what stands beside the key.
    if encryption.backup_key_size_bytes_max > 96 * 1024 {
        return Err(refusal(
            "`encryption.backup_key_size_bytes_max` is more than 98304: the database keeps no \
             larger ones",
        ));
    }
    Ok(())
}

/// The keys and values of a section that has no optional ones.
fn numbers(section: &impl Serialize) -> toml::Table {
    toml::Table::try_from(section).unwrap_or_default()
}

#[cfg(test)]
mod tests;

//! Logs on the standard error stream, for people or as one JSON object a line.

use tracing_subscriber::{EnvFilter, util::SubscriberInitExt};

use crate::config::{LogFormat, LoggingConfig};

/// Why logs could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter of the configuration cannot be understood.
    #[error("the log filter cannot be understood")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Something else in this process has set up logs before.
    #[error("logs were already set up")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Sends what the server logs to the standard error stream from now on.
pub fn init(config: &LoggingConfig) -> Result<(), LoggingError> {
    let filter = EnvFilter::try_new(&config.filter)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.format {
        // Colors are for a terminal; in a file they are noise.
        LogFormat::Text => {
            let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
            builder.with_ansi(is_terminal).finish().try_init()?;
        }
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init()?,
    }
    Ok(())
}

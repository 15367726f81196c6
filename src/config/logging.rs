//! The section `[logging]`: what is logged and how.

use serde::{Deserialize, Serialize};

/// What is logged and how. Logs go to the standard error stream.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoggingConfig {
    /// `"text"` for people, `"json"` (one object a line) for machines.
    pub format: LogFormat,

    /// What is logged: `error`, `warn`, `info`, `debug` or `trace`, also for parts of the server
    /// alone, as in `"info,causerie::sync=debug"`.
    pub filter: String,
}

impl Default for LoggingConfig {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            filter: "info,ruma_state_res=warn,ruma_common=warn".to_owned(),
        }
    }
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

//! `causerie serve`: runs the server until it is told to stop.

use std::net::SocketAddr;

use anyhow::bail;
use clap::Args;

use crate::config::Config;

/// What `serve` understands beside the settings.
#[derive(Args, Debug)]
pub struct ServeArgs {
    /// Where to listen, for clients and servers; may be given several times and replaces
    /// `server.listeners`.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Vec<SocketAddr>,
}

impl ServeArgs {
    pub(super) fn listen_override(&self) -> Option<(String, String)> {
        if self.listen.is_empty() {
            return None;
        }
        let listeners: Vec<String> =
            self.listen.iter().map(|address| format!("{{ address = \"{address}\" }}")).collect();
        Some(("server.listeners".to_owned(), format!("[{}]", listeners.join(", "))))
    }
}

/// Runs the server.
#[expect(clippy::unused_async, reason = "the server is joined to it when the parts are merged")]
pub async fn run(_config: Config, _args: ServeArgs) -> anyhow::Result<()> {
    bail!("the server is not joined to the command line yet")
}

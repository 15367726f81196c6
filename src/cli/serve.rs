//! `causerie serve`: runs the server until it is told to stop.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use clap::Args;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{
    config::Config,
    server::{self, Server},
    telemetry,
    time::Clock,
};

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

/// Runs the server until SIGTERM or SIGINT.
pub async fn run(config: Config, _args: ServeArgs) -> anyhow::Result<()> {
    telemetry::logging::init(&config.logging)?;
    let metrics = match config.metrics.listener {
        Some(_) => Some(telemetry::metrics::install()?),
        None => None,
    };
    telemetry::panics::install();
    let config = Arc::new(config);
    let started = Instant::now();
    let store = server::open_store(&config)?;
    let server = Server::build(config, store, Clock::system()).await?;
    tracing::info!(milliseconds = started.elapsed().as_millis(), "the database is open");
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        signalled().await;
        tracing::info!("stopping: finishing what runs");
        stop.send_replace(true);
    });
    server.serve(stopped, metrics).await?;
    tracing::info!("stopped");
    Ok(())
}

/// Resolves when the process is told to stop.
async fn signalled() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        result = tokio::signal::ctrl_c() => {
            if result.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

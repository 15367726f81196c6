//! `causerie fsck`: checks the database for damage.

use std::{
    io::{self, Write},
    sync::Arc,
};

use anyhow::{Context, bail};
use clap::Args;

use crate::{
    config::Config,
    server::{self, Server},
    time::Clock,
};

/// What `fsck` understands beside the settings.
#[derive(Args, Debug)]
pub struct FsckArgs {}

/// Checks the database of a server that is stopped; tells what is wrong, a line each.
pub async fn run(config: Config, _args: FsckArgs) -> anyhow::Result<()> {
    let config = Arc::new(config);
    let store = server::open_store(&config).context("is the server still running?")?;
    let server = Server::build(config, store, Clock::system()).await?;
    let rooms = server.rooms.clone();
    let findings = tokio::task::spawn_blocking(move || rooms.check()).await??;
    server.sync.stop();
    server.store.close()?;
    let mut out = io::stdout().lock();
    for damage in &findings.damages {
        writeln!(out, "{damage}")?;
    }
    if !findings.damages.is_empty() {
        bail!("the database is damaged");
    }
    writeln!(out, "{} rooms and {} events are fine", findings.rooms, findings.events)?;
    Ok(())
}

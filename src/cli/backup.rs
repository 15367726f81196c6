//! `causerie backup`: adds a backup of the database to a folder, while the server is stopped. A
//! server that runs makes its own (`src/backups.rs`).

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use kv::backup;

use super::say;
use crate::{config::Config, server};

/// What `backup` understands beside the settings.
#[derive(Args, Debug)]
pub struct BackupArgs {
    /// The folder of the backups. It is made if it does not exist.
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
    /// How many backups stay there, the newest.
    #[arg(long, value_name = "COUNT", default_value_t = 7)]
    keep: usize,
    /// Reads the backup again, whole, and compares every checksum; needs the space of the database
    /// once more while it does.
    #[arg(long)]
    verify: bool,
}

/// Makes the backup. Blocks: it is all that the process does.
pub(super) fn run(config: &Config, args: &BackupArgs) -> anyhow::Result<()> {
    let path = &config.database.path;
    // Opening makes a database where there is none.
    if !path.join("CURRENT").is_file() {
        bail!("there is no database in {}", path.display());
    }
    if args.to.starts_with(path) {
        bail!("the backups cannot lie inside of the database");
    }
    let store = server::open_store(config)
        .context("is the server still running? It makes backups by `database.backup_path`")?;
    let made = store.backup(&args.to, args.keep);
    store.close()?;
    let made = made.context("no backup could be made")?;
    if args.verify {
        backup::verify(&args.to, &args.to.join("verifying"))
            .context("the backup cannot be read again")?;
    }
    let (number, bytes, folder) = (made.id, made.size_bytes, args.to.display());
    say(&format!("Backup {number} of {bytes} bytes is in {folder}."))?;
    Ok(say("The files of users are not part of it: copy their folder too.")?)
}

//! `causerie restore`: puts the newest backup of a folder in the place of the database.
//!
//! It works in a folder beside that of the database, which gets its name once it is whole, on disk and
//! has another epoch, by which clients notice that something may be lost. So a restore that is
//! interrupted leaves nothing that the server would open; the next one begins anew.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::Args;
use kv::backup;

use super::say;
use crate::{config::Config, server, storage::identity};

/// What `restore` understands beside the settings.
#[derive(Args, Debug)]
pub struct RestoreArgs {
    /// The folder of the backups.
    #[arg(long, value_name = "FOLDER")]
    from: PathBuf,
}

/// Restores the database of a server that is stopped.
pub async fn run(mut config: Config, args: RestoreArgs) -> anyhow::Result<()> {
    let target = config.database.path.clone();
    if !args.from.is_dir() {
        bail!("there are no backups in {}", args.from.display());
    }
    check_free(&target)?;
    let scratch = scratch(&target)?;
    if scratch.exists() {
        fs::remove_dir_all(&scratch)
            .with_context(|| format!("{} cannot be removed", scratch.display()))?;
    }
    let restored = backup::restore(&args.from, &scratch)
        .with_context(|| format!("no backup of {} can be restored", args.from.display()))?;
    config.database.path.clone_from(&scratch);
    let store = server::open_store(&config)?;
    let renewed = identity::renew_epoch(&store, &config.server.name).await;
    store.close()?;
    drop(store);
    renewed?;
    sync_folder(&scratch)?;
    fs::rename(&scratch, &target).with_context(|| {
        let (from, to) = (scratch.display(), target.display());
        format!("{from} is restored, but cannot be renamed to {to}")
    })?;
    if let Some(parent) = parent(&target) {
        File::open(parent)?.sync_all()?;
    }
    let (number, folder) = (restored.id, target.display());
    say(&format!("Backup {number} is in {folder}."))?;
    Ok(say("The files of users are not part of it: put their folder back too.")?)
}

/// Nothing is written over: the old database may still be of use.
fn check_free(target: &Path) -> anyhow::Result<()> {
    match fs::read_dir(target).map(|mut entries| entries.next()) {
        Ok(None) => Ok(()),
        Ok(Some(_)) => bail!("{} is not empty: put the old database aside", target.display()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).context(format!("{} cannot be read", target.display())),
    }
}

/// Beside the target, so that it can be renamed.
fn scratch(target: &Path) -> anyhow::Result<PathBuf> {
    let Some(name) = target.file_name() else { bail!("`database.path` has no name of its own") };
    let mut name = name.to_owned();
    name.push(".restoring");
    Ok(target.with_file_name(name))
}

fn parent(target: &Path) -> Option<&Path> {
    let parent = target.parent()?;
    Some(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
}

/// Brings all that lies in a folder to disk, before its name says that it is whole.
fn sync_folder(folder: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    Ok(File::open(folder)?.sync_all()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scratch_lies_beside_the_target() {
        assert_eq!(
            scratch(Path::new("data/database")).unwrap(),
            Path::new("data/database.restoring")
        );
        assert_eq!(parent(Path::new("database")), Some(Path::new(".")));
        assert!(scratch(Path::new("/")).is_err());
    }
}

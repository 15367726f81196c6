//! Online backups: incremental, in a directory of their own, with a checksum for every file.
//!
//! A restored store goes on with the positions of the time of the backup. Whoever gave positions to
//! others since must tell the two apart by an epoch of its own.

use std::{fs, path::Path};

use ::rocksdb::{
    Env,
    backup::{BackupEngine, BackupEngineOptions, RestoreOptions},
};

use crate::{
    Error, Store,
    engine::{Engine, Fault},
};

/// A backup that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Its number; they ascend.
    pub id: u32,
    /// When it was made, in seconds since 1970.
    pub made_at_s: i64,
    /// The files it needs, some of them shared with other backups.
    pub size_bytes: u64,
}

impl Store {
    /// Adds a backup of what is committed now to `directory` and keeps the newest `keep` of them.
    /// Blocks; commits go on meanwhile.
    pub fn backup(&self, directory: &Path, keep: usize) -> Result<Backup, Error> {
        let Engine::RocksDb(engine) = self.engine() else {
            return Err(Error::Unavailable("a store in memory has no backups".to_owned()));
        };
        let mut backups = open(directory)?;
        backups.create_new_backup_flush(engine.database(), true).map_err(Fault::from)?;
        let made = newest(&backups)?;
        backups.verify_backup(made.id).map_err(Fault::from)?;
        backups.purge_old_backups(keep.max(1)).map_err(Fault::from)?;
        Ok(made)
    }
}

/// The backups in `directory`, oldest first.
pub fn list(directory: &Path) -> Result<Vec<Backup>, Error> {
    Ok(all(&open(directory)?))
}

/// Reads the newest backup whole, compares every checksum and drops what it read. `scratch` must be
/// empty or absent and have space for it.
pub fn verify(directory: &Path, scratch: &Path) -> Result<Backup, Error> {
    let backup = restore(directory, scratch)?;
    fs::remove_dir_all(scratch).map_err(|error| Error::Io(error.to_string()))?;
    Ok(backup)
}

/// Restores the newest backup to `target`, which must be empty or absent. A restore that was
/// interrupted leaves a directory that does not open.
pub fn restore(directory: &Path, target: &Path) -> Result<Backup, Error> {
    let mut backups = open(directory)?;
    let newest = newest(&backups)?;
    let entries =
        fs::create_dir_all(target).and_then(|()| fs::read_dir(target)?.next().transpose());
    match entries {
        Ok(None) => {}
        Ok(Some(_)) => return Err(Error::Io(format!("{} is not empty", target.display()))),
        Err(error) => return Err(Error::Io(format!("{}: {error}", target.display()))),
    }
    let options = RestoreOptions::default();
    backups.restore_from_backup(target, target, &options, newest.id).map_err(Fault::from)?;
    Ok(newest)
}

fn open(directory: &Path) -> Result<BackupEngine, Error> {
    let environment = Env::new().map_err(Fault::from)?;
    let options = BackupEngineOptions::new(directory).map_err(Fault::from)?;
    Ok(BackupEngine::open(&options, &environment).map_err(Fault::from)?)
}

fn all(backups: &BackupEngine) -> Vec<Backup> {
    backups
        .get_backup_info()
        .into_iter()
        .map(|info| Backup { id: info.backup_id, made_at_s: info.timestamp, size_bytes: info.size })
        .collect()
}

fn newest(backups: &BackupEngine) -> Result<Backup, Error> {
    all(backups).into_iter().max_by_key(|b| b.id).ok_or_else(|| Error::Io("no backup".to_owned()))
}

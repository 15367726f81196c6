//! The engine on disk: `RocksDB`, with every family's rows in its own column family.
//!
//! The options are decided in `options`; here are opening, reading and writing. An empty database
//! is never made where there was one: a directory with anything in it must have a `CURRENT` file,
//! or the mark of a creation that did not finish.

mod options;

use std::{
    fs, io,
    path::Path,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use ::rocksdb::{DB, ErrorKind, FlushOptions, ReadOptions, ReadTier, WriteBatch, WriteOptions};

use crate::{
    Direction, EngineOptions, Error,
    batch::Operation,
    engine::{Fault, Tier, Visit},
    table::ColumnFamily,
};

/// Stands in the directory while the database is made; without `CURRENT` beside it, nothing was
/// ever committed.
const CREATION_MARK: &str = "CREATING";

/// How often to look whether writes that were stopped may go on.
const STOPPED_POLL: Duration = Duration::from_millis(5);

/// An open database.
pub(crate) struct RocksDb {
    db: DB,
    families: Vec<&'static str>,
    /// The errors in the background that a write was told of.
    errors_known: AtomicU64,
}

impl std::fmt::Debug for RocksDb {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "RocksDb({})", self.db.path().display())
    }
}

impl From<::rocksdb::Error> for Fault {
    fn from(error: ::rocksdb::Error) -> Self {
        let kind = error.kind();
        let reason = error.into_string();
        let full = ["No space left", "Out of space", "Max allowed space"];
        match kind {
            ErrorKind::Incomplete => Self::Missed,
            _ if full.iter().any(|text| reason.contains(text)) => Self::Temporary(reason),
            ErrorKind::Corruption => Self::Corrupt(reason),
            _ => Self::Io(reason),
        }
    }
}

impl RocksDb {
    pub(crate) fn open(
        path: &Path,
        families: &[ColumnFamily],
        options: &EngineOptions,
    ) -> Result<Self, Error> {
        let failed = |error: io::Error| Error::Io(format!("{}: {error}", path.display()));
        let create = !exists(path)?;
        if create {
            begin_creation(path).map_err(failed)?;
        }
        let (database, families_options) = options::all(families, options, create);
        let db = DB::open_cf_descriptors(&database, path, families_options)
            .map_err(|error| Fault::from(error).reason())
            .map_err(|reason| Error::Io(format!("{}: {reason}", path.display())))?;
        let mark = path.join(CREATION_MARK);
        if mark.try_exists().map_err(failed)? {
            fs::remove_file(mark).and_then(|()| sync_directory(path)).map_err(failed)?;
        }
        let count = families.iter().map(|family| usize::from(family.index) + 1).max();
        let mut names = vec![""; count.unwrap_or(0)];
        for family in families {
            names[usize::from(family.index)] = family.name;
        }
        Ok(Self { db, families: names, errors_known: AtomicU64::new(0) })
    }

    pub(crate) const fn database(&self) -> &DB {
        &self.db
    }

    fn family(&self, family: ColumnFamily) -> &::rocksdb::ColumnFamily {
        self.db.cf_handle(family.name).expect("tables are declared in the families of the store")
    }

    pub(crate) fn view(&self, tier: Tier) -> View<'_> {
        View { engine: self, snapshot: self.db.snapshot(), tier }
    }

    pub(crate) fn current(
        &self,
        family: ColumnFamily,
        key: &[u8],
    ) -> Result<Option<Vec<u8>>, Fault> {
        Ok(self.db.get_cf(self.family(family), key)?)
    }

    /// A full disk does not fail the flushes that writes wait for, it makes them wait until there
    /// is space. So writes do not wait inside of `RocksDB`, but here, where they can give up.
    pub(crate) fn write(
        &self,
        operations: &[Operation],
        sync: bool,
        patience: Duration,
    ) -> Result<(), Fault> {
        let give_up_at = Instant::now() + patience;
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        options.set_no_slowdown(true);
        loop {
            match self.db.write_opt(self.batch(operations), &options).map_err(Fault::from) {
                Err(Fault::Missed) => {}
                result => return result,
            }
            if self.property("rocksdb.is-write-stopped")? == 0 {
                // Only to be slowed down; asking again would never end that.
                options.set_no_slowdown(false);
                continue;
            }
            let errors = self.property("rocksdb.background-errors")?;
            let known = self.errors_known.swap(errors, Relaxed);
            if errors > known || Instant::now() >= give_up_at {
                let reason = "nothing can be written until a flush succeeds; is the disk full?";
                return Err(Fault::Temporary(reason.to_owned()));
            }
            std::thread::sleep(STOPPED_POLL);
        }
    }

    fn property(&self, name: &str) -> Result<u64, Fault> {
        Ok(self.db.property_int_value(name)?.unwrap_or(0))
    }

    fn batch(&self, operations: &[Operation]) -> WriteBatch {
        let mut batch = WriteBatch::default();
        for operation in operations {
            match operation {
                Operation::Put { family, key, value } => {
                    batch.put_cf(self.family(*family), key, value);
                }
                Operation::Delete { family, key } => batch.delete_cf(self.family(*family), key),
                Operation::DeleteRange { family, start, end } => {
                    if start < end {
                        batch.delete_range_cf(self.family(*family), start, end);
                    }
                }
                Operation::Add { family, key, delta } => {
                    batch.merge_cf(self.family(*family), key, delta.to_le_bytes());
                }
            }
        }
        batch
    }

    pub(crate) fn flush(&self) -> Result<(), Fault> {
        for name in &self.families {
            if let Some(family) = self.db.cf_handle(name) {
                self.db.flush_cf_opt(family, &FlushOptions::default())?;
            }
        }
        Ok(())
    }

    #[expect(clippy::unnecessary_wraps, reason = "the engines' contract")]
    pub(crate) fn compact(&self) -> Result<(), Fault> {
        for name in &self.families {
            if let Some(family) = self.db.cf_handle(name) {
                self.db.compact_range_cf(family, None::<&[u8]>, None::<&[u8]>);
            }
        }
        Ok(())
    }

    pub(crate) fn disk_bytes(&self) -> Result<u64, Fault> {
        let directory = fs::read_dir(self.db.path());
        let sizes = directory.and_then(|entries| entries.map(file_bytes).sum());
        sizes.map_err(|error: io::Error| Fault::Io(error.to_string()))
    }
}

/// A file may go away while it is looked at: compaction does not wait.
fn file_bytes(entry: io::Result<fs::DirEntry>) -> io::Result<u64> {
    match entry?.metadata() {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// Whether there is a database to open. An error when there is something, but not a whole one.
fn exists(path: &Path) -> Result<bool, Error> {
    let failed = |error: io::Error| Error::Io(format!("{}: {error}", path.display()));
    if path.join("CURRENT").try_exists().map_err(failed)? {
        return Ok(true);
    }
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        entries => entries.map_err(failed)?,
    };
    let names: Vec<_> =
        entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>().map_err(failed)?;
    let mine = |name: &std::ffi::OsString| name != "lost+found";
    if names.iter().any(|name| name == CREATION_MARK) || !names.iter().any(mine) {
        return Ok(false);
    }
    Err(Error::Io(format!(
        "{} has files but no CURRENT: it is a damaged database or none at all; \
         nothing is created in it",
        path.display()
    )))
}

/// Leaves the mark, on disk before anything else of the database is.
fn begin_creation(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::File::create(path.join(CREATION_MARK))?.sync_all()?;
    sync_directory(path)?;
    match path.canonicalize()?.parent() {
        Some(parent) => sync_directory(parent),
        None => Ok(()),
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

/// One snapshot.
pub(crate) struct View<'a> {
    engine: &'a RocksDb,
    snapshot: ::rocksdb::Snapshot<'a>,
    tier: Tier,
}

impl View<'_> {
    fn options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_snapshot(&self.snapshot);
        if self.tier == Tier::Memory {
            options.set_read_tier(ReadTier::BlockCache);
        }
        options
    }

    pub(crate) fn get<T>(
        &self,
        family: ColumnFamily,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>, Fault> {
        let family = self.engine.family(family);
        let value = self.engine.db.get_pinned_cf_opt(family, key, &self.options())?;
        Ok(value.map(|value| read(&value)))
    }

    pub(crate) fn get_many(
        &self,
        family: ColumnFamily,
        keys: &[Vec<u8>],
        read: &mut dyn FnMut(usize, Option<&[u8]>),
    ) -> Result<(), Fault> {
        let handle = self.engine.family(family);
        let (sorted, options) = (keys.is_sorted(), self.options());
        let values = self.engine.db.batched_multi_get_cf_opt(handle, keys, sorted, &options);
        for (index, value) in values.into_iter().enumerate() {
            match value? {
                // RocksDB says so too of a row in a block that is not in memory, whether the row is
                // there or not. Asked for by itself it says that it does not know.
                Some(value) if value.is_empty() && self.tier == Tier::Memory => {
                    let known = self.get(family, &keys[index], |value| read(index, Some(value)))?;
                    if known.is_none() {
                        read(index, None);
                    }
                }
                value => read(index, value.as_deref()),
            }
        }
        Ok(())
    }

    pub(crate) fn visit(
        &self,
        family: ColumnFamily,
        range: (&[u8], &[u8]),
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), Fault> {
        let mut options = self.options();
        options.set_iterate_range(range.0..range.1);
        let mut rows = self.engine.db.raw_iterator_cf_opt(self.engine.family(family), options);
        match direction {
            Direction::Forward => rows.seek_to_first(),
            Direction::Backward => rows.seek_to_last(),
        }
        while let Some((key, value)) = rows.item() {
            if visit(key, value).is_break() {
                return Ok(());
            }
            match direction {
                Direction::Forward => rows.next(),
                Direction::Backward => rows.prev(),
            }
        }
        Ok(rows.status()?)
    }
}

//! What the store needs of an engine, in bytes, and the two engines that give it.
//!
//! Only the sequencer writes, one group after the other; any thread reads. An engine promises that
//! a [`View`] is one consistent state, that a group applies whole or not at all, and that a group
//! written with `sync` is on disk when the call returns.

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::{
    Direction, Error,
    batch::Operation,
    memory::{self, Memory},
    rocksdb::{self, RocksDb},
    table::ColumnFamily,
};

/// How much the engine may use. One number for memory, from which the rest is derived.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The block cache and, charged to it, all that is written and not yet in files.
    pub memory_bytes: u64,
    /// The share of `memory_bytes` that unflushed writes may take.
    pub unflushed_bytes_max: u64,
    /// The write-ahead log's size, which bounds the replay after a crash.
    pub wal_bytes_max: u64,
    /// Threads that flush and compact.
    pub background_jobs: u16,
    /// Files held open; reading another closes the one used longest ago.
    pub open_files_max: u16,
    /// Whether [`Durability::Synced`](crate::Durability::Synced) waits for the disk. Without it
    /// a power cut may lose what was acknowledged; a crash of the process does not.
    pub synced: bool,
    /// Errors to inject, in tests.
    pub faults: Option<IoFault>,
}

impl EngineOptions {
    /// Options for this much memory.
    #[must_use]
    pub fn with_memory(memory_bytes: u64) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            memory_bytes,
            unflushed_bytes_max: (memory_bytes / 4).clamp(8 << 20, 512 << 20),
            wal_bytes_max: 64 << 20,
            background_jobs: u16::try_from(cores / 2).unwrap_or(u16::MAX).clamp(2, 8),
            open_files_max: if memory_bytes < (256 << 20) { 512 } else { 4096 },
            synced: true,
            faults: None,
        }
    }
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self::with_memory(64 << 20)
    }
}

/// Errors that a test injects into the commits of a store; a clone injects into the same one.
#[derive(Clone, Debug, Default)]
pub struct IoFault(Arc<Faults>);

#[derive(Debug, Default)]
struct Faults {
    conflicts: AtomicU32,
    writes: AtomicU32,
    /// The writes that pass before any is failed.
    passing: AtomicU32,
    syncs: AtomicU32,
    disk_full: AtomicBool,
}

impl IoFault {
    /// Injects nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers the next `count` batches that have checks with a conflict.
    pub fn conflict_next(&self, count: u32) {
        self.0.conflicts.store(count, Relaxed);
    }

    /// Fails the next `count` writes with an error that does not go away by itself.
    pub fn fail_writes(&self, count: u32) {
        self.0.writes.store(count, Relaxed);
    }

    /// Lets `passing` writes pass and fails the next one, as [`IoFault::fail_writes`] does.
    pub fn fail_write_after(&self, passing: u32) {
        self.0.passing.store(passing, Relaxed);
        self.0.writes.store(1, Relaxed);
    }

    /// Fails the next `count` syncs.
    pub fn fail_syncs(&self, count: u32) {
        self.0.syncs.store(count, Relaxed);
    }

    /// Fails every write for want of space while it is full.
    pub fn set_disk_full(&self, full: bool) {
        self.0.disk_full.store(full, Relaxed);
    }

    pub(crate) fn takes_conflict(&self) -> bool {
        take(&self.0.conflicts)
    }

    pub(crate) fn before_write(&self, sync: bool) -> Result<(), Fault> {
        if self.0.disk_full.load(Relaxed) {
            return Err(Fault::Temporary("No space left on device (injected)".to_owned()));
        }
        if !take(&self.0.passing) && take(&self.0.writes) {
            return Err(Fault::Io("write error (injected)".to_owned()));
        }
        if sync && take(&self.0.syncs) {
            return Err(Fault::Io("sync error (injected)".to_owned()));
        }
        Ok(())
    }
}

fn take(count: &AtomicU32) -> bool {
    count.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok()
}

/// Why an engine did not do what it was asked.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The answer is not in memory and the view may not read files.
    Missed,
    /// The disk is full, or nothing can be written for another reason that may pass.
    Temporary(String),
    /// A checksum is wrong, or something else that was stored.
    Corrupt(String),
    /// Anything else.
    Io(String),
}

impl Fault {
    pub(crate) fn reason(self) -> String {
        match self {
            Self::Missed => "not in memory".to_owned(),
            Self::Temporary(reason) | Self::Corrupt(reason) | Self::Io(reason) => reason,
        }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::Io(fault.reason())
    }
}

/// Is given the rows of a range, key and value, until it breaks.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// How far a read may go for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    /// Only what is in memory; never blocks on a file.
    Memory,
    /// Files too.
    All,
}

/// The engines.
#[derive(Debug)]
pub(crate) enum Engine {
    RocksDb(RocksDb),
    Memory(Memory),
}

impl Engine {
    /// A consistent state of now.
    pub(crate) fn view(&self, tier: Tier) -> View<'_> {
        match self {
            Self::RocksDb(engine) => View::RocksDb(Box::new(engine.view(tier))),
            Self::Memory(engine) => View::Memory(engine.view()),
        }
    }

    /// A row as it is now, for the sequencer.
    pub(crate) fn current(
        &self,
        family: ColumnFamily,
        key: &[u8],
    ) -> Result<Option<Vec<u8>>, Fault> {
        match self {
            Self::RocksDb(engine) => engine.current(family, key),
            Self::Memory(engine) => engine.view().get(family, key, <[u8]>::to_vec),
        }
    }

    /// Applies all operations in their order, or none. May wait so long for a disk that does not
    /// keep up.
    pub(crate) fn write(
        &self,
        operations: &[Operation],
        sync: bool,
        patience: Duration,
    ) -> Result<(), Fault> {
        match self {
            Self::RocksDb(engine) => engine.write(operations, sync, patience),
            Self::Memory(engine) => {
                engine.write(operations);
                Ok(())
            }
        }
    }

    /// Brings everything written into its final files, so that the next start replays nothing.
    pub(crate) fn flush(&self) -> Result<(), Fault> {
        match self {
            Self::RocksDb(engine) => engine.flush(),
            Self::Memory(_) => Ok(()),
        }
    }

    /// Compacts every family whole.
    pub(crate) fn compact(&self) -> Result<(), Fault> {
        match self {
            Self::RocksDb(engine) => engine.compact(),
            Self::Memory(_) => Ok(()),
        }
    }

    /// What the store takes on the disk, or in memory when it has none.
    pub(crate) fn disk_bytes(&self) -> Result<u64, Fault> {
        match self {
            Self::RocksDb(engine) => engine.disk_bytes(),
            Self::Memory(engine) => Ok(engine.view().size_bytes()),
        }
    }
}

/// One consistent state of an engine.
pub(crate) enum View<'a> {
    RocksDb(Box<rocksdb::View<'a>>),
    Memory(memory::View),
}

impl View<'_> {
    /// Gives the value's bytes to `read`, without a copy.
    pub(crate) fn get<T>(
        &self,
        family: ColumnFamily,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>, Fault> {
        match self {
            Self::RocksDb(view) => view.get(family, key, read),
            Self::Memory(view) => view.get(family, key, read),
        }
    }

    /// Gives the bytes of every key's value to `read`, in the order of the keys.
    pub(crate) fn get_many(
        &self,
        family: ColumnFamily,
        keys: &[Vec<u8>],
        read: &mut dyn FnMut(usize, Option<&[u8]>),
    ) -> Result<(), Fault> {
        match self {
            Self::RocksDb(view) => view.get_many(family, keys, read),
            Self::Memory(view) => {
                for (index, key) in keys.iter().enumerate() {
                    if view.get(family, key, |value| read(index, Some(value)))?.is_none() {
                        read(index, None);
                    }
                }
                Ok(())
            }
        }
    }

    /// Visits the rows from `start` up to and without `end`, or from the end back.
    pub(crate) fn visit(
        &self,
        family: ColumnFamily,
        range: (&[u8], &[u8]),
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), Fault> {
        if range.0 >= range.1 {
            return Ok(());
        }
        match self {
            Self::RocksDb(view) => view.visit(family, range, direction, visit),
            Self::Memory(view) => {
                view.visit(family, range, direction, visit);
                Ok(())
            }
        }
    }
}

/// A counter's bytes after an addition. Bytes that are no counter stay, and fail when decoded.
pub(crate) fn add_to_counter(existing: Option<&[u8]>, delta: i64) -> Vec<u8> {
    match existing.map(<[u8; 8]>::try_from) {
        None => delta.to_le_bytes().to_vec(),
        Some(Ok(bytes)) => i64::from_le_bytes(bytes).wrapping_add(delta).to_le_bytes().to_vec(),
        Some(Err(_)) => existing.unwrap_or_default().to_vec(),
    }
}

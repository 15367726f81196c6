//! The store as its callers see it: typed reads on one consistent view, and commits.

use std::{
    ops::ControlFlow,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
};

use parking_lot::Mutex;

use crate::{
    Batch, CommitError, Durability, EngineOptions, Error, IoFault, Key, KeyRange, Position, Table,
    Value,
    commit::{Queue, Sequencer, closed},
    engine::{Engine, Fault, Tier, View},
    memory::Memory,
    rocksdb::RocksDb,
    table::{ColumnFamily, FAMILY_TAG_RESERVED, hex},
    watch::Bulletin,
};

/// Which way a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the start of the range.
    Forward,
    /// From its end.
    Backward,
}

/// Whether the store takes writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// It does.
    Ready,
    /// A write failed, for this reason; reads go on. A full disk is left again by itself.
    ReadOnly(String),
}

/// What the store has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Keys looked up.
    pub gets: u64,
    /// Range reads begun.
    pub seeks: u64,
    /// Rows that range reads visited.
    pub rows_scanned: u64,
    /// Batches committed.
    pub batches: u64,
    /// Writes to the engine, each of one or more batches.
    pub groups: u64,
    /// Rows set or added to.
    pub puts: u64,
    /// Rows and ranges removed.
    pub deletes: u64,
    /// Groups that were synced.
    pub syncs: u64,
}

#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) gets: AtomicU64,
    pub(crate) seeks: AtomicU64,
    pub(crate) rows_scanned: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) groups: AtomicU64,
    pub(crate) puts: AtomicU64,
    pub(crate) deletes: AtomicU64,
    pub(crate) syncs: AtomicU64,
}

/// How many positions are left out when a store is opened: more than buffered batches can get
/// between two writes to disk by the operating system.
pub(crate) const POSITIONS_SKIPPED: u64 = 1 << 20;

/// What the handles and the sequencer share.
pub(crate) struct Core {
    pub(crate) engine: Engine,
    pub(crate) queue: Queue,
    pub(crate) bulletin: Bulletin,
    pub(crate) tally: Tally,
    synced: bool,
    pub(crate) faults: Option<IoFault>,
    status: Mutex<Status>,
    end: Mutex<Result<(), Error>>,
}

impl Core {
    pub(crate) fn status(&self) -> Status {
        self.status.lock().clone()
    }

    pub(crate) fn set_status(&self, status: Status) {
        *self.status.lock() = status;
    }

    /// The sequencer's last act.
    pub(crate) fn finish(&self) {
        *self.end.lock() = match self.status() {
            Status::Ready => self.engine.flush().map_err(Error::from),
            Status::ReadOnly(reason) => Err(Error::Unavailable(reason)),
        };
        self.bulletin.close();
    }
}

/// A store; clones are the same one. Dropping the last closes it.
#[derive(Clone)]
pub struct Store {
    handle: Arc<Handle>,
}

struct Handle {
    core: Arc<Core>,
    sequencer: Mutex<Option<JoinHandle<()>>>,
}

impl Handle {
    fn close(&self) -> Result<(), Error> {
        self.core.queue.close();
        if let Some(sequencer) = self.sequencer.lock().take() {
            sequencer.join().expect("the sequencer aborts rather than panics");
        }
        self.core.end.lock().clone()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(%error, "the store was not closed cleanly");
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Store(at {})", self.position())
    }
}

impl Store {
    /// Opens the `RocksDB` store in `path`; creates it when there is nothing.
    pub fn open(
        path: &Path,
        families: &[ColumnFamily],
        options: &EngineOptions,
    ) -> Result<Self, Error> {
        let engine = RocksDb::open(path, families, options)?;
        let synced = options.synced;
        Self::start(Engine::RocksDb(engine), families, (synced, options.faults.clone()))
    }

    /// The reference engine, for tests.
    ///
    /// # Panics
    /// When no family has the index 0 or no thread can be started.
    pub fn memory(families: &[ColumnFamily]) -> Self {
        Self::memory_with_faults(families, None)
    }

    /// The reference engine with injected errors.
    ///
    /// # Panics
    /// As [`Store::memory`].
    pub fn memory_with_faults(families: &[ColumnFamily], faults: Option<IoFault>) -> Self {
        let engine = Engine::Memory(Memory::new(families));
        Self::start(engine, families, (true, faults))
            .expect("only a thread for it could be missing")
    }

    fn start(
        engine: Engine,
        families: &[ColumnFamily],
        (synced, faults): (bool, Option<IoFault>),
    ) -> Result<Self, Error> {
        let Some(&family) = families.iter().find(|family| family.index == 0) else {
            return Err(Error::Io("no family has the index 0".to_owned()));
        };
        let position = match engine.current(family, &[FAMILY_TAG_RESERVED])? {
            None => 0,
            Some(bytes) => {
                let last = bytes.as_slice().try_into().map_err(|_| Error::Corrupt {
                    table: "positions",
                    key: hex(&[FAMILY_TAG_RESERVED]),
                    reason: "it is no position".to_owned(),
                })?;
                // A power cut may have taken the last buffered batches, whose positions were told:
                // they are never given to anything else.
                u64::from_be_bytes(last).saturating_add(POSITIONS_SKIPPED)
            }
        };
        let core = Arc::new(Core {
            engine,
            queue: Queue::default(),
            bulletin: Bulletin::new(Position::from_u64(position)),
            tally: Tally::default(),
            synced,
            faults,
            status: Mutex::new(Status::Ready),
            end: Mutex::new(Ok(())),
        });
        let sequencer = Sequencer::new(core.clone(), family);
        let sequencer = std::thread::Builder::new()
            .name("sequencer".to_owned())
            .spawn(move || sequencer.run())
            .map_err(|error| Error::Io(format!("no thread for the sequencer: {error}")))?;
        let sequencer = Mutex::new(Some(sequencer));
        Ok(Self { handle: Arc::new(Handle { core, sequencer }) })
    }

    pub(crate) fn bulletin(&self) -> &Bulletin {
        &self.handle.core.bulletin
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.handle.core.engine
    }

    /// The last position whose batch is committed and visible to readers.
    pub fn position(&self) -> Position {
        self.bulletin().position()
    }

    /// Runs `step` on one consistent view: first here, on what is in memory; when it wanted more,
    /// again from its beginning on a thread that may block. So it must have no effects of its own.
    pub async fn read<T, E>(
        &self,
        step: impl Fn(&Reader<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        if let Some(result) = self.read_in_memory(&step) {
            return result;
        }
        let store = self.clone();
        match tokio::task::spawn_blocking(move || step(&store.reader())).await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(Error::Unavailable("the runtime stops".to_owned()).into()),
            },
        }
    }

    /// `None`: the step missed something.
    fn read_in_memory<T, E>(
        &self,
        step: &impl Fn(&Reader<'_>) -> Result<T, E>,
    ) -> Option<Result<T, E>> {
        let reader = Reader::new(&self.handle.core, Tier::Memory);
        let result = step(&reader);
        (!reader.missed.load(Relaxed)).then_some(result)
    }

    /// A view whose reads may block, for start-up, checks, tests and worker threads.
    pub fn reader(&self) -> Reader<'_> {
        Reader::new(&self.handle.core, Tier::All)
    }

    /// Commits; the answer is the first position given to the batch, `pending(i)` the i-th after
    /// it. A batch that asks for none is answered with the position it stands after.
    pub async fn commit(
        &self,
        batch: Batch,
        durability: Durability,
    ) -> Result<Position, CommitError> {
        self.submit(batch, durability).await
    }

    /// Queues the batch: its place in the order is fixed when this returns, and it is committed
    /// also when the answer is not waited for. So what comes next can be decided before this is on
    /// disk, though what was decided on a batch must not be told before that batch is answered.
    pub fn submit(
        &self,
        batch: Batch,
        durability: Durability,
    ) -> impl Future<Output = Result<Position, CommitError>> + Send + use<> {
        let core = &self.handle.core;
        let durability = if core.synced { durability } else { Durability::Buffered };
        let submitted = core.queue.submit(batch, durability);
        async move { submitted?.await.unwrap_or_else(|_| Err(closed())) }
    }

    /// What was done so far.
    pub fn counters(&self) -> Counters {
        let tally = &self.handle.core.tally;
        Counters {
            gets: tally.gets.load(Relaxed),
            seeks: tally.seeks.load(Relaxed),
            rows_scanned: tally.rows_scanned.load(Relaxed),
            batches: tally.batches.load(Relaxed),
            groups: tally.groups.load(Relaxed),
            puts: tally.puts.load(Relaxed),
            deletes: tally.deletes.load(Relaxed),
            syncs: tally.syncs.load(Relaxed),
        }
    }

    /// Whether it takes writes.
    pub fn status(&self) -> Status {
        self.handle.core.status()
    }

    /// Compacts everything; takes long and blocks.
    pub fn compact(&self) -> Result<(), Error> {
        Ok(self.engine().compact()?)
    }

    /// The bytes that the store takes on disk.
    pub fn disk_bytes(&self) -> Result<u64, Error> {
        Ok(self.engine().disk_bytes()?)
    }

    /// Commits what is queued, flushes, and takes no more writes. Blocks. The files are let go when
    /// the last clone of the store is dropped.
    pub fn close(&self) -> Result<(), Error> {
        self.handle.close()
    }
}

/// One consistent view of the store.
pub struct Reader<'a> {
    core: &'a Core,
    view: View<'a>,
    position: Position,
    missed: AtomicBool,
}

impl std::fmt::Debug for Reader<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Reader(at {})", self.position)
    }
}

impl<'a> Reader<'a> {
    fn new(core: &'a Core, tier: Tier) -> Self {
        // In this order: the view has at least what the position promises.
        let position = core.bulletin.position();
        Self { core, view: core.engine.view(tier), position, missed: AtomicBool::new(false) }
    }

    /// All batches up to it are visible; later ones may be.
    pub const fn position(&self) -> Position {
        self.position
    }

    /// The row with this key.
    pub fn get<K: Key, V: Value>(&self, table: &Table<K, V>, key: &K) -> Result<Option<V>, Error> {
        let key = table.raw_key(key).bytes;
        self.core.tally.gets.fetch_add(1, Relaxed);
        self.view
            .get(table.family, &key, |value| table.decode_value(&key, value))
            .map_err(|fault| self.error(table, &key, fault))?
            .transpose()
    }

    /// The rows with these keys, in the keys' order; cheapest when the keys ascend.
    pub fn get_many<K: Key, V: Value>(
        &self,
        table: &Table<K, V>,
        keys: &[K],
    ) -> Result<Vec<Option<V>>, Error> {
        let keys: Vec<Vec<u8>> = keys.iter().map(|key| table.raw_key(key).bytes).collect();
        self.core.tally.gets.fetch_add(keys.len() as u64, Relaxed);
        let mut rows = Vec::with_capacity(keys.len());
        let mut read = |index: usize, value: Option<&[u8]>| {
            rows.push(value.map(|value| table.decode_value(&keys[index], value)).transpose());
        };
        self.view
            .get_many(table.family, &keys, &mut read)
            .map_err(|fault| self.error(table, &[], fault))?;
        rows.into_iter().collect()
    }

    /// Whether there is a row with this key.
    pub fn contains<K: Key, V: Value>(&self, table: &Table<K, V>, key: &K) -> Result<bool, Error> {
        let key = table.raw_key(key).bytes;
        self.core.tally.gets.fetch_add(1, Relaxed);
        let found = self.view.get(table.family, &key, |_| ());
        Ok(found.map_err(|fault| self.error(table, &key, fault))?.is_some())
    }

    /// At most `limit` rows of a range.
    pub fn scan<K: Key, V: Value>(
        &self,
        table: &Table<K, V>,
        range: &KeyRange,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(K, V)>, Error> {
        let mut rows = Vec::new();
        if limit == 0 {
            return Ok(rows);
        }
        self.for_each(table, range, direction, |key, value| {
            rows.push((key, value));
            if rows.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(rows)
    }

    /// Visits the rows of a range until `visit` breaks.
    pub fn for_each<K: Key, V: Value>(
        &self,
        table: &Table<K, V>,
        range: &KeyRange,
        direction: Direction,
        mut visit: impl FnMut(K, V) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let mut failure = None;
        let mut count = 0;
        let mut visit = |key: &[u8], value: &[u8]| {
            count += 1;
            let row = table.decode_key(key).and_then(|k| Ok((k, table.decode_value(key, value)?)));
            match row {
                Ok((key, value)) => visit(key, value),
                Err(error) => {
                    failure = Some(error);
                    ControlFlow::Break(())
                }
            }
        };
        let bounds = (range.start.as_slice(), range.end.as_slice());
        let visited = self.view.visit(table.family, bounds, direction, &mut visit);
        self.core.tally.seeks.fetch_add(1, Relaxed);
        self.core.tally.rows_scanned.fetch_add(count, Relaxed);
        visited.map_err(|fault| self.error(table, &range.start, fault))?;
        failure.map_or(Ok(()), Err)
    }

    /// The last row at or before `key` whose key begins with `prefix`.
    pub fn last_at_or_before<P: Key, K: Key, V: Value>(
        &self,
        table: &Table<K, V>,
        prefix: &P,
        key: &K,
    ) -> Result<Option<(K, V)>, Error> {
        let mut range = table.prefix(prefix);
        // The first byte string after the key itself, so that the range takes the key in.
        let mut end = table.raw_key(key).bytes;
        end.push(0);
        range.end = range.end.min(end);
        Ok(self.scan(table, &range, Direction::Backward, 1)?.pop())
    }

    fn error<K: Key, V: Value>(&self, table: &Table<K, V>, key: &[u8], fault: Fault) -> Error {
        match fault {
            Fault::Missed => {
                self.missed.store(true, Relaxed);
                Error::Unavailable("not in memory".to_owned())
            }
            Fault::Corrupt(reason) => table.corrupt(key, &reason),
            fault => fault.into(),
        }
    }
}

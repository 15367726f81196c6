//! What every engine must do, run against each of them.

mod commits;
mod durability;
mod encodings;
mod faults;
mod reads;
mod watching;

use std::time::Duration;

use crate::{
    Batch, ColumnFamily, CommitError, Durability, EngineOptions, IoFault, Key, Position, Store,
    Table, Topic, Value,
};

const ROWS: ColumnFamily = ColumnFamily {
    name: "rows",
    index: 0,
    block_size_bytes: 4096,
    dense: false,
    point_lookups: false,
};
const DENSE: ColumnFamily = ColumnFamily {
    name: "dense",
    index: 1,
    block_size_bytes: 16384,
    dense: true,
    point_lookups: false,
};
const POINTS: ColumnFamily = ColumnFamily {
    name: "points",
    index: 2,
    block_size_bytes: 4096,
    dense: false,
    point_lookups: true,
};
const FAMILIES: [ColumnFamily; 3] = [ROWS, DENSE, POINTS];

const NAMES: Table<String, Vec<u8>> = Table::new("names", ROWS, 1, "tests");
const PAIRS: Table<(u64, u64), u32> = Table::new("pairs", ROWS, 2, "tests");
const COUNTS: Table<u64, i64> = Table::new("counts", ROWS, 3, "tests");
const LOG: Table<Position, Position> = Table::new("log", DENSE, 1, "tests");
const DIGESTS: Table<[u8; 4], Vec<u8>> = Table::new("digests", POINTS, 1, "tests");

const ROOM: Topic = Topic { space: 1, id: 7 };

/// A store under test and the switch for its errors.
struct Subject {
    store: Store,
    faults: IoFault,
    directory: Option<tempfile::TempDir>,
}

impl Subject {
    fn memory() -> Self {
        let faults = IoFault::new();
        let store = Store::memory_with_faults(&FAMILIES, Some(faults.clone()));
        Self { store, faults, directory: None }
    }

    fn rocksdb() -> Self {
        Self::rocksdb_in(tempfile::tempdir().unwrap())
    }

    fn rocksdb_in(directory: tempfile::TempDir) -> Self {
        let faults = IoFault::new();
        let options = EngineOptions { faults: Some(faults.clone()), ..EngineOptions::default() };
        let store = Store::open(directory.path(), &FAMILIES, &options).unwrap();
        Self { store, faults, directory: Some(directory) }
    }

    /// What `write` wrote, on disk and not in memory, where there is a difference.
    async fn with_cold_cache(self, write: impl AsyncFnOnce(&Store)) -> Self {
        write(&self.store).await;
        let Some(directory) = self.directory else { return self };
        self.store.close().unwrap();
        drop(self.store);
        Self::rocksdb_in(directory)
    }
}

/// Runs an asynchronous test, which must end within a minute.
fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_mins(1), test).await.unwrap() })
}

/// Makes a test for each engine of functions that take a [`Subject`].
macro_rules! on_both {
    ($($test:ident),* $(,)?) => {$(
        mod $test {
            #[test]
            fn memory() {
                crate::conformance::run(super::$test(crate::conformance::Subject::memory()));
            }

            #[test]
            fn rocksdb() {
                crate::conformance::run(super::$test(crate::conformance::Subject::rocksdb()));
            }
        }
    )*};
}
pub(crate) use on_both;

/// A batch of one put.
fn put<K: Key, V: Value>(table: &Table<K, V>, key: &K, value: &V) -> Batch {
    let mut batch = Batch::new();
    batch.put(table, key, value);
    batch
}

async fn commit(store: &Store, batch: Batch) -> Result<Position, CommitError> {
    store.commit(batch, Durability::Synced).await
}

/// A row as it is now.
fn get<K: Key, V: Value>(store: &Store, table: &Table<K, V>, key: &K) -> Option<V> {
    store.reader().get(table, key).unwrap()
}

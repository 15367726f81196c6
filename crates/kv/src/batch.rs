//! A batch: checks, puts, deletes and counter adds that apply together or not at all.

use crate::{Key, KeyRange, Table, Topic, Value, ValueWriter, table::ColumnFamily};

/// How safe a batch is when its commit returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// In the operating system's cache: survives a kill, not a power cut.
    Buffered,
    /// On disk.
    Synced,
}

/// One write inside a batch, encoded.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Put { family: ColumnFamily, key: Vec<u8>, value: Vec<u8> },
    Delete { family: ColumnFamily, key: Vec<u8> },
    DeleteRange { family: ColumnFamily, start: Vec<u8>, end: Vec<u8> },
    Add { family: ColumnFamily, key: Vec<u8>, delta: i64 },
}

/// A row that must be as expected when the batch commits.
#[derive(Clone, Debug)]
pub(crate) struct Check {
    pub(crate) family: ColumnFamily,
    pub(crate) key: Vec<u8>,
    /// The expected bytes; `None`: the row must be absent.
    pub(crate) expected: Option<Vec<u8>>,
}

/// Where a pending position stands: in which operation, in its key or value, at which byte.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pending {
    pub(crate) operation: usize,
    pub(crate) in_key: bool,
    pub(crate) offset: usize,
    pub(crate) index: u16,
}

/// Writes that are committed together.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub(crate) operations: Vec<Operation>,
    pub(crate) checks: Vec<Check>,
    pub(crate) pending: Vec<Pending>,
    pub(crate) topics: Vec<Topic>,
    pub(crate) positions: u32,
}

impl Batch {
    /// A batch that does nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it would write nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// How many writes it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Sets a row.
    pub fn put<K: Key, V: Value>(&mut self, table: &Table<K, V>, key: &K, value: &V) {
        let key = self.key(table, key);
        let mut writer = ValueWriter::default();
        value.encode(&mut writer);
        self.expect_positions(false, &writer.pending);
        self.operations.push(Operation::Put { family: table.family, key, value: writer.bytes });
    }

    /// Removes a row; a row that is not there is no error.
    pub fn delete<K: Key, V: Value>(&mut self, table: &Table<K, V>, key: &K) {
        let key = self.key(table, key);
        self.operations.push(Operation::Delete { family: table.family, key });
    }

    /// Removes all rows of a range.
    pub fn delete_range<K: Key, V: Value>(&mut self, table: &Table<K, V>, range: KeyRange) {
        let KeyRange { start, end } = range;
        self.operations.push(Operation::DeleteRange { family: table.family, start, end });
    }

    /// Adds to a counter; an absent one counts as zero.
    pub fn add<K: Key>(&mut self, table: &Table<K, i64>, key: &K, delta: i64) {
        let key = self.key(table, key);
        self.operations.push(Operation::Add { family: table.family, key, delta });
    }

    /// Demands that the row is absent.
    pub fn check_absent<K: Key, V: Value>(&mut self, table: &Table<K, V>, key: &K) {
        let key = table.raw_key(key).bytes;
        self.checks.push(Check { family: table.family, key, expected: None });
    }

    /// Demands that the row holds exactly this value (or, for `None`, is absent).
    pub fn check<K: Key, V: Value>(&mut self, table: &Table<K, V>, key: &K, expected: Option<&V>) {
        let key = table.raw_key(key).bytes;
        let expected = expected.map(|value| {
            let mut writer = ValueWriter::default();
            value.encode(&mut writer);
            writer.bytes
        });
        self.checks.push(Check { family: table.family, key, expected });
    }

    /// Wakes those who watch this topic once the batch is committed. The batch then has at least
    /// one position, because a watcher waits for what comes after the position he has seen.
    pub fn touch(&mut self, topic: Topic) {
        self.reserve_positions(1);
        if !self.topics.contains(&topic) {
            self.topics.push(topic);
        }
    }

    /// Asks for at least `count` positions, though none may stand in a key or value.
    pub fn reserve_positions(&mut self, count: u16) {
        self.positions = self.positions.max(u32::from(count));
    }

    /// Appends all of another batch; its pending positions keep their index.
    pub fn append(&mut self, other: Self) {
        let shift = self.operations.len();
        self.operations.extend(other.operations);
        self.checks.extend(other.checks);
        self.pending.extend(
            other.pending.into_iter().map(|p| Pending { operation: p.operation + shift, ..p }),
        );
        for topic in other.topics {
            self.touch(topic);
        }
        self.positions = self.positions.max(other.positions);
    }

    /// The key of the next operation.
    fn key<K: Key, V: Value>(&mut self, table: &Table<K, V>, key: &K) -> Vec<u8> {
        let key = table.raw_key(key);
        self.expect_positions(true, &key.pending);
        key.bytes
    }

    /// Notes the pending positions of the next operation.
    fn expect_positions(&mut self, in_key: bool, pending: &[(usize, u16)]) {
        let operation = self.operations.len();
        for &(offset, index) in pending {
            self.pending.push(Pending { operation, in_key, offset, index });
            self.positions = self.positions.max(u32::from(index) + 1);
        }
    }
}

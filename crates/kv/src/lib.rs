//! An ordered, transactional key-value store: what every engine promises.
//!
//! * **Isolation**: a [`Reader`] is one consistent view; a [`Batch`] applies whole or not at all.
//! * **Ordering**: batches commit in one order and each gets a [`Position`] in that order; a reader
//!   never sees a later batch without the earlier ones.
//! * **Durability**: [`Store::commit`] with [`Durability::Synced`] returns after the write is on disk.
//! * **Limits**: a value has at most 100 kB, a batch should stay under 1 MB and must under 10 MB,
//!   so that a distributed engine fits behind the same contract.
//!
//! The crate knows no word of Matrix.

pub mod backup;

mod batch;
mod commit;
#[cfg(test)]
mod conformance;
mod engine;
mod error;
mod key;
mod memory;
mod position;
mod rocksdb;
mod store;
mod table;
mod value;
mod watch;

pub use batch::{Batch, Durability};
pub use engine::{EngineOptions, IoFault};
pub use error::{CommitError, DecodeError, Error};
pub use key::{Key, KeyReader, KeyWriter};
pub use position::Position;
pub use store::{Counters, Direction, Reader, Status, Store};
pub use table::{ColumnFamily, KeyRange, Table};
pub use value::{Json, Value, ValueReader, ValueWriter};
pub use watch::{Commit, Feed, Topic};

//! Typed tables: a name, the types of key and value, the column family, and who may write it.

use std::{fmt::Debug, marker::PhantomData, ops::Bound};

use crate::{DecodeError, Error, Key, KeyReader, KeyWriter, Value, ValueReader};

/// The tag of the first family that is the store's own: the row of the last position.
pub(crate) const FAMILY_TAG_RESERVED: u8 = 0xfe;

/// A group of tables that the engine stores, caches and compacts together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ColumnFamily {
    /// The engine's name of it.
    pub name: &'static str,
    /// Its number, dense from 0.
    pub index: u8,
    /// The size of a block in bytes.
    pub block_size_bytes: usize,
    /// Whether lower levels are compressed hard (zstd with a dictionary); otherwise lz4.
    pub dense: bool,
    /// Whether look-ups are by whole key and often miss: more bits in the bloom filter.
    pub point_lookups: bool,
}

/// A table: rows of `V` by `K`. Keys in the engine are the tag, then the fields of `K`.
pub struct Table<K, V> {
    /// The table's name in errors and in `fsck`.
    pub name: &'static str,
    /// Where its rows are.
    pub family: ColumnFamily,
    /// Tells the tables of one family apart.
    pub tag: u8,
    /// The module that alone writes it.
    pub owner: &'static str,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: Key, V: Value> Table<K, V> {
    /// Declares a table.
    #[must_use]
    pub const fn new(
        name: &'static str,
        family: ColumnFamily,
        tag: u8,
        owner: &'static str,
    ) -> Self {
        Self { name, family, tag, owner, types: PhantomData }
    }

    /// The rows whose keys begin with `prefix`, the first fields of `K`.
    pub fn prefix<P: Key>(&self, prefix: &P) -> KeyRange {
        let start = self.raw_key(prefix).bytes;
        let end = successor(start.clone());
        KeyRange { start, end }
    }

    /// The rows between two bounds, each given by the first fields of `K`.
    ///
    /// `Included(x)` on the end takes in every key that begins with `x`; `Excluded(x)` on the start
    /// leaves them all out.
    pub fn range<P: Key, Q: Key>(&self, start: Bound<&P>, end: Bound<&Q>) -> KeyRange {
        let start = match start {
            Bound::Included(key) => self.raw_key(key).bytes,
            Bound::Excluded(key) => successor(self.raw_key(key).bytes),
            Bound::Unbounded => vec![self.tag],
        };
        let end = match end {
            Bound::Included(key) => successor(self.raw_key(key).bytes),
            Bound::Excluded(key) => self.raw_key(key).bytes,
            Bound::Unbounded => successor(vec![self.tag]),
        };
        KeyRange { start, end }
    }

    pub(crate) fn raw_key<P: Key>(&self, key: &P) -> KeyWriter {
        let mut writer = KeyWriter::default();
        writer.raw(&[self.tag]);
        key.encode(&mut writer);
        writer
    }

    pub(crate) fn decode_key(&self, bytes: &[u8]) -> Result<K, Error> {
        let mut reader = KeyReader::new(bytes.get(1..).unwrap_or_default());
        K::decode(&mut reader)
            .and_then(|key| {
                if reader.is_empty() { Ok(key) } else { Err(DecodeError("the key is too long")) }
            })
            .map_err(|error| self.corrupt(bytes, error.0))
    }

    pub(crate) fn decode_value(&self, key: &[u8], bytes: &[u8]) -> Result<V, Error> {
        let mut reader = ValueReader::new(bytes);
        V::decode(&mut reader)
            .and_then(|value| {
                if reader.is_empty() {
                    Ok(value)
                } else {
                    Err(DecodeError("the value is too long"))
                }
            })
            .map_err(|error| self.corrupt(key, error.0))
    }

    pub(crate) fn corrupt(&self, key: &[u8], reason: &str) -> Error {
        Error::Corrupt { table: self.name, key: hex(key), reason: reason.to_owned() }
    }
}

impl<K, V> Debug for Table<K, V> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Table({})", self.name)
    }
}

/// A range of encoded keys of one table: from `start`, up to and without `end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    pub(crate) start: Vec<u8>,
    pub(crate) end: Vec<u8>,
}

/// The first byte string after all those that begin with `bytes`.
fn successor(mut bytes: Vec<u8>) -> Vec<u8> {
    while let Some(last) = bytes.last_mut() {
        if *last < 0xff {
            *last += 1;
            return bytes;
        }
        bytes.pop();
    }
    // Only for a prefix of nothing but ff: no table has the tag ff.
    vec![0xff; 64]
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

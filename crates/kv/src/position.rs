//! Positions: the place of a batch in the one order of commits.
//!
//! The sequencer gives them; code stores and compares them and never computes with them.

use crate::{DecodeError, Key, KeyReader, KeyWriter};

/// The place of something written in the order of commits. Zero is before everything.
///
/// A batch may ask for several positions; [`Position::pending`] names the n-th of them before the
/// batch is committed, in keys and in values, and the sequencer fills in the real one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(u64);

/// The highest 2^16 numbers stand for positions that are not known yet.
const PENDING: u64 = u64::MAX - 0xffff;

impl Position {
    /// Before everything.
    pub const ZERO: Self = Self(0);
    /// After everything that is committed.
    pub const MAX: Self = Self(PENDING - 1);

    /// The `index`-th position of the batch that this is written in.
    #[must_use]
    pub const fn pending(index: u16) -> Self {
        Self(PENDING + index as u64)
    }

    /// Which pending position of its batch this is; `None` for a real one.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the difference has 16 bits")]
    pub const fn pending_index(self) -> Option<u16> {
        if self.0 >= PENDING { Some((self.0 - PENDING) as u16) } else { None }
    }

    /// From the number that [`Position::as_u64`] gave, for tokens and stored values. A number that
    /// no position has, as a forged token may hold, is after everything.
    #[must_use]
    pub const fn from_u64(number: u64) -> Self {
        if number < PENDING { Self(number) } else { Self::MAX }
    }

    /// The number, for tokens and stored values.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl Key for Position {
    fn encode(&self, writer: &mut KeyWriter) {
        writer.position(*self);
    }

    fn decode(reader: &mut KeyReader<'_>) -> Result<Self, DecodeError> {
        u64::decode(reader).map(Self::from_u64)
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(formatter)
    }
}

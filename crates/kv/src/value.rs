//! Values: a version byte, then fields. Little-endian integers, length-prefixed byte strings.
//!
//! A value type that is read on a hot path implements [`Value`] by hand; the others are [`Json`].

use crate::{DecodeError, Position};

/// Something that can be stored as a value.
pub trait Value: Sized {
    /// Appends the bytes, the version of the format first.
    fn encode(&self, writer: &mut ValueWriter);
    /// Reads every version that [`Value::encode`] ever wrote.
    ///
    /// # Errors
    /// When the bytes are not an encoding of this type.
    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError>;
}

/// Collects the bytes of a value and where pending positions stand in it.
#[derive(Clone, Debug, Default)]
pub struct ValueWriter {
    pub(crate) bytes: Vec<u8>,
    pub(crate) pending: Vec<(usize, u16)>,
}

impl ValueWriter {
    /// What was written.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Appends bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends one byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// Appends a number of 16 bits.
    pub fn u16(&mut self, value: u16) {
        self.raw(&value.to_le_bytes());
    }

    /// Appends a number of 32 bits.
    pub fn u32(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    /// Appends a number of 64 bits.
    pub fn u64(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }

    /// Appends a signed number of 64 bits.
    pub fn i64(&mut self, value: i64) {
        self.raw(&value.to_le_bytes());
    }

    /// Appends a byte string with its length (32 bits).
    ///
    /// # Panics
    /// When it is longer than 4 GB, where a value has at most 100 kB.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.u32(u32::try_from(bytes.len()).expect("a value has at most 100 kB"));
        self.raw(bytes);
    }

    /// Appends a position (big-endian, as in keys) and notes it when it is pending.
    pub fn position(&mut self, position: Position) {
        if let Some(index) = position.pending_index() {
            self.pending.push((self.bytes.len(), index));
        }
        self.raw(&position.as_u64().to_be_bytes());
    }
}

/// Reads the fields of a value in their order.
#[derive(Debug)]
pub struct ValueReader<'a> {
    rest: &'a [u8],
}

impl<'a> ValueReader<'a> {
    /// Reads these bytes.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether everything was read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// All bytes that are left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) =
            self.rest.split_first_chunk::<N>().ok_or(DecodeError("the value is too short"))?;
        self.rest = rest;
        Ok(*head)
    }

    /// The version byte; checks that it is one of `1..=newest`.
    ///
    /// # Errors
    /// When the version is unknown: a newer program wrote the row.
    pub fn version(&mut self, newest: u8) -> Result<u8, DecodeError> {
        match self.u8()? {
            version if (1..=newest).contains(&version) => Ok(version),
            _ => Err(DecodeError("the value's version is unknown")),
        }
    }

    /// One byte.
    ///
    /// # Errors
    /// When nothing is left.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    /// A number of 16 bits.
    ///
    /// # Errors
    /// When fewer bytes are left.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// A number of 32 bits.
    ///
    /// # Errors
    /// When fewer bytes are left.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// A number of 64 bits.
    ///
    /// # Errors
    /// When fewer bytes are left.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A signed number of 64 bits.
    ///
    /// # Errors
    /// When fewer bytes are left.
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// A byte string with its length.
    ///
    /// # Errors
    /// When it is longer than what is left.
    pub fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.u32()? as usize;
        let (head, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(DecodeError("a byte string is longer than its value"))?;
        self.rest = rest;
        Ok(head)
    }

    /// A string.
    ///
    /// # Errors
    /// When it is longer than what is left or not UTF-8.
    pub fn string(&mut self) -> Result<String, DecodeError> {
        let bytes = self.bytes()?;
        String::from_utf8(bytes.to_vec()).map_err(|_| DecodeError("a string is not UTF-8"))
    }

    /// A position.
    ///
    /// # Errors
    /// When fewer bytes are left.
    pub fn position(&mut self) -> Result<Position, DecodeError> {
        Ok(Position::from_u64(u64::from_be_bytes(self.array()?)))
    }
}

/// A value in JSON, for rows that are read seldom and whose fields grow with time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<T: serde::Serialize + serde::de::DeserializeOwned> Value for Json<T> {
    fn encode(&self, writer: &mut ValueWriter) {
        writer.u8(1);
        writer.raw(&serde_json::to_vec(&self.0).expect("stored types are plain data"));
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        reader.version(1)?;
        serde_json::from_slice(reader.rest())
            .map(Self)
            .map_err(|_| DecodeError("the value's JSON does not fit its type"))
    }
}

impl Value for () {
    fn encode(&self, _: &mut ValueWriter) {}

    fn decode(_: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        Ok(())
    }
}

impl Value for u32 {
    fn encode(&self, writer: &mut ValueWriter) {
        writer.u32(*self);
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        reader.u32()
    }
}

impl Value for i64 {
    fn encode(&self, writer: &mut ValueWriter) {
        writer.i64(*self);
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        reader.i64()
    }
}

impl Value for Position {
    fn encode(&self, writer: &mut ValueWriter) {
        writer.position(*self);
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        reader.position()
    }
}

impl Value for Vec<u8> {
    fn encode(&self, writer: &mut ValueWriter) {
        writer.raw(self);
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        Ok(reader.rest().to_vec())
    }
}

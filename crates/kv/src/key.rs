//! Order-preserving keys: comparing the encoded bytes is comparing the fields, first to last.
//!
//! Integers are big-endian (signed ones with the sign bit turned), strings and byte strings end
//! with `00 01` and have an inner `00` written as `00 ff`, so that a short one sorts first.

use crate::{DecodeError, Position};

/// Something that can be (part of) a key.
pub trait Key: Sized {
    /// Appends the order-preserving bytes.
    fn encode(&self, writer: &mut KeyWriter);
    /// Reads back what [`Key::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are not an encoding of this type.
    fn decode(reader: &mut KeyReader<'_>) -> Result<Self, DecodeError>;
}

/// Collects the bytes of a key and where pending positions stand in it.
#[derive(Clone, Debug, Default)]
pub struct KeyWriter {
    pub(crate) bytes: Vec<u8>,
    pub(crate) pending: Vec<(usize, u16)>,
}

impl KeyWriter {
    /// What was written.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Appends bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends a byte string, escaped and ended, so that a prefix sorts before what it begins.
    pub fn escaped(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.bytes.push(byte);
            if byte == 0 {
                self.bytes.push(0xff);
            }
        }
        self.bytes.extend_from_slice(&[0, 1]);
    }

    /// Appends a position and notes it when it is pending.
    pub fn position(&mut self, position: Position) {
        if let Some(index) = position.pending_index() {
            self.pending.push((self.bytes.len(), index));
        }
        self.raw(&position.as_u64().to_be_bytes());
    }
}

/// Reads the fields of a key in their order.
#[derive(Debug)]
pub struct KeyReader<'a> {
    rest: &'a [u8],
}

impl<'a> KeyReader<'a> {
    /// Reads these bytes.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) =
            self.rest.split_first_chunk::<N>().ok_or(DecodeError("the key is too short"))?;
        self.rest = rest;
        Ok(*head)
    }

    /// The next escaped byte string.
    ///
    /// # Errors
    /// When its end is missing.
    pub fn escaped(&mut self) -> Result<Vec<u8>, DecodeError> {
        let mut out = Vec::new();
        let mut bytes = self.rest.iter().enumerate();
        while let Some((_, &byte)) = bytes.next() {
            if byte != 0 {
                out.push(byte);
                continue;
            }
            match bytes.next() {
                Some((_, 0xff)) => out.push(0),
                Some((at, 1)) => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(out);
                }
                _ => return Err(DecodeError("a string in the key is escaped wrongly")),
            }
        }
        Err(DecodeError("a string in the key does not end"))
    }
}

macro_rules! integer_key {
    ($($type:ty),*) => {$(
        impl Key for $type {
            fn encode(&self, writer: &mut KeyWriter) {
                writer.raw(&self.to_be_bytes());
            }

            fn decode(reader: &mut KeyReader<'_>) -> Result<Self, DecodeError> {
                Ok(Self::from_be_bytes(reader.array()?))
            }
        }
    )*};
}

integer_key!(u8, u16, u32, u64);

impl Key for i64 {
    fn encode(&self, writer: &mut KeyWriter) {
        writer.raw(&(self.cast_unsigned() ^ (1 << 63)).to_be_bytes());
    }

    fn decode(reader: &mut KeyReader<'_>) -> Result<Self, DecodeError> {
        Ok((u64::from_be_bytes(reader.array()?) ^ (1 << 63)).cast_signed())
    }
}

impl<const N: usize> Key for [u8; N] {
    fn encode(&self, writer: &mut KeyWriter) {
        writer.raw(self);
    }

    fn decode(reader: &mut KeyReader<'_>) -> Result<Self, DecodeError> {
        reader.array()
    }
}

impl Key for Vec<u8> {
    fn encode(&self, writer: &mut KeyWriter) {
        writer.escaped(self);
    }

    fn decode(reader: &mut KeyReader<'_>) -> Result<Self, DecodeError> {
        reader.escaped()
    }
}

impl Key for String {
    fn encode(&self, writer: &mut KeyWriter) {
        writer.escaped(self.as_bytes());
    }

    fn decode(reader: &mut KeyReader<'_>) -> Result<Self, DecodeError> {
        Self::from_utf8(reader.escaped()?).map_err(|_| DecodeError("a string is not UTF-8"))
    }
}

impl Key for () {
    fn encode(&self, _: &mut KeyWriter) {}

    fn decode(_: &mut KeyReader<'_>) -> Result<Self, DecodeError> {
        Ok(())
    }
}

macro_rules! tuple_key {
    ($($name:ident $index:tt),*) => {
        impl<$($name: Key),*> Key for ($($name,)*) {
            fn encode(&self, writer: &mut KeyWriter) {
                $(self.$index.encode(writer);)*
            }

            fn decode(reader: &mut KeyReader<'_>) -> Result<Self, DecodeError> {
                Ok(($($name::decode(reader)?,)*))
            }
        }
    };
}

tuple_key!(A 0);
tuple_key!(A 0, B 1);
tuple_key!(A 0, B 1, C 2);
tuple_key!(A 0, B 1, C 2, D 3);

/// Declares key structs whose encoding is their fields in order. The fields are as visible as the
/// struct.
#[macro_export]
macro_rules! key_structs {
    ($($(#[$doc:meta])* $vis:vis struct $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $vis struct $name { $($(#[$field_doc])* $vis $field: $type,)* }

        impl $crate::Key for $name {
            fn encode(&self, writer: &mut $crate::KeyWriter) {
                $($crate::Key::encode(&self.$field, writer);)*
            }

            fn decode(reader: &mut $crate::KeyReader<'_>) -> Result<Self, $crate::DecodeError> {
                Ok(Self { $($field: $crate::Key::decode(reader)?,)* })
            }
        }
    )*};
}

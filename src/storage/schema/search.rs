//! Tables of the full-text index. Owner: `search`. Tags 16 to 31 of family `ix`.
//!
//! A document is an event of a room's timeline, known by its place there: places grow with time and
//! compare across rooms. A posting says that a term occurs in a document. The postings of a term in
//! a room are packed in blocks; a block holds those from its key up to the next block's.

use kv::{DecodeError, Json, Position, Table, Value, ValueReader, ValueWriter, key_structs};
use serde::{Deserialize, Serialize};

use super::IX;
use crate::id::{EventNid, RoomNid};

key_structs! {
    /// A block of postings.
    pub struct PostingKey {
        /// The room.
        room: RoomNid,
        /// The term: a keyed hash.
        term: u64,
        /// No posting of the block is before it, none of an earlier block at or after it.
        from: Position,
    }

    /// A document.
    pub struct DocumentKey {
        /// The room.
        room: RoomNid,
        /// Its place in the live line of the timeline.
        position: Position,
    }
}

/// The postings by room and term.
pub const SEARCH_POSTINGS: Table<PostingKey, PostingBlock> =
    Table::new("search_postings", IX, 16, "search");
/// What stands in the index for each document, so that it can be taken out again.
pub const SEARCH_DOCUMENTS: Table<DocumentKey, DocumentRow> =
    Table::new("search_documents", IX, 17, "search");
/// How far each room is indexed.
pub const SEARCH_ROOMS: Table<RoomNid, IndexedRow> = Table::new("search_rooms", IX, 18, "search");
/// How the index was made, under the key 0.
pub const SEARCH_INDEX: Table<u8, Json<IndexRow>> = Table::new("search_index", IX, 19, "search");

/// That a term occurs in a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Posting {
    /// The document's place in the timeline.
    pub position: Position,
    /// How often the term occurs there, at most 255.
    pub count: u8,
    /// How many words the document has, at most 255.
    pub length: u8,
}

/// Postings in the order of their places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PostingBlock(pub Vec<Posting>);

/// What stands in the index for an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DocumentRow {
    /// A text.
    Text {
        /// The edit whose text it is; `None`: its own.
        edit: Option<EventNid>,
        /// The terms that have a posting for it, ascending.
        terms: Vec<u64>,
    },
    /// An edit of another document, which holds its text.
    EditOf(Position),
}

/// How far a room is indexed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexedRow {
    /// Everything in the live line of the timeline up to here.
    pub position: Position,
}

/// How the index was made: it is made anew when that changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexRow {
    /// What makes terms of texts.
    pub analyzer: String,
}

impl Value for PostingBlock {
    fn encode(&self, writer: &mut ValueWriter) {
        writer.u8(1);
        let mut last = 0;
        for posting in &self.0 {
            let position = posting.position.as_u64();
            write_number(writer, position - last);
            last = position;
            writer.u8(posting.count);
            writer.u8(posting.length);
        }
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        reader.version(1)?;
        let mut postings = Vec::new();
        let mut last: u64 = 0;
        while !reader.is_empty() {
            let step = read_number(reader)?;
            last = last.checked_add(step).ok_or(DecodeError("a place is out of range"))?;
            postings.push(Posting {
                position: Position::from_u64(last),
                count: reader.u8()?,
                length: reader.u8()?,
            });
        }
        Ok(Self(postings))
    }
}

/// Seven bits a byte, the lowest first; the highest bit says that more follow.
fn write_number(writer: &mut ValueWriter, mut number: u64) {
    while number >= 0x80 {
        writer.u8((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    writer.u8((number & 0x7f) as u8);
}

fn read_number(reader: &mut ValueReader<'_>) -> Result<u64, DecodeError> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = reader.u8()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(DecodeError("a number is too long"))
}

impl Value for DocumentRow {
    fn encode(&self, writer: &mut ValueWriter) {
        writer.u8(1);
        match self {
            Self::Text { edit, terms } => {
                writer.u8(0);
                writer.u32(edit.map_or(0, |edit| edit.0));
                for term in terms {
                    writer.u64(*term);
                }
            }
            Self::EditOf(position) => {
                writer.u8(1);
                writer.position(*position);
            }
        }
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        reader.version(1)?;
        match reader.u8()? {
            0 => {
                let edit = Some(EventNid(reader.u32()?)).filter(|edit| edit.0 != 0);
                let mut terms = Vec::new();
                while !reader.is_empty() {
                    terms.push(reader.u64()?);
                }
                Ok(Self::Text { edit, terms })
            }
            1 => Ok(Self::EditOf(reader.position()?)),
            _ => Err(DecodeError("a kind of document is unknown")),
        }
    }
}

impl Value for IndexedRow {
    fn encode(&self, writer: &mut ValueWriter) {
        writer.u8(1);
        writer.position(self.position);
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        reader.version(1)?;
        Ok(Self { position: reader.position()? })
    }
}

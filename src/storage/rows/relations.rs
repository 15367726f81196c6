//! Rows of the relations between events. Encoded by hand, a version byte first.

use kv::{DecodeError, Value, ValueReader, ValueWriter};

use super::TimelinePosition;
use crate::id::EventNid;

/// The kinds of relations, as they are numbered in keys.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#relationship-types>
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum RelationKind {
    /// Any other.
    Other = 0,
    /// `m.annotation`
    Annotation = 1,
    /// `m.reference`
    Reference = 2,
    /// `m.replace`
    Replacement = 3,
    /// `m.thread`
    Thread = 4,
}

impl RelationKind {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Other, Self::Annotation, Self::Reference, Self::Replacement, Self::Thread];

    /// By the name in events.
    pub fn from_name(name: &str) -> Self {
        match name {
            "m.annotation" => Self::Annotation,
            "m.reference" => Self::Reference,
            "m.replace" => Self::Replacement,
            "m.thread" => Self::Thread,
            _ => Self::Other,
        }
    }

    /// Whether the server tells with an event what these relations to it amount to.
    pub const fn is_aggregated(self) -> bool {
        matches!(self, Self::Reference | Self::Replacement | Self::Thread)
    }
}

/// What the relations to an event amount to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AggregationRow {
    /// How many replies the thread has that it is the root of.
    pub replies: u32,
    /// The place of the latest reply; meaningless without one.
    pub latest: TimelinePosition,
    /// The latest reply; meaningless without one.
    pub latest_event: EventNid,
    /// The newest valid edit.
    pub edit: Option<EventNid>,
    /// How many events reference it.
    pub references: u32,
}

impl AggregationRow {
    /// Whether there is nothing to tell.
    pub const fn is_empty(&self) -> bool {
        self.replies == 0 && self.edit.is_none() && self.references == 0
    }
}

impl Value for AggregationRow {
    fn encode(&self, writer: &mut ValueWriter) {
        writer.u8(1);
        writer.u32(self.replies);
        writer.u8(self.latest.line);
        writer.position(self.latest.position);
        writer.u32(self.latest_event.0);
        writer.u32(self.edit.map_or(0, |event| event.0));
        writer.u32(self.references);
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        reader.version(1)?;
        Ok(Self {
            replies: reader.u32()?,
            latest: TimelinePosition { line: reader.u8()?, position: reader.position()? },
            latest_event: EventNid(reader.u32()?),
            edit: Some(EventNid(reader.u32()?)).filter(|event| event.0 != 0),
            references: reader.u32()?,
        })
    }
}

/// A thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadRow {
    /// The reference hash of its root.
    pub root: [u8; 32],
}

impl Value for ThreadRow {
    fn encode(&self, writer: &mut ValueWriter) {
        writer.u8(1);
        writer.raw(&self.root);
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        reader.version(1)?;
        Ok(Self { root: reader.array()? })
    }
}

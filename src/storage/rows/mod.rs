//! The rows: what the values of the tables are.

pub mod relations;
pub mod delayed_events;
pub mod encryption;
pub mod reports;
pub mod accounts;
pub mod media;
pub mod push;
pub mod rooms;
pub mod users;

pub use relations::{AggregationRow, RelationKind, ThreadRow};
pub use rooms::{
    EventBytes, EventFlags, EventRecord, HeadRow, Membership, MembershipRow, OverlayRow,
    RelationRow, StateChange, StateChanges, StateKeyName, StateRef, TimelineEntry,
    TimelinePosition, TransactionMark,
};

//! The rows: what the values of the tables are.

pub mod push;
pub mod rooms;
pub mod users;

pub use rooms::{
    EventBytes, EventFlags, EventRecord, HeadRow, Membership, MembershipRow, OverlayRow,
    RelationRow, StateChange, StateChanges, StateKeyName, StateRef, TimelineEntry,
    TimelinePosition, TransactionMark,
};

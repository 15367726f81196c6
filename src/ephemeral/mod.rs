//! What is told but not kept in a room's history: who types, who is there, and what was read.

pub mod presence;
pub mod reading;
pub mod receipts;
pub mod typing;

pub use presence::{Presence, PresenceState, Syncing};
pub use receipts::{NewReceipt, Receipts, Thread};
pub use typing::Typing;

//! What is told but not kept in a room's history: who types, and what was read.

pub mod reading;
pub mod receipts;
pub mod typing;

pub use receipts::{NewReceipt, Receipts, Thread};
pub use typing::Typing;

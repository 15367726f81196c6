//! The event graph of rooms.

pub mod state;

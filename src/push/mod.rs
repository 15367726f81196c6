//! What notifies whom: push rules, and how much of a room is unread.
//!
//! `rooms` asks, for each event it commits, what is to be counted ([`counts`]); those who sync ask
//! how much is unread ([`unread`]). Most users have the default rules, so an event is counted once
//! for all of them, as a running sum; what differs for one user is a row of its own. [`odd`] knows
//! the users whose rules differ.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications>

pub mod counts;
pub mod odd;
pub mod rules;
pub mod unread;

pub use self::{
    odd::{OddUser, Push},
    unread::{Query, Unread},
};

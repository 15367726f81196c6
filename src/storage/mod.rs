//! What is stored and how: all tables as typed constants, their keys and rows, no policy.
//!
//! Any module reads any table through here; a table is written only by its owner.

pub mod account_data;
pub mod identity;
pub mod rows;
pub mod schema;
pub mod topic;

#[cfg(test)]
mod tests;

//! The client-server API, in the process of the test. One file for each of `src/client_api`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

#[path = "../harness/mod.rs"]
mod harness;

mod account;
mod config;
mod device;
mod discovery;
mod filter;
mod limits;
mod profile;
mod push;
mod session;
mod sync;
mod uiaa;

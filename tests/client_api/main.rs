//! The client-server API, in the process of the test. One file for each of `src/client_api`.

#[path = "../harness/mod.rs"]
mod harness;

mod account;
mod config;
mod device;
mod discovery;
mod filter;
mod profile;
mod push;
mod session;
mod sync;
mod uiaa;

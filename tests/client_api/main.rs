//! The client-server API, in the process of the test. One file for each of `src/client_api`.

#[path = "../harness/mod.rs"]
mod harness;

mod account;
mod attacks_events;
mod attacks_load;
mod config;
mod device;
mod discovery;
mod filter;
mod messages;
mod profile;
mod push;
mod rooms;
mod session;
mod sync;
mod uiaa;
mod visibility;

//! The client-server API, in the process of the test. One file for each of `src/client_api`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

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
mod limits;
mod presence;
mod profile;
mod push;
mod rooms;
mod routes;
mod session;
mod sliding;
mod sliding_extensions;
mod sliding_members;
mod sliding_truth;
mod sync;
mod sync_flows;
mod threads;
mod uiaa;
mod voip;
mod visibility;

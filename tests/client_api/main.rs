//! The client-server API, in the process of the test. One file for each of `src/client_api`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

#[path = "../harness/mod.rs"]
mod harness;

mod account;
mod attacks_events;
mod attacks_load;
mod config;
mod delayed_events;
mod device;
mod discovery;
mod filter;
mod invites;
mod messages;
mod limits;
mod presence;
mod mutual_rooms;
mod old_sync;
mod profile;
mod public_rooms;
mod push;
mod relations;
mod reports;
mod room_summary;
mod rooms;
mod routes;
mod search;
mod session;
mod spaces;
mod sync;
mod sync_flows;
mod threads;
mod timestamp;
mod uiaa;
mod voip;
mod upgrade;
mod user_directory;
mod visibility;

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
mod email;
mod erasure;
mod filter;
mod guests;
mod messages;
mod limits;
mod lock_suspend;
mod login_token;
mod openid;
mod profile;
mod push;
mod registration_tokens;
mod rooms;
mod session;
mod sync;
mod sync_flows;
mod terms;
mod uiaa;
mod visibility;

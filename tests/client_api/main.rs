//! The client-server API, in the process of the test. One file for each of `src/client_api`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

#[path = "../harness/mod.rs"]
mod harness;

mod account;
mod appservices;
mod appservices_transactions;
mod attacks_events;
mod attacks_load;
mod bridge;
mod config;
mod delayed_events;
mod device;
mod discovery;
mod email;
mod erasure;
mod filter;
mod invites;
mod keys;
mod keys_attacks;
mod guests;
mod messages;
mod limits;
mod presence;
mod mutual_rooms;
mod old_sync;
mod lock_suspend;
mod login_token;
mod openid;
mod media;
mod media_admin;
mod media_attacks;
mod media_previews;
mod media_thumbnails;
mod profile;
mod public_rooms;
mod push;
mod relations;
mod reports;
mod room_summary;
mod registration_tokens;
mod push_counts;
mod pushers;
mod rooms;
mod routes;
mod search;
mod session;
mod spaces;
mod sliding;
mod sliding_extensions;
mod sliding_members;
mod sliding_truth;
mod sync;
mod sync_flows;
mod thread_subscriptions;
mod threads;
mod timestamp;
mod terms;
mod uiaa;
mod voip;
mod upgrade;
mod user_directory;
mod visibility;

//! Causerie, a Matrix homeserver for team chat.
//!
//! The modules are listed in the order of dependency, the highest first: a module may name those
//! below it and never one above it. `tests/tidy.rs` reads this list and enforces it (and rustfmt is
//! told not to sort it). What each layer is for and how an event passes through them is told in
//! `ARCHITECTURE.md`.

// The command line: `serve`, `check-config`, `admin …`, `fsck`, `backup`, `restore`.
pub mod cli;

// Builds, starts and stops everything.
pub mod server;

// What clients call.
pub mod client_api;

// What other servers call.
pub mod federation_api;

// What clients are told of what changed.
pub mod sync;

// What application services are sent.
pub mod appservice_sender;

// What push gateways are told.
pub mod push_gateway;

// Accounts, sessions and what is a user's own.
pub mod users;

// What end-to-end encryption needs of a server: keys, device lists, messages to devices, backups.
pub mod encryption;

// The full-text index of messages.
pub mod search;

// Events that are sent later (MSC4140).
pub mod delayed_events;

// Typing and receipts.
pub mod ephemeral;

// The event graph: events, state, the one commit.
pub mod rooms;

// Files of users: uploads, downloads, thumbnails, previews.
pub mod media;

// Application services: who they are, what is theirs, what they are asked.
pub mod appservices;

// Push rules and unread counts.
pub mod push;

// What this server is to other servers: its keys.
pub mod federation;

// The requests that the server makes itself.
pub mod egress;

// Backups of the database while the server runs.
pub mod backups;

// All tables as typed constants, the rows in them, and what wakes a reader.
pub mod storage;

// The listener, the endpoints, limits and errors on the wire.
pub mod http;

// Logs, figures, panics.
pub mod telemetry;

// The settings: file, environment, command line.
pub mod config;

// What a client is told when a request fails.
pub mod error;

// The clock.
pub mod time;

// Work in the background.
pub mod tasks;

// The numbers that stand for rooms, events and users inside the server.
pub mod id;

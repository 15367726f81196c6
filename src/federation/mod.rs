//! What this server is to other servers, and how it reaches them: its signing keys, where they are
//! (`discovery.rs`), signed requests (`client.rs`), their keys and files.

pub mod client;
mod discovery;
mod dns;
mod remote_keys;
pub mod remote_media;
pub mod server_keys;

#[cfg(test)]
#[path = "../../tests/harness/origin.rs"]
mod origin;
#[cfg(test)]
mod tests;

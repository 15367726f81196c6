//! What this server is to other servers, and how it reaches them: its signing keys, the signed
//! requests, the files of others.

pub mod client;
pub mod remote_media;
pub mod server_keys;

//! What this server is to other servers. So far: its signing keys.

pub mod server_keys;

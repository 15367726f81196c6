//! The server-server API. So far: what other servers read without authenticating, and files.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/>

mod auth;
pub mod discovery;
pub mod openid;

use std::sync::Arc;

use kv::Store;

use crate::{
    federation::{client::Federation, server_keys::Signer},
    http::Routes,
    time::Clock,
};

/// What the handlers of this API need.
#[derive(Debug)]
pub struct FederationApi {
    /// The store.
    pub store: Store,
    /// The server's name and key.
    pub signer: Arc<Signer>,
    /// Other servers.
    pub federation: Federation,
    /// The time.
    pub clock: Clock,
}

/// All routes of this API.
pub fn routes(state: Arc<FederationApi>) -> Routes<FederationApi> {
    Routes::new(state).add(discovery::get_server_keys).add(discovery::get_server_version)
}

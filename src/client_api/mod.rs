//! The client-server API: handlers translate between ruma's types and the services; they hold no
//! rules. `routes.rs` has the whole route table.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/>

mod account;
mod account_routes;
mod alias;
mod config;
mod context;
mod create_room;
mod device;
mod discovery;
mod filter;
mod membership;
mod membership_change;
mod message;
mod profile;
mod push;
mod rate;
mod read_routes;
mod room;
mod routes;
mod send;
mod session;
mod state;
mod tag;
mod thirdparty;
mod uiaa;
mod voip;

use std::sync::Arc;

pub use self::{rate::RateLimits, routes::routes};
use crate::{
    config::Config,
    error::ApiError,
    http::{Authenticator, ClientAddress, Requester},
    rooms::Rooms,
    users::Users,
};

/// What the handlers of this API need.
#[derive(Debug)]
pub struct ClientApi {
    /// The settings.
    pub config: Arc<Config>,
    /// Accounts and what is theirs.
    pub users: Users,
    /// The event graph.
    pub rooms: Rooms,
    /// How often users may do what they do in rooms.
    pub limits: RateLimits,
}

impl Authenticator for ClientApi {
    async fn authenticate(
        &self,
        token: &str,
        address: ClientAddress,
    ) -> Result<Requester, ApiError> {
        self.users.authenticate(token, address).await
    }
}

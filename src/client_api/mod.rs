//! The client-server API: handlers translate between ruma's types and the services; they hold no
//! rules. `routes.rs` has the whole route table.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/>

mod alias;
mod context;
mod create_room;
mod membership;
mod membership_change;
mod message;
mod rate;
mod read_marker;
mod read_routes;
mod receipt;
mod room;
mod routes;
mod send;
mod state;
mod sync;
mod typing;

use std::sync::Arc;

pub use self::{rate::RateLimits, routes::routes};
use crate::{
    config::Config,
    ephemeral::{Receipts, Typing},
    error::ApiError,
    http::{Authenticator, ClientAddress, Requester},
    rooms::Rooms,
    sync::Sync,
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
    /// Receipts.
    pub receipts: Receipts,
    /// Who types.
    pub typing: Typing,
    /// What clients are told of what changed.
    pub sync: Sync,
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

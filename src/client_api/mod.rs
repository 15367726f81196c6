//! The client-server API: handlers translate between ruma's types and the services; they hold no
//! rules. `routes.rs` has the whole route table.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/>

pub mod account;
pub mod account_routes;
pub mod alias;
pub mod config;
pub mod context;
pub mod create_room;
pub mod device;
pub mod discovery;
pub mod filter;
pub mod membership;
pub mod membership_change;
pub mod message;
pub mod presence;
pub mod profile;
pub mod push;
pub mod rate;
pub mod read_marker;
pub mod read_routes;
pub mod receipt;
pub mod room;
pub mod routes;
pub mod rtc;
pub mod send;
pub mod session;
pub mod state;
pub mod sync;
pub mod sync_sliding;
pub mod tag;
pub mod thirdparty;
pub mod threads;
pub mod typing;
pub mod uiaa;
pub mod voip;

use std::sync::Arc;

pub use self::{rate::RateLimits, routes::routes};
use crate::{
    config::Config,
    egress::Egress,
    ephemeral::{Presence, Receipts, Typing},
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
    /// Who is there.
    pub presence: Presence,
    /// What clients are told of what changed.
    pub sync: Sync,
    /// How often users may do what they do in rooms.
    pub limits: RateLimits,
    /// The server's own requests.
    pub egress: Egress,
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

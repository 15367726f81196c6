//! The client-server API: handlers translate between ruma's types and the services; they hold no
//! rules. `routes.rs` has the whole route table.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/>

pub mod account;
pub mod account_routes;
pub mod admin;
pub mod alias;
pub mod appservice;
pub mod backup;
pub mod config;
pub mod contact;
pub mod context;
pub mod create_room;
pub mod cross_signing;
pub mod delayed_events;
pub mod dehydrated_device;
pub mod device;
pub mod directory;
pub mod discovery;
pub mod fallback;
pub mod encryption_routes;
pub mod extended;
pub mod filter;
pub mod key_changes;
pub mod keys;
pub mod media;
pub mod media_routes;
pub mod membership;
pub mod membership_change;
pub mod message;
pub mod presence;
pub mod mutual_rooms;
pub mod old_sync;
pub mod login_page;
pub mod openid;
pub mod pages;
mod permissions;
pub mod profile;
pub mod push;
pub mod pusher;
pub mod rate;
mod raw;
pub mod read_marker;
pub mod read_routes;
pub mod receipt;
pub mod rendezvous;
pub mod relations;
pub mod reporting;
pub mod room;
pub mod routes;
pub mod rtc;
pub mod search;
pub mod send;
pub mod session;
pub mod space;
pub mod sso;
pub mod state;
pub mod support;
pub mod sync;
pub mod sync_sliding;
pub mod tag;
pub mod thirdparty;
pub mod thread_subscriptions;
pub mod threads;
pub mod timestamp;
pub mod to_device;
pub mod typing;
pub mod uiaa;
pub mod upgrade;
pub mod user_directory;
pub mod voip;

use std::sync::Arc;

use http::request::Parts;

pub use self::{rate::RateLimits, routes::routes};
use crate::{
    appservices::Appservices,
    config::Config,
    delayed_events::DelayedEvents,
    egress::Egress,
    encryption::Encryption,
    ephemeral::{Presence, Receipts, Typing},
    error::ApiError,
    http::{AppserviceCaller, Authenticator, Credentials, Requester},
    media::Media,
    rooms::Rooms,
    search::Search,
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
    /// Keys, messages to devices, backups.
    pub encryption: Encryption,
    /// Application services.
    pub appservices: Appservices,
    /// The event graph.
    pub rooms: Rooms,
    /// Events that are sent later.
    pub delayed_events: DelayedEvents,
    /// Receipts.
    pub receipts: Receipts,
    /// Who types.
    pub typing: Typing,
    /// Who is there.
    pub presence: Presence,
    /// The full-text search.
    pub search: Search,
    /// What clients are told of what changed.
    pub sync: Sync,
    /// How often users may do what they do in rooms.
    pub limits: RateLimits,
    /// Those of application services that have none.
    pub no_limits: RateLimits,
    /// Files of users.
    pub media: Media,
    /// The server's own requests.
    pub egress: Egress,
}

impl Authenticator for ClientApi {
    async fn authenticate(&self, credentials: Credentials<'_>) -> Result<Requester, ApiError> {
        self.users.identify(credentials).await
    }

    fn appservice(&self, token: &str) -> Option<AppserviceCaller> {
        Authenticator::appservice(&self.users, token)
    }

    fn permit(&self, requester: &Requester, head: &Parts) -> Result<(), ApiError> {
        permissions::permit(requester, head)
    }
}

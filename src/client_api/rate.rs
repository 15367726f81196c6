//! The rate limits of the client-server API, one limiter for each kind of action.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#rate-limiting>

use super::ClientApi;
use crate::{
    config::{RateLimit, RateLimitsConfig},
    error::ApiError,
    http::{RateLimiter, Requester},
};

/// The limiters of what users do in rooms; those of accounts are with `users`.
pub struct RateLimits {
    /// Events and their redactions, by user.
    pub messages: RateLimiter,
    /// Joins and knocks, by user.
    pub joins: RateLimiter,
    /// Joins, by room.
    pub joins_per_room: RateLimiter,
    /// Invites, by room.
    pub invites_per_room: RateLimiter,
    /// Invites, by the user who is invited.
    pub invites_per_user: RateLimiter,
    /// Invites, by the user who invites.
    pub invites_per_issuer: RateLimiter,
    /// New rooms, by user.
    pub room_creation: RateLimiter,
    /// Presence that is set, by user.
    pub presence: RateLimiter,
    /// Reports, by user.
    pub reports: RateLimiter,
    /// Pushers that are set and removed, by user.
    pub pushers: RateLimiter,
    /// Uploads, by user.
    pub media_uploads: RateLimiter,
    /// Thumbnails that are made, by user or address.
    pub thumbnails: RateLimiter,
    /// Previews, by user.
    pub url_previews: RateLimiter,
    /// Searches in messages, by user.
    pub searches: RateLimiter,
    /// Searches for users, by user: a few for each letter that is typed.
    pub user_searches: RateLimiter,
    /// Messages to devices, by user: one use for each device.
    pub to_device_messages: RateLimiter,
    /// Changes of device lists, by user.
    pub device_list_changes: RateLimiter,
    /// Requests for keys, by the user who asks: one use for each user who is asked.
    pub key_requests: RateLimiter,
    /// One-time keys that are taken, by user: one use for each.
    pub key_claims: RateLimiter,
    /// Questions for changed devices that read whole rooms, by user: a client asks once when it comes
    /// back.
    pub key_changes: RateLimiter,
    /// Logins by QR code that begin, by address.
    pub rendezvous_creation: RateLimiter,
    /// What is read and written for them, by address: two devices that ask once a second, and some.
    pub rendezvous: RateLimiter,
}

impl RateLimits {
    /// Limits that refuse nothing, for application services.
    pub fn none() -> Self {
        Self::new(&RateLimitsConfig { enabled: false, ..RateLimitsConfig::default() })
    }

    /// From the configuration.
    pub fn new(config: &RateLimitsConfig) -> Self {
        let limiter = |name, limit: &RateLimit| RateLimiter::of(config, name, limit);
        Self {
            messages: limiter("messages", &config.messages),
            joins: limiter("joins", &config.joins),
            joins_per_room: limiter("joins_per_room", &config.joins_per_room),
            invites_per_room: limiter("invites_per_room", &config.invites_per_room),
            invites_per_user: limiter("invites_per_user", &config.invites_per_user),
            invites_per_issuer: limiter("invites_per_issuer", &config.invites_per_issuer),
            room_creation: limiter("room_creation", &config.room_creation),
            presence: limiter("presence", &config.presence),
            pushers: limiter("pushers", &config.pushers),
            reports: limiter("reports", &config.reports),
            media_uploads: limiter("media_uploads", &config.media_uploads),
            thumbnails: limiter("thumbnails", &config.thumbnails),
            url_previews: limiter("url_previews", &config.url_previews),
            searches: limiter("searches", &config.searches),
            user_searches: limiter("user_searches", &config.user_searches),
            to_device_messages: limiter("to_device_messages", &config.to_device_messages),
            device_list_changes: limiter("device_list_changes", &config.device_list_changes),
            key_requests: limiter("key_requests", &config.key_requests),
            key_claims: limiter("key_claims", &config.key_claims),
            key_changes: limiter("key_changes", &config.key_changes),
            rendezvous_creation: limiter("rendezvous_creation", &config.rendezvous_creation),
            rendezvous: limiter("rendezvous", &config.rendezvous),
        }
    }
}

impl ClientApi {
    /// Charges for a change of the user's devices or keys that others are told.
    pub(super) fn charge_device_list_change(&self, requester: &Requester) -> Result<(), ApiError> {
        self.limits_of(requester).device_list_changes.check(&requester.user_id)
    }

    /// The limits that hold for the one who asks.
    pub fn limits_of(&self, requester: &Requester) -> &RateLimits {
        if requester.is_rate_limited() { &self.limits } else { &self.no_limits }
    }
}

impl std::fmt::Debug for RateLimits {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("RateLimits")
    }
}

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
    /// Searches for users, by user: a few for each letter that is typed.
    pub user_searches: RateLimiter,
    /// Messages to devices, by user: one use for each device.
    pub to_device_messages: RateLimiter,
    /// Changes of device lists, by user.
    pub device_list_changes: RateLimiter,
    /// Requests for keys, by the user who asks: one use for each user who is asked.
    pub key_requests: RateLimiter,
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
        let limiter = |limit: &RateLimit| RateLimiter::of(config, limit);
        Self {
            messages: limiter(&config.messages),
            joins: limiter(&config.joins),
            joins_per_room: limiter(&config.joins_per_room),
            invites_per_room: limiter(&config.invites_per_room),
            invites_per_user: limiter(&config.invites_per_user),
            invites_per_issuer: limiter(&config.invites_per_issuer),
            room_creation: limiter(&config.room_creation),
            presence: limiter(&config.presence),
            pushers: limiter(&config.pushers),
            reports: limiter(&config.reports),
            media_uploads: limiter(&config.media_uploads),
            thumbnails: limiter(&config.thumbnails),
            url_previews: limiter(&config.url_previews),
            user_searches: limiter(&config.user_searches),
            to_device_messages: limiter(&config.to_device_messages),
            device_list_changes: limiter(&config.device_list_changes),
            key_requests: limiter(&config.key_requests),
            key_changes: limiter(&RateLimit::new(0.2, 20)),
            rendezvous_creation: limiter(&RateLimit::new(0.1, 10)),
            rendezvous: limiter(&RateLimit::new(10.0, 100)),
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

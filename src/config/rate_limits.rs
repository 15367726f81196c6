//! The section `[rate_limits]`: how often something may be done.

use serde::{Deserialize, Serialize};

/// How often something may be done before the answer is 429 `M_LIMIT_EXCEEDED`. `burst` is how
/// often it may be done at once, `per_second` how fast that allowance fills up again.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimitsConfig {
    /// Whether there are limits at all. Turn them off only for tests and for moving data in.
    pub enabled: bool,

    /// Events that a user sends.
    pub messages: RateLimit,

    /// Attempts to log in from one address.
    pub login_by_address: RateLimit,

    /// Attempts to log in to one account.
    pub login_by_account: RateLimit,

    /// Attempts with a wrong password on one account.
    pub login_failed: RateLimit,

    /// New accounts from one address.
    pub registration: RateLimit,

    /// Requests from one address that are steps of a registration or ask whether a name is free.
    pub registration_steps: RateLimit,

    /// Attempts from one address to find out whether a registration token is valid.
    pub registration_token_checks: RateLimit,

    /// Mails that are sent for one address that asks, and to one that is asked for.
    pub email_requests: RateLimit,

    /// Guesses at the token of a mail, from one address.
    pub email_confirmations: RateLimit,

    /// Rooms that a user joins.
    pub joins: RateLimit,

    /// Joins to one room.
    pub joins_per_room: RateLimit,

    /// Invitations to one room.
    pub invites_per_room: RateLimit,

    /// Invitations that one user gets.
    pub invites_per_user: RateLimit,

    /// Invitations that one user sends.
    pub invites_per_issuer: RateLimit,

    /// Rooms that a user makes.
    pub room_creation: RateLimit,

    /// How often a user says how they are.
    pub presence: RateLimit,

    /// How often a user sets or removes where notifications go.
    pub pushers: RateLimit,

    /// What a user reports as inappropriate.
    pub reports: RateLimit,

    /// Profiles that a user looks up.
    pub profile_lookups: RateLimit,

    /// Addresses of files that a user asks for before uploading, and uploads.
    pub media_uploads: RateLimit,

    /// Thumbnails that have to be made, for a user who asks (or an address, where files are given
    /// without saying who one is). What was made before counts for nothing.
    pub thumbnails: RateLimit,

    /// Bytes of other servers' files that are fetched, for a user who asks and for their address.
    /// Each fetch counts for 4,096 at least; what was fetched before counts for nothing.
    pub remote_media_bytes: RateLimit,

    /// Previews of pages that a user asks for.
    pub url_previews: RateLimit,

    /// Searches in messages, by user; each page is one.
    pub searches: RateLimit,

    /// Searches for users, by user: clients send one for each letter that is typed.
    pub user_searches: RateLimit,

    /// Messages to devices that a user sends, counted by the devices that they are for: clients send
    /// the keys of a room to hundreds at once.
    pub to_device_messages: RateLimit,

    /// Changes of a user's devices and keys that others are told: who shares a room asks for all of
    /// the user's keys then. One-time keys do not count.
    pub device_list_changes: RateLimit,

    /// People whom a user's client asks for the keys of messages; to ask the user's own devices
    /// costs nothing.
    pub key_requests: RateLimit,

    /// One-time keys that a user's client takes from others' devices, to write to them encrypted: one
    /// for each device.
    pub key_claims: RateLimit,

    /// Questions for changed devices that read whole rooms: a client asks once when it comes back.
    pub key_changes: RateLimit,

    /// Logins by QR code that begin, from one address.
    pub rendezvous_creation: RateLimit,

    /// What is read and written for logins by QR code, from one address: two devices that ask once
    /// a second, and some.
    pub rendezvous: RateLimit,

    /// What one other server asks for.
    pub federation_requests: RateLimit,
}

impl Default for RateLimitsConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            messages: RateLimit::new(1.0, 20),
            login_by_address: RateLimit::new(0.05, 10),
            login_by_account: RateLimit::new(0.05, 10),
            login_failed: RateLimit::new(0.17, 3),
            registration: RateLimit::new(0.17, 3),
            registration_steps: RateLimit::new(1.0, 20),
            registration_token_checks: RateLimit::new(0.1, 5),
            email_requests: RateLimit::new(0.003, 5),
            email_confirmations: RateLimit::new(0.17, 10),
            joins: RateLimit::new(0.1, 10),
            joins_per_room: RateLimit::new(1.0, 10),
            invites_per_room: RateLimit::new(0.3, 10),
            invites_per_user: RateLimit::new(0.003, 5),
            invites_per_issuer: RateLimit::new(0.3, 10),
            room_creation: RateLimit::new(0.016, 10),
            presence: RateLimit::new(0.3, 10),
            pushers: RateLimit::new(0.3, 20),
            reports: RateLimit::new(0.05, 10),
            profile_lookups: RateLimit::new(1.0, 500),
            media_uploads: RateLimit::new(10.0, 50),
            thumbnails: RateLimit::new(5.0, 200),
            remote_media_bytes: RateLimit::new(87_000.0, 500_000_000),
            url_previews: RateLimit::new(1.0, 50),
            searches: RateLimit::new(1.0, 30),
            user_searches: RateLimit::new(2.0, 50),
            to_device_messages: RateLimit::new(100.0, 20_000),
            device_list_changes: RateLimit::new(1.0, 100),
            key_requests: RateLimit::new(20.0, 100),
            key_claims: RateLimit::new(100.0, 20_000),
            key_changes: RateLimit::new(0.2, 20),
            rendezvous_creation: RateLimit::new(0.1, 10),
            rendezvous: RateLimit::new(10.0, 100),
            federation_requests: RateLimit::new(50.0, 200),
        }
    }
}

/// An allowance of `burst` that fills up again at `per_second`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// How fast the allowance fills up again.
    pub per_second: f64,
    /// How often at once.
    pub burst: u32,
}

impl RateLimit {
    /// A limit.
    pub const fn new(per_second: f64, burst: u32) -> Self {
        Self { per_second, burst }
    }
}

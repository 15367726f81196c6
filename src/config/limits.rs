//! The section `[limits]`: how large and how many things may be.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How large and how many things may be. Sizes are in bytes, times in milliseconds. What the
/// specification fixes, such as the 65,536 bytes of an event, is no setting.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// How long a client may take to send the head of a request.
    pub request_head_timeout_ms: u64,

    /// A filter that a client stores.
    pub filter_size_bytes_max: usize,

    /// The filters that a user may store.
    pub filters_per_user_max: usize,

    /// The events of a page of a room's history.
    pub messages_page_events_max: usize,

    /// The events around one that `/context` shows.
    pub context_events_max: usize,

    /// The events of a page of relations, and the threads of a page of those of a room.
    pub relations_page_events_max: usize,

    /// The rooms of a page of a space's hierarchy.
    pub hierarchy_page_rooms_max: usize,

    /// The rooms of a page of the directory.
    pub directory_page_rooms_max: usize,

    /// The users whom a search finds.
    pub user_search_results_max: usize,

    /// The notifications of a page.
    pub notifications_page_max: usize,

    /// How long a client may wait in `/sync`. What is in front of the server has to wait longer.
    pub sync_timeout_ms_max: u64,

    /// The requests of one device that wait in `/sync`. One more ends the oldest.
    pub sync_waits_per_device_max: usize,

    /// The requests of all devices of a user that wait in `/sync`. One more ends the oldest.
    pub sync_waits_per_user_max: usize,

    /// The push rules that a user may add.
    pub push_rules_per_user_max: usize,

    /// The pushers of a user.
    pub pushers_per_user_max: usize,

    /// One type of account data.
    pub account_data_size_bytes_max: usize,

    /// The types of account data that a user may store, in each room and outside of rooms.
    pub account_data_types_max: usize,

    /// The devices of a user.
    pub devices_per_user_max: usize,

    /// The name of a device.
    pub device_name_size_bytes_max: usize,

    /// The display name of a user.
    pub display_name_size_bytes_max: usize,

    /// The address of a user's avatar.
    pub avatar_url_size_bytes_max: usize,

    /// How long an access token is good for when the client can refresh it.
    pub access_token_lifetime_ms: u64,

    /// How long a token is good that logs in another client once.
    pub login_token_lifetime_ms: u64,

    /// How long a token is good by which a widget or a service learns who the user is.
    pub openid_token_lifetime_ms: u64,

    /// How long a client may take to prove who its user is before something delicate.
    pub uia_session_lifetime_ms: u64,

    /// The wrong answers in one such proof.
    pub uia_attempts_max: usize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            request_head_timeout_ms: 10_000,
            filter_size_bytes_max: 64 * 1024,
            filters_per_user_max: 100,
            messages_page_events_max: 1_000,
            context_events_max: 100,
            relations_page_events_max: 100,
            hierarchy_page_rooms_max: 50,
            directory_page_rooms_max: 100,
            user_search_results_max: 50,
            notifications_page_max: 500,
            sync_timeout_ms_max: 90_000,
            sync_waits_per_device_max: 4,
            sync_waits_per_user_max: 16,
            push_rules_per_user_max: 1_000,
            pushers_per_user_max: 100,
            account_data_size_bytes_max: 64 * 1024,
            account_data_types_max: 1_000,
            devices_per_user_max: 256,
            device_name_size_bytes_max: 100,
            display_name_size_bytes_max: 256,
            avatar_url_size_bytes_max: 1_000,
            access_token_lifetime_ms: 7 * 24 * 60 * 60 * 1_000,
            login_token_lifetime_ms: 2 * 60 * 1_000,
            openid_token_lifetime_ms: 60 * 60 * 1_000,
            uia_session_lifetime_ms: 15 * 60 * 1_000,
            uia_attempts_max: 5,
        }
    }
}

impl LimitsConfig {
    /// How long a client may take to send the head of a request.
    pub fn request_head_timeout(&self) -> Duration {
        Duration::from_millis(self.request_head_timeout_ms)
    }

    /// How long an access token is good for when the client can refresh it.
    pub fn access_token_lifetime(&self) -> Duration {
        Duration::from_millis(self.access_token_lifetime_ms)
    }

    /// How long a client may wait in `/sync`.
    pub fn sync_timeout_max(&self) -> Duration {
        Duration::from_millis(self.sync_timeout_ms_max)
    }

    /// How long a token is good that logs in another client once.
    pub fn login_token_lifetime(&self) -> Duration {
        Duration::from_millis(self.login_token_lifetime_ms)
    }

    /// How long a token is good by which others learn who the user is.
    pub fn openid_token_lifetime(&self) -> Duration {
        Duration::from_millis(self.openid_token_lifetime_ms)
    }

    /// How long a session of user-interactive authentication lives.
    pub fn uia_session_lifetime(&self) -> Duration {
        Duration::from_millis(self.uia_session_lifetime_ms)
    }
}

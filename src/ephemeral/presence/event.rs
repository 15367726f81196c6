//! Presence as clients and application services are told it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#mpresence>

use ruma::UserId;
use serde::Serialize;

use super::UserPresence;

/// The type of the event.
pub const TYPE: &str = "m.presence";

/// An event of presence.
#[derive(Debug, Serialize)]
pub struct PresenceEvent<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    sender: &'a UserId,
    content: Content<'a>,
}

#[derive(Debug, Serialize)]
struct Content<'a> {
    presence: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_active_ago: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_msg: Option<&'a str>,
    currently_active: bool,
}

impl UserPresence {
    /// As an event.
    pub fn event(&self) -> PresenceEvent<'_> {
        let ago = self.last_active_ago;
        PresenceEvent {
            kind: TYPE,
            sender: &self.user_id,
            content: Content {
                presence: self.state.name(),
                last_active_ago: ago.map(|ago| u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)),
                status_msg: self.status_msg.as_deref(),
                currently_active: self.currently_active,
            },
        }
    }
}

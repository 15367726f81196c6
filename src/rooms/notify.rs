//! Whether an event notifies, by the default push rules and its content alone: decided once, when
//! it is committed, so that unread counts read no events.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#predefined-rules>

use ruma::events::TimelineEventType;
use serde::Deserialize;

use super::event::Pdu;

/// Whether the default rules notify of an event: messages that are neither notices nor edits.
pub(super) fn notifies(pdu: &Pdu) -> bool {
    #[derive(Deserialize)]
    struct Content {
        msgtype: Option<serde_json::Value>,
        #[serde(rename = "m.relates_to")]
        relates_to: Option<Relation>,
    }
    #[derive(Deserialize)]
    struct Relation {
        rel_type: Option<serde_json::Value>,
    }
    if pdu.state_key().is_some()
        || !matches!(
            pdu.kind(),
            TimelineEventType::RoomMessage
                | TimelineEventType::RoomEncrypted
                | TimelineEventType::CallInvite
        )
    {
        return false;
    }
    let Ok(content) = serde_json::from_str::<Content>(pdu.content().get()) else {
        return true;
    };
    let is =
        |value: Option<serde_json::Value>, text: &str| value.is_some_and(|value| value == text);
    !is(content.msgtype, "m.notice")
        && !is(content.relates_to.and_then(|relation| relation.rel_type), "m.replace")
}

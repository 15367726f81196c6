//! What a push gateway is told.
//!
//! <https://spec.matrix.org/v1.19/push-gateway-api/#post_matrixpushv1notify>

use ruma::{
    MilliSecondsSinceUnixEpoch, SecondsSinceUnixEpoch, UInt,
    api::push_gateway::send_event_notification::v1::{
        Device, Notification, NotificationCounts, NotificationPriority, PusherData,
    },
    push::{Action, Tweak},
};
use serde_json::{Value, json};

use super::pusher::{Look, Note, Pusher};
use crate::{error::ApiError, push::odd::is_loud, rooms::StoredEvent};

/// How a client asks for no more than the ids.
const EVENT_ID_ONLY: &str = "event_id_only";

/// An event, and how many messages are unread.
pub(super) async fn of_event(
    pusher: &Pusher,
    note: &Note,
    badge: u64,
) -> Result<Vec<u8>, ApiError> {
    let tweaks = note.actions.iter().filter_map(|action| match action {
        Action::SetTweak(tweak) => Some(tweak.clone()),
        _ => None,
    });
    let mut notification = Notification::new(vec![device(pusher, tweaks.collect())]);
    notification.event_id = Some(note.event.pdu.event_id().to_owned());
    notification.room_id = Some(note.room.id.clone());
    let unread = UInt::try_from(badge).unwrap_or(UInt::MAX);
    notification.counts = NotificationCounts::new(unread, UInt::MIN);
    if pusher.row.format.as_deref() != Some(EVENT_ID_ONLY) {
        let noted = note.clone();
        notification =
            pusher.step(move |look| describe(look, &noted, notification.clone())).await?;
    }
    body(&json!({ "notification": notification }))
}

/// How many messages are unread, and nothing else. Zero is said too: that is what clears the badge.
pub(super) fn of_badge(pusher: &Pusher, badge: u64) -> Result<Vec<u8>, ApiError> {
    let notification = Notification::new(vec![device(pusher, Vec::new())]);
    let mut value = serde_json::to_value(notification).map_err(ApiError::internal)?;
    value["counts"] = json!({ "unread": badge });
    body(&json!({ "notification": value }))
}

fn body(value: &Value) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(value).map_err(ApiError::internal)
}

fn device(pusher: &Pusher, tweaks: Vec<Tweak>) -> Device {
    let row = &pusher.row;
    let mut device = Device::new(pusher.key.app_id.clone(), pusher.key.pushkey.clone());
    let set_at = MilliSecondsSinceUnixEpoch(UInt::try_from(row.set_ts).unwrap_or(UInt::MAX));
    device.pushkey_ts = Some(SecondsSinceUnixEpoch(set_at.get() / UInt::from(1_000_u32)));
    let mut data = PusherData::new();
    data.format = row.format.clone().map(Into::into);
    data.data = row.data.clone().into_iter().collect();
    device.data = data;
    device.tweaks = tweaks;
    device
}

/// Adds what the event says, and of whom and what it speaks.
fn describe(
    look: &Look<'_>,
    note: &Note,
    mut about: Notification,
) -> Result<Notification, ApiError> {
    let pdu = &note.event.pdu;
    let current = |event_type: &str, state_key: &str| {
        look.parts.rooms.current_event(look.reader, &note.room, (event_type, state_key))
    };
    let text = |event: Option<std::sync::Arc<StoredEvent>>, field: &str| -> Option<String> {
        event
            .and_then(|event| event.pdu.content_field(field))
            .filter(|text: &String| !text.is_empty())
    };
    about.sender_display_name =
        text(current("m.room.member", pdu.sender().as_str())?, "displayname");
    about.room_name = text(current("m.room.name", "")?, "name");
    let alias = text(current("m.room.canonical_alias", "")?, "alias");
    about.room_alias = alias.and_then(|alias| alias.try_into().ok());
    about.event_type = Some(pdu.kind().clone());
    about.sender = Some(pdu.sender().to_owned());
    about.user_is_target =
        pdu.event_type() == "m.room.member" && pdu.state_key() == Some(look.row.user_id.as_str());
    let is_urgent = pdu.event_type() == "m.room.encrypted" || is_loud(&note.actions);
    about.prio = if is_urgent { NotificationPriority::High } else { NotificationPriority::Low };
    about.content = Some(pdu.content().to_owned());
    Ok(about)
}

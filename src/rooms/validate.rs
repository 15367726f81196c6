//! What this server asks of its own users' events beyond the rules of the room.
//!
//! Other servers' events are judged by the authorization rules alone; here a client learns at once
//! what it did wrong.

use ruma::{OwnedEventId, OwnedUserId, UserId, events::TimelineEventType};
use serde_json::{Map, Value};

use super::{NewEvent, draft::Draft, membership::restricted};
use crate::{error::ApiError, storage::rows::Membership};

/// The power levels that are plain numbers.
const LEVELS: [&str; 7] =
    ["users_default", "events_default", "state_default", "ban", "redact", "kick", "invite"];

/// Checks an event before it is decided on.
///
/// # Errors
/// 400 with what is wrong.
pub(crate) fn check_new_event(event: &NewEvent) -> Result<(), ApiError> {
    match (&event.event_type, &event.state_key) {
        (TimelineEventType::RoomPowerLevels, Some(_)) => check_power_levels(event),
        (TimelineEventType::RoomMember, Some(state_key)) => check_member(event, state_key),
        (TimelineEventType::RoomRedaction, Some(_)) => {
            Err(ApiError::bad_json("A redaction is not a state event"))
        }
        (TimelineEventType::RoomRedaction, None) if event.redacts.is_none() => {
            Err(ApiError::bad_json("A redaction names what it redacts in `redacts`"))
        }
        (TimelineEventType::RoomEncryption, Some(_)) => check_encryption(event),
        _ => Ok(()),
    }
}

/// Checks an event against what the room is, where the authorization rules would only say no.
///
/// # Errors
/// 400 with what is wrong.
pub(super) fn check_in_room(draft: &Draft<'_>, event: &NewEvent) -> Result<(), ApiError> {
    if event.event_type == TimelineEventType::RoomMember {
        return check_member_in_room(draft, event);
    }
    draft.require_member(&event.sender)?;
    let privileged = draft.room.rules.authorization.explicitly_privilege_room_creators;
    if privileged && event.event_type == TimelineEventType::RoomPowerLevels {
        let content = object(event)?;
        let users = content.get("users").and_then(Value::as_object);
        let levels = draft.levels()?;
        if users.is_some_and(|users| users.keys().any(|user| levels.is_creator(user))) {
            return Err(ApiError::bad_json("A creator of the room has no place in `users`"));
        }
    }
    Ok(())
}

/// A join that is sent as plain state must be one that [`super::Rooms::join`] would make: whoever
/// is named as vouching for it did not vouch because the sender says so.
fn check_member_in_room(draft: &Draft<'_>, event: &NewEvent) -> Result<(), ApiError> {
    let content = object(event)?;
    let Some(target) = event.state_key.as_deref().and_then(|key| UserId::parse(key).ok()) else {
        return Ok(());
    };
    let membership = content.get("membership").and_then(Value::as_str);
    if membership == Some("invite") {
        draft.rooms.check_reachable(&target)?;
        return draft.rooms.check_invite_wanted(draft.reader, &target, &event.sender);
    }
    if membership != Some("join") || draft.membership(target.as_str())? == Membership::Join {
        return Ok(());
    }
    let authorizer = restricted::authorizer(draft, &target)?;
    let named = content.get("join_authorised_via_users_server").and_then(Value::as_str);
    if named.is_some() && named != authorizer.as_ref().map(|user_id| user_id.as_str()) {
        return Err(ApiError::forbidden("Nobody vouched for this join"));
    }
    Ok(())
}

/// What a redaction sent as an event names in its content.
pub(crate) fn redacts_of(content: &serde_json::value::RawValue) -> Option<OwnedEventId> {
    let content: Map<String, Value> = serde_json::from_str(content.get()).ok()?;
    content.get("redacts")?.as_str()?.try_into().ok()
}

fn object(event: &NewEvent) -> Result<Map<String, Value>, ApiError> {
    serde_json::from_str(event.content.get())
        .map_err(|_| ApiError::bad_json("The content is not a JSON object"))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#mroompower_levels>
fn check_power_levels(event: &NewEvent) -> Result<(), ApiError> {
    let content = object(event)?;
    for field in LEVELS {
        if let Some(level) = content.get(field) {
            check_level(field, level)?;
        }
    }
    for field in ["users", "events", "notifications"] {
        let Some(levels) = content.get(field) else { continue };
        let Value::Object(levels) = levels else {
            return Err(ApiError::bad_json(format!("`{field}` is not an object")));
        };
        for (name, level) in levels {
            check_level(name, level)?;
            if field == "users" && UserId::parse(name).is_err() {
                return Err(ApiError::bad_json(format!("`{name}` in `users` is not a user id")));
            }
        }
    }
    Ok(())
}

fn check_level(name: &str, level: &Value) -> Result<(), ApiError> {
    match level.as_i64() {
        Some(level) if ruma::Int::try_from(level).is_ok() => Ok(()),
        _ => Err(ApiError::bad_json(format!("The power level of `{name}` is not an integer"))),
    }
}

fn check_member(event: &NewEvent, state_key: &str) -> Result<(), ApiError> {
    if OwnedUserId::try_from(state_key).is_err() {
        return Err(ApiError::bad_json("The state key of a member event is not a user id"));
    }
    let content = object(event)?;
    match content.get("membership").and_then(Value::as_str) {
        Some("ban" | "invite" | "join" | "knock" | "leave") => {}
        _ => return Err(ApiError::bad_json("`membership` is not one of the memberships")),
    }
    for field in ["displayname", "avatar_url", "reason"] {
        if content.get(field).is_some_and(|value| !value.is_string() && !value.is_null()) {
            return Err(ApiError::bad_json(format!("`{field}` is not a string")));
        }
    }
    Ok(())
}

/// An encrypted room never becomes an unencrypted one by a slip.
fn check_encryption(event: &NewEvent) -> Result<(), ApiError> {
    match object(event)?.get("algorithm") {
        Some(Value::String(algorithm)) if !algorithm.is_empty() => Ok(()),
        _ => Err(ApiError::bad_json("`algorithm` is not the name of an algorithm")),
    }
}

//! Composing events: the only place where this server signs, and only what it built itself.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#signing-events>

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId,
    OwnedUserId, RoomId,
    events::TimelineEventType,
    room_version_rules::RoomVersionRules,
    signatures::{JsonError, hash_and_sign_event, reference_hash},
};
use serde_json::value::RawValue;

use super::event::{EVENT_BYTES_MAX, Pdu, hash_of_event_id};
use crate::{error::ApiError, federation::server_keys::Signer};

/// How deep the content of an event may be nested: the event around it is one level more.
const CONTENT_DEPTH_MAX: usize = 63;

/// What someone here wants to send: everything of an event that is not the graph's.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// Who sends it: a user of this server.
    pub sender: OwnedUserId,
    /// The type.
    pub event_type: TimelineEventType,
    /// The state key of a state event.
    pub state_key: Option<String>,
    /// The content.
    pub content: Box<RawValue>,
    /// What a redaction redacts.
    pub redacts: Option<OwnedEventId>,
}

impl NewEvent {
    /// A state event with this content.
    ///
    /// # Errors
    /// When the content is not JSON, which types of ours always are.
    pub fn state(
        sender: OwnedUserId,
        event_type: TimelineEventType,
        state_key: impl Into<String>,
        content: &impl serde::Serialize,
    ) -> Result<Self, ApiError> {
        let content = serde_json::value::to_raw_value(content).map_err(ApiError::internal)?;
        let state_key = Some(state_key.into());
        Ok(Self { sender, event_type, state_key, content, redacts: None })
    }
}

/// The place in the graph that an event is built for.
#[derive(Debug)]
pub(super) struct Place<'a> {
    /// The room; `None` for the create event of a room whose id is its hash.
    pub(super) room_id: Option<&'a RoomId>,
    /// The rules of the room's version.
    pub(super) rules: &'a RoomVersionRules,
    /// The events it follows.
    pub(super) prev_events: Vec<OwnedEventId>,
    /// The events that authorize it.
    pub(super) auth_events: Vec<OwnedEventId>,
    /// Its depth.
    pub(super) depth: u64,
    /// When it is sent.
    pub(super) origin_server_ts: MilliSecondsSinceUnixEpoch,
}

/// Builds, hashes and signs an event. Gives it with its reference hash.
///
/// # Errors
/// 400 when the content is not canonical JSON, 413 when the event or one of its names is too large.
pub(super) fn compose(
    signer: &Signer,
    event: &NewEvent,
    place: &Place<'_>,
) -> Result<(Pdu, [u8; 32]), ApiError> {
    check_sizes(event)?;
    let content: CanonicalJsonObject = serde_json::from_str(event.content.get())
        .map_err(|error| ApiError::bad_json(format!("The content is no event content: {error}")))?;
    if content.values().any(|value| is_deeper_than(value, CONTENT_DEPTH_MAX - 1)) {
        return Err(ApiError::bad_json("The content is nested too deep"));
    }
    let mut object = CanonicalJsonObject::new();
    let mut put = |key: &str, value: CanonicalJsonValue| object.insert(key.to_owned(), value);
    put("content", content.into());
    put("sender", event.sender.as_str().to_owned().into());
    put("type", event.event_type.to_string().into());
    let ts = place.origin_server_ts.0;
    put("origin_server_ts", CanonicalJsonValue::Integer(ts.into()));
    let depth = js_int(place.depth)?;
    put("depth", CanonicalJsonValue::Integer(depth));
    put("prev_events", ids(&place.prev_events));
    put("auth_events", ids(&place.auth_events));
    if let Some(room_id) = place.room_id {
        put("room_id", room_id.as_str().to_owned().into());
    }
    if let Some(state_key) = &event.state_key {
        put("state_key", state_key.clone().into());
    }
    if let Some(redacts) = &event.redacts {
        // Up to version 10 the field stands at the top, from version 11 on in the content.
        if place.rules.redaction.content_field_redacts {
            if let Some(CanonicalJsonValue::Object(content)) = object.get_mut("content") {
                content.insert("redacts".to_owned(), redacts.as_str().to_owned().into());
            }
        } else {
            put("redacts", redacts.as_str().to_owned().into());
        }
    }
    let name = signer.server_name.as_str();
    hash_and_sign_event(name, &signer.key_pair, &mut object, &place.rules.redaction)
        .map_err(|error| unsignable(&error))?;
    finish(&object, place)
}

/// Whether a value has more than `levels` levels of arrays and objects. The parser bounds the
/// recursion.
fn is_deeper_than(value: &CanonicalJsonValue, levels: usize) -> bool {
    match value {
        CanonicalJsonValue::Array(items) => {
            levels == 0 || items.iter().any(|item| is_deeper_than(item, levels - 1))
        }
        CanonicalJsonValue::Object(fields) => {
            levels == 0 || fields.values().any(|value| is_deeper_than(value, levels - 1))
        }
        _ => false,
    }
}

fn finish(object: &CanonicalJsonObject, place: &Place<'_>) -> Result<(Pdu, [u8; 32]), ApiError> {
    let json = serde_json::to_string(object).map_err(ApiError::internal)?;
    if json.len() > EVENT_BYTES_MAX {
        return Err(ApiError::too_large("The event is larger than 65536 bytes"));
    }
    let text = reference_hash(object, place.rules).map_err(|error| unsignable(&error))?;
    let event_id = OwnedEventId::try_from(format!("${text}")).map_err(ApiError::internal)?;
    let hash = hash_of_event_id(&event_id)
        .ok_or_else(|| ApiError::internal_text("a reference hash is not 32 bytes in base64"))?;
    let room_id = match place.room_id {
        Some(room_id) => room_id.to_owned(),
        None => OwnedRoomId::try_from(format!("!{text}")).map_err(ApiError::internal)?,
    };
    let pdu = Pdu::parse(json.into_boxed_str(), event_id, room_id, place.rules)
        .map_err(ApiError::internal)?;
    Ok((pdu, hash))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#size-limits>
fn check_sizes(event: &NewEvent) -> Result<(), ApiError> {
    let too_long = |what| Err(ApiError::too_large(format!("The {what} is longer than 255 bytes")));
    if event.event_type.to_string().len() > 255 {
        return too_long("event type");
    }
    if event.state_key.as_ref().is_some_and(|key| key.len() > 255) {
        return too_long("state key");
    }
    if event.sender.as_str().len() > 255 {
        return too_long("user id");
    }
    Ok(())
}

fn ids(events: &[OwnedEventId]) -> CanonicalJsonValue {
    CanonicalJsonValue::Array(events.iter().map(|id| id.as_str().to_owned().into()).collect())
}

fn js_int(number: u64) -> Result<ruma::Int, ApiError> {
    i64::try_from(number)
        .ok()
        .and_then(|number| ruma::Int::try_from(number).ok())
        .ok_or_else(|| ApiError::internal_text("a depth is above 2^53"))
}

fn unsignable(error: &JsonError) -> ApiError {
    match error {
        JsonError::PduTooLarge => ApiError::too_large("The event is larger than 65536 bytes"),
        error => ApiError::internal_text(format!("an event could not be signed: {error}")),
    }
}

/// Whether two contents are the same as canonical JSON.
pub(super) fn same_content(one: &RawValue, other: &RawValue) -> bool {
    let parse = |raw: &RawValue| serde_json::from_str::<CanonicalJsonValue>(raw.get()).ok();
    matches!((parse(one), parse(other)), (Some(one), Some(other)) if one == other)
}

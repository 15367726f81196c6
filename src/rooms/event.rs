//! Events: the canonical bytes, parsed once, immutable and cheap to clone.
//!
//! A [`Pdu`] is only made from canonical JSON: of the store, of an event built here
//! ([`super::compose`]) or of one that was checked on receipt ([`super::receive`]).
//!
//! <https://spec.matrix.org/v1.19/rooms/>

use std::sync::Arc;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UInt,
    UserId, events::TimelineEventType, room_version_rules::EventIdFormatVersion,
    room_version_rules::RoomVersionRules,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{id::EventNid, storage::rows::EventFlags, storage::rows::EventRecord};

/// The largest event in bytes of canonical JSON, with all federation fields.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#size-limits>
pub const EVENT_BYTES_MAX: usize = 65_536;

/// An event that is stored: what is known of it and its content.
#[derive(Clone, Debug)]
pub struct StoredEvent {
    /// Its number within the room.
    pub nid: EventNid,
    /// All but the content.
    pub record: EventRecord,
    /// The event.
    pub pdu: Pdu,
}

/// An event in its federation format, without `event_id` and `unsigned`.
#[derive(Clone)]
pub struct Pdu {
    parts: Arc<Parts>,
    /// Whether the rules refused it: known of it, not part of it.
    rejected: bool,
}

struct Parts {
    json: Box<str>,
    event_id: OwnedEventId,
    room_id: OwnedRoomId,
    sender: OwnedUserId,
    event_type: TimelineEventType,
    type_name: Box<str>,
    state_key: Option<Box<str>>,
    origin_server_ts: MilliSecondsSinceUnixEpoch,
    depth: u64,
    prev_events: Vec<OwnedEventId>,
    auth_events: Vec<OwnedEventId>,
    redacts: Option<OwnedEventId>,
    content: Box<RawValue>,
}

/// The fields of the wire form that the server reads.
#[derive(Deserialize)]
struct Wire<'a> {
    sender: OwnedUserId,
    #[serde(rename = "type")]
    event_type: TimelineEventType,
    state_key: Option<String>,
    origin_server_ts: MilliSecondsSinceUnixEpoch,
    #[serde(default)]
    depth: UInt,
    #[serde(default)]
    prev_events: Vec<OwnedEventId>,
    #[serde(default)]
    auth_events: Vec<OwnedEventId>,
    redacts: Option<OwnedEventId>,
    #[serde(borrow)]
    content: &'a RawValue,
}

impl Pdu {
    /// Parses the canonical JSON of an event whose id and room are known.
    ///
    /// # Errors
    /// When a field that the server reads is missing or of a wrong type.
    pub fn parse(
        json: Box<str>,
        event_id: OwnedEventId,
        room_id: OwnedRoomId,
        rules: &RoomVersionRules,
    ) -> Result<Self, serde_json::Error> {
        let wire: Wire<'_> = serde_json::from_str(&json)?;
        let content = wire.content.to_owned();
        let redacts = match wire.event_type {
            TimelineEventType::RoomRedaction if rules.redaction.content_field_redacts => {
                redacts_of_content(&content)
            }
            TimelineEventType::RoomRedaction => wire.redacts,
            _ => None,
        };
        let parts = Parts {
            event_id,
            room_id,
            sender: wire.sender,
            type_name: wire.event_type.to_string().into_boxed_str(),
            event_type: wire.event_type,
            state_key: wire.state_key.map(String::into_boxed_str),
            origin_server_ts: wire.origin_server_ts,
            depth: wire.depth.into(),
            prev_events: wire.prev_events,
            auth_events: wire.auth_events,
            redacts,
            content,
            json,
        };
        Ok(Self { parts: Arc::new(parts), rejected: false })
    }

    /// The same event, marked as the record says.
    #[must_use]
    pub fn with_flags(mut self, flags: EventFlags) -> Self {
        self.rejected = flags.has(EventFlags::REJECTED);
        self
    }

    /// The event's id.
    pub fn event_id(&self) -> &EventId {
        &self.parts.event_id
    }

    /// The room's id.
    pub fn room_id(&self) -> &RoomId {
        &self.parts.room_id
    }

    /// Who sent it.
    pub fn sender(&self) -> &UserId {
        &self.parts.sender
    }

    /// The type's name.
    pub fn event_type(&self) -> &str {
        &self.parts.type_name
    }

    /// The type.
    pub fn kind(&self) -> &TimelineEventType {
        &self.parts.event_type
    }

    /// The state key of a state event.
    pub fn state_key(&self) -> Option<&str> {
        self.parts.state_key.as_deref()
    }

    /// The content.
    pub fn content(&self) -> &RawValue {
        &self.parts.content
    }

    /// When its server says that it was sent.
    pub fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        self.parts.origin_server_ts
    }

    /// The depth.
    pub fn depth(&self) -> u64 {
        self.parts.depth
    }

    /// The events it follows.
    pub fn prev_events(&self) -> &[OwnedEventId] {
        &self.parts.prev_events
    }

    /// The events that authorize it.
    pub fn auth_events(&self) -> &[OwnedEventId] {
        &self.parts.auth_events
    }

    /// What a redaction redacts, wherever the room's version keeps that.
    pub fn redacts(&self) -> Option<&EventId> {
        self.parts.redacts.as_deref()
    }

    /// The canonical JSON.
    pub fn json(&self) -> &str {
        &self.parts.json
    }

    /// A field of the content, when it is there and of this type.
    pub fn content_field<T: serde::de::DeserializeOwned>(&self, field: &str) -> Option<T> {
        let mut content: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(self.content().get()).ok()?;
        serde_json::from_value(content.remove(field)?).ok()
    }
}

impl std::fmt::Debug for Pdu {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Pdu({} {})", self.parts.event_id, self.parts.json)
    }
}

impl ruma::state_res::Event for Pdu {
    type Id = OwnedEventId;

    fn event_id(&self) -> &OwnedEventId {
        &self.parts.event_id
    }

    fn room_id(&self) -> Option<&RoomId> {
        // The create event of a room whose id is its hash names no room.
        let hashed = self.parts.room_id.server_name().is_none();
        if hashed && self.parts.event_type == TimelineEventType::RoomCreate {
            return None;
        }
        Some(&self.parts.room_id)
    }

    fn sender(&self) -> &UserId {
        &self.parts.sender
    }

    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        self.parts.origin_server_ts
    }

    fn event_type(&self) -> &TimelineEventType {
        &self.parts.event_type
    }

    fn content(&self) -> &RawValue {
        &self.parts.content
    }

    fn state_key(&self) -> Option<&str> {
        self.parts.state_key.as_deref()
    }

    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.parts.prev_events.iter())
    }

    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.parts.auth_events.iter())
    }

    fn redacts(&self) -> Option<&OwnedEventId> {
        self.parts.redacts.as_ref()
    }

    fn rejected(&self) -> bool {
        self.rejected
    }
}

fn redacts_of_content(content: &RawValue) -> Option<OwnedEventId> {
    #[derive(Deserialize)]
    struct Content {
        redacts: Option<OwnedEventId>,
    }
    serde_json::from_str::<Content>(content.get()).ok()?.redacts
}

/// The hash that an event id of rooms of version 3 or later spells; `None` for any other id.
pub fn hash_of_event_id(event_id: &EventId) -> Option<[u8; 32]> {
    let text = event_id.as_str().strip_prefix('$')?;
    let bytes = URL_SAFE_NO_PAD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text)).ok()?;
    bytes.try_into().ok()
}

/// The event id that spells this hash in rooms of this version.
///
/// # Panics
/// Never: a hash in base64 is an event id.
pub fn event_id_of_hash(hash: &[u8; 32], rules: &RoomVersionRules) -> OwnedEventId {
    let text = match rules.event_id_format {
        EventIdFormatVersion::V2 => STANDARD_NO_PAD.encode(hash),
        _ => URL_SAFE_NO_PAD.encode(hash),
    };
    OwnedEventId::try_from(format!("${text}")).expect("a hash in base64 is an event id")
}

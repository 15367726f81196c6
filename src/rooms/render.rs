//! Events as clients get them: the client format, written from the canonical bytes.
//!
//! The content is copied as it stands and never serialized again. What depends on the reader is
//! all in `unsigned`; nothing of an event the reader may not see gets into it. Used by every
//! endpoint that answers events, and by `sync`.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-event-format>

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use kv::Reader;
use ruma::{MilliSecondsSinceUnixEpoch, OwnedDeviceId, api::client::filter::EventFormat};
use serde_json::value::RawValue;

use super::{
    Pdu, Room, Rooms, StoredEvent, erasure, relations::bundle::write_bundle, state,
    visibility::Viewer,
};
use crate::{
    error::ApiError,
    storage::rows::{EventFlags, Membership, StateRef},
};

/// The state that describes a room to whoever may join it.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#stripped-state>
pub const STRIPPED_TYPES: [&str; 7] = [
    "m.room.create",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.join_rules",
    "m.room.canonical_alias",
    "m.room.encryption",
];

/// How much goes into `unsigned`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    /// All there is: for timelines.
    #[default]
    Full,
    /// All but what the relations to it amount to: for timelines that hold the relations as well.
    Unbundled,
    /// Only what costs no look-up (the age): for lists of state.
    Age,
}

/// The shape in which a client wants events.
#[derive(Clone, Debug)]
pub struct Form {
    /// The client's format, or the raw one of the federation.
    pub format: EventFormat,
    /// Whether `room_id` is in the event; `/sync` leaves it out.
    pub room_id: bool,
    /// The reader's device, which alone is told its transaction ids.
    pub device_id: Option<OwnedDeviceId>,
    /// The time that ages are counted to.
    pub now: MilliSecondsSinceUnixEpoch,
    /// How much goes into `unsigned`.
    pub detail: Detail,
}

impl Form {
    /// The form of all endpoints but `/sync`.
    pub fn new(now: MilliSecondsSinceUnixEpoch, device_id: Option<OwnedDeviceId>) -> Self {
        let format = EventFormat::Client;
        Self { format, room_id: true, device_id, now, detail: Detail::Full }
    }

    /// The same for lists of state.
    #[must_use]
    pub fn of_state(self) -> Self {
        Self { detail: Detail::Age, ..self }
    }
}

/// An event for a reader, who must be allowed to see it.
pub fn client_event(
    reader: &Reader<'_>,
    viewer: &mut Viewer,
    event: &StoredEvent,
    form: &Form,
) -> Result<Box<RawValue>, ApiError> {
    let hidden = match form.detail {
        Detail::Full | Detail::Unbundled => erasure::for_reader(reader, viewer, event)?,
        Detail::Age => None,
    };
    let event = hidden.as_ref().unwrap_or(event);
    if form.format == EventFormat::Federation {
        return RawValue::from_string(event.pdu.json().to_owned()).map_err(ApiError::internal);
    }
    let mut object = body(&event.pdu, form.room_id);
    let mut unsigned = ObjectWriter::new(128);
    unsigned.number("age", age(&event.pdu, form.now));
    if form.detail != Detail::Age {
        write_details(&mut unsigned, reader, viewer, event, form)?;
    }
    object.raw("unsigned", unsigned.text());
    object.finish()
}

/// An event for an application service, which is told everything of the rooms that concern it,
/// whoever may see it.
pub fn appservice_event(
    rooms: &Rooms,
    reader: &Reader<'_>,
    room: &Room,
    event: &StoredEvent,
    now: MilliSecondsSinceUnixEpoch,
) -> Result<Box<RawValue>, ApiError> {
    let record = &event.record;
    let mut unsigned = ObjectWriter::new(128);
    unsigned.number("age", age(&event.pdu, now));
    if let Some(previous) = rooms.replaced_event(reader, room, event)? {
        unsigned.string("replaces_state", previous.pdu.event_id().as_str());
        unsigned.raw("prev_content", previous.pdu.content().get().as_bytes());
        unsigned.string("prev_sender", previous.pdu.sender().as_str());
    }
    if let Some(redaction) = record.redacted_by.filter(|_| record.flags.has(EventFlags::REDACTED))
        && let Some(redaction) = rooms.event(reader, room, redaction)?
    {
        let mut because = body(&redaction.pdu, true);
        unsigned.raw("redacted_because", because.text());
    }
    let mut object = body(&event.pdu, true);
    object.raw("unsigned", unsigned.text());
    object.finish()
}

fn write_details(
    unsigned: &mut ObjectWriter,
    reader: &Reader<'_>,
    viewer: &mut Viewer,
    event: &StoredEvent,
    form: &Form,
) -> Result<(), ApiError> {
    if let Some(mark) = &event.record.transaction
        && event.pdu.sender() == viewer.user_id()
        && form.device_id.as_ref().is_some_and(|device_id| *device_id == mark.device_id)
    {
        unsigned.string("transaction_id", &mark.transaction_id);
    }
    let membership = viewer.membership_at(reader, event)?;
    unsigned.string("membership", membership.name());
    write_previous(unsigned, reader, viewer, event)?;
    write_redaction(unsigned, reader, viewer, event, form)?;
    if form.detail == Detail::Full {
        write_bundle(unsigned, reader, viewer, event, form)?;
    }
    Ok(())
}

/// What a state event replaced.
fn write_previous(
    unsigned: &mut ObjectWriter,
    reader: &Reader<'_>,
    viewer: &mut Viewer,
    event: &StoredEvent,
) -> Result<(), ApiError> {
    let record = &event.record;
    if !record.flags.has(EventFlags::STATE) {
        return Ok(());
    }
    let room = viewer.room().clone();
    let previous = state::lookup(reader, room.nid, record.state_before, record.state_key)?;
    let Some(previous) = previous.filter(|previous| *previous != event.nid) else {
        return Ok(());
    };
    let rooms = viewer.rooms().clone();
    let Some(previous) = rooms.event(reader, &room, previous)? else {
        return Ok(());
    };
    unsigned.string("replaces_state", previous.pdu.event_id().as_str());
    // A member at that time knew the whole state, also what is older than their join.
    let was_joined = viewer.membership_before(reader, event)? == Membership::Join;
    if was_joined || viewer.may_see(reader, &previous)? {
        unsigned.raw("prev_content", previous.pdu.content().get().as_bytes());
        unsigned.string("prev_sender", previous.pdu.sender().as_str());
    }
    Ok(())
}

/// Why an event has no content any more.
fn write_redaction(
    unsigned: &mut ObjectWriter,
    reader: &Reader<'_>,
    viewer: &mut Viewer,
    event: &StoredEvent,
    form: &Form,
) -> Result<(), ApiError> {
    let Some(redaction) = event.record.redacted_by else {
        return Ok(());
    };
    if !event.record.flags.has(EventFlags::REDACTED) {
        return Ok(());
    }
    let rooms = viewer.rooms().clone();
    let room = viewer.room().clone();
    let Some(redaction) = rooms.event(reader, &room, redaction)? else {
        return Ok(());
    };
    if !viewer.may_see(reader, &redaction)? {
        return Ok(());
    }
    let mut object = body(&redaction.pdu, form.room_id);
    let mut inner = ObjectWriter::new(32);
    inner.number("age", age(&redaction.pdu, form.now));
    object.raw("unsigned", inner.text());
    unsigned.raw("redacted_because", object.text());
    Ok(())
}

/// An event as stripped state.
pub fn stripped(pdu: &Pdu) -> Result<Box<RawValue>, ApiError> {
    let content = pdu.content().get();
    let mut object = ObjectWriter::new(content.len() + 160);
    object.raw("content", content.as_bytes());
    object.string("sender", pdu.sender().as_str());
    object.string("state_key", pdu.state_key().unwrap_or_default());
    object.string("type", pdu.event_type());
    object.finish()
}

/// The stripped state that goes with an invite or a knock: what describes the room at a state, who
/// invites, and the member event itself.
pub fn stripped_state(
    rooms: &Rooms,
    reader: &Reader<'_>,
    room: &Room,
    member: &StoredEvent,
) -> Result<Vec<Box<RawValue>>, ApiError> {
    let interner = rooms.interner();
    let at: StateRef = member.record.state_before;
    let sender = member.pdu.sender().as_str();
    let keys = STRIPPED_TYPES
        .into_iter()
        .map(|event_type| interner.state_key(event_type, ""))
        .chain([interner.state_key("m.room.member", sender)])
        .filter(|key| *key != member.record.state_key);
    let mut events = Vec::with_capacity(STRIPPED_TYPES.len() + 2);
    for key in keys {
        if let Some(event) = state::lookup(reader, room.nid, at, key)?
            && let Some(event) = rooms.event(reader, room, event)?
        {
            events.push(stripped(&event.pdu)?);
        }
    }
    events.push(stripped(&member.pdu)?);
    Ok(events)
}

/// The fields of the client format, without `unsigned`.
fn body(pdu: &Pdu, with_room_id: bool) -> ObjectWriter {
    let content = pdu.content().get();
    let mut object = ObjectWriter::new(content.len() + 512);
    match pdu.redacts() {
        // Old rooms keep `redacts` at the top, new ones in the content. Clients get both.
        Some(redacts) => {
            object.raw("content", &content_with_redacts(content, redacts.as_str()));
            object.string("redacts", redacts.as_str());
        }
        None => object.raw("content", content.as_bytes()),
    }
    object.string("event_id", pdu.event_id().as_str());
    object.number("origin_server_ts", i64::from(pdu.origin_server_ts().get()));
    if with_room_id {
        object.string("room_id", pdu.room_id().as_str());
    }
    object.string("sender", pdu.sender().as_str());
    if let Some(state_key) = pdu.state_key() {
        object.string("state_key", state_key);
    }
    object.string("type", pdu.event_type());
    object
}

/// The content of a redaction with its `redacts` set.
fn content_with_redacts(content: &str, redacts: &str) -> Vec<u8> {
    let mut object = ObjectWriter::new(content.len() + redacts.len() + 16);
    object.string("redacts", redacts);
    let fields: BTreeMap<String, &RawValue> = serde_json::from_str(content).unwrap_or_default();
    for (key, value) in fields.iter().filter(|(key, _)| *key != "redacts") {
        object.raw(key, value.get().as_bytes());
    }
    object.text().to_vec()
}

fn age(pdu: &Pdu, now: MilliSecondsSinceUnixEpoch) -> i64 {
    i64::from(now.get()).saturating_sub(i64::from(pdu.origin_server_ts().get()))
}

/// Writes a JSON object field by field.
pub(super) struct ObjectWriter(Vec<u8>);

impl ObjectWriter {
    pub(super) fn new(capacity: usize) -> Self {
        let mut text = Vec::with_capacity(capacity);
        text.push(b'{');
        Self(text)
    }

    fn key(&mut self, key: &str) {
        if self.0.len() > 1 {
            self.0.push(b',');
        }
        self.value(key);
        self.0.push(b':');
    }

    fn value(&mut self, text: &str) {
        serde_json::to_writer(&mut self.0, text).expect("a string is written to memory");
    }

    pub(super) fn string(&mut self, key: &str, value: &str) {
        self.key(key);
        self.value(value);
    }

    pub(super) fn number(&mut self, key: &str, value: i64) {
        self.key(key);
        self.0.extend_from_slice(value.to_string().as_bytes());
    }

    pub(super) fn raw(&mut self, key: &str, json: &[u8]) {
        self.key(key);
        self.0.extend_from_slice(json);
    }

    /// The whole object; nothing can be added after it.
    pub(super) fn text(&mut self) -> &[u8] {
        self.0.push(b'}');
        &self.0
    }

    fn finish(mut self) -> Result<Box<RawValue>, ApiError> {
        self.0.push(b'}');
        let text = String::from_utf8(self.0).map_err(ApiError::internal)?;
        RawValue::from_string(text).map_err(ApiError::internal)
    }
}

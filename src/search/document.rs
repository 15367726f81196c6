//! What of an event can be found: the text of a message, the name and the topic of a room.
//!
//! The text of an edited message is that of its newest edit. An encrypted event has no text here.
//! Both the index and the search ask this module, so what is found is what was indexed.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room_events>

use std::sync::Arc;

use kv::Reader;
use ruma::{OwnedEventId, UserId};
use serde_json::{Map, Value};

use crate::{
    error::ApiError,
    id::{EventNid, Interner},
    rooms::{Room, StoredEvent, relations::newest_edit_of},
    storage::rows::EventFlags,
};

/// The kinds of events that can be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `m.room.message`, by `content.body`.
    Message,
    /// `m.room.name`, by `content.name`.
    Name,
    /// `m.room.topic`, by `content.topic`.
    Topic,
}

/// The numbers of the event types that the index looks at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Types {
    message: u64,
    name: u64,
    topic: u64,
    redaction: u64,
}

impl Types {
    pub(super) fn new(interner: &Interner) -> Self {
        Self {
            message: interner.event_type("m.room.message"),
            name: interner.event_type("m.room.name"),
            topic: interner.event_type("m.room.topic"),
            redaction: interner.event_type("m.room.redaction"),
        }
    }

    pub(super) fn kind(self, event_type: u64) -> Option<Kind> {
        match event_type {
            number if number == self.message => Some(Kind::Message),
            number if number == self.name => Some(Kind::Name),
            number if number == self.topic => Some(Kind::Topic),
            _ => None,
        }
    }

    pub(super) fn is_redaction(self, event_type: u64) -> bool {
        event_type == self.redaction
    }
}

/// What an event says, and which edit said it.
#[derive(Clone, Debug)]
pub(super) struct Text {
    pub(super) text: String,
    /// The edit that the text is of.
    pub(super) edit: Option<Arc<StoredEvent>>,
}

/// What an event says now, by the edits that `load` gives. `None`: nothing that can be found.
pub(super) fn text_now(
    reader: &Reader<'_>,
    room: &Room,
    (event, kind): (&StoredEvent, Kind),
    load: impl Fn(EventNid) -> Result<Option<Arc<StoredEvent>>, ApiError>,
) -> Result<Option<Text>, ApiError> {
    if event.record.flags.has(EventFlags::REDACTED) {
        return Ok(None);
    }
    let is_state = event.record.flags.has(EventFlags::STATE);
    if kind != Kind::Message {
        let own = is_state.then(|| state_text(event, kind)).flatten();
        return Ok(own.map(|text| Text { text, edit: None }));
    }
    if is_state || target_of_edit(event).is_some() {
        return Ok(None);
    }
    let sender = event.pdu.sender();
    let edit = newest_edit_of(reader, (room, event), load, |edit| Ok(counts(edit, sender)))?;
    if let Some(edit) = edit {
        let text = new_body(&edit);
        return Ok(text.map(|text| Text { text, edit: Some(edit) }));
    }
    Ok(event.pdu.content_field("body").map(|text| Text { text, edit: None }))
}

/// What a message says by one of its edits.
pub(super) fn new_body(edit: &StoredEvent) -> Option<String> {
    let content: Map<String, Value> = edit.pdu.content_field("m.new_content")?;
    content.get("body")?.as_str().map(str::to_owned)
}

fn state_text(event: &StoredEvent, kind: Kind) -> Option<String> {
    if event.pdu.state_key() != Some("") {
        return None;
    }
    if kind == Kind::Name {
        return event.pdu.content_field("name");
    }
    let plain: Option<String> = event.pdu.content_field("topic");
    let rich = event.pdu.content_field::<Value>("m.topic").and_then(|topic| plain_topic(&topic));
    match (plain, rich) {
        (Some(plain), Some(rich)) if plain != rich => Some(format!("{plain}\n{rich}")),
        (plain, rich) => plain.or(rich),
    }
}

/// The plain form of a topic in its newer shape.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#mroomtopic>
fn plain_topic(topic: &Value) -> Option<String> {
    let forms = topic.get("m.text")?.as_array()?;
    let is_plain = |form: &&Value| {
        form.get("mimetype").is_none_or(|mimetype| mimetype.as_str() == Some("text/plain"))
    };
    forms.iter().find(is_plain)?.get("body")?.as_str().map(str::to_owned)
}

/// The event that a message is an edit of.
pub(super) fn target_of_edit(event: &StoredEvent) -> Option<OwnedEventId> {
    // Most messages relate to nothing: their content is not parsed again.
    if !event.pdu.content().get().contains("\"m.replace\"") {
        return None;
    }
    let relation: Map<String, Value> = event.pdu.content_field("m.relates_to")?;
    let text = |field| relation.get(field).and_then(Value::as_str);
    (text("rel_type") == Some("m.replace")).then(|| text("event_id"))??.try_into().ok()
}

/// Whether an edit of a message of this sender counts.
pub(super) fn counts(edit: &StoredEvent, sender: &UserId) -> bool {
    let flags = edit.record.flags;
    let refused = [
        EventFlags::STATE,
        EventFlags::REDACTED,
        EventFlags::REJECTED,
        EventFlags::SOFT_FAILED,
        EventFlags::OUTLIER,
    ];
    edit.pdu.sender() == sender
        && !refused.into_iter().any(|flag| flags.has(flag))
        && new_body(edit).is_some()
}

//! What a room is, to somebody who is not in it: name, topic, who may join, how many have.
//!
//! Used by the directory, the hierarchy of spaces and the summary of one room. It tells what anybody
//! who may find the room may know; whether somebody may is the caller's to decide.
//!
//! A summary is made from the current state and kept in memory under the version of that state:
//! each change of state, and so each join, leads to a new one. A redaction drops it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1room_summaryroomidoralias>

use std::sync::Arc;

use kv::Reader;
use quick_cache::sync::Cache;
use ruma::{
    EventEncryptionAlgorithm, OwnedMxcUri, OwnedRoomAliasId, UInt,
    room::{JoinRule, JoinRuleSummary, RoomSummary, RoomType},
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Room, Rooms, visibility::HistoryVisibility};
use crate::{
    error::ApiError,
    id::RoomNid,
    storage::{
        rows::HeadRow,
        schema::rooms::{CURRENT_STATE, CurrentStateKey, ROOM_HEADS},
    },
};

/// How many rooms' summaries are kept in memory.
const KEPT_MAX: usize = 10_000;

/// Summaries by room, with the version of the state that each was made from.
pub(super) type Summaries = Cache<RoomNid, (u32, Arc<RoomSummary>)>;

pub(super) fn summaries() -> Summaries {
    Cache::new(KEPT_MAX)
}

impl Rooms {
    /// The summary of a room by its current state, inside a read step. `None`: the room has no
    /// state.
    pub fn summary(
        &self,
        reader: &Reader<'_>,
        room: &Room,
    ) -> Result<Option<Arc<RoomSummary>>, ApiError> {
        match reader.get(&ROOM_HEADS, &room.nid)? {
            Some(head) => self.summary_at(reader, room, &head).map(Some),
            None => Ok(None),
        }
    }

    /// [`Rooms::summary`] for whoever has read the room's head already.
    pub(super) fn summary_at(
        &self,
        reader: &Reader<'_>,
        room: &Room,
        head: &HeadRow,
    ) -> Result<Arc<RoomSummary>, ApiError> {
        if let Some((version, summary)) = self.0.summaries.get(&room.nid)
            && version == head.state_version
        {
            return Ok(summary);
        }
        let summary = Arc::new(self.summarize(reader, room, head)?);
        self.keep_summary(room.nid, (head.state_version, summary.clone()), reader.position());
        Ok(summary)
    }

    fn summarize(
        &self,
        reader: &Reader<'_>,
        room: &Room,
        head: &HeadRow,
    ) -> Result<RoomSummary, ApiError> {
        let contents = Contents { rooms: self, reader, room };
        let join_rule = contents.of::<JoinRule>("m.room.join_rules")?.unwrap_or(JoinRule::Invite);
        let visibility: Option<String> =
            contents.field("m.room.history_visibility", "history_visibility")?;
        let visibility = visibility.as_deref().map(HistoryVisibility::from_name);
        let guests: Option<String> = contents.field("m.room.guest_access", "guest_access")?;
        let mut summary = RoomSummary::new(
            room.id.clone(),
            told(join_rule),
            guests.as_deref() == Some("can_join"),
            UInt::new_saturating(head.joined_members),
            visibility == Some(HistoryVisibility::WorldReadable),
        );
        let filled = |text: &String| !text.is_empty();
        summary.name = contents.field("m.room.name", "name")?.filter(filled);
        summary.topic = contents.field("m.room.topic", "topic")?.filter(filled);
        let alias: Option<String> = contents.field("m.room.canonical_alias", "alias")?;
        summary.canonical_alias = alias.and_then(|alias| OwnedRoomAliasId::try_from(alias).ok());
        let avatar: Option<String> = contents.field("m.room.avatar", "url")?;
        summary.avatar_url = avatar.filter(filled).map(OwnedMxcUri::from);
        let room_type: Option<String> = contents.field("m.room.create", "type")?;
        summary.room_type = room_type.map(RoomType::from);
        let algorithm: Option<String> = contents.field("m.room.encryption", "algorithm")?;
        summary.encryption = algorithm.map(EventEncryptionAlgorithm::from);
        summary.room_version = Some(room.version.clone());
        Ok(summary)
    }

    /// Remembers a summary as it was at a position; nothing that a later redaction may have taken.
    fn keep_summary(&self, room: RoomNid, summary: (u32, Arc<RoomSummary>), at: kv::Position) {
        if self.was_redacted_since(at) {
            return;
        }
        self.0.summaries.insert(room, summary);
        if self.was_redacted_since(at) {
            self.0.summaries.remove(&room);
        }
    }
}

/// A rule that nobody here knows admits nobody; ruma has no words for it on the wire.
fn told(rule: JoinRule) -> JoinRuleSummary {
    match rule {
        JoinRule::Invite
        | JoinRule::Knock
        | JoinRule::Private
        | JoinRule::Restricted(_)
        | JoinRule::KnockRestricted(_)
        | JoinRule::Public => rule.into(),
        _ => JoinRuleSummary::Private,
    }
}

/// The contents of a room's current state. What is malformed counts as absent.
struct Contents<'a> {
    rooms: &'a Rooms,
    reader: &'a Reader<'a>,
    room: &'a Room,
}

impl Contents<'_> {
    fn raw(&self, event_type: &str) -> Result<Option<Box<RawValue>>, ApiError> {
        let key = self.rooms.interner().state_key(event_type, "");
        let key = CurrentStateKey { room: self.room.nid, class: 0, key };
        let Some(event) = self.reader.get(&CURRENT_STATE, &key)? else {
            return Ok(None);
        };
        let event = self.rooms.stored_event(self.reader, self.room, event)?;
        Ok(Some(event.pdu.content().to_owned()))
    }

    fn of<T: for<'de> Deserialize<'de>>(&self, event_type: &str) -> Result<Option<T>, ApiError> {
        let content = self.raw(event_type)?;
        Ok(content.and_then(|content| serde_json::from_str(content.get()).ok()))
    }

    fn field(&self, event_type: &str, field: &str) -> Result<Option<String>, ApiError> {
        let content = self.of::<serde_json::Map<String, serde_json::Value>>(event_type)?;
        Ok(content.and_then(|mut content| match content.remove(field) {
            Some(serde_json::Value::String(text)) => Some(text),
            _ => None,
        }))
    }
}

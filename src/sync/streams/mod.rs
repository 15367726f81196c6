//! The streams: what is read for a client, one file per kind of thing.
//!
//! All of a sync is read in one [`Step`], on one view of the store. Nothing after [`Step::now`] is
//! told, though the view may hold more: the next sync tells it.

pub(crate) mod account_data;
pub(crate) mod device_lists;
pub(crate) mod key_counts;
pub(crate) mod presence;
pub(crate) mod receipts;
pub(crate) mod state;
pub(crate) mod summary;
pub(crate) mod timeline;
pub(crate) mod to_device;
pub(crate) mod typing;
pub(crate) mod unread;

use std::collections::HashSet;

use kv::{Position, Reader};
use ruma::OwnedUserId;
use serde_json::value::RawValue;

use super::{connections::Members, filter::SyncFilter};
use crate::{
    encryption::Encryption,
    ephemeral::{Presence, Typing},
    error::ApiError,
    id::{EventNid, Interner, StateKeyNid, UserNid},
    rooms::{
        Room, Rooms, StoredEvent,
        render::{Detail, Form, client_event},
        state as room_state,
        timeline::last_entry,
        visibility::Viewer,
    },
    storage::rows::{Membership, StateRef, TimelinePosition},
    users::Users,
};

/// An event in its form for the client.
pub(crate) type ClientEvent = Box<RawValue>;

/// Who reads and what for; outlives the steps that are tried.
#[derive(Clone)]
pub(crate) struct Sources {
    pub(crate) rooms: Rooms,
    pub(crate) users: Users,
    pub(crate) encryption: Encryption,
    pub(crate) typing: Typing,
    pub(crate) presence: Presence,
}

/// One read step of a sync.
pub(crate) struct Step<'a> {
    pub(crate) sources: &'a Sources,
    pub(crate) reader: &'a Reader<'a>,
    pub(crate) filter: &'a SyncFilter,
    pub(crate) user_id: &'a OwnedUserId,
    pub(crate) form: Form,
    /// Nothing after it is told.
    pub(crate) now: Position,
    /// Members that the device knows.
    pub(crate) known: &'a Members,
    /// Members that are told now.
    pub(crate) told: Members,
    /// Users whom the reader ignores.
    pub(crate) ignored: HashSet<UserNid>,
}

impl Step<'_> {
    pub(crate) fn interner(&self) -> &Interner {
        self.sources.rooms.interner()
    }

    /// The reader's own state key.
    pub(crate) fn own_member_key(&self) -> StateKeyNid {
        self.interner().state_key("m.room.member", self.user_id.as_str())
    }

    /// The current state of a room at a position; `None` before its first event.
    pub(crate) fn state_at(
        &self,
        room: &Room,
        position: Position,
    ) -> Result<Option<StateRef>, ApiError> {
        let to = std::ops::Bound::Included(TimelinePosition::live(position));
        let last = last_entry(self.reader, room.nid, to)?;
        Ok(last.map(|(_, entry)| StateRef::trunk(entry.state_version)))
    }

    /// What the reader was to a room at a state.
    pub(crate) fn membership_at(&self, room: &Room, at: StateRef) -> Result<Membership, ApiError> {
        self.membership_of(room, at, self.own_member_key())
    }

    /// What the user with this state key was to a room at a state.
    pub(crate) fn membership_of(
        &self,
        room: &Room,
        at: StateRef,
        key: StateKeyNid,
    ) -> Result<Membership, ApiError> {
        let Some(event) = room_state::lookup(self.reader, room.nid, at, key)? else {
            return Ok(Membership::None);
        };
        Ok(self.event(room, event)?.record.membership)
    }

    /// An event that something stored refers to.
    pub(crate) fn event(
        &self,
        room: &Room,
        event: EventNid,
    ) -> Result<std::sync::Arc<StoredEvent>, ApiError> {
        self.sources.rooms.event(self.reader, room, event)?.ok_or_else(|| {
            ApiError::internal_text(format!("event {} of {} is not there", event.0, room.id))
        })
    }

    /// An event of a timeline in its form for the client. Where nothing was left out of the timeline
    /// (`limited`), the client sees what relates to the event itself and is not told it once more.
    pub(crate) fn render(
        &self,
        viewer: &mut Viewer,
        event: &StoredEvent,
        limited: bool,
    ) -> Result<ClientEvent, ApiError> {
        let detail = if limited { Detail::Full } else { Detail::Unbundled };
        let form = Form { detail, ..self.form.clone() };
        self.filter.fields.pick(client_event(self.reader, viewer, event, &form)?)
    }

    /// An event of a list of state in its form for the client.
    pub(crate) fn render_state(
        &self,
        viewer: &mut Viewer,
        event: &StoredEvent,
    ) -> Result<ClientEvent, ApiError> {
        let event = client_event(self.reader, viewer, event, &self.form.clone().of_state())?;
        self.filter.fields.pick(event)
    }
}

/// An event that is no event of a room, from its parts.
pub(crate) fn plain_event(
    event_type: &str,
    content: &impl serde::Serialize,
) -> Result<ClientEvent, ApiError> {
    #[derive(serde::Serialize)]
    struct Plain<'a, T> {
        #[serde(rename = "type")]
        event_type: &'a str,
        content: &'a T,
    }
    serde_json::value::to_raw_value(&Plain { event_type, content }).map_err(ApiError::internal)
}

//! A result as clients are told it: the event, its surroundings, its senders' profiles of that time,
//! the state of its room.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3search>

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use kv::{Direction, Reader};
use ruma::{OwnedRoomId, OwnedUserId};
use serde::Serialize;
use serde_json::value::RawValue;

use super::query::{ContextSize, Hit, Prepared, SearchedRoom};
use crate::{
    error::ApiError,
    rooms::{
        Rooms, StoredEvent,
        filter::Filter,
        render::{Form, client_event},
        state,
        state_view::{Part, events_of_state},
        timeline::{PageRequest, PaginationToken, page},
        visibility::Standing,
    },
};

/// How many events around results one answer has.
const CONTEXT_EVENTS_MAX: usize = 1_000;

/// How many state events one answer has before it leaves out the members.
const STATE_EVENTS_MAX: usize = 10_000;

/// A result.
#[derive(Debug, Serialize)]
pub struct FoundEvent {
    /// How well it fits.
    pub rank: f64,
    /// The event.
    pub result: Box<RawValue>,
    /// Its surroundings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<Context>,
}

/// What stands around a result.
#[derive(Debug, Serialize)]
pub struct Context {
    /// Where to go on backwards.
    pub start: String,
    /// Where to go on forwards.
    pub end: String,
    /// What came before it, the latest first.
    pub events_before: Vec<Box<RawValue>>,
    /// What came after it.
    pub events_after: Vec<Box<RawValue>>,
    /// The senders' profiles of that time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile_info: Option<BTreeMap<OwnedUserId, Profile>>,
}

/// A profile as a member event has it.
#[derive(Debug, Default, Serialize)]
pub struct Profile {
    /// The display name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub displayname: Option<String>,
    /// The avatar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avatar_url: Option<String>,
}

pub(super) struct Answering<'a> {
    rooms: &'a Rooms,
    reader: &'a Reader<'a>,
    query: &'a Prepared,
    searched: Vec<Option<SearchedRoom>>,
    form: Form,
    context_left: usize,
}

impl<'a> Answering<'a> {
    pub(super) fn new(
        rooms: &'a Rooms,
        reader: &'a Reader<'a>,
        query: &'a Prepared,
        searched: Vec<Option<SearchedRoom>>,
    ) -> Self {
        let form = query.request.asker.form(rooms);
        Self { rooms, reader, query, searched, form, context_left: CONTEXT_EVENTS_MAX }
    }

    fn searched(&mut self, room: usize) -> Result<&mut SearchedRoom, ApiError> {
        let searched = self.searched.get_mut(room).and_then(Option::as_mut);
        searched.ok_or_else(|| ApiError::internal_text("a result of a room not searched"))
    }

    pub(super) fn event(&mut self, hit: &Hit) -> Result<FoundEvent, ApiError> {
        let context = match self.query.request.context {
            Some(size) => Some(self.context(hit, size)?),
            None => None,
        };
        let (reader, form) = (self.reader, self.form.clone());
        let viewer = &mut self.searched(hit.at.room)?.viewer;
        let result = client_event(reader, viewer, &hit.event, &form)?;
        Ok(FoundEvent { rank: hit.at.rank, result, context })
    }

    fn context(&mut self, hit: &Hit, size: ContextSize) -> Result<Context, ApiError> {
        let place = hit.event.record.position;
        let from = PaginationToken::before(place);
        let (before, start) = self.side(hit, (from, Direction::Backward), size.before)?;
        let from = PaginationToken::after(place);
        let (after, end) = self.side(hit, (from, Direction::Forward), size.after)?;
        let profile_info = if size.profiles {
            let all = before.iter().rev().chain([&hit.event]).chain(&after);
            Some(self.profiles(hit.at.room, all)?)
        } else {
            None
        };
        Ok(Context {
            start: start.to_string(),
            end: end.to_string(),
            events_before: self.render(hit.at.room, &before)?,
            events_after: self.render(hit.at.room, &after)?,
            profile_info,
        })
    }

    /// What the reader may see on one side of a result, and where that ends.
    fn side(
        &mut self,
        hit: &Hit,
        (from, direction): (PaginationToken, Direction),
        limit: usize,
    ) -> Result<(Vec<Arc<StoredEvent>>, PaginationToken), ApiError> {
        let limit = limit.min(self.context_left);
        let (reader, query) = (self.reader, self.query);
        let viewer = &mut self.searched(hit.at.room)?.viewer;
        let request = PageRequest { from, to: None, direction, limit };
        let page = page(reader, viewer, &Filter::default(), &request)?;
        self.context_left -= page.events.len();
        let events = page.events.into_iter().map(|(_, event)| event);
        let events = events.filter(|event| !query.ignored.contains(&event.record.sender));
        Ok((events.collect(), page.end.unwrap_or(from)))
    }

    fn render(
        &mut self,
        room: usize,
        events: &[Arc<StoredEvent>],
    ) -> Result<Vec<Box<RawValue>>, ApiError> {
        let (reader, form) = (self.reader, self.form.clone());
        let viewer = &mut self.searched(room)?.viewer;
        events.iter().map(|event| client_event(reader, viewer, event, &form)).collect()
    }

    /// The profiles of those who sent events: each as of the sender's first event.
    fn profiles<'e>(
        &mut self,
        room: usize,
        events: impl Iterator<Item = &'e Arc<StoredEvent>>,
    ) -> Result<BTreeMap<OwnedUserId, Profile>, ApiError> {
        let (rooms, reader) = (self.rooms, self.reader);
        let room = self.searched(room)?.room.clone();
        let mut profiles = BTreeMap::new();
        for event in events {
            let sender = event.pdu.sender();
            if profiles.contains_key(sender) {
                continue;
            }
            let key = rooms.interner().state_key("m.room.member", sender.as_str());
            let member = state::lookup(reader, room.nid, event.record.state_after, key)?;
            let member = match member {
                Some(member) => rooms.event(reader, &room, member)?,
                None => None,
            };
            let profile = member.map_or_else(Profile::default, |member| Profile {
                displayname: member.pdu.content_field("displayname"),
                avatar_url: member.pdu.content_field("avatar_url"),
            });
            profiles.insert(sender.to_owned(), profile);
        }
        Ok(profiles)
    }

    /// The state of each room with a result: the current one, or that of the reader's leave.
    pub(super) fn states(
        &mut self,
        hits: &[Hit],
    ) -> Result<BTreeMap<OwnedRoomId, Vec<Box<RawValue>>>, ApiError> {
        let (rooms, reader) = (self.rooms, self.reader);
        let form = self.form.clone().of_state();
        let mut states = BTreeMap::new();
        let mut seen = HashSet::new();
        let mut left = STATE_EVENTS_MAX;
        for hit in hits.iter().filter(|hit| seen.insert(hit.at.room)) {
            let SearchedRoom { room, viewer } = self.searched(hit.at.room)?;
            let at = match viewer.standing(reader)? {
                Standing::Stranger => continue,
                Standing::Departed(departure) => departure.state,
                Standing::Joined | Standing::Peeking => viewer.current_state(reader)?,
            };
            let mut events = events_of_state(rooms, reader, room, at, &Part::All)?;
            if events.len() > left {
                events = events_of_state(rooms, reader, room, at, &Part::Others)?;
            }
            left = left.saturating_sub(events.len());
            let mut list = Vec::with_capacity(events.len());
            for event in events {
                if let Some(event) = rooms.event(reader, room, event)? {
                    list.push(client_event(reader, viewer, &event, &form)?);
                }
            }
            states.insert(room.id.clone(), list);
        }
        Ok(states)
    }
}

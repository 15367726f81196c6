//! A room that the user has joined, as sliding sync tells it.

use std::sync::Arc;

use super::{
    answer::{Change, Hero, RoomAnswer},
    build::{Build, grows},
    connection::{Kind, Told},
    lists::Target,
    state::Changes,
};
use crate::{
    error::ApiError,
    rooms::{Room, StoredEvent, state as room_state, visibility::Viewer},
    storage::rows::{StateRef, TimelinePosition},
    sync::streams::{
        state, summary,
        timeline::{Window, window_of},
        unread,
    },
};

impl Build<'_> {
    /// What is new in a room that the user has joined; `None`: nothing.
    pub(super) fn joined(
        &mut self,
        room: &Room,
        target: &Target,
    ) -> Result<Option<RoomAnswer>, ApiError> {
        let base = self.base;
        let known = base.rooms.get(&room.nid).filter(|told| told.kind == Kind::Joined);
        let known = known.map(|told| &**told);
        let positions = target.entry.positions;
        let grown = known.is_some_and(|told| grows(told, target));
        let changed = known.is_none_or(|told| positions.events > told.position);
        let rooms = self.step.sources.rooms.clone();
        let mut viewer = Viewer::new(&rooms, self.step.reader, room, self.step.user_id)?;
        let window = if changed || grown {
            let since = known.filter(|_| !grown).map(|told| told.position);
            let now = TimelinePosition::live(self.step.now);
            window_of(&self.step, &mut viewer, (since, now), target.wish.limit)?
        } else {
            Window::default()
        };
        let mut answer = RoomAnswer { initial: known.is_none(), ..RoomAnswer::default() };
        let end = self.step.state_at(room, self.step.now)?.unwrap_or(StateRef::EMPTY);
        let difference = self.changes(room, known, end)?;
        let seen = known.map(|told| (&*told.wish, &difference));
        let selected = self.required_state(room, end, (&target.wish, seen), &window)?;
        answer.required_state = state::render(&self.step, &mut viewer, &selected)?;
        self.describe(&mut answer, room, (end, known.map(|_| &difference)))?;
        let mut told = self.tell(&mut answer, (target, known), (&window, grown));
        if changed || positions.receipts > told.counted || known.is_none() {
            told.unread = unread::read(&self.step, room, &target.entry.row, positions)?.whole();
            told.counted = positions.receipts;
        }
        let has_count = known.is_none_or(|before| before.unread != told.unread);
        let has_news = has_count
            || answer.is_dm.is_some()
            || !answer.required_state.is_empty()
            || answer.has_summary()
            || !window.events.is_empty()
            || window.limited && (changed || grown);
        if has_news {
            answer.unread = Some(told.unread);
            answer.timeline = window.render(&self.step, &mut viewer)?;
            answer.prev_batch = window.prev_batch.map(|token| token.to_string());
        }
        self.delta.rooms.insert(room.nid, Arc::new(told));
        Ok(has_news.then_some(answer))
    }

    /// What changed in the state since the client was told.
    pub(super) fn changes(
        &self,
        room: &Room,
        known: Option<&Told>,
        end: StateRef,
    ) -> Result<Changes, ApiError> {
        let Some(told) = known else { return Ok(Changes::default()) };
        let from = self.step.state_at(room, told.position)?.unwrap_or(StateRef::EMPTY);
        Changes::read(&self.step, room, (from, end))
    }

    /// Notes what the client has of the timeline, and tells what goes with it.
    pub(super) fn tell(
        &self,
        answer: &mut RoomAnswer,
        (target, known): (&Target, Option<&Told>),
        (window, grown): (&Window, bool),
    ) -> Told {
        let first = self.first_told(target, Kind::Joined);
        let count = window.events.len();
        answer.limited = window.limited;
        answer.unstable_expanded_timeline = grown;
        answer.num_live = self.live(window);
        let is_dm = first.is_dm;
        let Some(before) = known else {
            answer.is_dm = is_dm.then_some(true);
            return Told { tail: count, complete: !window.limited, ..first };
        };
        answer.is_dm = (before.is_dm != is_dm).then_some(is_dm);
        let (tail, complete) = if grown || window.limited {
            (count, !window.limited)
        } else {
            (before.tail.saturating_add(count), before.complete)
        };
        let Told { counted, unread, .. } = *before;
        Told { counted, tail, complete, unread, ..first }
    }

    /// How many of the events have come since the client last asked.
    fn live(&self, window: &Window) -> u64 {
        let Some(since) = self.base.position else { return 0 };
        let is_live = |position: &TimelinePosition| *position > TimelinePosition::live(since);
        let live = window.events.iter().filter(|(position, _)| is_live(position)).count();
        u64::try_from(live).unwrap_or(u64::MAX)
    }

    /// Name, avatar, heroes and counts: all of it with a room that is new, else what changed.
    pub(super) fn describe(
        &self,
        answer: &mut RoomAnswer,
        room: &Room,
        (at, changes): (StateRef, Option<&Changes>),
    ) -> Result<(), ApiError> {
        let has_changed = |changed: fn(&Changes) -> bool| changes.is_none_or(changed);
        if has_changed(|changes| changes.name) {
            let name = self.text_of(room, at, ("m.room.name", "name"))?;
            if changes.is_some() || name.is_some() {
                answer.name = Change::To(name);
            }
        }
        if has_changed(|changes| changes.avatar) {
            let avatar = self.text_of(room, at, ("m.room.avatar", "url"))?;
            if changes.is_some() || avatar.is_some() {
                answer.avatar = Change::To(avatar);
            }
        }
        if has_changed(|changes| changes.members || changes.name) {
            let summary = summary::read(&self.step, room, at)?;
            (answer.joined_count, answer.invited_count) = (summary.joined, summary.invited);
            answer.heroes = match summary.heroes {
                Some(heroes) => Some(self.heroes(room, at, heroes)?),
                None => None,
            };
        }
        Ok(())
    }

    fn text_of(
        &self,
        room: &Room,
        at: StateRef,
        (event_type, field): (&str, &str),
    ) -> Result<Option<String>, ApiError> {
        let key = self.step.interner().state_key(event_type, "");
        let Some(event) = room_state::lookup(self.step.reader, room.nid, at, key)? else {
            return Ok(None);
        };
        let text: Option<String> = self.step.event(room, event)?.pdu.content_field(field);
        Ok(text.filter(|text| !text.is_empty()))
    }

    fn heroes(
        &self,
        room: &Room,
        at: StateRef,
        heroes: Vec<String>,
    ) -> Result<Vec<Hero>, ApiError> {
        let mut described = Vec::with_capacity(heroes.len());
        for user_id in heroes {
            let key = self.step.interner().state_key("m.room.member", &user_id);
            let member = match room_state::lookup(self.step.reader, room.nid, at, key)? {
                Some(event) => Some(self.step.event(room, event)?),
                None => None,
            };
            let text = |field| {
                let member: Option<&StoredEvent> = member.as_deref();
                let text: Option<String> = member?.pdu.content_field(field);
                text.filter(|text| !text.is_empty())
            };
            let (displayname, avatar_url) = (text("displayname"), text("avatar_url"));
            described.push(Hero { user_id, displayname, avatar_url });
        }
        Ok(described)
    }
}

impl RoomAnswer {
    /// Whether it tells how the room is called or who is in it.
    fn has_summary(&self) -> bool {
        self.name != Change::Unchanged
            || self.avatar != Change::Unchanged
            || self.heroes.is_some()
            || self.joined_count.is_some()
    }
}

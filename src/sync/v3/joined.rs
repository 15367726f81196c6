//! Rooms that the user has joined.

use std::collections::BTreeMap;

use kv::Position;

use super::{
    Build,
    answer::{JoinedRoom, Timeline},
};
use crate::{
    error::ApiError,
    rooms::{Room, visibility::Viewer},
    storage::rows::{Membership, MembershipRow, StateRef, TimelinePosition},
    sync::{
        room_table::RoomPositions,
        streams::{
            ClientEvent,
            receipts::{self, Receipts},
            state::{self, Span},
            summary::{self, Summary},
            timeline::{Window, window},
            typing, unread,
        },
    },
};

/// A room's timeline and what state goes with it.
struct History {
    window: Window,
    span: Span,
    /// Whether there may be something new.
    changed: bool,
}

impl Build<'_> {
    /// What is new in a room that the user has joined; `None`: nothing.
    pub(super) fn joined(
        &mut self,
        room: &Room,
        row: &MembershipRow,
        positions: RoomPositions,
    ) -> Result<Option<JoinedRoom>, ApiError> {
        let since = self.known_since(room, row)?;
        let is_new = |position: Position| since.is_none_or(|since| position > since);
        let rooms = self.step.sources.rooms.clone();
        let mut viewer = Viewer::new(&rooms, self.step.reader, room, self.step.user_id)?;
        let history = self.history(&mut viewer, since, is_new(positions.events))?;
        let History { window, span, changed } = history;
        let summary = if changed { self.summary(room, span)? } else { Summary::default() };
        let heroes = summary.hero_keys(&self.step);
        let selected = if changed {
            state::select(&mut self.step, room, (span, &window), &heroes)?
        } else {
            state::StateMap::new()
        };
        let state = state::render(&self.step, &mut viewer, &selected)?;
        let receipts = if is_new(positions.receipts) {
            receipts::read(&self.step, room.nid, since)?
        } else {
            Receipts::default()
        };
        let mut ephemeral = receipts.events;
        if since.is_none() || is_new(positions.typing) {
            let changed = since.is_some() && is_new(positions.typing);
            ephemeral.extend(typing::read(&self.step, room, changed)?);
        }
        let account_data = self.room_account_data(room, since)?;
        let nothing = window.events.is_empty()
            && !window.limited
            && state.is_empty()
            && ephemeral.is_empty()
            && account_data.is_empty()
            && !receipts.own;
        if nothing && since.is_some() && !self.request.full_state {
            return Ok(None);
        }
        let unread = unread::read(&self.step, room, row, positions)?;
        let by_thread = self.step.filter.unread_by_thread;
        Ok(Some(JoinedRoom {
            summary,
            state: self.request.state_form.state(state),
            timeline: self.timeline(&mut viewer, &window)?,
            ephemeral: ephemeral.into(),
            account_data: account_data.into(),
            unread_notifications: if by_thread { unread.main } else { unread.whole() },
            unread_thread_notifications: if by_thread { unread.threads } else { BTreeMap::new() },
        }))
    }

    /// From when on the client knows the room; `None`: it does not, so that all of it is told.
    fn known_since(&self, room: &Room, row: &MembershipRow) -> Result<Option<Position>, ApiError> {
        let Some(since) = self.since else { return Ok(None) };
        if row.position <= since {
            return Ok(Some(since));
        }
        // The membership event is new: a join, or only another name.
        let Some(then) = self.step.state_at(room, since)? else { return Ok(None) };
        let was_joined = self.step.membership_at(room, then)? == Membership::Join;
        Ok(was_joined.then_some(since))
    }

    fn history(
        &self,
        viewer: &mut Viewer,
        since: Option<Position>,
        changed: bool,
    ) -> Result<History, ApiError> {
        let now = TimelinePosition::live(self.step.now);
        let after = self.request.state_form.is_after();
        if !changed && !self.request.full_state {
            let span = Span { known: None, start: StateRef::EMPTY, end: StateRef::EMPTY, after };
            return Ok(History { window: Window::default(), span, changed });
        }
        let room = viewer.room().clone();
        let window = window(&self.step, viewer, since, now)?;
        let end = self.step.state_at(&room, self.step.now)?.unwrap_or(StateRef::EMPTY);
        let start = window.start(&self.step, viewer)?.unwrap_or(end);
        let known = match since {
            Some(since) if !self.request.full_state => self.step.state_at(&room, since)?,
            _ => None,
        };
        Ok(History { window, span: Span { known, start, end, after }, changed: true })
    }

    /// The summary, when it may have changed: when the client is new to the room, or a member is.
    fn summary(&self, room: &Room, span: Span) -> Result<Summary, ApiError> {
        let Some(known) = span.known else { return summary::read(&self.step, room, span.end) };
        if known == span.end {
            return Ok(Summary::default());
        }
        let changes = crate::rooms::state::diff(self.step.reader, room.nid, known, span.end)?;
        for change in changes {
            let Some(event) = change.new.or(change.old) else { continue };
            let event = self.step.event(room, event)?;
            let types = ["m.room.member", "m.room.name", "m.room.canonical_alias"];
            if types.contains(&event.pdu.event_type()) {
                return summary::read(&self.step, room, span.end);
            }
        }
        Ok(Summary::default())
    }

    pub(super) fn timeline(
        &self,
        viewer: &mut Viewer,
        window: &Window,
    ) -> Result<Timeline, ApiError> {
        Ok(Timeline {
            events: window.render(&self.step, viewer)?,
            limited: window.limited,
            prev_batch: window.prev_batch.map(|token| token.to_string()),
        })
    }

    /// What is told of the account data of a room: all of it with a room that is new.
    fn room_account_data(
        &mut self,
        room: &Room,
        since: Option<Position>,
    ) -> Result<Vec<ClientEvent>, ApiError> {
        if !self.step.filter.room_account_data.admits_room(&room.id) {
            return Ok(Vec::new());
        }
        let is_new = since.is_none() && self.since.is_some();
        let data = if is_new { self.all_account_data()? } else { &mut self.account_data };
        Ok(data.rooms.remove(&room.nid).unwrap_or_default())
    }
}

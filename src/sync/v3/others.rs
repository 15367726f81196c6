//! Rooms that the user is not in: invites, knocks, and what was left.
//!
//! A room that was left is told up to the leave and no further, whatever happened in it since.

use super::{
    Build,
    answer::{InvitedRoom, KnockedRoom, LeftRoom},
};
use crate::{
    error::ApiError,
    rooms::{
        Room, StoredEvent,
        preferences::InviteDecision,
        render::stripped_state,
        visibility::{Departure, Standing, Viewer},
    },
    storage::rows::{Membership, MembershipRow},
    sync::streams::{
        ClientEvent,
        state::{self, Span},
        timeline::{Window, window},
    },
};

impl Build<'_> {
    /// An invite; `None` when the reader does not want it of who sent it.
    pub(super) fn invited(
        &self,
        room: &Room,
        row: &MembershipRow,
    ) -> Result<Option<InvitedRoom>, ApiError> {
        let member = self.step.event(room, row.event)?;
        let rooms = &self.step.sources.rooms;
        let (reader, sender) = (self.step.reader, member.pdu.sender());
        if rooms.invite_decision(reader, self.step.user_id, sender)? != InviteDecision::Allow {
            return Ok(None);
        }
        let invite_state = self.stripped(room, &member)?.into();
        Ok(Some(InvitedRoom { invite_state }))
    }

    /// A knock.
    pub(super) fn knocked(
        &self,
        room: &Room,
        row: &MembershipRow,
    ) -> Result<KnockedRoom, ApiError> {
        let member = self.step.event(room, row.event)?;
        Ok(KnockedRoom { knock_state: self.stripped(room, &member)?.into() })
    }

    fn stripped(&self, room: &Room, member: &StoredEvent) -> Result<Vec<ClientEvent>, ApiError> {
        stripped_state(&self.step.sources.rooms, self.step.reader, room, member)
    }

    /// A room that the user left or was banned from.
    pub(super) fn left(&mut self, room: &Room, row: &MembershipRow) -> Result<LeftRoom, ApiError> {
        let rooms = self.step.sources.rooms.clone();
        let mut viewer = Viewer::new(&rooms, self.step.reader, room, self.step.user_id)?;
        let departure = self.departure(&mut viewer, row)?;
        let (mut window, state) = match departure {
            Some(departure) => self.until(&mut viewer, departure)?,
            None => (Window::default(), Vec::new()),
        };
        // What became of the membership is told in any case: an invite that was taken back, a ban
        // of someone who had left.
        let member = self.step.event(room, row.event)?;
        if departure.is_none_or(|departure| departure.position < member.record.position) {
            window.events.push((member.record.position, member));
        }
        let account_data = self.account_data.rooms.remove(&room.nid).unwrap_or_default();
        Ok(LeftRoom {
            state: self.request.state_form.state(state),
            timeline: self.timeline(&mut viewer, &window)?,
            account_data: account_data.into(),
        })
    }

    /// Where the user's time in the room ended, when the client was not told yet.
    fn departure(
        &self,
        viewer: &mut Viewer,
        row: &MembershipRow,
    ) -> Result<Option<Departure>, ApiError> {
        if !row.was_joined {
            return Ok(None);
        }
        let Standing::Departed(departure) = viewer.standing(self.step.reader)? else {
            return Ok(None);
        };
        let is_new = self.since.is_none_or(|since| departure.position.position > since);
        Ok(is_new.then_some(departure))
    }

    /// The timeline and the state up to a departure.
    fn until(
        &mut self,
        viewer: &mut Viewer,
        departure: Departure,
    ) -> Result<(Window, Vec<ClientEvent>), ApiError> {
        let room = viewer.room().clone();
        let then = match self.since {
            Some(since) => self.step.state_at(&room, since)?.map(|then| (since, then)),
            None => None,
        };
        // Only who was joined then knows the room up to then.
        let known = match then {
            Some((since, then)) if self.step.membership_at(&room, then)? == Membership::Join => {
                Some((since, then))
            }
            _ => None,
        };
        let since = known.map(|(since, _)| since);
        let window = window(&self.step, viewer, since, departure.position)?;
        let start = window.start(&self.step, viewer)?.unwrap_or(departure.state);
        let span = Span {
            known: known.map(|(_, then)| then),
            start,
            end: departure.state,
            after: self.request.state_form.is_after(),
        };
        let selected = state::select(&mut self.step, &room, (span, &window), &[])?;
        let state = state::render(&self.step, viewer, &selected)?;
        Ok((window, state))
    }
}

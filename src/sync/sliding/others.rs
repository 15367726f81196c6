//! Rooms that the user is not in, as sliding sync tells them: invites, knocks, and once more what
//! the user left.
//!
//! A room that was left is told up to the leave and no further, whatever happened in it since
//! (attack case T57).

use std::sync::Arc;

use super::{
    answer::RoomAnswer,
    build::Build,
    connection::{Kind, Told},
    lists::Target,
};
use crate::{
    error::ApiError,
    rooms::{
        Room,
        render::stripped_state,
        visibility::{Departure, Standing, Viewer},
    },
    sync::streams::{
        state,
        timeline::{Window, window_of},
    },
};

impl Build<'_> {
    /// An invite or a knock.
    pub(super) fn stripped(
        &mut self,
        room: &Room,
        target: &Target,
    ) -> Result<Option<RoomAnswer>, ApiError> {
        let member = self.step.event(room, target.entry.row.event)?;
        let rooms = &self.step.sources.rooms;
        let invite_state = Some(stripped_state(rooms, self.step.reader, room, &member)?);
        let told = self.first_told(target, Kind::Stripped);
        let is_dm = told.is_dm.then_some(true);
        self.delta.rooms.insert(room.nid, Arc::new(told));
        Ok(Some(RoomAnswer { initial: true, invite_state, is_dm, ..RoomAnswer::default() }))
    }

    /// A room that the user left or was made to leave: once, with the member event.
    pub(super) fn left(
        &mut self,
        room: &Room,
        target: &Target,
    ) -> Result<Option<RoomAnswer>, ApiError> {
        let rooms = self.step.sources.rooms.clone();
        let mut viewer = Viewer::new(&rooms, self.step.reader, room, self.step.user_id)?;
        let before = self.base.rooms.get(&room.nid).map(|told| &**told);
        let known = before.filter(|told| told.kind == Kind::Joined);
        let initial = before.is_none();
        let mut answer = RoomAnswer { initial, ..RoomAnswer::default() };
        let mut told = self.first_told(target, Kind::Left);
        if let Some(departure) = self.departure(&mut viewer, target, before)? {
            self.until(&mut answer, &mut viewer, (target, known), departure)?;
        }
        // What became of the membership is told in any case.
        let member = self.step.event(room, target.entry.row.event)?;
        answer.required_state.push(self.step.render_state(&mut viewer, &member)?);
        told.complete = true;
        self.delta.rooms.insert(room.nid, Arc::new(told));
        Ok(Some(answer))
    }

    /// Where the user's time in the room ended, when the client was not told yet.
    fn departure(
        &self,
        viewer: &mut Viewer,
        target: &Target,
        before: Option<&Told>,
    ) -> Result<Option<Departure>, ApiError> {
        let is_told = before.is_some_and(|told| told.kind != Kind::Joined);
        if !target.entry.row.was_joined || is_told {
            return Ok(None);
        }
        match viewer.standing(self.step.reader)? {
            Standing::Departed(departure) => Ok(Some(departure)),
            _ => Ok(None),
        }
    }

    /// The timeline and the state up to a departure, without the own member event.
    fn until(
        &mut self,
        answer: &mut RoomAnswer,
        viewer: &mut Viewer,
        (target, known): (&Target, Option<&Told>),
        departure: Departure,
    ) -> Result<(), ApiError> {
        let room = viewer.room().clone();
        let bounds = (known.map(|told| told.position), departure.position);
        let window: Window = window_of(&self.step, viewer, bounds, target.wish.limit)?;
        let changes = self.changes(&room, known, departure.state)?;
        let seen = known.map(|told| (&*told.wish, &changes));
        let mut selected =
            self.required_state(&room, departure.state, (&target.wish, seen), &window)?;
        selected.remove(&self.step.own_member_key());
        answer.required_state = state::render(&self.step, viewer, &selected)?;
        self.tell(answer, (target, known), (&window, false));
        answer.timeline = window.render(&self.step, viewer)?;
        answer.prev_batch = window.prev_batch.map(|token| token.to_string());
        Ok(())
    }
}

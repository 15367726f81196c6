//! Who is interested in a room: a set of bits, one for each application service at its place in
//! the registry.
//!
//! Asked for every commit, so it is remembered for each room; a commit in a room that concerns
//! nobody reads nothing. The first look at a room goes through its members once: that is O(members),
//! once for each room and process. What is remembered may be too much (somebody who has just
//! joined), never too little.

use std::{collections::HashMap, ops::ControlFlow, sync::Arc};

use kv::{Direction, Position, Reader};
use ruma::UserId;

use crate::{
    appservices::Registry,
    error::ApiError,
    id::RoomNid,
    rooms::{Room, alias::aliases_of},
    storage::{
        rows::Membership,
        schema::rooms::{MEMBERS, MEMBERSHIPS, MembershipKey},
    },
};

/// Application services, each as a bit at its place in the registry.
pub(super) type Set = u128;

/// How many rooms are remembered.
const ROOMS_MAX: usize = 100_000;

/// Who is interested in which room. See the module.
#[derive(Debug)]
pub(super) struct Interests {
    registry: Arc<Registry>,
    rooms: HashMap<RoomNid, Set>,
}

impl Interests {
    pub(super) fn new(registry: Arc<Registry>) -> Self {
        Self { registry, rooms: HashMap::new() }
    }

    /// Those at these places.
    pub(super) fn members(
        &self,
        set: Set,
    ) -> impl Iterator<Item = &Arc<crate::appservices::Appservice>> {
        self.each(set).map(|(_, one)| one)
    }

    /// Each of those, with its bit.
    pub(super) fn each(
        &self,
        set: Set,
    ) -> impl Iterator<Item = (Set, &Arc<crate::appservices::Appservice>)> {
        let all = self.registry.all().iter().enumerate();
        all.map(|(at, one)| (1 << at, one)).filter(move |(bit, _)| set & bit != 0)
    }

    /// Those for which `is` holds. Who has no address is sent nothing.
    pub(super) fn set(&self, is: impl Fn(&crate::appservices::Appservice) -> bool) -> Set {
        let all = self.registry.all().iter().enumerate();
        let chosen = all.filter(|(_, one)| one.url.is_some() && is(one));
        chosen.fold(0, |set, (at, _)| set | (1 << at))
    }

    /// Those that are interested in a user of this server.
    pub(super) fn of_user(&self, user_id: &str) -> Set {
        match <&UserId>::try_from(user_id) {
            Ok(user_id) => self.set(|one| one.covers_user(user_id)),
            Err(_) => 0,
        }
    }

    /// What is remembered of a room.
    pub(super) fn remembered(&self, room: RoomNid) -> Option<Set> {
        self.rooms.get(&room).copied()
    }

    pub(super) fn forget(&mut self, room: RoomNid) {
        self.rooms.remove(&room);
    }

    /// Users of these have joined the room.
    pub(super) fn joined(&mut self, room: RoomNid, set: Set) {
        if let Some(known) = self.rooms.get_mut(&room) {
            *known |= set;
        }
    }

    /// Those that were interested in the room at a position.
    pub(super) fn of_room(
        &mut self,
        reader: &Reader<'_>,
        room: &Room,
        at: Position,
    ) -> Result<Set, ApiError> {
        if let Some(set) = self.rooms.get(&room.nid) {
            return Ok(*set);
        }
        let mut set = self.by_alias(reader, room.nid)?;
        set |= self.set(|one| one.covers_room(&room.id));
        let all = self.set(|_| true);
        set |= self.of_members(reader, room.nid, Membership::Join, all & !set)?;
        // Who has left since then was there at that time.
        let mut departed = 0;
        for membership in [Membership::Leave, Membership::Ban] {
            departed |= self.of_departed(reader, room.nid, membership, at)?;
        }
        if departed & !set != 0 {
            return Ok(set | departed);
        }
        if self.rooms.len() >= ROOMS_MAX {
            self.rooms.clear();
        }
        self.rooms.insert(room.nid, set);
        Ok(set)
    }

    /// Those in whose namespace an alias of the room is.
    pub(super) fn by_alias(&self, reader: &Reader<'_>, room: RoomNid) -> Result<Set, ApiError> {
        let aliases = aliases_of(reader, room)?;
        Ok(self.set(|one| aliases.iter().any(|alias| one.covers_alias(alias))))
    }

    fn of_members(
        &self,
        reader: &Reader<'_>,
        room: RoomNid,
        membership: Membership,
        wanted: Set,
    ) -> Result<Set, ApiError> {
        let mut set = 0;
        if wanted == 0 {
            return Ok(set);
        }
        let range = MEMBERS.prefix(&(room, membership as u8));
        reader.for_each(&MEMBERS, &range, Direction::Forward, |key, _| {
            set |= self.of_user(&key.user_id);
            if wanted & !set == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(set)
    }

    fn of_departed(
        &self,
        reader: &Reader<'_>,
        room: RoomNid,
        membership: Membership,
        at: Position,
    ) -> Result<Set, ApiError> {
        let mut departed = Vec::new();
        let range = MEMBERS.prefix(&(room, membership as u8));
        reader.for_each(&MEMBERS, &range, Direction::Forward, |key, _| {
            let set = self.of_user(&key.user_id);
            if set != 0 {
                departed.push((key.user_id, set));
            }
            ControlFlow::Continue(())
        })?;
        let mut all = 0;
        for (user_id, set) in departed {
            let row = reader.get(&MEMBERSHIPS, &MembershipKey { user_id, room })?;
            if row.is_some_and(|row| row.position > at) {
                all |= set;
            }
        }
        Ok(all)
    }
}

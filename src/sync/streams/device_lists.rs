//! Device lists: whose devices a client must ask for again, and whose it need not follow any more.
//!
//! A client has up-to-date lists of all with whom its user shared a room at its last sync. So it is
//! told who of them changed something, with whom a room is shared now that was not, and with whom
//! none is any more. Whether a room is encrypted makes no difference: when it becomes so, nothing is
//! missing. Those whom the user ignores are told too: what others write is still encrypted for them.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#tracking-the-device-list-for-a-user>

use std::{
    collections::{BTreeSet, HashSet},
    ops::ControlFlow,
};

use kv::{Direction, Position};
use serde::Serialize;

use super::Step;
use crate::{
    encryption::{device_lists::changed_since, signed_since},
    error::ApiError,
    id::RoomNid,
    rooms::{Room, state},
    storage::{
        rows::{Membership, StateRef},
        schema::{
            encryption::DEVICE_LISTS,
            rooms::{MEMBERS, MEMBERSHIPS, ROOM_HEADS},
        },
    },
    sync::room_table::{News, RoomPositions},
};

/// So many users are looked at one by one, whatever there is to look at instead.
const FEW: usize = 32;

/// Users, by what became of their devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct DeviceLists {
    /// Those whose devices or keys changed, or with whom a room is shared that was not before.
    pub(crate) changed: Vec<String>,
    /// Those with whom no room is shared any more.
    pub(crate) left: Vec<String>,
}

impl DeviceLists {
    /// Whether there is nothing to tell.
    pub(crate) fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.left.is_empty()
    }
}

/// What changed between `since` and the step's time. `news` may hold more rooms than changed since.
/// Reads nothing where neither memberships nor devices changed.
pub(crate) fn read(step: &Step<'_>, since: Position, news: &News) -> Result<DeviceLists, ApiError> {
    let mut changes = Changes {
        step,
        since,
        news,
        changed: BTreeSet::new(),
        parted: BTreeSet::new(),
        new_rooms: HashSet::new(),
    };
    changes.add_own_rooms()?;
    changes.add_members()?;
    // The readers themselves come and go as well.
    changes.changed.remove(step.user_id.as_str());
    changes.parted.remove(step.user_id.as_str());
    changes.add_keys()?;
    changes.told()
}

/// What is found, step by step.
struct Changes<'a> {
    step: &'a Step<'a>,
    since: Position,
    news: &'a News,
    changed: BTreeSet<String>,
    /// Those with whom a room is not shared any more; perhaps another one is.
    parted: BTreeSet<String>,
    /// The rooms that the reader has joined and had not.
    new_rooms: HashSet<RoomNid>,
}

impl Changes<'_> {
    /// The members of rooms that the reader joined or left: O(members), since each may be somebody
    /// to be followed or not to be followed any more.
    fn add_own_rooms(&mut self) -> Result<(), ApiError> {
        let step = self.step;
        let news = self.news;
        for (nid, row) in news.memberships.iter().filter(|(_, row)| row.position > self.since) {
            let Some(room) = self.room(*nid)? else { continue };
            let before = self.state_at(&room, self.since)?;
            // A new display name writes the row too.
            let was_joined = step.membership_at(&room, before)? == Membership::Join;
            match (was_joined, row.membership == Membership::Join) {
                (false, true) => {
                    let now = self.state_at(&room, step.now)?;
                    for membership in [Membership::Join, Membership::Invite] {
                        self.changed.extend(self.members(&room, now, membership)?);
                    }
                    self.new_rooms.insert(*nid);
                }
                // Who came after the reader had left is a stranger and stays one.
                (true, false) => {
                    self.parted.extend(self.members(&room, before, Membership::Join)?);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Others who came into the reader's rooms or left them. Those who are invited count as coming:
    /// clients encrypt for them too, some by a list from the time when a room was last shared. They
    /// are told again when they join, since what they change until then is not.
    fn add_members(&mut self) -> Result<(), ApiError> {
        let (step, news) = (self.step, self.news);
        let changed = |room: &RoomNid| self.new_rooms.contains(room);
        let rooms: Vec<RoomNid> = news
            .rooms
            .iter()
            .filter(|(room, positions)| positions.members > self.since && !changed(room))
            .map(|(room, _)| *room)
            .collect();
        for nid in rooms {
            let Some(room) = self.room(nid)? else { continue };
            let span = (self.state_at(&room, self.since)?, self.state_at(&room, step.now)?);
            for (user, before, now) in self.members_between(&room, span)? {
                match (before, now) {
                    // A new display name.
                    (before, now) if before == now => {}
                    (_, Membership::Join | Membership::Invite) => {
                        self.changed.insert(user);
                    }
                    (Membership::Join, _) => {
                        self.parted.insert(user);
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Those whose devices or keys changed and who share a room with the reader, and the reader.
    /// There is one row for the last change of each user, so that of a change after the step's time
    /// it is not known whether one came before it: it is told twice, not too late.
    fn add_keys(&mut self) -> Result<(), ApiError> {
        let (reader, own) = (self.step.reader, self.step.user_id.to_string());
        if self.news.devices > self.since {
            // Whom the reader has verified on another device.
            self.changed.extend(signed_since(reader, self.step.user_id, self.since)?);
        }
        let members_changed = |room: &(_, RoomPositions)| room.1.members > self.since;
        // Who left a room and came back may have changed something where it was nobody's business.
        if self.news.device_lists > self.since || self.news.rooms.iter().any(members_changed) {
            let mut users: BTreeSet<String> =
                changed_since(reader, self.since)?.into_iter().collect();
            users.retain(|user| !self.changed.contains(user));
            let own = users.take(&own);
            self.changed.extend(self.sharing(&users)?);
            self.changed.extend(own);
        } else if self.news.devices > self.since
            && reader.get(&DEVICE_LISTS, &own)?.is_some_and(|changed| changed > self.since)
        {
            self.changed.insert(own);
        }
        Ok(())
    }

    /// The answer. Nobody is in both lists: who came back, or is invited again, is to be followed.
    fn told(mut self) -> Result<DeviceLists, ApiError> {
        let mut parted = std::mem::take(&mut self.parted);
        parted.retain(|user| !self.changed.contains(user));
        let sharing = self.sharing(&parted)?;
        parted.retain(|user| !sharing.contains(user));
        Ok(DeviceLists {
            changed: self.changed.into_iter().collect(),
            left: parted.into_iter().collect(),
        })
    }

    /// Those of `users` who share a room with the reader now.
    fn sharing(&self, users: &BTreeSet<String>) -> Result<BTreeSet<String>, ApiError> {
        let step = self.step;
        let mut sharing = BTreeSet::new();
        if users.len() > FEW && self.members_are_fewer(users.len())? {
            for nid in self.joined_rooms() {
                let Some(room) = self.room(nid)? else { continue };
                let now = self.state_at(&room, step.now)?;
                let members = self.members(&room, now, Membership::Join)?;
                sharing.extend(members.into_iter().filter(|member| users.contains(member)));
            }
            return Ok(sharing);
        }
        for user in users {
            if self.shares_a_room(user)? {
                sharing.insert(user.clone());
            }
        }
        Ok(sharing)
    }

    fn members_are_fewer(&self, users: usize) -> Result<bool, ApiError> {
        let rooms: Vec<RoomNid> = self.joined_rooms().collect();
        let heads = self.step.reader.get_many(&ROOM_HEADS, &rooms)?;
        let members: u64 = heads.into_iter().flatten().map(|head| head.joined_members).sum();
        Ok(members < users as u64)
    }

    fn shares_a_room(&self, user: &String) -> Result<bool, ApiError> {
        let step = self.step;
        let mut shares = false;
        let mut later = Vec::new();
        let range = MEMBERSHIPS.prefix(user);
        step.reader.for_each(&MEMBERSHIPS, &range, Direction::Forward, |key, row| {
            if !self.is_joined(key.room) {
                return ControlFlow::Continue(());
            }
            if row.position > step.now {
                later.push(key.room);
            } else if row.membership == Membership::Join {
                shares = true;
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        if shares {
            return Ok(true);
        }
        // What became so after the step's time is not so yet.
        let key = step.interner().state_key("m.room.member", user);
        for nid in later {
            let Some(room) = self.room(nid)? else { continue };
            let now = self.state_at(&room, step.now)?;
            if step.membership_of(&room, now, key)? == Membership::Join {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The members of a room at a state: as they are now, taken back to it.
    fn members(
        &self,
        room: &Room,
        at: StateRef,
        membership: Membership,
    ) -> Result<BTreeSet<String>, ApiError> {
        let reader = self.step.reader;
        let mut members = BTreeSet::new();
        let range = MEMBERS.prefix(&(room.nid, membership as u8));
        reader.for_each(&MEMBERS, &range, Direction::Forward, |key, _| {
            members.insert(key.user_id);
            ControlFlow::Continue(())
        })?;
        let head = reader.get(&ROOM_HEADS, &room.nid)?;
        let current = head.map_or(StateRef::EMPTY, |head| StateRef::trunk(head.state_version));
        for (user, _, then) in self.members_between(room, (current, at))? {
            if then == membership {
                members.insert(user);
            } else {
                members.remove(&user);
            }
        }
        Ok(members)
    }

    /// Those whose member events differ in two states, with what they are in each.
    fn members_between(
        &self,
        room: &Room,
        (from, to): (StateRef, StateRef),
    ) -> Result<Vec<(String, Membership, Membership)>, ApiError> {
        let mut members = Vec::new();
        for change in state::diff(self.step.reader, room.nid, from, to)? {
            let event = |nid| self.step.event(room, nid);
            let old = change.old.map(event).transpose()?;
            let new = change.new.map(event).transpose()?;
            let Some(any) = new.as_ref().or(old.as_ref()) else { continue };
            if any.pdu.event_type() == "m.room.member"
                && let Some(user) = any.pdu.state_key()
            {
                let [old, new] = [&old, &new].map(|event| {
                    event.as_ref().map_or(Membership::None, |event| event.record.membership)
                });
                members.push((user.to_owned(), old, new));
            }
        }
        Ok(members)
    }

    fn room(&self, nid: RoomNid) -> Result<Option<Room>, ApiError> {
        self.step.sources.rooms.room_by_nid(self.step.reader, nid)
    }

    fn state_at(&self, room: &Room, position: Position) -> Result<StateRef, ApiError> {
        Ok(self.step.state_at(room, position)?.unwrap_or(StateRef::EMPTY))
    }

    fn joined_rooms(&self) -> impl Iterator<Item = RoomNid> + '_ {
        let memberships = self.news.memberships.iter();
        memberships.filter(|(_, row)| row.membership == Membership::Join).map(|(room, _)| *room)
    }

    fn is_joined(&self, room: RoomNid) -> bool {
        let memberships = &self.news.memberships;
        let place = memberships.binary_search_by_key(&room, |(room, _)| *room);
        place.is_ok_and(|place| memberships[place].1.membership == Membership::Join)
    }
}

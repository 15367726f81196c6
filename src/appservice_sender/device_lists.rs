//! Of whose devices application services must hear (MSC3202): of users whose devices changed while
//! they shared a room with it, of those who have come to share one, and of those who have ceased to.
//!
//! A room is shared where a user of the application service is in it, or where it is in one of its
//! namespaces. Told may be too much (somebody who was known by another room), never too little.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/3202>

use std::ops::{Bound, ControlFlow};

use kv::{Direction, Position, Reader};

use super::{
    follower::{Found, State},
    interest::Set,
};
use crate::{
    appservices::Appservice,
    encryption::device_lists::joined_rooms,
    error::ApiError,
    id::RoomNid,
    rooms::{Room, StoredEvent, alias::aliases_of},
    storage::{
        rows::Membership,
        schema::{
            appservices::DeviceListRow,
            encryption::DEVICE_LIST_CHANGES,
            rooms::{MEMBERS, MEMBERSHIPS, MembershipKey},
        },
    },
};

/// How many members of a room that an application service has left it is told to forget. It is told
/// again of whoever it meets again, so that the rest costs it memory and no more.
const FORGOTTEN_MAX: usize = 1_000;

/// A member event as it matters here.
pub(super) struct MemberEvent<'a> {
    pub(super) room: &'a Room,
    pub(super) position: Position,
    pub(super) event: &'a StoredEvent,
    pub(super) target: &'a str,
    /// Who is interested in the room.
    pub(super) of_room: Set,
    /// Whose user the target is.
    pub(super) of_target: Set,
}

impl State {
    /// Those that are told of devices.
    pub(super) fn encrypting(&self) -> Set {
        self.interests.set(Appservice::wants_encryption)
    }

    /// The users whose devices changed between two positions.
    pub(super) fn changed_devices(
        &mut self,
        reader: &Reader<'_>,
        (from, to): (Bound<Position>, Position),
        found: &mut Found,
    ) -> Result<(), ApiError> {
        let encrypting = self.encrypting();
        if encrypting == 0 {
            return Ok(());
        }
        let from = from.map(|position| (position,));
        let range = DEVICE_LIST_CHANGES.range(from.as_ref(), Bound::Included(&(to,)));
        let changes = reader.scan(&DEVICE_LIST_CHANGES, &range, Direction::Forward, usize::MAX)?;
        for (change, ()) in changes {
            let at = (change.position, encrypting);
            let set = self.who_meets(reader, &change.user_id, at)?;
            if set != 0 {
                let row = DeviceListRow::Changed(change.user_id);
                found.device_lists.push((set, change.position, row));
            }
        }
        Ok(())
    }

    /// Those of `wanted` that share a room with a user, or whose user it is.
    fn who_meets(
        &mut self,
        reader: &Reader<'_>,
        user_id: &String,
        (at, wanted): (Position, Set),
    ) -> Result<Set, ApiError> {
        let mut set = self.interests.of_user(user_id) & wanted;
        for room in joined_rooms(reader, user_id)? {
            if set == wanted {
                break;
            }
            if let Some(room) = self.parts.rooms.room_by_nid(reader, room)? {
                set |= self.interests.of_room(reader, &room, at)? & wanted;
            }
        }
        Ok(set)
    }

    /// What a member event means: somebody came to a room, or went.
    pub(super) fn member_devices(
        &mut self,
        reader: &Reader<'_>,
        member: &MemberEvent<'_>,
        found: &mut Found,
    ) -> Result<(), ApiError> {
        let encrypting = self.encrypting();
        let (others, own) =
            (member.of_room & !member.of_target & encrypting, member.of_target & encrypting);
        if others | own == 0 {
            return Ok(());
        }
        let joins = membership(member.event) == Membership::Join;
        let rooms = self.parts.rooms.clone();
        let before = rooms.replaced_event(reader, member.room, member.event)?;
        let was_joined = before.is_some_and(|before| membership(&before) == Membership::Join);
        match (was_joined, joins) {
            (false, true) => self.came(reader, member, (others, own), found),
            (true, false) => self.went(reader, member, (others, own), found),
            _ => Ok(()),
        }
    }

    fn came(
        &mut self,
        reader: &Reader<'_>,
        member: &MemberEvent<'_>,
        (others, own): (Set, Set),
        found: &mut Found,
    ) -> Result<(), ApiError> {
        if others != 0 {
            let row = DeviceListRow::Changed(member.target.to_owned());
            found.device_lists.push((others, member.position, row));
        }
        let mut new = 0;
        for (bit, appservice) in self.interests.each(own) {
            if !was_there(reader, appservice, member)? {
                new |= bit;
            }
        }
        if new != 0 {
            let row = DeviceListRow::Members(member.room.nid);
            found.device_lists.push((new, member.position, row));
        }
        Ok(())
    }

    fn went(
        &mut self,
        reader: &Reader<'_>,
        member: &MemberEvent<'_>,
        (others, own): (Set, Set),
        found: &mut Found,
    ) -> Result<(), ApiError> {
        if others != 0 {
            self.parted(reader, member.target.to_owned(), (member.position, others), found)?;
        }
        if own == 0 {
            return Ok(());
        }
        self.interests.forget(member.room.nid);
        let left = own & !self.interests.of_room(reader, member.room, member.position)?;
        self.left_room(reader, member.room.nid, (member.position, left), found)
    }

    /// What it means that the aliases of a room change: by one it may come into a namespace, and all
    /// its members with it; or it may be in none any more.
    ///
    /// Of a crash right after such a change nothing is left to find it by; those who are in the room
    /// are then told of when they change something.
    pub(super) fn aliases_changed(
        &mut self,
        reader: &Reader<'_>,
        nid: RoomNid,
        at: Position,
        found: &mut Found,
    ) -> Result<(), ApiError> {
        let before = self.interests.remembered(nid);
        self.interests.forget(nid);
        let encrypting = self.encrypting();
        if encrypting == 0 {
            return Ok(());
        }
        let Some(room) = self.parts.rooms.room_by_nid(reader, nid)? else { return Ok(()) };
        let now = self.interests.of_room(reader, &room, at)?;
        let by_alias = self.interests.by_alias(reader, nid)?;
        // Where it is not remembered who was interested before, all may be new.
        let new = by_alias & encrypting & !before.unwrap_or_default();
        if new != 0 {
            found.device_lists.push((new, at, DeviceListRow::Members(nid)));
        }
        let left = before.unwrap_or_default() & encrypting & !now;
        self.left_room(reader, nid, (at, left), found)
    }

    /// Tells those that a room concerns no more.
    fn left_room(
        &mut self,
        reader: &Reader<'_>,
        room: RoomNid,
        (at, left): (Position, Set),
        found: &mut Found,
    ) -> Result<(), ApiError> {
        if left == 0 {
            return Ok(());
        }
        for user_id in members(reader, room, FORGOTTEN_MAX)? {
            self.parted(reader, user_id, (at, left), found)?;
        }
        Ok(())
    }

    /// Tells those who do not share another room with a user.
    fn parted(
        &mut self,
        reader: &Reader<'_>,
        user_id: String,
        (at, from): (Position, Set),
        found: &mut Found,
    ) -> Result<(), ApiError> {
        let parted = from & !self.who_meets(reader, &user_id, (at, from))?;
        if parted != 0 {
            found.device_lists.push((parted, at, DeviceListRow::Left(user_id)));
        }
        Ok(())
    }
}

fn membership(event: &StoredEvent) -> Membership {
    let name: Option<String> = event.pdu.content_field("membership");
    name.map_or(Membership::None, |name| Membership::from_name(&name))
}

/// Whether an application service shared a room before one of its users came. The first of many who
/// come at once is found again and again by the others: O(1) for each where its own user is there,
/// and at most O(members).
fn was_there(
    reader: &Reader<'_>,
    appservice: &Appservice,
    member: &MemberEvent<'_>,
) -> Result<bool, ApiError> {
    let MemberEvent { room, position, target, .. } = member;
    let joined_before = |user_id: String| {
        let row = reader.get(&MEMBERSHIPS, &MembershipKey { user_id, room: room.nid })?;
        Ok::<_, kv::Error>(
            row.is_some_and(|row| row.membership == Membership::Join && row.position < *position),
        )
    };
    if appservice.covers_room(&room.id)
        || appservice.sender != *target && joined_before(appservice.sender.to_string())?
        || aliases_of(reader, room.nid)?.iter().any(|alias| appservice.covers_alias(alias))
    {
        return Ok(true);
    }
    let mut was_there = Ok(false);
    let range = MEMBERS.prefix(&(room.nid, Membership::Join as u8));
    reader.for_each(&MEMBERS, &range, Direction::Forward, |key, _| {
        let is_own = ruma::UserId::parse(&key.user_id)
            .is_ok_and(|user_id| user_id != *target && appservice.covers_user(&user_id));
        if is_own {
            was_there = joined_before(key.user_id);
        }
        match was_there {
            Ok(false) => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    })?;
    Ok(was_there?)
}

/// The first members of a room.
fn members(
    reader: &Reader<'_>,
    room: RoomNid,
    members_max: usize,
) -> Result<Vec<String>, kv::Error> {
    let range = MEMBERS.prefix(&(room, Membership::Join as u8));
    let members = reader.scan(&MEMBERS, &range, Direction::Forward, members_max)?;
    Ok(members.into_iter().map(|(key, _)| key.user_id).collect())
}

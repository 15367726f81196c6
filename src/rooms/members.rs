//! Who is in a room, and the state of a room, as readers may know them.
//!
//! Members read what is current; whoever left reads what was when they left; others nothing,
//! unless the room is world readable (attack case T58). Each function is one read step.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmembers>

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashSet},
    ops::ControlFlow,
};

use kv::{Direction, Reader};
use ruma::{OwnedRoomId, OwnedUserId, UserId};
use serde_json::{Map, Value, value::RawValue};

use super::{
    Rooms, StoredEvent,
    history::Asker,
    membership::MemberProfile,
    render::{Form, client_event},
    state,
    state_view::{Part, events_of_state},
    timeline::{PaginationToken, last_entry},
    visibility::{Standing, Viewer, not_a_member},
};
use crate::{
    error::ApiError,
    id::{EventNid, RoomNid},
    storage::{
        rows::{Membership, StateRef},
        schema::rooms::{MEMBERS, MEMBERSHIPS},
    },
};

/// The members of a room that are asked for.
#[derive(Clone, Debug)]
pub struct MembersRequest {
    /// The room.
    pub room_id: OwnedRoomId,
    /// When; now by default.
    pub at: Option<PaginationToken>,
    /// Those with this membership.
    pub membership: Option<Membership>,
    /// Those with any other membership than this.
    pub not_membership: Option<Membership>,
}

impl Rooms {
    /// Whether two users have joined a room in common.
    pub async fn share_a_room(&self, one: &UserId, other: &UserId) -> Result<bool, ApiError> {
        let (one, other) = (one.to_string(), other.to_string());
        let read = self.store().read(move |reader| {
            let mut rooms = HashSet::new();
            for_each_joined(reader, &one, |room| {
                rooms.insert(room);
                ControlFlow::Continue(())
            })?;
            let mut shares = false;
            for_each_joined(reader, &other, |room| {
                shares = rooms.contains(&room);
                if shares { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            Ok::<_, kv::Error>(shares)
        });
        Ok(read.await?)
    }
}

fn for_each_joined(
    reader: &Reader<'_>,
    user_id: &String,
    mut visit: impl FnMut(RoomNid) -> ControlFlow<()>,
) -> Result<(), kv::Error> {
    let range = MEMBERSHIPS.prefix(user_id);
    reader.for_each(&MEMBERSHIPS, &range, Direction::Forward, |key, row| {
        if row.membership == Membership::Join { visit(key.room) } else { ControlFlow::Continue(()) }
    })
}

/// The member events of a room.
///
/// # Errors
/// 403 when the user is not, and was not, in the room, or may not know it at that time.
pub async fn members(
    rooms: &Rooms,
    asker: Asker,
    request: MembersRequest,
) -> Result<Vec<Box<RawValue>>, ApiError> {
    let wanted = wanted_memberships(request.membership, request.not_membership);
    let part = Part::Members(wanted);
    rooms
        .read(move |rooms, reader| {
            let viewer = asker.viewer(rooms, reader, &request.room_id)?;
            let mut viewer = viewer.ok_or_else(not_a_member)?;
            let at = match request.at {
                None => viewer.readable_state(reader)?,
                Some(at) => state_at(reader, &mut viewer, at)?,
            };
            list_state(reader, &mut viewer, at, &part, &asker.form(rooms))
        })
        .await
}

/// With both given, either condition is enough.
fn wanted_memberships(is: Option<Membership>, is_not: Option<Membership>) -> Vec<Membership> {
    use Membership::{Ban, Invite, Join, Knock, Leave};
    [Ban, Invite, Join, Knock, Leave]
        .into_iter()
        .filter(|membership| match (is, is_not) {
            (None, None) => true,
            (Some(is), None) => *membership == is,
            (None, Some(is_not)) => *membership != is_not,
            (Some(is), Some(is_not)) => *membership == is || *membership != is_not,
        })
        .collect()
}

/// The state at a place of the timeline, when the reader may know it.
fn state_at(
    reader: &Reader<'_>,
    viewer: &mut Viewer,
    at: PaginationToken,
) -> Result<StateRef, ApiError> {
    let standing = viewer.standing(reader)?;
    if standing == Standing::Stranger {
        return Err(not_a_member());
    }
    let room = viewer.room().clone();
    let Some((position, entry)) = last_entry(reader, room.nid, at.upper())? else {
        return Ok(StateRef::EMPTY);
    };
    if let Standing::Departed(departure) = standing
        && position >= departure.position
    {
        return Ok(departure.state);
    }
    let event = viewer.rooms().event(reader, &room, entry.event)?;
    let event = event.ok_or_else(|| ApiError::internal_text("a timeline without its event"))?;
    if !viewer.may_see(reader, &event)? {
        return Err(ApiError::forbidden("You may not see the room at that time"));
    }
    // On the live line the entry knows what the current state was.
    Ok(match position.line {
        0 => event.record.state_after,
        _ => StateRef::trunk(entry.state_version),
    })
}

fn list_state(
    reader: &Reader<'_>,
    viewer: &mut Viewer,
    at: StateRef,
    part: &Part,
    form: &Form,
) -> Result<Vec<Box<RawValue>>, ApiError> {
    let rooms = viewer.rooms().clone();
    let room = viewer.room().clone();
    let form = form.clone().of_state();
    let mut list = Vec::new();
    for nid in events_of_state(&rooms, reader, &room, at, part)? {
        if let Some(event) = rooms.event(reader, &room, nid)? {
            list.push(client_event(reader, viewer, &event, &form)?);
        }
    }
    Ok(list)
}

/// The state of a room: the current one, or that of the user's leave.
///
/// # Errors
/// 403 when the user is not, and was not, in the room.
pub async fn state_events(
    rooms: &Rooms,
    asker: Asker,
    room_id: OwnedRoomId,
) -> Result<Vec<Box<RawValue>>, ApiError> {
    rooms
        .read(move |rooms, reader| {
            let viewer = asker.viewer(rooms, reader, &room_id)?;
            let mut viewer = viewer.ok_or_else(not_a_member)?;
            let at = viewer.readable_state(reader)?;
            list_state(reader, &mut viewer, at, &Part::All, &asker.form(rooms))
        })
        .await
}

/// Which entry of a room's state is asked for, and how.
#[derive(Clone, Debug)]
pub struct StateEventRequest {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The event type.
    pub event_type: String,
    /// The state key.
    pub state_key: String,
    /// The whole event, not only its content.
    pub whole: bool,
}

/// One entry of the state of a room: of the current one, or that of the user's leave.
///
/// # Errors
/// 403 when the user is not, and was not, in the room; 404 when there is no such entry.
pub async fn state_event(
    rooms: &Rooms,
    asker: Asker,
    request: StateEventRequest,
) -> Result<Box<RawValue>, ApiError> {
    let key = rooms.interner().state_key(&request.event_type, &request.state_key);
    rooms
        .read(move |rooms, reader| {
            let viewer = asker.viewer(rooms, reader, &request.room_id)?;
            let mut viewer = viewer.ok_or_else(not_a_member)?;
            let at = viewer.readable_state(reader)?;
            let room = viewer.room().clone();
            let event = match state::lookup(reader, room.nid, at, key)? {
                Some(nid) => rooms.event(reader, &room, nid)?,
                None => None,
            };
            let event = event.ok_or_else(|| ApiError::not_found("No such state event"))?;
            if request.whole {
                client_event(reader, &mut viewer, &event, &asker.form(rooms))
            } else {
                Ok(event.pdu.content().to_owned())
            }
        })
        .await
}

/// What a member event tells of the user; anything malformed is left out.
fn profile_of(event: &StoredEvent) -> MemberProfile {
    let mut content: Map<String, Value> =
        serde_json::from_str(event.pdu.content().get()).unwrap_or_default();
    let mut text = |key| match content.remove(key) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    let displayname = text("displayname");
    let avatar_url = text("avatar_url").filter(|url| !url.is_empty()).map(Into::into);
    MemberProfile { displayname, avatar_url }
}

/// The joined members of a room with their profiles.
///
/// # Errors
/// 403 when the user has not joined the room.
pub async fn joined_members(
    rooms: &Rooms,
    user_id: OwnedUserId,
    room_id: OwnedRoomId,
) -> Result<BTreeMap<OwnedUserId, MemberProfile>, ApiError> {
    rooms
        .read(move |rooms, reader| {
            let asker = Asker { user_id: user_id.clone(), device_id: None };
            let viewer = asker.viewer(rooms, reader, &room_id)?;
            let viewer = viewer
                .filter(Viewer::is_joined)
                .ok_or_else(|| ApiError::forbidden("You are not a member of the room"))?;
            let room = viewer.room();
            let mut joined: Vec<(String, EventNid)> = Vec::new();
            let range = MEMBERS.prefix(&(room.nid, Membership::Join as u8));
            reader.for_each(&MEMBERS, &range, Direction::Forward, |key, event| {
                joined.push((key.user_id, event));
                ControlFlow::Continue(())
            })?;
            let mut profiles = BTreeMap::new();
            for (member, event) in joined {
                if let Ok(member) = UserId::parse(member)
                    && let Some(event) = rooms.event(reader, room, event)?
                {
                    profiles.insert(member, profile_of(&event));
                }
            }
            Ok(profiles)
        })
        .await
}

/// The rooms that a user has joined.
pub async fn joined_rooms(
    rooms: &Rooms,
    user_id: OwnedUserId,
) -> Result<Vec<OwnedRoomId>, ApiError> {
    rooms
        .read(move |rooms, reader| {
            let mut joined = Vec::new();
            let range = MEMBERSHIPS.prefix(&user_id.to_string());
            reader.for_each(&MEMBERSHIPS, &range, Direction::Forward, |key, row| {
                if row.membership == Membership::Join {
                    joined.push(key.room);
                }
                ControlFlow::Continue(())
            })?;
            let mut room_ids = Vec::with_capacity(joined.len());
            for nid in joined {
                room_ids.extend(rooms.room_by_nid(reader, nid)?.map(|room| room.id.clone()));
            }
            Ok(room_ids)
        })
        .await
}

//! What a user was notified of: a walk back through the timelines of the user's rooms.
//!
//! Nothing is written for this: the flag of an event tells whether it can have notified somebody
//! with the default rules; what is left is judged by the user's rules as they are now. A walk looks
//! once into each of the user's rooms, then at a bounded number of events, and says where to go on.
//! Invitations are not listed: the events of a room are told to those who are in it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#listing-notifications>

use std::{
    collections::{BinaryHeap, VecDeque},
    ops::{Bound, ControlFlow},
};

use kv::{Direction, Position, Reader};
use ruma::{MilliSecondsSinceUnixEpoch, OwnedRoomId, push::Action};
use serde_json::value::RawValue;

use super::{
    Room, Rooms,
    history::Asker,
    render::{Form, client_event},
    timeline::entries,
    visibility::Viewer,
};
use crate::{
    error::ApiError,
    id::UserNid,
    push::{
        Query,
        unread::{ReadPlaces, joined_at},
    },
    storage::{
        rows::{EventFlags, Membership, MembershipRow, TimelineEntry, TimelinePosition},
        schema::rooms::MEMBERSHIPS,
    },
};

/// How many events one answer looks at.
const EXAMINED_MAX: usize = 5_000;
/// How many entries of one room are read at once.
const BATCH: usize = 50;

/// Which notifications are asked for.
#[derive(Clone, Copy, Debug)]
pub struct NotifiedRequest {
    /// Those before this position.
    pub from: Option<Position>,
    /// How many at most.
    pub limit: usize,
    /// Only those with a highlight.
    pub highlights_only: bool,
}

/// An event that the user was notified of.
#[derive(Clone, Debug)]
pub struct Notification {
    /// What the rules say to do.
    pub actions: Vec<Action>,
    /// The event, for the client.
    pub event: Box<RawValue>,
    /// Whether the user has read it.
    pub read: bool,
    /// The room.
    pub room_id: OwnedRoomId,
    /// When it was sent.
    pub ts: MilliSecondsSinceUnixEpoch,
}

/// Notifications, the newest first.
#[derive(Clone, Debug, Default)]
pub struct NotifiedPage {
    /// The notifications.
    pub notifications: Vec<Notification>,
    /// Where to go on; `None`: there are no more.
    pub next: Option<String>,
}

/// Reads a token of an answer.
///
/// # Errors
/// `M_INVALID_PARAM` for anything else.
pub fn parse_token(token: &str) -> Result<Position, ApiError> {
    let digits =
        token.strip_prefix('n').filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
    let number = digits.and_then(|digits| digits.parse().ok());
    number
        .map(Position::from_u64)
        .ok_or_else(|| ApiError::invalid_param("The token `from` is not valid"))
}

/// The newest notifications of a user before a position.
pub async fn page(
    rooms: &Rooms,
    asker: Asker,
    request: NotifiedRequest,
) -> Result<NotifiedPage, ApiError> {
    rooms
        .read(move |rooms, reader| {
            let form = asker.form(rooms);
            Walk::new(rooms, reader, &asker, request)?.run(request, &form)
        })
        .await
}

/// A room on the way back.
struct Lane {
    room: Room,
    viewer: Viewer,
    membership: MembershipRow,
    /// Nothing before the user joined was told.
    joined: Position,
    ahead: VecDeque<(TimelinePosition, TimelineEntry)>,
}

struct Walk<'a> {
    rooms: &'a Rooms,
    reader: &'a Reader<'a>,
    own: UserNid,
    /// Whether the user's rules are the default ones.
    is_plain: bool,
    lanes: Vec<Lane>,
    /// The next event of each lane, the newest first.
    heap: BinaryHeap<(TimelinePosition, usize)>,
}

impl<'a> Walk<'a> {
    fn new(
        rooms: &'a Rooms,
        reader: &'a Reader<'a>,
        asker: &Asker,
        request: NotifiedRequest,
    ) -> Result<Self, ApiError> {
        let mut joined = Vec::new();
        let range = MEMBERSHIPS.prefix(&asker.user_id.to_string());
        reader.for_each(&MEMBERSHIPS, &range, Direction::Forward, |key, row| {
            if row.membership == Membership::Join {
                joined.push((key.room, row));
            }
            ControlFlow::Continue(())
        })?;
        let mut walk = Self {
            rooms,
            reader,
            own: rooms.interner().user(&asker.user_id),
            is_plain: rooms.push().odd_user(reader, &asker.user_id)?.is_none(),
            lanes: Vec::new(),
            heap: BinaryHeap::new(),
        };
        let from = Bound::Excluded(TimelinePosition::live(request.from.unwrap_or(Position::MAX)));
        for (nid, membership) in joined {
            let Some(room) = rooms.room_by_nid(reader, nid)? else { continue };
            let viewer = Viewer::new(rooms, reader, &room, &asker.user_id)?;
            let joined = joined_at(reader, &asker.user_id, nid)?.unwrap_or(membership.position);
            let ahead = VecDeque::new();
            walk.lanes.push(Lane { room, viewer, membership, joined, ahead });
            walk.advance(walk.lanes.len() - 1, from)?;
        }
        Ok(walk)
    }

    /// Puts the next event of a lane on the heap.
    fn advance(&mut self, lane: usize, before: Bound<TimelinePosition>) -> Result<(), ApiError> {
        let room = self.lanes[lane].room.nid;
        if self.lanes[lane].ahead.is_empty() {
            let start = Bound::Excluded(TimelinePosition::live(self.lanes[lane].joined));
            let batch = entries(self.reader, room, (start, before), Direction::Backward, BATCH)?;
            self.lanes[lane].ahead = batch.into();
        }
        if let Some((place, _)) = self.lanes[lane].ahead.front() {
            self.heap.push((*place, lane));
        }
        Ok(())
    }

    fn run(mut self, request: NotifiedRequest, form: &Form) -> Result<NotifiedPage, ApiError> {
        let mut page = NotifiedPage::default();
        let mut examined = 0;
        while let Some((place, lane)) = self.heap.pop() {
            let Some((_, entry)) = self.lanes[lane].ahead.pop_front() else { continue };
            examined += 1;
            if let Some(found) = self.judge(lane, (place, entry), request.highlights_only, form)? {
                page.notifications.push(found);
            }
            self.advance(lane, Bound::Excluded(place))?;
            let is_full = page.notifications.len() >= request.limit || examined >= EXAMINED_MAX;
            if is_full && !self.heap.is_empty() {
                page.next = Some(format!("n{}", place.position));
                break;
            }
        }
        Ok(page)
    }

    fn judge(
        &mut self,
        lane: usize,
        (place, entry): (TimelinePosition, TimelineEntry),
        highlights_only: bool,
        form: &Form,
    ) -> Result<Option<Notification>, ApiError> {
        let can_notify = !self.is_plain || entry.flags.has(EventFlags::NOTIFIES);
        if entry.sender == self.own || !can_notify || entry.flags.has(EventFlags::REDACTED) {
            return Ok(None);
        }
        let Lane { room, viewer, membership, .. } = &mut self.lanes[lane];
        let Some(event) = self.rooms.event(self.reader, room, entry.event)? else {
            return Ok(None);
        };
        let user_id = viewer.user_id().to_owned();
        let Some(notified) = self.rooms.notified(self.reader, room, &event, &user_id)? else {
            return Ok(None);
        };
        if highlights_only && !notified.actions.iter().any(Action::is_highlight) {
            return Ok(None);
        }
        if !viewer.may_see(self.reader, &event)? {
            return Ok(None);
        }
        let query = Query {
            user_id: &user_id,
            room: room.nid,
            room_id: &room.id,
            joined: membership.position,
            now: Position::MAX,
        };
        let read_to = ReadPlaces::new(self.reader, query)?.of(&notified.thread)?;
        Ok(Some(Notification {
            actions: notified.actions,
            event: client_event(self.reader, viewer, &event, form)?,
            read: place <= read_to,
            room_id: room.id.clone(),
            ts: event.pdu.origin_server_ts(),
        }))
    }
}

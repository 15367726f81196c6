//! One pusher: looks at what is new for its user, tells its gateway, and remembers how far it is.
//!
//! A gateway that fails is asked again, later each time; what is older than a day is given up, the
//! pusher never. When the user reads elsewhere and the count of unread messages falls, the gateway
//! is told the count alone.
//!
//! <https://spec.matrix.org/v1.19/push-gateway-api/#homeserver-behaviour>

use std::{
    collections::{HashMap, HashSet},
    ops::Bound,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header::CONTENT_TYPE};
use kv::{Batch, Direction, Durability, Position, Reader};
use ruma::push::Action;
use serde::Deserialize;
use url::Url;

use super::{Mailbox, Parts, message};
use crate::{
    egress::{Call, Limits, Reach},
    error::ApiError,
    id::RoomNid,
    push::{Query, unread::ReadPlaces},
    rooms::{
        Room, StoredEvent, preferences::InviteDecision, timeline::entries, visibility::Viewer,
    },
    storage::{
        rows::{
            EventFlags, Membership, MembershipRow, TimelineEntry, TimelinePosition,
            push::{PusherCursorRow, PusherRow},
        },
        schema::pushers::{PUSHER_CURSORS, PusherKey},
    },
};

/// The wait after the first failure; it doubles with each one.
const WAIT_FIRST: Duration = Duration::from_secs(1);
/// The longest wait.
const WAIT_MAX: Duration = Duration::from_hours(1);
/// What is older is not told any more.
const AGE_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
/// How many of the newest events of one room are looked at, after a long absence.
const EXAMINED_MAX: usize = 500;
/// How often a gateway may refuse one and the same thing before it is not told that any more.
const REFUSALS_MAX: u32 = 3;

/// A pusher at work.
pub(super) struct Pusher {
    pub(super) parts: Arc<Parts>,
    pub(super) key: PusherKey,
    pub(super) row: PusherRow,
    mailbox: Arc<Mailbox>,
    cursor: PusherCursorRow,
    /// Rooms to look at.
    pending: HashSet<RoomNid>,
    /// The unread messages of each room, one for an invite; `None` until they matter.
    unread: Option<HashMap<RoomNid, u64>>,
    /// How often the gateway refused what is being told.
    refusals: u32,
}

/// An event to tell.
#[derive(Clone)]
pub(super) struct Note {
    pub(super) place: TimelinePosition,
    pub(super) room: Room,
    pub(super) event: Arc<StoredEvent>,
    pub(super) actions: Vec<Action>,
    thread: String,
    joined: Position,
}

/// Why a look came to no end.
enum Trouble {
    /// The gateway did not take it.
    Gateway(String),
    /// The gateway does not want it, now or later.
    Refused(StatusCode),
    /// The gateway does not know the device any more.
    Rejected,
    /// The store failed.
    Store(ApiError),
}

impl From<ApiError> for Trouble {
    fn from(error: ApiError) -> Self {
        Self::Store(error)
    }
}

/// Runs a pusher until it is aborted or its gateway does not know it any more.
pub(super) async fn run(
    parts: Arc<Parts>,
    (key, row): (PusherKey, PusherRow),
    mailbox: Arc<Mailbox>,
) {
    let begun = PusherCursorRow {
        since: row.since,
        position: Position::from_u64(row.since),
        failures: 0,
        badge: 0,
    };
    let stored = {
        let key = key.clone();
        parts.store.read(move |reader| reader.get(&PUSHER_CURSORS, &key)).await
    };
    let stored = stored.unwrap_or_else(|error| {
        tracing::error!(%error, "how far a pusher is cannot be read: it begins anew");
        None
    });
    let cursor = stored.filter(|cursor| cursor.since == row.since).unwrap_or(begun);
    let (pending, unread, refusals) = (HashSet::new(), None, 0);
    let mut pusher = Pusher { parts, key, row, mailbox, cursor, pending, unread, refusals };
    // Not before the follower knows what there is to look at.
    pusher.mailbox.wake.notified().await;
    loop {
        let woken = pusher.mailbox.clone();
        match pusher.look().await {
            Ok(()) => woken.wake.notified().await,
            Err(Trouble::Rejected) => {
                let (user_id, key) = (&pusher.row.user_id, &pusher.key);
                let pushers = pusher.parts.users.pushers();
                match pushers.remove(user_id, &key.app_id, &key.pushkey).await {
                    Ok(()) => return,
                    Err(error) => {
                        tracing::error!(%error, "a pusher that its gateway refused stays");
                        tokio::time::sleep(WAIT_MAX).await;
                    }
                }
            }
            Err(trouble) => pusher.back_off(&trouble).await,
        }
    }
}

impl Pusher {
    /// Looks at what is new and tells it.
    async fn look(&mut self) -> Result<(), Trouble> {
        let now = self.take();
        let notes = self.notes(now).await?;
        if !notes.is_empty() || self.cursor.badge > 0 || self.unread.is_some() {
            self.count(now).await?;
        }
        for note in notes {
            if self.is_due(&note).await? {
                let badge = self.badge();
                let body = message::of_event(self, &note, badge).await?;
                if self.tell(body).await? {
                    self.cursor.badge = badge;
                    self.cursor.failures = 0;
                }
                self.advance(note.place.position);
            }
        }
        if self.badge() < self.cursor.badge {
            let badge = self.badge();
            self.tell(message::of_badge(self, badge)?).await?;
            self.cursor.badge = badge;
            self.cursor.failures = 0;
            self.advance(now);
        }
        // Not written for its own sake: what lies before it was told, or is not to be told.
        self.cursor.position = self.cursor.position.max(now);
        self.cursor.failures = 0;
        self.pending.clear();
        Ok(())
    }

    /// Empties the mailbox; the position up to which it held everything. What is not in it yet is
    /// put there after this, with a later position.
    fn take(&mut self) -> Position {
        let served = self.parts.served.lock();
        self.pending.extend(self.mailbox.take());
        *served
    }

    /// Posts it, and gives it up when the gateway refuses it again and again; whether it was told.
    async fn tell(&mut self, body: Vec<u8>) -> Result<bool, Trouble> {
        let told = match self.post(body).await {
            Ok(()) => true,
            Err(Trouble::Refused(status)) if self.refusals + 1 >= REFUSALS_MAX => {
                let user = &self.row.user_id;
                tracing::info!(%user, app = self.key.app_id, %status, "a push is given up");
                false
            }
            Err(trouble) => {
                self.refusals += u32::from(matches!(trouble, Trouble::Refused(_)));
                return Err(trouble);
            }
        };
        self.refusals = 0;
        Ok(told)
    }

    pub(super) async fn step<T: Send + 'static>(
        &self,
        step: impl Fn(&Look<'_>) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let _permit = self.parts.looks.acquire().await.map_err(ApiError::internal)?;
        let (parts, row) = (self.parts.clone(), self.row.clone());
        let store = self.parts.store.clone();
        store.read(move |reader| step(&Look { parts: &parts, row: &row, reader })).await
    }

    /// What is to be told, in its order.
    async fn notes(&self, now: Position) -> Result<Vec<Note>, ApiError> {
        let (rooms, after) = (self.pending.clone(), self.cursor.position);
        self.step(move |look| {
            let mut notes = Vec::new();
            for &room in &rooms {
                look.add_notes(room, (after, now), &mut notes)?;
            }
            notes.sort_by_key(|note| note.place);
            Ok(notes)
        })
        .await
    }

    /// Whether an event is still to be told: not read, not redacted, not too old.
    async fn is_due(&self, note: &Note) -> Result<bool, ApiError> {
        let note = note.clone();
        self.step(move |look| {
            let room = &note.room;
            let Some(event) = look.parts.rooms.event(look.reader, room, note.event.nid)? else {
                return Ok(false);
            };
            let now: u64 = look.parts.rooms.clock().now().get().into();
            let sent: u64 = event.pdu.origin_server_ts().get().into();
            let read_to =
                ReadPlaces::new(look.reader, look.query(room, note.joined, Position::MAX))?
                    .of(&note.thread)?;
            Ok(!event.record.flags.has(EventFlags::REDACTED)
                && now.saturating_sub(sent) < AGE_MS_MAX
                && read_to < note.place)
        })
        .await
    }

    /// Counts what is unread in the rooms that changed, at first in all.
    async fn count(&mut self, now: Position) -> Result<(), ApiError> {
        let rooms = if self.unread.is_some() { Some(self.pending.clone()) } else { None };
        let counted = self
            .step(move |look| {
                let rooms = match &rooms {
                    Some(rooms) => rooms.clone(),
                    None => super::rooms_of(look.reader, &look.row.user_id.to_string())?,
                };
                rooms.iter().map(|&room| Ok((room, look.unread(room, now)?))).collect()
            })
            .await?;
        let counted: Vec<(RoomNid, u64)> = counted;
        let unread = self.unread.get_or_insert_default();
        for (room, count) in counted {
            if count == 0 {
                unread.remove(&room);
            } else {
                unread.insert(room, count);
            }
        }
        Ok(())
    }

    /// The unread messages of the user in all rooms, and the open invites.
    fn badge(&self) -> u64 {
        self.unread.iter().flat_map(HashMap::values).sum()
    }

    async fn post(&self, body: Vec<u8>) -> Result<(), Trouble> {
        #[derive(Default, Deserialize)]
        struct Told {
            #[serde(default)]
            rejected: Vec<String>,
        }
        let url = Url::parse(&self.row.url).map_err(|error| Trouble::Gateway(error.to_string()))?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let call = Call {
            method: Method::POST,
            url,
            headers,
            body: Bytes::from(body),
            reach: Reach::Public,
            limits: Limits::JSON,
        };
        let _permit = self.parts.requests.acquire().await.map_err(ApiError::internal)?;
        let answer = self.parts.egress.call(call).await;
        let answer = answer.map_err(|error| Trouble::Gateway(error.to_string()))?;
        if is_refusal(answer.status) {
            return Err(Trouble::Refused(answer.status));
        }
        if !answer.status.is_success() {
            return Err(Trouble::Gateway(format!("it answered {}", answer.status)));
        }
        // A gateway that says nothing has refused nothing.
        let told: Told = serde_json::from_slice(&answer.body).unwrap_or_default();
        if told.rejected.contains(&self.key.pushkey) {
            return Err(Trouble::Rejected);
        }
        Ok(())
    }

    /// Writes down how far the pusher is; whether that survives a power cut is not waited for.
    fn advance(&mut self, position: Position) {
        self.cursor.position = self.cursor.position.max(position);
        self.save();
    }

    fn save(&self) {
        let mut batch = Batch::new();
        batch.put(&PUSHER_CURSORS, &self.key, &self.cursor);
        drop(self.parts.store.submit(batch, Durability::Buffered));
    }

    async fn back_off(&mut self, trouble: &Trouble) {
        let reason = match trouble {
            Trouble::Gateway(reason) => reason.clone(),
            Trouble::Refused(status) => format!("it answered {status}"),
            Trouble::Store(error) => error.to_string(),
            Trouble::Rejected => return,
        };
        let wait = wait(self.cursor.failures);
        self.cursor.failures = self.cursor.failures.saturating_add(1);
        self.save();
        let user = &self.row.user_id;
        tracing::info!(%user, app = self.key.app_id, reason, ?wait, "a push failed");
        tokio::time::sleep(wait).await;
    }
}

/// Whether a gateway that answers this would answer it again.
fn is_refusal(status: StatusCode) -> bool {
    let is_passing = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status);
    status.is_client_error() && !is_passing
}

/// How long to wait after so many failures before: doubling, and not all at the same time.
fn wait(failures: u32) -> Duration {
    let wait = WAIT_FIRST.saturating_mul(1 << failures.min(16)).min(WAIT_MAX);
    let share = getrandom::u32().unwrap_or(u32::MAX);
    wait.mul_f64(0.5 + 0.5 * f64::from(share) / f64::from(u32::MAX))
}

/// One look into the store.
pub(super) struct Look<'a> {
    pub(super) parts: &'a Parts,
    pub(super) row: &'a PusherRow,
    pub(super) reader: &'a Reader<'a>,
}

impl Look<'_> {
    fn query<'q>(&'q self, room: &'q Room, joined: Position, now: Position) -> Query<'q> {
        let user_id = &self.row.user_id;
        Query { user_id, room: room.nid, room_id: &room.id, joined, now }
    }

    fn unread(&self, room: RoomNid, now: Position) -> Result<u64, ApiError> {
        let rooms = &self.parts.rooms;
        let Some(room) = rooms.room_by_nid(self.reader, room)? else { return Ok(0) };
        match rooms.membership(self.reader, &room, &self.row.user_id)? {
            Some(row) if row.membership == Membership::Join => {
                let query = self.query(&room, row.position, now);
                Ok(rooms.push().unread(self.reader, query)?.notification_count)
            }
            Some(row) if row.membership == Membership::Invite => {
                Ok(u64::from(self.is_wanted(&room, row)?))
            }
            _ => Ok(0),
        }
    }

    /// Whether the user wants to hear of an invite.
    fn is_wanted(&self, room: &Room, invite: MembershipRow) -> Result<bool, ApiError> {
        let rooms = &self.parts.rooms;
        let Some(event) = rooms.event(self.reader, room, invite.event)? else { return Ok(false) };
        let decision = rooms.invite_decision(self.reader, &self.row.user_id, event.pdu.sender())?;
        Ok(decision == InviteDecision::Allow)
    }

    fn add_notes(
        &self,
        room: RoomNid,
        (after, now): (Position, Position),
        notes: &mut Vec<Note>,
    ) -> Result<(), ApiError> {
        let rooms = &self.parts.rooms;
        let Some(room) = rooms.room_by_nid(self.reader, room)? else { return Ok(()) };
        let Some(row) = rooms.membership(self.reader, &room, &self.row.user_id)? else {
            return Ok(());
        };
        let is_invite = row.membership == Membership::Invite;
        if !is_invite && row.membership != Membership::Join {
            return Ok(());
        }
        let live = TimelinePosition::live;
        let range = (Bound::Excluded(live(after)), Bound::Included(live(now)));
        let mut viewer = Viewer::new(rooms, self.reader, &room, &self.row.user_id)?;
        for (place, entry) in
            entries(self.reader, room.nid, range, Direction::Backward, EXAMINED_MAX)?
        {
            // An invited user is told of the invitation alone.
            if is_invite && entry.event != row.event {
                continue;
            }
            if let Some(note) = self.note(&mut viewer, (place, entry), row)? {
                notes.push(note);
            }
        }
        Ok(())
    }

    fn note(
        &self,
        viewer: &mut Viewer,
        (place, entry): (TimelinePosition, TimelineEntry),
        row: MembershipRow,
    ) -> Result<Option<Note>, ApiError> {
        let rooms = &self.parts.rooms;
        let user_id = &self.row.user_id;
        let is_plain = rooms.push().odd_user(self.reader, user_id)?.is_none();
        let is_invite = row.membership == Membership::Invite;
        let can_notify = is_invite || !is_plain || entry.flags.has(EventFlags::NOTIFIES);
        if !can_notify || entry.sender == rooms.interner().user(user_id) {
            return Ok(None);
        }
        let room = viewer.room().clone();
        let Some(event) = rooms.event(self.reader, &room, entry.event)? else { return Ok(None) };
        if is_invite && !self.is_wanted(&room, row)? {
            return Ok(None);
        }
        if !is_invite && !viewer.may_see(self.reader, &event)? {
            return Ok(None);
        }
        let Some(notified) = rooms.notified(self.reader, &room, &event, user_id)? else {
            return Ok(None);
        };
        // Receipts are for rooms that one is in.
        let joined = if is_invite { Position::ZERO } else { row.position };
        let (actions, thread) = (notified.actions, notified.thread);
        Ok(Some(Note { place, room, event, actions, thread, joined }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_gateway_refuses_is_told_from_what_it_cannot_take_now() {
        for (status, refused) in
            [(200, false), (400, true), (404, true), (408, false), (429, false), (502, false)]
        {
            assert_eq!(is_refusal(StatusCode::from_u16(status).unwrap()), refused, "{status}");
        }
    }

    #[test]
    fn the_wait_grows_to_an_hour() {
        for (failures, most) in [(0, 1), (1, 2), (5, 32), (12, 3_600), (1_000, 3_600)] {
            let wait = wait(failures).as_secs_f64();
            let most = f64::from(most);
            assert!(wait <= most && wait >= most / 2.0, "{failures}: {wait}");
        }
    }
}

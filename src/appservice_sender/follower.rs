//! Follows the commits and writes down what concerns which application service.
//!
//! What was committed while nobody followed (a crash between a commit and this) is found after the
//! start by a look at every room: O(rooms), once, and only where there are application services at
//! all. The cursor is written with what it led to, and now and then without, so that this look has
//! little to find.

use std::{collections::BTreeMap, ops::Bound, sync::Arc, time::Duration};

use kv::{Batch, Commit, Direction, Durability, Feed, Position, Reader};
use ruma::OwnedUserId;
use tokio::sync::watch;

use super::{
    FAILURES_BEFORE_SKIPPING, Lanes, Parts,
    device_lists::MemberEvent,
    interest::{Interests, Set},
    is_unavailable,
};
use crate::{
    encryption,
    error::ApiError,
    id::{EventNid, RoomNid},
    rooms::{Room, timeline::entries},
    storage::{
        rows::{Membership, TimelineEntry, TimelinePosition},
        schema::{
            appservices::{
                APPSERVICE_CURSOR, APPSERVICE_DEVICE_LISTS, APPSERVICE_OUTBOX,
                APPSERVICE_TRANSACTIONS, AppserviceDeviceListKey, AppserviceQueueKey,
                DeviceListRow, QueuedRow,
            },
            ephemeral::{RECEIPTS_BY_POSITION, ReceiptKind, ReceiptPositionKey},
            rooms::ROOMS,
        },
        topic,
    },
    tasks::Stop,
};

/// The key of the one cursor.
const CURSOR: u8 = 0;
/// How many commits become one batch.
const COMMITS_MAX: usize = 500;
/// How many entries of one room one step of the catching up takes.
const ROOM_ENTRIES_MAX: usize = 1_000;
/// How far the cursor may fall behind while nothing concerns anybody.
const CURSOR_LAG_MAX: u64 = 1_000;
/// How long to wait after a failure of the store.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Follower {
    parts: Parts,
    lanes: Lanes,
    state: State,
    /// The cursor on disk.
    written: Position,
    /// How often in a row something could not be read, not counting while the store is unavailable.
    failures: u32,
}

/// What one look at commits led to.
#[derive(Default)]
pub(super) struct Found {
    queued: Vec<(Set, Position, QueuedRow)>,
    pub(super) device_lists: Vec<(Set, Position, DeviceListRow)>,
    /// Those for which something waits that others wrote down.
    waiting: Set,
    typing: Vec<(Set, RoomNid)>,
    presence: Vec<(Set, OwnedUserId)>,
}

/// What is needed to look at commits.
pub(super) struct State {
    pub(super) parts: Parts,
    pub(super) interests: Interests,
    /// Up to where presence was looked at.
    presence_at: Position,
    /// Whether what cannot be read is left out: else one bad row would stop all for ever.
    skips: bool,
}

impl Follower {
    pub(super) fn new(parts: Parts, lanes: Lanes) -> Self {
        let interests = Interests::new(parts.appservices.registry());
        let presence_at = parts.store().position();
        let state = State { parts: parts.clone(), interests, presence_at, skips: false };
        Self { parts, lanes, state, written: Position::ZERO, failures: 0 }
    }

    pub(super) async fn run(
        mut self,
        mut feed: Feed,
        mut changes: watch::Receiver<()>,
        mut stop: Stop,
    ) {
        let work = async {
            let caught_up = loop {
                match self.catch_up().await {
                    Ok(position) => break position,
                    Err(error) => self.pause(&error).await,
                }
            };
            loop {
                tokio::select! {
                    commits = feed.next() => {
                        let Some(mut commits) = commits else { return };
                        commits.retain(|commit| commit.last > caught_up);
                        for commits in commits.chunks(COMMITS_MAX) {
                            self.take(commits.into()).await;
                        }
                    }
                    Ok(()) = changes.changed() => self.reload(),
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = stop.requested() => {}
        }
    }

    fn reload(&mut self) {
        let registry = self.parts.appservices.registry();
        self.state.interests = Interests::new(registry.clone());
        self.lanes.follow(&registry);
    }

    async fn pause(&mut self, error: &ApiError) {
        tracing::error!(%error, cause = ?error.source, "application services: the store failed");
        self.failures += u32::from(!is_unavailable(error));
        tokio::time::sleep(FAILURE_PAUSE).await;
    }

    /// Looks for what was committed while nobody followed; gives the position up to which it has.
    async fn catch_up(&mut self) -> Result<Position, ApiError> {
        let registry = self.parts.appservices.registry();
        self.drop_orphans().await?;
        let store = self.parts.store().clone();
        let now = store.position();
        let cursor = store.read(|reader| reader.get(&APPSERVICE_CURSOR, &CURSOR)).await?;
        let mut from = match cursor {
            Some(cursor) if !registry.all().is_empty() => cursor,
            // Nobody was told of what is older, and nobody is to be.
            _ => now,
        };
        while from < now {
            let (found, to) =
                self.look(move |state, reader| state.missed(reader, from, now)).await?;
            self.write(found, to).await?;
            from = to;
        }
        self.write(Found::default(), now).await?;
        self.lanes.follow(&registry);
        self.failures = 0;
        Ok(now)
    }

    /// Drops what waits for application services that are no more.
    async fn drop_orphans(&self) -> Result<(), ApiError> {
        let registry = self.parts.appservices.registry();
        let store = self.parts.store();
        let mut after = Bound::Unbounded;
        loop {
            let from = after.clone();
            let next = store.read(move |reader| next_id(reader, from.as_ref())).await?;
            let Some(id) = next else { return Ok(()) };
            if registry.get(&id).is_none() {
                super::purge(store, &id).await;
            }
            after = Bound::Excluded(id);
        }
    }

    /// Takes in commits; tries until the store lets it.
    async fn take(&mut self, commits: Arc<[Commit]>) {
        let Some(to) = commits.iter().map(|commit| commit.last).max() else { return };
        loop {
            let these = commits.clone();
            let taken = match self.look(move |state, reader| state.digest(reader, &these)).await {
                Ok(found) => self.write(found, to).await,
                Err(error) => Err(error),
            };
            match taken {
                Ok(()) => {
                    self.failures = 0;
                    return;
                }
                Err(error) => self.pause(&error).await,
            }
        }
    }

    /// Runs a look at the store where it may block.
    async fn look<T: Send + 'static>(
        &mut self,
        step: impl FnOnce(&mut State, &Reader<'_>) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let parts = self.parts.clone();
        let interests = Interests::new(parts.appservices.registry());
        let fresh = State { interests, parts, presence_at: self.state.presence_at, skips: false };
        let mut state = std::mem::replace(&mut self.state, fresh);
        state.skips = self.failures >= FAILURES_BEFORE_SKIPPING;
        let task = tokio::task::spawn_blocking(move || {
            let store = state.parts.store().clone();
            let result = step(&mut state, &store.reader());
            (state, result)
        });
        let (state, result) = task.await.map_err(ApiError::internal)?;
        self.state = state;
        result
    }

    /// Writes down what was found, and that all up to `to` was looked at.
    async fn write(&mut self, found: Found, to: Position) -> Result<(), ApiError> {
        let lag = to.as_u64().saturating_sub(self.written.as_u64());
        let mut batch = Batch::new();
        let mut woken: Set = 0;
        for (set, position, row) in &found.queued {
            woken |= set;
            for appservice in self.state.interests.members(*set) {
                let appservice = appservice.id.to_string();
                let key = AppserviceQueueKey { appservice, position: *position };
                batch.put(&APPSERVICE_OUTBOX, &key, row);
            }
        }
        for (index, (set, position, row)) in (0..).zip(&found.device_lists) {
            woken |= set;
            for appservice in self.state.interests.members(*set) {
                let appservice = appservice.id.to_string();
                let key = AppserviceDeviceListKey { appservice, position: *position, index };
                batch.put(&APPSERVICE_DEVICE_LISTS, &key, row);
            }
        }
        if woken != 0 || lag > CURSOR_LAG_MAX {
            batch.put(&APPSERVICE_CURSOR, &CURSOR, &to);
            self.parts.store().commit(batch, Durability::Buffered).await?;
            self.written = to;
        }
        woken |= found.waiting;
        for (set, room) in found.typing {
            woken |= set;
            for appservice in self.state.interests.members(set) {
                if let Some(lane) = self.lanes.get(&appservice.id) {
                    lane.typing.lock().insert(room);
                }
            }
        }
        for (set, user_id) in found.presence {
            woken |= set;
            for appservice in self.state.interests.members(set) {
                if let Some(lane) = self.lanes.get(&appservice.id) {
                    lane.presence.lock().insert(user_id.clone());
                }
            }
        }
        for appservice in self.state.interests.members(woken) {
            if let Some(lane) = self.lanes.get(&appservice.id) {
                lane.queued.notify_one();
            }
        }
        Ok(())
    }
}

/// The first id after a bound for which something waits.
fn next_id(reader: &Reader<'_>, after: Bound<&String>) -> Result<Option<String>, kv::Error> {
    let range = APPSERVICE_OUTBOX.range(after, Bound::Unbounded::<&String>);
    let queued = reader.scan(&APPSERVICE_OUTBOX, &range, Direction::Forward, 1)?;
    let range = APPSERVICE_TRANSACTIONS.range(after, Bound::Unbounded::<&String>);
    let sending = reader.scan(&APPSERVICE_TRANSACTIONS, &range, Direction::Forward, 1)?;
    let range = APPSERVICE_DEVICE_LISTS.range(after, Bound::Unbounded::<&String>);
    let lists = reader.scan(&APPSERVICE_DEVICE_LISTS, &range, Direction::Forward, 1)?;
    let queued = queued.into_iter().map(|(key, _)| key.appservice);
    let sending = sending.into_iter().map(|(key, _)| key.appservice);
    let lists = lists.into_iter().map(|(key, _)| key.appservice);
    let waiting = encryption::appservices::next_waiting(reader, after)?;
    Ok(queued.chain(sending).chain(lists).chain(waiting).min())
}

impl State {
    /// What commits mean for whom.
    fn digest(&mut self, reader: &Reader<'_>, commits: &[Commit]) -> Result<Found, ApiError> {
        let mut found = Found::default();
        if self.interests.set(|_| true) == 0 {
            return Ok(found);
        }
        let mut present = Vec::new();
        for commit in commits {
            let changes_members =
                commit.topics.iter().any(|topic| topic.space == topic::USER_MEMBERSHIPS);
            self.devices(reader, commit, &mut found)?;
            for topic in commit.topics.iter() {
                let room = RoomNid(topic.id);
                let looked = match topic.space {
                    topic::ROOM_ALIASES => {
                        self.aliases_changed(reader, room, commit.first, &mut found)
                    }
                    // Nobody cares for the room, and no user of this server came or went.
                    topic::ROOM_EVENTS
                        if self.interests.remembered(room) == Some(0) && !changes_members =>
                    {
                        Ok(())
                    }
                    topic::ROOM_PRESENCE => {
                        self.ephemeral_interest(reader, room, commit.first).map(|set| {
                            if set != 0 {
                                present.push((room, set));
                            }
                        })
                    }
                    topic::ROOM_EVENTS => self.events(reader, room, commit, &mut found),
                    topic::ROOM_RECEIPTS => self.receipts(reader, room, commit, &mut found),
                    topic::ROOM_TYPING => self.typing(reader, room, commit, &mut found),
                    _ => Ok(()),
                };
                self.skip_unreadable(looked, (room, None))?;
            }
        }
        let until = commits.iter().map(|commit| commit.last).max().unwrap_or_default();
        found.presence = self.presence(present, until);
        Ok(found)
    }

    /// What a commit means for devices.
    fn devices(
        &mut self,
        reader: &Reader<'_>,
        commit: &Commit,
        found: &mut Found,
    ) -> Result<(), ApiError> {
        let touches = |space: u8| commit.topics.iter().any(|topic| topic.space == space);
        if touches(topic::APPSERVICE_DEVICES) {
            found.waiting |= self.encrypting();
        }
        // A change of devices touches this topic, and so does more; the look costs little.
        if !touches(topic::USER_DEVICES) {
            return Ok(());
        }
        let looked = (Bound::Included(commit.first), commit.last);
        let looked = self.changed_devices(reader, looked, found);
        self.skip_unreadable(looked, (RoomNid::default(), None))
    }

    /// Whose presence was told in these rooms since the last look.
    fn presence(
        &mut self,
        mut rooms: Vec<(RoomNid, Set)>,
        until: Position,
    ) -> Vec<(Set, OwnedUserId)> {
        let since = std::mem::replace(&mut self.presence_at, until);
        rooms.sort_unstable();
        rooms.dedup();
        let all = rooms.iter().fold(0, |all, (_, set)| all | set);
        let mut told = Vec::new();
        for place in (0..Set::BITS).filter(|place| all & (1 << place) != 0) {
            let of_one: Vec<RoomNid> = rooms
                .iter()
                .filter(|(_, set)| set & (1 << place) != 0)
                .map(|(room, _)| *room)
                .collect();
            let people = self.parts.presence.told(Some(since), until, &of_one);
            told.extend(people.into_iter().map(|person| (1 << place, person.user_id)));
        }
        told
    }

    /// Leaves out what cannot be read, where that is what stops all.
    fn skip_unreadable(
        &self,
        looked: Result<(), ApiError>,
        (room, event): (RoomNid, Option<EventNid>),
    ) -> Result<(), ApiError> {
        match looked {
            Err(error) if self.skips && !is_unavailable(&error) => {
                let event = event.map(|event| event.0);
                tracing::error!(
                    room = room.0, event, %error, cause = ?error.source,
                    "no application service is told of what cannot be read"
                );
                Ok(())
            }
            looked => looked,
        }
    }

    fn typing(
        &mut self,
        reader: &Reader<'_>,
        room: RoomNid,
        commit: &Commit,
        found: &mut Found,
    ) -> Result<(), ApiError> {
        let set = self.ephemeral_interest(reader, room, commit.first)?;
        if set != 0 {
            found.typing.push((set, room));
        }
        Ok(())
    }

    fn events(
        &mut self,
        reader: &Reader<'_>,
        nid: RoomNid,
        commit: &Commit,
        found: &mut Found,
    ) -> Result<(), ApiError> {
        let Some(room) = self.parts.rooms.room_by_nid(reader, nid)? else { return Ok(()) };
        let range = (
            Bound::Included(TimelinePosition::live(commit.first)),
            Bound::Included(TimelinePosition::live(commit.last)),
        );
        for (place, entry) in entries(reader, nid, range, Direction::Forward, usize::MAX)? {
            let looked = self.event(reader, &room, (place.position, entry), found);
            self.skip_unreadable(looked, (nid, Some(entry.event)))?;
        }
        Ok(())
    }

    fn event(
        &mut self,
        reader: &Reader<'_>,
        room: &Room,
        (position, entry): (Position, TimelineEntry),
        found: &mut Found,
    ) -> Result<(), ApiError> {
        let mut set = self.interests.of_room(reader, room, position)?;
        let interner = self.parts.rooms.interner();
        if entry.event_type == interner.event_type("m.room.member") {
            set |= self.member(reader, room, (position, entry.event, set), found)?;
        }
        if set != 0 {
            found.queued.push((set, position, QueuedRow::Event(room.nid, entry.event)));
        }
        Ok(())
    }

    /// Who is interested in the target of a member event; what is remembered of the room is kept
    /// true.
    fn member(
        &mut self,
        reader: &Reader<'_>,
        room: &Room,
        (position, event, of_room): (Position, EventNid, Set),
        found: &mut Found,
    ) -> Result<Set, ApiError> {
        let Some(event) = self.parts.rooms.event(reader, room, event)? else { return Ok(0) };
        let Some(target) = event.pdu.state_key() else { return Ok(0) };
        let set = self.interests.of_user(target);
        let member = MemberEvent { room, position, event: &event, target, of_room, of_target: set };
        self.member_devices(reader, &member, found)?;
        if set == 0 {
            return Ok(0);
        }
        let membership: Option<String> = event.pdu.content_field("membership");
        if membership.as_deref() == Some(Membership::Join.name()) {
            self.interests.joined(room.nid, set);
        } else {
            self.interests.forget(room.nid);
        }
        Ok(set)
    }

    fn ephemeral_interest(
        &mut self,
        reader: &Reader<'_>,
        room: RoomNid,
        at: Position,
    ) -> Result<Set, ApiError> {
        let receivers = self.interests.set(crate::appservices::Appservice::receives_ephemeral);
        if receivers == 0 {
            return Ok(0);
        }
        let Some(room) = self.parts.rooms.room_by_nid(reader, room)? else { return Ok(0) };
        Ok(self.interests.of_room(reader, &room, at)? & receivers)
    }

    fn receipts(
        &mut self,
        reader: &Reader<'_>,
        room: RoomNid,
        commit: &Commit,
        found: &mut Found,
    ) -> Result<(), ApiError> {
        let set = self.ephemeral_interest(reader, room, commit.first)?;
        if set == 0 {
            return Ok(());
        }
        let first = ReceiptPositionKey { room, position: commit.first };
        let last = ReceiptPositionKey { room, position: commit.last };
        let range = RECEIPTS_BY_POSITION.range(Bound::Included(&first), Bound::Included(&last));
        let written = reader.scan(&RECEIPTS_BY_POSITION, &range, Direction::Forward, usize::MAX)?;
        for (key, receipt) in written {
            // Private ones are told to those alone whose user it is.
            let told = match receipt.kind {
                ReceiptKind::Read => set,
                ReceiptKind::ReadPrivate => set & self.interests.of_user(&receipt.user_id),
            };
            if told != 0 {
                found.queued.push((told, key.position, QueuedRow::Receipt(room)));
            }
        }
        Ok(())
    }

    /// The events of all rooms between two positions, as far as one step goes: up to the position
    /// that is answered too.
    fn missed(
        &mut self,
        reader: &Reader<'_>,
        from: Position,
        to: Position,
    ) -> Result<(Found, Position), ApiError> {
        let mut end = to;
        let mut missed = BTreeMap::new();
        let range = (
            Bound::Excluded(TimelinePosition::live(from)),
            Bound::Included(TimelinePosition::live(to)),
        );
        for (room, _) in reader.scan(&ROOMS, &ROOMS.prefix(&()), Direction::Forward, usize::MAX)? {
            let found = entries(reader, room, range, Direction::Forward, ROOM_ENTRIES_MAX)?;
            if found.len() == ROOM_ENTRIES_MAX
                && let Some((last, _)) = found.last()
            {
                end = end.min(last.position);
            }
            missed.extend(found.into_iter().map(|(place, entry)| (place.position, (room, entry))));
        }
        let mut found = Found::default();
        for (position, (nid, entry)) in missed.range(..=end) {
            let looked = match self.parts.rooms.room_by_nid(reader, *nid) {
                Ok(Some(room)) => self.event(reader, &room, (*position, *entry), &mut found),
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            self.skip_unreadable(looked, (*nid, Some(entry.event)))?;
        }
        let looked = self.changed_devices(reader, (Bound::Excluded(from), end), &mut found);
        self.skip_unreadable(looked, (RoomNid::default(), None))?;
        Ok((found, end))
    }
}

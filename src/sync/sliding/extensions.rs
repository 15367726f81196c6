//! The extensions of sliding sync: account data, receipts, typing, thread subscriptions, messages
//! for the device and what else encryption needs.
//!
//! What changes in a room that the extension is not on for, or that the client does not know, is
//! not lost: the room is marked, and all of it is told once the room comes into the scope.

use std::{collections::BTreeMap, sync::Arc};

use kv::Position;

use super::{
    answer::{
        AccountData, E2ee, Ephemeral, ExtensionAnswers, Subscribed, Threads, ToDevice, Unsubscribed,
    },
    build::{Build, Inbox},
    connection::Told,
    lists::{Entry, Target},
    pos::{device_token, thread_token},
    request::Scope,
};
use crate::{
    error::ApiError,
    id::RoomNid,
    rooms::Room,
    storage::rows::Membership,
    sync::{
        room_table::{News, RoomPositions},
        streams::{
            ClientEvent, device_lists, plain_event, receipts,
            to_device::{self, ToldMessages},
            typing,
        },
    },
    users::ThreadSubscription,
};

/// Receipts that are told with a room that is new to the client.
const FIRST_RECEIPTS_MAX: usize = 100;
/// Receipts of one room that are told at once else.
const RECEIPTS_MAX: usize = 1_000;

/// Places in [`Told::extras`].
const ACCOUNT_DATA: usize = 0;
const RECEIPTS: usize = 1;
const TYPING: usize = 2;

/// What is read of a room: since when (`None`: all there is).
type Read = fn(&Build<'_>, &Room, Option<Position>) -> Result<Option<ClientEvent>, ApiError>;

impl Build<'_> {
    /// Adds what the extensions tell.
    pub(super) fn extensions(
        &mut self,
        answers: &mut ExtensionAnswers,
        (entries, targets): (&[Entry], &[Target]),
        news: &News,
    ) -> Result<(), ApiError> {
        let wanted = Arc::clone(self.wanted);
        let wanted = &wanted.extensions;
        let generations = [&wanted.account_data, &wanted.receipts, &wanted.typing];
        for (place, scope) in generations.into_iter().enumerate() {
            // What happens while an extension is off is not told: then it begins anew.
            if scope.is_none() {
                self.delta.generations[place] = self.base.generations[place].wrapping_add(1).max(1);
            }
        }
        *answers = ExtensionAnswers::nothing(wanted, self.inbox.token(self.step.now));
        match (wanted.to_device, &mut answers.to_device) {
            (Some(limit), Some(answer)) => self.messages(answer, limit, news)?,
            _ => self.delta.inbox = None,
        }
        if let Some(answer) = &mut answers.e2ee {
            self.device_lists(answer, news)?;
        }
        self.delta.account_data = wanted.account_data.is_some();
        if let Some(scope) = &wanted.account_data {
            answers.account_data = Some(self.account_data(scope, targets)?);
        }
        if let Some(scope) = &wanted.receipts {
            let newest = |positions: RoomPositions| positions.receipts;
            let rooms = (entries, targets);
            answers.receipts =
                Some(self.ephemeral((RECEIPTS, scope), rooms, newest, read_receipts)?);
        }
        if let Some(scope) = &wanted.typing {
            let newest = |positions: RoomPositions| positions.typing;
            let rooms = (entries, targets);
            answers.typing = Some(self.ephemeral((TYPING, scope), rooms, newest, read_typing)?);
        }
        match wanted.threads {
            Some(limit) => answers.threads = Some(self.threads(limit)?),
            None => self.delta.threads = None,
        }
        Ok(())
    }

    /// The messages for the device, read only where there may be some that the client has not.
    fn messages(
        &mut self,
        answer: &mut ToDevice,
        limit: usize,
        news: &News,
    ) -> Result<(), ApiError> {
        let Inbox { epoch, since } = self.inbox;
        let told_at = self.base.position.unwrap_or_default();
        if self.inbox.goes_on_from(self.base) && news.devices <= told_at {
            return Ok(());
        }
        let page = to_device::read(&self.step, since, limit)?;
        let told = page.last.or(since).unwrap_or(self.step.now);
        self.delta.inbox = (!page.has_more).then_some(told);
        answer.told = Some(ToldMessages::from(&page));
        answer.next_batch = device_token(epoch, told);
        answer.events = page.events;
        Ok(())
    }

    /// Whose devices changed. A client that begins asks for the devices of those whom it has to do
    /// with, and so it does when it begins anew on an unknown `pos`; else it relies on being told
    /// every change, also those of the time while the extension was off.
    fn device_lists(&mut self, answer: &mut E2ee, news: &News) -> Result<(), ApiError> {
        if let Some(since) = self.base.device_lists {
            answer.lists = device_lists::read(&self.step, since, news)?;
        }
        self.delta.device_lists = Some(self.step.now);
        Ok(())
    }

    fn account_data(&mut self, scope: &Scope, targets: &[Target]) -> Result<AccountData, ApiError> {
        let users = self.step.sources.users.clone();
        let (reader, user_id) = (self.step.reader, self.step.user_id);
        let since = self.base.position.filter(|_| self.base.account_data).unwrap_or_default();
        let mut answer = AccountData::default();
        let mut changed: BTreeMap<RoomNid, Vec<ClientEvent>> = BTreeMap::new();
        for entry in users.account_data().since(reader, user_id, since)? {
            let event = plain_event(&entry.kind, &entry.content)?;
            match entry.room {
                None => answer.global.push(event),
                Some(room) => changed.entry(room).or_default().push(event),
            }
        }
        for target in targets.iter().filter(|target| scope.holds(target)) {
            let nid = target.entry.nid;
            let news = changed.remove(&nid);
            let events = if self.is_current(nid, ACCOUNT_DATA) {
                news.unwrap_or_default()
            } else {
                let all = users.account_data().of_room(reader, user_id, nid)?;
                let all = all.iter().map(|entry| plain_event(&entry.kind, &entry.content));
                self.mark(nid, ACCOUNT_DATA, true);
                all.collect::<Result<_, ApiError>>()?
            };
            if events.is_empty() {
                continue;
            }
            if let Some(room) = self.step.sources.rooms.room_by_nid(reader, nid)? {
                answer.rooms.insert(room.id.clone(), events);
            }
        }
        for nid in changed.into_keys() {
            self.mark(nid, ACCOUNT_DATA, false);
        }
        Ok(answer)
    }

    /// Receipts or typing.
    fn ephemeral(
        &mut self,
        (place, scope): (usize, &Scope),
        (entries, targets): (&[Entry], &[Target]),
        newest: fn(RoomPositions) -> Position,
        read: Read,
    ) -> Result<Ephemeral, ApiError> {
        let base = self.base.position.unwrap_or_default();
        let mut answer = Ephemeral::default();
        let mut in_scope = std::collections::HashSet::new();
        let is_joined = |entry: &Entry| entry.row.membership == Membership::Join;
        for target in targets.iter().filter(|target| scope.holds(target)) {
            let entry = &target.entry;
            in_scope.insert(entry.nid);
            let since = self.is_current(entry.nid, place).then_some(base);
            let has_news = since.is_none_or(|since| newest(entry.positions) > since);
            if !is_joined(entry) || !has_news {
                continue;
            }
            let rooms = &self.step.sources.rooms;
            let Some(room) = rooms.room_by_nid(self.step.reader, entry.nid)? else { continue };
            if let Some(event) = read(self, &room, since)? {
                answer.rooms.insert(room.id.clone(), event);
            }
            self.mark(entry.nid, place, true);
        }
        // O(rooms), in memory: what nobody is told of now must be told later.
        for entry in entries.iter().filter(|entry| newest(entry.positions) > base) {
            if !in_scope.contains(&entry.nid) {
                self.mark(entry.nid, place, false);
            }
        }
        Ok(answer)
    }

    fn is_current(&self, nid: RoomNid, place: usize) -> bool {
        let generation = self.base.generations[place];
        self.told(nid).is_some_and(|told| told.extras[place] == generation)
    }

    /// Notes whether the client has all there is of a room that it knows.
    fn mark(&mut self, nid: RoomNid, place: usize, current: bool) {
        let generation = if current { self.base.generations[place] } else { 0 };
        if let Some(told) = self.told(nid)
            && told.extras[place] != generation
        {
            let mut told = Told::clone(told);
            told.extras[place] = generation;
            self.delta.rooms.insert(nid, Arc::new(told));
        }
    }

    /// The threads that changed, the newest first.
    fn threads(&mut self, limit: usize) -> Result<Threads, ApiError> {
        let since = self.base.threads.unwrap_or_default();
        self.delta.threads = Some(self.step.now);
        let threads = self.step.sources.users.thread_subscriptions();
        let mut changes =
            threads.changes(self.step.reader, self.step.user_id, (since, None), limit + 1)?;
        changes.retain(|change| change.row.position <= self.step.now);
        let mut answer = Threads::default();
        if changes.len() > limit {
            changes.truncate(limit);
            answer.prev_batch = changes.last().map(|last| thread_token(last.row.position));
        }
        for ThreadSubscription { room, thread, row } in changes {
            let rooms = &self.step.sources.rooms;
            let Some(room) = rooms.room_by_nid(self.step.reader, room)? else { continue };
            let bump_stamp = row.position.as_u64();
            if row.subscribed {
                let subscribed = Subscribed { automatic: row.automatic, bump_stamp };
                answer.subscribed.entry(room.id.clone()).or_default().insert(thread, subscribed);
            } else {
                let unsubscribed = Unsubscribed { bump_stamp };
                let rooms = &mut answer.unsubscribed;
                rooms.entry(room.id.clone()).or_default().insert(thread, unsubscribed);
            }
        }
        Ok(answer)
    }
}

fn read_receipts(
    build: &Build<'_>,
    room: &Room,
    since: Option<Position>,
) -> Result<Option<ClientEvent>, ApiError> {
    let limit = if since.is_none() { FIRST_RECEIPTS_MAX } else { RECEIPTS_MAX };
    receipts::merged(&build.step, room.nid, since, limit)
}

fn read_typing(
    build: &Build<'_>,
    room: &Room,
    since: Option<Position>,
) -> Result<Option<ClientEvent>, ApiError> {
    typing::read(&build.step, room, since.is_some())
}

impl Scope {
    fn holds(&self, target: &Target) -> bool {
        target.entry.lists & self.lists != 0
            || self.subscribed && target.subscribed
            || self.rooms.binary_search(&target.entry.nid).is_ok()
    }
}

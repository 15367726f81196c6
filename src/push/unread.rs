//! How much of a room is unread for a user: a few look-ups, however much it is.
//!
//! What counts is the sum at the end less the sum at the place the user has read to, by thread;
//! the same of the user's exceptions; less what was redacted between. A user has read a thread up
//! to the farthest of: the receipts for it and for the whole room, the user's own last event in it
//! that would notify others, and the join. When rules change, what was counted before stays as it
//! was until it is read.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications>

use std::{
    collections::{BTreeMap, HashSet},
    ops::{Bound, ControlFlow},
};

use kv::{Direction, Error, Position, Reader};
use ruma::{OwnedEventId, RoomId, UserId};
use serde::Serialize;

use super::{
    Push,
    counts::{MAIN, last_sum},
};
use crate::{
    id::RoomNid,
    storage::{
        rows::{TimelinePosition, push::Counts},
        schema::{
            ephemeral::{RECEIPTS, ReceiptKey, ReceiptKind},
            push::{
                PUSH_CORRECTIONS, PUSH_EXCEPTIONS, PUSH_OWN, PUSH_THREADS, PushExceptionKey,
                PushOwnKey, PushSumKey, PushThreadKey,
            },
        },
    },
};

/// How many events of threads are looked at for threads that have unread ones; threads whose last
/// event lies farther back count as read.
const THREAD_EVENTS_MAX: usize = 2_000;
/// How many threads of a room are counted at most, those with the newest events: any member can
/// begin as many as they like.
const THREADS_MAX: usize = 100;
/// For how many threads it is looked up whether they were read.
const THREADS_LOOKED_AT_MAX: usize = 300;
/// How many redacted events are taken back from one count.
const REDACTED_MAX: usize = 10_000;

/// Whose counts, and of what.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// The user.
    pub user_id: &'a UserId,
    /// The room.
    pub room: RoomNid,
    /// The room's id.
    pub room_id: &'a RoomId,
    /// The user's membership began here, where nothing better is known.
    pub joined: Position,
    /// Nothing after it is counted.
    pub now: Position,
}

/// Counts of unread events of a room or of a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct UnreadCounts {
    /// Those with a highlight.
    pub highlight_count: u64,
    /// All that notify.
    pub notification_count: u64,
}

/// How much of a room is unread. As JSON: the counts of the whole room.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Unread {
    /// Those with a highlight, in the whole room.
    pub highlight_count: u64,
    /// All that notify, in the whole room.
    pub notification_count: u64,
    /// The same for the main timeline alone.
    #[serde(skip)]
    pub main: UnreadCounts,
    /// The same for each thread that has any.
    #[serde(skip)]
    pub threads: BTreeMap<OwnedEventId, UnreadCounts>,
}

/// Up to where a user has read a room.
pub struct ReadPlaces<'a> {
    reader: &'a Reader<'a>,
    query: Query<'a>,
    /// In all threads.
    everywhere: TimelinePosition,
}

impl Unread {
    /// The counts of the whole room.
    pub const fn whole(&self) -> UnreadCounts {
        UnreadCounts {
            highlight_count: self.highlight_count,
            notification_count: self.notification_count,
        }
    }
}

impl Push {
    /// How much of a room is unread.
    pub fn unread(&self, reader: &Reader<'_>, query: Query<'_>) -> Result<Unread, Error> {
        let odd = self.odd_user(reader, query.user_id)?;
        if odd.is_some_and(|user| user.mutes(query.room_id)) {
            return Ok(Unread::default());
        }
        let mut places = ReadPlaces::new(reader, query)?;
        // What was muted when it came is no notification that could be unread.
        let unmuted = self.unmuted_at(reader, query.user_id, query.room)?;
        places.everywhere = places.everywhere.max(TimelinePosition::live(unmuted));
        let mut unread = Unread { main: places.count(MAIN)?, ..Unread::default() };
        for root in places.threads()? {
            let counts = places.count(&root)?;
            if counts != UnreadCounts::default()
                && let Ok(root) = OwnedEventId::try_from(root)
            {
                unread.threads.insert(root, counts);
            }
        }
        for counts in unread.threads.values().chain([&unread.main]) {
            unread.highlight_count += counts.highlight_count;
            unread.notification_count += counts.notification_count;
        }
        Ok(unread)
    }
}

impl<'a> ReadPlaces<'a> {
    /// Looks up what is the same for all threads.
    pub fn new(reader: &'a Reader<'a>, query: Query<'a>) -> Result<Self, Error> {
        let join = own(reader, query, "")?.unwrap_or(query.joined);
        let receipt = receipt(reader, query, "")?;
        let everywhere = TimelinePosition::live(join).max(receipt);
        Ok(Self { reader, query, everywhere })
    }

    /// Up to where the user has read a thread.
    pub fn of(&self, thread: &str) -> Result<TimelinePosition, Error> {
        let own = own(self.reader, self.query, thread)?.unwrap_or_default();
        let receipt = receipt(self.reader, self.query, thread)?;
        Ok(self.everywhere.max(receipt).max(TimelinePosition::live(own)))
    }

    /// The threads in which something came since they and the whole room were read: at most
    /// [`THREADS_MAX`], those with the newest events.
    fn threads(&self) -> Result<Vec<String>, Error> {
        let key = |place| PushThreadKey { room: self.query.room, place };
        let (from, to) = (key(self.everywhere), key(TimelinePosition::live(self.query.now)));
        if from >= to {
            return Ok(Vec::new());
        }
        let range = PUSH_THREADS.range(Bound::Excluded(&from), Bound::Included(&to));
        let rows =
            self.reader.scan(&PUSH_THREADS, &range, Direction::Backward, THREAD_EVENTS_MAX)?;
        let (mut seen, mut roots) = (HashSet::new(), Vec::new());
        for (key, row) in rows {
            if seen.contains(&row.root) {
                continue;
            }
            if roots.len() == THREADS_MAX || seen.len() == THREADS_LOOKED_AT_MAX {
                break;
            }
            // The newest of its thread.
            if self.of(&row.root)? < key.place {
                roots.push(row.root.clone());
            }
            seen.insert(row.root);
        }
        Ok(roots)
    }

    fn count(&self, thread: &str) -> Result<UnreadCounts, Error> {
        let from = self.of(thread)?;
        let to = TimelinePosition::live(self.query.now);
        if from >= to {
            return Ok(UnreadCounts::default());
        }
        let mut counts = Counts::ZERO;
        for user in ["", self.query.user_id.as_str()] {
            let sum = |place| last_sum(self.reader, self.query.room, (user, thread), place);
            counts = counts + sum(to)? - sum(from)?;
        }
        let counts = counts - self.redacted(thread, (from, to))?;
        let count = |count: i64| u64::try_from(count).unwrap_or(0);
        Ok(UnreadCounts {
            highlight_count: count(counts.highlight),
            notification_count: count(counts.notify),
        })
    }

    /// What is counted between two places though it was redacted.
    fn redacted(
        &self,
        thread: &str,
        (from, to): (TimelinePosition, TimelinePosition),
    ) -> Result<Counts, Error> {
        let room = self.query.room;
        let key = |place| PushSumKey { room, thread: thread.to_owned(), place };
        let range = PUSH_CORRECTIONS.range(Bound::Excluded(&key(from)), Bound::Included(&key(to)));
        let mut places = Vec::new();
        let mut counts = Counts::ZERO;
        self.reader.for_each(&PUSH_CORRECTIONS, &range, Direction::Forward, |key, row| {
            places.push(key.place);
            counts = counts + row.own;
            if places.len() < REDACTED_MAX {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        let keys: Vec<_> = places
            .into_iter()
            .map(|place| PushExceptionKey {
                user_id: self.query.user_id.to_string(),
                room,
                thread: thread.to_owned(),
                place,
            })
            .collect();
        for row in self.reader.get_many(&PUSH_EXCEPTIONS, &keys)?.into_iter().flatten() {
            counts = counts + row.own;
        }
        Ok(counts)
    }
}

/// When a user of this server joined a room.
pub fn joined_at(
    reader: &Reader<'_>,
    user_id: &UserId,
    room: RoomNid,
) -> Result<Option<Position>, Error> {
    let (user_id, thread) = (user_id.to_string(), String::new());
    reader.get(&PUSH_OWN, &PushOwnKey { user_id, room, thread })
}

fn own(reader: &Reader<'_>, query: Query<'_>, thread: &str) -> Result<Option<Position>, Error> {
    let (user_id, thread) = (query.user_id.to_string(), thread.to_owned());
    reader.get(&PUSH_OWN, &PushOwnKey { user_id, room: query.room, thread })
}

/// The farthest of the public and the private receipt; the beginning where there is none.
fn receipt(reader: &Reader<'_>, query: Query<'_>, thread: &str) -> Result<TimelinePosition, Error> {
    let mut place = TimelinePosition::START;
    for kind in [ReceiptKind::Read, ReceiptKind::ReadPrivate] {
        let (user_id, thread) = (query.user_id.to_string(), thread.to_owned());
        let key = ReceiptKey { room: query.room, user_id, kind: kind as u8, thread };
        if let Some(row) = reader.get(&RECEIPTS, &key)? {
            place = place.max(row.place);
        }
    }
    Ok(place)
}

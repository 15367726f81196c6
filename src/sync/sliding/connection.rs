//! Connections of sliding sync: what each client was told, so that it is told only what is new.
//!
//! In memory alone: after a restart, and when there is too much of it, a client gets
//! `M_UNKNOWN_POS` and begins anew. What an answer tells is only *known* once the client comes back
//! with its `pos`; until then the same request may come again and is answered from the same
//! knowledge. Requests that a client gives up may arrive after the one it sends instead, so each of
//! the last answers that were made from the same knowledge can be gone on from.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use kv::Position;
use parking_lot::Mutex;
use ruma::{OwnedDeviceId, OwnedUserId};
use tokio::sync::Notify;

use super::request::{Wanted, Wish, weight_of};
use crate::{
    error::ApiError,
    id::{EventNid, RoomNid},
    sync::{connections::Members, streams::unread::UnreadCounts},
};

/// Connections of one user.
const PER_USER_MAX: usize = 32;
/// Connections altogether.
const CONNECTIONS_MAX: usize = 10_000;
/// Rooms and members that all connections together know, and what they want, of about 100 bytes
/// each.
const ENTRIES_MAX: usize = 2_000_000;
/// Members that are remembered of one connection.
const MEMBERS_MAX: usize = 20_000;
/// Answers from the same knowledge that are remembered, one of which the client has got.
const TOLD_MAX: usize = 3;

/// A user's device and the id that the client gave the connection.
pub(super) type Key = (OwnedUserId, OwnedDeviceId, String);

/// What a room was to the user when it was last told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Joined,
    /// An invite or a knock.
    Stripped,
    Left,
}

/// What a client knows of a room.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) kind: Kind,
    /// The user's member event.
    pub(super) member: EventNid,
    /// Timeline and state were told up to here.
    pub(super) position: Position,
    /// The receipts that `unread` was counted with.
    pub(super) counted: Position,
    /// What was wanted of it.
    pub(super) wish: Arc<Wish>,
    /// How many of the newest events are known, without a gap.
    pub(super) tail: usize,
    /// Whether those are all there are.
    pub(super) complete: bool,
    pub(super) unread: UnreadCounts,
    pub(super) is_dm: bool,
    /// For account data, receipts, typing: whether the client has what there was, as the
    /// generation of the extension in which it was told; 0: not.
    pub(super) extras: [u32; 3],
}

/// What a client knows.
#[derive(Clone, Debug)]
pub(super) struct Base {
    /// Up to where it was told; `None`: nothing yet.
    pub(super) position: Option<Position>,
    pub(super) rooms: HashMap<RoomNid, Arc<Told>>,
    pub(super) members: Members,
    /// What was asked for last.
    pub(super) wanted: Arc<Wanted>,
    /// How long each list was.
    pub(super) counts: Vec<u64>,
    /// For account data, receipts, typing: counts how often the extension was turned on.
    pub(super) generations: [u32; 3],
    /// Whether the global account data was told.
    pub(super) account_data: bool,
    /// Up to where thread subscriptions were told.
    pub(super) threads: Option<Position>,
    /// Up to where device lists were told; it stays while the extension is off, so that they are told
    /// from there when it is on again.
    pub(super) device_lists: Option<Position>,
    /// Up to where messages for the device were told, when those are all that there were.
    pub(super) inbox: Option<Position>,
}

impl Default for Base {
    fn default() -> Self {
        Self {
            position: None,
            rooms: HashMap::new(),
            members: Members::new(),
            wanted: Arc::default(),
            counts: Vec::new(),
            generations: [1; 3],
            account_data: false,
            threads: None,
            device_lists: None,
            inbox: None,
        }
    }
}

/// What an answer changes of it.
#[derive(Clone, Debug)]
pub(super) struct Delta {
    pub(super) position: Position,
    pub(super) rooms: HashMap<RoomNid, Arc<Told>>,
    /// Rooms that need not be remembered any more.
    pub(super) gone: Vec<RoomNid>,
    pub(super) members: Members,
    pub(super) wanted: Arc<Wanted>,
    pub(super) counts: Vec<u64>,
    pub(super) generations: [u32; 3],
    pub(super) account_data: bool,
    pub(super) threads: Option<Position>,
    pub(super) device_lists: Option<Position>,
    pub(super) inbox: Option<Position>,
}

impl Delta {
    /// The delta of an answer without news.
    pub(super) fn none(base: &Base, position: Position) -> Self {
        Self {
            position,
            rooms: HashMap::new(),
            gone: Vec::new(),
            members: Members::new(),
            wanted: base.wanted.clone(),
            counts: base.counts.clone(),
            generations: base.generations,
            account_data: base.account_data,
            threads: base.threads,
            device_lists: base.device_lists,
            inbox: base.inbox,
        }
    }

    fn entries(&self) -> usize {
        let wishes = weight_of(self.rooms.values().map(|told| &told.wish));
        self.rooms.len() + self.members.len() + wishes + self.wanted.weight()
    }
}

impl Base {
    fn take(&mut self, delta: Delta) {
        self.position = Some(delta.position);
        self.rooms.extend(delta.rooms);
        for room in delta.gone {
            self.rooms.remove(&room);
        }
        if self.members.len() + delta.members.len() > MEMBERS_MAX {
            // A member is told once more.
            self.members = Members::new();
        }
        self.members.extend(delta.members);
        self.wanted = delta.wanted;
        self.counts = delta.counts;
        self.generations = delta.generations;
        self.account_data = delta.account_data;
        self.threads = delta.threads;
        self.device_lists = delta.device_lists;
        self.inbox = delta.inbox;
    }

    /// O(rooms), like the sorting of the lists that comes with every answer.
    fn entries(&self) -> usize {
        let wishes = weight_of(self.rooms.values().map(|told| &told.wish));
        self.rooms.len() + self.members.len() + wishes + self.wanted.weight()
    }
}

/// A connection.
#[derive(Debug, Default)]
struct Connection {
    base: Arc<Base>,
    /// The number of the answer that made the base; `None`: there was none.
    at: Option<u64>,
    /// The numbers of the last answers from the base and what each of them told.
    told: VecDeque<(u64, Delta)>,
    /// Ends the request before it.
    ended: Arc<Notify>,
    entries: usize,
    used: u64,
}

/// A request on a connection.
#[derive(Debug)]
pub(super) struct Opened {
    /// What the client knows.
    pub(super) base: Arc<Base>,
    ended: Arc<Notify>,
}

impl Opened {
    /// Resolves when a newer request came on the same connection.
    pub(super) async fn ended(&self) {
        self.ended.notified().await;
    }
}

#[derive(Debug, Default)]
struct All {
    connections: HashMap<Key, Connection>,
    entries: usize,
    uses: u64,
}

/// All connections. Cheap to clone.
#[derive(Clone, Debug)]
pub(in crate::sync) struct SlidingConnections {
    all: Arc<Mutex<All>>,
    /// Numbers answers; begins anywhere, so that those of an earlier run are not known.
    numbers: Arc<AtomicU64>,
}

impl SlidingConnections {
    /// No connections. The number of the first answer must be no one else's guess.
    pub(in crate::sync) fn new() -> Self {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).expect("the system has random numbers");
        // Small enough to count on from it for ever.
        let first = u64::from_be_bytes(seed) >> 16;
        Self { all: Arc::default(), numbers: Arc::new(AtomicU64::new(first)) }
    }

    /// Begins a request that goes on from an answer; `None`: from nothing.
    ///
    /// # Errors
    /// `M_UNKNOWN_POS` when that answer is not known.
    pub(super) fn open(&self, key: &Key, pos: Option<u64>) -> Result<Opened, ApiError> {
        let mut all = self.all.lock();
        all.uses += 1;
        let uses = all.uses;
        match pos {
            None => all.renew(key),
            Some(pos) => all.go_on(key, pos).ok_or_else(unknown_pos)?,
        }
        let connection = all.connections.get_mut(key).ok_or_else(unknown_pos)?;
        connection.used = uses;
        // The client has given up one of the two, most likely the one that came before.
        connection.ended.notify_one();
        connection.ended = Arc::default();
        let (base, ended) = (connection.base.clone(), connection.ended.clone());
        Ok(Opened { base, ended })
    }

    /// Notes what is told with the answer to a request and gives the answer's number.
    pub(super) fn close(&self, key: &Key, opened: &Opened, delta: Delta) -> u64 {
        let number = self.numbers.fetch_add(1, Relaxed);
        let mut all = self.all.lock();
        // Where the client has gone on meanwhile, nobody reads this answer.
        let connection = all.connections.get_mut(key);
        let current = connection.filter(|found| Arc::ptr_eq(&found.base, &opened.base));
        if let Some(connection) = current {
            connection.told.push_back((number, delta));
            if connection.told.len() > TOLD_MAX {
                connection.told.pop_front();
            }
            let told = connection.told.iter().map(|(_, delta)| delta.entries());
            let entries = connection.base.entries() + told.sum::<usize>();
            let before = std::mem::replace(&mut connection.entries, entries);
            all.entries = all.entries + entries - before;
            all.make_space(key);
        }
        number
    }
}

impl All {
    fn renew(&mut self, key: &Key) {
        self.remove(key);
        // O(connections), in memory, and only for a client that begins.
        let of_user = self.connections.iter().filter(|(other, _)| other.0 == key.0);
        let oldest = of_user.clone().min_by_key(|(_, connection)| connection.used);
        if of_user.count() >= PER_USER_MAX
            && let Some(oldest) = oldest.map(|(key, _)| key.clone())
        {
            self.remove(&oldest);
        }
        self.connections.insert(key.clone(), Connection::default());
        self.make_space(key);
    }

    fn go_on(&mut self, key: &Key, pos: u64) -> Option<()> {
        let connection = self.connections.get_mut(key)?;
        let Some(arrived) = connection.told.iter().position(|(number, _)| *number == pos) else {
            return (connection.at == Some(pos)).then_some(());
        };
        let (_, delta) = connection.told.swap_remove_back(arrived)?;
        connection.told.clear();
        let base = Arc::make_mut(&mut connection.base);
        base.take(delta);
        connection.at = Some(pos);
        let before = std::mem::replace(&mut connection.entries, base.entries());
        self.entries = self.entries + connection.entries - before;
        Some(())
    }

    fn remove(&mut self, key: &Key) {
        if let Some(connection) = self.connections.remove(key) {
            connection.ended.notify_one();
            self.entries -= connection.entries;
        }
    }

    /// Forgets the connections that were not used for the longest, half of them, but never `keep`.
    fn make_space(&mut self, keep: &Key) {
        if self.connections.len() <= CONNECTIONS_MAX && self.entries <= ENTRIES_MAX {
            return;
        }
        let mut uses: Vec<u64> = self.connections.values().map(|found| found.used).collect();
        let middle = uses.len() / 2;
        let (_, &mut median, _) = uses.select_nth_unstable(middle);
        self.connections.retain(|key, found| found.used > median || key == keep);
        self.entries = self.connections.values().map(|found| found.entries).sum();
    }
}

fn unknown_pos() -> ApiError {
    let message = "The connection is not known any more: begin anew without pos";
    ApiError::new(http::StatusCode::BAD_REQUEST, "M_UNKNOWN_POS", message)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn key(name: &str) -> Key {
        (ruma::owned_user_id!("@alice:hs1"), "A".into(), name.to_owned())
    }

    fn delta(base: &Base, position: u64) -> Delta {
        Delta::none(base, Position::from_u64(position))
    }

    fn position(opened: &Opened) -> Option<u64> {
        opened.base.position.map(Position::as_u64)
    }

    #[test]
    fn the_last_two_answers_can_be_gone_on_from() {
        let connections = SlidingConnections::new();
        let key = key("a");
        let opened = connections.open(&key, None).unwrap();
        let first = connections.close(&key, &opened, delta(&opened.base, 1));
        let opened = connections.open(&key, Some(first)).unwrap();
        assert_eq!(position(&opened), Some(1));
        let second = connections.close(&key, &opened, delta(&opened.base, 2));
        // The answer got lost: the same request once more.
        let again = connections.open(&key, Some(first)).unwrap();
        assert_eq!(position(&again), Some(1));
        // Or it was only late.
        let opened = connections.open(&key, Some(second)).unwrap();
        assert_eq!(position(&opened), Some(2));
        assert_eq!(connections.open(&key, Some(first)).unwrap_err().errcode, "M_UNKNOWN_POS");
        let other = connections.open(&self::key("b"), Some(second));
        assert_eq!(other.unwrap_err().errcode, "M_UNKNOWN_POS", "another connection");
    }

    #[test]
    fn a_newer_request_ends_the_older_one() {
        let connections = SlidingConnections::new();
        let key = key("a");
        let opened = connections.open(&key, None).unwrap();
        let first = connections.close(&key, &opened, delta(&opened.base, 1));
        let old = connections.open(&key, Some(first)).unwrap();
        assert!(old.ended().now_or_never().is_none());
        let new = connections.open(&key, Some(first)).unwrap();
        assert!(old.ended().now_or_never().is_some());
        let second = connections.close(&key, &new, delta(&new.base, 2));
        connections.open(&key, Some(second)).unwrap();
        // What is answered after the client went on counts for nothing.
        let late = connections.close(&key, &old, delta(&old.base, 5));
        assert!(connections.open(&key, Some(late)).is_err());
        assert_eq!(position(&connections.open(&key, Some(second)).unwrap()), Some(2));
    }

    #[test]
    fn a_request_that_was_given_up_may_arrive_after_its_successor() {
        let connections = SlidingConnections::new();
        let key = key("a");
        let opened = connections.open(&key, None).unwrap();
        let first = connections.close(&key, &opened, delta(&opened.base, 1));
        let successor = connections.open(&key, Some(first)).unwrap();
        let given_up = connections.open(&key, Some(first)).unwrap();
        let second = connections.close(&key, &successor, delta(&successor.base, 2));
        connections.close(&key, &given_up, delta(&given_up.base, 3));
        let opened = connections.open(&key, Some(second)).unwrap();
        assert_eq!(position(&opened), Some(2), "what the client has got counts");
    }

    #[test]
    fn t89_few_answers_from_the_same_knowledge_are_remembered() {
        let connections = SlidingConnections::new();
        let key = key("a");
        let opened = connections.open(&key, None).unwrap();
        let numbers: Vec<u64> = (1..=4)
            .map(|position| connections.close(&key, &opened, delta(&opened.base, position)))
            .collect();
        drop(opened);
        assert_eq!(connections.all.lock().connections[&key].told.len(), TOLD_MAX);
        assert!(connections.open(&key, Some(numbers[0])).is_err());
        assert_eq!(position(&connections.open(&key, Some(numbers[1])).unwrap()), Some(2));
    }

    #[test]
    fn t89_a_user_has_so_many_connections_and_not_more() {
        let connections = SlidingConnections::new();
        for name in 0..=PER_USER_MAX {
            let key = key(&name.to_string());
            let opened = connections.open(&key, None).unwrap();
            connections.close(&key, &opened, delta(&opened.base, 1));
        }
        let all = connections.all.lock();
        assert_eq!(all.connections.len(), PER_USER_MAX);
        assert!(!all.connections.contains_key(&key("0")), "the oldest is gone");
    }
}

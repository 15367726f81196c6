//! What changed last in the rooms of the users who sync: memory alone, never a read.
//!
//! Only [`super::notifier`] changes it, by the commits in their order; what it says is true at
//! [`RoomTable::now`]. A room has a slot once a user who syncs has joined it; a user has one from
//! the first sync on. Where it does not know when something changed, it says later, never earlier:
//! a sync then looks into the store and finds nothing.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use kv::{Commit, Position};
use tokio::sync::watch;

use crate::{
    id::{RoomNid, UserNid},
    storage::{
        rows::{Membership, MembershipRow},
        topic,
    },
};

/// The rooms of a user, whatever the membership, sorted.
pub(crate) type Memberships = Arc<[(RoomNid, MembershipRow)]>;

/// When each kind of thing in a room changed last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RoomPositions {
    /// The timeline and the state.
    pub(crate) events: Position,
    /// Receipts.
    pub(crate) receipts: Position,
    /// Typing; zero until somebody types.
    pub(crate) typing: Position,
    /// What moves the room up in lists of rooms.
    pub(crate) bumped: Position,
    /// The presence of members; no part of what makes a room news.
    pub(crate) presence: Position,
    /// Who is a member.
    pub(crate) members: Position,
    /// The devices of members; no part of what makes a room news.
    pub(crate) device_lists: Position,
}

impl RoomPositions {
    fn last(self) -> Position {
        self.events.max(self.receipts).max(self.typing)
    }
}

/// What the store says of a user's rooms.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    /// Everything up to here was seen.
    pub(crate) at: Position,
    /// The rooms.
    pub(crate) memberships: Memberships,
    /// The last positions of joined rooms that had no slot.
    pub(crate) rooms: Vec<(RoomNid, RoomPositions)>,
}

/// What is new for a user.
#[derive(Clone, Debug)]
pub(crate) struct News {
    /// All this is true here: nothing after it may be told.
    pub(crate) now: Position,
    /// The user's rooms.
    pub(crate) memberships: Memberships,
    /// The joined rooms in which something changed, sorted.
    pub(crate) rooms: Vec<(RoomNid, RoomPositions)>,
    /// Whether account data changed.
    pub(crate) account_data: bool,
    /// Whether the presence of somebody in a joined room may have changed.
    pub(crate) presence: bool,
    /// When the user's own devices, the messages for them or the counts of their keys last changed.
    pub(crate) devices: Position,
    /// When the devices of somebody in a joined room may have changed last.
    pub(crate) device_lists: Position,
}

impl News {
    /// No news, for an answer that has to tell something else.
    pub(crate) fn none(now: Position) -> Self {
        Self {
            now,
            memberships: Arc::default(),
            rooms: Vec::new(),
            account_data: false,
            presence: false,
            devices: Position::ZERO,
            device_lists: Position::ZERO,
        }
    }
}

/// The answer to a look into the table.
#[derive(Clone, Debug)]
pub(crate) enum Look {
    /// Nothing that concerns the user changed up to this position.
    Nothing(Position),
    /// Something did.
    News(News),
}

#[derive(Debug)]
struct RoomSlot {
    nid: RoomNid,
    positions: RoomPositions,
    /// The users who have joined and sync.
    watchers: Vec<u32>,
}

#[derive(Debug)]
struct UserSlot {
    nid: UserNid,
    memberships: Memberships,
    /// What `memberships` is true at; `None` before it is loaded.
    loaded_at: Option<Position>,
    joined: Vec<u32>,
    memberships_changed: Position,
    account_data_changed: Position,
    sessions_changed: Position,
    devices_changed: Position,
    /// When anything changed; those who wait watch it.
    changed: watch::Sender<Position>,
    used: bool,
}

/// The table. See the module.
#[derive(Debug, Default)]
pub(crate) struct RoomTable {
    now: Position,
    rooms: Vec<RoomSlot>,
    rooms_by_nid: HashMap<RoomNid, u32>,
    users: Vec<Option<UserSlot>>,
    users_by_nid: HashMap<UserNid, u32>,
    users_free: Vec<u32>,
    users_max: usize,
    /// The latest bumps of rooms without a slot: newer and older ones.
    bumps: [HashMap<RoomNid, Position>; 2],
}

/// How many bumps of rooms without a slot are remembered, twice.
const BUMPS_MAX: usize = 4_096;

impl RoomTable {
    /// An empty table at this position, for at most so many users.
    pub(crate) fn new(now: Position, users_max: usize) -> Self {
        Self { now, users_max, ..Self::default() }
    }

    /// What the table is true at.
    pub(crate) const fn now(&self) -> Position {
        self.now
    }

    /// Takes in a commit.
    pub(crate) fn apply(&mut self, commit: &Commit) {
        self.now = self.now.max(commit.last);
        for topic in commit.topics.iter() {
            match topic.space {
                topic::ROOM_EVENTS
                | topic::ROOM_RECEIPTS
                | topic::ROOM_TYPING
                | topic::ROOM_BUMP
                | topic::ROOM_PRESENCE
                | topic::ROOM_DEVICE_LISTS
                | topic::ROOM_MEMBERS => {
                    self.touch_room(topic.space, RoomNid(topic.id));
                }
                topic::USER_MEMBERSHIPS
                | topic::USER_ACCOUNT_DATA
                | topic::USER_SESSIONS
                | topic::USER_DEVICES
                | topic::USER_THREAD_SUBSCRIPTIONS => {
                    self.touch_user(topic.space, UserNid(topic.id));
                }
                _ => {}
            }
        }
    }

    fn touch_room(&mut self, space: u8, room: RoomNid) {
        let Some(&slot) = self.rooms_by_nid.get(&room) else {
            if space == topic::ROOM_BUMP {
                self.note_bump(room);
            }
            return;
        };
        let slot = &mut self.rooms[slot as usize];
        match space {
            topic::ROOM_BUMP => slot.positions.bumped = self.now,
            topic::ROOM_EVENTS => slot.positions.events = self.now,
            topic::ROOM_RECEIPTS => slot.positions.receipts = self.now,
            topic::ROOM_PRESENCE => slot.positions.presence = self.now,
            topic::ROOM_DEVICE_LISTS => slot.positions.device_lists = self.now,
            topic::ROOM_MEMBERS => slot.positions.members = self.now,
            _ => slot.positions.typing = self.now,
        }
        for &user in &slot.watchers {
            if let Some(user) = &self.users[user as usize] {
                user.changed.send_replace(self.now);
            }
        }
    }

    /// Remembers the bump of a room without a slot: it may just be getting one.
    fn note_bump(&mut self, room: RoomNid) {
        if self.bumps[0].len() >= BUMPS_MAX {
            self.bumps.swap(0, 1);
            self.bumps[0].clear();
        }
        self.bumps[0].insert(room, self.now);
    }

    fn noted_bump(&self, room: RoomNid) -> Position {
        self.bumps.iter().filter_map(|bumps| bumps.get(&room)).copied().max().unwrap_or_default()
    }

    fn touch_user(&mut self, space: u8, user: UserNid) {
        let Some(&slot) = self.users_by_nid.get(&user) else { return };
        let Some(user) = &mut self.users[slot as usize] else { return };
        match space {
            topic::USER_MEMBERSHIPS => user.memberships_changed = self.now,
            topic::USER_ACCOUNT_DATA => user.account_data_changed = self.now,
            topic::USER_SESSIONS => user.sessions_changed = self.now,
            topic::USER_DEVICES => user.devices_changed = self.now,
            _ => {}
        }
        user.changed.send_replace(self.now);
    }

    /// What is new for a user since then (`None`: everything). `None`: the user's rooms must be
    /// loaded first.
    pub(crate) fn look(&mut self, user: UserNid, since: Option<Position>) -> Option<Look> {
        let now = self.now;
        let slot = self.slot_of(user);
        let user = self.users[slot as usize].as_mut().expect("the slot was just found or made");
        user.used = true;
        if user.loaded_at.is_none_or(|at| at < user.memberships_changed) {
            return None;
        }
        let since = since.unwrap_or_default();
        if since != Position::ZERO && *user.changed.borrow() <= since {
            return Some(Look::Nothing(now));
        }
        let joined = || user.joined.iter().map(|&room| &self.rooms[room as usize]);
        let presence = joined().any(|room| room.positions.presence > since);
        let device_lists = joined().map(|room| room.positions.device_lists).max();
        let mut rooms: Vec<_> = joined()
            .filter(|room| room.positions.last() > since)
            .map(|room| (room.nid, room.positions))
            .collect();
        rooms.sort_unstable_by_key(|room| room.0);
        Some(Look::News(News {
            now,
            memberships: user.memberships.clone(),
            rooms,
            account_data: user.account_data_changed > since,
            presence,
            devices: user.devices_changed,
            device_lists: device_lists.unwrap_or_default(),
        }))
    }

    /// Tells of every change that concerns the user.
    pub(crate) fn changes(&mut self, user: UserNid) -> watch::Receiver<Position> {
        let slot = self.slot_of(user);
        let user = self.users[slot as usize].as_ref().expect("the slot was just found or made");
        user.changed.subscribe()
    }

    /// When the user's sessions changed last, as far as it is known.
    pub(crate) fn sessions_changed(&mut self, user: UserNid) -> Position {
        let slot = self.slot_of(user);
        self.users[slot as usize].as_ref().map_or(self.now, |user| user.sessions_changed)
    }

    /// When the user's devices, what waits for them or the counts of their keys changed last, as far
    /// as it is known.
    pub(crate) fn devices_changed(&mut self, user: UserNid) -> Position {
        let slot = self.slot_of(user);
        self.users[slot as usize].as_ref().map_or(self.now, |user| user.devices_changed)
    }

    /// Which of these rooms have no slot yet.
    pub(crate) fn unknown(&self, rooms: impl Iterator<Item = RoomNid>) -> Vec<RoomNid> {
        rooms.filter(|room| !self.rooms_by_nid.contains_key(room)).collect()
    }

    /// Takes in what the store says of a user's rooms. The table must be at least as new.
    pub(crate) fn install(&mut self, user: UserNid, loaded: Loaded) {
        let user = self.slot_of(user);
        let before =
            self.users[user as usize].as_mut().map(|user| std::mem::take(&mut user.joined));
        let mut left: HashSet<u32> = before.unwrap_or_default().into_iter().collect();
        // Commits after the load passed while the room had no slot: what they touched is unknown.
        let missed = self.now > loaded.at;
        let known: HashMap<_, _> = loaded.rooms.into_iter().collect();
        let joined = |row: &&(RoomNid, MembershipRow)| row.1.membership == Membership::Join;
        let mut slots = Vec::new();
        let mut changed = Position::ZERO;
        for &(nid, _) in loaded.memberships.iter().filter(joined) {
            let slot = self.room_slot(nid, known.get(&nid).copied(), missed);
            let room = &mut self.rooms[slot as usize];
            if !left.remove(&slot) {
                room.watchers.push(user);
            }
            changed = changed.max(room.positions.last());
            slots.push(slot);
        }
        for room in left {
            self.unwatch_room(room, user);
        }
        let user = self.users[user as usize].as_mut().expect("the slot was just found or made");
        user.loaded_at = Some(loaded.at);
        user.memberships = loaded.memberships;
        user.joined = slots;
        // A room that was just joined may have changed while it was not watched.
        user.changed.send_if_modified(|last| {
            let later = changed > *last;
            *last = changed.max(*last);
            later
        });
    }

    fn room_slot(&mut self, nid: RoomNid, loaded: Option<RoomPositions>, missed: bool) -> u32 {
        if let Some(&slot) = self.rooms_by_nid.get(&nid) {
            return slot;
        }
        let missed = missed || loaded.is_none();
        let loaded = loaded.unwrap_or_default();
        let bumped = loaded.bumped.max(self.noted_bump(nid));
        let (events, receipts) =
            if missed { (self.now, self.now) } else { (loaded.events, loaded.receipts) };
        // When members and their devices last changed is not loaded: at the latest now.
        let (members, device_lists) = (events, self.now);
        let positions = RoomPositions {
            events,
            receipts,
            bumped,
            members,
            device_lists,
            ..RoomPositions::default()
        };
        self.rooms.push(RoomSlot { nid, positions, watchers: Vec::new() });
        let slot = u32::try_from(self.rooms.len() - 1).expect("there are fewer rooms than 2^32");
        self.rooms_by_nid.insert(nid, slot);
        slot
    }

    fn unwatch(&mut self, user: u32) {
        let Some(slot) = &mut self.users[user as usize] else { return };
        for room in std::mem::take(&mut slot.joined) {
            self.unwatch_room(room, user);
        }
    }

    fn unwatch_room(&mut self, room: u32, user: u32) {
        let watchers = &mut self.rooms[room as usize].watchers;
        if let Some(index) = watchers.iter().position(|&watcher| watcher == user) {
            watchers.swap_remove(index);
        }
    }

    fn slot_of(&mut self, nid: UserNid) -> u32 {
        if let Some(&slot) = self.users_by_nid.get(&nid) {
            return slot;
        }
        if self.users_by_nid.len() >= self.users_max {
            self.forget_idle();
        }
        let slot = self.users_free.pop().unwrap_or_else(|| {
            self.users.push(None);
            u32::try_from(self.users.len() - 1).expect("there are fewer users than 2^32")
        });
        self.users_by_nid.insert(nid, slot);
        self.users[slot as usize] = Some(UserSlot {
            nid,
            memberships: Arc::default(),
            loaded_at: None,
            joined: Vec::new(),
            memberships_changed: self.now,
            account_data_changed: self.now,
            sessions_changed: self.now,
            devices_changed: self.now,
            changed: watch::Sender::new(self.now),
            used: true,
        });
        slot
    }

    /// Forgets the users who did not sync since this was last done and do not wait.
    fn forget_idle(&mut self) {
        for slot in 0..self.users.len() {
            let Some(user) = &mut self.users[slot] else { continue };
            if std::mem::take(&mut user.used) || user.changed.receiver_count() > 0 {
                continue;
            }
            let nid = user.nid;
            let slot = u32::try_from(slot).expect("slots are numbered in 32 bits");
            self.unwatch(slot);
            self.users[slot as usize] = None;
            self.users_by_nid.remove(&nid);
            self.users_free.push(slot);
        }
    }
}

#[cfg(test)]
mod tests;

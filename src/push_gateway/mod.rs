//! Sends notifications to push gateways, off the way of events: follows the commits, knows which
//! rooms concern which pushers, and runs one task for each pusher.
//!
//! A task wakes up and looks; how far it is stands in `pusher_cursors`, so that nothing is lost or
//! told twice over a restart (a notification may be told again when the server dies between the
//! gateway's answer and the write).
//!
//! <https://spec.matrix.org/v1.19/push-gateway-api/>

mod message;
mod pusher;

use std::{
    collections::{HashMap, HashSet},
    ops::ControlFlow,
    sync::Arc,
};

use kv::{Batch, Commit, Direction, Durability, Feed, Position, Reader, Store};
use parking_lot::Mutex;
use ruma::OwnedUserId;
use tokio::{
    sync::{Notify, Semaphore},
    task::{AbortHandle, JoinSet},
};

use crate::{
    egress::Egress,
    id::{RoomNid, UserNid},
    rooms::Rooms,
    storage::{
        rows::{Membership, push::PusherRow},
        schema::{
            pushers::{PUSHER_CURSORS, PusherKey},
            rooms::MEMBERSHIPS,
        },
        topic,
    },
    tasks::{Stop, Tasks},
    users::{Users, pushers_of, users_with_pushers},
};

/// How many pushers look into the store at once.
const LOOKS_MAX: usize = 8;
/// How many requests to gateways are open at once.
const REQUESTS_MAX: usize = 64;

/// The sending of notifications.
#[derive(Debug)]
pub struct PushGateway;

/// What the tasks need.
struct Parts {
    store: Store,
    rooms: Rooms,
    users: Users,
    egress: Egress,
    looks: Semaphore,
    requests: Semaphore,
    /// The mailboxes hold everything up to here. Held while they are filled and emptied: what a
    /// pusher takes is then all that there is up to the position that it sees.
    served: Mutex<Position>,
}

/// What a pusher has yet to look at.
#[derive(Debug, Default)]
struct Mailbox {
    rooms: Mutex<HashSet<RoomNid>>,
    wake: Notify,
}

impl Mailbox {
    fn put(&self, rooms: impl IntoIterator<Item = RoomNid>) {
        self.rooms.lock().extend(rooms);
        self.wake.notify_one();
    }

    fn take(&self) -> HashSet<RoomNid> {
        std::mem::take(&mut self.rooms.lock())
    }
}

/// A user who has pushers.
struct Owner {
    user_id: OwnedUserId,
    rooms: HashSet<RoomNid>,
    pushers: HashMap<PusherKey, Running>,
}

struct Running {
    row: PusherRow,
    mailbox: Arc<Mailbox>,
    task: AbortHandle,
}

struct Follower {
    parts: Arc<Parts>,
    owners: HashMap<UserNid, Owner>,
    rooms: HashMap<RoomNid, HashSet<UserNid>>,
    /// What the commits that are being taken in will put into mailboxes.
    letters: Vec<(Arc<Mailbox>, Vec<RoomNid>)>,
    tasks: JoinSet<()>,
}

impl PushGateway {
    /// Begins to follow the store's commits.
    pub fn start(rooms: Rooms, users: Users, egress: Egress, tasks: &Tasks) {
        let store = rooms.store().clone();
        // Before anything is read: every later commit is in the feed.
        let feed = store.feed();
        let parts = Arc::new(Parts {
            store,
            rooms,
            users,
            egress,
            looks: Semaphore::new(LOOKS_MAX),
            requests: Semaphore::new(REQUESTS_MAX),
            served: Mutex::default(),
        });
        let follower = Follower {
            parts,
            owners: HashMap::new(),
            rooms: HashMap::new(),
            letters: Vec::new(),
            tasks: JoinSet::new(),
        };
        tasks.spawn(|stop| follower.run(feed, stop));
    }
}

impl Follower {
    async fn run(mut self, mut feed: Feed, mut stop: Stop) {
        let begun = self.parts.store.position();
        if let Err(error) = self.load_all().await {
            tracing::error!(%error, "the pushers cannot be read: notifications come late");
        }
        self.deliver(begun);
        loop {
            tokio::select! {
                () = stop.requested() => break,
                commits = feed.next() => match commits {
                    Some(commits) => self.take_in(&commits).await,
                    None => break,
                },
            }
        }
        self.tasks.shutdown().await;
    }

    async fn load_all(&mut self) -> Result<(), kv::Error> {
        let users = self.parts.store.read(users_with_pushers).await?;
        for user_id in users {
            self.load(user_id).await?;
        }
        Ok(())
    }

    async fn take_in(&mut self, commits: &[Commit]) {
        while self.tasks.try_join_next().is_some() {}
        let topics: HashSet<_> = commits.iter().flat_map(|commit| commit.topics.iter()).collect();
        for topic in topics {
            let taken = match topic.space {
                topic::ROOM_EVENTS | topic::ROOM_RECEIPTS => {
                    self.touch_room(RoomNid(topic.id));
                    Ok(())
                }
                topic::USER_MEMBERSHIPS => self.reload_rooms(UserNid(topic.id)).await,
                topic::PUSHERS => self.reload(UserNid(topic.id)).await,
                _ => Ok(()),
            };
            if let Err(error) = taken {
                tracing::error!(%error, "a change that concerns a pusher was missed");
            }
        }
        self.deliver(commits.last().map_or(Position::ZERO, |commit| commit.last));
    }

    /// Fills the mailboxes: all that concerns them up to this position is known now.
    fn deliver(&mut self, upto: Position) {
        let mut served = self.parts.served.lock();
        for (mailbox, rooms) in self.letters.drain(..) {
            mailbox.put(rooms);
        }
        *served = upto.max(*served);
    }

    fn touch_room(&mut self, room: RoomNid) {
        for user in self.rooms.get(&room).into_iter().flatten() {
            for running in
                self.owners.get(user).into_iter().flat_map(|owner| owner.pushers.values())
            {
                self.letters.push((running.mailbox.clone(), vec![room]));
            }
        }
    }

    /// A user's pushers changed.
    async fn reload(&mut self, user: UserNid) -> Result<(), kv::Error> {
        let user_id = if let Some(owner) = self.owners.get(&user) {
            Some(owner.user_id.clone())
        } else {
            // The user's first one.
            let interner = *self.parts.rooms.interner();
            let all = self.parts.store.read(users_with_pushers).await?;
            all.into_iter().find(|user_id| interner.user(user_id) == user)
        };
        match user_id {
            Some(user_id) => self.load(user_id).await,
            None => Ok(()),
        }
    }

    async fn load(&mut self, user_id: OwnedUserId) -> Result<(), kv::Error> {
        let user = self.parts.rooms.interner().user(&user_id);
        let name = user_id.to_string();
        let (rooms, pushers) = self
            .parts
            .store
            .read(move |reader| {
                Ok::<_, kv::Error>((rooms_of(reader, &name)?, pushers_of(reader, &name)?))
            })
            .await?;
        self.set_rooms(user, &user_id, rooms);
        let Some(owner) = self.owners.get_mut(&user) else { return Ok(()) };
        let wanted: HashMap<PusherKey, PusherRow> = pushers.into_iter().collect();
        let mut gone = Batch::new();
        owner.pushers.retain(|key, running| {
            let stays = wanted.get(key) == Some(&running.row);
            if !stays {
                running.task.abort();
            }
            if !wanted.contains_key(key) {
                gone.delete(&PUSHER_CURSORS, key);
            }
            stays
        });
        for (key, row) in wanted {
            if owner.pushers.contains_key(&key) {
                continue;
            }
            let mailbox = Arc::new(Mailbox::default());
            self.letters.push((mailbox.clone(), owner.rooms.iter().copied().collect()));
            let task = pusher::run(self.parts.clone(), (key.clone(), row.clone()), mailbox.clone());
            let task = self.tasks.spawn(task);
            owner.pushers.insert(key, Running { row, mailbox, task });
        }
        if owner.pushers.is_empty() {
            self.set_rooms(user, &user_id, HashSet::new());
            self.owners.remove(&user);
        }
        if !gone.is_empty() {
            drop(self.parts.store.submit(gone, Durability::Buffered));
        }
        Ok(())
    }

    async fn reload_rooms(&mut self, user: UserNid) -> Result<(), kv::Error> {
        let Some(owner) = self.owners.get(&user) else { return Ok(()) };
        let (user_id, before) = (owner.user_id.clone(), owner.rooms.clone());
        let name = user_id.to_string();
        let rooms = self.parts.store.read(move |reader| rooms_of(reader, &name)).await?;
        self.set_rooms(user, &user_id, rooms.clone());
        if let Some(owner) = self.owners.get(&user) {
            for running in owner.pushers.values() {
                // A room that was left is looked at once more: nothing in it is unread.
                let changed = rooms.symmetric_difference(&before).copied().collect();
                self.letters.push((running.mailbox.clone(), changed));
            }
        }
        Ok(())
    }

    fn set_rooms(&mut self, user: UserNid, user_id: &OwnedUserId, rooms: HashSet<RoomNid>) {
        let owner = self.owners.entry(user).or_insert_with(|| Owner {
            user_id: user_id.clone(),
            rooms: HashSet::new(),
            pushers: HashMap::new(),
        });
        for room in owner.rooms.difference(&rooms) {
            if let Some(users) = self.rooms.get_mut(room) {
                users.remove(&user);
                if users.is_empty() {
                    self.rooms.remove(room);
                }
            }
        }
        for &room in &rooms {
            self.rooms.entry(room).or_default().insert(user);
        }
        owner.rooms = rooms;
    }
}

/// The rooms that a user has joined or is invited to.
fn rooms_of(reader: &Reader<'_>, user_id: &String) -> Result<HashSet<RoomNid>, kv::Error> {
    let mut rooms = HashSet::new();
    let range = MEMBERSHIPS.prefix(user_id);
    reader.for_each(&MEMBERSHIPS, &range, Direction::Forward, |key, row| {
        if matches!(row.membership, Membership::Join | Membership::Invite) {
            rooms.insert(key.room);
        }
        ControlFlow::Continue(())
    })?;
    Ok(rooms)
}

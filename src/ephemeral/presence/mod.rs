//! Who is there: presence, in memory, with what must outlive a restart in two small tables.
//!
//! What a user does ([`Presence::syncs`], [`Presence::is_active`], [`Presence::set`]) changes the
//! user's `Person`; one task tells what others see of it, when that changed: it commits a batch
//! that touches the user's joined rooms, so that those who wait there look. Who comes later reads
//! the presence of everybody who was seen since the start. Receipt and typing aside, nothing here
//! is durable: a 200 for a status message does not promise that it survives a power cut.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#presence>

mod event;
mod person;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::{Bound, ControlFlow},
    sync::Arc,
    time::Duration,
};

use kv::{Batch, Commit, Direction, Durability, Json, Position, Store};
use parking_lot::Mutex;
use ruma::{OwnedDeviceId, OwnedUserId, UserId};
use tokio::sync::Notify;

pub use self::event::{PresenceEvent, TYPE};
use self::person::Person;
pub use self::person::PresenceState;
use crate::{
    error::ApiError,
    id::{Interner, RoomNid, UserNid},
    storage::{
        rows::Membership,
        schema::{
            ephemeral::{PRESENCE, PRESENCE_SHOWN, PresenceRow},
            rooms::MEMBERSHIPS,
        },
        topic,
    },
    tasks::{Stop, Tasks},
    time::Clock,
};

/// The longest status message.
pub const STATUS_BYTES_MAX: usize = 1024;
/// How often it is looked who became idle or is gone.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Everybody's presence. Cheap to clone.
#[derive(Clone)]
pub struct Presence(Arc<Inner>);

struct Inner {
    store: Store,
    interner: Interner,
    clock: Clock,
    enabled: bool,
    known: Mutex<Known>,
    /// Tells the task that somebody's presence may have changed.
    changed: Notify,
}

#[derive(Default)]
struct Known {
    people: HashMap<UserNid, Person>,
    /// Who was told last at which position: those of `people` with a `told_at`.
    told: BTreeMap<Position, UserNid>,
    /// Who is being told, so that the position is not known: with a `told_at` of `Position::MAX`.
    telling: BTreeSet<UserNid>,
    /// Who may have to be told anew.
    dirty: BTreeSet<UserNid>,
    /// The same, whether it changed or not: they joined or left a room.
    moved: BTreeSet<UserNid>,
}

/// A sync that waits; the device counts as connected until it is dropped, and a while longer.
pub struct Syncing {
    presence: Presence,
    user: UserNid,
    device_id: OwnedDeviceId,
}

/// What is said of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserPresence {
    /// Who.
    pub user_id: OwnedUserId,
    /// How the user is.
    pub state: PresenceState,
    /// The status message.
    pub status_msg: Option<String>,
    /// How long ago the last sign of the user was; `None` when it is not known.
    pub last_active_ago: Option<Duration>,
    /// Whether there was a sign of the user in the last minutes.
    pub currently_active: bool,
}

impl std::fmt::Debug for Presence {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Presence")
    }
}

impl std::fmt::Debug for Syncing {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Syncing({:?})", self.user)
    }
}

impl Drop for Syncing {
    fn drop(&mut self) {
        let inner = &self.presence.0;
        let now = inner.clock.monotonic();
        if let Some(person) = inner.known.lock().people.get_mut(&self.user) {
            person.sync_ends(&self.device_id, now);
        }
    }
}

impl Presence {
    /// Nothing is kept and nothing is told.
    pub fn disabled(store: Store, interner: Interner, clock: Clock) -> Self {
        Self::new(store, interner, clock, false)
    }

    /// Begins with those who were shown as present when the server stopped: they are offline now.
    pub async fn start(
        store: Store,
        interner: Interner,
        clock: Clock,
        tasks: &Tasks,
    ) -> Result<Self, ApiError> {
        let presence = Self::new(store, interner, clock, true);
        presence.load().await?;
        let task = presence.clone();
        tasks.spawn(move |stop| task.run(stop));
        Ok(presence)
    }

    fn new(store: Store, interner: Interner, clock: Clock, enabled: bool) -> Self {
        let (known, changed) = (Mutex::default(), Notify::new());
        Self(Arc::new(Inner { store, interner, clock, enabled, known, changed }))
    }

    /// Whether the server keeps presence at all.
    pub fn is_enabled(&self) -> bool {
        self.0.enabled
    }

    /// A device begins to sync. `state`: what its client says; `None`: nothing, which means online.
    pub async fn syncs(
        &self,
        user_id: &UserId,
        device_id: &OwnedDeviceId,
        state: Option<PresenceState>,
    ) -> Result<Option<Syncing>, ApiError> {
        if !self.0.enabled {
            return Ok(None);
        }
        let said = (state.unwrap_or(PresenceState::Online), state.is_some());
        let user = self.change(user_id, |person, now| person.sync_begins(device_id, said, now));
        let (presence, device_id) = (self.clone(), device_id.clone());
        Ok(Some(Syncing { user: user.await?, presence, device_id }))
    }

    /// A user does something: sends, reads, types.
    pub fn is_active(&self, user_id: &UserId) {
        if !self.0.enabled {
            return;
        }
        let user = self.0.interner.user(user_id);
        let now = self.0.now();
        let mut known = self.0.known.lock();
        // Who does not sync is not online, whatever they do.
        if let Some(person) = known.people.get_mut(&user) {
            person.is_active(now);
            if person.shown(now.0) != person.told {
                known.dirty.insert(user);
                self.0.changed.notify_one();
            }
        }
    }

    /// A user says how they are.
    pub async fn set(
        &self,
        user_id: &UserId,
        device_id: &OwnedDeviceId,
        said: (PresenceState, Option<String>),
    ) -> Result<(), ApiError> {
        if !self.0.enabled {
            return Ok(());
        }
        self.change(user_id, |person, now| person.choose(device_id, said.clone(), now)).await?;
        let row = PresenceRow { chosen: (said.0 as u8), status_msg: said.1 };
        let mut batch = Batch::new();
        batch.put(&PRESENCE, &user_id.to_string(), &Json(row));
        self.0.store.commit(batch, Durability::Buffered).await?;
        Ok(())
    }

    /// Forgets how a user is, whose account is no more: the others are told that the user is
    /// offline. May be done again.
    pub async fn forget(&self, user_id: &UserId) -> Result<(), ApiError> {
        let mut batch = Batch::new();
        batch.delete(&PRESENCE, &user_id.to_string());
        self.0.store.commit(batch, Durability::Buffered).await?;
        let user = self.0.interner.user(user_id);
        if let Some(person) = self.0.known.lock().people.get_mut(&user) {
            person.is_gone();
        }
        self.0.tell_one(user, false).await
    }

    /// How a user is.
    pub async fn get(&self, user_id: &UserId) -> Result<UserPresence, ApiError> {
        let user = self.0.interner.user(user_id);
        let now = self.0.now();
        if let Some(person) = self.0.known.lock().people.get_mut(&user) {
            return Ok(describe(person, now));
        }
        let mut person = self.0.stored(user_id).await?;
        Ok(describe(&mut person, now))
    }

    /// Whose presence was told after `since` (`None`: of all who are there) and up to `until`, in
    /// one of these rooms, which are sorted. With `everybody`, those who were not told anew too.
    pub fn told(
        &self,
        since: Option<Position>,
        until: Position,
        rooms: &[RoomNid],
    ) -> Vec<UserPresence> {
        let now = self.0.now();
        let mut known = self.0.known.lock();
        let Known { people, told, telling, .. } = &mut *known;
        let Some(since) = since else {
            let is_there = |person: &Person| person.told.state != PresenceState::Offline;
            let people = people.values_mut();
            return people
                .filter(|person| is_there(person) && share(&person.rooms, rooms))
                .map(|person| describe(person, now))
                .collect();
        };
        if since > until {
            return Vec::new();
        }
        // While it is told, its position is not known: told twice is better than never.
        let range = (Bound::Excluded(since), Bound::Included(until));
        let news = told.range(range).map(|(_, user)| user).chain(telling.iter());
        let mut found = Vec::new();
        for user in news {
            if let Some(person) = people.get_mut(user).filter(|p| share(&p.rooms, rooms)) {
                found.push(describe(person, now));
            }
        }
        found
    }

    async fn load(&self) -> Result<(), ApiError> {
        let store = self.0.store.clone();
        let shown = store
            .read(|reader| {
                let mut users = Vec::new();
                let all = PRESENCE_SHOWN.prefix(&());
                reader.for_each(&PRESENCE_SHOWN, &all, Direction::Forward, |user_id, ()| {
                    users.push(user_id);
                    ControlFlow::Continue(())
                })?;
                Ok::<_, kv::Error>(users)
            })
            .await?;
        for user_id in shown {
            let Ok(user_id) = OwnedUserId::try_from(user_id) else { continue };
            let mut person = self.0.stored(&user_id).await?;
            // Those who knew them as present must learn that they are not.
            person.told.state = PresenceState::Online;
            let user = self.0.interner.user(&user_id);
            let mut known = self.0.known.lock();
            known.people.insert(user, person);
            known.dirty.insert(user);
        }
        self.0.changed.notify_one();
        Ok(())
    }

    /// Changes what is known of a user and sees to it that others learn of it.
    async fn change(
        &self,
        user_id: &UserId,
        change: impl FnOnce(&mut Person, (Duration, u64)),
    ) -> Result<UserNid, ApiError> {
        let user = self.0.interner.user(user_id);
        let is_known = self.0.known.lock().people.contains_key(&user);
        let stored = if is_known { None } else { Some(self.0.stored(user_id).await?) };
        let now = self.0.now();
        let mut known = self.0.known.lock();
        let fresh = || stored.unwrap_or_else(|| Person::new(user_id.to_owned()));
        let person = known.people.entry(user).or_insert_with(fresh);
        change(person, now);
        if person.shown(now.0) != person.told {
            known.dirty.insert(user);
            self.0.changed.notify_one();
        }
        Ok(user)
    }

    async fn run(self, mut stop: Stop) {
        let mut feed = self.0.store.feed();
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                () = stop.requested() => return,
                () = self.0.changed.notified() => {}
                _ = look.tick() => self.0.look(),
                commits = feed.next() => match commits {
                    Some(commits) if self.0.follow(&commits) => {}
                    Some(_) => continue,
                    None => return,
                },
            }
            if let Err(error) = self.0.tell().await {
                tracing::warn!(%error, "changes of presence are not told");
            }
        }
    }
}

impl Inner {
    fn now(&self) -> (Duration, u64) {
        (self.clock.monotonic(), self.clock.now().get().into())
    }

    async fn stored(&self, user_id: &UserId) -> Result<Person, ApiError> {
        let key = user_id.to_string();
        let row = self.store.read(move |reader| reader.get(&PRESENCE, &key)).await?;
        let mut person = Person::new(user_id.to_owned());
        if let Some(Json(row)) = row {
            person.chosen = match row.chosen {
                number if number == PresenceState::Offline as u8 => Some(PresenceState::Offline),
                number if number == PresenceState::Busy as u8 => Some(PresenceState::Busy),
                // Who was away comes back, and online needs no choice.
                _ => None,
            };
            person.status_msg = row.status_msg;
        }
        Ok(person)
    }

    /// Notes who became idle or is gone.
    fn look(&self) {
        let now = self.clock.monotonic();
        let mut known = self.known.lock();
        let Known { people, dirty, told, .. } = &mut *known;
        people.retain(|user, person| {
            if person.shown(now) != person.told {
                dirty.insert(*user);
            }
            let is_over = person.is_over(now);
            if is_over {
                told.remove(&person.told_at);
            }
            !is_over
        });
    }

    /// Notes who joined or left rooms: their presence is told where they are now.
    fn follow(&self, commits: &[Commit]) -> bool {
        let mut known = self.known.lock();
        let topics = commits.iter().flat_map(|commit| commit.topics.iter());
        for topic in topics.filter(|topic| topic.space == topic::USER_MEMBERSHIPS) {
            let user = UserNid(topic.id);
            let is_there = |person: &Person| person.told.state != PresenceState::Offline;
            if known.people.get(&user).is_some_and(is_there) {
                known.moved.insert(user);
            }
        }
        !known.moved.is_empty()
    }

    async fn tell(&self) -> Result<(), ApiError> {
        let (dirty, moved) = {
            let mut known = self.known.lock();
            (std::mem::take(&mut known.dirty), std::mem::take(&mut known.moved))
        };
        for user in dirty.union(&moved) {
            self.tell_one(*user, moved.contains(user)).await?;
        }
        Ok(())
    }

    async fn tell_one(&self, user: UserNid, moved: bool) -> Result<(), ApiError> {
        let now = self.clock.monotonic();
        let user_id = {
            let mut known = self.known.lock();
            let Some(person) = known.people.get_mut(&user) else { return Ok(()) };
            if person.shown(now) == person.told && !moved {
                return Ok(());
            }
            person.user_id.to_string()
        };
        let rooms = self.joined(user_id.clone()).await?;
        let mut batch = Batch::new();
        batch.reserve_positions(1);
        for room in &rooms {
            batch.touch(topic::room(topic::ROOM_PRESENCE, *room));
        }
        {
            let mut known = self.known.lock();
            let Known { people, told, telling, .. } = &mut *known;
            let Some(person) = people.get_mut(&user) else { return Ok(()) };
            let shown = person.shown(now);
            let was_there = person.told.state != PresenceState::Offline;
            let is_there = shown.state != PresenceState::Offline;
            if is_there && !was_there {
                batch.put(&PRESENCE_SHOWN, &user_id, &());
            } else if was_there && !is_there {
                batch.delete(&PRESENCE_SHOWN, &user_id);
            }
            person.told = shown;
            told.remove(&person.told_at);
            telling.insert(user);
            person.told_at = Position::MAX;
            person.rooms = rooms.into();
        }
        let committed = self.store.commit(batch, Durability::Buffered).await;
        if let Ok(told_at) = &committed {
            let mut known = self.known.lock();
            let Known { people, told, telling, .. } = &mut *known;
            if let Some(person) = people.get_mut(&user) {
                person.told_at = *told_at;
                told.insert(*told_at, user);
                telling.remove(&user);
            }
        }
        committed.map(drop).map_err(ApiError::from)
    }

    /// The rooms a user has joined, sorted.
    async fn joined(&self, user_id: String) -> Result<Vec<RoomNid>, ApiError> {
        let range = MEMBERSHIPS.prefix(&user_id);
        let read = self.store.read(move |reader| {
            let mut rooms = Vec::new();
            reader.for_each(&MEMBERSHIPS, &range, Direction::Forward, |key, row| {
                if row.membership == Membership::Join {
                    rooms.push(key.room);
                }
                ControlFlow::Continue(())
            })?;
            rooms.sort_unstable();
            Ok::<_, kv::Error>(rooms)
        });
        Ok(read.await?)
    }
}

fn describe(person: &mut Person, (now, now_ts): (Duration, u64)) -> UserPresence {
    let shown = person.shown(now);
    let is_present = shown.state >= PresenceState::Online;
    UserPresence {
        user_id: person.user_id.clone(),
        state: shown.state,
        status_msg: shown.status_msg,
        last_active_ago: (person.active_ts > 0)
            .then(|| Duration::from_millis(now_ts.saturating_sub(person.active_ts))),
        currently_active: is_present && person.currently_active(now),
    }
}

/// Whether two sorted lists share a room.
fn share(one: &[RoomNid], other: &[RoomNid]) -> bool {
    let (short, long) = if one.len() < other.len() { (one, other) } else { (other, one) };
    short.iter().any(|room| long.binary_search(room).is_ok())
}

//! Who types in which room. Held in memory alone: after a restart nobody types.
//!
//! A change of who types commits an empty batch that touches the room, so that it has a position
//! among all others and wakes those who wait. One task per room in which somebody types ends what
//! is not renewed; it ends itself when nobody types any more.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#typing-notifications>

use std::{collections::HashMap, sync::Arc, time::Duration};

use kv::{Batch, CommitError, Durability, Store};
use parking_lot::Mutex;
use ruma::{OwnedUserId, UserId};
use tokio::{sync::Notify, time::Instant};

use crate::{id::RoomNid, storage::topic};

/// How long somebody types without saying so again.
pub const TYPING_MAX: Duration = Duration::from_secs(30);

/// Who types. Cheap to clone.
#[derive(Clone)]
pub struct Typing(Arc<Inner>);

struct Inner {
    store: Store,
    rooms: Mutex<HashMap<RoomNid, RoomTyping>>,
}

/// Who types in a room. While it exists, a task watches over it.
#[derive(Default)]
struct RoomTyping {
    /// In the order of their start.
    typists: Vec<Typist>,
    /// Tells the task to look again.
    changed: Arc<Notify>,
}

struct Typist {
    user_id: OwnedUserId,
    until: Instant,
}

impl std::fmt::Debug for Typing {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Typing")
    }
}

impl Typing {
    /// Nobody types yet.
    pub fn new(store: Store) -> Self {
        Self(Arc::new(Inner { store, rooms: Mutex::default() }))
    }

    /// The users who type in a room.
    pub fn users(&self, room: RoomNid) -> Vec<OwnedUserId> {
        let rooms = self.0.rooms.lock();
        let typists = rooms.get(&room).map_or(&[][..], |room| &room.typists);
        typists.iter().map(|typist| typist.user_id.clone()).collect()
    }

    /// Notes that a user types for at most this long.
    pub async fn start(
        &self,
        room: RoomNid,
        user_id: &UserId,
        timeout: Duration,
    ) -> Result<(), CommitError> {
        let until = Instant::now() + timeout.min(TYPING_MAX);
        if self.note(room, user_id, until) { self.touch(room).await } else { Ok(()) }
    }

    /// Whether the user is new among those who type.
    fn note(&self, room: RoomNid, user_id: &UserId, until: Instant) -> bool {
        let mut rooms = self.0.rooms.lock();
        let typing = rooms.entry(room).or_insert_with(|| {
            tokio::spawn(self.clone().expire(room));
            RoomTyping::default()
        });
        typing.changed.notify_one();
        if let Some(typist) = typing.typists.iter_mut().find(|t| t.user_id == user_id) {
            typist.until = until;
            return false;
        }
        typing.typists.push(Typist { user_id: user_id.to_owned(), until });
        true
    }

    /// Notes that a user types no more.
    pub async fn stop(&self, room: RoomNid, user_id: &UserId) -> Result<(), CommitError> {
        let was_there = {
            let mut rooms = self.0.rooms.lock();
            rooms.get_mut(&room).is_some_and(|typing| {
                let before = typing.typists.len();
                typing.typists.retain(|typist| typist.user_id != user_id);
                typing.changed.notify_one();
                typing.typists.len() < before
            })
        };
        if was_there { self.touch(room).await } else { Ok(()) }
    }

    /// Ends what is not renewed, until nobody types in the room.
    async fn expire(self, room: RoomNid) {
        loop {
            let (expired, next) = self.remove_expired(room);
            if expired && let Err(error) = self.touch(room).await {
                tracing::debug!(%error, "the end of typing was not told");
            }
            let Some((next, changed)) = next else { return };
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = changed.notified() => {}
            }
        }
    }

    /// Whether somebody's time was over, and when to look again.
    fn remove_expired(&self, room: RoomNid) -> (bool, Option<(Instant, Arc<Notify>)>) {
        let mut rooms = self.0.rooms.lock();
        let Some(typing) = rooms.get_mut(&room) else { return (false, None) };
        let (before, now) = (typing.typists.len(), Instant::now());
        typing.typists.retain(|typist| typist.until > now);
        let expired = typing.typists.len() < before;
        let Some(next) = typing.typists.iter().map(|typist| typist.until).min() else {
            rooms.remove(&room);
            return (expired, None);
        };
        (expired, Some((next, typing.changed.clone())))
    }

    async fn touch(&self, room: RoomNid) -> Result<(), CommitError> {
        let mut batch = Batch::new();
        batch.reserve_positions(1);
        batch.touch(topic::room(topic::ROOM_TYPING, room));
        self.0.store.commit(batch, Durability::Buffered).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;
    use crate::storage::schema::FAMILIES;

    #[tokio::test]
    async fn typing_ends_by_itself() {
        let typing = Typing::new(Store::memory(&FAMILIES));
        let (alice, bob) = (user_id!("@alice:hs1"), user_id!("@bob:hs1"));
        let until = |typing: &Typing, room| {
            let rooms = typing.0.rooms.lock();
            rooms[&room].typists.iter().map(|typist| typist.until).max()
        };
        typing.start(RoomNid(1), bob, Duration::from_mins(10)).await.unwrap();
        assert!(until(&typing, RoomNid(1)) <= Some(Instant::now() + TYPING_MAX));
        typing.start(RoomNid(1), alice, Duration::from_millis(30)).await.unwrap();
        assert_eq!(typing.users(RoomNid(1)), [bob, alice]);
        let before = typing.0.store.position();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(typing.users(RoomNid(1)), [bob]);
        assert!(typing.0.store.position() > before, "the end is told");
        typing.stop(RoomNid(1), bob).await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert!(typing.0.rooms.lock().is_empty());
    }

    #[tokio::test]
    async fn only_changes_are_told() {
        let typing = Typing::new(Store::memory(&FAMILIES));
        let alice = user_id!("@alice:hs1");
        typing.stop(RoomNid(1), alice).await.unwrap();
        let before = typing.0.store.position();
        typing.start(RoomNid(1), alice, TYPING_MAX).await.unwrap();
        let started = typing.0.store.position();
        assert!(started > before);
        typing.start(RoomNid(1), alice, TYPING_MAX).await.unwrap();
        assert_eq!(typing.0.store.position(), started);
        typing.stop(RoomNid(1), alice).await.unwrap();
        assert!(typing.0.store.position() > started);
        assert!(typing.users(RoomNid(1)).is_empty());
    }
}

//! Follows the commits and tells those who sync that something is new for them.
//!
//! One task takes every commit, in order, into the `RoomTable`. A wake-up carries no data: who is
//! woken looks into the table and, only where something changed, into the store.

use std::{ops::ControlFlow, sync::Arc};

use kv::{Direction, Feed, Position, Reader, Store};
use parking_lot::Mutex;
use ruma::UserId;
use tokio::sync::watch;

use super::room_table::{Loaded, Look, RoomPositions, RoomTable};
use crate::{
    error::ApiError,
    id::{Interner, RoomNid, UserNid},
    storage::{
        rows::{Membership, TimelinePosition},
        schema::{
            ephemeral::{RECEIPTS_BY_POSITION, ReceiptPositionKey},
            rooms::{MEMBERSHIPS, ROOM_BUMPS, TIMELINE, TimelineKey},
        },
    },
};

/// How many users' rooms are kept in memory; those who wait always are.
const USERS_MAX: usize = 100_000;

/// Knows what is new for whom. Cheap to clone.
#[derive(Clone)]
pub struct Notifier(Arc<Inner>);

struct Inner {
    store: Store,
    interner: Interner,
    table: Mutex<RoomTable>,
    /// How far the table is.
    followed: watch::Sender<Position>,
    stopped: watch::Sender<bool>,
}

impl std::fmt::Debug for Notifier {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Notifier(at {})", *self.0.followed.borrow())
    }
}

impl Notifier {
    /// Begins to follow the store's commits, on a task that ends with the store.
    pub fn start(store: Store, interner: Interner) -> Self {
        // In this order: every commit after the position is in the feed.
        let feed = store.feed();
        let now = store.position();
        let inner = Inner {
            store,
            interner,
            table: Mutex::new(RoomTable::new(now, USERS_MAX)),
            followed: watch::Sender::new(now),
            stopped: watch::Sender::new(false),
        };
        let notifier = Self(Arc::new(inner));
        tokio::spawn(notifier.clone().follow(feed));
        notifier
    }

    async fn follow(self, mut feed: Feed) {
        while let Some(commits) = feed.next().await {
            let now = {
                let mut table = self.0.table.lock();
                for commit in &commits {
                    table.apply(commit);
                }
                table.now()
            };
            self.0.followed.send_replace(now);
        }
        self.stop();
    }

    /// Ends every wait, now and from now on.
    pub fn stop(&self) {
        self.0.stopped.send_replace(true);
    }

    /// Tells when the server stops.
    pub(crate) fn stopped(&self) -> watch::Receiver<bool> {
        self.0.stopped.subscribe()
    }

    /// Waits until all that was committed up to `position` is known here.
    pub async fn wait_until(&self, position: Position) {
        let mut followed = self.0.followed.subscribe();
        let mut stopped = self.stopped();
        tokio::select! {
            biased;
            // The senders live as long as `self`.
            _ = followed.wait_for(|now| *now >= position) => {}
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
    }

    /// The number of a user.
    pub(crate) fn user(&self, user_id: &UserId) -> UserNid {
        self.0.interner.user(user_id)
    }

    /// Tells of every change that concerns the user.
    pub(crate) fn changes(&self, user: UserNid) -> watch::Receiver<Position> {
        self.0.table.lock().changes(user)
    }

    /// When the user's sessions changed last, as far as it is known.
    pub(crate) fn sessions_changed(&self, user: UserNid) -> Position {
        self.0.table.lock().sessions_changed(user)
    }

    /// When the user's devices, what waits for them or the counts of their keys changed last, as far
    /// as it is known.
    pub(crate) fn devices_changed(&self, user: UserNid) -> Position {
        self.0.table.lock().devices_changed(user)
    }

    /// What is new for a user since then (`None`: everything). Reads the store only when the user's
    /// memberships changed, and at the user's first sync.
    pub(crate) async fn look(
        &self,
        user_id: &UserId,
        since: Option<Position>,
    ) -> Result<Look, ApiError> {
        let user = self.user(user_id);
        loop {
            let look = self.0.table.lock().look(user, since);
            if let Some(look) = look {
                return Ok(look);
            }
            let (inner, user_id) = (self.0.clone(), user_id.to_string());
            let loaded = self.0.store.read(move |reader| inner.load(reader, &user_id)).await?;
            let newest = loaded.memberships.iter().map(|(_, row)| row.position).max();
            self.wait_until(newest.unwrap_or_default().max(loaded.at)).await;
            if *self.0.stopped.borrow() {
                return Err(ApiError::unavailable("The server stops"));
            }
            self.0.table.lock().install(user, loaded);
        }
    }
}

impl Inner {
    fn load(&self, reader: &Reader<'_>, user_id: &String) -> Result<Loaded, kv::Error> {
        let at = reader.position();
        let mut memberships = Vec::new();
        let range = MEMBERSHIPS.prefix(user_id);
        reader.for_each(&MEMBERSHIPS, &range, Direction::Forward, |key, row| {
            memberships.push((key.room, row));
            ControlFlow::Continue(())
        })?;
        let joined = memberships.iter().filter(|(_, row)| row.membership == Membership::Join);
        let unknown = self.table.lock().unknown(joined.map(|&(room, _)| room));
        let rooms = unknown
            .into_iter()
            .map(|room| Ok((room, last_positions(reader, room)?)))
            .collect::<Result<_, kv::Error>>()?;
        Ok(Loaded { at, memberships: memberships.into(), rooms })
    }
}

fn last_positions(reader: &Reader<'_>, room: RoomNid) -> Result<RoomPositions, kv::Error> {
    let end = TimelineKey { room, position: TimelinePosition::END };
    let event = reader.last_at_or_before(&TIMELINE, &room, &end)?;
    let end = ReceiptPositionKey { room, position: Position::MAX };
    let receipt = reader.last_at_or_before(&RECEIPTS_BY_POSITION, &room, &end)?;
    Ok(RoomPositions {
        events: event.map_or(Position::ZERO, |(key, _)| key.position.position),
        receipts: receipt.map_or(Position::ZERO, |(key, _)| key.position),
        bumped: reader.get(&ROOM_BUMPS, &room)?.unwrap_or_default(),
        ..RoomPositions::default()
    })
}

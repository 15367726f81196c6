//! Thread subscriptions (MSC4306): which threads a user follows.
//!
//! A client follows a thread for its user when that user is mentioned in it (`automatic`), unless
//! the user has stopped following the thread after the event that gave the reason. Each thread has
//! one row, in the order of changes too, so that sync reads what changed and nothing else.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/4306>

use std::ops::{Bound, ControlFlow};

use kv::{Batch, Direction, Position, Reader, Store};
use ruma::{EventId, OwnedEventId, UserId};

use super::accounts::{ATTEMPTS, busy, commit};
use crate::{
    error::ApiError,
    id::{Interner, RoomNid},
    storage::{
        rows::{TimelinePosition, users::ThreadSubscriptionRow},
        schema::users::{
            THREAD_SUBSCRIPTION_CHANGES, THREAD_SUBSCRIPTIONS, ThreadSubscriptionChangeKey,
            ThreadSubscriptionKey,
        },
        topic,
    },
};

/// The most threads that one user's rows are about.
const THREADS_MAX: usize = 10_000;

/// A thread and what its user wants of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadSubscription {
    /// The room.
    pub room: RoomNid,
    /// The thread's root.
    pub thread: OwnedEventId,
    /// What is stored of it.
    pub row: ThreadSubscriptionRow,
}

/// Reads and changes which threads users follow.
#[derive(Clone)]
pub struct ThreadSubscriptions {
    store: Store,
    interner: Interner,
}

impl ThreadSubscriptions {
    pub(super) fn new(store: Store, interner: Interner) -> Self {
        Self { store, interner }
    }

    /// Whether the user follows a thread and why; `None`: not.
    pub fn read(
        &self,
        reader: &Reader<'_>,
        user_id: &UserId,
        (room, thread): (RoomNid, &EventId),
    ) -> Result<Option<ThreadSubscriptionRow>, kv::Error> {
        let row = reader.get(&THREAD_SUBSCRIPTIONS, &key(user_id, room, thread))?;
        Ok(row.filter(|row| row.subscribed))
    }

    /// [`ThreadSubscriptions::read`] as a step of its own.
    pub async fn get(
        &self,
        user_id: &UserId,
        room: RoomNid,
        thread: &EventId,
    ) -> Result<Option<ThreadSubscriptionRow>, ApiError> {
        let key = key(user_id, room, thread);
        let row = self.store.read(move |reader| reader.get(&THREAD_SUBSCRIPTIONS, &key)).await?;
        Ok(row.filter(|row| row.subscribed))
    }

    /// Follows a thread. `cause` is the place of the event for whose sake a client does so by
    /// itself.
    ///
    /// # Errors
    /// 409 `IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION` when the user stopped following after
    /// that event.
    pub async fn subscribe(
        &self,
        user_id: &UserId,
        (room, thread): (RoomNid, &EventId),
        cause: Option<TimelinePosition>,
    ) -> Result<(), ApiError> {
        let key = key(user_id, room, thread);
        self.change(user_id, &key, |row| match row {
            // What the user decided is not undone by a client.
            Some(row) if row.subscribed && (cause.is_some() || !row.automatic) => Ok(None),
            Some(row)
                if !row.subscribed
                    && cause.is_some_and(|at| at <= TimelinePosition::live(row.position)) =>
            {
                let errcode = "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION";
                let message = "The user has stopped following the thread since";
                Err(ApiError::new(http::StatusCode::CONFLICT, errcode, message))
            }
            _ => Ok(Some((true, cause.is_some()))),
        })
        .await
    }

    /// Follows a thread no longer.
    pub async fn unsubscribe(
        &self,
        user_id: &UserId,
        room: RoomNid,
        thread: &EventId,
    ) -> Result<(), ApiError> {
        let key = key(user_id, room, thread);
        // Kept also for a thread that was not followed: an older mention must not count any more.
        self.change(user_id, &key, |row| {
            Ok(row.is_none_or(|row| row.subscribed).then_some((false, false)))
        })
        .await
    }

    /// What changed after `after` and before `before` (`None`: until now), the newest first.
    pub fn changes(
        &self,
        reader: &Reader<'_>,
        user_id: &UserId,
        (after, before): (Position, Option<Position>),
        limit: usize,
    ) -> Result<Vec<ThreadSubscription>, kv::Error> {
        let user = user_id.to_string();
        let start = (user.clone(), after);
        let keys = match before {
            Some(before) => {
                let end = (user, before);
                let bounds = (Bound::Excluded(&start), Bound::Excluded(&end));
                if before <= after {
                    return Ok(Vec::new());
                }
                THREAD_SUBSCRIPTION_CHANGES.range(bounds.0, bounds.1)
            }
            None => {
                THREAD_SUBSCRIPTION_CHANGES.range(Bound::Excluded(&start), Bound::Included(&user))
            }
        };
        let rows = reader.scan(&THREAD_SUBSCRIPTION_CHANGES, &keys, Direction::Backward, limit)?;
        let mut changes = Vec::with_capacity(rows.len());
        for (ThreadSubscriptionChangeKey { user_id, room, thread, .. }, ()) in rows {
            let Ok(root) = EventId::parse(&thread) else { continue };
            let key = ThreadSubscriptionKey { user_id, room, thread };
            let Some(row) = reader.get(&THREAD_SUBSCRIPTIONS, &key)? else { continue };
            changes.push(ThreadSubscription { room, thread: root, row });
        }
        Ok(changes)
    }

    async fn change(
        &self,
        user_id: &UserId,
        key: &ThreadSubscriptionKey,
        decide: impl Fn(Option<ThreadSubscriptionRow>) -> Result<Option<(bool, bool)>, ApiError>,
    ) -> Result<(), ApiError> {
        for _ in 0..ATTEMPTS {
            let (old, full) = self.before(key).await?;
            let Some((subscribed, automatic)) = decide(old)? else { return Ok(()) };
            if full {
                return Err(ApiError::invalid_param(format!("{THREADS_MAX} threads are enough")));
            }
            let position = Position::pending(0);
            let mut batch = Batch::new();
            batch.check(&THREAD_SUBSCRIPTIONS, key, old.as_ref());
            if let Some(old) = old {
                batch.delete(&THREAD_SUBSCRIPTION_CHANGES, &change_key(key, old.position));
            }
            let row = ThreadSubscriptionRow { position, subscribed, automatic };
            batch.put(&THREAD_SUBSCRIPTIONS, key, &row);
            batch.put(&THREAD_SUBSCRIPTION_CHANGES, &change_key(key, position), &());
            let user = self.interner.user(user_id);
            batch.touch(topic::user(topic::USER_THREAD_SUBSCRIPTIONS, user));
            if commit(&self.store, batch).await?.is_some() {
                return Ok(());
            }
        }
        Err(busy())
    }

    /// The row, and whether there must not be another one.
    async fn before(
        &self,
        key: &ThreadSubscriptionKey,
    ) -> Result<(Option<ThreadSubscriptionRow>, bool), ApiError> {
        let key = key.clone();
        let read = self.store.read(move |reader| {
            let row = reader.get(&THREAD_SUBSCRIPTIONS, &key)?;
            Ok::<_, kv::Error>((row, row.is_none() && is_full(reader, &key.user_id)?))
        });
        Ok(read.await?)
    }
}

fn is_full(reader: &Reader<'_>, user_id: &String) -> Result<bool, kv::Error> {
    let mut count = 0;
    let range = THREAD_SUBSCRIPTION_CHANGES.prefix(user_id);
    reader.for_each(&THREAD_SUBSCRIPTION_CHANGES, &range, Direction::Forward, |_, ()| {
        count += 1;
        if count < THREADS_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(count >= THREADS_MAX)
}

fn key(user_id: &UserId, room: RoomNid, thread: &EventId) -> ThreadSubscriptionKey {
    ThreadSubscriptionKey { user_id: user_id.to_string(), room, thread: thread.to_string() }
}

fn change_key(key: &ThreadSubscriptionKey, position: Position) -> ThreadSubscriptionChangeKey {
    ThreadSubscriptionChangeKey {
        user_id: key.user_id.clone(),
        position,
        room: key.room,
        thread: key.thread.clone(),
    }
}

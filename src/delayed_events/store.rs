//! The writes of delayed events: each is one batch over all their tables.

use kv::{Batch, CommitError, Direction, Durability, Json, Topic};
use serde_json::json;

use super::{DelayedEvents, no_such_event};
use crate::{
    error::ApiError,
    storage::{
        rows::delayed_events::{DelayedEventRow, Outcome},
        schema::{
            delayed_events::{
                DELAYED_EVENTS, DELAYED_EVENTS_BY_USER, DELAYED_EVENTS_DUE, DELAYED_STATES,
                DELAYED_TRANSACTIONS, DelayedDueKey, DelayedStateKey, DelayedUserKey,
            },
            rooms::ROOM_HEADS,
        },
        topic,
    },
};

/// How many events that came to their end are kept of a user.
const FINALIZED_MAX: usize = 100;

/// What wakes the worker.
pub(super) const TOPIC: Topic = Topic { space: topic::DELAYED_EVENTS, id: 0 };

/// Those of a user that wait, in [`DelayedUserKey`].
pub(super) const SCHEDULED: u8 = 0;
/// Those of a user that came to their end.
pub(super) const FINALIZED: u8 = 1;

impl DelayedEvents {
    pub(super) async fn load(&self, delay_id: &str) -> Result<Option<DelayedEventRow>, ApiError> {
        let key = delay_id.to_owned();
        let read = move |reader: &kv::Reader<'_>| reader.get(&DELAYED_EVENTS, &key);
        Ok(self.database().read(read).await?.map(|row| row.0))
    }

    /// Stores an event that is new; the id is the known one where its transaction is. The caller
    /// holds the lock of the user.
    pub(super) async fn insert(
        &self,
        delay_id: String,
        mut row: DelayedEventRow,
    ) -> Result<String, ApiError> {
        let room = self.0.rooms.interner().room(&row.room_id);
        let (user_id, transaction) = (row.user_id.to_string(), row.transaction_key());
        let scheduled_max = self.0.config.scheduled_per_user_max;
        let (known, count, next_event) = self
            .database()
            .read(move |reader| {
                let known = match &transaction {
                    Some(key) => reader.get(&DELAYED_TRANSACTIONS, key)?,
                    None => None,
                };
                let range = DELAYED_EVENTS_BY_USER.prefix(&(user_id.clone(), SCHEDULED));
                let waiting = reader.scan(
                    &DELAYED_EVENTS_BY_USER,
                    &range,
                    Direction::Forward,
                    scheduled_max,
                )?;
                let head = reader.get(&ROOM_HEADS, &room)?;
                let next_event = head.map_or(0, |head| head.next_event.0);
                Ok::<_, ApiError>((known.map(|id| id.0), waiting.len(), next_event))
            })
            .await?;
        if let Some(known) = known {
            return Ok(known);
        }
        if count >= scheduled_max {
            let error = ApiError::unknown("Too many of your events wait already");
            let errcode = json!("M_MAX_DELAYED_EVENTS_EXCEEDED");
            return Err(error.with("org.matrix.msc4140.errcode", errcode));
        }
        row.next_event = next_event;
        // Before the row is there, so that no commit of the room goes unseen.
        let watch = || {
            if row.state_key.is_some() {
                self.0.rooms_watched.lock().insert(room, None);
            }
        };
        watch();
        let mut batch = Batch::new();
        batch.check_absent(&DELAYED_EVENTS, &delay_id);
        batch.put(&DELAYED_EVENTS, &delay_id, &Json(row.clone()));
        batch.put(&DELAYED_EVENTS_DUE, &due_key(&delay_id, &row), &());
        batch.put(&DELAYED_EVENTS_BY_USER, &user_key(&delay_id, &row), &());
        if row.state_key.is_some() {
            let key = DelayedStateKey { room, delay_id: delay_id.clone() };
            batch.put(&DELAYED_STATES, &key, &());
        }
        if let Some(key) = row.transaction_key() {
            batch.check_absent(&DELAYED_TRANSACTIONS, &key);
            batch.put(&DELAYED_TRANSACTIONS, &key, &Json(delay_id.clone()));
        }
        self.write(batch).await?;
        // The worker may have looked meanwhile, and this one was not there yet.
        watch();
        Ok(delay_id)
    }

    /// Lets an event wait from the beginning.
    pub(super) async fn restart(
        &self,
        delay_id: &str,
        row: DelayedEventRow,
    ) -> Result<(), ApiError> {
        let now = self.0.rooms.clock().now().get().into();
        let restarted = DelayedEventRow { running_since: now, ..row.clone() };
        let mut batch = Batch::new();
        batch.delete(&DELAYED_EVENTS_DUE, &due_key(delay_id, &row));
        batch.put(&DELAYED_EVENTS_DUE, &due_key(delay_id, &restarted), &());
        replace(&mut batch, delay_id, row, restarted);
        self.write(batch).await
    }

    /// Notes what became of an event, and forgets the oldest of the user's that came to their end.
    pub(super) async fn finalize(
        &self,
        delay_id: &str,
        row: DelayedEventRow,
        outcome: Outcome,
    ) -> Result<(), ApiError> {
        let room = self.0.rooms.interner().room(&row.room_id);
        let done = DelayedEventRow { outcome: Some(outcome), ..row.clone() };
        let mut batch = self.forget_old(&row).await?;
        batch.delete(&DELAYED_EVENTS_DUE, &due_key(delay_id, &row));
        batch.delete(&DELAYED_EVENTS_BY_USER, &user_key(delay_id, &row));
        batch.put(&DELAYED_EVENTS_BY_USER, &user_key(delay_id, &done), &());
        batch.delete(&DELAYED_STATES, &DelayedStateKey { room, delay_id: delay_id.to_owned() });
        replace(&mut batch, delay_id, row, done);
        self.write(batch).await
    }

    async fn forget_old(&self, row: &DelayedEventRow) -> Result<Batch, ApiError> {
        let user_id = row.user_id.to_string();
        self.database()
            .read(move |reader| {
                let mut batch = Batch::new();
                let range = DELAYED_EVENTS_BY_USER.prefix(&(user_id.clone(), FINALIZED));
                let kept = reader.scan(
                    &DELAYED_EVENTS_BY_USER,
                    &range,
                    Direction::Forward,
                    FINALIZED_MAX + 1,
                )?;
                let too_many = (kept.len() + 1).saturating_sub(FINALIZED_MAX);
                for (key, ()) in kept.into_iter().take(too_many) {
                    if let Some(Json(row)) = reader.get(&DELAYED_EVENTS, &key.delay_id)?
                        && let Some(transaction) = row.transaction_key()
                    {
                        batch.delete(&DELAYED_TRANSACTIONS, &transaction);
                    }
                    batch.delete(&DELAYED_EVENTS, &key.delay_id);
                    batch.delete(&DELAYED_EVENTS_BY_USER, &key);
                }
                Ok::<_, ApiError>(batch)
            })
            .await
    }

    async fn write(&self, mut batch: Batch) -> Result<(), ApiError> {
        batch.touch(TOPIC);
        match self.database().commit(batch, Durability::Synced).await {
            Ok(_) => Ok(()),
            // The locks keep this from happening.
            Err(CommitError::Conflict) => Err(no_such_event()),
            Err(error) => Err(error.into()),
        }
    }
}

fn replace(batch: &mut Batch, delay_id: &str, old: DelayedEventRow, new: DelayedEventRow) {
    let key = delay_id.to_owned();
    batch.check(&DELAYED_EVENTS, &key, Some(&Json(old)));
    batch.put(&DELAYED_EVENTS, &key, &Json(new));
}

fn due_key(delay_id: &str, row: &DelayedEventRow) -> DelayedDueKey {
    DelayedDueKey { due_ts: row.due_ts(), delay_id: delay_id.to_owned() }
}

pub(super) fn user_key(delay_id: &str, row: &DelayedEventRow) -> DelayedUserKey {
    let (finalized, ts) = match &row.outcome {
        Some(outcome) => (FINALIZED, outcome.ts),
        None => (SCHEDULED, row.created_ts),
    };
    DelayedUserKey {
        user_id: row.user_id.to_string(),
        finalized,
        ts,
        delay_id: delay_id.to_owned(),
    }
}

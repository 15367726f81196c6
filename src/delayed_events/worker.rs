//! The worker: sends what is due, and gives up what a newer state of somebody else replaced.
//!
//! It follows the commits: those of delayed events say that another may be due first, those of rooms
//! in which a state event waits say that its place may be taken. The time of day may jump, so while
//! anything waits the worker looks at it at least once a second.

use std::{collections::HashSet, time::Duration};

use kv::{Commit, Direction, Json, Reader};
use tokio::time::Instant;

use super::{DelayedEvents, store::TOPIC};
use crate::{
    error::ApiError,
    id::RoomNid,
    storage::{
        rows::delayed_events::{DelayedEventRow, Outcome, Reason},
        schema::{
            delayed_events::{DELAYED_EVENTS, DELAYED_EVENTS_DUE, DELAYED_STATES},
            rooms::{CURRENT_STATE, CurrentStateKey, EVENT_RECORDS, EventKey, ROOM_HEADS},
        },
        topic,
    },
    tasks::{Stop, Tasks},
};

/// The longest pause while something waits.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// The pause after something that may work later.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// The pause while nothing waits: a commit ends it.
const PAUSE_IDLE: Duration = Duration::from_hours(1);
/// How many due events are sent before the worker looks at anything else.
const DUE_AT_ONCE: usize = 100;

impl DelayedEvents {
    /// Begins to send what is due.
    pub fn start(&self, tasks: &Tasks) {
        let (delayed, feed) = (self.clone(), self.database().feed());
        tasks.spawn(async move |stop| delayed.work(feed, stop).await);
    }

    async fn work(self, mut feed: kv::Feed, mut stop: Stop) {
        // What happened while the server was down.
        if let Err(error) = self.look_at_all_states().await {
            tracing::error!(%error, "delayed state events could not be looked at");
        }
        let mut next = Instant::now();
        loop {
            tokio::select! {
                () = stop.requested() => return,
                commits = feed.next() => match commits {
                    Some(commits) => {
                        if self.look_at(&commits).await {
                            next = Instant::now();
                        }
                    }
                    None => return,
                },
                () = tokio::time::sleep_until(next) => {
                    let pause = self.send_due().await.unwrap_or_else(|error| {
                        tracing::error!(%error, "delayed events could not be read");
                        PAUSE_AFTER_FAILURE
                    });
                    next = Instant::now() + pause;
                }
            }
        }
    }

    /// Looks at the rooms of commits; gives whether one was of delayed events.
    async fn look_at(&self, commits: &[Commit]) -> bool {
        let topics = || commits.iter().flat_map(|commit| commit.topics.iter());
        let rooms: HashSet<RoomNid> = {
            let watched = self.0.rooms_watched.lock();
            topics()
                .filter(|topic| topic.space == topic::ROOM_EVENTS)
                .map(|topic| RoomNid(topic.id))
                .filter(|room| watched.contains_key(room))
                .collect()
        };
        for room in rooms {
            if let Err(error) = self.look_at_states(room).await {
                tracing::error!(%error, "the delayed state events of a room could not be looked at");
            }
        }
        topics().any(|topic| *topic == TOPIC)
    }

    async fn look_at_all_states(&self) -> Result<(), ApiError> {
        let read = |reader: &Reader<'_>| {
            let all = DELAYED_STATES.prefix(&());
            reader.scan(&DELAYED_STATES, &all, Direction::Forward, usize::MAX)
        };
        let rooms: HashSet<RoomNid> =
            self.database().read(read).await?.into_iter().map(|(key, ())| key.room).collect();
        self.0.rooms_watched.lock().extend(rooms.iter().map(|room| (*room, None)));
        for room in rooms {
            self.look_at_states(room).await?;
        }
        Ok(())
    }

    /// Gives up the state events of a room whose place a newer state of somebody else took. A commit
    /// that leaves the state as it was, as of a message, costs no look at them.
    async fn look_at_states(&self, room: RoomNid) -> Result<(), ApiError> {
        let read = move |reader: &Reader<'_>| reader.get(&ROOM_HEADS, &room);
        let version = self.database().read(read).await?.map(|head| head.state_version);
        let looked_at = self.0.rooms_watched.lock().get(&room).copied().flatten();
        if version.is_some() && version == looked_at {
            return Ok(());
        }
        let range = DELAYED_STATES.prefix(&room);
        let waiting = self
            .database()
            .read(move |reader| {
                reader.scan(&DELAYED_STATES, &range, Direction::Forward, usize::MAX)
            })
            .await?;
        if waiting.is_empty() {
            // One that is handed in at this moment is seen when it is due.
            self.0.rooms_watched.lock().remove(&room);
            return Ok(());
        }
        for (key, ()) in waiting {
            let _lock = self.lock(&key.delay_id).await;
            if let Some(row) = self.load(&key.delay_id).await?
                && row.outcome.is_none()
                && self.is_replaced(&row).await?
            {
                self.finalize(&key.delay_id, row, self.replaced()).await?;
            }
        }
        if let Some(watched) = self.0.rooms_watched.lock().get_mut(&room)
            && *watched == looked_at
        {
            *watched = version;
        }
        Ok(())
    }

    /// Whether a newer state of somebody else took the place of a state event that waits.
    async fn is_replaced(&self, row: &DelayedEventRow) -> Result<bool, ApiError> {
        let Some(state_key) = &row.state_key else { return Ok(false) };
        let interner = *self.0.rooms.interner();
        let (room, owner) = (interner.room(&row.room_id), interner.user(&row.user_id));
        let key = interner.state_key(&row.event_type, state_key);
        let class = u8::from(row.event_type == "m.room.member");
        let next_event = row.next_event;
        self.database()
            .read(move |reader| {
                let key = CurrentStateKey { room, class, key };
                let Some(event) = reader.get(&CURRENT_STATE, &key)? else { return Ok(false) };
                let record = reader.get(&EVENT_RECORDS, &EventKey { room, event })?;
                let is_other = record.is_some_and(|record| record.sender != owner);
                Ok::<_, ApiError>(event.0 >= next_event && is_other)
            })
            .await
    }

    fn replaced(&self) -> Outcome {
        let error = ("M_UNKNOWN".to_owned(), "Somebody else set this state since".to_owned());
        Outcome { error: Some(error), ..self.outcome(Reason::Error) }
    }

    /// Sends what is due; gives how long to pause.
    async fn send_due(&self) -> Result<Duration, ApiError> {
        let read = |reader: &Reader<'_>| {
            let all = DELAYED_EVENTS_DUE.prefix(&());
            reader.scan(&DELAYED_EVENTS_DUE, &all, Direction::Forward, DUE_AT_ONCE)
        };
        let waiting = self.database().read(read).await?;
        let is_full = waiting.len() == DUE_AT_ONCE;
        let mut failed = false;
        for (key, ()) in waiting {
            let now = self.0.rooms.clock().now().get().into();
            if key.due_ts > now {
                let pause = Duration::from_millis(key.due_ts - now).min(PAUSE_MAX);
                return Ok(if failed { PAUSE_AFTER_FAILURE } else { pause });
            }
            failed |= self.send_one(&key.delay_id, key.due_ts).await.is_err();
        }
        Ok(match (failed, is_full) {
            (true, _) => PAUSE_AFTER_FAILURE,
            (false, true) => Duration::ZERO,
            (false, false) => PAUSE_IDLE,
        })
    }

    /// Sends an event that is due; an error means that it may work later.
    async fn send_one(&self, delay_id: &str, due_ts: u64) -> Result<(), ApiError> {
        let _lock = self.lock(delay_id).await;
        let row = self.load(delay_id).await?;
        // It may have been restarted, sent or cancelled since.
        let Some(row) = row.filter(|row| row.outcome.is_none() && row.due_ts() == due_ts) else {
            return Ok(());
        };
        if self.is_replaced(&row).await? {
            return self.finalize(delay_id, row, self.replaced()).await;
        }
        let outcome = match self.send(delay_id, &row).await {
            Ok(outcome) => outcome,
            Err(error) if error.status.is_server_error() => {
                tracing::warn!(%error, "a delayed event could not be sent and is tried again");
                return Err(error);
            }
            Err(error) => Outcome {
                error: Some((error.errcode.to_string(), error.message.to_string())),
                ..self.outcome(Reason::Error)
            },
        };
        self.finalize(delay_id, row, outcome).await
    }

    /// A row, inside a read step.
    pub(super) fn row(
        reader: &Reader<'_>,
        delay_id: &str,
    ) -> Result<Option<DelayedEventRow>, kv::Error> {
        Ok(reader.get(&DELAYED_EVENTS, &delay_id.to_owned())?.map(|Json(row)| row))
    }
}

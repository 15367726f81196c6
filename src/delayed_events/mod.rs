//! Delayed events: handed in now, sent later, unless somebody restarts, sends or cancels them.
//!
//! Each is a durable row, due by the time of day, so that a restart of the server loses none. It is
//! sent once: the transaction of the sending is made from the delay id, so that a crash between the
//! sending and its mark sends nothing more. Whoever knows the id may act on it: it is a secret of 192
//! bits. All that changes one event holds its lock.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/blob/toger5/expiring-events-keep-alive/proposals/4140-delayed-events-futures.md>

mod list;
mod store;
mod worker;

use std::{collections::HashMap, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use kv::{Json, Store};
use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedUserId, UserId, events::TimelineEventType};
use serde_json::{json, value::RawValue};

pub use self::list::{Page, Status};
use crate::{
    config::DelayedEventsConfig,
    error::ApiError,
    id::RoomNid,
    rooms::{NewEvent, Rooms, Transaction, check_new_event, redacts_of},
    storage::{
        rows::delayed_events::{ClientTransaction, DelayedEventRow, Outcome, Reason},
        schema::users::ACCOUNTS,
    },
};

/// How large a content may be: an event of 64 KiB has its other fields too.
const CONTENT_BYTES_MAX: usize = 65_000;

/// How many locks there are; events that share one wait for each other.
const LOCKS: usize = 64;

/// What the transaction of a sending names as its endpoint.
const SENDING: &str = "delayed_event";

/// An event that is to be sent later.
#[derive(Clone, Debug)]
pub struct Delayed {
    /// Whose.
    pub user_id: OwnedUserId,
    /// Where.
    pub room_id: OwnedRoomId,
    /// The type.
    pub event_type: TimelineEventType,
    /// The state key of a state event.
    pub state_key: Option<String>,
    /// The content.
    pub content: Box<RawValue>,
    /// How long it waits, in milliseconds.
    pub delay_ms: u64,
    /// The client's transaction.
    pub transaction: ClientTransaction,
}

/// What may be done to an event that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Wait from the beginning.
    Restart,
    /// Send it now.
    Send,
    /// Never send it.
    Cancel,
}

/// The delayed events of this server: a handle that is cheap to clone.
#[derive(Clone)]
pub struct DelayedEvents(Arc<Inner>);

struct Inner {
    rooms: Rooms,
    config: DelayedEventsConfig,
    /// By the id of an event, or by the user when one is handed in.
    locks: [tokio::sync::Mutex<()>; LOCKS],
    /// Rooms in which state events may wait: only their commits are looked at. With the version of
    /// the state that was looked at last.
    rooms_watched: Mutex<HashMap<RoomNid, Option<u32>>>,
}

impl std::fmt::Debug for DelayedEvents {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("DelayedEvents")
    }
}

impl DelayedEvents {
    /// The handle; [`DelayedEvents::start`] begins to send what is due.
    pub fn new(rooms: Rooms, config: DelayedEventsConfig) -> Self {
        let locks = std::array::from_fn(|_| tokio::sync::Mutex::new(()));
        Self(Arc::new(Inner { rooms, config, locks, rooms_watched: Mutex::default() }))
    }

    /// The settings.
    pub fn config(&self) -> &DelayedEventsConfig {
        &self.0.config
    }

    /// Hands in an event; gives its id. The same transaction gives the same id.
    ///
    /// # Errors
    /// 400 when it waits too long or too many wait, 403 for whoever is not in the room.
    pub async fn schedule(&self, delayed: Delayed) -> Result<String, ApiError> {
        let delay_max_ms = self.0.config.delay_seconds_max.saturating_mul(1000);
        if delayed.delay_ms > delay_max_ms {
            let error = ApiError::unknown("The event would wait longer than this server allows");
            return Err(error
                .with("org.matrix.msc4140.errcode", json!("M_MAX_DELAY_EXCEEDED"))
                .with("org.matrix.msc4140.max_delay", json!(delay_max_ms)));
        }
        let (event, content) = checked(&delayed)?;
        let room = self.0.rooms.known_room(&delayed.room_id).await?;
        if !self.0.rooms.has_joined(&room, &delayed.user_id).await? {
            return Err(ApiError::forbidden("You are not in this room"));
        }
        let now: u64 = self.0.rooms.clock().now().get().into();
        let row = DelayedEventRow {
            user_id: delayed.user_id,
            room_id: delayed.room_id,
            event_type: event.event_type.to_string(),
            state_key: event.state_key,
            content,
            created_ts: now,
            delay_ms: delayed.delay_ms,
            running_since: now,
            next_event: 0,
            transaction: delayed.transaction,
            outcome: None,
        };
        let _lock = self.lock(row.user_id.as_str()).await;
        self.insert(random_id()?, row).await
    }

    /// Does something to an event that waits. `by`: the user, where one is known.
    ///
    /// # Errors
    /// 404 when no such event waits, or it is another user's.
    pub async fn act(
        &self,
        delay_id: &str,
        action: Action,
        by: Option<&UserId>,
    ) -> Result<(), ApiError> {
        let _lock = self.lock(delay_id).await;
        let row = self.load(delay_id).await?;
        let row = row.filter(|row| by.is_none_or(|by| by == row.user_id));
        let row = row.ok_or_else(no_such_event)?;
        if let Some(outcome) = &row.outcome {
            let is_done = match action {
                Action::Send => outcome.event_id.is_some(),
                Action::Cancel => outcome.event_id.is_none() && outcome.error.is_none(),
                Action::Restart => false,
            };
            // A client that finds nothing to restart hands the event in again.
            return if is_done { Ok(()) } else { Err(no_such_event()) };
        }
        match action {
            Action::Restart => self.restart(delay_id, row).await,
            Action::Send => {
                // One that cannot be sent waits on, and whoever wanted it learns why.
                let outcome = self.send(delay_id, &row).await?;
                let outcome = Outcome { reason: Reason::Action, ..outcome };
                self.finalize(delay_id, row, outcome).await
            }
            Action::Cancel => {
                let outcome = self.outcome(Reason::Action);
                self.finalize(delay_id, row, outcome).await
            }
        }
    }

    /// Sends an event; safe to do again.
    async fn send(&self, delay_id: &str, row: &DelayedEventRow) -> Result<Outcome, ApiError> {
        let rooms = &self.0.rooms;
        self.check_standing(&row.user_id).await?;
        let room = rooms.known_room(&row.room_id).await?;
        let content = serde_json::value::to_raw_value(&row.content).map_err(ApiError::internal)?;
        let event_type = TimelineEventType::from(row.event_type.clone());
        if event_type == TimelineEventType::RoomCanonicalAlias && row.state_key.is_some() {
            rooms.check_canonical_alias(&room, &row.user_id, &content).await?;
        }
        let event = event_of(row.user_id.clone(), event_type, row.state_key.clone(), content);
        let transaction = Transaction {
            device_id: String::new(),
            endpoint: SENDING.to_owned(),
            transaction_id: delay_id.to_owned(),
        };
        let sent = rooms.send(&room, event, Some(transaction)).await?;
        Ok(Outcome { event_id: Some(sent.event_id), ..self.outcome(Reason::Delay) })
    }

    /// Refuses what would come from an account that may send nothing any more: who asked for it
    /// could when they did. An application service's own user has no account.
    async fn check_standing(&self, user_id: &UserId) -> Result<(), ApiError> {
        let user_id = user_id.to_string();
        let account = self.database().read(move |reader| reader.get(&ACCOUNTS, &user_id)).await?;
        let Some(Json(account)) = account else { return Ok(()) };
        if account.deactivated_ts.is_some() {
            return Err(ApiError::forbidden("The account of the sender is deactivated"));
        }
        if account.locked {
            return Err(ApiError::user_locked());
        }
        if account.suspended {
            return Err(ApiError::user_suspended("The account of the sender is suspended"));
        }
        Ok(())
    }

    fn outcome(&self, reason: Reason) -> Outcome {
        let ts = self.0.rooms.clock().now().get().into();
        Outcome { ts, reason, event_id: None, error: None }
    }

    fn database(&self) -> &Store {
        self.0.rooms.store()
    }

    /// The lock of an event, or of a user who hands one in.
    async fn lock(&self, name: &str) -> tokio::sync::MutexGuard<'_, ()> {
        let sum = name
            .bytes()
            .fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
        self.0.locks[sum % LOCKS].lock().await
    }
}

fn no_such_event() -> ApiError {
    ApiError::not_found("No such delayed event waits")
}

/// What can be known to be wrong with an event before its time.
fn checked(delayed: &Delayed) -> Result<(NewEvent, serde_json::Value), ApiError> {
    let (user_id, content) = (delayed.user_id.clone(), delayed.content.clone());
    let event = event_of(user_id, delayed.event_type.clone(), delayed.state_key.clone(), content);
    check_new_event(&event)?;
    let names = [event.event_type.to_string(), event.state_key.clone().unwrap_or_default()];
    if names.iter().any(|name| name.len() > 255) {
        return Err(ApiError::too_large("The type or the state key is longer than 255 bytes"));
    }
    let content: serde_json::Value = serde_json::from_str(event.content.get())
        .map_err(|error| ApiError::bad_json(format!("The content is not JSON: {error}")))?;
    if !content.is_object() {
        return Err(ApiError::bad_json("The content is not an object"));
    }
    if content.to_string().len() > CONTENT_BYTES_MAX {
        return Err(ApiError::too_large("The event is larger than 65536 bytes"));
    }
    Ok((event, content))
}

fn event_of(
    sender: OwnedUserId,
    event_type: TimelineEventType,
    state_key: Option<String>,
    content: Box<RawValue>,
) -> NewEvent {
    let redacts = match event_type {
        TimelineEventType::RoomRedaction if state_key.is_none() => redacts_of(&content),
        _ => None,
    };
    NewEvent { sender, event_type, state_key, content, redacts }
}

/// An id that nobody guesses.
fn random_id() -> Result<String, ApiError> {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes)
        .map_err(|error| ApiError::internal_text(format!("no randomness: {error}")))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

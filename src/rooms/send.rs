//! The path of a local event: take the room's lock, decide on its head, commit.
//!
//! The lock is held from the reading of the head until the commit has its place in the order; for
//! events that leave the state as it is, not until they are on disk, so that one busy room is not
//! bound to the pace of the disk. Each commit checks the head it was decided on.

use kv::{Batch, CommitError, Durability};
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedUserId, events::TimelineEventType,
};

use super::{
    NewEvent, Room, Rooms, commit::RoomCommit, compose, draft::Draft, head::Head, redaction,
    relations::check::check_relation, validate,
};
use crate::{
    error::ApiError,
    storage::{
        rows::TransactionMark,
        schema::rooms::{TRANSACTIONS, TransactionKey},
    },
};

/// A room's lock, held.
type HeadSlot = tokio::sync::OwnedMutexGuard<Option<Head>>;

/// How often a decision is made again when the head moved while it was on its way.
const ATTEMPTS_MAX: usize = 8;

/// A client's transaction: the same one makes the same event.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// The device.
    pub device_id: String,
    /// The endpoint that it was used at, with what its path holds.
    pub endpoint: String,
    /// The client's id.
    pub transaction_id: String,
}

/// An event that was sent, now or by an earlier try of the same transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its id.
    pub event_id: OwnedEventId,
}

impl Rooms {
    /// Sends an event: it is on disk when this returns.
    ///
    /// # Errors
    /// 403 when the room's rules refuse it, 400 and 413 when it cannot be an event.
    pub async fn send(
        &self,
        room: &Room,
        event: NewEvent,
        transaction: Option<Transaction>,
    ) -> Result<Sent, ApiError> {
        self.send_at(room, event, transaction, None).await
    }

    /// [`Rooms::send`] with another time than now on the event. Its place among the others is the
    /// same.
    pub async fn send_at(
        &self,
        room: &Room,
        event: NewEvent,
        transaction: Option<Transaction>,
        at: Option<MilliSecondsSinceUnixEpoch>,
    ) -> Result<Sent, ApiError> {
        validate::check_new_event(&event)?;
        let now = at.unwrap_or_else(|| self.clock().now());
        let marks = transaction.map(|transaction| marks(&event.sender, transaction));
        self.write(room, move |draft| {
            if let Some((key, _)) = &marks
                && let Some(done) = draft.reader.get(&TRANSACTIONS, key)?
            {
                let event = draft.event(done.event)?;
                return Ok(Sent { event_id: event.pdu.event_id().to_owned() });
            }
            validate::check_in_room(draft, &event)?;
            check_relation(draft, &event)?;
            if let Some(known) = same_state(draft, &event)? {
                return Ok(Sent { event_id: known });
            }
            if let (TimelineEventType::RoomRedaction, Some(target)) =
                (&event.event_type, &event.redacts)
            {
                redaction::check_sender(draft, &event.sender, target)?;
            }
            let stored = draft.add(&event, now, marks.clone())?;
            Ok(Sent { event_id: stored.pdu.event_id().to_owned() })
        })
        .await
    }

    /// Redacts an event.
    ///
    /// # Errors
    /// 404 when the room has no such event, 403 when the sender may not redact it.
    pub async fn redact(
        &self,
        room: &Room,
        sender: OwnedUserId,
        target: (&EventId, Option<String>),
        transaction: Option<Transaction>,
    ) -> Result<Sent, ApiError> {
        let (target, reason) = target;
        let mut content = serde_json::Map::new();
        if let Some(reason) = reason {
            content.insert("reason".to_owned(), reason.into());
        }
        let event = NewEvent {
            sender,
            event_type: TimelineEventType::RoomRedaction,
            state_key: None,
            content: serde_json::value::to_raw_value(&content).map_err(ApiError::internal)?,
            redacts: Some(target.to_owned()),
        };
        self.send(room, event, transaction).await
    }

    /// Decides on a room's head and commits what was drafted; decides again when the head moved.
    ///
    /// This is the door that every event takes. A draft without events writes nothing.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        room: &Room,
        decide: impl Fn(&mut Draft<'_>) -> Result<T, ApiError> + Clone + Send + 'static,
    ) -> Result<T, ApiError> {
        self.write_when(room, false, decide).await
    }

    /// [`Rooms::write`] once all that was decided before is stored: for events from elsewhere,
    /// which may name any of it.
    pub(super) async fn write_settled<T: Send + 'static>(
        &self,
        room: &Room,
        decide: impl Fn(&mut Draft<'_>) -> Result<T, ApiError> + Clone + Send + 'static,
    ) -> Result<T, ApiError> {
        self.write_when(room, true, decide).await
    }

    async fn write_when<T: Send + 'static>(
        &self,
        room: &Room,
        settled: bool,
        decide: impl Fn(&mut Draft<'_>) -> Result<T, ApiError> + Clone + Send + 'static,
    ) -> Result<T, ApiError> {
        for _ in 0..ATTEMPTS_MAX {
            let mut slot = room.head.clone().lock_owned().await;
            if settled {
                // An empty batch is answered after all that were queued before it.
                self.store().commit(Batch::new(), Durability::Buffered).await?;
            }
            let (rooms, the_room, head) = (self.clone(), room.clone(), slot.clone());
            let decide = decide.clone();
            let (answer, commit) = self
                .store()
                .read(move |reader| {
                    let head = match &head {
                        Some(head) => head.clone(),
                        None => Head::load(&rooms, reader, &the_room)?,
                    };
                    let mut draft = Draft::new(&rooms, reader, &the_room, head);
                    let answer = decide(&mut draft)?;
                    Ok::<_, ApiError>((answer, draft.finish()))
                })
                .await?;
            if commit.events.is_empty() {
                *slot = Some(commit.head);
                return Ok(answer);
            }
            match self.commit(commit, slot).await {
                Ok(()) => return Ok(answer),
                Err(CommitError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(ApiError::unavailable("The room is too busy; try again"))
    }

    /// Commits, and keeps head and caches true. Runs to its end also when the request that wanted
    /// it goes away: what is written must be known to all.
    async fn commit(&self, commit: RoomCommit, mut slot: HeadSlot) -> Result<(), CommitError> {
        let written = self.store().submit(commit.batch(self), Durability::Synced);
        let keeps_state = commit.keeps_state();
        let mut next = commit.head.clone();
        if !keeps_state {
            // The lock is held until all of it is on disk.
            next.tail.clear();
        }
        // Until the commit is known to be done the head on disk counts, unless the next event can
        // be decided without it.
        *slot = keeps_state.then(|| next.clone());
        let mut held = (!keeps_state).then_some(slot);
        let rooms = self.clone();
        let task = async move {
            match written.await {
                Ok(first) => {
                    commit.publish(&rooms, first);
                    if let Some(slot) = &mut held {
                        **slot = Some(next);
                    }
                    Ok(())
                }
                Err(error) => {
                    // The head in memory was built on something that is not there; one that was
                    // read from the store since then was not.
                    drop(held);
                    let mut slot = commit.room.head.lock().await;
                    if slot.as_ref().is_some_and(|head| head.generation == next.generation) {
                        *slot = None;
                    }
                    Err(error)
                }
            }
        };
        tokio::spawn(task).await.unwrap_or_else(|error| {
            Err(kv::Error::Io(format!("a commit did not finish: {error}")).into())
        })
    }

    /// Commits the first events of a new room; `None` when the room is there already, or something
    /// else that was to be new is not.
    pub(super) async fn write_new<T: Send + 'static>(
        &self,
        room: &Room,
        decide: impl Fn(&mut Draft<'_>) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<Option<T>, ApiError> {
        let slot = room.head.clone().lock_owned().await;
        let (rooms, the_room) = (self.clone(), room.clone());
        let (answer, commit) = self
            .store()
            .read(move |reader| {
                let mut draft = Draft::new(&rooms, reader, &the_room, Head::of_new_room());
                let answer = decide(&mut draft)?;
                Ok::<_, ApiError>((answer, draft.finish()))
            })
            .await?;
        match self.commit(commit, slot).await {
            Ok(()) => {
                self.add_room(room);
                Ok(Some(answer))
            }
            Err(CommitError::Conflict) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn marks(sender: &OwnedUserId, transaction: Transaction) -> (TransactionKey, TransactionMark) {
    let Transaction { device_id, endpoint, transaction_id } = transaction;
    let mark =
        TransactionMark { device_id: device_id.clone(), transaction_id: transaction_id.clone() };
    (TransactionKey { user_id: sender.to_string(), device_id, endpoint, transaction_id }, mark)
}

/// The event that already says the same: sending a state again changes nothing.
fn same_state(draft: &Draft<'_>, event: &NewEvent) -> Result<Option<OwnedEventId>, ApiError> {
    let Some(state_key) = &event.state_key else {
        return Ok(None);
    };
    let Some(known) = draft.current(&event.event_type.to_string(), state_key)? else {
        return Ok(None);
    };
    let same = known.pdu.sender() == event.sender
        && compose::same_content(known.pdu.content(), &event.content);
    Ok(same.then(|| known.pdu.event_id().to_owned()))
}

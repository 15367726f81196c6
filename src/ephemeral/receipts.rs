//! Receipts: up to which event of a room, or of a thread, a user has read.
//!
//! A receipt only moves forward in the timeline. The caller has checked that the user may see the
//! event. Losing the newest in a power cut is harmless, so the writes are not synced.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#receipts>

use kv::{Batch, CommitError, Durability, Error, Position, Reader, Store};
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, UserId, events::receipt::ReceiptThread,
};

use crate::{
    error::ApiError,
    id::RoomNid,
    storage::{
        rows::TimelinePosition,
        schema::ephemeral::{
            RECEIPTS, RECEIPTS_BY_POSITION, ReceiptChange, ReceiptKey, ReceiptKind,
            ReceiptPositionKey, ReceiptRow,
        },
        topic,
    },
};

/// How often a write is decided again when another one came between.
const ATTEMPTS_MAX: usize = 8;

/// What a receipt is for: the whole room, its main timeline, or one thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread(String);

impl Thread {
    /// The whole room.
    pub fn none() -> Self {
        Self(String::new())
    }

    /// Whether an event of this thread (`None`: the main timeline) belongs to it. The root of a
    /// thread is of the main timeline and of its own thread.
    pub fn holds(&self, event_id: &EventId, thread: Option<&EventId>) -> bool {
        match self.0.as_str() {
            "" => true,
            "main" => thread.is_none(),
            root => event_id == root || thread.is_some_and(|thread| thread == root),
        }
    }

    /// From a request. A thread is `main` or the id of its root.
    pub fn from_request(thread: &ReceiptThread) -> Result<Self, ApiError> {
        match thread {
            ReceiptThread::Unthreaded => Ok(Self::none()),
            ReceiptThread::Main => Ok(Self("main".to_owned())),
            ReceiptThread::Thread(root) if root.as_bytes().len() <= 255 => {
                Ok(Self(root.to_string()))
            }
            _ => Err(ApiError::invalid_param("thread_id is neither `main` nor an event id")),
        }
    }
}

/// A receipt to note.
#[derive(Clone, Debug)]
pub struct NewReceipt {
    /// The kind.
    pub kind: ReceiptKind,
    /// What it is for.
    pub thread: Thread,
    /// The event.
    pub event_id: OwnedEventId,
    /// The event's place in the timeline.
    pub place: TimelinePosition,
    /// When it is made.
    pub ts: MilliSecondsSinceUnixEpoch,
}

/// The receipts. Cheap to clone.
#[derive(Clone)]
pub struct Receipts {
    store: Store,
}

impl std::fmt::Debug for Receipts {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Receipts")
    }
}

impl Receipts {
    /// The receipts of this store.
    pub const fn new(store: Store) -> Self {
        Self { store }
    }

    /// Notes receipts of a user in a room; those that would move back are left out. Answers whether
    /// anything changed.
    pub async fn set(
        &self,
        room: RoomNid,
        user_id: &UserId,
        receipts: Vec<NewReceipt>,
    ) -> Result<bool, ApiError> {
        for _ in 0..ATTEMPTS_MAX {
            let (user_id, receipts) = (user_id.to_owned(), receipts.clone());
            let batch =
                self.store.read(move |reader| decide(reader, room, &user_id, &receipts)).await?;
            if batch.is_empty() {
                return Ok(false);
            }
            match self.store.commit(batch, Durability::Buffered).await {
                Ok(_) => return Ok(true),
                Err(CommitError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(CommitError::Conflict.into())
    }
}

fn decide(
    reader: &Reader<'_>,
    room: RoomNid,
    user_id: &UserId,
    receipts: &[NewReceipt],
) -> Result<Batch, ApiError> {
    let mut batch = Batch::new();
    let mut positions = 0;
    for receipt in receipts {
        let (user_id, thread) = (user_id.to_string(), receipt.thread.0.clone());
        let kind = receipt.kind;
        let key =
            ReceiptKey { room, user_id: user_id.clone(), kind: kind as u8, thread: thread.clone() };
        let old = reader.get(&RECEIPTS, &key)?;
        if old.as_ref().is_some_and(|old| old.place >= receipt.place) {
            continue;
        }
        batch.check(&RECEIPTS, &key, old.as_ref());
        if let Some(old) = old {
            let old = ReceiptPositionKey { room, position: old.position };
            batch.delete(&RECEIPTS_BY_POSITION, &old);
        }
        let position = Position::pending(positions);
        positions += 1;
        let (event_id, ts) = (receipt.event_id.clone(), u64::from(receipt.ts.get()));
        let row = ReceiptRow { position, place: receipt.place, event_id: event_id.clone(), ts };
        batch.put(&RECEIPTS, &key, &row);
        let change = ReceiptChange { user_id, kind, thread, event_id, ts };
        batch.put(&RECEIPTS_BY_POSITION, &ReceiptPositionKey { room, position }, &change);
        batch.touch(topic::room(topic::ROOM_RECEIPTS, room));
    }
    Ok(batch)
}

/// The place up to which a user has read a room as a whole: the farthest of the public and the
/// private receipt, for the whole room and for its main timeline.
pub fn read_up_to(
    reader: &Reader<'_>,
    room: RoomNid,
    user_id: &UserId,
) -> Result<Option<TimelinePosition>, Error> {
    let mut place = None;
    for kind in [ReceiptKind::Read, ReceiptKind::ReadPrivate] {
        for thread in ["", "main"] {
            let (user_id, thread) = (user_id.to_string(), thread.to_owned());
            let key = ReceiptKey { room, user_id, kind: kind as u8, thread };
            place = place.max(reader.get(&RECEIPTS, &key)?.map(|row| row.place));
        }
    }
    Ok(place)
}

#[cfg(test)]
mod tests {
    use kv::Direction;
    use ruma::{owned_event_id, uint, user_id};

    use super::*;
    use crate::storage::schema::FAMILIES;

    fn receipt(kind: ReceiptKind, place: u64) -> NewReceipt {
        NewReceipt {
            kind,
            thread: Thread::none(),
            event_id: owned_event_id!("$event"),
            place: TimelinePosition::live(Position::from_u64(place)),
            ts: MilliSecondsSinceUnixEpoch(uint!(7)),
        }
    }

    #[tokio::test]
    async fn a_receipt_only_moves_forward() {
        let store = Store::memory(&FAMILIES);
        let receipts = Receipts::new(store.clone());
        let alice = user_id!("@alice:hs1");
        let room = RoomNid(1);
        for (place, moves) in [(5, true), (5, false), (4, false), (9, true)] {
            let new = vec![receipt(ReceiptKind::Read, place)];
            assert_eq!(receipts.set(room, alice, new).await.unwrap(), moves, "{place}");
        }
        let private = vec![receipt(ReceiptKind::ReadPrivate, 3), receipt(ReceiptKind::Read, 10)];
        assert!(receipts.set(room, alice, private).await.unwrap());
        let reader = store.reader();
        let range = RECEIPTS_BY_POSITION.prefix(&room);
        let changes = reader.scan(&RECEIPTS_BY_POSITION, &range, Direction::Forward, 10).unwrap();
        let kinds: Vec<_> = changes.iter().map(|(_, change)| change.kind).collect();
        assert_eq!(kinds, [ReceiptKind::ReadPrivate, ReceiptKind::Read]);
        let up_to = read_up_to(&reader, room, alice).unwrap();
        assert_eq!(up_to, Some(TimelinePosition::live(Position::from_u64(10))));
    }

    #[test]
    fn threads_are_checked() {
        let thread = |text: &str| {
            Thread::from_request(&serde_json::from_value(text.into()).unwrap())
                .map(|thread| thread.0)
                .map_err(|error| error.errcode)
        };
        assert_eq!(thread("main").unwrap(), "main");
        assert_eq!(thread("$root").unwrap(), "$root");
        assert_eq!(thread("other").unwrap_err(), "M_INVALID_PARAM");
    }
}

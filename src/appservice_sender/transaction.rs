//! Transactions: what waits becomes bytes that are written down before they are first sent.
//!
//! An application service has at most one transaction on its way. The batch that writes it takes
//! what is in it out of the outbox; so nothing is ever in two. Its id is random: a counter would
//! begin anew with a new database, and the application service takes an id that it knows for a
//! retry. Messages to devices come before the events that were encrypted with what they bring.
//!
//! <https://spec.matrix.org/v1.19/application-service-api/#put_matrixappv1transactionstxnid>

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use kv::{Batch, Direction, Durability, Reader};
use parking_lot::Mutex;
use ruma::OwnedUserId;
use serde::Serialize;
use serde_json::{Value, value::RawValue};

use super::{
    Lane, Parts,
    devices::{ByDevice, DeviceLists, ForDevices},
    ephemeral, is_unavailable,
};
use crate::{
    error::ApiError,
    id::RoomNid,
    rooms::render::appservice_event,
    storage::schema::appservices::{
        APPSERVICE_OUTBOX, APPSERVICE_TRANSACTIONS, AppserviceQueueKey, AppserviceTransactionKey,
        QueuedRow, TransactionPartRow,
    },
};

/// How many events and receipts one transaction has.
const ENTRIES_MAX: usize = 100;
/// How many bytes of events one transaction has; the last event may go beyond.
const EVENTS_BYTES_MAX: usize = 512 * 1024;
/// How many rooms' typing one transaction tells.
const TYPING_MAX: usize = 100;
/// How many users' presence one transaction tells.
const PRESENCE_MAX: usize = 100;
/// How many bytes of a transaction one row holds.
const PART_BYTES: usize = 90_000;

/// A transaction, ready to be sent.
#[derive(Clone, Debug)]
pub(super) struct Transaction {
    pub(super) id: String,
    pub(super) body: Bytes,
}

/// The body, as far as there is something to say.
#[derive(Serialize)]
struct Content<'a> {
    events: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ephemeral: Vec<Value>,
    #[serde(rename = "de.sorunome.msc2409.ephemeral", skip_serializing_if = "Vec::is_empty")]
    msc2409_ephemeral: Vec<Value>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    to_device: &'a [Box<RawValue>],
    #[serde(rename = "de.sorunome.msc2409.to_device", skip_serializing_if = "<[_]>::is_empty")]
    msc2409_to_device: &'a [Box<RawValue>],
    #[serde(
        rename = "org.matrix.msc3202.device_lists",
        skip_serializing_if = "DeviceLists::is_empty"
    )]
    device_lists: &'a DeviceLists,
    #[serde(
        rename = "org.matrix.msc3202.device_one_time_keys_count",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    one_time_keys: &'a ByDevice<BTreeMap<String, u64>>,
    #[serde(
        rename = "org.matrix.msc3202.device_unused_fallback_key_types",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    unused_fallback_key_types: &'a ByDevice<Vec<String>>,
}

/// What is taken out of the outbox, and what it becomes.
#[derive(Default)]
struct Draft {
    taken: Vec<AppserviceQueueKey>,
    events: Vec<Box<RawValue>>,
    ephemeral: Vec<Value>,
    devices: ForDevices,
}

/// The transaction that is on its way, or a new one. `None`: nothing waits. With `skips`, what
/// cannot be read is left out: else one bad row would stop all that waits for ever.
pub(super) async fn next(
    parts: &Parts,
    lane: &Lane,
    skips: bool,
) -> Result<Option<Transaction>, ApiError> {
    if let Some(known) = stored(parts, lane).await? {
        return Ok(Some(known));
    }
    loop {
        let typing = take(&lane.typing, TYPING_MAX);
        let present = take(&lane.presence, PRESENCE_MAX);
        let draft = draft(parts, lane, (typing.clone(), present.clone()), skips).await;
        let draft = draft.inspect_err(|_| {
            lane.typing.lock().extend(typing);
            lane.presence.lock().extend(present);
        })?;
        if draft.takes_nothing() {
            return Ok(None);
        }
        if let Some(made) = write(parts, lane, draft).await? {
            return Ok(Some(made));
        }
    }
}

/// Notes that a transaction has arrived.
pub(super) async fn acknowledged(parts: &Parts, lane: &Lane) -> Result<(), ApiError> {
    let mut batch = Batch::new();
    let id = lane.appservice.id.to_string();
    batch.delete_range(&APPSERVICE_TRANSACTIONS, APPSERVICE_TRANSACTIONS.prefix(&id));
    // Where a power cut undoes it, the same transaction is sent again and known there.
    parts.store().commit(batch, Durability::Buffered).await?;
    Ok(())
}

async fn stored(parts: &Parts, lane: &Lane) -> Result<Option<Transaction>, ApiError> {
    let range = APPSERVICE_TRANSACTIONS.prefix(&lane.appservice.id.to_string());
    let read = parts.store().read(move |reader| {
        reader.scan(&APPSERVICE_TRANSACTIONS, &range, Direction::Forward, usize::MAX)
    });
    let rows = read.await?;
    let Some((_, first)) = rows.first() else { return Ok(None) };
    if rows.len() != usize::from(first.parts) {
        let text = format!("a transaction for {} has lost parts", lane.appservice.id);
        return Err(ApiError::internal_text(text));
    }
    let id = first.transaction_id.clone();
    let body: Vec<u8> = rows.into_iter().flat_map(|(_, row)| row.body).collect();
    Ok(Some(Transaction { id, body: body.into() }))
}

/// Takes so many of what waits.
fn take<T: Clone + Ord>(waiting: &Mutex<BTreeSet<T>>, most: usize) -> BTreeSet<T> {
    let mut waiting = waiting.lock();
    let mut taken = std::mem::take(&mut *waiting);
    if let Some(beyond) = taken.iter().nth(most).cloned() {
        *waiting = taken.split_off(&beyond);
    }
    taken
}

async fn draft(
    parts: &Parts,
    lane: &Lane,
    (typing, present): (BTreeSet<RoomNid>, BTreeSet<OwnedUserId>),
    skips: bool,
) -> Result<Draft, ApiError> {
    let present = ephemeral::presence(parts, &present).await?;
    let (all, appservice) = (parts.clone(), lane.appservice.clone());
    let read = parts.store().read(move |reader| {
        let range = APPSERVICE_OUTBOX.prefix(&appservice.id.to_string());
        let waiting = reader.scan(&APPSERVICE_OUTBOX, &range, Direction::Forward, ENTRIES_MAX)?;
        let devices = ForDevices::read(reader, &appservice)?;
        let until = devices.until();
        let mut draft = Draft { devices, ..Draft::default() };
        let mut bytes = 0;
        for (key, row) in waiting {
            if bytes >= EVENTS_BYTES_MAX || until.is_some_and(|until| key.position > until) {
                break;
            }
            let skipped = (key.clone(), row);
            match draft.add(&all, reader, key, row) {
                Ok(added) => bytes += added,
                Err(error) if skips && !is_unavailable(&error) => draft.skip(&error, skipped),
                Err(error) => return Err(error),
            }
        }
        for room in &typing {
            match ephemeral::typing(&all, reader, *room) {
                Ok(typing) => draft.ephemeral.extend(typing),
                // Who types is soon told again.
                Err(error) if skips && !is_unavailable(&error) => {}
                Err(error) => return Err(error),
            }
        }
        draft.ephemeral.extend_from_slice(&present);
        Ok::<_, ApiError>(draft)
    });
    read.await
}

impl Draft {
    fn takes_nothing(&self) -> bool {
        self.taken.is_empty() && self.ephemeral.is_empty() && self.devices.takes_nothing()
    }

    /// Whether there is nothing to say.
    fn is_empty(&self) -> bool {
        self.events.is_empty() && self.ephemeral.is_empty() && self.devices.is_empty()
    }

    /// Takes what cannot be read out of the outbox.
    fn skip(&mut self, error: &ApiError, (key, row): (AppserviceQueueKey, QueuedRow)) {
        let (room, event) = match row {
            QueuedRow::Event(room, event) => (room.0, Some(event.0)),
            QueuedRow::Receipt(room) => (room.0, None),
        };
        tracing::error!(
            appservice = key.appservice, room, event, %error, cause = ?error.source,
            "an application service is not told of what cannot be read"
        );
        self.taken.push(key);
    }

    /// Takes something out of the outbox; gives its size. What is no more is taken all the same.
    fn add(
        &mut self,
        parts: &Parts,
        reader: &Reader<'_>,
        key: AppserviceQueueKey,
        row: QueuedRow,
    ) -> Result<usize, ApiError> {
        let rooms = &parts.rooms;
        let mut bytes = 0;
        match row {
            QueuedRow::Receipt(room) => {
                self.ephemeral.extend(ephemeral::receipt(parts, reader, room, key.position)?);
            }
            QueuedRow::Event(room, event) => {
                if let Some(room) = rooms.room_by_nid(reader, room)?
                    && let Some(event) = rooms.event(reader, &room, event)?
                {
                    let now = rooms.clock().now();
                    let event = appservice_event(rooms, reader, &room, &event, now)?;
                    bytes = event.get().len();
                    self.events.push(event);
                }
            }
        }
        self.taken.push(key);
        Ok(bytes)
    }
}

/// Writes a transaction down. `None`: what waited is no more, and so there is nothing to send.
async fn write(parts: &Parts, lane: &Lane, draft: Draft) -> Result<Option<Transaction>, ApiError> {
    let mut batch = Batch::new();
    for key in &draft.taken {
        batch.delete(&APPSERVICE_OUTBOX, key);
    }
    draft.devices.take(&mut batch);
    let made = if draft.is_empty() {
        None
    } else {
        let made = Transaction { id: random_id()?, body: body(lane, draft)? };
        // One at a time, also while a registration is being replaced.
        let appservice = lane.appservice.id.to_string();
        let first = AppserviceTransactionKey { appservice, part: 0 };
        batch.check_absent(&APPSERVICE_TRANSACTIONS, &first);
        put(&mut batch, lane, &made);
        Some(made)
    };
    parts.store().commit(batch, Durability::Synced).await?;
    Ok(made)
}

fn body(lane: &Lane, draft: Draft) -> Result<Bytes, ApiError> {
    let row = &lane.appservice.row;
    let under = |wanted: bool| if wanted { draft.ephemeral.clone() } else { Vec::new() };
    let content = Content {
        ephemeral: under(row.receive_ephemeral),
        msc2409_ephemeral: under(row.msc2409),
        to_device: &draft.devices.to_device,
        msc2409_to_device: &draft.devices.to_device,
        device_lists: &draft.devices.device_lists,
        one_time_keys: &draft.devices.one_time_keys,
        unused_fallback_key_types: &draft.devices.unused_fallback_key_types,
        events: draft.events,
    };
    Ok(serde_json::to_vec(&content).map_err(ApiError::internal)?.into())
}

fn put(batch: &mut Batch, lane: &Lane, transaction: &Transaction) {
    let chunks = transaction.body.chunks(PART_BYTES);
    let parts = u16::try_from(chunks.len()).unwrap_or(u16::MAX);
    for (part, body) in (0..parts).zip(chunks) {
        let appservice = lane.appservice.id.to_string();
        let key = AppserviceTransactionKey { appservice, part };
        let transaction_id = transaction.id.clone();
        let row = TransactionPartRow { transaction_id, parts, body: body.to_vec() };
        batch.put(&APPSERVICE_TRANSACTIONS, &key, &row);
    }
}

fn random_id() -> Result<String, ApiError> {
    let random = |_| ApiError::internal_text("the operating system has no random bytes");
    let id = (getrandom::u64().map_err(random)?, getrandom::u64().map_err(random)?);
    Ok(format!("{:016x}{:016x}", id.0, id.1))
}

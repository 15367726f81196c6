//! Messages to devices: one row for each device, until its client proves that it has the message.
//!
//! All messages of a request are written in one batch, on disk before it is answered, along with the
//! client's transaction: the same one sends nothing again, whenever it comes and however often at
//! once. Only devices that are there get rows, so that nobody fills the store with what no one will
//! fetch (attack case T65), and of those only the ones that fetch theirs (T91).
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging>

mod inbox;
mod queued;

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use kv::{Batch, Direction, Json, Position, Reader};
use ruma::{
    OwnedDeviceId, OwnedUserId, UserId, events::AnyToDeviceEventContent, serde::Raw,
    to_device::DeviceIdOrAllDevices,
};
use serde::Serialize;
use serde_json::value::RawValue;

pub use self::inbox::{PAGE_MAX, Page, page};
pub(super) use self::queued::Queued;
use super::{ATTEMPTS, Encryption, Parts, appservices::put_for_appservices, busy, commit};
use crate::{
    error::ApiError,
    id::Interner,
    storage::{
        schema::{
            encryption::{
                DEHYDRATED_DEVICES, TO_DEVICE, TO_DEVICE_TRANSACTIONS, ToDeviceKey,
                ToDeviceTransactionKey,
            },
            users::{ACCOUNTS, DEVICES, DeviceKey},
        },
        topic,
    },
};

/// The largest content of a message.
const CONTENT_BYTES_MAX: usize = 65_536;
/// The longest event type and the longest transaction id.
const NAME_BYTES_MAX: usize = 255;
/// What one request may write: `*` multiplies what it carries.
const WRITTEN_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What a row counts besides its event and the keys of it, its counters and its device.
const ROW_BYTES: usize = 512;
const KEYS_PER_ROW: usize = 4;
/// The types by which keys are asked for.
const KEY_REQUESTS: [&str; 2] = ["m.room_key_request", "m.secret.request"];
/// When to try again to send to devices that fetch nothing.
const RETRY_AFTER: Duration = Duration::from_mins(1);
const MILLISECONDS_PER_DAY: u64 = 24 * 60 * 60 * 1_000;

/// The contents of messages for one user, by device.
pub type Contents = BTreeMap<DeviceIdOrAllDevices, Raw<AnyToDeviceEventContent>>;

/// What a client sends to devices with one request.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Who sends it.
    pub sender: OwnedUserId,
    /// From which device; empty where an application service names none.
    pub device_id: OwnedDeviceId,
    /// The type of all the messages.
    pub event_type: String,
    /// The client's id of the request.
    pub transaction_id: String,
    /// The messages.
    pub messages: BTreeMap<OwnedUserId, Contents>,
}

/// What a request is charged for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// The messages that are written, and at least one for each user that is named.
    pub messages: usize,
    /// The users who are asked for keys, but for the sender: people who log in ask their own devices
    /// for the keys of all that they cannot read, and others are hardly ever asked.
    pub key_requests: usize,
}

/// What came of looking at a request.
#[derive(Default)]
struct Draft {
    batch: Batch,
    size_bytes: usize,
    written: usize,
    /// Devices for which too much waits already.
    full: usize,
    /// What it costs; nothing for a transaction that came before.
    cost: Cost,
}

impl Encryption {
    /// Sends messages to devices, where `charge` lets it. A transaction that came before sends and
    /// costs nothing.
    ///
    /// # Errors
    /// 413 `M_TOO_LARGE`; 429 `M_LIMIT_EXCEEDED` when too much waits for every device it is for; what
    /// `charge` says.
    pub async fn send_to_devices(
        &self,
        outgoing: Outgoing,
        charge: impl Fn(Cost) -> Result<(), ApiError> + Send,
    ) -> Result<(), ApiError> {
        outgoing.check()?;
        let outgoing = Arc::new(outgoing);
        let mut charged = false;
        for _ in 0..ATTEMPTS {
            let day = self.0.today();
            let (parts, order) = (Arc::clone(&self.0), Arc::clone(&outgoing));
            let read = self.0.store.read(move |reader| parts.draft(reader, &order, day));
            let Draft { batch, written, full, cost, .. } = read.await?;
            // Once, also where it is decided again.
            if !charged {
                charge(cost)?;
                charged = true;
            }
            if written > 0 && commit(&self.0.store, batch).await?.is_none() {
                continue;
            }
            if written > 0 {
                self.0.transactions_swept.store(day, Relaxed);
            }
            note_full(&outgoing.sender, full);
            if written == 0 && full > 0 {
                let message = "Too many messages wait for the devices already";
                let error = ApiError::limit_exceeded(RETRY_AFTER);
                return Err(ApiError { message: message.into(), ..error });
            }
            return Ok(());
        }
        Err(busy())
    }
}

impl Outgoing {
    fn check(&self) -> Result<(), ApiError> {
        if self.event_type.len() > NAME_BYTES_MAX {
            return Err(ApiError::invalid_param("The event type is too long"));
        }
        if self.transaction_id.len() > NAME_BYTES_MAX {
            return Err(ApiError::invalid_param("The transaction id is too long"));
        }
        for content in self.messages.values().flat_map(BTreeMap::values) {
            let content = content.json().get();
            if content.len() > CONTENT_BYTES_MAX {
                return Err(ApiError::too_large(format!(
                    "The content of a message has more than {CONTENT_BYTES_MAX} bytes"
                )));
            }
            if !content.starts_with('{') {
                return Err(ApiError::bad_json("The content of a message is not an object"));
            }
        }
        Ok(())
    }

    fn transaction(&self, day: u32) -> ToDeviceTransactionKey {
        ToDeviceTransactionKey {
            day,
            user_id: self.sender.to_string(),
            device_id: self.device_id.to_string(),
            event_type: self.event_type.clone(),
            transaction_id: self.transaction_id.clone(),
        }
    }

    /// A message as its recipient sees it, with the content as it came.
    fn event(&self, content: &RawValue) -> Result<Vec<u8>, ApiError> {
        #[derive(Serialize)]
        struct Event<'a> {
            #[serde(rename = "type")]
            kind: &'a str,
            sender: &'a UserId,
            content: &'a RawValue,
        }
        let event = Event { kind: &self.event_type, sender: &self.sender, content };
        serde_json::to_vec(&event).map_err(ApiError::internal)
    }
}

impl Parts {
    /// The day of today, counted from 1970.
    fn today(&self) -> u32 {
        let milliseconds: u64 = self.clock.now().get().into();
        u32::try_from(milliseconds / MILLISECONDS_PER_DAY).unwrap_or(u32::MAX)
    }

    /// Decides on one view what is written.
    fn draft(&self, reader: &Reader<'_>, outgoing: &Outgoing, day: u32) -> Result<Draft, ApiError> {
        let mut draft = Draft::default();
        // It may come twice around midnight, and clocks are set.
        let days = [day.saturating_sub(1), day, day.saturating_add(1)];
        let transactions = days.map(|day| outgoing.transaction(day));
        if reader.get_many(&TO_DEVICE_TRANSACTIONS, &transactions)?.iter().any(Option::is_some) {
            return Ok(draft);
        }
        let asks_for_keys = KEY_REQUESTS.contains(&outgoing.event_type.as_str());
        for (user_id, contents) in &outgoing.messages {
            let before = draft.written;
            // Nobody is told on other servers: there is no federation yet.
            if *user_id.server_name() == *self.server_name && is_active(reader, user_id)? {
                self.add_messages(reader, &mut draft, outgoing, (user_id, contents))?;
            }
            draft.cost.messages += (draft.written - before).max(1);
            let is_other = *user_id != outgoing.sender;
            draft.cost.key_requests += usize::from(asks_for_keys && is_other);
        }
        for transaction in &transactions {
            draft.batch.check_absent(&TO_DEVICE_TRANSACTIONS, transaction);
        }
        draft.batch.put(&TO_DEVICE_TRANSACTIONS, &transactions[1], &());
        if self.transactions_swept.load(Relaxed) != day {
            let kept = (days[0],);
            let old = (Bound::<&()>::Unbounded, Bound::Excluded(&kept));
            draft
                .batch
                .delete_range(&TO_DEVICE_TRANSACTIONS, TO_DEVICE_TRANSACTIONS.range(old.0, old.1));
        }
        Ok(draft)
    }

    /// Adds the messages for one user's devices. What is meant for a device by its id goes before
    /// what is meant for all.
    fn add_messages(
        &self,
        reader: &Reader<'_>,
        draft: &mut Draft,
        outgoing: &Outgoing,
        (user_id, contents): (&OwnedUserId, &Contents),
    ) -> Result<(), ApiError> {
        let for_all = contents.get(&DeviceIdOrAllDevices::AllDevices);
        let content_of = |device_id: &str| {
            contents.get(&DeviceIdOrAllDevices::DeviceId(device_id.into())).or(for_all)
        };
        let user = user_id.to_string();
        // One look at all of the user's devices, whatever number of others the client names.
        let rows = reader.scan(&DEVICES, &DEVICES.prefix(&user), Direction::Forward, usize::MAX)?;
        for (device, row) in &rows {
            if let Some(content) = content_of(&device.device_id) {
                // A device that ends meanwhile must not leave a message behind.
                draft.batch.check(&DEVICES, device, Some(row));
                self.add_message(reader, draft, device, &outgoing.event(content.json())?)?;
            }
        }
        let Some(row) = reader.get(&DEHYDRATED_DEVICES, &user)? else { return Ok(()) };
        let Json(dehydrated) = &row;
        // One message for each id, whatever it names.
        if rows.iter().any(|(device, _)| device.device_id == dehydrated.device_id) {
            return Ok(());
        }
        if let Some(content) = content_of(&dehydrated.device_id) {
            draft.batch.check(&DEHYDRATED_DEVICES, &user, Some(&row));
            let device =
                DeviceKey { user_id: user.clone(), device_id: dehydrated.device_id.clone() };
            self.add_message(reader, draft, &device, &outgoing.event(content.json())?)?;
        }
        Ok(())
    }

    fn add_message(
        &self,
        reader: &Reader<'_>,
        draft: &mut Draft,
        device: &DeviceKey,
        event: &Vec<u8>,
    ) -> Result<(), ApiError> {
        let queued = Queued::read(reader, device)?.unwrap_or_default();
        if queued.is_full(event, &self.config) {
            draft.full += 1;
            return Ok(());
        }
        let told = self.told_of(&device.user_id);
        let keys_bytes = (device.user_id.len() + device.device_id.len()) * KEYS_PER_ROW;
        draft.size_bytes += (event.len() + keys_bytes + ROW_BYTES) * (1 + told.len());
        if draft.size_bytes > WRITTEN_BYTES_MAX {
            let message = "The request reaches too many devices with too much: send it in parts";
            return Err(ApiError::too_large(message));
        }
        draft.written += 1;
        if put_for_appservices(reader, &mut draft.batch, (device, event), &told)? {
            return Ok(());
        }
        put(&mut draft.batch, self.interner, device, event);
        Ok(())
    }
}

/// Adds a message to a batch: the one place where a device gets one. There may be one for each
/// device in a batch.
fn put(batch: &mut Batch, interner: Interner, device: &DeviceKey, event: &Vec<u8>) {
    let DeviceKey { user_id, device_id } = device.clone();
    if let Ok(user_id) = UserId::parse(&user_id) {
        batch.touch(topic::user(topic::USER_DEVICES, interner.user(&user_id)));
    }
    let key = ToDeviceKey { user_id, device_id, position: Position::pending(0) };
    batch.put(&TO_DEVICE, &key, event);
    Queued::of(event).add(batch, device);
}

/// Whether there is an account that is not deactivated. One that is locked comes back.
fn is_active(reader: &Reader<'_>, user_id: &UserId) -> Result<bool, kv::Error> {
    let account = reader.get(&ACCOUNTS, &user_id.to_string())?;
    Ok(account.is_some_and(|Json(account)| account.deactivated_ts.is_none()))
}

/// Counts what is not sent. It is no warning: devices that nobody uses any more fill up.
fn note_full(sender: &UserId, full: usize) {
    if full > 0 {
        let count = u64::try_from(full).unwrap_or(u64::MAX);
        metrics::counter!("to_device_messages_refused_total").increment(count);
        tracing::debug!(%sender, devices = full, "too many messages wait for devices already");
    }
}

//! What waits for application services about the devices of their users: messages, and counts of
//! keys that changed (MSC3202, MSC4203).
//!
//! Written in the batch that sends the message or changes the count, so that nothing is lost; the
//! sender of application services reads it and takes it out in the batch that writes a transaction.
//! A message for a user whose name is reserved waits here instead of the device's inbox, which
//! nobody would ever empty. One that does not want it by its registration gets none of it.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/4203>

use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
    sync::Arc,
};

use kv::{Batch, CommitError, Direction, Durability, Position, Reader, Store, Topic};
use ruma::UserId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{ATTEMPTS, Encryption, Parts, busy, commit, to_device::Queued};
use crate::{
    appservices::Appservice,
    error::ApiError,
    storage::{
        rows::encryption::AppserviceMessageRow,
        schema::{
            encryption::{
                APPSERVICE_KEY_COUNTS, APPSERVICE_TO_DEVICE, AppserviceDeviceKey, KEY_COUNT_CHANGES,
            },
            users::{DEVICE_TOKENS, DEVICES, DeviceKey},
        },
        topic,
    },
};

/// How many messages one transaction has.
const MESSAGES_MAX: usize = 100;
/// How many bytes of messages one transaction has; the last message may go beyond.
const MESSAGES_BYTES_MAX: usize = 256 * 1024;
/// Of how many changes of counts one transaction tells.
const COUNTS_MAX: usize = 500;
/// How many devices one step of the look at all of them takes.
const DEVICES_PER_STEP: usize = 1_000;

/// What wakes the sender.
const WAITING: Topic = Topic { space: topic::APPSERVICE_DEVICES, id: 0 };

/// What waits for an application service, as far as one transaction takes it.
#[derive(Debug, Default)]
pub struct Waiting {
    /// The messages, in the order in which they were sent.
    pub messages: Vec<Message>,
    /// The devices whose counts of keys changed, each once for every change.
    pub counts: Vec<AppserviceDeviceKey>,
    /// The position of the last message, where others wait behind it. Events that came later must
    /// wait too: they may be encrypted with what those messages bring.
    pub until: Option<Position>,
    /// What of each device no longer counts as waiting once it is taken.
    counted: BTreeMap<(String, String), Queued>,
}

/// A message for a device.
#[derive(Debug)]
pub struct Message {
    /// Whose device it is, and where the message waits.
    pub key: AppserviceDeviceKey,
    row: AppserviceMessageRow,
}

impl Message {
    /// The event as an application service gets it: with the device that it is for.
    pub fn event(&self) -> serde_json::Result<Box<RawValue>> {
        #[derive(Deserialize)]
        struct Sent<'a> {
            #[serde(rename = "type")]
            event_type: String,
            sender: String,
            #[serde(borrow)]
            content: &'a RawValue,
        }
        #[derive(Serialize)]
        struct Addressed<'a> {
            to_user_id: &'a str,
            to_device_id: &'a str,
            #[serde(rename = "type")]
            event_type: &'a str,
            sender: &'a str,
            content: &'a RawValue,
        }
        let event: Sent<'_> = serde_json::from_slice(&self.row.event)?;
        serde_json::value::to_raw_value(&Addressed {
            to_user_id: &self.key.user_id,
            to_device_id: &self.key.device_id,
            event_type: &event.event_type,
            sender: &event.sender,
            content: event.content,
        })
    }
}

/// What waits for an application service.
pub fn waiting(reader: &Reader<'_>, appservice: &str) -> Result<Waiting, kv::Error> {
    let mut waiting = Waiting::default();
    let mut bytes = 0;
    let of_one = APPSERVICE_TO_DEVICE.prefix(&appservice.to_owned());
    reader.for_each(&APPSERVICE_TO_DEVICE, &of_one, Direction::Forward, |key, row| {
        if waiting.messages.len() >= MESSAGES_MAX || bytes >= MESSAGES_BYTES_MAX {
            waiting.until = waiting.messages.last().map(|last| last.key.position);
            return ControlFlow::Break(());
        }
        bytes += row.event.len();
        waiting.messages.push(Message { key, row });
        ControlFlow::Continue(())
    })?;
    let mut counted: BTreeMap<_, Queued> = BTreeMap::new();
    for Message { key, row } in waiting.messages.iter().filter(|message| message.row.counted) {
        let device = (key.user_id.clone(), key.device_id.clone());
        counted.entry(device).or_default().count(&row.event);
    }
    for (device, taken) in counted {
        // A device that has ended since has no counters any more, and must not get some; those of
        // another one of the same name do not count these messages.
        if let Some(queued) = Queued::read(reader, &device_key(device.clone()))? {
            waiting.counted.insert(device, taken.at_most(queued));
        }
    }
    let of_one = APPSERVICE_KEY_COUNTS.prefix(&appservice.to_owned());
    let counts = reader.scan(&APPSERVICE_KEY_COUNTS, &of_one, Direction::Forward, COUNTS_MAX)?;
    waiting.counts = counts.into_iter().map(|(key, ())| key).collect();
    Ok(waiting)
}

/// Takes what waited out of the queue, in the batch that writes it down as a transaction.
pub fn take(batch: &mut Batch, waiting: &Waiting) {
    if let Some(first) = waiting.messages.first() {
        // Whoever takes the same at once does not take it twice.
        batch.check(&APPSERVICE_TO_DEVICE, &first.key, Some(&first.row));
    }
    for message in &waiting.messages {
        batch.delete(&APPSERVICE_TO_DEVICE, &message.key);
    }
    for (device, taken) in &waiting.counted {
        taken.subtract(batch, &device_key(device.clone()));
    }
    for key in &waiting.counts {
        batch.delete(&APPSERVICE_KEY_COUNTS, key);
    }
}

/// Drops all that waits for an application service that is no more, step by step: the devices that
/// the messages are for have other ones from now on, for which these must not count.
pub async fn forget(store: &Store, appservice: &str) -> Result<(), ApiError> {
    let mut conflicts = 0;
    while conflicts < ATTEMPTS {
        let id = appservice.to_owned();
        let waiting = store.read(move |reader| waiting(reader, &id)).await?;
        if waiting.messages.is_empty() && waiting.counts.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new();
        take(&mut batch, &waiting);
        match store.commit(batch, Durability::Buffered).await {
            Ok(_) => {}
            Err(CommitError::Conflict) => conflicts += 1,
            Err(error) => return Err(error.into()),
        }
    }
    Err(busy())
}

/// The first application service after a bound for which something waits.
pub fn next_waiting(
    reader: &Reader<'_>,
    after: Bound<&String>,
) -> Result<Option<String>, kv::Error> {
    let range = APPSERVICE_TO_DEVICE.range(after, Bound::Unbounded::<&String>);
    let messages = reader.scan(&APPSERVICE_TO_DEVICE, &range, Direction::Forward, 1)?;
    let range = APPSERVICE_KEY_COUNTS.range(after, Bound::Unbounded::<&String>);
    let counts = reader.scan(&APPSERVICE_KEY_COUNTS, &range, Direction::Forward, 1)?;
    let messages = messages.into_iter().map(|(key, _)| key.appservice);
    Ok(messages.chain(counts.into_iter().map(|(key, ())| key.appservice)).min())
}

impl Parts {
    /// The application services that are told of a user's devices.
    pub(super) fn told_of(&self, user_id: &str) -> Vec<Arc<Appservice>> {
        let registry = self.appservices.registry();
        let Ok(user_id) = <&UserId>::try_from(user_id) else { return Vec::new() };
        let all = registry.all().iter();
        let told = all.filter(|one| one.wants_encryption() && one.covers_user(user_id));
        told.cloned().collect()
    }

    /// Adds to a batch that application services are to be told of a device's counts of keys.
    pub(super) fn tell_counts(&self, batch: &mut Batch, device: &DeviceKey) {
        for appservice in self.told_of(&device.user_id) {
            batch.put(&APPSERVICE_KEY_COUNTS, &key(&appservice, device), &());
            batch.touch(WAITING);
        }
    }
}

impl Encryption {
    /// Tells application services of the counts of all devices of their users, after all of them
    /// changed. O(devices).
    pub(super) async fn tell_all_counts(&self) -> Result<(), ApiError> {
        if !self.0.appservices.registry().all().iter().any(|one| one.wants_encryption()) {
            return Ok(());
        }
        let mut after: Bound<(String, String)> = Bound::Unbounded;
        let mut conflicts = 0;
        loop {
            let from = after.clone();
            let devices = self.0.store.read(move |reader| {
                let range = KEY_COUNT_CHANGES.range(from.as_ref(), Bound::Unbounded::<&()>);
                reader.scan(&KEY_COUNT_CHANGES, &range, Direction::Forward, DEVICES_PER_STEP)
            });
            let devices = devices.await?;
            let Some((last, _)) = devices.last() else { return Ok(()) };
            let next = Bound::Excluded((last.user_id.clone(), last.device_id.clone()));
            let mut batch = Batch::new();
            for (device, _) in &devices {
                self.0.tell_counts(&mut batch, device);
            }
            if batch.is_empty() || commit(&self.0.store, batch).await?.is_some() {
                after = next;
                continue;
            }
            conflicts += 1;
            if conflicts == ATTEMPTS {
                return Err(busy());
            }
        }
    }
}

/// Adds a message for a device to a batch, for the application services that are told. `true`: it
/// goes to these alone, so that the device's inbox is not for it.
pub(super) fn put_for_appservices(
    reader: &Reader<'_>,
    batch: &mut Batch,
    (device, event): (&DeviceKey, &[u8]),
    told: &[Arc<Appservice>],
) -> Result<bool, kv::Error> {
    let Some(first) = told.first() else { return Ok(false) };
    let is_reserved = <&UserId>::try_from(device.user_id.as_str())
        .is_ok_and(|user_id| told.iter().any(|one| one.reserves_user(user_id)));
    let alone = is_reserved || has_no_session(reader, device)?;
    for appservice in told {
        let is_first = Arc::ptr_eq(appservice, first);
        // One of them counts for the device, as the inbox would.
        let row = AppserviceMessageRow { counted: alone && is_first, event: event.to_vec() };
        batch.put(&APPSERVICE_TO_DEVICE, &key(appservice, device), &row);
    }
    if alone {
        Queued::of(event).add(batch, device);
    }
    batch.touch(WAITING);
    Ok(alone)
}

fn key(appservice: &Appservice, device: &DeviceKey) -> AppserviceDeviceKey {
    let DeviceKey { user_id, device_id } = device.clone();
    let appservice = appservice.id.to_string();
    AppserviceDeviceKey { appservice, position: Position::pending(0), user_id, device_id }
}

fn device_key((user_id, device_id): (String, String)) -> DeviceKey {
    DeviceKey { user_id, device_id }
}

/// Whether a device is one that an application service made without logging in (MSC4190).
fn has_no_session(reader: &Reader<'_>, device: &DeviceKey) -> Result<bool, kv::Error> {
    let tokens = DEVICE_TOKENS.prefix(&(device.user_id.clone(), device.device_id.clone()));
    Ok(reader.contains(&DEVICES, device)?
        && reader.scan(&DEVICE_TOKENS, &tokens, Direction::Forward, 1)?.is_empty())
}

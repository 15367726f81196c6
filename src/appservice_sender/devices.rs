//! What a transaction tells of devices: messages to those of the application service's users, how
//! many of their keys are left, and whose devices changed (MSC3202, MSC4203).
//!
//! All of it waits in tables and is taken out in the batch that writes the transaction. Counts are
//! those of the time at which the transaction is made.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/3202>

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use kv::{Batch, Direction, Position, Reader};
use ruma::{DeviceId, UserId};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    appservices::Appservice,
    encryption::{
        appservices::{Waiting, take, waiting},
        key_counts,
    },
    id::RoomNid,
    storage::{
        rows::Membership,
        schema::{
            appservices::{APPSERVICE_DEVICE_LISTS, AppserviceDeviceListKey, DeviceListRow},
            encryption::DEHYDRATED_DEVICES,
            rooms::MEMBERS,
            users::{DEVICES, DeviceKey},
        },
    },
};

/// How many changes of device lists one transaction takes.
const CHANGES_MAX: usize = 500;
/// How many users one transaction names before it takes no other change.
const USERS_MAX: usize = 5_000;
/// Of how many members of a room that is new to it an application service is told.
const MEMBERS_MAX: usize = 20_000;

/// Something for each device of each user.
pub(super) type ByDevice<T> = BTreeMap<String, BTreeMap<String, T>>;

/// What a transaction tells of devices.
#[derive(Default)]
pub(super) struct ForDevices {
    /// Messages to devices.
    pub(super) to_device: Vec<Box<RawValue>>,
    /// Whose devices changed.
    pub(super) device_lists: DeviceLists,
    /// How many one-time keys wait, by algorithm.
    pub(super) one_time_keys: ByDevice<BTreeMap<String, u64>>,
    /// The algorithms of the fallback keys that were not handed out.
    pub(super) unused_fallback_key_types: ByDevice<Vec<String>>,
    waiting: Waiting,
    changes: Vec<AppserviceDeviceListKey>,
}

/// Whose devices changed, and who is in none of the application service's rooms any more.
#[derive(Default, Serialize)]
pub(super) struct DeviceLists {
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    changed: BTreeSet<String>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    left: BTreeSet<String>,
}

impl DeviceLists {
    pub(super) fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.left.is_empty()
    }

    fn change(&mut self, user_id: String) {
        self.left.remove(&user_id);
        self.changed.insert(user_id);
    }

    fn leave(&mut self, user_id: String) {
        self.changed.remove(&user_id);
        self.left.insert(user_id);
    }
}

impl ForDevices {
    /// Reads what waits for an application service.
    pub(super) fn read(reader: &Reader<'_>, appservice: &Appservice) -> Result<Self, kv::Error> {
        let mut told = Self::default();
        if !appservice.wants_encryption() {
            return Ok(told);
        }
        told.waiting = waiting(reader, &appservice.id)?;
        for message in &told.waiting.messages {
            match message.event() {
                Ok(event) => told.to_device.push(event),
                Err(error) => {
                    let (appservice, user_id) = (&appservice.id, &message.key.user_id);
                    tracing::error!(%appservice, user_id, %error, "a message cannot be read");
                }
            }
        }
        told.count_keys(reader)?;
        told.list_changes(reader, appservice)?;
        Ok(told)
    }

    /// Whether there is nothing to tell.
    pub(super) fn is_empty(&self) -> bool {
        self.to_device.is_empty() && self.device_lists.is_empty() && self.one_time_keys.is_empty()
    }

    /// Whether nothing is taken.
    pub(super) fn takes_nothing(&self) -> bool {
        self.waiting.messages.is_empty()
            && self.waiting.counts.is_empty()
            && self.changes.is_empty()
    }

    /// Up to where events may be told; `None`: all.
    pub(super) fn until(&self) -> Option<Position> {
        self.waiting.until
    }

    /// Takes it out of what waits.
    pub(super) fn take(&self, batch: &mut Batch) {
        take(batch, &self.waiting);
        for key in &self.changes {
            batch.delete(&APPSERVICE_DEVICE_LISTS, key);
        }
    }

    /// The counts of the devices where they changed, and of those that get messages, which mostly
    /// means that a key was used.
    fn count_keys(&mut self, reader: &Reader<'_>) -> Result<(), kv::Error> {
        let messages = self.waiting.messages.iter().map(|message| &message.key);
        let devices: BTreeSet<_> = messages
            .chain(&self.waiting.counts)
            .map(|key| (key.user_id.clone(), key.device_id.clone()))
            .collect();
        for (user, device_id) in devices {
            let Ok(user_id) = UserId::parse(&user) else { continue };
            let key = DeviceKey { user_id: user.clone(), device_id: device_id.clone() };
            if !is_there(reader, &key)? {
                continue;
            }
            let counts = key_counts(reader, &user_id, <&DeviceId>::from(device_id.as_str()))?;
            let one_time_keys = self.one_time_keys.entry(user.clone()).or_default();
            one_time_keys.insert(device_id.clone(), counts.one_time_keys);
            let unused = self.unused_fallback_key_types.entry(user).or_default();
            unused.insert(device_id, counts.unused_fallback_key_types);
        }
        Ok(())
    }

    fn list_changes(
        &mut self,
        reader: &Reader<'_>,
        appservice: &Appservice,
    ) -> Result<(), kv::Error> {
        let range = APPSERVICE_DEVICE_LISTS.prefix(&appservice.id.to_string());
        let rows =
            reader.scan(&APPSERVICE_DEVICE_LISTS, &range, Direction::Forward, CHANGES_MAX)?;
        let lists = &mut self.device_lists;
        for (key, row) in rows {
            if lists.changed.len() + lists.left.len() >= USERS_MAX {
                break;
            }
            match row {
                DeviceListRow::Changed(user_id) => lists.change(user_id),
                DeviceListRow::Left(user_id) => lists.leave(user_id),
                DeviceListRow::Members(room) => {
                    for user_id in members(reader, appservice, room)? {
                        lists.change(user_id);
                    }
                }
            }
            self.changes.push(key);
        }
        Ok(())
    }
}

/// Whether there is such a device, a dehydrated one too.
fn is_there(reader: &Reader<'_>, device: &DeviceKey) -> Result<bool, kv::Error> {
    if reader.contains(&DEVICES, device)? {
        return Ok(true);
    }
    let dehydrated = reader.get(&DEHYDRATED_DEVICES, &device.user_id)?;
    Ok(dehydrated.is_some_and(|row| row.0.device_id == device.device_id))
}

/// The members of a room, but for the application service's own, whose devices it made itself.
fn members(
    reader: &Reader<'_>,
    appservice: &Appservice,
    room: RoomNid,
) -> Result<Vec<String>, kv::Error> {
    let mut members = Vec::new();
    let range = MEMBERS.prefix(&(room, Membership::Join as u8));
    reader.for_each(&MEMBERS, &range, Direction::Forward, |key, _| {
        let is_own = <&UserId>::try_from(key.user_id.as_str())
            .is_ok_and(|user_id| appservice.covers_user(user_id));
        if !is_own {
            members.push(key.user_id);
        }
        if members.len() < MEMBERS_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(members)
}

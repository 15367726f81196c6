//! The shape of an answer of sliding sync.
//!
//! Our own and not ruma's: events are passed through as they were written.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/4186>

use std::collections::BTreeMap;

use ruma::{OwnedEventId, OwnedRoomId};
use serde::{Serialize, Serializer};

use super::request::{Extensions, Scope};
use crate::{
    encryption::KeyCounts,
    sync::streams::{
        ClientEvent, device_lists::DeviceLists, to_device::ToldMessages, unread::UnreadCounts,
    },
};

/// The whole answer.
#[derive(Debug, Default, Serialize)]
pub(super) struct Answer {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) txn_id: Option<String>,
    pub(super) pos: String,
    pub(super) lists: BTreeMap<String, ListAnswer>,
    pub(super) rooms: BTreeMap<OwnedRoomId, RoomAnswer>,
    pub(super) extensions: ExtensionAnswers,
}

impl Answer {
    /// Whether it tells anything new.
    pub(super) fn is_empty(&self) -> bool {
        let Self { rooms, extensions, .. } = self;
        rooms.is_empty()
            && extensions.to_device.as_ref().is_none_or(|messages| messages.events.is_empty())
            && extensions.e2ee.as_ref().is_none_or(|e2ee| e2ee.lists.is_empty())
            && extensions.account_data.as_ref().is_none_or(AccountData::is_empty)
            && extensions.receipts.as_ref().is_none_or(|receipts| receipts.rooms.is_empty())
            && extensions.typing.as_ref().is_none_or(|typing| typing.rooms.is_empty())
            && extensions.threads.as_ref().is_none_or(Threads::is_empty)
    }
}

/// A list.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct ListAnswer {
    /// How many rooms are in it.
    pub(super) count: u64,
}

/// A value that may have changed, or have gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Change {
    /// As it was: not in the answer.
    #[default]
    Unchanged,
    /// `None` is null: there is none any more.
    To(Option<String>),
}

impl Change {
    fn is_unchanged(&self) -> bool {
        *self == Self::Unchanged
    }
}

impl Serialize for Change {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Unchanged | Self::To(None) => serializer.serialize_none(),
            Self::To(Some(value)) => serializer.serialize_str(value),
        }
    }
}

/// What is new in a room.
#[derive(Debug, Default, Serialize)]
pub(super) struct RoomAnswer {
    #[serde(skip_serializing_if = "Change::is_unchanged")]
    pub(super) name: Change,
    #[serde(skip_serializing_if = "Change::is_unchanged")]
    pub(super) avatar: Change,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) heroes: Option<Vec<Hero>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) initial: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) unstable_expanded_timeline: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) is_dm: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) invite_state: Option<Vec<ClientEvent>>,
    #[serde(flatten)]
    pub(super) unread: Option<UnreadCounts>,
    pub(super) timeline: Vec<ClientEvent>,
    pub(super) required_state: Vec<ClientEvent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) prev_batch: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) limited: bool,
    pub(super) num_live: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) joined_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) invited_count: Option<u64>,
    pub(super) bump_stamp: u64,
    pub(super) membership: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) lists: Vec<String>,
}

/// Someone after whom a room without a name is called.
#[derive(Debug, Serialize)]
pub(super) struct Hero {
    pub(super) user_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) displayname: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) avatar_url: Option<String>,
}

/// The extensions that are on.
#[derive(Debug, Default, Serialize)]
pub(super) struct ExtensionAnswers {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) to_device: Option<ToDevice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) e2ee: Option<E2ee>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) account_data: Option<AccountData>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) receipts: Option<Ephemeral>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) typing: Option<Ephemeral>,
    #[serde(
        rename = "io.element.msc4308.thread_subscriptions",
        skip_serializing_if = "Option::is_none"
    )]
    pub(super) threads: Option<Threads>,
}

impl ExtensionAnswers {
    /// What those that are on answer when there is nothing to tell. `inbox` is the token of the
    /// messages that the client has.
    pub(super) fn nothing(wanted: &Extensions, inbox: String) -> Self {
        let on = |scope: &Option<Scope>| scope.as_ref().map(|_| Ephemeral::default());
        Self {
            to_device: wanted.to_device.map(|_| ToDevice::nothing(inbox)),
            e2ee: wanted.e2ee.then(E2ee::default),
            account_data: wanted.account_data.as_ref().map(|_| AccountData::default()),
            receipts: on(&wanted.receipts),
            typing: on(&wanted.typing),
            threads: wanted.threads.map(|_| Threads::default()),
        }
    }
}

/// Messages for the device.
#[derive(Debug, Serialize)]
pub(super) struct ToDevice {
    pub(super) next_batch: String,
    pub(super) events: Vec<ClientEvent>,
    /// What of them was told; `None`: they were not read.
    #[serde(skip)]
    pub(super) told: Option<ToldMessages>,
}

impl ToDevice {
    fn nothing(next_batch: String) -> Self {
        Self { next_batch, events: Vec::new(), told: None }
    }
}

/// What encryption needs. All of it is in every answer, also what is empty or zero: clients make keys
/// when there are none.
#[derive(Debug, Default, Serialize)]
pub(super) struct E2ee {
    #[serde(rename = "device_lists")]
    pub(super) lists: DeviceLists,
    #[serde(rename = "device_one_time_keys_count")]
    one_time_keys_count: BTreeMap<String, u64>,
    #[serde(rename = "device_unused_fallback_key_types")]
    unused_fallback_key_types: Vec<String>,
}

impl E2ee {
    /// The same with the counts of the device's keys.
    pub(super) fn with_keys(self, keys: &KeyCounts) -> Self {
        Self {
            one_time_keys_count: keys.one_time_keys.clone(),
            unused_fallback_key_types: keys.unused_fallback_key_types.clone(),
            ..self
        }
    }
}

/// Account data.
#[derive(Debug, Default, Serialize)]
pub(super) struct AccountData {
    pub(super) global: Vec<ClientEvent>,
    pub(super) rooms: BTreeMap<OwnedRoomId, Vec<ClientEvent>>,
}

impl AccountData {
    fn is_empty(&self) -> bool {
        self.global.is_empty() && self.rooms.is_empty()
    }
}

/// Receipts or typing: one event for each room.
#[derive(Debug, Default, Serialize)]
pub(super) struct Ephemeral {
    pub(super) rooms: BTreeMap<OwnedRoomId, ClientEvent>,
}

/// Threads that the user follows, or no longer.
#[derive(Debug, Default, Serialize)]
pub(super) struct Threads {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) subscribed: BTreeMap<OwnedRoomId, BTreeMap<OwnedEventId, Subscribed>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) unsubscribed: BTreeMap<OwnedRoomId, BTreeMap<OwnedEventId, Unsubscribed>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) prev_batch: Option<String>,
}

impl Threads {
    fn is_empty(&self) -> bool {
        self.subscribed.is_empty() && self.unsubscribed.is_empty()
    }
}

/// A thread that the user follows.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Subscribed {
    pub(super) automatic: bool,
    pub(super) bump_stamp: u64,
}

/// A thread that the user follows no longer.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Unsubscribed {
    pub(super) bump_stamp: u64,
}

//! The shape of an answer to `GET /sync`.
//!
//! Our own and not ruma's: events are passed through as they were written, and MSC4222's unstable
//! field is answered to those who ask with its unstable name.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync>

use std::collections::BTreeMap;

use ruma::{OwnedEventId, OwnedRoomId};
use serde::Serialize;

use crate::sync::streams::{
    ClientEvent, device_lists::DeviceLists, summary::Summary, to_device::ToldMessages,
    unread::UnreadCounts,
};

/// A list of events.
#[derive(Debug, Default, Serialize)]
pub(super) struct Events {
    pub(super) events: Vec<ClientEvent>,
}

impl Events {
    fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

impl From<Vec<ClientEvent>> for Events {
    fn from(events: Vec<ClientEvent>) -> Self {
        Self { events }
    }
}

/// The whole answer.
#[derive(Debug, Default, Serialize)]
pub(super) struct Answer {
    pub(super) next_batch: String,
    #[serde(skip_serializing_if = "Rooms::is_empty")]
    pub(super) rooms: Rooms,
    #[serde(skip_serializing_if = "Events::is_empty")]
    pub(super) account_data: Events,
    #[serde(skip_serializing_if = "Events::is_empty")]
    pub(super) presence: Events,
    #[serde(skip_serializing_if = "Events::is_empty")]
    pub(super) to_device: Events,
    #[serde(skip_serializing_if = "DeviceLists::is_empty")]
    pub(super) device_lists: DeviceLists,
    /// In every answer: some clients take what is missing for zero, and upload keys for ever.
    pub(super) device_one_time_keys_count: BTreeMap<String, u64>,
    /// In every answer: where it is missing, clients take it that the server has no fallback keys.
    pub(super) device_unused_fallback_key_types: Vec<String>,
    /// What was told of the messages for the device; `None`: they were not read.
    #[serde(skip)]
    pub(super) told_messages: Option<ToldMessages>,
}

impl Answer {
    /// Whether it tells anything.
    pub(super) fn is_empty(&self) -> bool {
        self.rooms.is_empty()
            && self.account_data.is_empty()
            && self.presence.is_empty()
            && self.to_device.is_empty()
            && self.device_lists.is_empty()
    }
}

/// The rooms, by what the user is to them.
#[derive(Debug, Default, Serialize)]
pub(super) struct Rooms {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) join: BTreeMap<OwnedRoomId, JoinedRoom>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) invite: BTreeMap<OwnedRoomId, InvitedRoom>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) knock: BTreeMap<OwnedRoomId, KnockedRoom>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) leave: BTreeMap<OwnedRoomId, LeftRoom>,
}

impl Rooms {
    fn is_empty(&self) -> bool {
        self.join.is_empty()
            && self.invite.is_empty()
            && self.knock.is_empty()
            && self.leave.is_empty()
    }
}

/// A room that the user has joined.
#[derive(Debug, Serialize)]
pub(super) struct JoinedRoom {
    pub(super) summary: Summary,
    #[serde(flatten)]
    pub(super) state: State,
    pub(super) timeline: Timeline,
    pub(super) ephemeral: Events,
    pub(super) account_data: Events,
    pub(super) unread_notifications: UnreadCounts,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) unread_thread_notifications: BTreeMap<OwnedEventId, UnreadCounts>,
}

/// A room that the user is invited to.
#[derive(Debug, Serialize)]
pub(super) struct InvitedRoom {
    pub(super) invite_state: Events,
}

/// A room that the user asked to join.
#[derive(Debug, Serialize)]
pub(super) struct KnockedRoom {
    pub(super) knock_state: Events,
}

/// A room that the user left or was banned from.
#[derive(Debug, Serialize)]
pub(super) struct LeftRoom {
    #[serde(flatten)]
    pub(super) state: State,
    pub(super) timeline: Timeline,
    pub(super) account_data: Events,
}

/// The newest events of a room.
#[derive(Debug, Default, Serialize)]
pub(super) struct Timeline {
    pub(super) events: Vec<ClientEvent>,
    pub(super) limited: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) prev_batch: Option<String>,
}

/// State, under the name that tells what it is.
#[derive(Debug, Serialize)]
pub(super) enum State {
    /// Before the timeline.
    #[serde(rename = "state")]
    Before(Events),
    /// After the timeline.
    #[serde(rename = "state_after")]
    After(Events),
    /// After the timeline, for clients of the time before it was specified.
    #[serde(rename = "org.matrix.msc4222.state_after")]
    UnstableAfter(Events),
}

/// Which state a client asks for, and by which name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StateForm {
    /// That before the timeline.
    #[default]
    Before,
    /// That after it.
    After,
    /// That after it, by its unstable name (MSC4222).
    UnstableAfter,
}

impl StateForm {
    /// Whether it is the state after the timeline.
    pub(super) fn is_after(self) -> bool {
        self != Self::Before
    }

    /// The state in this form.
    pub(super) fn state(self, events: Vec<ClientEvent>) -> State {
        match self {
            Self::Before => State::Before(events.into()),
            Self::After => State::After(events.into()),
            Self::UnstableAfter => State::UnstableAfter(events.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_state_has_the_name_that_was_asked_for() {
        for (form, name) in [
            (StateForm::Before, "state"),
            (StateForm::After, "state_after"),
            (StateForm::UnstableAfter, "org.matrix.msc4222.state_after"),
        ] {
            let room = LeftRoom {
                state: form.state(Vec::new()),
                timeline: Timeline::default(),
                account_data: Events::default(),
            };
            let json = serde_json::to_value(room).unwrap();
            assert_eq!(json[name], json!({"events": []}), "{form:?}");
            assert_eq!(json.as_object().unwrap().len(), 3);
        }
    }

    #[test]
    fn an_answer_without_news_is_short() {
        let answer = Answer { next_batch: "sa_1".to_owned(), ..Answer::default() };
        assert!(answer.is_empty());
        let json = json!({
            "next_batch": "sa_1",
            "device_one_time_keys_count": {},
            "device_unused_fallback_key_types": [],
        });
        assert_eq!(serde_json::to_value(answer).unwrap(), json);
    }
}

//! Rows of delayed events (MSC4140).

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde::{Deserialize, Serialize};

use crate::storage::schema::rooms::TransactionKey;

/// An event that is to be sent later, or what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelayedEventRow {
    /// Whose it is.
    pub user_id: OwnedUserId,
    /// Where it goes.
    pub room_id: OwnedRoomId,
    /// Its type.
    pub event_type: String,
    /// The state key of a state event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_key: Option<String>,
    /// Its content.
    pub content: serde_json::Value,
    /// When it was handed in, in milliseconds.
    pub created_ts: u64,
    /// How long it waits, in milliseconds.
    pub delay_ms: u64,
    /// Since when it waits, in milliseconds: a restart sets it again.
    pub running_since: u64,
    /// The number that the room's next event had when it was handed in: a state that is newer was
    /// set after it.
    pub next_event: u32,
    /// The client's transaction that handed it in.
    pub transaction: ClientTransaction,
    /// What became of it; `None`: it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

/// A client's transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientTransaction {
    /// The device.
    pub device_id: String,
    /// The endpoint, with what its path holds.
    pub endpoint: String,
    /// The client's id; empty where the endpoint takes none.
    pub id: String,
}

/// What became of a delayed event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// When, in milliseconds.
    pub ts: u64,
    /// Why then.
    pub reason: Reason,
    /// The event, when it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<OwnedEventId>,
    /// The errcode and text, when it could not be sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<(String, String)>,
}

/// Why a delayed event came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// Its time came.
    Delay,
    /// Somebody wanted it.
    Action,
    /// It could not be sent, or a newer state took its place.
    Error,
}

impl DelayedEventRow {
    /// When it is due, in milliseconds.
    pub const fn due_ts(&self) -> u64 {
        self.running_since.saturating_add(self.delay_ms)
    }

    /// The key of its transaction; `None` where the endpoint takes no transaction id.
    pub fn transaction_key(&self) -> Option<TransactionKey> {
        let ClientTransaction { device_id, endpoint, id } = self.transaction.clone();
        let user_id = self.user_id.to_string();
        (!id.is_empty()).then_some(TransactionKey {
            user_id,
            device_id,
            endpoint,
            transaction_id: id,
        })
    }
}

//! Account data: what changed for the user, globally and in each room.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#client-config>

use std::collections::{BTreeMap, HashSet};

use kv::Position;

use super::{ClientEvent, Step, plain_event};
use crate::{
    error::ApiError,
    id::{RoomNid, UserNid},
    rooms::preferences::ignored_users,
};

/// The account data that is told.
#[derive(Debug, Default)]
pub(crate) struct AccountData {
    /// Global data.
    pub(crate) global: Vec<ClientEvent>,
    /// Data of rooms.
    pub(crate) rooms: BTreeMap<RoomNid, Vec<ClientEvent>>,
}

/// What was written after `since` (`None`: all there is).
pub(crate) fn read(step: &Step<'_>, since: Option<Position>) -> Result<AccountData, ApiError> {
    let users = &step.sources.users;
    let since = since.unwrap_or_default();
    let mut data = AccountData::default();
    for entry in users.account_data().since(step.reader, step.user_id, since)? {
        let (filter, events) = match entry.room {
            None => (&step.filter.account_data, &mut data.global),
            Some(room) => (&step.filter.room_account_data, data.rooms.entry(room).or_default()),
        };
        if filter.admits_type(&entry.kind, step.interner()) {
            events.push(plain_event(&entry.kind, &entry.content)?);
        }
    }
    Ok(data)
}

/// Reads whom the user ignores.
pub(crate) fn read_ignored_users(step: &Step<'_>) -> Result<HashSet<UserNid>, ApiError> {
    ignored_users(step.interner(), step.reader, step.user_id)
}

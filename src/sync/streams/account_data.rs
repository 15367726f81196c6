//! Account data: what changed for the user, globally and in each room.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#client-config>

use std::collections::{BTreeMap, HashSet};

use kv::Position;
use serde::Deserialize;

use super::{ClientEvent, Step, plain_event};
use crate::{
    error::ApiError,
    id::{Interner, RoomNid, UserNid},
};

const IGNORED_USERS: &str = "m.ignored_user_list";

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

/// The users whom the reader ignores.
pub(crate) fn ignored_users(
    content: Option<&serde_json::value::RawValue>,
    interner: &Interner,
) -> HashSet<UserNid> {
    #[derive(Deserialize)]
    struct Content<'a> {
        #[serde(borrow)]
        ignored_users: BTreeMap<String, &'a serde_json::value::RawValue>,
    }
    let Some(content) = content else { return HashSet::new() };
    let Ok(content) = serde_json::from_str::<Content<'_>>(content.get()) else {
        return HashSet::new();
    };
    let users = content.ignored_users.into_keys().filter_map(|id| ruma::UserId::parse(id).ok());
    users.map(|user_id| interner.user(&user_id)).collect()
}

/// Reads whom the user ignores.
pub(crate) fn read_ignored_users(step: &Step<'_>) -> Result<HashSet<UserNid>, ApiError> {
    let data = step.sources.users.account_data();
    let content = data.read(step.reader, step.user_id, None, IGNORED_USERS)?;
    let mut ignored = ignored_users(content.as_deref(), step.interner());
    // Nobody stops hearing themselves.
    ignored.remove(&step.interner().user(step.user_id));
    Ok(ignored)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_ignored_is_read_leniently() {
        let interner = Interner::new([7; 16]);
        let ignored = |json: &str| {
            let content = serde_json::value::RawValue::from_string(json.to_owned()).unwrap();
            ignored_users(Some(&content), &interner)
        };
        let bob = interner.user(ruma::user_id!("@bob:hs1"));
        assert_eq!(ignored(r#"{"ignored_users":{"@bob:hs1":{},"x":1}}"#), [bob].into());
        assert_eq!(ignored(r#"{"ignored_users":["@bob:hs1"]}"#), HashSet::new());
        assert_eq!(ignored("{}"), HashSet::new());
        assert_eq!(ignored_users(None, &interner), HashSet::new());
    }
}

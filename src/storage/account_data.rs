//! Reads account data, for those below `users`, who alone writes it: contents stand in parts.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#client-config>

use std::collections::HashSet;

use kv::{Error, Reader};
use ruma::{OwnedUserId, UserId};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::schema::users::{ACCOUNT_DATA, AccountDataKey};
use crate::id::RoomNid;

/// The type of the list of ignored users.
pub const IGNORED_USERS: &str = "m.ignored_user_list";

/// The key of the first part of one type of global account data.
pub fn global_key(user_id: &UserId, kind: &str) -> AccountDataKey {
    AccountDataKey {
        user_id: user_id.to_string(),
        room: RoomNid(0),
        kind: kind.to_owned(),
        part: 0,
    }
}

/// The content of one type, by the key of its first part.
pub fn content(reader: &Reader<'_>, key: &AccountDataKey) -> Result<Option<Box<RawValue>>, Error> {
    let Some(first) = reader.get(&ACCOUNT_DATA, key)? else { return Ok(None) };
    let keys: Vec<_> =
        (1..first.parts).map(|part| AccountDataKey { part, ..key.clone() }).collect();
    let mut bytes = first.content;
    for row in reader.get_many(&ACCOUNT_DATA, &keys)? {
        bytes.extend(row.map(|row| row.content).unwrap_or_default());
    }
    let text = String::from_utf8(bytes).ok();
    let content = text.and_then(|text| RawValue::from_string(text).ok());
    content.map(Some).ok_or_else(|| Error::Corrupt {
        table: ACCOUNT_DATA.name,
        key: format!("{} {}", key.user_id, key.kind),
        reason: "the content is not JSON".to_owned(),
    })
}

/// Whom a user ignores: never themselves. Clients write the list; one that is malformed is empty.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#ignoring-users>
pub fn ignored_users(reader: &Reader<'_>, user_id: &UserId) -> Result<HashSet<OwnedUserId>, Error> {
    #[derive(Deserialize)]
    struct Content {
        ignored_users: serde_json::Map<String, serde_json::Value>,
    }
    let content = content(reader, &global_key(user_id, IGNORED_USERS))?;
    let content = content.and_then(|content| serde_json::from_str::<Content>(content.get()).ok());
    let listed = content.map(|content| content.ignored_users).unwrap_or_default();
    let users = listed.keys().filter_map(|listed| UserId::parse(listed).ok());
    Ok(users.filter(|ignored| *ignored != user_id).collect())
}

//! Whom a user ignores, for what is made of many people's events and told to one.
//!
//! Read from the account data, which `users` writes.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#ignoring-users>

use std::collections::{BTreeMap, HashSet};

use kv::Reader;
use ruma::UserId;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    id::{Interner, RoomNid, UserNid},
    storage::schema::users::{ACCOUNT_DATA, AccountDataKey},
};

/// The users whom a user ignores.
pub fn ignored_users(
    reader: &Reader<'_>,
    interner: &Interner,
    user_id: &UserId,
) -> Result<HashSet<UserNid>, kv::Error> {
    let kind = "m.ignored_user_list".to_owned();
    let key = AccountDataKey { user_id: user_id.to_string(), room: RoomNid(0), kind, part: 0 };
    let Some(first) = reader.get(&ACCOUNT_DATA, &key)? else { return Ok(HashSet::new()) };
    let keys: Vec<_> =
        (1..first.parts).map(|part| AccountDataKey { part, ..key.clone() }).collect();
    let mut bytes = first.content;
    for row in reader.get_many(&ACCOUNT_DATA, &keys)? {
        bytes.extend(row.map(|row| row.content).unwrap_or_default());
    }
    Ok(parse(&bytes, interner))
}

/// Reads leniently: what is no user id names nobody.
fn parse(content: &[u8], interner: &Interner) -> HashSet<UserNid> {
    #[derive(Deserialize)]
    struct Content<'a> {
        #[serde(borrow)]
        ignored_users: BTreeMap<String, &'a RawValue>,
    }
    let Ok(content) = serde_json::from_slice::<Content<'_>>(content) else {
        return HashSet::new();
    };
    let users = content.ignored_users.into_keys().filter_map(|id| UserId::parse(id).ok());
    users.map(|user_id| interner.user(&user_id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_ignored_is_read_leniently() {
        let interner = Interner::new([7; 16]);
        let bob = interner.user(ruma::user_id!("@bob:hs1"));
        let ignored = |json: &str| parse(json.as_bytes(), &interner);
        assert_eq!(ignored(r#"{"ignored_users":{"@bob:hs1":{},"x":1}}"#), [bob].into());
        assert_eq!(ignored(r#"{"ignored_users":["@bob:hs1"]}"#), HashSet::new());
        assert_eq!(ignored("{}"), HashSet::new());
    }
}

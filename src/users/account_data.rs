//! Account data: what clients keep for their user, globally and for each room.
//!
//! Each type has one row in the order of writes, so that sync reads what changed and nothing else.
//! A content larger than a value of the store is kept in parts. `m.push_rules` exists for everybody
//! even before it is first written; it and `m.fully_read` are not set by clients directly.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#client-config>

use std::ops::Bound;

use kv::{Batch, Direction, Json, Position, Reader, Store};
use ruma::{RoomId, UserId, push::Ruleset};
use serde_json::value::{RawValue, to_raw_value};

use super::accounts::{ATTEMPTS, busy, commit};
use crate::{
    config::Config,
    error::ApiError,
    id::{Interner, RoomNid},
    push::{
        odd::{ALL_ROOMS, unmuted},
        rules::predefined,
    },
    storage::{
        account_data::{IGNORED_USERS, content},
        rows::users::{AccountDataRow, AccountRow},
        schema::{
            pushers::{PUSH_RULE_CHANGES, PUSH_UNMUTED, PushUnmutedKey},
            rooms::{MEMBERSHIPS, MembershipKey},
            users::{
                ACCOUNT_DATA, ACCOUNT_DATA_CHANGES, ACCOUNTS, AccountDataChangeKey, AccountDataKey,
            },
        },
        topic,
    },
};

pub use crate::push::odd::PUSH_RULES;
/// The type of the read marker.
pub const FULLY_READ: &str = "m.fully_read";

/// What stands for global data where a room's number is meant.
const GLOBAL: RoomNid = RoomNid(0);

/// One part's size; a value of the store has at most 100 kB.
const PART_BYTES: usize = 64 * 1024;

/// The longest name of a type.
const KIND_BYTES_MAX: usize = 255;

/// Account data as sync tells it.
#[derive(Clone, Debug)]
pub struct AccountDataEntry {
    /// The room; `None`: global.
    pub room: Option<RoomNid>,
    /// The type.
    pub kind: String,
    /// The content.
    pub content: Box<RawValue>,
    /// When it was written; `Position::ZERO` for what was never written.
    pub position: Position,
}

/// Reads and writes account data.
#[derive(Clone)]
pub struct AccountData {
    store: Store,
    interner: Interner,
    size_bytes_max: usize,
    types_max: usize,
}

/// What is read before a write.
struct Before {
    account: Option<AccountRow>,
    /// The first part.
    row: Option<AccountDataRow>,
    content: Option<Box<RawValue>>,
    full: bool,
    in_room: bool,
}

impl AccountData {
    pub(super) fn new(store: Store, interner: Interner, config: &Config) -> Self {
        let limits = &config.limits;
        Self {
            store,
            interner,
            size_bytes_max: limits.account_data_size_bytes_max,
            types_max: limits.account_data_types_max,
        }
    }

    /// The content of one type.
    pub async fn get(
        &self,
        user_id: &UserId,
        room_id: Option<&RoomId>,
        kind: &str,
    ) -> Result<Option<Box<RawValue>>, ApiError> {
        let key = self.key(user_id, room_id, kind);
        let found = self.store.read(move |reader| content(reader, &key)).await?;
        Ok(found.or_else(|| default_content(user_id, room_id, kind)))
    }

    /// The content of one type, inside a read step.
    pub fn read(
        &self,
        reader: &Reader<'_>,
        user_id: &UserId,
        room_id: Option<&RoomId>,
        kind: &str,
    ) -> Result<Option<Box<RawValue>>, kv::Error> {
        let found = content(reader, &self.key(user_id, room_id, kind))?;
        Ok(found.or_else(|| default_content(user_id, room_id, kind)))
    }

    /// All that was written after `since`, oldest first; with [`Position::ZERO`] everything.
    pub fn since(
        &self,
        reader: &Reader<'_>,
        user_id: &UserId,
        since: Position,
    ) -> Result<Vec<AccountDataEntry>, kv::Error> {
        let user = user_id.to_string();
        let range = ACCOUNT_DATA_CHANGES
            .range(Bound::Excluded(&(user.clone(), since)), Bound::Included(&user));
        let changes = reader.scan(&ACCOUNT_DATA_CHANGES, &range, Direction::Forward, usize::MAX)?;
        let mut entries = Vec::with_capacity(changes.len());
        for (change, ()) in changes {
            let AccountDataChangeKey { user_id, position, room, kind } = change;
            let key = AccountDataKey { user_id, room, kind, part: 0 };
            // Readers see a batch whole: the row is there and is the one of this change.
            let Some(content) = content(reader, &key)? else { continue };
            let room = Some(room).filter(|room| *room != GLOBAL);
            entries.push(AccountDataEntry { room, kind: key.kind, content, position });
        }
        let has_rules = |entry: &AccountDataEntry| entry.room.is_none() && entry.kind == PUSH_RULES;
        if since == Position::ZERO && !entries.iter().any(has_rules) {
            let (room, kind, position) = (None, PUSH_RULES.to_owned(), Position::ZERO);
            entries.push(AccountDataEntry {
                room,
                kind,
                content: default_push_rules(user_id),
                position,
            });
        }
        Ok(entries)
    }

    /// All that is stored for a room.
    pub fn of_room(
        &self,
        reader: &Reader<'_>,
        user_id: &UserId,
        room: RoomNid,
    ) -> Result<Vec<AccountDataEntry>, kv::Error> {
        let range = ACCOUNT_DATA.prefix(&(user_id.to_string(), room));
        let rows = reader.scan(&ACCOUNT_DATA, &range, Direction::Forward, usize::MAX)?;
        let firsts = rows.into_iter().filter(|(key, _)| key.part == 0);
        let mut entries = Vec::new();
        for (key, row) in firsts {
            let Some(content) = content(reader, &key)? else { continue };
            let (room, position) = (Some(room), row.position);
            entries.push(AccountDataEntry { room, kind: key.kind, content, position });
        }
        Ok(entries)
    }

    /// Sets a type for a client: refuses what the server manages, and too much.
    pub async fn set(
        &self,
        user_id: &UserId,
        room_id: Option<&RoomId>,
        kind: &str,
        content: &RawValue,
    ) -> Result<Position, ApiError> {
        if kind == PUSH_RULES || kind == FULLY_READ {
            let status = http::StatusCode::METHOD_NOT_ALLOWED;
            let message = format!("{kind} cannot be set through this API");
            return Err(ApiError::new(status, "M_BAD_JSON", message));
        }
        if !content.get().starts_with('{') {
            return Err(ApiError::bad_json("Account data must be an object"));
        }
        if content.get().len() > self.size_bytes_max {
            return Err(ApiError::too_large("The account data is too large"));
        }
        self.update(user_id, room_id, kind, |_| Ok(content.to_owned())).await
    }

    /// Sets a type for the server itself (read markers): no check of type or size.
    pub async fn set_unchecked(
        &self,
        user_id: &UserId,
        room_id: Option<&RoomId>,
        kind: &str,
        content: &RawValue,
    ) -> Result<Position, ApiError> {
        self.update(user_id, room_id, kind, |_| Ok(content.to_owned())).await
    }

    /// Changes a type by what it holds now; `change` runs again when another was quicker.
    pub async fn update(
        &self,
        user_id: &UserId,
        room_id: Option<&RoomId>,
        kind: &str,
        change: impl Fn(Option<&RawValue>) -> Result<Box<RawValue>, ApiError>,
    ) -> Result<Position, ApiError> {
        let key = self.key(user_id, room_id, kind);
        for _ in 0..ATTEMPTS {
            let before = self.before(&key).await?;
            self.check_new(&key, &before)?;
            let default = default_content(user_id, room_id, kind);
            let content = change(before.content.as_deref().or(default.as_deref()))?;
            let mut batch = write(&key, before.row.as_ref(), content.get().as_bytes());
            if room_id.is_none() && kind == PUSH_RULES {
                for room in unmuted(user_id, before.content.as_deref(), &content) {
                    let room = room.map_or(ALL_ROOMS, |room_id| self.interner.room(&room_id));
                    let key = PushUnmutedKey { user_id: key.user_id.clone(), room };
                    batch.put(&PUSH_UNMUTED, &key, &Position::pending(0));
                }
            }
            // So that nothing is written for an account that is just being deactivated.
            batch.check(&ACCOUNTS, &key.user_id, before.account.map(Json).as_ref());
            batch.touch(topic::user(topic::USER_ACCOUNT_DATA, self.interner.user(user_id)));
            if let Some(position) = commit(&self.store, batch).await? {
                return Ok(position);
            }
        }
        Err(busy())
    }

    async fn before(&self, key: &AccountDataKey) -> Result<Before, ApiError> {
        let (key, types_max) = (key.clone(), self.types_max);
        let read = self.store.read(move |reader| {
            let row = reader.get(&ACCOUNT_DATA, &key)?;
            // Only a new type needs to know how many there are, and in which rooms one may be.
            let full = row.is_none() && count_types(reader, &key)? >= types_max;
            let in_room = row.is_some() || key.room == GLOBAL || is_known_room(reader, &key)?;
            let content = content(reader, &key)?;
            let account = reader.get(&ACCOUNTS, &key.user_id)?.map(|Json(account)| account);
            Ok::<_, kv::Error>(Before { account, row, content, full, in_room })
        });
        Ok(read.await?)
    }

    fn check_new(&self, key: &AccountDataKey, before: &Before) -> Result<(), ApiError> {
        if key.kind.len() > KIND_BYTES_MAX {
            return Err(ApiError::invalid_param("The type is too long"));
        }
        if before.account.as_ref().is_some_and(|account| account.deactivated_ts.is_some()) {
            return Err(ApiError::user_deactivated("The account is deactivated"));
        }
        if before.full {
            let types_max = self.types_max;
            return Err(ApiError::invalid_param(format!("There are {types_max} types already")));
        }
        // Else the number of rooms, and with it what a user can store, would have no bound.
        if !before.in_room {
            return Err(ApiError::forbidden("You were never in this room"));
        }
        Ok(())
    }

    fn key(&self, user_id: &UserId, room_id: Option<&RoomId>, kind: &str) -> AccountDataKey {
        AccountDataKey {
            user_id: user_id.to_string(),
            room: room_id.map_or(GLOBAL, |room_id| self.interner.room(room_id)),
            kind: kind.to_owned(),
            part: 0,
        }
    }
}

/// The writes that replace `old` by `content`.
fn write(key: &AccountDataKey, old: Option<&AccountDataRow>, content: &[u8]) -> Batch {
    let mut batch = Batch::new();
    let position = Position::pending(0);
    let change = |position| AccountDataChangeKey {
        user_id: key.user_id.clone(),
        position,
        room: key.room,
        kind: key.kind.clone(),
    };
    batch.check(&ACCOUNT_DATA, key, old);
    let chunks: Vec<&[u8]> = content.chunks(PART_BYTES).collect();
    let parts = u16::try_from(chunks.len()).expect("what is stored has a cap far below 4 GB");
    for (part, chunk) in (0..).zip(chunks) {
        let row = AccountDataRow { position, parts, content: chunk.to_vec() };
        batch.put(&ACCOUNT_DATA, &AccountDataKey { part, ..key.clone() }, &row);
    }
    if let Some(old) = old {
        for part in parts..old.parts {
            batch.delete(&ACCOUNT_DATA, &AccountDataKey { part, ..key.clone() });
        }
        batch.delete(&ACCOUNT_DATA_CHANGES, &change(old.position));
    }
    batch.put(&ACCOUNT_DATA_CHANGES, &change(position), &());
    if key.room == GLOBAL && [PUSH_RULES, IGNORED_USERS].contains(&key.kind.as_str()) {
        if let Some(old) = old {
            batch.delete(&PUSH_RULE_CHANGES, &old.position);
        }
        batch.put(&PUSH_RULE_CHANGES, &position, &key.user_id.clone().into_bytes());
    }
    batch
}

fn count_types(reader: &Reader<'_>, key: &AccountDataKey) -> Result<usize, kv::Error> {
    let range = ACCOUNT_DATA_CHANGES.prefix(&key.user_id);
    let mut count = 0;
    reader.for_each(&ACCOUNT_DATA_CHANGES, &range, Direction::Forward, |change, ()| {
        count += usize::from(change.room == key.room);
        std::ops::ControlFlow::Continue(())
    })?;
    Ok(count)
}

fn is_known_room(reader: &Reader<'_>, key: &AccountDataKey) -> Result<bool, kv::Error> {
    let key = MembershipKey { user_id: key.user_id.clone(), room: key.room };
    reader.contains(&MEMBERSHIPS, &key)
}

fn default_content(
    user_id: &UserId,
    room_id: Option<&RoomId>,
    kind: &str,
) -> Option<Box<RawValue>> {
    (room_id.is_none() && kind == PUSH_RULES).then(|| default_push_rules(user_id))
}

fn default_push_rules(user_id: &UserId) -> Box<RawValue> {
    push_rules_content(&predefined(user_id))
}

/// The content of `m.push_rules`.
pub(super) fn push_rules_content(rules: &Ruleset) -> Box<RawValue> {
    #[derive(serde::Serialize)]
    struct Content<'a> {
        global: &'a Ruleset,
    }
    to_raw_value(&Content { global: rules }).expect("push rules are plain data")
}

//! Tags of rooms: the account data `m.tag` of a room, changed tag by tag.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-tagging>

use ruma::{
    RoomId, UserId,
    events::tag::{TagInfo, Tags as RoomTags},
};
use serde_json::{
    Map, Value,
    value::{RawValue, to_raw_value},
};

use super::account_data::AccountData;
use crate::error::ApiError;

const TAGS: &str = "m.tag";

/// The longest name of a tag.
const TAG_BYTES_MAX: usize = 255;

/// Reads and changes the tags of rooms.
#[derive(Clone)]
pub struct Tags {
    account_data: AccountData,
    size_bytes_max: usize,
}

impl Tags {
    pub(super) fn new(account_data: AccountData, size_bytes_max: usize) -> Self {
        Self { account_data, size_bytes_max }
    }

    /// The tags of a room.
    pub async fn get(&self, user_id: &UserId, room_id: &RoomId) -> Result<RoomTags, ApiError> {
        let content = self.account_data.get(user_id, Some(room_id), TAGS).await?;
        // A client may have set something else as account data: then there are no tags.
        let mut content = parse(content.as_deref());
        let tags = content.remove("tags").unwrap_or_default();
        Ok(serde_json::from_value(tags).unwrap_or_default())
    }

    /// Sets a tag.
    pub async fn set(
        &self,
        user_id: &UserId,
        room_id: &RoomId,
        tag: &str,
        info: &TagInfo,
    ) -> Result<(), ApiError> {
        if tag.len() > TAG_BYTES_MAX {
            return Err(ApiError::invalid_param("The name of the tag is too long"));
        }
        let info = serde_json::to_value(info).map_err(ApiError::internal)?;
        self.change(user_id, room_id, |tags| {
            tags.insert(tag.to_owned(), info.clone());
        })
        .await
    }

    /// Removes a tag, if it is there.
    pub async fn remove(
        &self,
        user_id: &UserId,
        room_id: &RoomId,
        tag: &str,
    ) -> Result<(), ApiError> {
        self.change(user_id, room_id, |tags| {
            tags.remove(tag);
        })
        .await
    }

    async fn change(
        &self,
        user_id: &UserId,
        room_id: &RoomId,
        change: impl Fn(&mut Map<String, Value>),
    ) -> Result<(), ApiError> {
        let changed = self.account_data.update(user_id, Some(room_id), TAGS, |content| {
            let mut content = parse(content);
            let tags = content.entry("tags").or_insert_with(|| Value::Object(Map::new()));
            if !tags.is_object() {
                *tags = Value::Object(Map::new());
            }
            if let Some(tags) = tags.as_object_mut() {
                change(tags);
            }
            let content = to_raw_value(&content).map_err(ApiError::internal)?;
            if content.get().len() > self.size_bytes_max {
                return Err(ApiError::too_large("The room has too many tags"));
            }
            Ok(content)
        });
        changed.await.map(|_| ())
    }
}

fn parse(content: Option<&RawValue>) -> Map<String, Value> {
    content.and_then(|content| serde_json::from_str(content.get()).ok()).unwrap_or_default()
}

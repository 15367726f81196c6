//! The directory: which rooms it shows.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#listing-rooms>

use kv::{Batch, Durability, Position};
use ruma::{UserId, events::TimelineEventType};

use super::{Room, Rooms};
use crate::{error::ApiError, id::RoomNid, storage::schema::rooms::PUBLIC_ROOMS};

/// Shows a room in the directory, within a batch.
pub(super) fn list(batch: &mut Batch, room: RoomNid) {
    batch.put(&PUBLIC_ROOMS, &room, &Position::pending(0));
}

impl Rooms {
    /// Whether the directory shows a room.
    pub async fn is_listed(&self, room: &Room) -> Result<bool, ApiError> {
        let nid = room.nid;
        self.store().read(move |reader| Ok(reader.contains(&PUBLIC_ROOMS, &nid)?)).await
    }

    /// Shows or hides a room in the directory: who may set its canonical alias may.
    ///
    /// # Errors
    /// 403 for anybody else.
    pub async fn set_listed(
        &self,
        room: &Room,
        user_id: &UserId,
        listed: bool,
    ) -> Result<(), ApiError> {
        let kind = TimelineEventType::RoomCanonicalAlias;
        if !self.may_send_state(room, user_id, kind).await? {
            return Err(ApiError::forbidden("You may not change the directory for this room"));
        }
        let mut batch = Batch::new();
        if listed {
            list(&mut batch, room.nid);
        } else {
            batch.delete(&PUBLIC_ROOMS, &room.nid);
        }
        self.store().commit(batch, Durability::Synced).await?;
        Ok(())
    }
}

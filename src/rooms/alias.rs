//! Room aliases of this server.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-aliases>

use kv::{Batch, CommitError, Direction, Durability, Json, Reader};
use ruma::{
    OwnedRoomAliasId, OwnedUserId, RoomAliasId, UserId,
    events::{StateEventType, TimelineEventType},
};

use super::{Room, Rooms};
use crate::{
    error::ApiError,
    id::RoomNid,
    storage::{
        rows::rooms::AliasRow,
        schema::rooms::{ALIASES, ALIASES_BY_ROOM, RoomAliasKey},
        topic,
    },
};

/// How many aliases of a room are listed.
const ALIASES_MAX: usize = 1000;

/// Claims an alias for a room, within a batch.
pub(super) fn claim(
    reader: &Reader<'_>,
    batch: &mut Batch,
    room: &Room,
    (alias, creator): (&OwnedRoomAliasId, &OwnedUserId),
) -> Result<(), ApiError> {
    let key = alias.as_str().to_owned();
    if reader.contains(&ALIASES, &key)? {
        return Err(ApiError::room_in_use(format!("The alias {alias} is taken")));
    }
    let row = AliasRow {
        room_id: room.id.clone(),
        creator: creator.clone(),
        alias: alias.clone(),
        servers: vec![alias.server_name().to_owned()],
    };
    batch.check_absent(&ALIASES, &key);
    batch.put(&ALIASES, &key, &Json(row));
    batch.put(&ALIASES_BY_ROOM, &RoomAliasKey { room: room.nid, alias: key }, &());
    Ok(())
}

/// Wakes those who follow the aliases of a room, which an event alone would not.
fn tell(batch: &mut Batch, room: RoomNid) {
    batch.reserve_positions(1);
    batch.touch(topic::room(topic::ROOM_ALIASES, room));
}

impl Rooms {
    /// The room behind an alias of this server.
    pub async fn resolve_alias(&self, alias: &RoomAliasId) -> Result<Option<AliasRow>, ApiError> {
        let key = alias.as_str().to_owned();
        self.store().read(move |reader| Ok(reader.get(&ALIASES, &key)?.map(|row| row.0))).await
    }

    /// Makes an alias.
    ///
    /// # Errors
    /// 400 for an alias of another server, 409 when it is taken.
    pub async fn create_alias(
        &self,
        room: &Room,
        alias: OwnedRoomAliasId,
        creator: OwnedUserId,
    ) -> Result<(), ApiError> {
        self.check_own_alias(&alias)?;
        let the_room = room.clone();
        let batch = self
            .store()
            .read(move |reader| {
                let mut batch = Batch::new();
                claim(reader, &mut batch, &the_room, (&alias, &creator))?;
                tell(&mut batch, the_room.nid);
                Ok::<_, ApiError>(batch)
            })
            .await
            .map_err(taken)?;
        match self.store().commit(batch, Durability::Synced).await {
            Ok(_) => Ok(()),
            Err(CommitError::Conflict) => Err(taken(ApiError::room_in_use("The alias is taken"))),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes an alias: its creator may, and who may set the room's canonical alias.
    ///
    /// # Errors
    /// 404 when there is none, 403 when the user may not remove it.
    pub async fn delete_alias(
        &self,
        alias: &RoomAliasId,
        user_id: &UserId,
    ) -> Result<(), ApiError> {
        self.check_own_alias(alias)?;
        let Some(row) = self.resolve_alias(alias).await? else {
            return Err(ApiError::not_found(format!("There is no alias {alias}")));
        };
        let room = self.known_room(&row.room_id).await?;
        let kind = TimelineEventType::RoomCanonicalAlias;
        if row.creator != user_id && !self.may_send_state(&room, user_id, kind).await? {
            return Err(ApiError::forbidden("You may not remove this alias"));
        }
        let key = alias.as_str().to_owned();
        let mut batch = Batch::new();
        batch.check(&ALIASES, &key, Some(&Json(row)));
        batch.delete(&ALIASES, &key);
        batch.delete(&ALIASES_BY_ROOM, &RoomAliasKey { room: room.nid, alias: key });
        tell(&mut batch, room.nid);
        match self.store().commit(batch, Durability::Synced).await {
            Ok(_) => Ok(()),
            // Somebody else was faster, and the name may be another room's already.
            Err(CommitError::Conflict) => {
                Err(ApiError::not_found(format!("There is no alias {alias}")))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The aliases of a room on this server.
    pub async fn aliases(&self, room: &Room) -> Result<Vec<OwnedRoomAliasId>, ApiError> {
        let nid = room.nid;
        self.store().read(move |reader| aliases_of(reader, nid)).await
    }

    /// Whether a user may send a state event of this type.
    pub async fn may_send_state(
        &self,
        room: &Room,
        user_id: &UserId,
        kind: TimelineEventType,
    ) -> Result<bool, ApiError> {
        let user_id = user_id.to_owned();
        self.write(room, move |draft| {
            let joined =
                draft.membership(user_id.as_str())? == crate::storage::rows::Membership::Join;
            Ok(joined && draft.levels()?.may_send(&user_id, &kind, Some(""))?)
        })
        .await
    }

    /// Checks that a canonical alias names aliases that lead to the room; only those that it did
    /// not name before.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#mroomcanonical_alias>
    pub async fn check_canonical_alias(
        &self,
        room: &Room,
        sender: &UserId,
        content: &serde_json::value::RawValue,
    ) -> Result<(), ApiError> {
        let new = named_aliases(content)?;
        let sender = sender.to_owned();
        let kind = StateEventType::RoomCanonicalAlias.to_string();
        let old = self
            .write(room, move |draft| {
                draft.require_member(&sender)?;
                let known = draft.current(&kind, "")?;
                Ok(known.map(|event| named_aliases(event.pdu.content()).unwrap_or_default()))
            })
            .await?
            .unwrap_or_default();
        for alias in new.into_iter().filter(|alias| !old.contains(alias)) {
            let row = self.resolve_alias(&alias).await?;
            if row.is_none_or(|row| row.room_id != room.id) {
                return Err(ApiError::bad_alias(format!("{alias} does not lead to this room")));
            }
        }
        Ok(())
    }

    fn check_own_alias(&self, alias: &RoomAliasId) -> Result<(), ApiError> {
        if alias.server_name() == self.server_name() {
            return Ok(());
        }
        Err(ApiError::invalid_param(format!("{alias} is not an alias of this server")))
    }
}

/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3directoryroomroomalias>
fn taken(error: ApiError) -> ApiError {
    match error.errcode.as_ref() {
        "M_ROOM_IN_USE" => {
            ApiError::new(http::StatusCode::CONFLICT, "M_UNKNOWN", "The alias is taken")
        }
        _ => error,
    }
}

/// The aliases of a room on this server, inside a read step.
pub fn aliases_of(reader: &Reader<'_>, room: RoomNid) -> Result<Vec<OwnedRoomAliasId>, ApiError> {
    let rows = reader.scan(
        &ALIASES_BY_ROOM,
        &ALIASES_BY_ROOM.prefix(&room),
        Direction::Forward,
        ALIASES_MAX,
    )?;
    let names = rows.into_iter().map(|(key, ())| key.alias);
    Ok(names.filter_map(|name| OwnedRoomAliasId::try_from(name).ok()).collect())
}

pub(super) fn named_aliases(
    content: &serde_json::value::RawValue,
) -> Result<Vec<OwnedRoomAliasId>, ApiError> {
    #[derive(serde::Deserialize)]
    struct Content {
        alias: Option<String>,
        #[serde(default)]
        alt_aliases: Vec<String>,
    }
    let content: Content = serde_json::from_str(content.get())
        .map_err(|_| ApiError::bad_json("`alias` or `alt_aliases` is not what it must be"))?;
    let named = content.alias.filter(|alias| !alias.is_empty()).into_iter();
    named
        .chain(content.alt_aliases)
        .map(|alias| {
            OwnedRoomAliasId::try_from(alias)
                .map_err(|_| ApiError::invalid_param("An alias has the form #name:server"))
        })
        .collect()
}

//! Backups of the keys of rooms, encrypted by clients.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups>

use std::{collections::BTreeMap, sync::Arc};

use axum::response::Response;
use ruma::{
    RoomId, UInt,
    api::client::backup::{
        BackupAlgorithm, KeyBackupData, add_backup_keys, add_backup_keys_for_room,
        add_backup_keys_for_session, create_backup_version, delete_backup_keys,
        delete_backup_keys_for_room, delete_backup_keys_for_session, delete_backup_version,
        get_backup_info, get_backup_keys, get_backup_keys_for_room, get_backup_keys_for_session,
        get_latest_backup_info, update_backup_version,
    },
    serde::Raw,
};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{ClientApi, raw::paged_json};
use crate::{
    encryption::backup::{BackupDescription, BackupKey, BackupState, WhichKeys, write_key},
    error::ApiError,
    http::Requester,
    storage::rows::encryption::BackupVersionRow,
};

/// `POST /_matrix/client/v3/room_keys/version`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3room_keysversion>
pub(super) async fn create_backup_version(
    app: Arc<ClientApi>,
    auth: Requester,
    request: create_backup_version::v3::Request,
) -> Result<create_backup_version::v3::Response, ApiError> {
    let wanted = BackupDescription::parse(request.algorithm.json().get())?;
    let version = app.encryption.create_backup(&auth.user_id, &wanted).await?;
    Ok(create_backup_version::v3::Response::new(version.to_string()))
}

/// `GET /_matrix/client/v3/room_keys/version`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keysversion>
pub(super) async fn get_latest_backup_info(
    app: Arc<ClientApi>,
    auth: Requester,
    _request: get_latest_backup_info::v3::Request,
) -> Result<get_latest_backup_info::v3::Response, ApiError> {
    let (version, row) = app.encryption.backup(&auth.user_id, None).await?;
    let algorithm = described(&row)?;
    let BackupState { etag, count } = BackupState::of(&row);
    let (etag, version) = (etag.to_string(), version.to_string());
    Ok(get_latest_backup_info::v3::Response::new(algorithm, number(count), etag, version))
}

/// `GET /_matrix/client/v3/room_keys/version/{version}`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keysversionversion>
pub(super) async fn get_backup_info(
    app: Arc<ClientApi>,
    auth: Requester,
    request: get_backup_info::v3::Request,
) -> Result<get_backup_info::v3::Response, ApiError> {
    let (version, row) = app.encryption.backup(&auth.user_id, Some(&request.version)).await?;
    let algorithm = described(&row)?;
    let BackupState { etag, count } = BackupState::of(&row);
    let (etag, version) = (etag.to_string(), version.to_string());
    Ok(get_backup_info::v3::Response::new(algorithm, number(count), etag, version))
}

/// `PUT /_matrix/client/v3/room_keys/version/{version}`
/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keysversionversion>
pub(super) async fn update_backup_version(
    app: Arc<ClientApi>,
    auth: Requester,
    request: update_backup_version::v3::Request,
) -> Result<update_backup_version::v3::Response, ApiError> {
    let wanted = BackupDescription::parse(request.algorithm.json().get())?;
    app.encryption.update_backup(&auth.user_id, &request.version, &wanted).await?;
    Ok(update_backup_version::v3::Response::new())
}

/// `DELETE /_matrix/client/v3/room_keys/version/{version}`
/// <https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3room_keysversionversion>
pub(super) async fn delete_backup_version(
    app: Arc<ClientApi>,
    auth: Requester,
    request: delete_backup_version::v3::Request,
) -> Result<delete_backup_version::v3::Response, ApiError> {
    app.encryption.delete_backup(&auth.user_id, &request.version).await?;
    Ok(delete_backup_version::v3::Response::new())
}

/// `PUT /_matrix/client/v3/room_keys/keys`
/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keyskeys>
pub(super) async fn add_backup_keys(
    app: Arc<ClientApi>,
    auth: Requester,
    request: add_backup_keys::v3::Request,
) -> Result<add_backup_keys::v3::Response, ApiError> {
    let mut keys = Vec::new();
    for (room_id, room) in &request.rooms {
        add_keys(&mut keys, room_id, &room.sessions)?;
    }
    let added = app.encryption.add_backup_keys(&auth.user_id, &request.version, keys);
    let BackupState { etag, count } = added.await?;
    Ok(add_backup_keys::v3::Response::new(etag.to_string(), number(count)))
}

/// `PUT /_matrix/client/v3/room_keys/keys/{roomId}`
/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keyskeysroomid>
pub(super) async fn add_backup_keys_for_room(
    app: Arc<ClientApi>,
    auth: Requester,
    request: add_backup_keys_for_room::v3::Request,
) -> Result<add_backup_keys_for_room::v3::Response, ApiError> {
    let mut keys = Vec::new();
    add_keys(&mut keys, &request.room_id, &request.sessions)?;
    let added = app.encryption.add_backup_keys(&auth.user_id, &request.version, keys);
    let BackupState { etag, count } = added.await?;
    Ok(add_backup_keys_for_room::v3::Response::new(etag.to_string(), number(count)))
}

/// `PUT /_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}`
/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keyskeysroomidsessionid>
pub(super) async fn add_backup_keys_for_session(
    app: Arc<ClientApi>,
    auth: Requester,
    request: add_backup_keys_for_session::v3::Request,
) -> Result<add_backup_keys_for_session::v3::Response, ApiError> {
    let data = request.session_data.json().get();
    let keys = vec![BackupKey::parse(&request.room_id, &request.session_id, data)?];
    let added = app.encryption.add_backup_keys(&auth.user_id, &request.version, keys);
    let BackupState { etag, count } = added.await?;
    Ok(add_backup_keys_for_session::v3::Response::new(etag.to_string(), number(count)))
}

/// `GET /_matrix/client/v3/room_keys/keys`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keyskeys>
pub(super) async fn get_backup_keys(
    app: Arc<ClientApi>,
    auth: Requester,
    request: get_backup_keys::v3::Request,
) -> Result<Response, ApiError> {
    Ok(paged_json(app.encryption.backup_keys(&auth.user_id, &request.version, None).await?))
}

/// `GET /_matrix/client/v3/room_keys/keys/{roomId}`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keyskeysroomid>
pub(super) async fn get_backup_keys_for_room(
    app: Arc<ClientApi>,
    auth: Requester,
    request: get_backup_keys_for_room::v3::Request,
) -> Result<Response, ApiError> {
    let room_id = Some(&*request.room_id);
    Ok(paged_json(app.encryption.backup_keys(&auth.user_id, &request.version, room_id).await?))
}

/// `GET /_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keyskeysroomidsessionid>
pub(super) async fn get_backup_keys_for_session(
    app: Arc<ClientApi>,
    auth: Requester,
    request: get_backup_keys_for_session::v3::Request,
) -> Result<get_backup_keys_for_session::v3::Response, ApiError> {
    let session = (&*request.room_id, &*request.session_id);
    let row = app.encryption.backup_key(&auth.user_id, &request.version, session).await?;
    let mut json = Vec::new();
    write_key(&mut json, &row);
    let json = String::from_utf8(json).map_err(ApiError::internal)?;
    let json = RawValue::from_string(json).map_err(ApiError::internal)?;
    Ok(get_backup_keys_for_session::v3::Response::new(Raw::from_json(json)))
}

/// `DELETE /_matrix/client/v3/room_keys/keys`
/// <https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3room_keyskeys>
pub(super) async fn delete_backup_keys(
    app: Arc<ClientApi>,
    auth: Requester,
    request: delete_backup_keys::v3::Request,
) -> Result<delete_backup_keys::v3::Response, ApiError> {
    let which = WhichKeys::All;
    let deleted = app.encryption.delete_backup_keys(&auth.user_id, &request.version, &which);
    let BackupState { etag, count } = deleted.await?;
    Ok(delete_backup_keys::v3::Response::new(etag.to_string(), number(count)))
}

/// `DELETE /_matrix/client/v3/room_keys/keys/{roomId}`
/// <https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3room_keyskeysroomid>
pub(super) async fn delete_backup_keys_for_room(
    app: Arc<ClientApi>,
    auth: Requester,
    request: delete_backup_keys_for_room::v3::Request,
) -> Result<delete_backup_keys_for_room::v3::Response, ApiError> {
    let which = WhichKeys::Room(request.room_id.into());
    let deleted = app.encryption.delete_backup_keys(&auth.user_id, &request.version, &which);
    let BackupState { etag, count } = deleted.await?;
    Ok(delete_backup_keys_for_room::v3::Response::new(etag.to_string(), number(count)))
}

/// `DELETE /_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}`
/// <https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3room_keyskeysroomidsessionid>
pub(super) async fn delete_backup_keys_for_session(
    app: Arc<ClientApi>,
    auth: Requester,
    request: delete_backup_keys_for_session::v3::Request,
) -> Result<delete_backup_keys_for_session::v3::Response, ApiError> {
    let which = WhichKeys::Session(request.room_id.into(), request.session_id);
    let deleted = app.encryption.delete_backup_keys(&auth.user_id, &request.version, &which);
    let BackupState { etag, count } = deleted.await?;
    Ok(delete_backup_keys_for_session::v3::Response::new(etag.to_string(), number(count)))
}

fn add_keys(
    keys: &mut Vec<BackupKey>,
    room_id: &RoomId,
    sessions: &BTreeMap<String, Raw<KeyBackupData>>,
) -> Result<(), ApiError> {
    for (session_id, data) in sessions {
        keys.push(BackupKey::parse(room_id, session_id, data.json().get())?);
    }
    Ok(())
}

/// What a client said of a version, as it said it.
fn described(row: &BackupVersionRow) -> Result<Raw<BackupAlgorithm>, ApiError> {
    #[derive(Serialize)]
    struct Described<'a> {
        algorithm: &'a str,
        auth_data: &'a RawValue,
    }
    let auth_data = serde_json::from_slice(&row.auth_data).map_err(ApiError::internal)?;
    let described = Described { algorithm: &row.algorithm, auth_data };
    Ok(Raw::from_json(to_raw_value(&described).map_err(ApiError::internal)?))
}

fn number(count: u64) -> UInt {
    UInt::new_saturating(count)
}

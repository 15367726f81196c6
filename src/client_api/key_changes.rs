//! Whose devices a client must ask for after it was away.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#tracking-the-device-list-for-a-user>

use std::sync::Arc;

use ruma::{OwnedUserId, UserId, api::client::keys::get_key_changes};

use super::ClientApi;
use crate::{error::ApiError, http::Requester};

/// `GET /_matrix/client/v3/keys/changes`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3keyschanges>
///
/// Both are tokens of `/sync`. What comes after `to` is told too, and whose devices are not known to
/// be the same as before a backup was restored. Where whole lists of members have to be read for it,
/// it may be asked so often only.
pub(super) async fn get_key_changes(
    app: Arc<ClientApi>,
    auth: Requester,
    request: get_key_changes::v3::Request,
) -> Result<get_key_changes::v3::Response, ApiError> {
    let charge = || app.limits_of(&auth).key_changes.check(&auth.user_id);
    let told = app.sync.key_changes(&auth.user_id, (&request.from, &request.to), charge).await?;
    Ok(get_key_changes::v3::Response::new(user_ids(&told.changed), user_ids(&told.left)))
}

fn user_ids(users: &[String]) -> Vec<OwnedUserId> {
    users.iter().filter_map(|user| UserId::parse(user).ok()).collect()
}

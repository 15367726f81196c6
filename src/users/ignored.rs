//! Whom a user ignores.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#ignoring-users>

use std::collections::BTreeMap;

use kv::Reader;
use ruma::{OwnedUserId, UserId};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{AccountData, Users};
use crate::error::ApiError;

const IGNORED_USERS: &str = "m.ignored_user_list";

impl Users {
    /// Whom a user ignores. A list that is malformed counts as empty.
    pub async fn ignored(&self, user_id: &UserId) -> Result<Vec<OwnedUserId>, ApiError> {
        let content = self.account_data().get(user_id, None, IGNORED_USERS).await?;
        Ok(content.map(|content| listed(&content)).unwrap_or_default())
    }
}

/// [`Users::ignored`] inside a read step.
pub(super) fn ignored_by(
    data: &AccountData,
    reader: &Reader<'_>,
    user_id: &UserId,
) -> Result<Vec<OwnedUserId>, kv::Error> {
    let content = data.read(reader, user_id, None, IGNORED_USERS)?;
    Ok(content.map(|content| listed(&content)).unwrap_or_default())
}

fn listed(content: &RawValue) -> Vec<OwnedUserId> {
    #[derive(Deserialize)]
    struct Content<'a> {
        #[serde(borrow)]
        ignored_users: BTreeMap<String, &'a RawValue>,
    }
    let content: Option<Content<'_>> = serde_json::from_str(content.get()).ok();
    let users = content.into_iter().flat_map(|content| content.ignored_users.into_keys());
    users.filter_map(|user_id| UserId::parse(user_id).ok()).collect()
}

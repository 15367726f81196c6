//! Whom a user ignores, for handlers; inside a read step [`ignored_users`] says it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#ignoring-users>

use std::collections::HashSet;

use ruma::{OwnedUserId, UserId};

use super::Users;
use crate::{error::ApiError, storage::account_data::ignored_users};

impl Users {
    /// Whom a user ignores. A list that is malformed counts as empty.
    pub async fn ignored(&self, user_id: &UserId) -> Result<HashSet<OwnedUserId>, ApiError> {
        let user_id = user_id.to_owned();
        let read = self.0.store.read(move |reader| ignored_users(reader, &user_id));
        Ok(read.await?)
    }
}

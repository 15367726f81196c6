//! What administrators do to accounts: locking and suspending them.
//!
//! Sessions stay: a locked user can log out and nothing else, a suspended one reads. Who waits with
//! a session is woken and finds out.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#account-moderation>

use kv::{Batch, Durability};
use ruma::UserId;

use super::Users;
use crate::{
    error::ApiError,
    storage::{rows::users::AccountRow, topic},
};

impl Users {
    /// Locks or unlocks an account.
    ///
    /// # Errors
    /// 404 when there is no such account, or it is deactivated.
    pub async fn set_locked(&self, user_id: &UserId, locked: bool) -> Result<(), ApiError> {
        self.0.accounts.change(user_id, move |row| row.locked = locked).await?;
        self.restrictions_changed(user_id).await
    }

    /// Suspends an account, or lifts that.
    ///
    /// # Errors
    /// 404 when there is no such account, or it is deactivated.
    pub async fn set_suspended(&self, user_id: &UserId, suspended: bool) -> Result<(), ApiError> {
        self.0.accounts.change(user_id, move |row| row.suspended = suspended).await?;
        self.restrictions_changed(user_id).await
    }

    /// The account that an administrator wants to look at or to restrict.
    ///
    /// # Errors
    /// 400 for a user of another server, 404 when there is no such account (any more), 403 for
    /// another administrator.
    pub async fn restrictable(
        &self,
        admin: &UserId,
        user_id: &UserId,
    ) -> Result<AccountRow, ApiError> {
        if !self.0.accounts.is_local(user_id) {
            return Err(ApiError::invalid_param("The user belongs to another server"));
        }
        let row = self.0.accounts.get(user_id).await?;
        let row = row.filter(|row| row.deactivated_ts.is_none());
        let row = row.ok_or_else(|| ApiError::not_found("There is no such user"))?;
        if row.admin && user_id != admin {
            return Err(ApiError::forbidden("The user is an administrator too"));
        }
        Ok(row)
    }

    async fn restrictions_changed(&self, user_id: &UserId) -> Result<(), ApiError> {
        self.0.sessions.forget_user(user_id);
        let mut batch = Batch::new();
        batch.touch(topic::user(topic::USER_SESSIONS, self.0.interner.user(user_id)));
        self.0.store.commit(batch, Durability::Buffered).await?;
        Ok(())
    }
}

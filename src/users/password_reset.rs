//! A new password for whoever has proven to have an e-mail address of the account.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountpassword>

use kv::{Batch, Json};
use ruma::OwnedUserId;

use super::{
    Selection, Users,
    accounts::{ATTEMPTS, busy, commit},
    email::ProvenEmail,
};
use crate::{
    error::ApiError,
    storage::{rows::users::AccountRow, schema::users::ACCOUNTS},
};

impl Users {
    /// Sets a new password for the account that has this address, and uses the proof up. With
    /// `logout` all sessions of the account end.
    ///
    /// # Errors
    /// `M_THREEPID_AUTH_FAILED` when the proof is used up or no account has the address (any more).
    pub async fn reset_password(
        &self,
        proven: &ProvenEmail,
        password: &str,
        logout: bool,
    ) -> Result<OwnedUserId, ApiError> {
        let nobody = || ApiError::threepid_auth_failed("No account has this address");
        let password_hash = self.0.accounts.hash_password(password).await?;
        for _ in 0..ATTEMPTS {
            proven.check_unused(&self.0.store).await?;
            let user_id = self.0.ids.owner(proven.address()).await?.ok_or_else(nobody)?;
            let old = self.0.accounts.get(&user_id).await?;
            let old = old.filter(|row| row.deactivated_ts.is_none()).ok_or_else(nobody)?;
            let new = AccountRow { password_hash: Some(password_hash.clone()), ..old.clone() };
            let mut batch = Batch::new();
            batch.check(&ACCOUNTS, &user_id.to_string(), Some(&Json(old)));
            batch.put(&ACCOUNTS, &user_id.to_string(), &Json(new));
            proven.use_up(&mut batch);
            if commit(&self.0.store, batch).await?.is_some() {
                if logout {
                    self.0.devices.remove(&user_id, Selection::All).await?;
                }
                return Ok(user_id);
            }
        }
        Err(busy())
    }
}

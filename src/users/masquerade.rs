//! Application services that act as users: their token, and in the query whom they act as.
//!
//! The user must be the application service's own or in its namespaces, and have an account that is
//! not deactivated; its own is made when it is first used. A device that is named must be one of
//! that user's. Without one the requester has an empty device id, which no device has.
//!
//! <https://spec.matrix.org/v1.19/application-service-api/#identity-assertion>

use http::StatusCode;
use kv::Batch;
use ruma::{OwnedDeviceId, OwnedUserId, UserId};

use super::{Users, accounts::NewAccount, sessions::cache::standing};
use crate::{
    appservices::Appservice,
    error::ApiError,
    http::{Credentials, Requester, SessionId},
    storage::rows::users::AccountRow,
};

/// How a device is named: since version 1.17, and before.
const DEVICE_PARAMETERS: [&str; 2] = ["device_id", "org.matrix.msc3202.device_id"];

impl Users {
    /// Who shows a token: its user, or whom the application service acts as whose token it is.
    pub async fn identify(&self, credentials: Credentials<'_>) -> Result<Requester, ApiError> {
        match self.0.appservices.by_token(credentials.token) {
            None => self.authenticate(credentials.token, credentials.address).await,
            Some(appservice) => self.masquerade(&appservice, credentials).await,
        }
    }

    async fn masquerade(
        &self,
        appservice: &Appservice,
        credentials: Credentials<'_>,
    ) -> Result<Requester, ApiError> {
        let user_id = asserted_user(appservice, &credentials)?;
        let account = self.asserted_account(appservice, &user_id).await?;
        if account.deactivated_ts.is_some() {
            return Err(ApiError::user_deactivated("The account is deactivated"));
        }
        let device_id = self.asserted_device(&user_id, &credentials).await?;
        Ok(Requester {
            device_id: device_id.unwrap_or_else(|| "".into()),
            session: SessionId(appservice.row.as_token_hash),
            guest: false,
            standing: standing(&account),
            admin: account.admin,
            address: credentials.address,
            appservice: Some(appservice.caller(&user_id)),
            user_id,
        })
    }

    async fn asserted_account(
        &self,
        appservice: &Appservice,
        user_id: &UserId,
    ) -> Result<AccountRow, ApiError> {
        let accounts = self.accounts();
        if let Some(account) = accounts.get(user_id).await? {
            return Ok(account);
        }
        if user_id == appservice.sender {
            let new = NewAccount::user(user_id, None);
            match accounts.create(new, Batch::new()).await {
                Ok(_) => {}
                // Another request was quicker.
                Err(error) if error.errcode == "M_USER_IN_USE" => {}
                Err(error) => return Err(error),
            }
        }
        let account = accounts.get(user_id).await?;
        account.ok_or_else(|| {
            ApiError::forbidden("The application service has not registered this user")
        })
    }

    async fn asserted_device(
        &self,
        user_id: &UserId,
        credentials: &Credentials<'_>,
    ) -> Result<Option<OwnedDeviceId>, ApiError> {
        let named = DEVICE_PARAMETERS.iter().find_map(|name| credentials.parameter(name));
        let Some(device_id) = named.filter(|device_id| !device_id.is_empty()) else {
            return Ok(None);
        };
        let device_id = OwnedDeviceId::from(&*device_id);
        match self.devices().get(user_id, &device_id).await? {
            Some(_) => Ok(Some(device_id)),
            None => Err(ApiError::new(
                StatusCode::BAD_REQUEST,
                "M_UNKNOWN_DEVICE",
                "The user has no such device",
            )),
        }
    }
}

fn asserted_user(
    appservice: &Appservice,
    credentials: &Credentials<'_>,
) -> Result<OwnedUserId, ApiError> {
    let Some(named) = credentials.parameter("user_id").filter(|user| !user.is_empty()) else {
        return Ok(appservice.sender.clone());
    };
    let user_id = UserId::parse(&*named)
        .map_err(|_| ApiError::invalid_param("`user_id` is not a user id"))?;
    if !appservice.covers_user(&user_id) {
        return Err(ApiError::forbidden(
            "The user is in none of the application service's namespaces",
        ));
    }
    Ok(user_id)
}

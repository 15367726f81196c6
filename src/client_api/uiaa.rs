//! User-interactive authentication in handlers: which operation is asked for.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api>

use ruma::api::client::uiaa::AuthData;

use super::ClientApi;
use crate::{error::ApiError, http::Requester, users::uiaa::Operation};

/// Passes when the user has proven by the password to be the one who asks.
///
/// `name` is the endpoint with what its path names, `body` all parameters that matter.
pub(super) async fn check_password(
    app: &ClientApi,
    requester: &Requester,
    auth: Option<&AuthData>,
    (name, body): (&str, &[&[u8]]),
) -> Result<(), ApiError> {
    let operation = Operation::with_password(&requester.user_id, name, body);
    app.users.uiaa().check(&operation, auth).await?;
    Ok(())
}

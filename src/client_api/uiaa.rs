//! User-interactive authentication in handlers: which operation is asked for.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api>

use ruma::api::client::uiaa::AuthData;
use serde_json::{Value, json};

use super::ClientApi;
use crate::{
    error::ApiError,
    http::{Options, Requester},
    users::uiaa::Operation,
};

/// The options of an endpoint that asks for a proof: it is also taken with the user named as before
/// version r0.5 of the specification, by `user` instead of `identifier`. matrix-nio tells its users
/// to do so.
pub(super) const OPTIONS: Options = Options::DEFAULT.rewritten(with_identifier);

fn with_identifier(body: &[u8]) -> Option<Vec<u8>> {
    let mut body: Value = serde_json::from_slice(body).ok()?;
    let auth = body.get_mut("auth")?.as_object_mut()?;
    if auth.get("type")? != "m.login.password" || auth.contains_key("identifier") {
        return None;
    }
    let user = auth.remove("user")?;
    auth.insert("identifier".to_owned(), json!({ "type": "m.id.user", "user": user }));
    serde_json::to_vec(&body).ok()
}

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

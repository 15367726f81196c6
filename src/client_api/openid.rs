//! Tokens by which third parties learn who a user is.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#openid>

use std::sync::Arc;

use ruma::{
    api::client::account::request_openid_token::v3::{Request, Response},
    authentication::TokenType,
};

use super::{ClientApi, account_routes::check_self};
use crate::{error::ApiError, http::Requester};

/// `POST /_matrix/client/v3/user/{userId}/openid/request_token`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3useruseridopenidrequest_token>
pub(super) async fn request_openid_token(
    app: Arc<ClientApi>,
    auth: Requester,
    request: Request,
) -> Result<Response, ApiError> {
    check_self(&auth, &request.user_id)?;
    let token = app.users.grants().openid_token(&auth.user_id).await?.into_string();
    let server_name = app.config.server.name.clone();
    Ok(Response::new(
        token,
        TokenType::Bearer,
        server_name,
        app.config.limits.openid_token_lifetime(),
    ))
}

//! Who a user is, for third parties that were given a token by the user.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#openid>

use std::sync::Arc;

use ruma::api::federation::openid::get_openid_userinfo::v1::{Request, Response};

use crate::{
    error::ApiError,
    http::{NoAuth, Routes},
    users::Users,
};

/// `GET /_matrix/federation/v1/openid/userinfo`
/// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1openiduserinfo>
pub async fn get_openid_userinfo(
    users: Arc<Users>,
    _auth: NoAuth,
    request: Request,
) -> Result<Response, ApiError> {
    let user_id = users.grants().openid_user(&request.access_token).await?;
    let unknown = || ApiError::unknown_token("The access token is unknown or has expired", false);
    Ok(Response::new(user_id.ok_or_else(unknown)?))
}

/// The endpoint by itself: third parties need it where nothing else of the federation is served.
pub fn routes(users: Users) -> Routes<Users> {
    Routes::new(Arc::new(users)).add(get_openid_userinfo)
}

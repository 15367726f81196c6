//! Looking for users by name.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#user-directory>

use std::sync::Arc;

use ruma::{
    api::client::user_directory::search_users::{self, v3::User},
    assign,
};

use super::{ClientApi, read_routes::bounded};
use crate::{
    error::ApiError,
    http::Requester,
    users::directory::{self, DirectorySearch},
};

/// `POST /_matrix/client/v3/user_directory/search`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3user_directorysearch>
///
/// At most 50 users. Who is found is told by `user_directory.search_all_users`; guests find nobody.
pub(super) async fn search_users(
    app: Arc<ClientApi>,
    auth: Requester,
    request: search_users::v3::Request,
) -> Result<search_users::v3::Response, ApiError> {
    if auth.guest {
        return Err(ApiError::guest_access_forbidden("Guests may not look for users"));
    }
    app.limits_of(&auth).user_searches.check(&auth.user_id)?;
    let search = DirectorySearch {
        user_id: auth.user_id,
        term: request.search_term,
        limit: bounded(request.limit, 0, app.config.limits.user_search_results_max),
        all_users: app.config.user_directory.search_all_users,
    };
    let (users, limited) = directory::search(&app.rooms, search).await?;
    let users = users.into_iter().map(|user| {
        assign!(User::new(user.user_id), {
            display_name: user.display_name,
            avatar_url: user.avatar_url,
        })
    });
    Ok(search_users::v3::Response::new(users.collect(), limited))
}

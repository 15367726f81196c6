//! Filters that are kept for `/sync`.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#filtering>

use std::sync::Arc;

use ruma::api::client::filter::{create_filter, get_filter};

use super::{ClientApi, account_routes::check_self};
use crate::{error::ApiError, http::Requester};

/// `POST /_matrix/client/v3/user/{userId}/filter`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3useruseridfilter>
pub(super) async fn create_filter(
    app: Arc<ClientApi>,
    auth: Requester,
    request: create_filter::v3::Request,
) -> Result<create_filter::v3::Response, ApiError> {
    check_self(&auth, &request.user_id)?;
    app.sync.check_filter(&request.filter)?;
    let filter_id = app.users.filters().create(&auth.user_id, request.filter).await?;
    Ok(create_filter::v3::Response::new(filter_id))
}

/// `GET /_matrix/client/v3/user/{userId}/filter/{filterId}`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridfilterfilterid>
pub(super) async fn get_filter(
    app: Arc<ClientApi>,
    auth: Requester,
    request: get_filter::v3::Request,
) -> Result<get_filter::v3::Response, ApiError> {
    check_self(&auth, &request.user_id)?;
    let filter = app.users.filters().get(&auth.user_id, &request.filter_id).await?;
    let filter = filter.ok_or_else(|| ApiError::not_found("There is no such filter"))?;
    Ok(get_filter::v3::Response::new(filter.definition.clone()))
}

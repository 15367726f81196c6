//! Simplified sliding sync, and the companion endpoint of its extension for threads.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/4186>

use std::sync::Arc;

use axum::response::Response;
use ruma::api::client::{
    sync::sync_events::v5,
    threads::get_thread_subscriptions_changes::unstable::{
        Request as ThreadsRequest, Response as ThreadsResponse, ThreadSubscription,
        ThreadUnsubscription,
    },
};

use super::{ClientApi, raw::written_json};
use crate::{error::ApiError, http::Requester, sync::sliding::Caller};

/// `POST /_matrix/client/unstable/org.matrix.simplified_msc3575/sync`
/// <https://github.com/matrix-org/matrix-spec-proposals/pull/4186>
///
/// `timeout` is at most 90 seconds and 0 by default.
///
/// No `async` function: that would hold the space of its arguments while it waits.
pub(super) fn sync_events(
    app: Arc<ClientApi>,
    auth: Requester,
    request: v5::Request,
) -> impl Future<Output = Result<Response, ApiError>> + Send + 'static {
    let Requester { user_id, device_id, session, .. } = auth;
    let caller = Caller { user_id, device_id, session };
    let request = Box::new(request);
    async move { Ok(written_json(app.sync.sliding(caller, request).await?)) }
}

/// `GET /_matrix/client/unstable/io.element.msc4308/thread_subscriptions`
/// <https://github.com/matrix-org/matrix-spec-proposals/pull/4308>
pub(super) async fn get_thread_subscriptions_changes(
    app: Arc<ClientApi>,
    auth: Requester,
    request: ThreadsRequest,
) -> Result<ThreadsResponse, ApiError> {
    let bounds = (request.from.as_deref(), request.to.as_deref());
    let limit = request.limit.map(u64::from);
    let page = app.sync.thread_subscriptions(auth.user_id, bounds, limit).await?;
    let mut response = ThreadsResponse::new();
    for (room_id, change) in page.changes {
        let stamp = change.row.position.as_u64().try_into().map_err(ApiError::internal)?;
        if change.row.subscribed {
            let thread = ThreadSubscription::new(change.row.automatic, stamp);
            response.subscribed.entry(room_id).or_default().insert(change.thread, thread);
        } else {
            let thread = ThreadUnsubscription::new(stamp);
            response.unsubscribed.entry(room_id).or_default().insert(change.thread, thread);
        }
    }
    response.end = page.end;
    Ok(response)
}

//! The threads of a room.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#querying-threads-in-a-room>

use std::sync::Arc;

use ruma::{
    api::client::threads::get_threads::{self, v1::IncludeThreads},
    assign,
    serde::Raw,
};

use super::{
    ClientApi,
    read_routes::{asker, bounded, token},
};
use crate::{
    error::ApiError,
    http::Requester,
    rooms::threads::{self, ThreadsRequest},
};

/// How many threads an answer holds when the client does not say.
const LIMIT: u32 = 5;

/// `GET /_matrix/client/v1/rooms/{roomId}/threads`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidthreads>
///
/// By default 5 threads, at most 100.
pub(super) async fn get_threads(
    app: Arc<ClientApi>,
    auth: Requester,
    request: get_threads::v1::Request,
) -> Result<get_threads::v1::Response, ApiError> {
    let participated = match request.include {
        IncludeThreads::All => false,
        IncludeThreads::Participated => true,
        _ => return Err(ApiError::invalid_param("`include` is neither `all` nor `participated`")),
    };
    let request = ThreadsRequest {
        room_id: request.room_id,
        participated,
        from: token(request.from.as_deref())?,
        limit: bounded(
            request.limit.unwrap_or(LIMIT.into()),
            1,
            app.config.limits.relations_page_events_max,
        ),
    };
    let page = threads::threads(&app.rooms, asker(auth), request).await?;
    let chunk = page.chunk.into_iter().map(Raw::from_json).collect();
    Ok(assign!(get_threads::v1::Response::new(chunk), {
        next_batch: page.next.map(|token| token.to_string()),
    }))
}

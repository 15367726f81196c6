//! Thread subscriptions (MSC4306).
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/4306>

use std::sync::Arc;

use http::StatusCode;
use ruma::{
    EventId, RoomId, UserId,
    api::client::threads::{get_thread_subscription, subscribe_thread, unsubscribe_thread},
    events::receipt::ReceiptThread,
};

use super::ClientApi;
use crate::{
    ephemeral::{Thread, reading::readable_place},
    error::ApiError,
    http::Requester,
    id::RoomNid,
    rooms::Room,
};

/// `GET /_matrix/client/unstable/io.element.msc4306/rooms/{roomId}/thread/{threadRoot}/subscription`
/// <https://github.com/matrix-org/matrix-spec-proposals/pull/4306>
pub(super) async fn get_thread_subscription(
    app: Arc<ClientApi>,
    auth: Requester,
    request: get_thread_subscription::unstable::Request,
) -> Result<get_thread_subscription::unstable::Response, ApiError> {
    let thread = (&*request.room_id, &*request.thread_root);
    let room = readable_thread(&app, &auth.user_id, thread).await?;
    let threads = app.users.thread_subscriptions();
    let row = threads.get(&auth.user_id, room.nid, thread.1).await?;
    let row = row.ok_or_else(|| ApiError::not_found("You do not follow this thread"))?;
    Ok(get_thread_subscription::unstable::Response::new(row.automatic))
}

/// `PUT /_matrix/client/unstable/io.element.msc4306/rooms/{roomId}/thread/{threadRoot}/subscription`
/// <https://github.com/matrix-org/matrix-spec-proposals/pull/4306>
pub(super) async fn subscribe_thread(
    app: Arc<ClientApi>,
    auth: Requester,
    request: subscribe_thread::unstable::Request,
) -> Result<subscribe_thread::unstable::Response, ApiError> {
    let thread_root = &*request.thread_root;
    let room = readable_thread(&app, &auth.user_id, (&request.room_id, thread_root)).await?;
    let cause = match &request.automatic {
        None => None,
        Some(cause) if cause == thread_root => return Err(not_in_thread()),
        Some(cause) => {
            let thread = Thread::from_request(&ReceiptThread::Thread(thread_root.to_owned()))?;
            let place = readable_place(&app.rooms, &room, &auth.user_id, (cause, &thread)).await;
            Some(place.map_err(|error| {
                if error.status == StatusCode::BAD_REQUEST { not_in_thread() } else { error }
            })?)
        }
    };
    let thread: (RoomNid, &EventId) = (room.nid, thread_root);
    app.users.thread_subscriptions().subscribe(&auth.user_id, thread, cause).await?;
    Ok(subscribe_thread::unstable::Response::new())
}

/// `DELETE /_matrix/client/unstable/io.element.msc4306/rooms/{roomId}/thread/{threadRoot}/subscription`
/// <https://github.com/matrix-org/matrix-spec-proposals/pull/4306>
pub(super) async fn unsubscribe_thread(
    app: Arc<ClientApi>,
    auth: Requester,
    request: unsubscribe_thread::unstable::Request,
) -> Result<unsubscribe_thread::unstable::Response, ApiError> {
    let thread_root = &*request.thread_root;
    let room = readable_thread(&app, &auth.user_id, (&request.room_id, thread_root)).await?;
    app.users.thread_subscriptions().unsubscribe(&auth.user_id, room.nid, thread_root).await?;
    Ok(unsubscribe_thread::unstable::Response::new())
}

/// The room of a thread whose root the user may see; 404 else.
async fn readable_thread(
    app: &ClientApi,
    user_id: &UserId,
    (room_id, thread_root): (&RoomId, &EventId),
) -> Result<Room, ApiError> {
    let not_found = || ApiError::not_found("There is no such thread");
    let room = app.rooms.room(room_id).await?.ok_or_else(not_found)?;
    readable_place(&app.rooms, &room, user_id, (thread_root, &Thread::none())).await?;
    Ok(room)
}

fn not_in_thread() -> ApiError {
    let errcode = "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD";
    ApiError::new(StatusCode::BAD_REQUEST, errcode, "The event is not of this thread")
}

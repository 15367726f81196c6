//! Pushers, and the list of what a user was notified of.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#push-notifications>

use std::sync::Arc;

use ruma::{
    api::client::push::{
        Pusher, PusherIds, PusherInit, PusherKind, get_notifications, get_pushers, set_pusher,
        set_pusher::v3::PusherAction,
    },
    push::HttpPusherData,
};

use super::{
    ClientApi,
    read_routes::{bounded, given},
};
use crate::{
    error::ApiError,
    http::Requester,
    rooms::notified::{self, NotifiedRequest},
    storage::{rows::push::PusherRow, schema::pushers::PusherKey},
    users::NewPusher,
};

/// How many notifications an answer has when the client does not say.
const NOTIFICATIONS_DEFAULT: u32 = 50;

/// `GET /_matrix/client/v3/pushers`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushers>
pub(super) async fn get_pushers(
    app: Arc<ClientApi>,
    auth: Requester,
    _request: get_pushers::v3::Request,
) -> Result<get_pushers::v3::Response, ApiError> {
    let pushers = app.users.pushers().list(&auth.user_id).await?;
    Ok(get_pushers::v3::Response::new(pushers.into_iter().map(shown).collect()))
}

/// `POST /_matrix/client/v3/pushers/set`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3pushersset>
///
/// Only pushers of the kind `http` are made.
pub(super) async fn set_pusher(
    app: Arc<ClientApi>,
    auth: Requester,
    request: set_pusher::v3::Request,
) -> Result<set_pusher::v3::Response, ApiError> {
    app.limits_of(&auth).pushers.check(&auth.user_id)?;
    let pushers = app.users.pushers();
    let post = match request.action {
        PusherAction::Delete(PusherIds { app_id, pushkey, .. }) => {
            pushers.remove(&auth.user_id, &app_id, &pushkey).await?;
            return Ok(set_pusher::v3::Response::new());
        }
        PusherAction::Post(post) => post,
        _ => return Err(ApiError::invalid_param("This cannot be done to a pusher")),
    };
    let Pusher { ids, kind, app_display_name, device_display_name, profile_tag, lang, .. } =
        post.pusher;
    let data = match kind {
        PusherKind::Http(data) => data,
        PusherKind::Email(_) => {
            return Err(ApiError::invalid_param("This server does not push by e-mail"));
        }
        _ => return Err(ApiError::invalid_param("This kind of pusher is not known")),
    };
    let HttpPusherData { url, format, data, .. } = data;
    let new = NewPusher {
        app_id: ids.app_id,
        pushkey: ids.pushkey,
        app_display_name,
        device_display_name,
        lang,
        profile_tag,
        url,
        format: format.map(|format| format.to_string()),
        data: data.into_iter().collect(),
        append: post.append,
    };
    if auth.device_id.as_str().is_empty() {
        let text = "A pusher belongs to a device: name one of the user's with `device_id`";
        return Err(ApiError::missing_param(text));
    }
    pushers.set(&auth.user_id, &auth.device_id, new).await?;
    Ok(set_pusher::v3::Response::new())
}

fn shown((key, row): (PusherKey, PusherRow)) -> Pusher {
    let mut data = HttpPusherData::new(row.url);
    data.format = row.format.map(Into::into);
    data.data = row.data.into_iter().collect();
    PusherInit {
        ids: PusherIds::new(key.pushkey, key.app_id),
        kind: PusherKind::Http(data),
        app_display_name: row.app_display_name,
        device_display_name: row.device_display_name,
        profile_tag: row.profile_tag,
        lang: row.lang,
    }
    .into()
}

/// `GET /_matrix/client/v3/notifications`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3notifications>
///
/// By the user's push rules as they are now. An answer looks at a bounded number of events, so it
/// may have fewer than asked for and still a token to go on from.
pub(super) async fn get_notifications(
    app: Arc<ClientApi>,
    auth: Requester,
    request: get_notifications::v3::Request,
) -> Result<get_notifications::v3::Response, ApiError> {
    let limit = request.limit.unwrap_or(NOTIFICATIONS_DEFAULT.into());
    let limit = bounded(limit, 1, app.config.limits.notifications_page_max);
    let request = NotifiedRequest {
        from: given(request.from.as_deref()).map(notified::parse_token).transpose()?,
        limit,
        highlights_only: request.only.as_deref() == Some("highlight"),
    };
    let page = notified::page(&app.rooms, super::read_routes::asker(auth), request).await?;
    let notifications = page.notifications.into_iter().map(|found| {
        let event = ruma::serde::Raw::from_json(found.event);
        get_notifications::v3::Notification::new(
            found.actions,
            event,
            found.read,
            found.room_id,
            found.ts,
        )
    });
    let mut response = get_notifications::v3::Response::new(notifications.collect());
    response.next_token = page.next;
    Ok(response)
}

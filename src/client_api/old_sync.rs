//! The deprecated ways to follow rooms, and the one to look into a room without joining it.
//!
//! ruma has types for one of these endpoints; the others are read and written here.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-previews>

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::response::Response;
use kv::{Direction, Position, Reader};
use ruma::{
    OwnedRoomId, UserId,
    api::client::{filter::RoomEventFilter, peeking::get_current_state},
};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::{
    ClientApi,
    raw::{json, parameter},
    read_routes::{asker, token},
};
use crate::{
    error::ApiError,
    http::{RawRequest, Requester},
    id::RoomNid,
    rooms::{
        Room,
        filter::RelatedBy,
        history::{self, Asker, MessagesRequest},
        members,
        old_sync::{
            Events, EventsRequest, event_anywhere, events_since, own_member_event, rooms_of,
        },
        timeline::PaginationToken,
    },
    storage::{
        rows::{Membership, MembershipRow},
        topic,
    },
    users::{Liveness, expired_token},
};

/// The endpoints' paths.
pub(super) const EVENTS_PATHS: &[&str] =
    &["/_matrix/client/r0/events", "/_matrix/client/v3/events"];
pub(super) const EVENT_PATHS: &[&str] =
    &["/_matrix/client/r0/events/{event_id}", "/_matrix/client/v3/events/{event_id}"];
pub(super) const INITIAL_SYNC_PATHS: &[&str] =
    &["/_matrix/client/r0/initialSync", "/_matrix/client/v3/initialSync"];

/// How many messages of each room are shown, where nothing is said and at most.
const MESSAGES_DEFAULT: usize = 10;
const MESSAGES_MAX: usize = 100;

/// How long a request waits for an event, where nothing is said and at most.
const TIMEOUT_MS_DEFAULT: u64 = 30_000;

#[derive(Serialize)]
struct EventsAnswer {
    start: String,
    end: String,
    chunk: Vec<Box<RawValue>>,
}

#[derive(Serialize)]
struct LatestMessages {
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<String>,
    end: String,
    chunk: Vec<Box<RawValue>>,
}

/// A room as these endpoints show it.
#[derive(Serialize)]
struct RoomInfo {
    room_id: OwnedRoomId,
    #[serde(skip_serializing_if = "Option::is_none")]
    membership: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    invite: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<LatestMessages>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<Vec<Box<RawValue>>>,
    visibility: &'static str,
    account_data: Vec<PlainEvent>,
}

#[derive(Serialize)]
struct PlainEvent {
    #[serde(rename = "type")]
    kind: String,
    content: Box<RawValue>,
}

type AccountDataByRoom = HashMap<Option<RoomNid>, Vec<PlainEvent>>;

#[derive(Serialize)]
struct InitialSync {
    end: String,
    presence: [(); 0],
    account_data: Vec<PlainEvent>,
    rooms: Vec<RoomInfo>,
}

/// `GET /_matrix/client/v3/rooms/{roomId}/initialSync`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidinitialsync>
pub(super) async fn get_current_state(
    app: Arc<ClientApi>,
    auth: Requester,
    request: get_current_state::v3::Request,
) -> Result<Response, ApiError> {
    let asker = asker(auth);
    let row = match app.rooms.room(&request.room_id).await? {
        Some(room) => {
            let (rooms, user_id) = (app.rooms.clone(), asker.user_id.clone());
            let read = move |reader: &Reader<'_>| rooms.membership(reader, &room, &user_id);
            app.rooms.store().read(read).await?.filter(|row| !row.forgotten)
        }
        None => None,
    };
    let nid = app.rooms.interner().room(&request.room_id);
    let data = account_data(&app, &asker.user_id).await?.remove(&Some(nid)).unwrap_or_default();
    json(&room_info(&app, &asker, request.room_id, row, (MESSAGES_DEFAULT, data)).await?)
}

async fn room_info(
    app: &ClientApi,
    asker: &Asker,
    room_id: OwnedRoomId,
    row: Option<MembershipRow>,
    (limit, account_data): (usize, Vec<PlainEvent>),
) -> Result<RoomInfo, ApiError> {
    let wanted = MessagesRequest {
        room_id: room_id.clone(),
        from: None,
        to: None,
        direction: Direction::Backward,
        limit,
        filter: RoomEventFilter::default(),
        related: RelatedBy::default(),
    };
    let mut page = history::messages(&app.rooms, asker.clone(), wanted).await?;
    page.chunk.reverse();
    let messages = LatestMessages {
        start: page.end.map(|start| start.to_string()),
        end: page.start.to_string(),
        chunk: page.chunk,
    };
    let state = members::state_events(&app.rooms, asker.clone(), room_id.clone()).await?;
    let membership = row.map(|row| row.membership);
    Ok(RoomInfo {
        membership: membership.map(Membership::name),
        invite: None,
        messages: Some(messages),
        state: Some(state),
        visibility: visibility(app, &room_id).await?,
        account_data,
        room_id,
    })
}

async fn visibility(app: &ClientApi, room_id: &OwnedRoomId) -> Result<&'static str, ApiError> {
    let room = app.rooms.known_room(room_id).await?;
    Ok(if app.rooms.is_listed(&room).await? { "public" } else { "private" })
}

/// All account data of a user, by room; that of `None` is global.
async fn account_data(app: &ClientApi, user_id: &UserId) -> Result<AccountDataByRoom, ApiError> {
    let (data, user_id) = (app.users.account_data().clone(), user_id.to_owned());
    let read = app.rooms.store().read(move |reader| data.since(reader, &user_id, Position::ZERO));
    let mut by_room = AccountDataByRoom::new();
    for entry in read.await? {
        let event = PlainEvent { kind: entry.kind, content: entry.content };
        by_room.entry(entry.room).or_default().push(event);
    }
    Ok(by_room)
}

/// `GET /_matrix/client/v3/initialSync`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3initialsync>
///
/// At most 100 messages of each room. `presence` is empty: `/sync` tells it.
pub(super) async fn initial_sync(
    app: Arc<ClientApi>,
    auth: Requester,
    request: RawRequest,
) -> Result<Response, ApiError> {
    let query = request.head.uri.query().unwrap_or_default();
    let limit = number(query, "limit")?.map_or(MESSAGES_DEFAULT, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX).clamp(1, MESSAGES_MAX)
    });
    let archived = parameter(query, "archived").is_some_and(|archived| archived == "true");
    let asker = asker(auth);
    let end = PaginationToken::live(app.rooms.store().position()).to_string();
    let mut data = account_data(&app, &asker.user_id).await?;
    let mut rooms = Vec::new();
    for (room, row) in rooms_of(&app.rooms, asker.user_id.clone()).await? {
        let is_archived = matches!(row.membership, Membership::Leave | Membership::Ban);
        if row.membership == Membership::Join || (is_archived && archived && row.was_joined) {
            let data = data.remove(&Some(room.nid)).unwrap_or_default();
            let info = room_info(&app, &asker, room.id.clone(), Some(row), (limit, data)).await?;
            rooms.push(info);
        } else if row.membership == Membership::Invite {
            let data = data.remove(&Some(room.nid)).unwrap_or_default();
            rooms.push(invited(&app, &asker, room, data).await?);
        }
    }
    let account_data = data.remove(&None).unwrap_or_default();
    json(&InitialSync { end, presence: [], account_data, rooms })
}

async fn invited(
    app: &ClientApi,
    asker: &Asker,
    room: Room,
    account_data: Vec<PlainEvent>,
) -> Result<RoomInfo, ApiError> {
    let room_id = room.id.clone();
    let invite = own_member_event(&app.rooms, asker.clone(), room).await?;
    Ok(RoomInfo {
        membership: Some("invite"),
        invite,
        messages: None,
        state: None,
        visibility: visibility(app, &room_id).await?,
        account_data,
        room_id,
    })
}

/// `GET /_matrix/client/v3/events`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3events>
///
/// Events of rooms alone, at most 100; `timeout` is at most `limits.sync_timeout_ms_max`. It counts among
/// the polls of `/sync`, of which a device has a few at once.
pub(super) async fn listen_to_new_events(
    app: Arc<ClientApi>,
    auth: Requester,
    request: RawRequest,
) -> Result<Response, ApiError> {
    let query = request.head.uri.query().unwrap_or_default();
    let room_id = parameter(query, "room_id").map(OwnedRoomId::try_from).transpose();
    let room_id = room_id.map_err(|_| ApiError::invalid_param("`room_id` is not a room id"))?;
    let timeout = number(query, "timeout")?
        .unwrap_or(TIMEOUT_MS_DEFAULT)
        .min(app.config.limits.sync_timeout_ms_max);
    let deadline = Instant::now() + Duration::from_millis(timeout);
    let mut wanted = EventsRequest {
        room_id,
        from: token(parameter(query, "from").as_deref())?,
        ignored: app.users.ignored(&auth.user_id).await?,
    };
    drop(request);
    let session = auth.session;
    let device_id = auth.device_id.clone();
    let asker = asker(auth);
    let (mut poll, mut is_over) = (None, false);
    let mut stopped = app.sync.notifier().stopped();
    loop {
        let events = events_since(&app.rooms, asker.clone(), wanted.clone()).await?;
        // What comes next is what comes after the first look.
        wanted.from.get_or_insert(events.start);
        if !events.chunk.is_empty() || is_over || Instant::now() >= deadline || *stopped.borrow() {
            let Events { start, end, chunk, .. } = events;
            return json(&EventsAnswer { start: start.to_string(), end: end.to_string(), chunk });
        }
        let mut topics = events.topics;
        let user = app.rooms.interner().user(&asker.user_id);
        topics.push(topic::user(topic::USER_SESSIONS, user));
        let poll = poll
            .get_or_insert_with(|| app.sync.open_poll(asker.user_id.clone(), device_id.clone()));
        tokio::select! {
            () = poll.ended() => is_over = true,
            _ = app.rooms.store().watch(&topics, events.at) => {}
            () = tokio::time::sleep_until(deadline) => {}
            _ = stopped.changed() => {}
        }
        match app.users.liveness(&session).await? {
            Liveness::Alive => {}
            Liveness::Expired => return Err(expired_token()),
            Liveness::Locked => return Err(ApiError::user_locked()),
            Liveness::Ended => {
                return Err(ApiError::unknown_token("The session has ended", false));
            }
        }
    }
}

/// `GET /_matrix/client/v3/events/{eventId}`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3eventseventid>
pub(super) async fn get_one_event(
    app: Arc<ClientApi>,
    auth: Requester,
    request: RawRequest,
) -> Result<Response, ApiError> {
    let event_id = request.path_arguments.into_iter().next().unwrap_or_default();
    let event_id =
        event_id.try_into().map_err(|_| ApiError::invalid_param("This is not an event id"))?;
    json(&event_anywhere(&app.rooms, asker(auth), event_id).await?)
}

fn number(query: &str, name: &str) -> Result<Option<u64>, ApiError> {
    let value = parameter(query, name).map(|value| value.parse());
    value.transpose().map_err(|_| ApiError::invalid_param(format!("`{name}` is not a number")))
}

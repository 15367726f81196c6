//! The endpoints that read rooms, in the order of the specification.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#getting-events-for-a-room>

use std::str::FromStr;

use http::Method;

use super::{
    ClientApi, context, directory, membership, message, mutual_rooms, old_sync, relations, room,
    search, state, threads, timestamp,
};
use crate::{
    error::ApiError,
    http::{Options, Requester, Routes},
    rooms::history::Asker,
};

/// The state without a state key, with and without the slash that is left of it.
const EMPTY_STATE_KEY: [&str; 4] = [
    "/_matrix/client/v3/rooms/{room_id}/state/{event_type}",
    "/_matrix/client/v3/rooms/{room_id}/state/{event_type}/",
    "/_matrix/client/r0/rooms/{room_id}/state/{event_type}",
    "/_matrix/client/r0/rooms/{room_id}/state/{event_type}/",
];

/// Adds the endpoints that read rooms.
#[must_use]
pub(super) fn read_routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    let state_event = Options::DEFAULT.more_paths(&EMPTY_STATE_KEY);
    routes
        .add(room::get_room_event)
        .add_with(state_event, state::get_state_event_for_key)
        .add(state::get_state_events)
        .add(membership::get_member_events)
        .add_rendered(Options::DEFAULT, membership::joined_members)
        .add(membership::joined_rooms)
        .add(message::get_message_events)
        .add_rendered(Options::DEFAULT, context::get_context)
        .add(relations::get_relating_events)
        .add(relations::get_relating_events_with_rel_type)
        .add(relations::get_relating_events_with_rel_type_and_event_type)
        .add(threads::get_threads)
        .add(timestamp::get_event_by_timestamp)
        .add(directory::get_public_rooms)
        .add(directory::get_public_rooms_filtered)
        .add_rendered(Options::DEFAULT, old_sync::get_current_state)
        .add_raw(&Method::GET, old_sync::INITIAL_SYNC_PATHS, old_sync::initial_sync)
        .add_raw(&Method::GET, old_sync::EVENTS_PATHS, old_sync::listen_to_new_events)
        .add_raw(&Method::GET, old_sync::EVENT_PATHS, old_sync::get_one_event)
        .add(mutual_rooms::get_mutual_rooms)
        .add(mutual_rooms::get_mutual_rooms_unstable)
        .add_raw(&Method::POST, search::PATHS, search::search_events)
}

/// Who reads, from who is logged in.
pub(super) fn asker(auth: Requester) -> Asker {
    Asker { user_id: auth.user_id, device_id: Some(auth.device_id) }
}

/// A token of a page, where the client gave one. An empty one is none: some clients send it so.
pub(super) fn token<T: FromStr<Err = ApiError>>(text: Option<&str>) -> Result<Option<T>, ApiError> {
    given(text).map(str::parse).transpose()
}

/// What the client gave that is not empty.
pub(super) fn given(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

/// A client's limit within bounds.
pub(super) fn bounded(limit: ruma::UInt, least: usize, most: usize) -> usize {
    usize::try_from(u64::from(limit)).unwrap_or(usize::MAX).min(most).max(least)
}

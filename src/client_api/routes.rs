//! The whole route table of the client-server API, in the order of the specification.

use std::sync::Arc;

use http::Method;

use super::{
    ClientApi, account_routes::account_routes, alias, create_room, delayed_events,
    encryption_routes::encryption_routes, media_routes::media_routes, membership_change,
    read_marker, read_routes::read_routes, receipt, reporting, send, space, sync, sync_sliding,
    thread_subscriptions, typing, upgrade,
};
use crate::http::{Options, Routes};

/// The state without a state key, with and without the slash that is left of it.
const EMPTY_STATE_KEY: [&str; 4] = [
    "/_matrix/client/v3/rooms/{room_id}/state/{event_type}",
    "/_matrix/client/v3/rooms/{room_id}/state/{event_type}/",
    "/_matrix/client/r0/rooms/{room_id}/state/{event_type}",
    "/_matrix/client/r0/rooms/{room_id}/state/{event_type}/",
];

/// All routes of this API.
pub fn routes(state: Arc<ClientApi>) -> Routes<ClientApi> {
    let qr_login = state.config.encryption.qr_login;
    let routes = Routes::new(state);
    let routes = sync_routes(read_routes(account_routes(routes)));
    let routes = encryption_routes(routes, qr_login);
    let routes = room_feature_routes(delayed_event_routes(routes));
    media_routes(write_routes(routes))
}

/// What is told of what changed, and what is told and not kept.
fn sync_routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes
        .add_raw(&Method::GET, sync::PATHS, sync::sync_events)
        .add_rendered(Options::DEFAULT.changes_nothing(), sync_sliding::sync_events)
        .add(sync_sliding::get_thread_subscriptions_changes)
        .add(thread_subscriptions::get_thread_subscription)
        .add(thread_subscriptions::subscribe_thread)
        .add(thread_subscriptions::unsubscribe_thread)
        .add(typing::create_typing_event)
        .add(receipt::create_receipt)
        .add(read_marker::set_read_marker)
}

/// Sending events, making rooms, memberships, aliases.
fn write_routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    let event = Options::DEFAULT.event();
    routes
        .add_rendered(event.more_paths(&EMPTY_STATE_KEY), delayed_events::send_state)
        .add_rendered(event, delayed_events::send_message)
        .add(send::redact)
        .add(create_room::create_room)
        .add(alias::get)
        .add(alias::create)
        .add(alias::delete)
        .add(alias::list)
        .add(membership_change::invite)
        .add(membership_change::join_by_id)
        .add(membership_change::join_by_id_or_alias)
        .add(membership_change::knock)
        .add(membership_change::forget)
        .add(membership_change::leave)
        .add(membership_change::kick)
        .add(membership_change::ban)
        .add(membership_change::unban)
        .add(alias::get_visibility)
        .add(alias::set_visibility)
}

/// Events that are sent later.
fn delayed_event_routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes
        .add(delayed_events::send_delayed_event)
        .add(delayed_events::update_delayed_event)
        .add(delayed_events::update_delayed_event_by_body)
        .add_raw(&Method::GET, delayed_events::LIST_PATHS, delayed_events::get_delayed_events)
        .add_raw(&Method::GET, delayed_events::EVENT_PATHS, delayed_events::get_delayed_event)
}

/// Upgrades, spaces, summaries and reports.
fn room_feature_routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    let summary = Options::DEFAULT.more_paths(&space::OLD_SUMMARY_PATHS);
    routes
        .add(upgrade::upgrade_room)
        .add(space::get_hierarchy)
        .add_with(summary, space::get_summary)
        .add(reporting::report_room)
        .add(reporting::report_content)
        .add(reporting::report_user)
}

//! The endpoints about accounts and what is theirs, in the order of the specification.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#client-authentication>

use http::Method;
use ruma::UserId;

use super::{
    ClientApi, account, admin, appservice, config, contact, device, discovery, fallback, filter,
    login_page, openid, presence, profile, push, pusher, rtc, session, sso, support, tag,
    thirdparty, uiaa, user_directory, voip,
};
use crate::{
    error::ApiError,
    http::{Options, Requester, Routes},
};

/// Adds the endpoints about accounts and what is theirs.
#[must_use]
pub fn account_routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    let routes = proof_routes(contact_routes(session_routes(routes)));
    appservice_routes(user_data_routes(push_routes(routes)))
}

/// Addresses of accounts.
fn contact_routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes
        .add(contact::get_3pids)
        .add_raw(&Method::POST, contact::OLD_ADD_PATHS, contact::add_by_identity_server)
        .add_with(uiaa::OPTIONS, contact::add_3pid)
        .add(contact::bind_3pid)
        .add(contact::delete_3pid)
        .add(contact::unbind_3pid)
        .add(contact::request_3pid_management_token_via_email)
        .add(contact::request_3pid_management_token_via_msisdn)
        .add(contact::request_registration_token_via_email)
        .add(contact::request_registration_token_via_msisdn)
        .add(contact::request_password_change_token_via_email)
        .add(contact::request_password_change_token_via_msisdn)
        .add_raw(&Method::GET, contact::CONFIRM_PATHS, contact::show_confirmation)
        .add_raw(&Method::POST, contact::CONFIRM_PATHS, contact::confirm)
}

/// What proves who somebody is beside passwords, and what administrators do.
fn proof_routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes
        .add_with(uiaa::OPTIONS, session::get_login_token)
        .add_raw(&Method::GET, sso::PATHS, sso::redirect)
        .add_raw(&Method::GET, login_page::PATHS, login_page::show)
        .add_raw(&Method::GET, fallback::PATHS, fallback::show)
        .add_raw(&Method::POST, fallback::PATHS, fallback::submit)
        .add(openid::request_openid_token)
        .add(support::discover_support)
        .add_with(Options::DEFAULT.omit_nulls(), admin::get_user_info)
        .add(admin::is_user_locked)
        .add(admin::lock_user)
        .add(admin::is_user_suspended)
        .add(admin::suspend_user)
}

fn session_routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes
        .add_rendered(Options::DEFAULT, discovery::discover_homeserver)
        .add(discovery::discover_homeserver_of_federation)
        .add(discovery::get_supported_versions)
        .add(session::get_login_types)
        .add_with(Options::DEFAULT.needs_field("type"), session::login)
        .add(session::refresh_token)
        .add(session::logout)
        .add(session::logout_all)
        .add_with(uiaa::OPTIONS, account::deactivate)
        .add_with(uiaa::OPTIONS, account::change_password)
        .add_with(Options::DEFAULT.omit_nulls(), account::register)
        .add(account::get_username_availability)
        .add(account::check_registration_token_validity)
        .add(account::whoami)
        .add(discovery::get_capabilities)
}

fn user_data_routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes
        .add(filter::create_filter)
        .add(filter::get_filter)
        .add(user_directory::search_users)
        .add(profile::get_profile)
        .add(profile::get_profile_field)
        .add(profile::set_profile_field)
        .add(profile::delete_profile_field)
        .add(presence::get_presence)
        .add(presence::set_presence)
        .add_raw(&Method::GET, voip::TURN_SERVER_PATHS, voip::get_turn_server_info)
        .add(rtc::get_transports)
        .add(device::get_devices)
        .add_with(Options::DEFAULT.omit_nulls(), device::get_device)
        .add_rendered(Options::DEFAULT, device::update_device)
        .add_with(uiaa::OPTIONS, device::delete_device)
        .add_with(uiaa::OPTIONS, device::delete_devices)
        .add(tag::get_tags)
        .add(tag::create_tag)
        .add(tag::delete_tag)
        .add(config::get_global_account_data)
        .add(config::set_global_account_data)
        .add(config::get_room_account_data)
        .add(config::set_room_account_data)
}

/// What application services call, and what they are asked for.
fn appservice_routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes
        .add(appservice::request_ping)
        .add(appservice::set_room_visibility)
        .add(thirdparty::get_protocols)
        .add(thirdparty::get_protocol)
        .add(thirdparty::get_location_for_protocol)
        .add(thirdparty::get_location_for_room_alias)
        .add(thirdparty::get_user_for_protocol)
        .add(thirdparty::get_user_for_user_id)
}

fn push_routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    // The specification has the first two with a slash at the end, some clients send none.
    let all = Options::DEFAULT
        .more_paths(&["/_matrix/client/r0/pushrules", "/_matrix/client/v3/pushrules"]);
    let global = Options::DEFAULT.more_paths(&[
        "/_matrix/client/r0/pushrules/global",
        "/_matrix/client/v3/pushrules/global",
    ]);
    routes
        .add(pusher::get_pushers)
        .add(pusher::set_pusher)
        .add(pusher::get_notifications)
        .add_with(all, push::get_pushrules_all)
        .add_with(global, push::get_pushrules_global_scope)
        .add(push::get_pushrule)
        .add(push::set_pushrule)
        .add(push::delete_pushrule)
        .add(push::get_pushrule_enabled)
        .add(push::set_pushrule_enabled)
        .add(push::get_pushrule_actions)
        .add(push::set_pushrule_actions)
}

/// Refuses what only the user may do.
pub(super) fn check_self(requester: &Requester, user_id: &UserId) -> Result<(), ApiError> {
    if requester.user_id == user_id {
        Ok(())
    } else {
        Err(ApiError::forbidden("This belongs to another user"))
    }
}

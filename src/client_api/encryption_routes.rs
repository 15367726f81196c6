//! The routes of end-to-end encryption, in the order of the specification.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#end-to-end-encryption>

use http::Method;

use super::{
    ClientApi, backup, cross_signing, dehydrated_device, key_changes, keys, rendezvous, to_device,
    uiaa,
};
use crate::http::{Options, Routes};

/// Hydrogen asks at the addresses of r0 for everything.
const SIGNING_PATHS: [&str; 1] = ["/_matrix/client/r0/keys/device_signing/upload"];
const BACKUPS_PATHS: [&str; 1] = ["/_matrix/client/r0/room_keys/version"];
const BACKUP_PATHS: [&str; 1] = ["/_matrix/client/r0/room_keys/version/{version}"];
const BACKUP_KEYS_PATHS: [&str; 1] = ["/_matrix/client/r0/room_keys/keys"];
const SIGNATURE_PATHS: [&str; 1] = ["/_matrix/client/r0/keys/signatures/upload"];

/// The largest body of a rendezvous as JSON: each byte of its text may be escaped.
const RENDEZVOUS_BODY_BYTES_MAX: usize = 32 * 1024;

/// Messages to devices, keys, cross-signing, backups, dehydrated devices; login by QR code where it
/// is served.
pub(super) fn encryption_routes(routes: Routes<ClientApi>, qr_login: bool) -> Routes<ClientApi> {
    let routes = to_device_routes(routes);
    let routes = key_routes(routes);
    let routes = cross_signing_routes(routes);
    let routes = backup_routes(routes);
    let routes = dehydrated_device_routes(routes);
    if qr_login { rendezvous_routes(routes) } else { routes }
}

fn to_device_routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes.add(to_device::send_event_to_device)
}

fn key_routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes
        .add_raw(&Method::POST, keys::UPLOAD_PATHS, keys::upload_keys)
        .add_rendered(Options::DEFAULT.changes_nothing(), keys::get_keys)
        .add_rendered(Options::DEFAULT, keys::claim_keys)
        .add(key_changes::get_key_changes)
}

fn cross_signing_routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes
        .add_with(uiaa::OPTIONS.more_paths(&SIGNING_PATHS), cross_signing::upload_signing_keys)
        .add_rendered(
            Options::DEFAULT.more_paths(&SIGNATURE_PATHS),
            cross_signing::upload_signatures,
        )
}

fn backup_routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes
        .add_with(Options::DEFAULT.more_paths(&BACKUPS_PATHS), backup::create_backup_version)
        .add(backup::get_latest_backup_info)
        .add_with(Options::DEFAULT.more_paths(&BACKUP_PATHS), backup::get_backup_info)
        .add_with(Options::DEFAULT.more_paths(&BACKUP_PATHS), backup::update_backup_version)
        .add(backup::delete_backup_version)
        .add(backup::add_backup_keys_for_session)
        .add(backup::get_backup_keys_for_session)
        .add(backup::delete_backup_keys_for_session)
        .add(backup::add_backup_keys_for_room)
        .add_rendered(Options::DEFAULT, backup::get_backup_keys_for_room)
        .add(backup::delete_backup_keys_for_room)
        .add_with(Options::DEFAULT.more_paths(&BACKUP_KEYS_PATHS), backup::add_backup_keys)
        .add_rendered(Options::DEFAULT, backup::get_backup_keys)
        .add(backup::delete_backup_keys)
}

fn dehydrated_device_routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    let put = dehydrated_device::put_dehydrated_device;
    routes
        .add_raw(&Method::PUT, dehydrated_device::PUT_PATHS, put)
        .add_raw(
            &Method::GET,
            dehydrated_device::EVENTS_PATHS,
            dehydrated_device::get_events_by_query,
        )
        .add(dehydrated_device::get_dehydrated_device)
        .add(dehydrated_device::delete_dehydrated_device)
        .add_with(Options::DEFAULT.changes_nothing(), dehydrated_device::get_events)
}

fn rendezvous_routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    let (all, one) = (&[rendezvous::PATH][..], &[rendezvous::PATH_OF_ONE][..]);
    let small = Options::DEFAULT.body_bytes_max(RENDEZVOUS_BODY_BYTES_MAX);
    routes
        .add_raw(&Method::POST, all, rendezvous::create)
        .add_raw(&Method::GET, one, rendezvous::read)
        .add_raw(&Method::PUT, one, rendezvous::write)
        .add_raw(&Method::DELETE, one, rendezvous::end)
        .add(rendezvous::discover_rendezvous)
        .add_with(small, rendezvous::create_rendezvous_session)
        .add_raw(&Method::GET, &rendezvous::session_paths(), rendezvous::get_rendezvous_session)
        .add_with(small, rendezvous::update_rendezvous_session)
        .add(rendezvous::delete_rendezvous_session)
}

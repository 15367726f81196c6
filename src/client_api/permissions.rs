//! What guests may do, and what suspended users may not: two tables of endpoints, asked by the
//! authentication of every request, before any of the body is read.
//!
//! What depends on more than method and path is left to the handlers: which rooms let guests in, and
//! whose event a suspended user redacts.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#guest-access>
//! <https://spec.matrix.org/v1.19/client-server-api/#account-moderation>

use axum::extract::MatchedPath;
use http::{Method, request::Parts};

use crate::{
    error::ApiError,
    http::{Requester, Standing},
};

/// What comes before the version in the paths of this API.
const PREFIX: &str = "/_matrix/client/";
/// The same in the older paths of media.
const MEDIA_PREFIX: &str = "/_matrix/media/";

/// What guests may do, as the specification lists it. Below it what is the same by another path
/// (joins by alias, the empty state key), and what a client needs to begin and to end: the
/// capabilities and logging out.
const GUESTS: &[(&str, &str)] = &[
    ("GET", "rooms/{}/state"),
    ("GET", "rooms/{}/context/{}"),
    ("GET", "rooms/{}/event/{}"),
    ("GET", "rooms/{}/state/{}/{}"),
    ("GET", "rooms/{}/messages"),
    ("GET", "rooms/{}/members"),
    ("GET", "rooms/{}/initialSync"),
    ("GET", "sync"),
    ("GET", "events"),
    ("GET", "media/download/{}/{}"),
    ("GET", "media/download/{}/{}/{}"),
    ("GET", "media/thumbnail/{}/{}"),
    ("POST", "rooms/{}/join"),
    ("POST", "rooms/{}/leave"),
    ("PUT", "rooms/{}/send/{}/{}"),
    ("PUT", "rooms/{}/state/{}/{}"),
    ("PUT", "sendToDevice/{}/{}"),
    ("PUT", "profile/{}/displayname"),
    ("DELETE", "profile/{}/displayname"),
    ("GET", "devices"),
    ("GET", "devices/{}"),
    ("PUT", "devices/{}"),
    ("GET", "account/whoami"),
    ("POST", "keys/upload"),
    ("POST", "keys/query"),
    ("POST", "keys/claim"),
    ("GET", "rooms/{}/state/{}"),
    ("GET", "rooms/{}/state/{}/"),
    ("PUT", "rooms/{}/state/{}"),
    ("PUT", "rooms/{}/state/{}/"),
    ("POST", "join/{}"),
    ("GET", "versions"),
    ("GET", "capabilities"),
    ("POST", "logout"),
    ("POST", "logout/all"),
];

/// What suspended users may not do.
const NOT_SUSPENDED: &[(&str, &str)] = &[
    ("POST", "createRoom"),
    ("POST", "rooms/{}/join"),
    ("POST", "join/{}"),
    ("POST", "knock/{}"),
    ("POST", "rooms/{}/invite"),
    ("POST", "rooms/{}/kick"),
    ("POST", "rooms/{}/ban"),
    ("POST", "rooms/{}/unban"),
    ("POST", "rooms/{}/upgrade"),
    ("PUT", "rooms/{}/send/{}/{}"),
    // What to do with one that waits is not refused, since it may be cancelled; it is never sent.
    ("PUT", "rooms/{}/delayed_event/{}/{}"),
    ("PUT", "rooms/{}/state/{}/{}"),
    ("PUT", "rooms/{}/state/{}"),
    ("PUT", "rooms/{}/state/{}/"),
    ("PUT", "rooms/{}/typing/{}"),
    ("PUT", "directory/room/{}"),
    ("DELETE", "directory/room/{}"),
    ("PUT", "directory/list/room/{}"),
    ("PUT", "profile/{}/displayname"),
    ("PUT", "profile/{}/avatar_url"),
    ("PUT", "profile/{}/{}"),
    ("DELETE", "profile/{}/displayname"),
    ("DELETE", "profile/{}/{}"),
    ("POST", "account/3pid/delete"),
    ("POST", "media/upload"),
    ("POST", "media/create"),
    ("PUT", "media/upload/{}/{}"),
];

/// What locked users may do.
const LOCKED: &[(&str, &str)] = &[("POST", "logout"), ("POST", "logout/all")];

/// Refuses what this kind of account may not do at this endpoint.
pub(super) fn permit(requester: &Requester, head: &Parts) -> Result<(), ApiError> {
    let has_limits = requester.guest || requester.standing != Standing::Good;
    if !has_limits {
        return Ok(());
    }
    let endpoint = endpoint(head);
    match requester.standing {
        Standing::Locked if !is_in(LOCKED, &endpoint) => return Err(ApiError::user_locked()),
        Standing::Suspended if is_in(NOT_SUSPENDED, &endpoint) => return Err(suspended()),
        _ => {}
    }
    if requester.guest && !is_in(GUESTS, &endpoint) {
        return Err(guests_may_not());
    }
    Ok(())
}

/// The answer to a suspended user.
pub(super) fn suspended() -> ApiError {
    ApiError::user_suspended("You cannot do this while your account is suspended")
}

/// The answer to a guest.
pub(super) fn guests_may_not() -> ApiError {
    ApiError::guest_access_forbidden("Guests may not do this; make an account")
}

fn is_in(table: &[(&str, &str)], endpoint: &(Method, String)) -> bool {
    table.iter().any(|(method, path)| endpoint.0 == *method && endpoint.1 == *path)
}

/// The method, and the path as the tables have it. A profile's field counts as what it is, since
/// some may be changed and others not.
fn endpoint(head: &Parts) -> (Method, String) {
    // What is not matched by a route of ours is in no table.
    let matched = head.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let mut path = named(matched);
    let displayname = head.uri.path().ends_with("/displayname");
    if path == "profile/{}/{}" && displayname {
        "profile/{}/displayname".clone_into(&mut path);
    }
    let method = if head.method == Method::HEAD { Method::GET } else { head.method.clone() };
    (method, path)
}

/// A path without what says its age (a version, or `unstable` and a proposal, whose name has dots),
/// with `{}` for each variable; media has the same name by its older paths.
fn named(matched: &str) -> String {
    let (family, path) = match matched.strip_prefix(MEDIA_PREFIX) {
        Some(path) => ("media/", path),
        None => ("", matched.strip_prefix(PREFIX).unwrap_or_default()),
    };
    let path = match path.split_once('/') {
        Some(("unstable", path)) => match path.split_once('/') {
            Some((proposal, path)) if proposal.contains('.') => path,
            _ => path,
        },
        Some((_, path)) => path,
        None => path,
    };
    let path = path.split('/').map(unnamed).collect::<Vec<_>>().join("/");
    format!("{family}{path}")
}

fn unnamed(segment: &str) -> &str {
    if segment.starts_with('{') { "{}" } else { segment }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_has_one_name_by_all_its_paths() {
        let cases = [
            ("/_matrix/client/versions", "versions"),
            ("/_matrix/media/unstable/fi.mau.msc2246/create", "media/create"),
            ("/_matrix/client/v3/knock/{room_id}", "knock/{}"),
            ("/_matrix/client/unstable/xyz.amorgan.knock/knock/{room_id}", "knock/{}"),
            ("/_matrix/media/v3/upload", "media/upload"),
            ("/_matrix/client/v1/media/config", "media/config"),
            ("/_matrix/client/unstable/room_keys/version", "room_keys/version"),
            ("/elsewhere", ""),
        ];
        for (path, name) in cases {
            assert_eq!(named(path), name, "{path}");
        }
    }
}

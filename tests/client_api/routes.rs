//! The routes of the server, for `tests/openapi`, which compares them with the specification's.

use std::fs;

use http::Method;
use serde_json::json;

use crate::harness::{Client, TestServer, TestUser, record};

/// What needs no token of a user: sessions begin and passwords are found again there; the rest is
/// for application services alone.
const FOR_ALL: &[&str] = &[
    "POST account/3pid/email/requestToken",
    "POST account/3pid/msisdn/requestToken",
    "POST account/password/email/requestToken",
    "POST account/password/msisdn/requestToken",
    "POST appservice/{}/ping",
    "POST auth/{}/fallback/web",
    "POST causerie/email/confirm",
    "POST login",
    "POST refresh",
    "POST register",
    "POST register/email/requestToken",
    "POST register/msisdn/requestToken",
    "PUT directory/list/appservice/{}/{}",
];

/// What suspended users may do.
const FOR_SUSPENDED: &[&str] = &[
    "DELETE dehydrated_device",
    "DELETE devices/{}",
    "DELETE pushrules/global/{}/{}",
    "DELETE room_keys/keys",
    "DELETE room_keys/keys/{}",
    "DELETE room_keys/keys/{}/{}",
    "DELETE room_keys/version/{}",
    "DELETE rooms/{}/thread/{}/subscription",
    "DELETE user/{}/rooms/{}/tags/{}",
    "POST account/3pid",
    "POST account/3pid/add",
    "POST account/3pid/bind",
    "POST account/3pid/unbind",
    "POST account/deactivate",
    "POST account/password",
    "POST dehydrated_device/{}/events",
    "POST delayed_events/{}",
    "POST delayed_events/{}/{}",
    "POST delete_devices",
    "POST keys/claim",
    "POST keys/device_signing/upload",
    "POST keys/query",
    "POST keys/signatures/upload",
    "POST keys/upload",
    "POST login/get_token",
    "POST logout",
    "POST logout/all",
    "POST publicRooms",
    "POST pushers/set",
    "POST room_keys/version",
    "POST rooms/{}/forget",
    "POST rooms/{}/leave",
    "POST rooms/{}/read_markers",
    "POST rooms/{}/receipt/{}/{}",
    "POST rooms/{}/report",
    "POST rooms/{}/report/{}",
    "POST search",
    "POST sync",
    "POST user/{}/filter",
    "POST user/{}/openid/request_token",
    "POST user_directory/search",
    "POST users/{}/report",
    "PUT admin/lock/{}",
    "PUT admin/suspend/{}",
    "PUT dehydrated_device",
    "PUT devices/{}",
    "PUT presence/{}/status",
    "PUT pushrules/global/{}/{}",
    "PUT pushrules/global/{}/{}/actions",
    "PUT pushrules/global/{}/{}/enabled",
    "PUT room_keys/keys",
    "PUT room_keys/keys/{}",
    "PUT room_keys/keys/{}/{}",
    "PUT room_keys/version/{}",
    "PUT rooms/{}/redact/{}/{}",
    "PUT rooms/{}/thread/{}/subscription",
    "PUT sendToDevice/{}/{}",
    "PUT user/{}/account_data/{}",
    "PUT user/{}/rooms/{}/account_data/{}",
    "PUT user/{}/rooms/{}/tags/{}",
];

/// What guests may do.
const FOR_GUESTS: &[&str] = &[
    "DELETE profile/{}/displayname",
    "POST join/{}",
    "POST keys/claim",
    "POST keys/query",
    "POST keys/upload",
    "POST logout",
    "POST logout/all",
    "POST rooms/{}/join",
    "POST rooms/{}/leave",
    "PUT devices/{}",
    "PUT profile/{}/displayname",
    "PUT rooms/{}/send/{}/{}",
    "PUT rooms/{}/state/{}",
    "PUT rooms/{}/state/{}/",
    "PUT rooms/{}/state/{}/{}",
    "PUT sendToDevice/{}/{}",
];

/// A path without its age, and with `{}` for what varies.
fn name(method: &str, path: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').skip(2).collect();
    if parts[0] == "client" {
        // A proposal has dots in its name; some paths are older than that.
        let age = if parts[1] == "unstable" && parts[2].contains('.') { 3 } else { 2 };
        parts.drain(..age.min(parts.len() - 1));
    } else {
        parts.remove(1);
    }
    let parts = parts.iter().map(|part| if part.starts_with('{') { "{}" } else { part });
    format!("{method} {}", parts.collect::<Vec<_>>().join("/"))
}

/// Each route that changes something is refused, or is named as one that is allowed.
async fn check_routes(user: &Client<'_>, allowed: &[&str], errcode: &str) {
    let mut unclassified = Vec::new();
    for route in user.server.server.client_routes() {
        let name = name(&route.method, route.path);
        if route.method == "GET" || FOR_ALL.contains(&&*name) || allowed.contains(&&*name) {
            continue;
        }
        let filled =
            route.path.split('/').map(|part| if part.starts_with('{') { "x" } else { part });
        let filled = filled.collect::<Vec<_>>().join("/");
        let method: Method = route.method.parse().unwrap();
        let answer = user.call(method, &filled).json(json!({})).send().await;
        if answer.outcome() != (403, errcode) {
            unclassified.push(format!("{name}: {} {:?}", route.path, answer.outcome()));
        }
    }
    unclassified.sort();
    assert!(unclassified.is_empty(), "{unclassified:#?}");
}

#[tokio::test]
async fn suspended_users_are_refused_whatever_is_not_named() {
    let server = TestServer::new().await;
    let bob = server.client("bob").await;
    let admin = server.client("admin").await;
    server.server.users.set_admin(&admin.user.user_id, true).await.unwrap();
    let path = format!("v1/admin/suspend/{}", bob.id());
    admin.put(&path, json!({ "suspended": true })).await.ok();
    check_routes(&bob, FOR_SUSPENDED, "M_USER_SUSPENDED").await;
}

#[tokio::test]
async fn guests_are_refused_whatever_is_not_named() {
    let server = TestServer::with(|config| config.registration.guests = true).await;
    let body = server.post("v3/register?kind=guest", json!({})).send().await.ok();
    let text = |name: &str| body[name].as_str().unwrap().to_owned();
    let user = TestUser {
        user_id: text("user_id").try_into().unwrap(),
        device_id: text("device_id"),
        token: text("access_token"),
    };
    let guest = Client { server: &server, user };
    check_routes(&guest, FOR_GUESTS, "M_GUEST_ACCESS_FORBIDDEN").await;
}

#[tokio::test]
async fn every_route_is_listed_once() {
    let server = TestServer::new().await;
    let mut routes = server.server.client_routes();
    let count = routes.len();
    assert!(count > 150, "{count} routes");
    if let Some(folder) = record::folder() {
        let list: Vec<_> = routes
            .iter()
            .map(|route| json!({ "method": route.method, "path": route.path }))
            .collect();
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("routes.json"), json!(list).to_string()).unwrap();
    }
    routes.sort();
    routes.dedup();
    assert_eq!(routes.len(), count);
}

/// What anybody may ask for.
fn is_open(method: &str, path: &str) -> bool {
    let ends = [
        "/account/password",
        "/account/password/email/requestToken",
        "/account/password/msisdn/requestToken",
        "/account/3pid/email/requestToken",
        "/account/3pid/msisdn/requestToken",
        "/causerie/email/confirm",
        "/client/versions",
        "/fallback/web",
        "/login",
        "/refresh",
        "/register",
        "/validity",
    ];
    let parts = [
        "/.well-known/",
        "/_matrix/static/",
        "/login/sso/redirect",
        "/register/",
        "/_matrix/media/r0/download/",
        "/_matrix/media/v1/download/",
        "/_matrix/media/v3/download/",
        "/_matrix/media/r0/thumbnail/",
        "/_matrix/media/v1/thumbnail/",
        "/_matrix/media/v3/thumbnail/",
    ];
    let read = ["/profile/", "/directory/", "/room_summary/", "/summary"];
    // Who knows the id of a delayed event may change it.
    let delayed = "/org.matrix.msc4140/delayed_events/{delay_id}";
    ends.iter().any(|end| path.ends_with(end))
        || parts.iter().any(|part| path.contains(part))
        || (method == "POST" && path.contains(delayed))
        || (method == "GET" && read.iter().any(|part| path.contains(part)))
}

#[tokio::test]
async fn nobody_is_let_in_without_a_token() {
    let server = TestServer::new().await;
    let mut wrong = Vec::new();
    for route in server.server.client_routes() {
        let method = route.method.parse().unwrap();
        let answer = server.call(method, &filled(route.path)).json(json!({})).send().await;
        let is_refused = answer.outcome() == (401, "M_MISSING_TOKEN");
        let is_open = is_open(&route.method, route.path);
        if is_refused == is_open || answer.status.is_server_error() {
            wrong.push(format!("{} {}: {}", route.method, route.path, answer.text));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn nothing_odd_makes_the_server_fail() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let bodies = [json!({}), json!([]), json!(null), json!("x"), json!({ "type": [], "auth": 1 })];
    let mut wrong = Vec::new();
    for route in server.server.client_routes() {
        // The session is still needed.
        if route.path.contains("/logout") {
            continue;
        }
        let method: Method = route.method.parse().unwrap();
        let mut calls = Vec::new();
        if method != Method::GET {
            let path = filled(route.path);
            calls.extend(
                bodies.iter().map(|body| alice.call(method.clone(), &path).json(body.clone())),
            );
        }
        if route.path.contains('{') {
            let odd = ["%00", "%FF", "%F0%9F%98%80", "@:", "..%2F..%2Fx"];
            calls.extend(odd.iter().map(|part| {
                let path = filled_with(route.path, |_| part);
                alice.call(method.clone(), &path).json(json!({}))
            }));
        }
        for call in calls {
            let answer = call.send().await;
            if answer.status.is_server_error() {
                wrong.push(format!("{} {}: {}", route.method, route.path, answer.text));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // All of it was asked by somebody who may.
    alice.get("v3/account/whoami").await.ok();
}

#[tokio::test]
async fn another_method_is_told_that_it_is_unknown() {
    let server = TestServer::new().await;
    for route in server.server.client_routes() {
        let answer = server.call(Method::PATCH, &filled(route.path)).send().await;
        assert_eq!(answer.outcome(), (405, "M_UNRECOGNIZED"), "{}", route.path);
    }
    for unknown in ["v3/nothing", "v99/sync", "/_matrix/media/v3/nothing", "/_matrix/nothing"] {
        let answer = server.get(unknown).send().await;
        assert_eq!(answer.outcome(), (404, "M_UNRECOGNIZED"), "{unknown}");
        assert_eq!(answer.headers["access-control-allow-origin"], "*", "{unknown}");
    }
}

/// A path of that form, with ids that could be.
fn filled(path: &str) -> String {
    filled_with(path, |variable| match variable {
        "{room_id}" | "{room_id_or_alias}" => "!room:example.org",
        "{user_id}" => "@alice:example.org",
        "{room_alias}" => "%23alias:example.org",
        "{event_id}" | "{thread_root}" => "$event",
        "{server_name}" => "example.org",
        _ => "x",
    })
}

fn filled_with<'a>(path: &'a str, value: impl Fn(&'a str) -> &'a str) -> String {
    let fill = |part: &'a str| if part.starts_with('{') { value(part) } else { part };
    path.split('/').map(fill).collect::<Vec<_>>().join("/")
}

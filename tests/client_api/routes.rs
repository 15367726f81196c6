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
    "POST email/confirm",
    "POST login",
    "POST refresh",
    "POST register",
    "POST register/email/requestToken",
    "POST register/msisdn/requestToken",
    "PUT directory/list/appservice/{}/{}",
];

/// What suspended users may do.
const FOR_SUSPENDED: &[&str] = &[
    "DELETE devices/{}",
    "DELETE pushrules/global/{}/{}",
    "DELETE rooms/{}/thread/{}/subscription",
    "DELETE user/{}/rooms/{}/tags/{}",
    "POST account/3pid",
    "POST account/3pid/add",
    "POST account/3pid/bind",
    "POST account/3pid/unbind",
    "POST account/deactivate",
    "POST account/password",
    "POST delayed_events/{}",
    "POST delayed_events/{}/{}",
    "POST delete_devices",
    "POST login/get_token",
    "POST logout",
    "POST logout/all",
    "POST publicRooms",
    "POST pushers/set",
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
    "PUT devices/{}",
    "PUT presence/{}/status",
    "PUT pushrules/global/{}/{}",
    "PUT pushrules/global/{}/{}/actions",
    "PUT pushrules/global/{}/{}/enabled",
    "PUT rooms/{}/redact/{}/{}",
    "PUT rooms/{}/thread/{}/subscription",
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
        let age = if parts[1] == "unstable" { 3 } else { 2 };
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

//! Looking for users: who is found, by whom, and in which order.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Client, PASSWORD, TestServer};

async fn answer(user: &Client<'_>, term: &str, limit: u32) -> Value {
    let body = json!({ "search_term": term, "limit": limit });
    user.post("v3/user_directory/search", body).await.ok()
}

async fn found(user: &Client<'_>, term: &str) -> Vec<String> {
    let answer = answer(user, term, 10).await;
    let users = answer["results"].as_array().unwrap().iter();
    users.map(|user| user["user_id"].as_str().unwrap().to_owned()).collect()
}

async fn rename(user: &Client<'_>, name: &str) {
    let path = format!("v3/profile/{}/displayname", user.id());
    user.put(&path, json!({ "displayname": name })).await.ok();
}

#[tokio::test]
async fn colleagues_are_found_by_the_beginnings_of_their_names() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let (ann, anna) = (server.client("ann").await, server.client("anna.lee").await);
    let (bob, hanna) = (server.client("bob").await, server.client("hanna").await);
    rename(&bob, "José Ann-Marie 山田太郎").await;
    let ids = |users: &[&Client<'_>]| users.iter().map(|u| u.id().to_owned()).collect::<Vec<_>>();
    // The exact one, those that begin so, those with a word that begins so.
    assert_eq!(found(&alice, "ann").await, ids(&[&ann, &anna, &bob]));
    assert_eq!(found(&alice, "@ANN").await, ids(&[&ann, &anna, &bob]));
    assert_eq!(found(&alice, "lee").await, ids(&[&anna]));
    assert_eq!(found(&alice, "jose mar").await, ids(&[&bob]));
    assert_eq!(found(&alice, "josé x").await, ids(&[]));
    assert_eq!(found(&alice, "太郎").await, ids(&[&bob]));
    assert_eq!(found(&alice, "@hanna:exam").await, ids(&[&hanna]));
    for nothing in ["", " ", "@", "zz", "li"] {
        assert_eq!(found(&alice, nothing).await, ids(&[]), "{nothing}");
    }
    // Whom one shares a room with comes first among equals.
    let room = alice.public_room().await;
    bob.join(&room).await;
    rename(&bob, "Hansen").await;
    assert_eq!(found(&alice, "han").await, ids(&[&bob, &hanna]));
    assert_eq!(found(&alice, "jose").await, ids(&[]));
    let shown = &answer(&alice, "hansen", 10).await["results"][0];
    assert_eq!(*shown, json!({ "user_id": bob.id(), "display_name": "Hansen" }));
    let page = answer(&alice, "ann", 1).await;
    assert_eq!((page["results"].as_array().unwrap().len(), &page["limited"]), (1, &json!(true)));
    assert_eq!(answer(&alice, "ann", 2).await["limited"], json!(false));
}

#[tokio::test]
async fn t61_the_directory_shows_who_may_be_known() {
    let server = TestServer::with(|config| config.user_directory.search_all_users = false).await;
    let alice = server.client("alice").await;
    let (bob, bobby) = (server.client("bob").await, server.client("bobby").await);
    let closed = bob.create_room(json!({})).await;
    assert_eq!(found(&alice, "bob").await, Vec::<String>::new());
    bob.invite(&closed, &alice).await;
    assert_eq!(found(&alice, "bob").await, Vec::<String>::new());
    alice.join(&closed).await;
    assert_eq!(found(&alice, "bob").await, [bob.id()]);
    bobby.public_room().await;
    assert_eq!(found(&alice, "bob").await, [bob.id(), bobby.id()]);
    // Who ignores one is shown only where they share a room.
    for user in [&bob, &bobby] {
        let path = format!("v3/user/{}/account_data/m.ignored_user_list", user.id());
        user.put(&path, json!({ "ignored_users": { alice.id(): {} } })).await.ok();
    }
    assert_eq!(found(&alice, "bob").await, [bob.id()]);
    let path = format!("v3/user/{}/account_data/m.ignored_user_list", alice.id());
    alice.put(&path, json!({ "ignored_users": { bob.id(): {} } })).await.ok();
    assert_eq!(found(&alice, "bob").await, Vec::<String>::new());
    let nobody = server.post("v3/user_directory/search", json!({ "search_term": "bob" }));
    assert_eq!(nobody.send().await.outcome(), (401, "M_MISSING_TOKEN"));
}

#[tokio::test]
async fn who_has_left_the_server_is_not_found() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    rename(&bob, "Robert").await;
    assert_eq!(found(&alice, "robert").await, [bob.id()]);
    let auth = json!({ "type": "m.login.password", "password": PASSWORD,
        "identifier": { "type": "m.id.user", "user": "bob" } });
    let call = bob.call(Method::POST, "v3/account/deactivate").json(json!({ "auth": auth }));
    call.send().await.ok();
    for term in ["robert", "bob"] {
        assert_eq!(found(&alice, term).await, Vec::<String>::new(), "{term}");
    }
}

#[tokio::test]
async fn t89_the_limit_is_clamped_and_the_term_bounded() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    server.client("bob").await;
    assert_eq!(answer(&alice, "bob", 1_000_000).await["results"].as_array().unwrap().len(), 1);
    assert_eq!(answer(&alice, "bob", 0).await, json!({ "results": [], "limited": true }));
    let body = json!({ "search_term": "x".repeat(513) });
    let answer = alice.post("v3/user_directory/search", body).await;
    assert_eq!(answer.outcome(), (400, "M_INVALID_PARAM"));
}

#[tokio::test]
async fn guests_and_the_locked_are_not_found() {
    let server = TestServer::with(|config| config.registration.guests = true).await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    server.server.users.set_admin(&alice.user.user_id, true).await.unwrap();
    let guest = server.post("v3/register?kind=guest", json!({})).send().await.ok();
    let guest = guest["user_id"].as_str().unwrap();
    assert_eq!(found(&alice, guest).await, Vec::<String>::new());
    assert_eq!(found(&alice, "bob").await, [bob.id()]);
    let lock = format!("v1/admin/lock/{}", bob.id());
    alice.put(&lock, json!({ "locked": true })).await.ok();
    assert_eq!(found(&alice, "bob").await, Vec::<String>::new());
    alice.put(&lock, json!({ "locked": false })).await.ok();
    assert_eq!(found(&alice, "bob").await, [bob.id()]);
}

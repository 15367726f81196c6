//! The rooms of spaces.

use serde_json::{Value, json};

use crate::harness::{Answer, Client, TestServer, encode, text};

async fn space(user: &Client<'_>, name: &str) -> String {
    // Rooms that are alike differ by their time.
    user.server.pass(1);
    let wanted = json!({
        "preset": "public_chat", "name": name, "creation_content": { "type": "m.space" },
    });
    user.create_room(wanted).await
}

async fn add(user: &Client<'_>, space: &str, child: &str, content: Value) {
    let path = format!("v3/rooms/{space}/state/m.space.child/{}", encode(child));
    let mut content = content;
    if content.get("via").is_none() {
        content["via"] = json!(["example.org"]);
    }
    user.put(&path, content).await.ok();
}

async fn try_page(user: &Client<'_>, space: &str, query: &str) -> Answer {
    user.get(&format!("v1/rooms/{space}/hierarchy?{query}")).await
}

fn names(page: &Value) -> Vec<String> {
    let rooms = page["rooms"].as_array().unwrap();
    rooms.iter().map(|room| room["name"].as_str().unwrap_or("-").to_owned()).collect()
}

/// The names of all pages, and how many there were.
async fn walk(user: &Client<'_>, space: &str, query: &str) -> (Vec<String>, usize) {
    let mut all = Vec::new();
    let mut from = String::new();
    for pages in 1..2_000 {
        let page = try_page(user, space, &format!("{query}{from}")).await.ok();
        assert!(page["rooms"].as_array().unwrap().len() <= 50);
        all.extend(names(&page));
        match page["next_batch"].as_str() {
            Some(token) => from = format!("&from={token}"),
            None => return (all, pages),
        }
    }
    panic!("the walk does not end");
}

#[tokio::test]
async fn rooms_come_depth_first_and_in_order() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let top = space(&alice, "top").await;
    let inner = space(&alice, "inner").await;
    let public = |name: &str| json!({ "preset": "public_chat", "name": name });
    let first = alice.create_room(public("first")).await;
    let second = alice.create_room(public("second")).await;
    let last = alice.create_room(public("last")).await;
    let hidden = alice.create_room(json!({ "name": "hidden" })).await;
    let removed = alice.create_room(public("removed")).await;
    add(&alice, &top, &last, json!({ "order": "\u{7f}" })).await;
    add(&alice, &top, &second, json!({ "order": "b", "suggested": true })).await;
    add(&alice, &top, &inner, json!({ "order": "a" })).await;
    add(&alice, &top, &removed, json!({ "via": null })).await;
    add(&alice, &top, &hidden, json!({ "order": " " })).await;
    add(&alice, &top, "!elsewhere:example.com", json!({})).await;
    add(&alice, &inner, &first, json!({})).await;
    let page = try_page(&bob, &top, "").await.ok();
    assert_eq!(names(&page), ["top", "inner", "first", "second", "last"]);
    assert_eq!(page.get("next_batch"), None);
    let children = page["rooms"][0]["children_state"].as_array().unwrap();
    assert_eq!(children.len(), 5, "hidden rooms are named by their space all the same");
    assert_eq!(children[0]["state_key"], json!(hidden));
    assert_eq!(children[0]["type"], json!("m.space.child"));
    assert!(children[0]["origin_server_ts"].is_u64());
    assert_eq!(page["rooms"][0]["room_type"], json!("m.space"));
    assert_eq!(page["rooms"][2]["children_state"], json!([]));
    assert_eq!(names(&try_page(&alice, &top, "").await.ok())[1], "hidden");
    let page = try_page(&bob, &top, "max_depth=1").await.ok();
    assert_eq!(names(&page), ["top", "inner", "second", "last"]);
    assert_eq!(names(&try_page(&bob, &top, "max_depth=0").await.ok()), ["top"]);
    let page = try_page(&bob, &top, "suggested_only=true").await.ok();
    assert_eq!(names(&page), ["top", "second"]);
    assert_eq!(page["rooms"][0]["children_state"].as_array().map(Vec::len), Some(1));
    let (all, pages) = walk(&bob, &top, "limit=2").await;
    assert_eq!((all.len(), pages), (5, 3));
    let old = format!("unstable/org.matrix.msc2946/rooms/{top}/hierarchy");
    assert_eq!(names(&bob.get(&old).await.ok()).len(), 5);
}

#[tokio::test]
async fn a_token_is_good_for_its_request_alone() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let top = space(&alice, "top").await;
    let room = alice.public_room().await;
    add(&alice, &top, &room, json!({})).await;
    let page = try_page(&alice, &top, "limit=1").await.ok();
    let token = text(&page["next_batch"]);
    for query in [
        format!("limit=1&max_depth=3&from={token}"),
        format!("limit=1&suggested_only=true&from={token}"),
        "from=x".to_owned(),
        "limit=0".to_owned(),
    ] {
        let answer = try_page(&alice, &top, &query).await;
        assert_eq!(answer.outcome(), (400, "M_INVALID_PARAM"), "{query}");
    }
    let query = format!("limit=1&from={token}");
    assert_eq!(try_page(&bob, &top, &query).await.outcome(), (400, "M_INVALID_PARAM"));
    // The same page may be asked for again.
    for _ in 0..2 {
        assert_eq!(try_page(&alice, &top, &query).await.ok()["rooms"][0]["room_id"], json!(room));
    }
}

#[tokio::test]
async fn t59_strangers_learn_nothing_of_a_private_space() {
    let server = TestServer::new().await;
    let (alice, eve) = (server.client("alice").await, server.client("eve").await);
    let wanted = json!({ "name": "secret", "creation_content": { "type": "m.space" } });
    let private = alice.create_room(wanted).await;
    let of_private = try_page(&eve, &private, "").await;
    let of_none = try_page(&eve, "!none:example.org", "").await;
    assert_eq!(of_private.outcome(), (403, "M_FORBIDDEN"));
    assert_eq!((of_private.status, of_private.body), (of_none.status, of_none.body));
    alice.invite(&private, &eve).await;
    assert_eq!(names(&try_page(&eve, &private, "").await.ok()), ["secret"]);
    alice.act_on(&private, "ban", &eve).await.ok();
    assert_eq!(try_page(&eve, &private, "").await.outcome(), (403, "M_FORBIDDEN"));
}

#[tokio::test]
async fn restricted_rooms_are_shown_to_those_they_admit() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let top = space(&alice, "top").await;
    let rule = json!({
        "join_rule": "restricted",
        "allow": [{ "type": "m.room_membership", "room_id": top }],
    });
    let wanted = json!({
        "name": "inside",
        "initial_state": [{ "type": "m.room.join_rules", "content": rule }],
    });
    let inside = alice.create_room(wanted).await;
    let knock = json!({ "join_rule": "knock" });
    let wanted = json!({
        "name": "knock",
        "initial_state": [{ "type": "m.room.join_rules", "content": knock }],
    });
    let knock = alice.create_room(wanted).await;
    add(&alice, &top, &inside, json!({ "order": "a" })).await;
    add(&alice, &top, &knock, json!({ "order": "b" })).await;
    assert_eq!(names(&try_page(&bob, &top, "").await.ok()), ["top", "knock"]);
    assert_eq!(bob.act(&inside, "join").await.outcome(), (403, "M_FORBIDDEN"));
    bob.join(&top).await;
    let page = try_page(&bob, &top, "").await.ok();
    assert_eq!(names(&page), ["top", "inside", "knock"]);
    assert_eq!(page["rooms"][1]["join_rule"], json!("restricted"));
    assert_eq!(page["rooms"][1]["allowed_room_ids"], json!([top]));
    bob.join(&inside).await;
}

#[tokio::test]
async fn t95_circles_and_long_chains_end() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let one = space(&alice, "one").await;
    let two = space(&alice, "two").await;
    add(&alice, &one, &one, json!({})).await;
    add(&alice, &one, &two, json!({})).await;
    add(&alice, &two, &one, json!({})).await;
    assert_eq!(walk(&alice, &one, "").await.0, ["one", "two"]);
    let mut before = space(&alice, "chain").await;
    let top = before.clone();
    for _ in 0..30 {
        let next = space(&alice, "chain").await;
        add(&alice, &before, &next, json!({})).await;
        before = next;
    }
    assert_eq!(walk(&alice, &top, "max_depth=1000").await.0.len(), 17);
}

#[tokio::test]
async fn t95_a_space_of_very_many_rooms_has_pages() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let top = space(&alice, "top").await;
    let rooms = 120;
    for _ in 0..rooms {
        server.pass(1);
        let room = alice.public_room().await;
        add(&alice, &top, &room, json!({})).await;
    }
    // Most children of the largest spaces are not known here.
    for number in 0..1_000 {
        add(&alice, &top, &format!("!{number}:example.com"), json!({})).await;
    }
    let (all, pages) = walk(&alice, &top, "limit=1000").await;
    assert_eq!(all.len(), rooms + 1);
    assert!(pages <= 5, "{pages} pages");
}

//! The directory of rooms: what it shows, in which order, page by page.

use serde_json::{Value, json};

use crate::harness::{Client, TestServer, text};

async fn listed(user: &Client<'_>, wanted: Value) -> Value {
    user.post("v3/publicRooms", wanted).await.ok()
}

fn names(page: &Value) -> Vec<String> {
    page["chunk"].as_array().unwrap().iter().map(|room| text(&room["name"])).collect()
}

async fn publish(user: &Client<'_>, name: &str, more: Value) -> String {
    let mut wanted = json!({ "preset": "public_chat", "visibility": "public", "name": name });
    let Value::Object(more) = more else { panic!("{more} is no object") };
    wanted.as_object_mut().unwrap().extend(more);
    user.create_room(wanted).await
}

#[tokio::test]
async fn an_entry_says_what_the_room_is() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let readable = json!({ "history_visibility": "world_readable" });
    let more = json!({
        "room_alias_name": "cheese",
        "topic": "Tasty",
        "initial_state": [
            { "type": "m.room.history_visibility", "content": readable },
            { "type": "m.room.guest_access", "content": { "guest_access": "can_join" } },
            { "type": "m.room.avatar", "content": { "url": "mxc://a/b" } },
            { "type": "m.room.join_rules", "content": { "join_rule": "knock" } },
        ],
    });
    let room = publish(&alice, "Cheese", more).await;
    alice.create_room(json!({ "preset": "public_chat", "name": "not listed" })).await;
    let expected = |members: u32, name: &str| {
        json!({
            "chunk": [{
                "room_id": room, "name": name, "topic": "Tasty", "avatar_url": "mxc://a/b",
                "canonical_alias": "#cheese:example.org", "num_joined_members": members,
                "world_readable": true, "guest_can_join": true, "join_rule": "knock",
            }],
            "total_room_count_estimate": 1,
        })
    };
    assert_eq!(bob.get("v3/publicRooms").await.ok(), expected(1, "Cheese"));
    alice.invite(&room, &bob).await;
    bob.join(&room).await;
    let name = alice.set(&room, "m.room.name", json!({ "name": "Brie" })).await;
    assert_eq!(bob.get("v3/publicRooms?server=example.org").await.ok(), expected(2, "Brie"));
    // A redacted name is not remembered.
    alice.try_redact(&room, &name).await.ok();
    let page = listed(&bob, json!({})).await;
    assert!(page["chunk"][0].get("name").is_none(), "{page}");
    let path = format!("v3/directory/list/room/{room}");
    alice.put(&path, json!({ "visibility": "private" })).await.ok();
    let page = bob.get("v3/publicRooms").await.ok();
    assert_eq!(page, json!({ "chunk": [], "total_room_count_estimate": 0 }));
}

#[tokio::test]
async fn filters_find_words_and_types() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let tea = publish(&alice, "Tea", json!({ "topic": "Green and black" })).await;
    bob.join(&tea).await;
    publish(&alice, "Coffee", json!({ "room_alias_name": "black-gold" })).await;
    let space = json!({ "creation_content": { "type": "m.space" } });
    publish(&alice, "Drinks", space).await;
    let term = |term: &str| json!({ "filter": { "generic_search_term": term } });
    assert_eq!(names(&listed(&bob, term("TEA")).await), ["Tea"]);
    assert_eq!(names(&listed(&bob, term("BLACK")).await), ["Tea", "Coffee"]);
    assert_eq!(names(&listed(&bob, term("milk")).await), Vec::<String>::new());
    assert_eq!(listed(&bob, term("black")).await["total_room_count_estimate"], json!(2));
    let types = |types: Value| json!({ "filter": { "room_types": types } });
    assert_eq!(names(&listed(&bob, types(json!(["m.space"]))).await), ["Drinks"]);
    assert_eq!(names(&listed(&bob, types(json!([null]))).await), ["Tea", "Coffee"]);
    assert_eq!(names(&listed(&bob, types(json!([null, "m.space"]))).await).len(), 3);
    let all = listed(&bob, json!({ "include_all_networks": true })).await;
    assert_eq!(names(&all).len(), 3);
    let other = listed(&bob, json!({ "third_party_instance_id": "irc" })).await;
    assert_eq!(names(&other), Vec::<String>::new());
}

#[tokio::test]
async fn pages_go_forward_and_back() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let mut others = Vec::new();
    for number in 0..5 {
        others.push(server.client(&format!("user{number}")).await);
    }
    for size in 0..5 {
        let room = publish(&alice, &format!("room {size}"), json!({})).await;
        for other in &others[..size] {
            other.join(&room).await;
        }
    }
    let first = listed(&alice, json!({ "limit": 2 })).await;
    assert_eq!(names(&first), ["room 4", "room 3"]);
    assert!(first.get("prev_batch").is_none());
    let since = first["next_batch"].clone();
    let second = listed(&alice, json!({ "limit": 2, "since": since })).await;
    assert_eq!(names(&second), ["room 2", "room 1"]);
    let path = format!("v3/publicRooms?limit=2&since={}", text(&second["next_batch"]));
    let third = alice.get(&path).await.ok();
    assert_eq!(names(&third), ["room 0"]);
    assert!(third.get("next_batch").is_none());
    assert_eq!(third["total_room_count_estimate"], json!(5));
    let since = second["prev_batch"].clone();
    let back = listed(&alice, json!({ "limit": 2, "since": since })).await;
    assert_eq!((names(&back), back.get("prev_batch")), (names(&first), None));
    assert_eq!(names(&listed(&alice, json!({ "limit": 0 })).await).len(), 5);
    assert_eq!(names(&listed(&alice, json!({ "limit": 1_000_000 })).await).len(), 5);
}

#[tokio::test]
async fn t89_what_cannot_be_answered_is_refused() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    for (path, outcome) in [
        ("v3/publicRooms?server=other.org", (404, "M_NOT_FOUND")),
        ("v3/publicRooms?since=x", (400, "M_INVALID_PARAM")),
        ("v3/publicRooms?since=n1_", (400, "M_INVALID_PARAM")),
    ] {
        assert_eq!(alice.get(path).await.outcome(), outcome, "{path}");
    }
    let body = json!({ "filter": { "generic_search_term": "x".repeat(513) } });
    let answer = alice.post("v3/publicRooms", body).await;
    assert_eq!(answer.outcome(), (400, "M_INVALID_PARAM"));
    let answer = server.get("v3/publicRooms").send().await;
    assert_eq!(answer.outcome(), (401, "M_MISSING_TOKEN"));
    let open = TestServer::with(|config| config.rooms.directory_without_login = true).await;
    open.get("v3/publicRooms").send().await.ok();
    let answer = open.post("v3/publicRooms", json!({})).send().await;
    assert_eq!(answer.outcome(), (401, "M_MISSING_TOKEN"));
}

#[tokio::test]
async fn who_may_not_change_a_room_does_not_list_it() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    let public = json!({ "visibility": "public" });
    let path = format!("v3/directory/list/room/{room}");
    assert_eq!(bob.put(&path, public.clone()).await.outcome(), (403, "M_FORBIDDEN"));
    assert_eq!(alice.get(&path).await.ok()["visibility"], "private");
    alice.put(&path, public.clone()).await.ok();
    assert_eq!(bob.get(&path).await.ok()["visibility"], "public");
    let unknown = "v3/directory/list/room/!none:example.org";
    assert_eq!(alice.put(unknown, public).await.outcome(), (404, "M_NOT_FOUND"));
    assert_eq!(alice.get(unknown).await.outcome(), (404, "M_NOT_FOUND"));
    let odd = json!({ "visibility": "odd" });
    assert_eq!(alice.put(&path, odd).await.outcome(), (400, "M_INVALID_PARAM"));
}

//! `GET /sync` and what is told with it: typing, receipts, read markers.

use serde_json::{Value, json};
use url::form_urlencoded::byte_serialize;

use crate::harness::{Answer, TestServer, TestUser};

async fn sync(server: &TestServer, user: &TestUser, query: &str) -> Answer {
    server.get(&format!("v3/sync?{query}")).token(&user.token).send().await
}

async fn room(server: &TestServer, user: &TestUser) -> String {
    let body = json!({ "preset": "public_chat" });
    let created = server.post("v3/createRoom", body).token(&user.token).send().await.ok();
    created["room_id"].as_str().unwrap().to_owned()
}

async fn join(server: &TestServer, user: &TestUser, room: &str) {
    let path = format!("v3/join/{}", encode(room));
    server.post(&path, json!({})).token(&user.token).send().await.ok();
}

async fn say(server: &TestServer, user: &TestUser, room: &str, body: &str) -> String {
    let path = format!("v3/rooms/{}/send/m.room.message/{body}", encode(room));
    let content = json!({ "msgtype": "m.text", "body": body });
    let sent = server.put(&path, content).token(&user.token).send().await.ok();
    sent["event_id"].as_str().unwrap().to_owned()
}

async fn post(server: &TestServer, user: &TestUser, path: &str, body: Value) -> Answer {
    server.post(path, body).token(&user.token).send().await
}

fn encode(text: &str) -> String {
    byte_serialize(text.as_bytes()).collect()
}

fn token(answer: &Value) -> String {
    answer["next_batch"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_message_is_told_to_its_device_with_its_transaction() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = room(&server, &alice).await;
    join(&server, &bob, &room).await;
    let since = token(&sync(&server, &alice, "").await.ok());
    say(&server, &alice, &room, "hi").await;
    let mine = sync(&server, &alice, &format!("since={since}&timeout=30000")).await.ok();
    let event = &mine["rooms"]["join"][&room]["timeline"]["events"][0];
    assert_eq!(event["content"]["body"], "hi");
    assert_eq!(event["unsigned"]["transaction_id"], "hi");
    let other = sync(&server, &bob, &format!("since={since}")).await.ok();
    let event = &other["rooms"]["join"][&room]["timeline"]["events"][0];
    assert_eq!(event["content"]["body"], "hi");
    assert!(event["unsigned"].get("transaction_id").is_none());
}

#[tokio::test]
async fn t89_what_cannot_be_is_refused() {
    let server = TestServer::new().await;
    let alice = server.register("alice").await;
    room(&server, &alice).await;
    for query in [
        "since=x",
        "since=s1_2_3",
        "timeout=x",
        "timeout=-1",
        "full_state=x",
        "filter=77",
        "filter=%7Bx",
        "filter=%7B%22room%22%3A1%7D",
    ] {
        let answer = sync(&server, &alice, query).await;
        assert_eq!(answer.outcome(), (400, "M_INVALID_PARAM"), "{query}");
    }
    for since in ["sffffff_1", "s0_99999999"] {
        let whole = sync(&server, &alice, &format!("since={since}&timeout=30000")).await.ok();
        assert_eq!(whole["rooms"]["join"].as_object().unwrap().len(), 1, "{since}");
    }
    assert_eq!(server.get("v3/sync").send().await.outcome(), (401, "M_MISSING_TOKEN"));
}

#[tokio::test]
async fn a_filter_is_an_id_or_json() {
    let server = TestServer::new().await;
    let alice = server.register("alice").await;
    let room = room(&server, &alice).await;
    let filter = json!({ "room": { "timeline": { "limit": 1 } } });
    let path = format!("v3/user/{}/filter", alice.user_id);
    let stored = post(&server, &alice, &path, filter.clone()).await.ok();
    let id = stored["filter_id"].as_str().unwrap();
    for filter in [id.to_owned(), encode(&filter.to_string())] {
        let query = format!("filter={filter}&org.matrix.msc4222.use_state_after=true");
        let answer = sync(&server, &alice, &query).await.ok();
        let told = &answer["rooms"]["join"][&room];
        assert_eq!(told["timeline"]["events"].as_array().unwrap().len(), 1);
        assert!(told["org.matrix.msc4222.state_after"]["events"].is_array());
    }
}

#[tokio::test]
async fn t62_receipts_and_typing_are_for_members() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let (room, other) = (room(&server, &alice).await, room(&server, &alice).await);
    let event = say(&server, &alice, &room, "hi").await;
    let foreign = say(&server, &alice, &other, "hi").await;
    let in_room = |path: &str| format!("v3/rooms/{}/{path}", encode(&room));
    let receipt = in_room(&format!("receipt/m.read/{event}"));
    let answer = post(&server, &bob, &receipt, json!({})).await;
    assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"));
    let typing = json!({ "typing": true, "timeout": 1_000_000 });
    let path = in_room(&format!("typing/{}", bob.user_id));
    let answer = server.put(&path, typing.clone()).token(&bob.token).send().await;
    assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"));
    let answer = server.put(&path, typing.clone()).token(&alice.token).send().await;
    assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"));
    let path = in_room(&format!("receipt/m.read/{foreign}"));
    let answer = post(&server, &alice, &path, json!({})).await;
    assert_eq!(answer.outcome(), (404, "M_NOT_FOUND"));
    for (kind, body) in [
        ("m.read", json!({ "thread_id": "" })),
        ("m.read", json!({ "thread_id": "x" })),
        ("m.fully_read", json!({ "thread_id": "main" })),
        ("m.unknown", json!({})),
    ] {
        let path = in_room(&format!("receipt/{kind}/{event}"));
        let answer = post(&server, &alice, &path, body).await;
        assert_eq!(answer.outcome(), (400, "M_INVALID_PARAM"), "{kind}");
    }
}

#[tokio::test]
async fn read_markers_are_told_and_move_forward_only() {
    let server = TestServer::new().await;
    let alice = server.register("alice").await;
    let room = room(&server, &alice).await;
    let one = say(&server, &alice, &room, "one").await;
    let two = say(&server, &alice, &room, "two").await;
    let mut since = token(&sync(&server, &alice, "").await.ok());
    let path = format!("v3/rooms/{}/read_markers", encode(&room));
    for (event, is_news) in [(&two, true), (&one, false)] {
        let body = json!({ "m.fully_read": event, "m.read": event, "m.read.private": event });
        post(&server, &alice, &path, body).await.ok();
        let answer = sync(&server, &alice, &format!("since={since}")).await.ok();
        let told = &answer["rooms"]["join"][&room];
        assert_eq!(told.is_object(), is_news, "{event}");
        if is_news {
            let marker = json!([{ "type": "m.fully_read", "content": { "event_id": two } }]);
            assert_eq!(told["account_data"]["events"], marker);
            let receipts = &told["ephemeral"]["events"][0]["content"][&two];
            assert!(receipts["m.read"][alice.user_id.as_str()]["ts"].is_number());
            assert!(receipts["m.read.private"][alice.user_id.as_str()]["ts"].is_number());
        }
        since = token(&answer);
    }
}

//! Long polls, and what is told but not kept.

use ruma::{api::client::sync::sync_events::v5, events::receipt::ReceiptThread};

use super::*;
use crate::{
    ephemeral::{NewReceipt, Thread, reading::readable_place},
    storage::schema::ephemeral::ReceiptKind,
    sync::sliding::Caller,
    users::Selection,
};

pub(super) const LONG: How = How {
    filter: Value::Null,
    timeout_ms: 30_000,
    full_state: false,
    state_form: StateForm::Before,
};

#[tokio::test]
async fn a_sync_without_news_reads_nothing() {
    let server = Server::new();
    let alice = server.client("alice").await;
    for _ in 0..5 {
        let room = server.room(&alice, Preset::Public).await;
        server.say(&room, &alice, "hi").await;
    }
    let first = server.sync(&alice, None).await;
    let before = server.store.counters();
    let answer = server.sync(&alice, Some(&token(&first))).await;
    let how = How { timeout_ms: 20, ..How::default() };
    let answer = server.sync_how(&alice, Some(&token(&answer)), how).await;
    let after = server.store.counters();
    assert!(is_empty(&answer));
    assert_eq!((after.gets, after.seeks), (before.gets, before.seeks));
}

/// Thousands wait at once: see the doc of [`Sync::v3`].
#[tokio::test]
async fn what_waits_is_small() {
    let server = Server::new();
    let alice = server.client("alice").await;
    let request = alice.request(None, How::default());
    assert!(size_of_val(&server.sync.v3(Box::new(request))) <= 1_280);
    let caller = Caller {
        user_id: alice.user_id.clone(),
        device_id: alice.device_id.clone(),
        session: alice.session,
    };
    assert!(size_of_val(&server.sync.sliding(caller, Box::new(v5::Request::new()))) <= 1_152);
}

#[tokio::test]
async fn a_sync_after_an_answer_sees_what_was_answered() {
    let server = Server::new();
    let alice = server.client("alice").await;
    let room = server.room(&alice, Preset::Public).await;
    let mut since = token(&server.sync(&alice, None).await);
    for number in 0..50 {
        let body = number.to_string();
        server.say(&room, &alice, &body).await;
        let answer = server.sync(&alice, Some(&since)).await;
        assert_eq!(timeline(joined(&answer, &room.id)), [body]);
        since = token(&answer);
    }
}

#[tokio::test]
async fn a_poll_waits_for_news() {
    let server = Arc::new(Server::new());
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = server.room(&alice, Preset::Public).await;
    let other = server.room(&bob, Preset::Public).await;
    let first = server.sync(&alice, None).await;
    let (waiting, client) = (server.clone(), alice.clone());
    let poll =
        tokio::spawn(async move { waiting.sync_how(&client, Some(&token(&first)), LONG).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    server.say(&other, &bob, "not for alice").await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!poll.is_finished());
    server.say(&room, &alice, "hi").await;
    let answer = poll.await.unwrap();
    assert_eq!(timeline(joined(&answer, &room.id)), ["hi"]);
}

#[tokio::test]
async fn t67_a_poll_ends_with_its_session() {
    let server = Arc::new(Server::new());
    let (alice, other) = (server.client("alice").await, server.client("alice").await);
    let room = server.room(&alice, Preset::Public).await;
    let first = server.sync(&alice, None).await;
    let (waiting, client, since) = (server.clone(), alice.clone(), token(&first));
    let poll = tokio::spawn(async move { waiting.try_sync(&client, Some(&since), LONG).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    // Another session's end does not end it.

    let remove = async |device: &Client| {
        let selection = Selection::These(std::slice::from_ref(&device.device_id));
        server.users.devices().remove(&device.user_id, selection).await.unwrap();
    };
    remove(&other).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!poll.is_finished());
    remove(&alice).await;
    let error = tokio::time::timeout(Duration::from_secs(1), poll).await.unwrap().unwrap();
    assert_eq!(error.unwrap_err().errcode, "M_UNKNOWN_TOKEN");
    server.say(&room, &alice, "after").await;
    let error = server.try_sync(&alice, Some(&token(&first)), LONG).await.unwrap_err();
    assert_eq!(error.errcode, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn polls_end_when_the_server_stops() {
    let server = Arc::new(Server::new());
    let alice = server.client("alice").await;
    let first = server.sync(&alice, None).await;
    let (waiting, client) = (server.clone(), alice.clone());
    let poll =
        tokio::spawn(async move { waiting.sync_how(&client, Some(&token(&first)), LONG).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    server.sync.stop();
    assert!(is_empty(&poll.await.unwrap()));
}

#[tokio::test]
async fn typing_is_told_and_its_end() {
    let server = Server::new();
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = server.room(&alice, Preset::Public).await;
    server.join(&room, &bob).await;
    let first = server.sync(&alice, None).await;
    assert_eq!(joined(&first, &room.id)["ephemeral"]["events"], json!([]));
    server.typing.start(room.nid, &bob.user_id, Duration::from_millis(40)).await.unwrap();
    let second = server.sync(&alice, Some(&token(&first))).await;
    let typing = |users: Value| json!([{ "type": "m.typing", "content": { "user_ids": users } }]);
    let told = joined(&second, &room.id);
    assert_eq!(told["ephemeral"]["events"], typing(json!(["@bob:hs1"])));
    assert!(timeline(told).is_empty());
    let third = server.sync_how(&alice, Some(&token(&second)), LONG).await;
    assert_eq!(joined(&third, &room.id)["ephemeral"]["events"], typing(json!([])));
}

#[tokio::test]
async fn who_left_does_not_type() {
    let server = Server::new();
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = server.room(&alice, Preset::Public).await;
    server.join(&room, &bob).await;
    server.typing.start(room.nid, &bob.user_id, Duration::from_secs(30)).await.unwrap();
    let typing = json!([{ "type": "m.typing", "content": { "user_ids": ["@bob:hs1"] } }]);
    let told = server.sync(&alice, None).await;
    assert_eq!(joined(&told, &room.id)["ephemeral"]["events"], typing);
    server.leave(&room, &bob).await;
    let told = server.sync(&alice, None).await;
    assert_eq!(joined(&told, &room.id)["ephemeral"]["events"], json!([]));
}

async fn mark(
    server: &Server,
    room: &Room,
    client: &Client,
    kind: ReceiptKind,
    event: &ruma::EventId,
) {
    let thread = Thread::from_request(&ReceiptThread::Main).unwrap();
    let place =
        readable_place(&server.rooms, room, &client.user_id, (event, &thread)).await.unwrap();
    let (event_id, ts) = (event.to_owned(), server.rooms.clock().now());
    let receipt = NewReceipt { kind, thread, event_id, place, ts };
    server.receipts.set(room.nid, &client.user_id, vec![receipt]).await.unwrap();
}

#[tokio::test]
async fn private_receipts_are_told_to_their_owner_alone() {
    let server = Server::new();
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = server.room(&alice, Preset::Public).await;
    server.join(&room, &bob).await;
    let event = server.say(&room, &alice, "hi").await;
    let (for_alice, for_bob) = (server.sync(&alice, None).await, server.sync(&bob, None).await);
    let counts = &joined(&for_bob, &room.id)["unread_notifications"];
    assert_eq!(counts["notification_count"], 1);
    mark(&server, &room, &bob, ReceiptKind::ReadPrivate, &event).await;
    let for_alice = server.sync(&alice, Some(&token(&for_alice))).await;
    assert!(is_empty(&for_alice), "{for_alice}");
    let for_bob = server.sync(&bob, Some(&token(&for_bob))).await;
    let told = joined(&for_bob, &room.id);
    let receipt = json!({ "ts": 1_700_000_000, "thread_id": "main" });
    let content = json!({ event.as_str(): { "m.read.private": { "@bob:hs1": receipt } } });
    assert_eq!(told["ephemeral"]["events"], json!([{ "type": "m.receipt", "content": content }]));
    assert_eq!(told["unread_notifications"]["notification_count"], 0);

    mark(&server, &room, &bob, ReceiptKind::Read, &event).await;
    let for_alice = server.sync(&alice, Some(&token(&for_alice))).await;
    let content = json!({ event.as_str(): { "m.read": { "@bob:hs1": receipt } } });
    let told = joined(&for_alice, &room.id);
    assert_eq!(told["ephemeral"]["events"], json!([{ "type": "m.receipt", "content": content }]));
    let whole = server.sync(&alice, None).await;
    assert!(!whole.to_string().contains("m.read.private"));
}

#[tokio::test]
async fn t62_what_is_not_seen_cannot_be_marked() {
    let server = Server::new();
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let (room, other) =
        (server.room(&alice, Preset::Private).await, server.room(&alice, Preset::Public).await);
    let foreign = server.say(&other, &alice, "elsewhere").await;
    server.join(&other, &bob).await;
    let error = crate::ephemeral::reading::joined_room(&server.rooms, &room.id, &bob.user_id)
        .await
        .unwrap_err();
    assert_eq!(error.errcode, "M_FORBIDDEN");
    let thread = Thread::none();
    let error = readable_place(&server.rooms, &room, &alice.user_id, (&foreign, &thread))
        .await
        .unwrap_err();
    assert_eq!(error.errcode, "M_NOT_FOUND");
    let content = json!({ "history_visibility": "joined" });
    server.send(&room, &alice, ("m.room.history_visibility", Some("")), content).await;
    let hidden = server.say(&room, &alice, "before bob").await;
    server.invite(&room, &alice, &bob).await;
    server.join(&room, &bob).await;
    let error =
        readable_place(&server.rooms, &room, &bob.user_id, (&hidden, &thread)).await.unwrap_err();
    assert_eq!(error.errcode, "M_NOT_FOUND");
    let thread = Thread::from_request(&ReceiptThread::Thread(foreign)).unwrap();
    let seen = server.say(&room, &alice, "after bob").await;
    let error =
        readable_place(&server.rooms, &room, &bob.user_id, (&seen, &thread)).await.unwrap_err();
    assert_eq!(error.errcode, "M_INVALID_PARAM");
}

#[tokio::test]
async fn account_data_is_told_where_it_belongs() {
    let server = Server::new();
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = server.room(&alice, Preset::Public).await;
    server.join(&room, &bob).await;
    let first = server.sync(&alice, None).await;
    let data = server.users.account_data();
    let content = to_raw_value(&json!({ "x": 1 })).unwrap();
    data.set(&alice.user_id, None, "org.example.global", &content).await.unwrap();
    data.set(&alice.user_id, Some(&room.id), "m.tag", &content).await.unwrap();
    let second = server.sync(&alice, Some(&token(&first))).await;
    let event = |kind: &str| json!([{ "type": kind, "content": { "x": 1 } }]);
    assert_eq!(second["account_data"]["events"], event("org.example.global"));
    assert_eq!(joined(&second, &room.id)["account_data"]["events"], event("m.tag"));
    assert!(is_empty(&server.sync(&alice, Some(&token(&second))).await));
    // Messages of those who are ignored are left out.
    let ignored = to_raw_value(&json!({ "ignored_users": { "@bob:hs1": {} } })).unwrap();
    data.set(&alice.user_id, None, "m.ignored_user_list", &ignored).await.unwrap();
    server.say(&room, &bob, "psst").await;
    server.say(&room, &alice, "hi").await;
    let third = server.sync(&alice, Some(&token(&second))).await;
    assert_eq!(timeline(joined(&third, &room.id)), ["hi"]);
}

//! Memberships: what is told of rooms that are joined, invited to, left.

use super::*;

#[tokio::test]
async fn a_room_is_told_whole_and_then_what_is_new() {
    let server = Server::new();
    let alice = server.client("alice").await;
    let room = server.room(&alice, Preset::Public).await;
    server.say(&room, &alice, "one").await;
    let first = server.sync_how(&alice, None, limit(2)).await;
    let told = joined(&first, &room.id);
    assert_eq!(timeline(told).last().unwrap(), "one");
    assert_eq!(told["timeline"]["limited"], true);
    assert!(state(told, "state").contains(&"m.room.create".to_owned()));
    assert_eq!(told["summary"]["m.joined_member_count"], 1);
    assert_eq!(first["account_data"]["events"][0]["type"], "m.push_rules");
    assert!(told["timeline"]["events"][0].get("room_id").is_none());

    let quiet = server.sync(&alice, Some(&token(&first))).await;
    assert!(is_empty(&quiet), "{quiet}");
    server.say(&room, &alice, "two").await;
    let second = server.sync(&alice, Some(&token(&quiet))).await;
    let told = joined(&second, &room.id);
    assert_eq!(timeline(told), ["two"]);
    assert_eq!(told["timeline"]["limited"], false);
    assert_eq!(told["state"]["events"], json!([]));
    assert!(is_empty(&server.sync(&alice, Some(&token(&second))).await));
}

#[tokio::test]
async fn an_invite_becomes_a_join() {
    let server = Server::new();
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = server.room(&alice, Preset::Private).await;
    let before = server.sync(&bob, None).await;
    assert!(before.get("rooms").is_none());
    server.invite(&room, &alice, &bob).await;
    let invited = server.sync(&bob, Some(&token(&before))).await;
    let invite = &invited["rooms"]["invite"][room.id.as_str()]["invite_state"]["events"];
    let told = names(invite.as_array().unwrap());
    assert!(told.contains(&"m.room.create".to_owned()), "{told:?}");
    assert!(told.contains(&"m.room.member @bob:hs1".to_owned()), "{told:?}");
    assert!(is_empty(&server.sync(&bob, Some(&token(&invited))).await));
    server.say(&room, &alice, "not for bob yet").await;
    assert!(is_empty(&server.sync(&bob, Some(&token(&invited))).await));

    server.join(&room, &bob).await;
    let answer = server.sync(&bob, Some(&token(&invited))).await;
    let told = joined(&answer, &room.id);
    assert!(answer["rooms"].get("invite").is_none());
    assert_eq!(timeline(told).last().unwrap(), "m.room.member @bob:hs1");
    assert_eq!(told["summary"]["m.joined_member_count"], 2);
    // It is told whole: what is not in the timeline is in the state.
    let all = [timeline(told), state(told, "state")].concat();
    for event in ["m.room.create", "m.room.power_levels", "m.room.member @alice:hs1"] {
        assert!(all.contains(&event.to_owned()), "{event} {all:?}");
    }
}

#[tokio::test]
async fn another_name_is_no_new_join() {
    let server = Server::new();
    let alice = server.client("alice").await;
    let room = server.room(&alice, Preset::Public).await;
    server.say(&room, &alice, "one").await;
    let first = server.sync(&alice, None).await;
    let content = json!({ "membership": "join", "displayname": "Al" });
    server.send(&room, &alice, ("m.room.member", Some("@alice:hs1")), content).await;
    let second = server.sync(&alice, Some(&token(&first))).await;
    let told = joined(&second, &room.id);
    assert_eq!(timeline(told), ["m.room.member @alice:hs1"]);
    assert_eq!(
        (&told["timeline"]["limited"], &told["state"]["events"]),
        (&json!(false), &json!([]))
    );
}

#[tokio::test]
async fn t57_nothing_after_the_leave() {
    let server = Server::new();
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    for banned in [false, true] {
        let room = server.room(&alice, Preset::Public).await;
        server.join(&room, &bob).await;
        let first = server.sync(&bob, None).await;
        server.say(&room, &alice, "before").await;
        if banned {
            server.rooms.ban(&room, alice.change(&bob)).await.unwrap();
        } else {
            server.leave(&room, &bob).await;
        }
        server.say(&room, &alice, "after").await;
        let topic = json!({ "topic": "secret" });
        server.send(&room, &alice, ("m.room.topic", Some("")), topic).await;
        server.typing.start(room.nid, &alice.user_id, Duration::from_secs(9)).await.unwrap();
        for form in [StateForm::Before, StateForm::After] {
            let how = How { state_form: form, ..How::default() };
            let answer = server.sync_how(&bob, Some(&token(&first)), how).await;
            let left = &answer["rooms"]["leave"][room.id.as_str()];
            assert_eq!(timeline(left), ["before", "m.room.member @bob:hs1"], "{answer}");
            assert!(joined(&answer, &room.id).is_null());
            assert!(!answer.to_string().contains("secret"));
            assert!(is_empty(&server.sync(&bob, Some(&token(&answer))).await));
        }
    }
}

#[tokio::test]
async fn t57_a_leave_ends_a_long_poll() {
    let server = Arc::new(Server::new());
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = server.room(&alice, Preset::Public).await;
    server.join(&room, &bob).await;
    let first = server.sync(&bob, None).await;
    let (waiting, client) = (server.clone(), bob.clone());
    let poll = tokio::spawn(async move {
        let how = How { timeout_ms: 30_000, ..How::default() };
        waiting.sync_how(&client, Some(&token(&first)), how).await
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    server.rooms.kick(&room, alice.change(&bob)).await.unwrap();
    let answer = poll.await.unwrap();
    let left = &answer["rooms"]["leave"][room.id.as_str()];
    assert_eq!(timeline(left), ["m.room.member @bob:hs1"]);
    server.say(&room, &alice, "after").await;
    assert!(is_empty(&server.sync(&bob, Some(&token(&answer))).await));
}

#[tokio::test]
async fn a_refused_invite_tells_nothing_of_the_room() {
    let server = Server::new();
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = server.room(&alice, Preset::Private).await;
    server.invite(&room, &alice, &bob).await;
    let first = server.sync(&bob, None).await;
    server.say(&room, &alice, "secret").await;
    server.leave(&room, &bob).await;
    let answer = server.sync(&bob, Some(&token(&first))).await;
    let left = &answer["rooms"]["leave"][room.id.as_str()];
    assert_eq!(timeline(left), ["m.room.member @bob:hs1"]);
    assert_eq!(left["state"]["events"], json!([]));
}

#[tokio::test]
async fn joined_and_left_between_two_syncs() {
    let server = Server::new();
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = server.room(&alice, Preset::Public).await;
    let first = server.sync(&bob, None).await;
    server.join(&room, &bob).await;
    server.say(&room, &alice, "hi bob").await;
    server.leave(&room, &bob).await;
    server.say(&room, &alice, "after").await;
    let answer = server.sync(&bob, Some(&token(&first))).await;
    let left = &answer["rooms"]["leave"][room.id.as_str()];
    let told = timeline(left);
    assert_eq!(told[told.len() - 2..], ["hi bob", "m.room.member @bob:hs1"]);
    // Back again: whole.
    server.join(&room, &bob).await;
    let answer = server.sync_how(&bob, Some(&token(&answer)), limit(1)).await;
    let told = joined(&answer, &room.id);
    assert_eq!(timeline(told), ["m.room.member @bob:hs1"]);
    assert!(state(told, "state").contains(&"m.room.create".to_owned()));
    assert_eq!(told["timeline"]["limited"], true);
}

#[tokio::test]
async fn left_rooms_are_told_to_those_who_ask() {
    let server = Server::new();
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = server.room(&alice, Preset::Public).await;
    server.join(&room, &bob).await;
    let early = server.sync(&bob, None).await;
    server.leave(&room, &bob).await;
    assert!(server.sync(&bob, None).await.get("rooms").is_none());
    let how = How { filter: json!({ "room": { "include_leave": true } }), ..How::default() };
    let answer = server.sync_how(&bob, None, how.clone()).await;
    let left = &answer["rooms"]["leave"][room.id.as_str()];
    assert_eq!(timeline(left).last().unwrap(), "m.room.member @bob:hs1");
    // Forgotten: never again, but a device that does not know of the leave hears of it.
    server.rooms.forget(&room, &bob.user_id).await.unwrap();
    assert!(server.sync_how(&bob, None, how).await.get("rooms").is_none());
    let answer = server.sync(&bob, Some(&token(&early))).await;
    let left = &answer["rooms"]["leave"][room.id.as_str()];
    assert_eq!(timeline(left), ["m.room.member @bob:hs1"]);
}

#[tokio::test]
async fn rooms_can_be_filtered() {
    let server = Server::new();
    let alice = server.client("alice").await;
    let (one, two) =
        (server.room(&alice, Preset::Public).await, server.room(&alice, Preset::Public).await);
    let filter = json!({ "room": { "not_rooms": [one.id] } });
    let answer = server.sync_how(&alice, None, How { filter, ..How::default() }).await;
    assert!(joined(&answer, &one.id).is_null());
    assert!(!joined(&answer, &two.id).is_null());
    let filter = json!({ "room": { "timeline": { "types": ["m.room.message"] } } });
    let how = How { filter, ..How::default() };
    let answer = server.sync_how(&alice, None, how.clone()).await;
    assert_eq!(timeline(joined(&answer, &one.id)), [""; 0]);
    // State that the filter keeps out of the timeline is told as state.
    server.say(&one, &alice, "one").await;
    server.send(&one, &alice, ("m.room.topic", Some("")), json!({ "topic": "t" })).await;
    let answer = server.sync_how(&alice, Some(&token(&answer)), how).await;
    let told = joined(&answer, &one.id);
    assert_eq!(
        (timeline(told), state(told, "state")),
        (vec!["one".to_owned()], vec!["m.room.topic".to_owned()])
    );
}

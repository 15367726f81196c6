//! Timelines with gaps, and the state that goes with them.

use super::*;

#[tokio::test]
async fn a_gap_is_limited_and_brings_the_state_of_the_gap() {
    let server = Server::new();
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = server.room(&alice, Preset::Public).await;
    let first = server.sync(&alice, None).await;
    let topic = |text: &str| json!({ "topic": text });
    server.send(&room, &alice, ("m.room.topic", Some("")), topic("one")).await;
    server.join(&room, &bob).await;
    server.send(&room, &alice, ("m.room.topic", Some("")), topic("two")).await;
    for body in ["a", "b", "c"] {
        server.say(&room, &bob, body).await;
    }
    server.send(&room, &alice, ("m.room.name", Some("")), json!({ "name": "n" })).await;
    let answer = server.sync_how(&alice, Some(&token(&first)), limit(3)).await;
    let told = joined(&answer, &room.id);
    assert_eq!(timeline(told), ["b", "c", "m.room.name"]);
    assert_eq!(told["timeline"]["limited"], true);
    assert_eq!(state(told, "state"), ["m.room.member @bob:hs1", "m.room.topic"]);
    let topic =
        told["state"]["events"].as_array().unwrap().iter().find(|e| e["type"] == "m.room.topic");
    assert_eq!(topic.unwrap()["content"]["topic"], "two");
    assert_eq!(told["summary"]["m.joined_member_count"], 2);
    // What lies before goes on where the timeline began.
    let prev_batch = told["timeline"]["prev_batch"].as_str().unwrap();
    assert!(prev_batch.parse::<crate::rooms::timeline::PaginationToken>().is_ok());

    let how = How { state_form: StateForm::UnstableAfter, ..limit(3) };
    let answer = server.sync_how(&alice, Some(&token(&first)), how).await;
    let told = joined(&answer, &room.id);
    let after = state(told, "org.matrix.msc4222.state_after");
    assert_eq!(after, ["m.room.member @bob:hs1", "m.room.name", "m.room.topic"]);
    assert!(told.get("state").is_none() && told.get("state_after").is_none());
}

#[tokio::test]
async fn the_state_of_an_old_timeline_is_the_old_state() {
    let server = Server::new();
    let alice = server.client("alice").await;
    let room = server.room(&alice, Preset::Public).await;
    server.send(&room, &alice, ("m.room.topic", Some("")), json!({ "topic": "old" })).await;
    server.say(&room, &alice, "a").await;
    server.send(&room, &alice, ("m.room.topic", Some("")), json!({ "topic": "new" })).await;
    server.send(&room, &alice, ("m.room.name", Some("")), json!({ "name": "n" })).await;
    for how in [limit(3), How { full_state: true, ..limit(3) }] {
        let answer = server.sync_how(&alice, None, how).await;
        let told = joined(&answer, &room.id);
        assert_eq!(timeline(told), ["a", "m.room.topic", "m.room.name"]);
        let events = told["state"]["events"].as_array().unwrap();
        let topics: Vec<_> = events.iter().filter(|e| e["type"] == "m.room.topic").collect();
        assert_eq!(topics.len(), 1);
        assert_eq!(topics[0]["content"]["topic"], "old");
        assert!(!state(told, "state").contains(&"m.room.name".to_owned()));
    }
    let answer =
        server.sync_how(&alice, None, How { state_form: StateForm::After, ..limit(1) }).await;
    assert!(state(joined(&answer, &room.id), "state_after").contains(&"m.room.name".to_owned()));
}

#[tokio::test]
async fn a_full_state_can_be_asked_for_again() {
    let server = Server::new();
    let alice = server.client("alice").await;
    let room = server.room(&alice, Preset::Public).await;
    let first = server.sync(&alice, None).await;
    let how = How { full_state: true, timeout_ms: 30_000, ..How::default() };
    let answer = server.sync_how(&alice, Some(&token(&first)), how).await;
    let told = joined(&answer, &room.id);
    assert!(timeline(told).is_empty());
    let all = state(told, "state");
    for event in ["m.room.create", "m.room.member @alice:hs1", "m.room.power_levels"] {
        assert!(all.contains(&event.to_owned()), "{event}");
    }
}

#[tokio::test]
async fn members_are_told_when_they_matter() {
    let server = Server::new();
    let (alice, bob, carol) =
        (server.client("alice").await, server.client("bob").await, server.client("carol").await);
    let room = server.room(&alice, Preset::Public).await;
    server.join(&room, &bob).await;
    server.join(&room, &carol).await;
    server.send(&room, &alice, ("m.room.name", Some("")), json!({ "name": "n" })).await;
    server.say(&room, &bob, "one").await;
    let lazy_limit = |limit: u64| {
        let filter = json!({ "room": {
            "state": { "lazy_load_members": true }, "timeline": { "limit": limit } } });
        How { filter, ..How::default() }
    };
    let members = |room: &Value| {
        let names = state(room, "state");
        names.into_iter().filter(|name| name.starts_with("m.room.member")).collect::<Vec<_>>()
    };
    let first = server.sync_how(&alice, None, lazy_limit(1)).await;
    let told = joined(&first, &room.id);
    assert_eq!(members(told), ["m.room.member @alice:hs1", "m.room.member @bob:hs1"]);
    server.say(&room, &bob, "two").await;
    server.say(&room, &carol, "three").await;
    // Bob is known since the token came back, carol is not.
    for _ in 0..2 {
        let second = server.sync_how(&alice, Some(&token(&first)), lazy_limit(9)).await;
        assert_eq!(members(joined(&second, &room.id)), ["m.room.member @carol:hs1"]);
    }
    let mut repeat = lazy();
    repeat.filter["room"]["state"]["include_redundant_members"] = json!(true);
    let second = server.sync_how(&alice, Some(&token(&first)), repeat).await;
    let both = ["m.room.member @bob:hs1", "m.room.member @carol:hs1"];
    assert_eq!(members(joined(&second, &room.id)), both);
}

#[tokio::test]
async fn a_room_without_a_name_has_heroes() {
    let server = Server::new();
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = server.room(&alice, Preset::Private).await;
    let first = server.sync_how(&alice, None, lazy()).await;
    assert_eq!(joined(&first, &room.id)["summary"]["m.heroes"], json!([]));
    server.invite(&room, &alice, &bob).await;
    let second = server.sync_how(&alice, Some(&token(&first)), lazy()).await;
    let summary = &joined(&second, &room.id)["summary"];
    assert_eq!(summary["m.heroes"], json!(["@bob:hs1"]));
    assert_eq!(summary["m.invited_member_count"], 1);
}

#[tokio::test]
async fn t89_an_unknown_past_begins_anew() {
    let server = Server::new();
    let alice = server.client("alice").await;
    let room = server.room(&alice, Preset::Public).await;
    for since in ["sffff_1", "se_9999999"] {
        let answer = server.sync(&alice, Some(since)).await;
        let told = joined(&answer, &room.id);
        assert!(timeline(told).contains(&"m.room.create".to_owned()), "{since}");
    }
    let error = server.try_sync(&alice, Some("x"), How::default()).await.unwrap_err();
    assert_eq!(error.errcode, "M_INVALID_PARAM");
}

#[tokio::test]
async fn what_the_filter_hides_from_a_first_timeline_is_told_as_state() {
    let server = Server::new();
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let carol = server.client("carol").await;
    let room = server.room(&alice, Preset::Public).await;
    let name = |text: &str| json!({ "name": text });
    server.send(&room, &alice, ("m.room.name", Some("")), name("A")).await;
    server.say(&room, &alice, "a").await;
    server.send(&room, &alice, ("m.room.name", Some("")), name("B")).await;
    server.join(&room, &bob).await;
    server.join(&room, &carol).await;
    server.say(&room, &bob, "b").await;
    for (lazy, full_state) in [(false, false), (false, true), (true, false), (true, true)] {
        let filter = json!({ "room": {
            "timeline": { "types": ["m.room.message"] },
            "state": { "lazy_load_members": lazy },
        } });
        let answer =
            server.sync_how(&alice, None, How { filter, full_state, ..How::default() }).await;
        let told = joined(&answer, &room.id);
        assert_eq!(timeline(told), ["a", "b"]);
        let events = told["state"]["events"].as_array().unwrap();
        let names: Vec<_> = events.iter().filter(|e| e["type"] == "m.room.name").collect();
        assert_eq!(names.len(), 1);
        assert_eq!(names[0]["content"]["name"], "B");
        let members = state(told, "state");
        assert!(members.contains(&"m.room.member @bob:hs1".to_owned()));
    }
}

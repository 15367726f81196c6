//! `GET /sync` over HTTP: what is told, when, and how often.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Client, TestServer, encode, ids, text, texts};

fn joined<'a>(told: &'a Value, room: &str) -> &'a Value {
    &told["rooms"]["join"][room]
}

fn next(told: &Value) -> String {
    text(&told["next_batch"])
}

/// Waits a little, then does something, while another waits for it.
async fn soon<T>(then: impl Future<Output = T>) -> T {
    tokio::time::sleep(Duration::from_millis(50)).await;
    then.await
}

#[tokio::test]
async fn a_message_wakes_a_poll() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    let since = bob.now().await;
    let poll = bob.sync_with(Some(&since), "timeout=30000");
    let (told, event) = tokio::join!(poll, soon(alice.send(&room, "wake up")));
    assert_eq!(ids(&joined(&told, &room)["timeline"]["events"]), [event]);
    assert_eq!(joined(&told, &room)["timeline"]["limited"], json!(false));
    let told = bob.sync(Some(&next(&told))).await;
    assert!(told.get("rooms").is_none(), "{told}");
}

#[tokio::test]
async fn t57_whoever_leaves_during_a_poll_is_told_so_and_nothing_after() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    for verb in ["leave", "kick", "ban"] {
        bob.join(&room).await;
        let since = bob.now().await;
        let poll = bob.sync_with(Some(&since), "timeout=30000");
        let remove = async {
            match verb {
                "leave" => bob.leave(&room).await,
                _ => drop(alice.act_on(&room, verb, &bob).await.ok()),
            }
            alice.send(&room, "after").await;
        };
        let (told, ()) = tokio::join!(poll, soon(remove));
        let left = &told["rooms"]["leave"][&room];
        let events = left["timeline"]["events"].as_array().unwrap();
        let last = events.last().unwrap();
        let is = if verb == "ban" { "ban" } else { "leave" };
        assert_eq!(last["content"]["membership"], json!(is), "{verb}: {told}");
        assert_eq!(last["state_key"], json!(bob.id()));
        assert!(!told.to_string().contains("after"), "{verb}: {told}");
        alice.set(&room, "m.room.topic", json!({ "topic": "after" })).await;
        let again = bob.sync(Some(&next(&told))).await;
        assert!(again.get("rooms").is_none(), "{verb}: {again}");
        let again = bob.sync(Some(&since)).await;
        assert!(!again.to_string().contains("after"), "{verb}: {again}");
    }
}

#[tokio::test]
async fn typing_receipts_and_markers_are_told() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    let event = alice.send(&room, "hi").await;
    let since = alice.now().await;
    let typing = format!("v3/rooms/{room}/typing/{}", bob.id());
    bob.put(&typing, json!({ "typing": true, "timeout": 20_000 })).await.ok();
    let told = alice.sync(Some(&since)).await;
    let expected = json!([{ "type": "m.typing", "content": { "user_ids": [bob.id()] } }]);
    assert_eq!(joined(&told, &room)["ephemeral"]["events"], expected);
    bob.put(&typing, json!({ "typing": false })).await.ok();
    let told = alice.sync(Some(&next(&told))).await;
    let expected = json!([{ "type": "m.typing", "content": { "user_ids": [] } }]);
    assert_eq!(joined(&told, &room)["ephemeral"]["events"], expected);
    bob.post(&format!("v3/rooms/{room}/receipt/m.read/{event}"), json!({})).await.ok();
    let told = alice.sync(Some(&next(&told))).await;
    let receipts = &joined(&told, &room)["ephemeral"]["events"];
    assert!(receipts[0]["content"][&event]["m.read"][bob.id()]["ts"].is_u64(), "{told}");
    let (mine, theirs) = (bob.now().await, next(&told));
    let body = json!({ "m.fully_read": event, "m.read.private": event });
    bob.post(&format!("v3/rooms/{room}/read_markers"), body).await.ok();
    let told = bob.sync(Some(&mine)).await;
    let expected = json!([{ "type": "m.fully_read", "content": { "event_id": event } }]);
    assert_eq!(joined(&told, &room)["account_data"]["events"], expected);
    // What is private is nobody else's.
    assert!(alice.sync(Some(&theirs)).await.get("rooms").is_none());
}

#[tokio::test]
async fn tags_and_account_data_are_told_to_their_user_only() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    let (since, others) = (alice.now().await, bob.now().await);
    let user = format!("v3/user/{}", alice.id());
    alice.put(&format!("{user}/account_data/org.x"), json!({ "x": 1 })).await.ok();
    alice.put(&format!("{user}/rooms/{room}/account_data/org.y"), json!({ "y": 1 })).await.ok();
    alice.put(&format!("{user}/rooms/{room}/tags/u.work"), json!({ "order": 0.1 })).await.ok();
    let told = alice.sync(Some(&since)).await;
    let expected = json!([{ "type": "org.x", "content": { "x": 1 } }]);
    assert_eq!(told["account_data"]["events"], expected);
    let data = joined(&told, &room)["account_data"]["events"].as_array().unwrap();
    let tags = json!({ "type": "m.tag", "content": { "tags": { "u.work": { "order": 0.1 } } } });
    assert!(data.contains(&tags) && data.len() == 2, "{told}");
    assert!(joined(&told, &room)["timeline"]["events"].as_array().unwrap().is_empty());
    let told = bob.sync(Some(&others)).await;
    assert!(told.get("rooms").is_none() && told.get("account_data").is_none(), "{told}");
}

#[tokio::test]
async fn a_limited_timeline_goes_on_without_gap_or_double() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    let since = bob.now().await;
    let mut sent = Vec::new();
    for number in 0..30 {
        sent.push(alice.send(&room, &number.to_string()).await);
    }
    let filter = encode(r#"{"room":{"timeline":{"limit":5}}}"#);
    let told = bob.sync_with(Some(&since), &format!("filter={filter}")).await;
    let timeline = &joined(&told, &room)["timeline"];
    assert_eq!(timeline["limited"], json!(true));
    let mut seen = ids(&timeline["events"]);
    assert_eq!(seen, sent[25..]);
    let mut from = text(&timeline["prev_batch"]);
    while seen.len() < 30 {
        let query = format!("dir=b&limit=7&from={from}&to={since}");
        let page = bob.messages(&room, &query).await.ok();
        let mut older = ids(&page["chunk"]);
        older.reverse();
        older.extend(seen);
        seen = older;
        match page["end"].as_str() {
            Some(end) => from = end.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, sent);
}

fn members(state: &Value) -> Vec<String> {
    let events = state["events"].as_array().into_iter().flatten();
    let members = events.filter(|event| event["type"] == "m.room.member");
    let mut members: Vec<_> = members.map(|event| text(&event["state_key"])).collect();
    members.sort();
    members
}

#[tokio::test]
async fn lazy_loading_tells_the_members_who_spoke_and_each_once() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let (bob, carol) = (server.client("bob").await, server.client("carol").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    carol.join(&room).await;
    for _ in 0..2 {
        bob.send(&room, "hi").await;
    }
    let filter = |more: &str| {
        let filter = format!(
            r#"{{"room":{{"timeline":{{"limit":1}},"state":{{"lazy_load_members":true{more}}}}}}}"#
        );
        format!("filter={}", encode(&filter))
    };
    let told = alice.sync_with(None, &filter("")).await;
    let known = members(&joined(&told, &room)["state"]);
    assert!(known.contains(&bob.id().to_owned()), "{told}");
    let since = next(&told);
    bob.send(&room, "again").await;
    let once = alice.sync_with(Some(&since), &filter("")).await;
    assert_eq!(members(&joined(&once, &room)["state"]), Vec::<String>::new());
    let more = r#","include_redundant_members":true"#;
    let twice = alice.sync_with(Some(&since), &filter(more)).await;
    assert_eq!(members(&joined(&twice, &room)["state"]), [bob.id()]);
    let all = alice.sync(None).await;
    let timeline = &joined(&all, &room)["timeline"]["events"];
    assert!(timeline.as_array().unwrap().len() <= 10);
}

#[tokio::test]
async fn the_state_after_the_timeline_is_told_to_whoever_asks() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.create_room(json!({})).await;
    let since = alice.now().await;
    alice.set(&room, "m.room.topic", json!({ "topic": "new" })).await;
    for (query, field) in [
        ("use_state_after=true", "state_after"),
        ("org.matrix.msc4222.use_state_after=true", "org.matrix.msc4222.state_after"),
    ] {
        let told = alice.sync_with(Some(&since), query).await;
        let room = joined(&told, &room);
        assert!(room.get("state").is_none(), "{told}");
        let state = room[field]["events"].as_array().unwrap();
        assert_eq!(state.len(), 1);
        assert_eq!(state[0]["content"], json!({ "topic": "new" }));
        assert_eq!(room["timeline"]["events"].as_array().unwrap().len(), 1);
    }
    let told = alice.sync(Some(&since)).await;
    assert_eq!(joined(&told, &room)["state"]["events"], json!([]));
}

#[tokio::test]
async fn full_state_tells_all_of_it_again() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.create_room(json!({ "name": "x" })).await;
    let since = alice.now().await;
    let told = alice.sync_with(Some(&since), "full_state=true&timeout=30000").await;
    let state = joined(&told, &room)["state"]["events"].as_array().unwrap();
    assert!(state.len() >= 6, "{told}");
    let told = alice.sync(Some(&next(&told))).await;
    assert!(told.get("rooms").is_none());
}

#[tokio::test]
async fn rooms_that_were_left_are_told_to_whoever_asks() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    bob.send(&room, "bye").await;
    bob.leave(&room).await;
    alice.send(&room, "after").await;
    assert!(bob.sync(None).await.get("rooms").is_none());
    let filter = encode(r#"{"room":{"include_leave":true}}"#);
    let told = bob.sync_with(None, &format!("filter={filter}")).await;
    let left = &told["rooms"]["leave"][&room];
    assert_eq!(texts(&left["timeline"]["events"]), ["bye"]);
    let since = next(&told);
    let told = bob.sync_with(Some(&since), &format!("filter={filter}")).await;
    assert!(told.get("rooms").is_none(), "{told}");
}

/// What a client has gathered of a room, gaps filled by `/messages`.
struct Gathered<'a> {
    client: Client<'a>,
    since: Option<String>,
    events: Vec<String>,
}

impl Gathered<'_> {
    async fn follow(&mut self, room: &str) {
        let filter = encode(r#"{"room":{"timeline":{"limit":3}}}"#);
        let query = format!("filter={filter}");
        let told = self.client.sync_with(self.since.as_deref(), &query).await;
        for kind in ["join", "leave"] {
            let timeline = &told["rooms"][kind][room]["timeline"];
            let mut new = ids(&timeline["events"]);
            if timeline["limited"] == json!(true) {
                let from = text(&timeline["prev_batch"]);
                let mut older = self.older(room, from).await;
                older.append(&mut new);
                new = older;
            }
            self.events.extend(new);
        }
        self.since = Some(next(&told));
    }

    /// What lies between the last known event and the timeline.
    async fn older(&self, room: &str, mut from: String) -> Vec<String> {
        let mut older = Vec::new();
        loop {
            let query = format!("dir=b&limit=4&from={from}");
            let page = self.client.messages(room, &query).await.ok();
            for event in ids(&page["chunk"]) {
                if self.events.contains(&event) {
                    older.reverse();
                    return older;
                }
                older.push(event);
            }
            match page["end"].as_str() {
                Some(end) => end.clone_into(&mut from),
                None => break,
            }
        }
        older.reverse();
        older
    }
}

/// Numbers that look random and are the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

#[tokio::test]
async fn sync_and_pages_tell_the_same_history() {
    for seed in 0..6 {
        let server = TestServer::new().await;
        let mut dice = Dice(seed);
        let alice = server.client("alice").await;
        let room = alice.public_room().await;
        let mut all = vec![Gathered { client: alice, since: None, events: Vec::new() }];
        for name in ["bob", "carol"] {
            let client = server.client(name).await;
            all.push(Gathered { client, since: None, events: Vec::new() });
        }
        let mut is_in = [true, false, false];
        for step in 0..80 {
            let who = usize::try_from(dice.roll(3)).unwrap();
            match (dice.roll(8), is_in[who]) {
                (0, true) if who > 0 => {
                    all[who].client.leave(&room).await;
                    is_in[who] = false;
                }
                (0..=2, false) => {
                    all[who].client.join(&room).await;
                    is_in[who] = true;
                }
                (1 | 2, _) => all[who].follow(&room).await,
                (_, true) => drop(all[who].client.send(&room, &step.to_string()).await),
                _ => {}
            }
        }
        for (user, is_in) in all.iter_mut().zip(is_in) {
            if !is_in {
                user.client.join(&room).await;
            }
            user.follow(&room).await;
            let mut truth = Vec::new();
            let mut from = String::new();
            loop {
                let page = user.client.messages(&room, &format!("dir=f&limit=50{from}")).await;
                let page = page.ok();
                let chunk = ids(&page["chunk"]);
                if chunk.is_empty() {
                    break;
                }
                truth.extend(chunk);
                from = format!("&from={}", text(&page["end"]));
            }
            let mut once = user.events.clone();
            once.sort();
            once.dedup();
            assert_eq!(once.len(), user.events.len(), "seed {seed}: told twice");
            assert_eq!(user.events, truth, "seed {seed}, {}", user.client.id());
        }
    }
}

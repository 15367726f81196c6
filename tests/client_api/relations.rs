//! What relates to an event: listed, and told with it.

use serde_json::{Value, json};

use crate::harness::{Answer, Client, TestServer, encode, ids, text, texts};

/// Sends what relates to an event; answers its id.
async fn relate(
    user: &Client<'_>,
    room: &str,
    (kind, rel_type): (&str, &str),
    parent: &str,
    body: &str,
) -> String {
    let mut relation = json!({ "rel_type": rel_type, "event_id": parent });
    let mut content = json!({ "msgtype": "m.text", "body": body });
    match rel_type {
        "m.annotation" => {
            relation["key"] = json!(body);
            content = json!({});
        }
        "m.replace" => content["m.new_content"] = json!({ "msgtype": "m.text", "body": body }),
        _ => {}
    }
    content["m.relates_to"] = relation;
    text(&user.try_send(room, kind, content).await.ok()["event_id"])
}

async fn reply(user: &Client<'_>, room: &str, start: &str, body: &str) -> String {
    relate(user, room, ("m.room.message", "m.thread"), start, body).await
}

async fn edit(user: &Client<'_>, room: &str, original: &str, body: &str) -> String {
    relate(user, room, ("m.room.message", "m.replace"), original, body).await
}

async fn react(user: &Client<'_>, room: &str, event: &str, key: &str) -> String {
    relate(user, room, ("m.reaction", "m.annotation"), event, key).await
}

async fn refer(user: &Client<'_>, room: &str, event: &str) -> String {
    relate(user, room, ("org.vote", "m.reference"), event, "vote").await
}

fn path(room: &str, event: &str, rest: &str) -> String {
    format!("v1/rooms/{room}/relations/{}{rest}", encode(event))
}

async fn related(user: &Client<'_>, room: &str, event: &str, rest: &str) -> Value {
    user.get(&path(room, event, rest)).await.ok()
}

async fn bundle(user: &Client<'_>, room: &str, event: &str) -> Value {
    user.event(room, event).await.ok()["unsigned"]["m.relations"].clone()
}

async fn ignore(user: &Client<'_>, other: &Client<'_>) {
    let path = format!("v3/user/{}/account_data/m.ignored_user_list", user.id());
    user.put(&path, json!({ "ignored_users": { other.id(): {} } })).await.ok();
}

fn ordered(mut ids: Vec<String>) -> Vec<String> {
    ids.sort();
    ids
}

#[tokio::test]
async fn what_relates_is_listed_by_kind_and_in_pages() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.create_room(json!({})).await;
    let start = alice.send(&room, "start").await;
    assert_eq!(related(&alice, &room, &start, "").await, json!({ "chunk": [] }));
    let first = react(&alice, &room, &start, "a").await;
    let middle = alice.now().await;
    let second = reply(&alice, &room, &start, "one").await;
    let third = edit(&alice, &room, &start, "new").await;
    let fourth = relate(&alice, &room, ("m.room.message", "org.custom"), &start, "x").await;
    let fifth = react(&alice, &room, &start, "b").await;
    let all = [&fifth, &fourth, &third, &second, &first];
    let page = related(&alice, &room, &start, "?limit=100").await;
    assert_eq!(ids(&page["chunk"]).iter().collect::<Vec<_>>(), all);
    assert!(page.get("next_batch").is_none() && page.get("recursion_depth").is_none(), "{page}");
    let forward = related(&alice, &room, &start, "?dir=f").await;
    assert_eq!(ids(&forward["chunk"]).iter().rev().collect::<Vec<_>>(), all);
    for (rest, expected) in [
        ("/m.annotation", vec![&fifth, &first]),
        ("/m.annotation/m.reaction", vec![&fifth, &first]),
        ("/m.annotation/m.room.message", vec![]),
        ("/m.thread", vec![&second]),
        ("/m.replace/m.room.message", vec![&third]),
        ("/org.custom", vec![&fourth]),
        ("/org.other", vec![]),
    ] {
        let found = related(&alice, &room, &start, rest).await;
        assert_eq!(ids(&found["chunk"]).iter().collect::<Vec<_>>(), expected, "{rest}");
    }
    let after = related(&alice, &room, &start, &format!("?dir=f&from={middle}")).await;
    assert_eq!(ids(&after["chunk"]).len(), 4);
    let until = related(&alice, &room, &start, &format!("?to={middle}")).await;
    assert_eq!(ids(&until["chunk"]), ids(&page["chunk"])[..4]);
    let (mut seen, mut from) = (Vec::new(), String::new());
    loop {
        let page = related(&alice, &room, &start, &format!("?limit=2{from}")).await;
        assert!(ids(&page["chunk"]).len() <= 2);
        seen.extend(ids(&page["chunk"]));
        let Some(next) = page["next_batch"].as_str() else { break };
        from = format!("&from={next}");
        // What comes later lies before every page.
        alice.send(&room, "later").await;
    }
    assert_eq!(seen.iter().collect::<Vec<_>>(), all);
}

#[tokio::test]
async fn only_what_exists_and_is_visible_has_relations() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.create_room(json!({})).await;
    let start = alice.send(&room, "start").await;
    reply(&alice, &room, &start, "one").await;
    for (user, event) in [(&bob, start.as_str()), (&alice, "$none")] {
        for rest in ["", "/m.thread", "/m.thread/m.room.message", "?recurse=true"] {
            let answer = user.get(&path(&room, event, rest)).await;
            assert_eq!(answer.outcome(), (404, "M_NOT_FOUND"), "{event} {rest}");
        }
    }
    for rest in ["?from=x", "?to=t9_1", "?limit=x", "?dir=x"] {
        let answer = alice.get(&path(&room, &start, rest)).await;
        assert_eq!(answer.outcome().0, 400, "{rest}");
    }
    // A rich reply is none.
    let content =
        json!({ "body": "re", "m.relates_to": { "m.in_reply_to": { "event_id": start } } });
    alice.try_send(&room, "m.room.message", content).await.ok();
    assert_eq!(texts(&related(&alice, &room, &start, "").await["chunk"]), ["one"]);
}

#[tokio::test]
async fn relations_of_relations_are_followed() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.create_room(json!({})).await;
    let start = alice.send(&room, "start").await;
    let first = reply(&alice, &room, &start, "1").await;
    let second = reply(&alice, &room, &start, "2").await;
    let edited = edit(&alice, &room, &first, "1a").await;
    let reacted = react(&alice, &room, &second, "x").await;
    let deep = refer(&alice, &room, &edited).await;
    let deeper = refer(&alice, &room, &deep).await;
    let all = [&deep, &reacted, &edited, &second, &first];
    let page = related(&alice, &room, &start, "?recurse=true&limit=100").await;
    assert_eq!(ids(&page["chunk"]).iter().collect::<Vec<_>>(), all);
    assert_eq!(page["recursion_depth"], json!(3));
    let from_reply = related(&alice, &room, &first, "?recurse=true&dir=f").await;
    assert_eq!(ids(&from_reply["chunk"]), [edited.clone(), deep.clone(), deeper]);
    let threads = related(&alice, &room, &start, "/m.thread?recurse=true").await;
    assert_eq!(ids(&threads["chunk"]).iter().collect::<Vec<_>>(), [&second, &first]);
    for direction in ["b", "f"] {
        let (mut seen, mut from) = (Vec::new(), String::new());
        loop {
            let rest = format!("?recurse=true&limit=2&dir={direction}{from}");
            let page = related(&alice, &room, &start, &rest).await;
            seen.extend(ids(&page["chunk"]));
            let Some(next) = page["next_batch"].as_str() else { break };
            from = format!("&from={next}");
        }
        if direction == "f" {
            seen.reverse();
        }
        assert_eq!(seen.iter().collect::<Vec<_>>(), all, "{direction}");
    }
}

#[tokio::test]
async fn the_newest_valid_edit_goes_with_its_event() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    let event = alice.send(&room, "old").await;
    assert_eq!(bundle(&alice, &room, &event).await, Value::Null);
    edit(&bob, &room, &event, "by another").await;
    relate(&alice, &room, ("org.other", "m.replace"), &event, "of another type").await;
    let relation = json!({ "rel_type": "m.replace", "event_id": event });
    let empty = json!({ "body": "without content", "m.relates_to": relation });
    alice.try_send(&room, "m.room.message", empty).await.ok();
    assert_eq!(bundle(&alice, &room, &event).await, Value::Null);
    server.pass(1);
    let first = edit(&alice, &room, &event, "first").await;
    server.pass(1);
    let second = edit(&alice, &room, &event, "second").await;
    server.pass(1);
    let of_edit = edit(&alice, &room, &second, "edit of an edit").await;
    let told = alice.event(&room, &event).await.ok();
    // The content stays as it was sent.
    assert_eq!(told["content"]["body"], json!("old"));
    let told = &told["unsigned"]["m.relations"]["m.replace"];
    assert_eq!(told["event_id"], json!(second));
    assert_eq!(told["content"]["m.new_content"]["body"], json!("second"));
    assert_eq!(told["room_id"], json!(room));
    assert_eq!(bundle(&alice, &room, &second).await, Value::Null);
    alice.try_redact(&room, &of_edit).await.ok();
    alice.try_redact(&room, &second).await.ok();
    assert_eq!(bundle(&bob, &room, &event).await["m.replace"]["event_id"], json!(first));
    alice.try_redact(&room, &first).await.ok();
    assert_eq!(bundle(&bob, &room, &event).await, Value::Null);
    let last = edit(&alice, &room, &event, "last").await;
    assert_eq!(bundle(&bob, &room, &event).await["m.replace"]["event_id"], json!(last));
    alice.try_redact(&room, &event).await.ok();
    assert_eq!(bundle(&bob, &room, &event).await, Value::Null);
    // The edit itself was not redacted.
    assert_eq!(texts(&related(&bob, &room, &event, "/m.replace?limit=1").await["chunk"]), ["last"]);
}

#[tokio::test]
async fn references_are_named() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    let poll = alice.send(&room, "poll").await;
    let votes = [refer(&alice, &room, &poll).await, refer(&bob, &room, &poll).await];
    let chunk = json!({ "chunk": [{ "event_id": votes[0] }, { "event_id": votes[1] }] });
    assert_eq!(bundle(&alice, &room, &poll).await, json!({ "m.reference": chunk }));
    ignore(&alice, &bob).await;
    let chunk = json!({ "chunk": [{ "event_id": votes[0] }] });
    assert_eq!(bundle(&alice, &room, &poll).await, json!({ "m.reference": chunk }));
    assert_eq!(ids(&related(&alice, &room, &poll, "").await["chunk"]), [votes[0].clone()]);
    assert_eq!(ids(&related(&alice, &room, &poll, "?recurse=true").await["chunk"]).len(), 1);
    alice.try_redact(&room, &votes[0]).await.ok();
    assert_eq!(bundle(&alice, &room, &poll).await, Value::Null);
    assert_eq!(related(&alice, &room, &poll, "").await["chunk"], json!([]));
    // Reactions are not told with the event, and nothing is of state.
    let other = alice.send(&room, "other").await;
    react(&bob, &room, &other, "x").await;
    assert_eq!(bundle(&bob, &room, &other).await, Value::Null);
    let topic = alice.set(&room, "m.room.topic", json!({ "topic": "t" })).await;
    refer(&alice, &room, &topic).await;
    assert_eq!(bundle(&bob, &room, &topic).await, Value::Null);
    assert_eq!(ids(&related(&bob, &room, &topic, "").await["chunk"]).len(), 1);
}

#[tokio::test]
async fn every_route_tells_what_is_aggregated() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.create_room(json!({})).await;
    let event = alice.send(&room, "old").await;
    let parent = alice.send(&room, "parent").await;
    let child = refer(&alice, &room, &parent).await;
    refer(&alice, &room, &child).await;
    edit(&alice, &room, &event, "new").await;
    let find = |events: &Value, id: &str| {
        let mut events = events.as_array().unwrap().iter();
        events.find(|event| event["event_id"] == id).cloned().unwrap()
    };
    let told = |event: &Value| event["unsigned"]["m.relations"].is_object();
    let page = alice.messages(&room, "dir=b&limit=100").await.ok();
    assert!(told(&find(&page["chunk"], &event)));
    let context = alice.context(&room, &event).await.ok();
    assert!(told(&context["event"]));
    assert!(told(&find(&context["events_after"], &parent)));
    let context = alice.context(&room, &parent).await.ok();
    assert!(told(&find(&context["events_before"], &event)));
    assert!(told(&related(&alice, &room, &parent, "").await["chunk"][0]));
    let sync = async |limit: u32| {
        let filter = json!({ "room": { "timeline": { "limit": limit } } }).to_string();
        let told = alice.sync_with(None, &format!("filter={}", encode(&filter))).await;
        told["rooms"]["join"][&room]["timeline"].clone()
    };
    let limited = sync(5).await;
    assert_eq!(limited["limited"], json!(true));
    let in_sync = find(&limited["events"], &event);
    assert!(told(&in_sync));
    assert!(in_sync["unsigned"]["m.relations"]["m.replace"].get("room_id").is_none());
    // Whoever is told everything is told the relations too.
    let whole = sync(100).await;
    assert_eq!(whole["limited"], json!(false));
    assert!(!told(&find(&whole["events"], &event)));
}

#[tokio::test]
async fn t47_nothing_of_a_redacted_edit_is_left() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    let secret = "xyzzy-secret";
    let event = alice.send(&room, "old").await;
    let start = alice.send(&room, "start").await;
    let edited = edit(&alice, &room, &event, secret).await;
    let replied = reply(&alice, &room, &start, secret).await;
    let edited_reply = edit(&alice, &room, &replied, secret).await;
    let named = refer(&alice, &room, &event).await;
    let lists = async |user: &Client<'_>| {
        let (room, start, event) = (&room, &start, &event);
        let mut answers = Vec::new();
        for path in [
            path(room, event, "?limit=100"),
            path(room, event, "/m.replace"),
            path(room, start, "?recurse=true&limit=100"),
            path(room, start, "/m.thread"),
            format!("v1/rooms/{room}/threads"),
            format!("v3/rooms/{room}/messages?dir=b&limit=100"),
            format!("v3/rooms/{room}/event/{}", encode(event)),
            format!("v3/rooms/{room}/event/{}", encode(start)),
            format!("v3/rooms/{room}/context/{}", encode(event)),
            format!("v3/rooms/{room}/context/{}", encode(start)),
            "v3/sync".to_owned(),
        ] {
            let answer = user.get(&path).await.ok().to_string();
            answers.push((path, answer));
        }
        answers
    };
    for (path, answer) in lists(&bob).await {
        assert!(answer.contains(secret) || path.contains("sync"), "{path}: {answer}");
    }
    for event in [&edited, &edited_reply, &replied, &named] {
        alice.try_redact(&room, event).await.ok();
    }
    let fresh = server.device_of("bob").await;
    for user in [&alice, &bob, &fresh] {
        for (path, answer) in lists(user).await {
            assert!(!answer.contains(secret), "{path}: {answer}");
            // Nor that there was something.
            let is_list = path.contains("/relations/") || path.contains("/threads");
            assert!(!is_list || !answer.contains("event_id"), "{path}: {answer}");
        }
        for event in [&event, &start] {
            assert_eq!(bundle(user, &room, event).await, Value::Null);
        }
    }
}

#[tokio::test]
async fn t56_relations_show_what_their_reader_may_see() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    for visibility in ["shared", "joined", "world_readable"] {
        let left = server.client(&format!("left-{visibility}")).await;
        let late = server.client(&format!("late-{visibility}")).await;
        let never = server.client(&format!("never-{visibility}")).await;
        let content = json!({ "history_visibility": visibility });
        let state = json!([{ "type": "m.room.history_visibility", "content": content }]);
        let wanted = json!({ "preset": "public_chat", "initial_state": state });
        let room = alice.create_room(wanted).await;
        left.join(&room).await;
        let start = alice.send(&room, "start").await;
        let mut seen = vec![reply(&alice, &room, &start, "1").await];
        seen.push(edit(&alice, &room, &start, "edit 1").await);
        seen.push(refer(&alice, &room, &start).await);
        left.leave(&room).await;
        server.pass(1);
        let latest = reply(&alice, &room, &start, "2").await;
        let newest = edit(&alice, &room, &start, "edit 2").await;
        let last = refer(&alice, &room, &start).await;
        late.join(&room).await;
        let all: Vec<_> = seen.iter().cloned().chain([latest, newest, last]).collect();
        let find = async |user: &Client<'_>, rest: &str| {
            let answer = user.get(&path(&room, &start, rest)).await;
            (answer.status == 200).then(|| ordered(ids(&answer.body["chunk"])))
        };
        for (user, expected) in [
            (&alice, Some(&all)),
            (&left, Some(if visibility == "world_readable" { &all } else { &seen })),
            (&late, (visibility != "joined").then_some(&all)),
            (&never, (visibility == "world_readable").then_some(&all)),
        ] {
            let case = format!("{visibility}, {}", user.id());
            let ids = expected.map(|ids| ordered(ids.clone()));
            assert_eq!(find(user, "?limit=100").await, ids, "{case}");
            assert_eq!(find(user, "?limit=100&recurse=true").await, ids, "{case}");
            let Some(expected) = expected else { continue };
            let told = bundle(user, &room, &start).await;
            let half = expected.len() / 3;
            assert_eq!(told["m.thread"]["count"], json!(half), "{case}: {told}");
            let latest = [0, 3][half - 1];
            assert_eq!(told["m.thread"]["latest_event"]["event_id"], json!(all[latest]), "{case}");
            assert_eq!(told["m.replace"]["event_id"], json!(all[latest + 1]), "{case}");
            let references = told["m.reference"]["chunk"].as_array().unwrap();
            assert_eq!(references.len(), half, "{case}");
        }
    }
}

#[tokio::test]
async fn an_annotation_is_made_once() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    let event = alice.send(&room, "hi").await;
    let first = react(&alice, &room, &event, "x").await;
    let relation = json!({ "rel_type": "m.annotation", "event_id": event, "key": "x" });
    let again = json!({ "m.relates_to": relation });
    let answer = alice.try_send(&room, "m.reaction", again.clone()).await;
    assert_eq!(answer.outcome(), (400, "M_DUPLICATE_ANNOTATION"));
    react(&alice, &room, &event, "y").await;
    react(&bob, &room, &event, "x").await;
    alice.try_send(&room, "org.other", again.clone()).await.ok();
    alice.try_redact(&room, &first).await.ok();
    alice.try_send(&room, "m.reaction", again).await.ok();
}

#[tokio::test]
async fn a_page_of_plain_events_reads_no_relations() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.create_room(json!({})).await;
    for number in 0..50 {
        let event = alice.send(&room, &number.to_string()).await;
        react(&alice, &room, &event, "x").await;
    }
    let query = "dir=b&limit=100";
    alice.messages(&room, query).await.ok();
    let store = &server.server.store;
    let before = store.counters();
    let page = alice.messages(&room, query).await.ok();
    let after = store.counters();
    assert_eq!(page["chunk"].as_array().unwrap().len(), 100);
    let reads = (after.gets - before.gets) + (after.seeks - before.seeks);
    assert!(reads < 20, "{reads} reads for a page of 100 events that are in memory");
}

#[tokio::test]
async fn a_redaction_may_be_sent_like_any_event() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    for version in ["10", "11", "12"] {
        let wanted = json!({ "preset": "public_chat", "room_version": version });
        let room = alice.create_room(wanted).await;
        bob.join(&room).await;
        let event = alice.send(&room, "secret").await;
        let body = json!({ "redacts": event, "reason": "no" });
        let sent = bob.try_send(&room, "m.room.redaction", body.clone()).await;
        assert_eq!(sent.outcome(), (403, "M_FORBIDDEN"), "{version}");
        let unknown = json!({ "redacts": "$none" });
        let sent = alice.try_send(&room, "m.room.redaction", unknown).await;
        assert_eq!(sent.outcome(), (404, "M_NOT_FOUND"), "{version}");
        let path = format!("v3/rooms/{room}/send/m.room.redaction/once");
        let sent = alice.put(&path, body.clone()).await.ok();
        assert_eq!(alice.put(&path, body).await.ok(), sent, "{version}");
        let told = bob.event(&room, &event).await.ok();
        assert_eq!(told["content"], json!({}), "{version}");
        let because = &told["unsigned"]["redacted_because"];
        assert_eq!(because["event_id"], sent["event_id"], "{version}");
        assert_eq!(because["content"]["reason"], json!("no"), "{version}");
        // Wherever the version keeps it, clients get it at both places.
        let redaction = bob.event(&room, &text(&sent["event_id"])).await.ok();
        assert_eq!(redaction["redacts"], json!(event), "{version}");
        assert_eq!(redaction["content"]["redacts"], json!(event), "{version}");
    }
    let versions = server.get("versions").send().await.ok();
    assert_eq!(versions["unstable_features"]["com.beeper.msc4169"], json!(true));
}

#[tokio::test]
async fn a_filter_may_ask_for_what_is_related_to() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    let mut events = Vec::new();
    for body in ["plain", "thread", "his thread", "reaction"] {
        events.push(alice.send(&room, body).await);
    }
    reply(&alice, &room, &events[1], "x").await;
    reply(&bob, &room, &events[2], "x").await;
    react(&bob, &room, &events[3], "x").await;
    for (filter, expected) in [
        (json!({ "related_by_rel_types": ["m.thread"] }), vec!["his thread", "thread"]),
        (json!({ "related_by_senders": [bob.id()] }), vec!["reaction", "his thread"]),
        (
            json!({ "related_by_senders": [bob.id()], "related_by_rel_types": ["m.thread"] }),
            vec!["his thread"],
        ),
        (json!({ "io.element.relation_types": ["m.annotation"] }), vec!["reaction"]),
        (json!({ "related_by_rel_types": [] }), vec![]),
    ] {
        let filter = encode(&filter.to_string());
        let query = format!("dir=b&limit=100&filter={filter}");
        let page = alice.messages(&room, &query).await.ok();
        assert_eq!(texts(&page["chunk"]), expected, "{query}");
        let path = format!("v3/rooms/{room}/context/{}?limit=100&filter={filter}", events[0]);
        let around = alice.get(&path).await.ok();
        let mut after = texts(&around["events_after"]);
        after.reverse();
        assert_eq!(after, expected, "{path}");
    }
    for filter in [r#"{"related_by_senders":["x"]}"#, r#"{"related_by_rel_types":1}"#, "{"] {
        let answer = alice.messages(&room, &format!("dir=b&filter={}", encode(filter))).await;
        assert_eq!(answer.outcome().0, 400, "{filter}");
    }
}

#[tokio::test]
async fn a_sync_tells_the_fields_that_are_asked_for() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.create_room(json!({ "name": "Lobby" })).await;
    alice.send(&room, "hi").await;
    let filter = json!({
        "event_fields": ["type", "content.body", r"content.m\.federate"],
        "room": { "timeline": { "limit": 1 } },
    });
    let stored = alice.post(&format!("v3/user/{}/filter", alice.id()), filter.clone()).await.ok();
    for filter in [encode(&filter.to_string()), text(&stored["filter_id"])] {
        let told = alice.sync_with(None, &format!("filter={filter}")).await;
        let joined = &told["rooms"]["join"][&room];
        let message = json!({ "type": "m.room.message", "content": { "body": "hi" } });
        assert_eq!(joined["timeline"]["events"], json!([message]));
        let state = joined["state"]["events"].as_array().unwrap();
        assert!(state.contains(&json!({ "type": "m.room.name" })), "{state:?}");
    }
    let many = vec!["a"; 1_000];
    let filter = encode(&json!({ "event_fields": many }).to_string());
    let answer = alice.get(&format!("v3/sync?filter={filter}")).await;
    assert_eq!(answer.outcome(), (400, "M_INVALID_PARAM"));
}

/// Redacts an event with what relates to it in these ways.
async fn redact_all(user: &Client<'_>, room: &str, event: &str, rel_types: Value) -> Answer {
    let transaction = user.server.next_transaction();
    let path = format!("v3/rooms/{room}/redact/{}/{transaction}", encode(event));
    let answer = user.put(&path, json!({ "with_rel_types": rel_types })).await;
    if answer.status == 200 {
        let again = user.put(&path, json!({ "with_rel_types": rel_types })).await;
        assert_eq!(again.ok(), answer.body, "the same transaction");
    }
    answer
}

async fn is_redacted(user: &Client<'_>, room: &str, event: &str) -> bool {
    user.event(room, event).await.ok()["unsigned"]["redacted_because"].is_object()
}

#[tokio::test]
async fn what_relates_to_an_event_is_redacted_with_it() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    let event = alice.send(&room, "secret").await;
    let edits = [
        edit(&alice, &room, &event, "a secret").await,
        edit(&alice, &room, &event, "the secret").await,
    ];
    let of_edit = edit(&alice, &room, &edits[0], "no").await;
    let of_other = edit(&bob, &room, &event, "not mine").await;
    let reaction = react(&bob, &room, &event, "👍").await;
    let answer = redact_all(&bob, &room, &event, json!(["*"])).await;
    assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"));
    assert!(!is_redacted(&alice, &room, &reaction).await);
    redact_all(&alice, &room, &event, json!(["m.replace", "org.other"])).await.ok();
    for redacted in [&event, &edits[0], &edits[1]] {
        assert!(is_redacted(&bob, &room, redacted).await);
    }
    // Neither is a valid edit of the event, and reactions were not named.
    for left in [&of_edit, &of_other, &reaction] {
        assert!(!is_redacted(&bob, &room, left).await);
    }
    let because = bob.event(&room, &edits[0]).await.ok()["unsigned"]["redacted_because"].clone();
    assert_eq!(because["sender"], json!(alice.id()));

    let start = bob.send(&room, "a thread").await;
    let replies = [reply(&bob, &room, &start, "1").await, reply(&alice, &room, &start, "2").await];
    let vote = refer(&bob, &room, &start).await;
    redact_all(&bob, &room, &start, json!(["*"])).await.ok();
    assert!(is_redacted(&alice, &room, &replies[0]).await);
    assert!(is_redacted(&alice, &room, &vote).await);
    assert!(!is_redacted(&alice, &room, &replies[1]).await, "it is another's");
    assert_eq!(bundle(&alice, &room, &start).await["m.thread"]["count"], json!(1));
    redact_all(&alice, &room, &start, json!(["m.thread"])).await.ok();
    assert!(is_redacted(&alice, &room, &replies[1]).await, "a moderator may");

    let versions = server.get("versions").send().await.ok();
    assert_eq!(versions["unstable_features"]["org.matrix.msc3912"], json!(true));
}

#[tokio::test]
async fn the_types_that_are_redacted_are_names() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.public_room().await;
    let event = alice.send(&room, "hi").await;
    let vote = refer(&alice, &room, &event).await;
    let many = vec!["m.reference"; 51];
    let answer = redact_all(&alice, &room, &event, json!(many)).await;
    assert_eq!(answer.outcome(), (400, "M_INVALID_PARAM"));
    let answer = redact_all(&alice, &room, &event, json!("m.reference")).await;
    assert_eq!(answer.outcome(), (400, "M_BAD_JSON"));
    redact_all(&alice, &room, &event, json!([])).await.ok();
    assert!(!is_redacted(&alice, &room, &vote).await);
    // Redacted twice, and by the name that clients use so far.
    let path = format!("v3/rooms/{room}/redact/{}/again", encode(&event));
    let body = json!({ "org.matrix.msc3912.with_relations": ["m.reference"] });
    alice.put(&path, body).await.ok();
    assert!(is_redacted(&alice, &room, &vote).await);
}

//! Searching for messages: what is found, what is not, and in which order.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Client, TestServer, ids, text, texts};

/// The criteria with a term, and more.
fn wanted(term: &str, more: Value) -> Value {
    let mut criteria = json!({ "search_term": term, "order_by": "recent" });
    let Value::Object(more) = more else { panic!("{more} is no object") };
    criteria.as_object_mut().unwrap().extend(more);
    json!({ "search_categories": { "room_events": criteria } })
}

async fn search(user: &Client<'_>, term: &str, more: Value) -> Value {
    let mut answer = user.post("v3/search", wanted(term, more)).await.ok();
    answer["search_categories"]["room_events"].take()
}

fn bodies(found: &Value) -> Vec<String> {
    let results = found["results"].as_array().unwrap();
    texts(&results.iter().map(|result| result["result"].clone()).collect())
}

/// Waits until a search finds this many events.
async fn until_found(user: &Client<'_>, term: &str, count: usize) -> Value {
    let mut found = Value::Null;
    for _ in 0..500 {
        found = search(user, term, json!({ "filter": { "limit": 100 } })).await;
        if found["results"].as_array().unwrap().len() == count {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{term} is not found {count} times but so: {found}");
}

/// Waits until all that was sent so far is indexed.
async fn settled(user: &Client<'_>, room: &str) {
    let event = user.send(room, "zzsettled").await;
    for _ in 0..500 {
        let found = search(user, "zzsettled", json!({})).await;
        let results = found["results"].as_array().unwrap();
        if results.iter().any(|result| result["result"]["event_id"] == json!(event)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the index does not follow");
}

#[tokio::test]
async fn all_words_must_match_in_any_order_and_case() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.create_room(json!({ "name": "Red Planet", "topic": "All about MARS" })).await;
    for body in ["Martians and men", "men only", "MEN, and martians!", "東京都の天気"] {
        alice.send(&room, body).await;
    }
    alice.try_send(&room, "m.room.encrypted", json!({ "body": "martians men" })).await.ok();
    let found = until_found(&alice, "men martians", 2).await;
    assert_eq!(bodies(&found), ["MEN, and martians!", "Martians and men"]);
    assert_eq!(found["count"], json!(2));
    assert_eq!(found["highlights"], json!(["martians", "men"]));
    assert!(found.get("next_batch").is_none() && found.get("groups").is_none(), "{found}");
    assert!(found["results"][0].get("context").is_none());
    settled(&alice, &room).await;
    assert_eq!(bodies(&search(&alice, "men", json!({})).await).len(), 3);
    assert_eq!(bodies(&search(&alice, "京都", json!({})).await), ["東京都の天気"]);
    assert_eq!(bodies(&search(&alice, "天", json!({})).await), ["東京都の天気"]);
    assert_eq!(search(&alice, "京東", json!({})).await["results"], json!([]));
    let found = search(&alice, "mars", json!({})).await;
    assert_eq!(found["results"][0]["result"]["type"], json!("m.room.topic"));
    let found = search(&alice, "planet", json!({ "keys": ["content.name"] })).await;
    assert_eq!(found["results"][0]["result"]["type"], json!("m.room.name"));
    let found = search(&alice, "planet", json!({ "keys": ["content.body"] })).await;
    assert_eq!(found["results"], json!([]));
    assert_eq!(search(&alice, "…!", json!({})).await["count"], json!(0));
}

#[tokio::test]
async fn filters_narrow_and_groups_gather() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let one = alice.public_room().await;
    let two = alice.public_room().await;
    bob.join(&one).await;
    bob.join(&two).await;
    alice.send(&one, "tea a1").await;
    bob.send(&one, "tea b1").await;
    let picture = json!({ "msgtype": "m.image", "body": "tea picture", "url": "mxc://x/y" });
    alice.try_send(&two, "m.room.message", picture).await.ok();
    bob.send(&two, "tea b2").await;
    until_found(&alice, "tea", 4).await;
    for (filter, expected) in [
        (json!({ "rooms": [one] }), vec!["tea b1", "tea a1"]),
        (json!({ "not_rooms": [one] }), vec!["tea b2", "tea picture"]),
        (json!({ "senders": [bob.id()] }), vec!["tea b2", "tea b1"]),
        (json!({ "not_senders": [bob.id()] }), vec!["tea picture", "tea a1"]),
        (json!({ "types": ["m.room.name"] }), vec![]),
        (json!({ "not_types": ["m.room.mess*"] }), vec![]),
        (json!({ "contains_url": true }), vec!["tea picture"]),
        (json!({ "limit": 1 }), vec!["tea b2"]),
    ] {
        let found = search(&alice, "tea", json!({ "filter": filter })).await;
        assert_eq!(bodies(&found), expected, "{filter}");
    }
    let group_by = json!({ "group_by": [{ "key": "room_id" }, { "key": "sender" }] });
    let more = json!({ "groupings": group_by, "filter": { "limit": 2 }, "include_state": true });
    let found = search(&alice, "tea", more.clone()).await;
    let group = &found["groups"]["room_id"][&two];
    assert_eq!((group["order"].clone(), group["results"].as_array().unwrap().len()), (json!(0), 2));
    assert!(found["groups"]["sender"][bob.id()]["next_batch"].is_string(), "{found}");
    let state = found["state"][&two].as_array().unwrap();
    assert!(state.iter().any(|event| event["type"] == "m.room.create"));
    assert!(found["state"].get(&one).is_none());
    // The next page of a group stays in the group.
    let token = text(&found["groups"]["sender"][bob.id()]["next_batch"]);
    let path = format!("v3/search?next_batch={token}");
    let page = alice.post(&path, wanted("tea", more)).await.ok();
    let found = &page["search_categories"]["room_events"];
    assert_eq!(bodies(found), ["tea b1"]);
    assert!(found.get("next_batch").is_none(), "{found}");
}

#[tokio::test]
async fn pages_hold_each_result_once_in_both_orders() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.create_room(json!({})).await;
    let mut sent = Vec::new();
    for number in 0..23 {
        let often = "cake ".repeat(number % 4 + 1);
        sent.push(alice.send(&room, &format!("{often} {number}")).await);
    }
    sent.reverse();
    until_found(&alice, "cake", 23).await;
    for order in ["recent", "rank"] {
        let criteria = wanted("cake", json!({ "order_by": order, "filter": { "limit": 5 } }));
        let (mut seen, mut ranks, mut token) = (Vec::new(), Vec::new(), String::new());
        for page in 0..9 {
            let path = format!("v3/search{token}");
            let answer = alice.post(&path, criteria.clone()).await.ok();
            let found = &answer["search_categories"]["room_events"];
            assert_eq!(found["count"], json!(23), "{order}");
            for result in found["results"].as_array().unwrap() {
                seen.push(text(&result["result"]["event_id"]));
                ranks.push(result["rank"].as_f64().unwrap());
            }
            // What comes in between shifts nothing.
            alice.send(&room, &format!("more cake {order} {page}")).await;
            match found["next_batch"].as_str() {
                Some(next) => token = format!("?next_batch={next}"),
                None => break,
            }
        }
        let mut once = seen.clone();
        once.sort();
        once.dedup();
        assert_eq!((seen.len(), once.len()), (23, 23), "{order}");
        if order == "recent" {
            assert_eq!(seen, sent);
            // Those that came in between are there from now on; they must not disturb the count.
            for event in ids(&alice.messages(&room, "dir=b&limit=9").await.ok()["chunk"]) {
                if !sent.contains(&event) {
                    alice.try_redact(&room, &event).await.ok();
                }
            }
            until_found(&alice, "cake", 23).await;
        } else {
            assert!(ranks.is_sorted_by(|a, b| a >= b), "{ranks:?}");
            assert!(ranks[0] > ranks[22]);
        }
    }
}

#[tokio::test]
async fn a_result_comes_with_its_surroundings() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.create_room(json!({})).await;
    alice
        .put(&format!("v3/profile/{}/displayname", alice.id()), json!({ "displayname": "Al" }))
        .await
        .ok();
    for body in ["1", "2", "needle", "3", "4", "5"] {
        alice.send(&room, body).await;
    }
    until_found(&alice, "needle", 1).await;
    let size = json!({ "before_limit": 1, "after_limit": 2, "include_profile": true });
    let found = search(&alice, "needle", json!({ "event_context": size })).await;
    let context = &found["results"][0]["context"];
    assert_eq!(texts(&context["events_before"]), ["2"]);
    assert_eq!(texts(&context["events_after"]), ["3", "4"]);
    assert_eq!(context["profile_info"][alice.id()]["displayname"], json!("Al"));
    let path = format!("dir=b&limit=1&from={}", text(&context["start"]));
    assert_eq!(texts(&alice.messages(&room, &path).await.ok()["chunk"]), ["1"]);
    let path = format!("dir=f&limit=1&from={}", text(&context["end"]));
    assert_eq!(texts(&alice.messages(&room, &path).await.ok()["chunk"]), ["5"]);
}

#[tokio::test]
async fn t47_nothing_of_a_redacted_message_is_found() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.create_room(json!({})).await;
    let secret = alice.send(&room, "secret plans").await;
    let kept = alice.send(&room, "other plans").await;
    until_found(&alice, "plans", 2).await;
    alice.try_redact(&room, &secret).await.ok();
    // At once, also before the index knows.
    assert_eq!(search(&alice, "secret", json!({})).await["count"], json!(0));
    let context = json!({ "event_context": { "before_limit": 9, "after_limit": 9 } });
    let found = search(&alice, "other", context).await;
    assert!(!found.to_string().contains("secret"), "{found}");
    assert_eq!(found["results"][0]["result"]["event_id"], json!(kept));
    // And the index forgets it.
    settled(&alice, &room).await;
    assert_eq!(bodies(&search(&alice, "plans", json!({})).await), ["other plans"]);
    let name = alice.set(&room, "m.room.name", json!({ "name": "conspiracy" })).await;
    until_found(&alice, "conspiracy", 1).await;
    alice.try_redact(&room, &name).await.ok();
    assert_eq!(search(&alice, "conspiracy", json!({})).await["results"], json!([]));
}

fn edit_of(event: &str, body: &str) -> Value {
    json!({
        "msgtype": "m.text",
        "body": format!("* {body}"),
        "m.new_content": { "msgtype": "m.text", "body": body },
        "m.relates_to": { "rel_type": "m.replace", "event_id": event },
    })
}

#[tokio::test]
async fn an_edit_replaces_the_words_of_its_message() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    let event = alice.send(&room, "first words").await;
    until_found(&alice, "first", 1).await;
    let edit = async |user: &Client<'_>, body: &str| {
        server.pass(1);
        let sent = user.try_send(&room, "m.room.message", edit_of(&event, body)).await.ok();
        text(&sent["event_id"])
    };
    edit(&alice, "second text").await;
    let found = until_found(&alice, "second", 1).await;
    assert_eq!(found["results"][0]["result"]["event_id"], json!(event));
    assert_eq!(search(&alice, "words", json!({})).await["results"], json!([]));
    let third = edit(&alice, "third version").await;
    until_found(&alice, "third", 1).await;
    assert_eq!(search(&alice, "second", json!({})).await["results"], json!([]));
    // Who did not write a message does not change what it says.
    edit(&bob, "forged edit").await;
    settled(&alice, &room).await;
    assert_eq!(search(&alice, "forged", json!({})).await["results"], json!([]));
    // Without the newest edit the one before it counts.
    alice.try_redact(&room, &third).await.ok();
    until_found(&alice, "second", 1).await;
    assert_eq!(search(&alice, "third", json!({})).await["results"], json!([]));
    alice.try_redact(&room, &event).await.ok();
    settled(&alice, &room).await;
    for word in ["first", "second", "third"] {
        assert_eq!(search(&alice, word, json!({})).await["count"], json!(0), "{word}");
    }
}

#[tokio::test]
async fn t56_a_search_shows_what_its_reader_may_see() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let (carol, dave) = (server.client("carol").await, server.client("dave").await);
    for visibility in ["world_readable", "shared", "invited", "joined"] {
        let word = format!("w{}", visibility.replace('_', ""));
        let state = json!([{
            "type": "m.room.history_visibility",
            "content": { "history_visibility": visibility },
        }]);
        let wanted = json!({ "preset": "public_chat", "initial_state": state });
        let room = alice.create_room(wanted).await;
        let early = alice.send(&room, &format!("{word} early")).await;
        alice.invite(&room, &bob).await;
        alice.send(&room, &format!("{word} invited")).await;
        bob.join(&room).await;
        alice.send(&room, &format!("{word} joined")).await;
        bob.leave(&room).await;
        // An edit after the leave says nothing to who has left.
        alice
            .try_send(&room, "m.room.message", edit_of(&early, &format!("{word} late")))
            .await
            .ok();
        alice.send(&room, &format!("{word} after")).await;
        carol.join(&room).await;
        carol.act(&room, "leave").await.ok();
        carol.act(&room, "forget").await.ok();
        settled(&alice, &room).await;
        let found = search(&alice, &word, json!({})).await;
        assert_eq!(bodies(&found).len(), 4, "{visibility}");
        let seen = search(&bob, &word, json!({})).await;
        let expected: &[&str] = match visibility {
            "world_readable" => &["after", "joined", "invited", "early"],
            "shared" | "invited" => &["joined", "invited"],
            _ => &["joined"],
        };
        let expected: Vec<_> = expected.iter().map(|end| format!("{word} {end}")).collect();
        assert_eq!(bodies(&seen), expected, "{visibility}");
        assert_eq!(seen["count"], json!(expected.len()));
        let late = search(&bob, &format!("{word} late"), json!({})).await;
        let is_open = visibility == "world_readable";
        assert_eq!(late["results"].as_array().unwrap().len(), usize::from(is_open));
        for stranger in [&carol, &dave] {
            let found = search(stranger, &word, json!({})).await;
            assert_eq!(found["results"], json!([]), "{visibility}");
        }
    }
}

#[tokio::test]
async fn whom_one_ignores_is_not_found() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    bob.send(&room, "noise").await;
    alice.send(&room, "before signal").await;
    bob.send(&room, "noise again").await;
    until_found(&alice, "noise", 2).await;
    let path = format!("v3/user/{}/account_data/m.ignored_user_list", alice.id());
    alice.put(&path, json!({ "ignored_users": { bob.id(): {} } })).await.ok();
    assert_eq!(search(&alice, "noise", json!({})).await["count"], json!(0));
    let found = search(&alice, "signal", json!({ "event_context": {} })).await;
    assert!(!found.to_string().contains("noise"), "{found}");
}

#[tokio::test]
async fn t89_a_search_is_bounded_and_checked() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    for (criteria, errcode) in [
        (json!({ "search_term": "x".repeat(513) }), "M_INVALID_PARAM"),
        (json!({ "search_term": "a ".repeat(33) }), "M_INVALID_PARAM"),
        (json!({ "search_term": "a", "keys": ["content.x"] }), "M_INVALID_PARAM"),
        (json!({ "search_term": "a", "order_by": "x" }), "M_INVALID_PARAM"),
        (json!({ "search_term": "a", "groupings": { "group_by": [{}] } }), "M_INVALID_PARAM"),
        (json!({ "search_term": 1 }), "M_BAD_JSON"),
        (json!({}), "M_BAD_JSON"),
    ] {
        let body = json!({ "search_categories": { "room_events": criteria } });
        let answer = alice.post("v3/search", body).await;
        assert_eq!(answer.outcome(), (400, errcode), "{criteria}");
    }
    let answer = alice.post("v3/search?next_batch=x", wanted("a", json!({}))).await;
    assert_eq!(answer.outcome(), (400, "M_INVALID_PARAM"));
    let answer = server.post("v3/search", wanted("a", json!({}))).send().await;
    assert_eq!(answer.outcome(), (401, "M_MISSING_TOKEN"));
    let answer = alice.post("v3/search", json!({ "search_categories": {} })).await.ok();
    assert_eq!(answer, json!({ "search_categories": {} }));
    let server = TestServer::with(|config| config.search.enabled = false).await;
    let alice = server.client("alice").await;
    let answer = alice.post("v3/search", wanted("a", json!({}))).await;
    assert_eq!(answer.outcome(), (403, "M_FORBIDDEN"));
}

/// A step of a room's life; numbers choose among what there is.
#[derive(Clone, Debug)]
enum Deed {
    Send(Vec<usize>),
    Edit(usize, Vec<usize>),
    Redact(usize),
    RedactEdit(usize),
}

const WORDS: [&str; 5] = ["apple", "Banana", "東京", "naïve", "v1.2"];

fn sentence(words: &[usize]) -> String {
    words.iter().map(|word| WORDS[*word]).collect::<Vec<_>>().join(" ")
}

/// A message as a plain reader knows it.
#[derive(Default)]
struct Message {
    id: String,
    words: Vec<usize>,
    edits: Vec<(String, Vec<usize>)>,
    redacted: bool,
}

impl Message {
    fn says(&self, wanted: &[usize]) -> bool {
        let words = self.edits.last().map_or(&self.words, |(_, words)| words);
        !self.redacted && wanted.iter().all(|word| words.contains(word))
    }
}

async fn live(alice: &Client<'_>, room: &str, deeds: &[Deed]) -> Vec<Message> {
    let mut messages: Vec<Message> = Vec::new();
    for deed in deeds {
        alice.server.pass(1);
        let (Deed::Edit(which, _) | Deed::Redact(which) | Deed::RedactEdit(which)) = deed else {
            let Deed::Send(words) = deed else { continue };
            let id = alice.send(room, &sentence(words)).await;
            messages.push(Message { id, words: words.clone(), ..Message::default() });
            continue;
        };
        let count = messages.len().max(1);
        let Some(message) = messages.get_mut(which % count).filter(|m| !m.redacted) else {
            continue;
        };
        match deed {
            Deed::Edit(_, words) => {
                let content = edit_of(&message.id, &sentence(words));
                let sent = alice.try_send(room, "m.room.message", content).await.ok();
                message.edits.push((text(&sent["event_id"]), words.clone()));
            }
            Deed::Redact(_) => {
                alice.try_redact(room, &message.id).await.ok();
                message.redacted = true;
            }
            _ => {
                if let Some((id, _)) = message.edits.pop() {
                    alice.try_redact(room, &id).await.ok();
                }
            }
        }
    }
    messages
}

/// Compares searches for every word and every two words with the plain reading.
async fn compare(alice: &Client<'_>, messages: &[Message]) {
    for one in 0..WORDS.len() {
        for other in one..WORDS.len() {
            let wanted = [one, other];
            let said = messages.iter().filter(|message| message.says(&wanted));
            let mut expected: Vec<&str> = said.map(|message| message.id.as_str()).collect();
            expected.reverse();
            let term = sentence(&wanted);
            let found = search(alice, &term, json!({ "filter": { "limit": 100 } })).await;
            let results = found["results"].as_array().unwrap().iter();
            let found: Vec<_> = results.map(|result| text(&result["result"]["event_id"])).collect();
            assert_eq!(found, expected, "{wanted:?}");
        }
    }
}

#[test]
fn a_search_finds_what_a_plain_reading_finds() {
    use proptest::{prelude::*, test_runner::TestRunner};

    let words = || proptest::collection::vec(0..WORDS.len(), 1..4);
    let deed = prop_oneof![
        4 => words().prop_map(Deed::Send),
        2 => (any::<usize>(), words()).prop_map(|(which, words)| Deed::Edit(which, words)),
        1 => any::<usize>().prop_map(Deed::Redact),
        1 => any::<usize>().prop_map(Deed::RedactEdit),
    ];
    let mut runner = TestRunner::new(ProptestConfig::with_cases(6));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let tried = runner.run(&proptest::collection::vec(deed, 10..60), |deeds| {
        runtime.block_on(async {
            let server = TestServer::new().await;
            let alice = server.client("alice").await;
            let room = alice.create_room(json!({})).await;
            let messages = live(&alice, &room, &deeds).await;
            settled(&alice, &room).await;
            compare(&alice, &messages).await;
            // A server that starts anew goes on; one with another language makes the index anew.
            let user = alice.user.clone();
            let server = server.restarted(|_| {}).await;
            let alice = Client { server: &server, user: user.clone() };
            let more = live(&alice, &room, &deeds[..5]).await;
            settled(&alice, &room).await;
            let all: Vec<Message> = messages.into_iter().chain(more).collect();
            compare(&alice, &all).await;
            let english = |config: &mut causerie::config::Config| {
                config.search.language = Some(causerie::config::SearchLanguage::English);
            };
            let server = server.restarted(english).await;
            let alice = Client { server: &server, user };
            settled(&alice, &room).await;
            compare(&alice, &all).await;
            let plural = search(&alice, "apples", json!({})).await;
            assert_eq!(plural["count"], search(&alice, "apple", json!({})).await["count"]);
        });
        Ok(())
    });
    tried.unwrap();
}

//! Push rules.

use serde_json::{Value, json};

use crate::harness::{Answer, TestServer, TestUser};

async fn put(server: &TestServer, user: &TestUser, path: &str, body: Value) -> Answer {
    let path = format!("v3/pushrules/global/{path}");
    server.put(&path, body).token(&user.token).send().await
}

async fn get(server: &TestServer, user: &TestUser, path: &str) -> Answer {
    server.get(&format!("v3/pushrules/{path}")).token(&user.token).send().await
}

async fn content_rules(server: &TestServer, user: &TestUser) -> Vec<String> {
    let rules = get(server, user, "").await.ok();
    let rules = rules["global"]["content"].as_array().unwrap().clone();
    let ids = rules.iter().map(|rule| rule["rule_id"].as_str().unwrap().to_owned());
    ids.filter(|id| !id.starts_with('.')).collect()
}

fn pattern(pattern: &str) -> Value {
    json!({ "pattern": pattern, "actions": ["notify"] })
}

#[tokio::test]
async fn the_rules_are_there_from_the_beginning() {
    let server = TestServer::new().await;
    let alice = server.register("alice").await;
    let all = get(&server, &alice, "").await.ok();
    assert_eq!(all["global"]["override"][0]["rule_id"], json!(".m.rule.master"));
    // Of the kinds of the specification alone: ruma has one more.
    let kinds: Vec<_> = all["global"].as_object().unwrap().keys().collect();
    assert_eq!(kinds, ["override", "underride"]);
    assert_eq!(get(&server, &alice, "global/").await.ok(), all["global"]);
    assert_eq!(get(&server, &alice, "global").await.ok(), all["global"]);
    let old = server.get("r0/pushrules/").token(&alice.token).send().await;
    assert_eq!(old.ok(), all);
    let master = get(&server, &alice, "global/override/.m.rule.master").await.ok();
    assert_eq!(master["enabled"], json!(false));
}

#[tokio::test]
async fn a_rule_is_made_changed_and_removed() {
    let server = TestServer::new().await;
    let alice = server.register("alice").await;
    put(&server, &alice, "content/cake", pattern("cake")).await.ok();
    put(&server, &alice, "content/cake/enabled", json!({ "enabled": false })).await.ok();
    put(&server, &alice, "content/cake/actions", json!({ "actions": [] })).await.ok();
    put(&server, &alice, "override/.m.rule.master/enabled", json!({ "enabled": true })).await.ok();
    let rule = get(&server, &alice, "global/content/cake").await.ok();
    let expected = json!({
        "rule_id": "cake", "default": false, "enabled": false, "actions": [], "pattern": "cake",
    });
    assert_eq!(rule, expected);
    let enabled = get(&server, &alice, "global/override/.m.rule.master/enabled").await.ok();
    assert_eq!(enabled, json!({ "enabled": true }));
    let actions = get(&server, &alice, "global/content/cake/actions").await.ok();
    assert_eq!(actions, json!({ "actions": [] }));
    let delete = |path: &str| {
        server.delete(&format!("v3/pushrules/global/{path}")).token(&alice.token).send()
    };
    delete("content/cake").await.ok();
    assert_eq!(delete("content/cake").await.outcome(), (404, "M_NOT_FOUND"));
    let predefined = delete("override/.m.rule.master").await;
    assert_eq!(predefined.outcome(), (400, "M_INVALID_PARAM"));
    for path in ["global/content/cake", "global/content/cake/enabled", "global/room/x/actions"] {
        assert_eq!(get(&server, &alice, path).await.outcome(), (404, "M_NOT_FOUND"), "{path}");
    }
    assert_eq!(get(&server, &alice, "global/nonsense/x").await.outcome(), (400, "M_INVALID_PARAM"));
}

#[tokio::test]
async fn t88_rules_are_placed_without_falling_over() {
    let server = TestServer::new().await;
    let alice = server.register("alice").await;
    for id in ["c", "b", "a"] {
        put(&server, &alice, &format!("content/{id}"), pattern(id)).await.ok();
    }
    put(&server, &alice, "content/a?after=c", pattern("a")).await.ok();
    assert_eq!(content_rules(&server, &alice).await, ["b", "c", "a"]);
    put(&server, &alice, "content/a?before=b", pattern("a")).await.ok();
    assert_eq!(content_rules(&server, &alice).await, ["a", "b", "c"]);
    for (place, outcome) in [
        ("before=missing", (404, "M_NOT_FOUND")),
        ("after=missing", (404, "M_NOT_FOUND")),
        ("before=x", (400, "M_INVALID_PARAM")),
        ("after=x", (400, "M_INVALID_PARAM")),
        ("after=.m.rule.contains_user_name", (400, "M_INVALID_PARAM")),
        ("before=a&after=c", (400, "M_INVALID_PARAM")),
    ] {
        let path = format!("content/x?{place}");
        assert_eq!(put(&server, &alice, &path, pattern("x")).await.outcome(), outcome, "{place}");
    }
    assert_eq!(content_rules(&server, &alice).await, ["a", "b", "c"]);
}

#[tokio::test]
async fn t88_rules_are_bounded() {
    let server = TestServer::new().await;
    let alice = server.register("alice").await;
    let invalid = (400, "M_INVALID_PARAM");
    let long = "x".repeat(256);
    for id in [long.as_str(), ".m.rule.mine", "a%2Fb", "a%5Cb"] {
        let answer = put(&server, &alice, &format!("content/{id}"), pattern("x")).await;
        assert_eq!(answer.outcome(), invalid, "{id}");
    }
    let large = pattern(&"*a".repeat(520));
    assert_eq!(put(&server, &alice, "content/x", large).await.outcome(), invalid);
    let actions = json!({ "actions": vec!["notify"; 200] });
    let path = "override/.m.rule.roomnotif/actions";
    assert_eq!(put(&server, &alice, path, actions).await.outcome(), invalid);
    put(&server, &alice, "content/x", pattern(&"*a".repeat(500))).await.ok();
    assert_eq!(content_rules(&server, &alice).await, ["x"]);
}

#[tokio::test]
async fn t88_as_many_rules_as_may_be_are_kept() {
    let server = TestServer::new().await;
    let alice = server.register("alice").await;
    let rules = server.server.users.push_rules();
    for number in 0..1_000 {
        let (id, glob) = (format!("rule{number}"), "x".repeat(900));
        let rule = ruma::push::NewPatternedPushRule::new(id, glob, Vec::new());
        let rule = ruma::push::NewPushRule::Content(rule);
        let place = causerie::users::RulePlace::default();
        rules.set(&alice.user_id, rule, &place).await.unwrap();
    }
    assert_eq!(content_rules(&server, &alice).await.len(), 1_000);
    let answer = put(&server, &alice, "content/more", pattern("x")).await;
    assert_eq!(answer.outcome(), (400, "M_INVALID_PARAM"));
}

#[tokio::test]
async fn a_rule_that_is_not_there_is_neither_shown_nor_changed() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let path = "v3/pushrules/global/content/none";
    let enabled = json!({ "enabled": true });
    let actions = json!({ "actions": ["notify"] });
    for answer in [
        alice.get(path).await,
        alice.delete(path).await,
        alice.get(&format!("{path}/enabled")).await,
        alice.put(&format!("{path}/enabled"), enabled).await,
        alice.get(&format!("{path}/actions")).await,
        alice.put(&format!("{path}/actions"), actions).await,
    ] {
        assert_eq!(answer.outcome(), (404, "M_NOT_FOUND"));
    }
}

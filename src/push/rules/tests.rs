//! Tables of cases for the evaluation of push rules.

use ruma::{
    event_id,
    push::{
        ConditionalPushRule, EventMatchConditionData, EventPropertyContainsConditionData,
        NewConditionalPushRule, NewPatternedPushRule, NewPushRule, RuleKind,
    },
    room_id, user_id,
};
use serde_json::{Value, json};

use super::*;

fn subject(sender: &UserId, event_type: &str, content: &Value) -> Subject {
    Subject::new(EventParts {
        event_id: event_id!("$event"),
        room_id: room_id!("!room:hs1"),
        sender,
        event_type,
        state_key: None,
        origin_server_ts: 1,
        content: &to_raw_value(content).unwrap(),
    })
    .unwrap()
}

fn judge(rules: &Ruleset, event_type: &str, told: &Value, level: i64) -> Counts {
    let sender = SenderLevel { level: Some(level), needed: BTreeMap::new() };
    let context = Context {
        room_id: room_id!("!room:hs1"),
        user_id: user_id!("@alice:hs1"),
        joined_members: 3,
        display_name: Some("Alice (*)"),
        sender: &sender,
    };
    verdict(actions(rules, &subject(user_id!("@bob:hs1"), event_type, told), &context))
}

fn defaults() -> Ruleset {
    Ruleset::server_default(user_id!("@alice:hs1"))
}

#[test]
fn the_default_rules_notify_of_what_they_should() {
    let counts = |notify, highlight| Counts { notify, highlight };
    let text = |body: &str| json!({ "msgtype": "m.text", "body": body });
    let with = |mut content: Value, key: &str, value: Value| {
        content[key] = value;
        content
    };
    let mention = json!({ "user_ids": ["@alice:hs1"] });
    let edit = json!({ "rel_type": "m.replace", "event_id": "$other" });
    let room = json!({ "room": true });
    let notice = json!({ "msgtype": "m.notice", "body": "x" });
    for (event_type, content, level, expected) in [
        ("m.room.message", text("hi"), 0, counts(1, 0)),
        ("m.room.encrypted", json!({}), 0, counts(1, 0)),
        ("m.room.message", notice.clone(), 0, counts(0, 0)),
        ("m.room.message", with(notice, "m.mentions", mention.clone()), 0, counts(0, 0)),
        ("m.room.message", with(text("x"), "m.relates_to", edit.clone()), 0, counts(0, 0)),
        ("m.room.message", with(text("x"), "m.mentions", mention.clone()), 0, counts(1, 1)),
        ("m.room.message", with(text("x"), "m.mentions", room.clone()), 49, counts(1, 0)),
        ("m.room.message", with(text("x"), "m.mentions", room), 50, counts(1, 1)),
        ("m.reaction", json!({}), 0, counts(0, 0)),
        ("org.example.any", json!({}), 0, counts(0, 0)),
        ("org.example.any", json!({ "m.mentions": mention }), 0, counts(1, 1)),
    ] {
        let found = judge(&defaults(), event_type, &content, level);
        assert_eq!(found, expected, "{event_type} {content}");
    }
}

#[test]
fn words_are_found_between_other_characters() {
    for (text, word, expected) in [
        ("a cake!", "cake", true),
        ("cake", "cake", true),
        ("cakes", "cake", false),
        ("cheesecake", "cake", false),
        ("cheesecake cake", "cake", true),
        ("ba a a", "a a", true),
        ("grüße an alle", "an", true),
        ("überall", "rall", false),
        ("x@room", "@room", true),
        ("", "x", false),
        ("x", "", false),
    ] {
        assert_eq!(has_word(text, word), expected, "{word:?} in {text:?}");
    }
    for (text, pattern, expected) in [
        ("some cakes here", "cake*", true),
        ("some cake", "c?ke", true),
        ("some cookie", "c?ke", false),
        ("no pancake", "c?ke", false),
        ("a+b", "a+?", true),
    ] {
        assert_eq!(matches(text, pattern, true), expected, "{pattern:?} in {text:?}");
    }
    assert!(matches("!room:hs1", "!*:hs1", false));
    assert!(!matches("!room:hs1", "room", false));
}

#[test]
fn a_display_name_is_no_pattern() {
    let mut rules = defaults();
    rules.underride.clear();
    #[expect(deprecated, reason = "users may still have rules with it")]
    let condition = PushCondition::ContainsDisplayName;
    let rule = NewConditionalPushRule::new("name".into(), vec![condition], vec![Action::Notify]);
    rules.insert(NewPushRule::Override(rule), None, None).unwrap();
    let told = |body: &str| judge(&rules, "m.room.message", &json!({ "body": body }), 0).notify;
    assert_eq!(told("hey alice (*)!"), 1);
    assert_eq!(told("hey alice (x)!"), 0);
}

fn content_rules(patterns: impl Iterator<Item = String>) -> Ruleset {
    let mut rules = defaults();
    for pattern in patterns {
        let rule = NewPatternedPushRule::new(pattern.clone(), pattern, vec![Action::Notify]);
        rules.insert(NewPushRule::Content(rule), None, None).unwrap();
    }
    rules
}

#[test]
fn t88_long_keys_above_many_values_take_no_memory() {
    let values = |count: usize| -> Value {
        (0..count)
            .map(|number| (format!("{number}"), json!(1)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let content = |key: usize, count: usize| json!({ "msgtype": "m.text", "body": "hi", ".".repeat(key): values(count) });
    let body = |content: &Value| {
        subject(user_id!("@bob:hs1"), "m.room.message", content)
            .flat
            .get_str("content.body")
            .is_some()
    };
    assert!(body(&content(100, 3_000)));
    assert!(!body(&content(32_000, 4_600)));
    let mut empty = content(32_000, 4_600);
    for value in empty[".".repeat(32_000)].as_object_mut().unwrap().values_mut() {
        *value = json!({});
    }
    assert!(!body(&empty));
    // It counts as the message that it is by its type.
    assert_eq!(judge(&defaults(), "m.room.message", &content(32_000, 4_600), 0).notify, 1);
}

#[test]
fn t88_long_lists_use_up_what_rules_may_look_for() {
    let contains = |id: &str, value: i32| {
        let condition = EventPropertyContainsConditionData::new(
            "content.list".into(),
            ruma::Int::from(value).into(),
        );
        let conditions = vec![PushCondition::EventPropertyContains(condition)];
        NewConditionalPushRule::new(id.to_owned(), conditions, vec![Action::Notify])
    };
    let verdict = |rules: usize, elements: usize| {
        let mut all = defaults();
        all.insert(NewPushRule::Override(contains("last", 2)), None, None).unwrap();
        // Those that are added later come first.
        for number in 0..rules {
            let rule = contains(&number.to_string(), 3);
            all.insert(NewPushRule::Override(rule), None, None).unwrap();
        }
        let mut list = vec![1; elements];
        list.push(2);
        judge(&all, "org.example.list", &json!({ "list": list }), 0).notify
    };
    assert_eq!(verdict(5, 1_000), 1);
    assert_eq!(verdict(100, 10), 1);
    assert_eq!(verdict(5, 16_000), 0, "what is left over is not looked at");
    assert_eq!(verdict(300, 10), 0);
}

#[test]
fn t88_no_pattern_makes_a_long_text_expensive() {
    // The number of steps is bounded by constants; what is seen here is that nothing overflows,
    // panics or hangs.
    let notice = |body: String| json!({ "msgtype": "m.notice", "body": body });
    let mut rules = content_rules(
        (0..500)
            .map(|n| format!("{}{n}", "*a".repeat(n)))
            .chain((0..400).map(|n| "a".repeat(n + 1))),
    );
    for rule in ["?".repeat(1_000), "*a".repeat(500), "a?".repeat(500)] {
        let condition = EventMatchConditionData::new("content.formatted_body".into(), rule.clone());
        let rule = NewConditionalPushRule::new(rule, vec![condition.into()], vec![Action::Notify]);
        rules.insert(NewPushRule::Override(rule), None, None).unwrap();
    }
    rules.set_enabled(RuleKind::Override, ".m.rule.suppress_notices", false).unwrap();
    for text in ["aab ".repeat(15_000), "a".repeat(60_000), "ä!".repeat(20_000)] {
        let mut content = notice(text.clone());
        content["formatted_body"] = text.into();
        judge(&rules, "m.room.message", &content, 0);
    }
}

#[test]
fn t88_patterns_beyond_the_bounds_match_nothing() {
    assert!(compile(&"*a".repeat(WILDCARDS_MAX + 1), true).is_none());
    let many = (0..=BUDGET / PATTERN_COST).map(|n| format!("never{n}*"));
    let mut rules = content_rules(std::iter::once("last*".to_owned()).chain(many));
    rules.underride.clear();
    let content = json!({ "body": "lasting" });
    assert_eq!(judge(&rules, "m.room.message", &content, 0), Counts::ZERO);
    let many = (0..=BUDGET).map(|n| format!("never{n}"));
    let mut rules = content_rules(std::iter::once("lasting".to_owned()).chain(many));
    rules.underride.clear();
    assert_eq!(judge(&rules, "m.room.message", &content, 0), Counts::ZERO);
    let rules = content_rules(std::iter::once("last*".to_owned()));
    assert_eq!(judge(&rules, "org.example.any", &content, 0).notify, 1);
}

#[test]
fn disabled_rules_and_own_events_do_nothing() {
    let mut rules = defaults();
    let master = ConditionalPushRule::master();
    rules.set_enabled(RuleKind::Override, master.rule_id.as_str(), true).unwrap();
    assert_eq!(judge(&rules, "m.room.message", &json!({ "body": "x" }), 0), Counts::ZERO);
    let own = subject(user_id!("@alice:hs1"), "m.room.message", &json!({ "body": "x" }));
    let sender = SenderLevel::default();
    let context = Context {
        room_id: room_id!("!room:hs1"),
        user_id: user_id!("@alice:hs1"),
        joined_members: 2,
        display_name: None,
        sender: &sender,
    };
    assert!(actions(&defaults(), &own, &context).is_empty());
}

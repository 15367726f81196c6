//! Evaluating a set of push rules on an event.
//!
//! Rules, conditions and their types are ruma's. Matching words of a body is done here: the text is
//! from others and the patterns from users, so both have bounds and neither recursion nor a pattern
//! can be made to cost much (attack case T88).
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#push-rules>

use std::{
    borrow::Cow,
    collections::BTreeMap,
    future::Future,
    pin::pin,
    sync::{Arc, LazyLock},
    task::{Poll, Waker},
};

use quick_cache::sync::Cache;
use regex::{Regex, RegexBuilder};
use ruma::{
    EventId, OwnedUserId, RoomId, UserId,
    events::AnyTimelineEvent,
    push::{
        Action, AnyPushRuleRef, FlattenedJson, FlattenedJsonValue, PushCondition,
        PushConditionRoomCtx, Ruleset, ScalarJsonValue,
    },
    serde::Raw,
};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::storage::rows::push::Counts;

/// The rules that every user has to begin with: those of the specification.
///
/// Without those of MSC4306, which ruma has too: what threads a user follows is not counted by.
pub fn predefined(user_id: &UserId) -> Ruleset {
    let mut rules = Ruleset::server_default(user_id);
    rules.postcontent.clear();
    rules
}

/// How much of a text is looked at for words and wildcards.
const TEXT_BYTES_MAX: usize = 8 * 1024;
/// How many places of a text are tried for one word.
const PLACES_MAX: usize = 64;
/// How many wildcards a pattern may have; one with more matches nothing.
const WILDCARDS_MAX: usize = 20;
/// How much one set of rules may look for in one event: so many words and short lists, or fewer where
/// patterns with wildcards or long lists are among them.
const BUDGET: usize = 256;
/// What a pattern with wildcards costs of that.
const PATTERN_COST: usize = 16;
/// How many bytes the paths of an event's values may take; of one with more, only what is outside of its
/// content is looked at.
const FLAT_BYTES_MAX: usize = 1024 * 1024;
/// How many elements of a list are compared for one of it.
const ELEMENTS_PER_COST: usize = 64;
/// How large a compiled pattern may be.
const COMPILED_BYTES_MAX: usize = 256 * 1024;
/// How many compiled patterns are kept.
const COMPILED_KEPT: usize = 512;
/// The level that `@room` needs where the room does not say.
const ROOM_LEVEL_DEFAULT: i64 = 50;

static COMPILED: LazyLock<Cache<String, Arc<Option<Regex>>>> =
    LazyLock::new(|| Cache::new(COMPILED_KEPT));

/// The parts of an event that rules look at.
#[derive(Clone, Copy, Debug)]
pub struct EventParts<'a> {
    /// Its id.
    pub event_id: &'a EventId,
    /// Its room.
    pub room_id: &'a RoomId,
    /// Who sent it.
    pub sender: &'a UserId,
    /// Its type.
    pub event_type: &'a str,
    /// Its state key.
    pub state_key: Option<&'a str>,
    /// When it was sent, by its own account.
    pub origin_server_ts: u64,
    /// Its content.
    pub content: &'a RawValue,
}

/// An event, made ready for rules.
#[derive(Debug)]
pub struct Subject {
    sender: OwnedUserId,
    flat: FlattenedJson,
    /// The body in small letters.
    body: Option<String>,
}

/// What rules ask about the room and the user.
#[derive(Clone, Debug)]
pub struct Context<'a> {
    /// The room.
    pub room_id: &'a RoomId,
    /// The user.
    pub user_id: &'a UserId,
    /// How many users have joined.
    pub joined_members: u64,
    /// The user's name in the room.
    pub display_name: Option<&'a str>,
    /// What the sender may do.
    pub sender: &'a SenderLevel,
}

/// What the sender of an event may notify a room of.
#[derive(Clone, Debug, Default)]
pub struct SenderLevel {
    /// The sender's power level; `None` for one above all levels.
    pub level: Option<i64>,
    /// The levels that the room asks for.
    pub needed: BTreeMap<String, i64>,
}

impl SenderLevel {
    fn allows(&self, key: &str) -> bool {
        let default = (key == "room").then_some(ROOM_LEVEL_DEFAULT);
        let Some(needed) = self.needed.get(key).copied().or(default) else { return false };
        self.level.is_none_or(|level| level >= needed)
    }
}

impl Subject {
    /// Makes an event ready; `None` when it cannot be read.
    pub fn new(parts: EventParts<'_>) -> Option<Self> {
        #[derive(Serialize)]
        struct Wire<'a> {
            #[serde(rename = "type")]
            event_type: &'a str,
            event_id: &'a EventId,
            room_id: &'a RoomId,
            sender: &'a UserId,
            origin_server_ts: u64,
            #[serde(skip_serializing_if = "Option::is_none")]
            state_key: Option<&'a str>,
            content: &'a RawValue,
        }
        let EventParts {
            event_type,
            event_id,
            room_id,
            sender,
            origin_server_ts,
            state_key,
            content,
        } = parts;
        // Nested too deeply, it could not be flattened either.
        let value: serde_json::Value = serde_json::from_str(content.get()).ok()?;
        let nothing = RawValue::NULL;
        let content = if flat_bytes(&value, 0) > FLAT_BYTES_MAX { nothing } else { content };
        let wire =
            Wire { event_type, event_id, room_id, sender, origin_server_ts, state_key, content };
        let json = to_raw_value(&wire).ok()?;
        let flat = FlattenedJson::from_raw(&Raw::<AnyTimelineEvent>::from_json(json));
        let body = flat.get_str("content.body").map(|body| bounded(body).to_lowercase());
        Some(Self { sender: sender.to_owned(), flat, body })
    }

    /// Who sent it.
    pub fn sender(&self) -> &UserId {
        &self.sender
    }

    /// The users whom the event mentions, as it names them.
    pub fn mentions(&self) -> Vec<&str> {
        let users = self.flat.get(r"content.m\.mentions.user_ids");
        let users = users.and_then(|users| users.as_array()).unwrap_or_default();
        users.iter().filter_map(ScalarJsonValue::as_str).collect()
    }

    /// Whether the event is meant for the whole room.
    pub fn mentions_room(&self) -> bool {
        let room = self.flat.get(r"content.m\.mentions.room");
        room.is_some_and(|room| room.as_bool() == Some(true))
    }
}

/// What a set of rules does with an event: the actions of the first rule that applies.
pub fn actions<'r>(rules: &'r Ruleset, subject: &Subject, context: &Context<'_>) -> &'r [Action] {
    if subject.sender == *context.user_id {
        return &[];
    }
    let ruma = PushConditionRoomCtx::new(
        context.room_id.to_owned(),
        context.joined_members.try_into().unwrap_or(ruma::UInt::MAX),
        context.user_id.to_owned(),
        context.display_name.unwrap_or_default().to_owned(),
    );
    let mut evaluation = Evaluation { subject, context, ruma, budget: BUDGET };
    rules
        .iter()
        .find(|rule| rule.enabled() && evaluation.applies(*rule))
        .map_or(&[], AnyPushRuleRef::actions)
}

/// What actions count for.
pub fn verdict(actions: &[Action]) -> Counts {
    if !actions.iter().any(Action::should_notify) {
        return Counts::ZERO;
    }
    Counts { notify: 1, highlight: i64::from(actions.iter().any(Action::is_highlight)) }
}

struct Evaluation<'a> {
    subject: &'a Subject,
    context: &'a Context<'a>,
    ruma: PushConditionRoomCtx,
    /// What is left of [`BUDGET`].
    budget: usize,
}

impl Evaluation<'_> {
    fn applies(&mut self, rule: AnyPushRuleRef<'_>) -> bool {
        match rule {
            AnyPushRuleRef::Override(rule)
            | AnyPushRuleRef::Underride(rule)
            | AnyPushRuleRef::PostContent(rule) => {
                rule.conditions.iter().all(|condition| self.holds(condition))
            }
            AnyPushRuleRef::Content(rule) => self.body_has(&rule.pattern),
            AnyPushRuleRef::Room(rule) => rule.rule_id == *self.context.room_id,
            AnyPushRuleRef::Sender(rule) => rule.rule_id == self.subject.sender,
            _ => false,
        }
    }

    fn holds(&mut self, condition: &PushCondition) -> bool {
        let flat = &self.subject.flat;
        #[expect(deprecated, reason = "users may still have rules with it")]
        match condition {
            PushCondition::EventMatch(data) if data.key == "content.body" => {
                self.body_has(&data.pattern)
            }
            PushCondition::EventMatch(data) if data.key == "room_id" => {
                self.glob(&data.pattern, self.context.room_id.as_str())
            }
            PushCondition::EventMatch(data) => {
                flat.get_str(&data.key).is_some_and(|text| self.glob(&data.pattern, text))
            }
            PushCondition::ContainsDisplayName => {
                let Some(body) = &self.subject.body else { return false };
                let name = self.context.display_name.unwrap_or_default();
                self.affords(1) && has_word(body, &lowered(bounded(name)))
            }
            PushCondition::SenderNotificationPermission(data) => {
                self.context.sender.allows(data.key.as_ref())
            }
            PushCondition::EventPropertyContains(data) => {
                // Each element is compared.
                let elements = match flat.get(&data.key) {
                    Some(FlattenedJsonValue::Array(elements)) => elements.len(),
                    _ => return false,
                };
                self.affords(1 + elements / ELEMENTS_PER_COST)
                    && now(condition.applies(flat, &self.ruma)).unwrap_or(false)
            }
            condition => now(condition.applies(flat, &self.ruma)).unwrap_or(false),
        }
    }

    fn body_has(&mut self, pattern: &str) -> bool {
        let Some(body) = &self.subject.body else { return false };
        if !pattern.contains(['*', '?']) {
            return self.affords(1) && has_word(body, &lowered(pattern));
        }
        self.affords(PATTERN_COST) && matches(body, &lowered(pattern), true)
    }

    fn glob(&mut self, pattern: &str, text: &str) -> bool {
        if !pattern.contains(['*', '?']) {
            // Ends at the first difference, and with the shorter one: whatever the text is, this
            // costs no more than the pattern is long.
            let pattern = pattern.chars().flat_map(char::to_lowercase);
            return pattern.eq(text.chars().flat_map(char::to_lowercase));
        }
        self.affords(PATTERN_COST) && matches(&lowered(bounded(text)), &lowered(pattern), false)
    }

    /// Takes this off the budget; false once it is used up.
    fn affords(&mut self, cost: usize) -> bool {
        let left = self.budget.checked_sub(cost);
        self.budget = left.unwrap_or(0);
        left.is_some()
    }
}

/// Runs a future that has nothing to wait for.
fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut context = std::task::Context::from_waker(Waker::noop());
    match pin!(future).poll(&mut context) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// In small letters; most patterns are so already.
fn lowered(text: &str) -> Cow<'_, str> {
    let is_small = |character: char| character.to_lowercase().eq([character]);
    if text.chars().all(is_small) { Cow::Borrowed(text) } else { Cow::Owned(text.to_lowercase()) }
}

fn bounded(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

/// How many bytes the paths of all values take once each stands by itself. A long key above many short
/// ones would take hundreds of megabytes.
fn flat_bytes(value: &serde_json::Value, path: usize) -> usize {
    match value {
        // One without fields stands by itself, as other values do.
        serde_json::Value::Object(fields) if !fields.is_empty() => {
            fields.iter().fold(0, |sum: usize, (key, value)| {
                let escapes = key.bytes().filter(|byte| b".\\".contains(byte)).count();
                sum.saturating_add(flat_bytes(value, path + 1 + key.len() + escapes))
            })
        }
        _ => path,
    }
}

/// Whether a word (or several) stands in a text between other characters than those of words.
fn has_word(text: &str, word: &str) -> bool {
    let is_word = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let (Some(first), Some(last)) = (word.chars().next(), word.chars().next_back()) else {
        return false;
    };
    let mut from = 0;
    for _ in 0..PLACES_MAX {
        let Some(found) = text[from..].find(word) else { return false };
        let (start, end) = (from + found, from + found + word.len());
        let before = text[..start].chars().next_back();
        let after = text[end..].chars().next();
        let begins = !is_word(first) || !before.is_some_and(is_word);
        let ends = !is_word(last) || !after.is_some_and(is_word);
        if begins && ends {
            return true;
        }
        from = start + first.len_utf8();
    }
    false
}

/// Whether a pattern with wildcards matches: a text as a whole, or words in it.
fn matches(text: &str, pattern: &str, words: bool) -> bool {
    let key = format!("{}{pattern}", if words { 'w' } else { 'g' });
    let compiled = COMPILED.get(&key).unwrap_or_else(|| {
        let compiled = Arc::new(compile(pattern, words));
        COMPILED.insert(key, compiled.clone());
        compiled
    });
    compiled.as_ref().as_ref().is_some_and(|compiled| compiled.is_match(text))
}

fn compile(pattern: &str, words: bool) -> Option<Regex> {
    if pattern.matches(['*', '?']).count() > WILDCARDS_MAX {
        return None;
    }
    let mut text = String::new();
    for character in pattern.chars() {
        match character {
            '*' => text.push_str(".*"),
            '?' => text.push('.'),
            other => text.push_str(&regex::escape(other.encode_utf8(&mut [0; 4]))),
        }
    }
    let text = if words {
        format!(r"(?s)(?:^|[^A-Za-z0-9_]){text}(?:[^A-Za-z0-9_]|$)")
    } else {
        format!("(?s)^{text}$")
    };
    RegexBuilder::new(&text)
        .size_limit(COMPILED_BYTES_MAX)
        .dfa_size_limit(COMPILED_BYTES_MAX)
        .build()
        .ok()
}

#[cfg(test)]
mod tests;

//! Push rules: kept as the account data `m.push_rules`, changed rule by rule.
//!
//! The predefined rules are those of the program; what a user changed about them (on or off, and
//! the actions) is kept. All checks of size come before a change is made.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#push-rules>

use ruma::{
    UserId,
    push::{Action, AnyPushRuleRef, NewPushRule, RuleKind, Ruleset},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::account_data::{AccountData, PUSH_RULES, push_rules_content};
use crate::{error::ApiError, push::rules::predefined};

/// The longest id of a rule.
const RULE_ID_BYTES_MAX: usize = 255;
/// The largest rule: conditions, pattern and actions as JSON.
const RULE_BYTES_MAX: usize = 1_024;

/// Where a rule goes among the others of its kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RulePlace {
    /// Right before this one.
    pub before: Option<String>,
    /// Right after this one.
    pub after: Option<String>,
}

/// Reads and changes push rules.
#[derive(Clone)]
pub struct PushRules {
    account_data: AccountData,
    rules_max: usize,
}

impl PushRules {
    pub(super) fn new(account_data: AccountData, rules_max: usize) -> Self {
        Self { account_data, rules_max }
    }

    /// All rules of a user.
    pub async fn get(&self, user_id: &UserId) -> Result<Ruleset, ApiError> {
        let content = self.account_data.get(user_id, None, PUSH_RULES).await?;
        parse(user_id, content.as_deref())
    }

    /// Adds a rule, or replaces the one with its id.
    pub async fn set(
        &self,
        user_id: &UserId,
        rule: NewPushRule,
        place: &RulePlace,
    ) -> Result<(), ApiError> {
        check_new_rule(&rule)?;
        self.change(user_id, |rules| insert(rules, rule.clone(), (place, self.rules_max))).await
    }

    /// Removes a rule that the user added.
    pub async fn remove(
        &self,
        user_id: &UserId,
        kind: RuleKind,
        rule_id: &str,
    ) -> Result<(), ApiError> {
        self.change(user_id, |rules| {
            if find(rules, &kind, rule_id)?.is_server_default() {
                return Err(ApiError::invalid_param("A predefined rule cannot be removed"));
            }
            rules.remove(kind.clone(), rule_id).map_err(|_| no_rule())
        })
        .await
    }

    /// Turns a rule on or off.
    pub async fn set_enabled(
        &self,
        user_id: &UserId,
        kind: RuleKind,
        rule_id: &str,
        enabled: bool,
    ) -> Result<(), ApiError> {
        self.change(user_id, |rules| {
            find(rules, &kind, rule_id)?;
            rules.set_enabled(kind.clone(), rule_id, enabled).map_err(|_| no_rule())
        })
        .await
    }

    /// Replaces what a rule does.
    pub async fn set_actions(
        &self,
        user_id: &UserId,
        kind: RuleKind,
        rule_id: &str,
        actions: Vec<Action>,
    ) -> Result<(), ApiError> {
        check_size(&actions)?;
        self.change(user_id, |rules| {
            find(rules, &kind, rule_id)?;
            rules.set_actions(kind.clone(), rule_id, actions.clone()).map_err(|_| no_rule())
        })
        .await
    }

    async fn change(
        &self,
        user_id: &UserId,
        change: impl Fn(&mut Ruleset) -> Result<(), ApiError>,
    ) -> Result<(), ApiError> {
        let changed = self.account_data.update(user_id, None, PUSH_RULES, |content| {
            let mut rules = parse(user_id, content)?;
            change(&mut rules)?;
            Ok(push_rules_content(&rules))
        });
        changed.await.map(|_| ())
    }
}

/// A rule by its kind and id.
pub fn find<'a>(
    rules: &'a Ruleset,
    kind: &RuleKind,
    rule_id: &str,
) -> Result<AnyPushRuleRef<'a>, ApiError> {
    match kind {
        RuleKind::Override
        | RuleKind::Underride
        | RuleKind::Content
        | RuleKind::Room
        | RuleKind::Sender => rules.get(kind.clone(), rule_id).ok_or_else(no_rule),
        _ => Err(ApiError::invalid_param("There is no such kind of rule")),
    }
}

fn no_rule() -> ApiError {
    ApiError::not_found("There is no such push rule")
}

fn parse(user_id: &UserId, content: Option<&RawValue>) -> Result<Ruleset, ApiError> {
    #[derive(Deserialize)]
    struct Content {
        global: Ruleset,
    }
    let defaults = predefined(user_id);
    let Some(content) = content else { return Ok(defaults) };
    let content: Content = serde_json::from_str(content.get()).map_err(ApiError::internal)?;
    let mut rules = content.global;
    rules.update_with_server_default(defaults);
    // What was stored while they were served.
    rules.postcontent.clear();
    Ok(rules)
}

fn check_new_rule(rule: &NewPushRule) -> Result<(), ApiError> {
    let rule_id = rule.rule_id();
    let allowed = !rule_id.is_empty()
        && rule_id.len() <= RULE_ID_BYTES_MAX
        && !rule_id.starts_with('.')
        && !rule_id.contains(['/', '\\']);
    if !allowed {
        return Err(ApiError::invalid_param("Not a valid id of a push rule"));
    }
    match rule {
        NewPushRule::Override(rule) | NewPushRule::Underride(rule) => {
            check_size(&(&rule.conditions, &rule.actions))
        }
        NewPushRule::Content(rule) => check_size(&(&rule.pattern, &rule.actions)),
        NewPushRule::Room(rule) => check_size(&rule.actions),
        NewPushRule::Sender(rule) => check_size(&rule.actions),
        _ => Err(ApiError::invalid_param("There is no such kind of rule")),
    }
}

fn check_size(rule: &impl Serialize) -> Result<(), ApiError> {
    let size = serde_json::to_vec(rule).map_err(ApiError::internal)?.len();
    if size > RULE_BYTES_MAX {
        return Err(ApiError::invalid_param("The push rule is too large"));
    }
    Ok(())
}

fn insert(
    rules: &mut Ruleset,
    rule: NewPushRule,
    (place, rules_max): (&RulePlace, usize),
) -> Result<(), ApiError> {
    let (kind, rule_id) = (rule.kind(), rule.rule_id().to_owned());
    let is_new = rules.get(kind.clone(), &rule_id).is_none();
    if is_new && rules.iter().filter(|rule| !rule.is_server_default()).count() >= rules_max {
        return Err(ApiError::invalid_param("There are too many push rules"));
    }
    // Found before anything changes: ruma's own placing panics at the end of the list.
    let target = target_index(&ids(rules, &kind), &rule_id, place)?;
    rules.insert(rule, None, None).map_err(|error| ApiError::invalid_param(error.to_string()))?;
    if let Some(to) = target {
        move_rule(rules, &kind, &rule_id, to);
    }
    Ok(())
}

/// The index at which a rule ends up that was placed; `None` where it was not.
fn target_index(
    ids: &[String],
    rule_id: &str,
    place: &RulePlace,
) -> Result<Option<usize>, ApiError> {
    let index = |other: &String| {
        if other.starts_with('.') || other == rule_id {
            let message = "A rule cannot be placed by a predefined one or by itself";
            return Err(ApiError::invalid_param(message));
        }
        let mut others = ids.iter().filter(|id| *id != rule_id);
        others.position(|id| id == other).ok_or_else(no_rule)
    };
    let after = place.after.as_ref().map(index).transpose()?.map(|index| index + 1);
    let before = place.before.as_ref().map(index).transpose()?;
    match (after, before) {
        (Some(after), Some(before)) if before < after => {
            Err(ApiError::invalid_param("`before` comes before `after`"))
        }
        (_, Some(before)) => Ok(Some(before)),
        (after, None) => Ok(after),
    }
}

fn ids(rules: &Ruleset, kind: &RuleKind) -> Vec<String> {
    match kind {
        RuleKind::Override => rules.override_.iter().map(|rule| rule.rule_id.clone()).collect(),
        RuleKind::Underride => rules.underride.iter().map(|rule| rule.rule_id.clone()).collect(),
        RuleKind::Content => rules.content.iter().map(|rule| rule.rule_id.clone()).collect(),
        RuleKind::Room => rules.room.iter().map(|rule| rule.rule_id.to_string()).collect(),
        RuleKind::Sender => rules.sender.iter().map(|rule| rule.rule_id.to_string()).collect(),
        _ => Vec::new(),
    }
}

fn move_rule(rules: &mut Ruleset, kind: &RuleKind, rule_id: &str, to: usize) {
    let Some(from) = ids(rules, kind).iter().position(|id| id == rule_id) else { return };
    match kind {
        RuleKind::Override => rules.override_.move_index(from, to),
        RuleKind::Underride => rules.underride.move_index(from, to),
        RuleKind::Content => rules.content.move_index(from, to),
        RuleKind::Room => rules.room.move_index(from, to),
        RuleKind::Sender => rules.sender.move_index(from, to),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use ruma::{
        push::{NewPatternedPushRule, NewPushRule},
        user_id,
    };

    use super::*;

    fn rule(id: &str) -> NewPushRule {
        NewPushRule::Content(NewPatternedPushRule::new(id.to_owned(), id.to_owned(), Vec::new()))
    }

    fn place(before: &str, after: &str) -> RulePlace {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        RulePlace { before: some(before), after: some(after) }
    }

    fn order(rules: &Ruleset) -> String {
        ids(rules, &RuleKind::Content).into_iter().filter(|id| !id.starts_with('.')).collect()
    }

    fn abc() -> Ruleset {
        let mut rules = Ruleset::server_default(user_id!("@alice:example.org"));
        for id in ["c", "b", "a"] {
            insert(&mut rules, rule(id), (&RulePlace::default(), 1_000)).unwrap();
        }
        assert_eq!(order(&rules), "abc");
        rules
    }

    #[test]
    fn t88_rules_are_placed_also_first_and_last() {
        for (id, before, after, expected) in [
            ("x", "a", "", "xabc"),
            ("x", "", "c", "abcx"),
            ("x", "c", "a", "abxc"),
            ("a", "", "c", "bca"),
            ("c", "a", "", "cab"),
            ("b", "", "", "abc"),
        ] {
            let mut rules = abc();
            insert(&mut rules, rule(id), (&place(before, after), 1_000)).unwrap();
            assert_eq!(order(&rules), expected, "{id} before {before:?} after {after:?}");
        }
    }

    #[test]
    fn t88_wrong_places_are_refused_and_change_nothing() {
        for (before, after, errcode) in [
            ("x", "", "M_INVALID_PARAM"),
            ("", "x", "M_INVALID_PARAM"),
            (".m.rule.contains_user_name", "", "M_INVALID_PARAM"),
            ("missing", "", "M_NOT_FOUND"),
            ("a", "c", "M_INVALID_PARAM"),
        ] {
            let mut rules = abc();
            let error = insert(&mut rules, rule("x"), (&place(before, after), 1_000)).unwrap_err();
            assert_eq!(error.errcode, errcode);
            assert_eq!(order(&rules), "abc");
        }
    }

    #[test]
    fn t88_the_number_and_size_of_rules_are_bounded() {
        let mut rules = Ruleset::server_default(user_id!("@alice:example.org"));
        for number in 0..10 {
            insert(&mut rules, rule(&number.to_string()), (&RulePlace::default(), 10)).unwrap();
        }
        assert!(insert(&mut rules, rule("more"), (&RulePlace::default(), 10)).is_err());
        insert(&mut rules, rule("0"), (&RulePlace::default(), 10)).unwrap();
        check_new_rule(&rule(&"x".repeat(255))).unwrap();
        assert!(check_new_rule(&rule(&"x".repeat(256))).is_err());
        assert!(check_new_rule(&rule(".m.rule.mine")).is_err());
        let pattern = "*a".repeat(500);
        let large =
            NewPatternedPushRule::new("x".to_owned(), pattern + "0123456789012345678", Vec::new());
        assert!(check_new_rule(&NewPushRule::Content(large)).is_err());
    }
}

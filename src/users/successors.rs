//! What a user set for a room goes with them to the room that took its place: its tags, that it is a
//! direct chat, and the push rules about it.
//!
//! Only where the old room itself names the new one (attack case T83). Nothing is taken from the old
//! room, and nothing that the user set for the new one is overwritten, so it may be done again.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-upgrades>

use ruma::{
    OwnedRoomId, RoomId, UserId,
    push::{
        ConditionalPushRule, NewConditionalPushRule, NewPushRule, NewSimplePushRule, PushCondition,
    },
};
use serde_json::{
    Map, Value, json,
    value::{RawValue, to_raw_value},
};

use super::{RulePlace, Users};
use crate::{
    error::ApiError,
    rooms::{Room, Rooms},
};

const TAGS: &str = "m.tag";
const DIRECT: &str = "m.direct";

/// Takes a user's settings of the room before over to a room that they have joined. What fails is
/// logged: the join itself stands.
pub async fn carry_over(users: &Users, rooms: &Rooms, room: &Room, user_id: &UserId) {
    let result = match rooms.predecessor_of(room, user_id).await {
        Ok(Some(old)) => copy(users, user_id, &old.id, &room.id).await,
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = result {
        tracing::warn!(%error, room = %room.id, "settings of the room before were not taken over");
    }
}

async fn copy(users: &Users, user_id: &UserId, old: &RoomId, new: &RoomId) -> Result<(), ApiError> {
    let data = users.account_data();
    if let Some(tags) = data.get(user_id, Some(old), TAGS).await?
        && data.get(user_id, Some(new), TAGS).await?.is_none()
    {
        data.set(user_id, Some(new), TAGS, &tags).await?;
    }
    if let Some(direct) = data.get(user_id, None, DIRECT).await?
        && with_direct(&direct, old, new).is_some()
    {
        data.update(user_id, None, DIRECT, |content| {
            let content = content.map_or_else(|| direct.clone(), ToOwned::to_owned);
            let Some(changed) = with_direct(&content, old, new) else { return Ok(content) };
            to_raw_value(&changed).map_err(ApiError::internal)
        })
        .await?;
    }
    copy_push_rules(users, user_id, old, new).await
}

/// The direct chats with the new room beside the old one; `None`: nothing changes.
fn with_direct(content: &RawValue, old: &RoomId, new: &RoomId) -> Option<Map<String, Value>> {
    let mut chats: Map<String, Value> = serde_json::from_str(content.get()).ok()?;
    let mut changed = false;
    for rooms in chats.values_mut().filter_map(Value::as_array_mut) {
        if rooms.iter().any(|room| room == old.as_str())
            && !rooms.iter().any(|room| room == new.as_str())
        {
            rooms.push(json!(new));
            changed = true;
        }
    }
    changed.then_some(chats)
}

async fn copy_push_rules(
    users: &Users,
    user_id: &UserId,
    old: &RoomId,
    new: &RoomId,
) -> Result<(), ApiError> {
    let rules = users.push_rules().get(user_id).await?;
    let mut added = Vec::new();
    let new_id = OwnedRoomId::from(new);
    if let Some(rule) = rules.room.get(old.as_str())
        && !rules.room.contains(new.as_str())
    {
        let rule = NewSimplePushRule::new(new_id.clone(), rule.actions.clone());
        added.push(NewPushRule::Room(rule));
    }
    let moved = |rule: &ConditionalPushRule| moved_rule(rule, old, new);
    let known = |rule_id: &str| {
        rules.override_.iter().chain(&rules.underride).any(|rule| rule.rule_id == rule_id)
    };
    let of_override = rules.override_.iter().filter_map(moved).map(NewPushRule::Override);
    let of_underride = rules.underride.iter().filter_map(moved).map(NewPushRule::Underride);
    added.extend(of_override.chain(of_underride).filter(|rule| !known(rule.rule_id())));
    for rule in added {
        users.push_rules().set(user_id, rule, &RulePlace::default()).await?;
    }
    Ok(())
}

/// A rule that asks for the old room, asking for the new one. Clients name the rule that mutes a room
/// by the room's id.
fn moved_rule(
    rule: &ConditionalPushRule,
    old: &RoomId,
    new: &RoomId,
) -> Option<NewConditionalPushRule> {
    let mut moved = false;
    let conditions = rule
        .conditions
        .iter()
        .map(|condition| match condition {
            PushCondition::EventMatch(data) if data.key == "room_id" && data.pattern == *old => {
                moved = true;
                let mut data = data.clone();
                data.pattern = new.to_string();
                PushCondition::EventMatch(data)
            }
            other => other.clone(),
        })
        .collect();
    let rule_id = rule.rule_id.replace(old.as_str(), new.as_str());
    let named = rule_id != rule.rule_id;
    let rule_id = if named { rule_id } else { format!("{rule_id}_{new}") };
    let is_own = !rule.default && rule.enabled;
    (moved && is_own)
        .then(|| NewConditionalPushRule::new(rule_id, conditions, rule.actions.clone()))
}

#[cfg(test)]
mod tests {
    use ruma::room_id;

    use super::*;

    #[test]
    fn a_direct_chat_stays_one() {
        let (old, new) = (room_id!("!old:hs1"), room_id!("!new:hs1"));
        let content = json!({ "@a:hs1": ["!old:hs1"], "@b:hs1": ["!x:hs1"], "bad": 1 });
        let raw = to_raw_value(&content).unwrap();
        let changed = with_direct(&raw, old, new).unwrap();
        assert_eq!(changed["@a:hs1"], json!(["!old:hs1", "!new:hs1"]));
        assert_eq!(changed["@b:hs1"], json!(["!x:hs1"]));
        assert_eq!(with_direct(&to_raw_value(&changed).unwrap(), old, new), None);
    }
}

//! Restricted rooms: who may come in because of another room, and who vouches for it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#restricted-rooms>

use kv::Direction;
use ruma::{OwnedRoomId, OwnedUserId, UserId};
use serde::Deserialize;

use crate::{
    error::ApiError,
    rooms::{draft::Draft, levels::Action},
    storage::{
        rows::Membership,
        schema::rooms::{MEMBERS, MEMBERSHIPS, MembershipKey},
    },
};

/// How many members are looked at to find one who may invite.
const MEMBERS_TRIED_MAX: usize = 1000;

/// The condition of a join rule.
#[derive(Deserialize)]
struct Allow {
    #[serde(rename = "type")]
    kind: String,
    room_id: Option<OwnedRoomId>,
}

#[derive(Deserialize)]
struct JoinRules {
    join_rule: String,
    #[serde(default)]
    allow: Vec<serde_json::Value>,
}

/// The member who vouches for a user that joins a restricted room, where one is needed.
///
/// # Errors
/// 403 when the user is in none of the rooms that the rule names, or nobody here may invite.
pub(in crate::rooms) fn authorizer(
    draft: &Draft<'_>,
    user_id: &UserId,
) -> Result<Option<OwnedUserId>, ApiError> {
    let Some(rules) = draft.current("m.room.join_rules", "")? else {
        return Ok(None);
    };
    let Ok(rules) = serde_json::from_str::<JoinRules>(rules.pdu.content().get()) else {
        return Ok(None);
    };
    let restricted = matches!(rules.join_rule.as_str(), "restricted" | "knock_restricted");
    if !restricted || !draft.room.rules.authorization.restricted_join_rule {
        return Ok(None);
    }
    if draft.membership(user_id.as_str())? == Membership::Invite {
        return Ok(None);
    }
    if !is_allowed(draft, user_id, rules.allow)? {
        return Err(ApiError::forbidden("You are in none of the rooms that open this room"));
    }
    match member_who_may_invite(draft)? {
        Some(member) => Ok(Some(member)),
        None => Err(ApiError::forbidden("Nobody on this server can let you into this room")),
    }
}

fn is_allowed(
    draft: &Draft<'_>,
    user_id: &UserId,
    allow: Vec<serde_json::Value>,
) -> Result<bool, ApiError> {
    // A condition of a kind that is unknown here opens nothing.
    let conditions =
        allow.into_iter().filter_map(|value| serde_json::from_value::<Allow>(value).ok());
    for condition in conditions.filter(|condition| condition.kind == "m.room_membership") {
        let Some(room_id) = condition.room_id else { continue };
        let room = draft.rooms.interner().room(&room_id);
        let key = MembershipKey { user_id: user_id.to_string(), room };
        let row = draft.reader.get(&MEMBERSHIPS, &key)?;
        if row.is_some_and(|row| row.membership == Membership::Join) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whoever is named in the power levels or created the room is asked first; any member will do
/// where everybody may invite.
fn member_who_may_invite(draft: &Draft<'_>) -> Result<Option<OwnedUserId>, ApiError> {
    let levels = draft.levels()?;
    let server_name = draft.rooms.server_name();
    for user_id in levels.named()? {
        if user_id.server_name() == server_name
            && draft.membership(user_id.as_str())? == Membership::Join
            && levels.may(&user_id, Action::Invite)?
        {
            return Ok(Some(user_id));
        }
    }
    if !levels.may_by_default(Action::Invite)? {
        return Ok(None);
    }
    let joined = MEMBERS.prefix(&(draft.room.nid, Membership::Join as u8));
    let members = draft.reader.scan(&MEMBERS, &joined, Direction::Forward, MEMBERS_TRIED_MAX)?;
    for (key, _) in members {
        let Ok(member) = OwnedUserId::try_from(key.user_id) else { continue };
        if member.server_name() == server_name && levels.may(&member, Action::Invite)? {
            return Ok(Some(member));
        }
    }
    Ok(None)
}

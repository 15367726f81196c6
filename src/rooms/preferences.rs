//! Whom a user does not want to hear from: ignored users, and who may invite.
//!
//! Both stand in the account data of `users`, which is read here and not written: the rooms ask for
//! it whenever somebody of this server is invited, and whenever history is shown.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#invite-permission>

use std::collections::HashSet;

use kv::{Position, Reader};
use ruma::UserId;
use serde::{Deserialize, de::DeserializeOwned};

use super::Rooms;
use crate::{
    error::ApiError,
    id::{Interner, UserNid},
    storage::{
        account_data::{self, IGNORED_USERS},
        schema::users::ACCOUNT_DATA,
    },
};

/// Whether any invite is wanted at all (MSC4380).
pub const INVITE_PERMISSION: &str = "m.invite_permission_config";
/// From whom invites are wanted (MSC4155).
pub const INVITE_RULES: &str = "org.matrix.msc4155.invite_permission_config";

/// How many patterns of one list are looked at.
const PATTERNS_MAX: usize = 2_000;

/// What is done with an invite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InviteDecision {
    /// The user gets it.
    Allow,
    /// It is made, and the user is not told.
    Ignore,
    /// It is refused.
    Block,
}

/// <https://github.com/matrix-org/matrix-spec-proposals/pull/4155>
#[derive(Default, Deserialize)]
#[serde(default)]
struct InviteRules {
    enabled: Option<bool>,
    allowed_users: Vec<String>,
    ignored_users: Vec<String>,
    blocked_users: Vec<String>,
    allowed_servers: Vec<String>,
    ignored_servers: Vec<String>,
    blocked_servers: Vec<String>,
}

impl InviteRules {
    /// Users come before servers, and what is allowed before what is not.
    fn decide(&self, sender: &UserId) -> InviteDecision {
        use InviteDecision::{Allow, Block, Ignore};
        if self.enabled == Some(false) {
            return Allow;
        }
        let (user, server) = (sender.as_str(), sender.server_name().host());
        let lists = [
            (&self.allowed_users, user, Allow),
            (&self.ignored_users, user, Ignore),
            (&self.blocked_users, user, Block),
            (&self.allowed_servers, server, Allow),
            (&self.ignored_servers, server, Ignore),
            (&self.blocked_servers, server, Block),
        ];
        let matching = lists.into_iter().find(|(patterns, name, _)| {
            patterns.iter().take(PATTERNS_MAX).any(|pattern| is_match(pattern, name))
        });
        matching.map_or(Allow, |(.., decision)| decision)
    }
}

/// What a user of this server wants of invites, read once for many of them.
pub struct InviteWishes {
    blocks_all: bool,
    rules: Option<InviteRules>,
    ignored: HashSet<UserNid>,
    interner: Interner,
}

impl InviteWishes {
    /// Reads what a user wants.
    pub fn read(
        interner: &Interner,
        reader: &Reader<'_>,
        user_id: &UserId,
    ) -> Result<Self, ApiError> {
        #[derive(Deserialize)]
        struct Permission {
            default_action: Option<String>,
        }
        let permission = content::<Permission>(reader, user_id, INVITE_PERMISSION)?;
        let action = permission.and_then(|permission| permission.default_action);
        Ok(Self {
            blocks_all: action.as_deref() == Some("block"),
            rules: content(reader, user_id, INVITE_RULES)?,
            ignored: ignored_users(interner, reader, user_id)?,
            interner: *interner,
        })
    }

    /// What is done with an invite by somebody.
    pub fn decide(&self, sender: &UserId) -> InviteDecision {
        if self.blocks_all {
            return InviteDecision::Block;
        }
        let rules = self.rules.as_ref();
        match rules.map_or(InviteDecision::Allow, |rules| rules.decide(sender)) {
            InviteDecision::Allow if self.ignored.contains(&self.interner.user(sender)) => {
                InviteDecision::Ignore
            }
            decision => decision,
        }
    }
}

impl Rooms {
    /// What a user of this server wants done with an invite by somebody.
    pub fn invite_decision(
        &self,
        reader: &Reader<'_>,
        user_id: &UserId,
        sender: &UserId,
    ) -> Result<InviteDecision, ApiError> {
        if user_id.server_name() != self.server_name() {
            return Ok(InviteDecision::Allow);
        }
        Ok(InviteWishes::read(self.interner(), reader, user_id)?.decide(sender))
    }

    /// Refuses an invite that its target blocks.
    pub(super) fn check_invite_wanted(
        &self,
        reader: &Reader<'_>,
        user_id: &UserId,
        sender: &UserId,
    ) -> Result<(), ApiError> {
        match self.invite_decision(reader, user_id, sender)? {
            InviteDecision::Block => Err(ApiError::new(
                http::StatusCode::FORBIDDEN,
                "M_INVITE_BLOCKED",
                format!("{user_id} does not want to be invited"),
            )),
            InviteDecision::Allow | InviteDecision::Ignore => Ok(()),
        }
    }
}

/// When a user last changed from whom they want invites.
pub fn invites_changed_at(reader: &Reader<'_>, user_id: &UserId) -> Result<Position, ApiError> {
    let mut latest = Position::ZERO;
    for kind in [IGNORED_USERS, INVITE_PERMISSION, INVITE_RULES] {
        let row = reader.get(&ACCOUNT_DATA, &account_data::global_key(user_id, kind))?;
        latest = latest.max(row.map_or(Position::ZERO, |row| row.position));
    }
    Ok(latest)
}

/// The users whom a user ignores, inside a read step.
pub fn ignored_users(
    interner: &Interner,
    reader: &Reader<'_>,
    user_id: &UserId,
) -> Result<HashSet<UserNid>, ApiError> {
    let ignored = account_data::ignored_users(reader, user_id)?;
    Ok(ignored.iter().map(|user_id| interner.user(user_id)).collect())
}

/// One type of a user's global account data; `None` also when it is not what it should be.
fn content<T: DeserializeOwned>(
    reader: &Reader<'_>,
    user_id: &UserId,
    kind: &str,
) -> Result<Option<T>, ApiError> {
    let content = account_data::content(reader, &account_data::global_key(user_id, kind))?;
    Ok(content.and_then(|content| serde_json::from_str(content.get()).ok()))
}

/// Whether a pattern with `*` and `?` fits a name. Takes steps by the product of the lengths at most.
fn is_match(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut at, mut place) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while place < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, place));
                at += 1;
            }
            Some(&sign) if sign == b'?' || sign == name[place] => {
                at += 1;
                place += 1;
            }
            _ => {
                let Some((star_at, taken)) = star else { return false };
                star = Some((star_at, taken + 1));
                at = star_at + 1;
                place = taken + 1;
            }
        }
    }
    pattern[at..].iter().all(|sign| *sign == b'*')
}

#[cfg(test)]
mod tests {
    use ruma::user_id;
    use serde_json::json;

    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, matches) in [
            ("*", "", true),
            ("*", "@a:hs1", true),
            ("@a:hs1", "@a:hs1", true),
            ("@a:hs1", "@ab:hs1", false),
            ("@?:hs1", "@a:hs1", true),
            ("@*:hs1", "@abc:hs1", true),
            ("*.org", "example.org", true),
            ("*.org", "example.org.uk", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("", "a", false),
        ] {
            assert_eq!(is_match(pattern, name), matches, "{pattern} {name}");
        }
    }

    #[test]
    fn users_come_before_servers_and_what_is_allowed_before_what_is_not() {
        let bob = user_id!("@bob:evil.org");
        for (rules, decision) in [
            (json!({}), InviteDecision::Allow),
            (json!({ "blocked_users": ["*"] }), InviteDecision::Block),
            (json!({ "enabled": false, "blocked_users": ["*"] }), InviteDecision::Allow),
            (json!({ "allowed_users": ["@bob:*"], "blocked_users": ["*"] }), InviteDecision::Allow),
            (json!({ "ignored_servers": ["evil.*"] }), InviteDecision::Ignore),
            (
                json!({ "allowed_servers": ["evil.org"], "blocked_users": ["@bob:evil.org"] }),
                InviteDecision::Block,
            ),
        ] {
            let parsed: InviteRules = serde_json::from_value(rules.clone()).unwrap();
            assert_eq!(parsed.decide(bob), decision, "{rules}");
        }
    }
}

//! Joining, inviting, knocking, leaving, removing and banning.
//!
//! Each becomes a member event; the authorization rules decide. Rooms and users of other servers
//! are refused with a clear text until the federation is there.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-membership>

pub(super) mod restricted;

use kv::{Batch, CommitError, Durability};
use ruma::{OwnedMxcUri, OwnedUserId, UserId, events::TimelineEventType};
use serde_json::{Map, Value, json};

use super::{NewEvent, Room, Rooms, compose::same_content, draft::Draft};
use crate::{
    error::ApiError,
    storage::{
        rows::Membership,
        schema::rooms::{MEMBERSHIPS, MembershipKey},
        topic,
    },
};

/// How often a room is tried to be forgotten while the membership changes.
const FORGET_ATTEMPTS_MAX: usize = 4;

/// What member events tell of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberProfile {
    /// The display name.
    pub displayname: Option<String>,
    /// The avatar.
    pub avatar_url: Option<OwnedMxcUri>,
}

impl MemberProfile {
    /// The content of a member event of this user.
    pub(super) fn content(&self, membership: &str) -> Map<String, Value> {
        let mut content = Map::new();
        content.insert("membership".to_owned(), json!(membership));
        if let Some(name) = &self.displayname {
            content.insert("displayname".to_owned(), json!(name));
        }
        if let Some(avatar) = &self.avatar_url {
            content.insert("avatar_url".to_owned(), json!(avatar));
        }
        content
    }
}

/// A wanted change of a membership.
#[derive(Clone, Debug)]
pub struct Change {
    /// Who wants it.
    pub sender: OwnedUserId,
    /// Whose membership.
    pub target: OwnedUserId,
    /// Why.
    pub reason: Option<String>,
    /// What the member event tells of the target, for joins, invites and knocks.
    pub profile: MemberProfile,
}

impl Change {
    /// A change of the user's own membership.
    pub fn own(user_id: OwnedUserId, profile: MemberProfile, reason: Option<String>) -> Self {
        Self { sender: user_id.clone(), target: user_id, reason, profile }
    }
}

impl Rooms {
    /// Joins a room; joining again changes nothing.
    ///
    /// # Errors
    /// 403 when the room does not let the user in.
    pub async fn join(&self, room: &Room, change: Change) -> Result<(), ApiError> {
        self.change_membership(room, change, |draft, change| {
            if draft.membership(change.target.as_str())? == Membership::Join {
                return Ok(None);
            }
            let mut content = change.profile.content("join");
            if let Some(authorizer) = restricted::authorizer(draft, &change.target)? {
                content.insert("join_authorised_via_users_server".to_owned(), json!(authorizer));
            }
            Ok(Some(content))
        })
        .await
    }

    /// Invites a user.
    ///
    /// # Errors
    /// 403 when the sender may not, or the user has joined or is banned.
    pub async fn invite(&self, room: &Room, change: Change) -> Result<(), ApiError> {
        self.check_reachable(&change.target)?;
        self.change_membership(room, change, |draft, change| {
            draft.require_member(&change.sender)?;
            let target = change.target.as_str();
            if draft.membership(target)? == Membership::Join {
                return Err(ApiError::forbidden(format!("{target} is already in the room")));
            }
            draft.rooms.check_invite_wanted(draft.reader, &change.target, &change.sender)?;
            Ok(Some(change.profile.content("invite")))
        })
        .await
    }

    /// Asks to be let in.
    ///
    /// # Errors
    /// 403 when the room takes no knocks from the user.
    pub async fn knock(&self, room: &Room, change: Change) -> Result<(), ApiError> {
        self.change_membership(room, change, |draft, change| {
            if draft.membership(change.target.as_str())? == Membership::Knock {
                return Ok(None);
            }
            Ok(Some(change.profile.content("knock")))
        })
        .await
    }

    /// Leaves a room, or refuses its invite, or takes back a knock; leaving again changes nothing.
    ///
    /// # Errors
    /// 403 for a user who was never there, or is banned.
    pub async fn leave(&self, room: &Room, change: Change) -> Result<(), ApiError> {
        self.change_membership(room, change, |draft, change| {
            match draft.membership(change.target.as_str())? {
                Membership::Leave => Ok(None),
                Membership::None => {
                    Err(ApiError::forbidden(format!("{} is not in the room", change.target)))
                }
                _ => Ok(Some(leave_content())),
            }
        })
        .await
    }

    /// Removes a user from a room, or takes back an invite.
    ///
    /// # Errors
    /// 403 when the sender may not, or the user is not there.
    pub async fn kick(&self, room: &Room, change: Change) -> Result<(), ApiError> {
        self.change_membership(room, change, |draft, change| {
            draft.require_member(&change.sender)?;
            match draft.membership(change.target.as_str())? {
                Membership::Join | Membership::Invite | Membership::Knock => {
                    Ok(Some(leave_content()))
                }
                _ => Err(ApiError::forbidden(format!("{} is not in the room", change.target))),
            }
        })
        .await
    }

    /// Bans a user; banning a banned user changes nothing.
    ///
    /// # Errors
    /// 403 when the sender may not.
    pub async fn ban(&self, room: &Room, change: Change) -> Result<(), ApiError> {
        self.change_membership(room, change, |draft, change| {
            draft.require_member(&change.sender)?;
            let banned = draft.membership(change.target.as_str())? == Membership::Ban;
            Ok((!banned).then(|| MemberProfile::default().content("ban")))
        })
        .await
    }

    /// Lifts a ban.
    ///
    /// # Errors
    /// 403 when the sender may not, or the user is not banned.
    pub async fn unban(&self, room: &Room, change: Change) -> Result<(), ApiError> {
        self.change_membership(room, change, |draft, change| {
            draft.require_member(&change.sender)?;
            if draft.membership(change.target.as_str())? != Membership::Ban {
                return Err(ApiError::bad_state(format!("{} is not banned", change.target)));
            }
            Ok(Some(leave_content()))
        })
        .await
    }

    /// Forgets a room that the user has left: it is shown to the user no more.
    ///
    /// # Errors
    /// 400 when the user has not left, 404 when the user was never there.
    pub async fn forget(&self, room: &Room, user_id: &UserId) -> Result<(), ApiError> {
        for _ in 0..FORGET_ATTEMPTS_MAX {
            if self.try_forget(room, user_id).await? {
                return Ok(());
            }
        }
        Err(ApiError::unavailable("Your membership changes all the time; try again"))
    }

    /// Whether the row was still what it was when it was written.
    async fn try_forget(&self, room: &Room, user_id: &UserId) -> Result<bool, ApiError> {
        let (rooms, the_room, user) = (self.clone(), room.clone(), user_id.to_owned());
        let row =
            self.store().read(move |reader| rooms.membership(reader, &the_room, &user)).await?;
        let Some(mut row) = row else {
            return Err(ApiError::not_found("You were never in this room"));
        };
        if !matches!(row.membership, Membership::Leave | Membership::Ban) {
            return Err(ApiError::unknown("Leave the room before you forget it"));
        }
        let key = MembershipKey { user_id: user_id.to_string(), room: room.nid };
        let mut batch = Batch::new();
        batch.check(&MEMBERSHIPS, &key, Some(&row));
        row.forgotten = true;
        batch.put(&MEMBERSHIPS, &key, &row);
        let user = self.interner().user(user_id);
        batch.touch(topic::user(topic::USER_MEMBERSHIPS, user));
        match self.store().commit(batch, Durability::Synced).await {
            Ok(_) => Ok(true),
            Err(CommitError::Conflict) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Tells a user's new profile in a room that the user has joined.
    pub async fn update_profile(
        &self,
        room: &Room,
        user_id: &UserId,
        profile: MemberProfile,
    ) -> Result<(), ApiError> {
        let change = Change::own(user_id.to_owned(), profile, None);
        self.change_membership(room, change, |draft, change| {
            let Some(member) = draft.current("m.room.member", change.target.as_str())? else {
                return Ok(None);
            };
            if member.record.membership != Membership::Join {
                return Ok(None);
            }
            // What let the user into a restricted room stays: the rules ask for it again.
            let mut content = change.profile.content("join");
            let authorizer = "join_authorised_via_users_server";
            if let Some(user_id) = member.pdu.content_field::<OwnedUserId>(authorizer) {
                content.insert(authorizer.to_owned(), json!(user_id));
            }
            let told = serde_json::value::to_raw_value(&content).map_err(ApiError::internal)?;
            Ok((!same_content(member.pdu.content(), &told)).then_some(content))
        })
        .await
    }

    /// Refuses users of other servers: this server does not federate yet.
    pub(super) fn check_reachable(&self, user_id: &UserId) -> Result<(), ApiError> {
        if user_id.server_name() == self.server_name() {
            return Ok(());
        }
        Err(ApiError::forbidden(format!(
            "{user_id} is a user of another server, and this server does not federate yet"
        )))
    }

    async fn change_membership(
        &self,
        room: &Room,
        change: Change,
        decide: impl Fn(&Draft<'_>, &Change) -> Result<Option<Map<String, Value>>, ApiError>
        + Clone
        + Send
        + 'static,
    ) -> Result<(), ApiError> {
        let now = self.clock().now();
        self.write(room, move |draft| {
            let Some(mut content) = decide(draft, &change)? else {
                return Ok(());
            };
            if let Some(reason) = &change.reason {
                content.insert("reason".to_owned(), json!(reason));
            }
            let sender = change.sender.clone();
            let kind = TimelineEventType::RoomMember;
            let event = NewEvent::state(sender, kind, change.target.as_str(), &content)?;
            draft.add(&event, now, None)?;
            Ok(())
        })
        .await
    }
}

fn leave_content() -> Map<String, Value> {
    MemberProfile::default().content("leave")
}

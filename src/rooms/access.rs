//! Who may learn what a room is without being in it: its summary, and its place in a space.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidhierarchy>

use std::sync::Arc;

use kv::Reader;
use ruma::{
    UserId,
    room::{JoinRuleSummary, RestrictedSummary, RoomSummary},
};

use super::{Room, Rooms};
use crate::{
    error::ApiError,
    storage::rows::{Membership, MembershipRow},
};

impl Rooms {
    /// The summary of a room for somebody who may know of it; `None`: they may not, or there is
    /// nothing to know. Without a user, for everybody.
    pub fn summary_for(
        &self,
        reader: &Reader<'_>,
        room: &Room,
        user_id: Option<&UserId>,
    ) -> Result<Option<Arc<RoomSummary>>, ApiError> {
        let Some(summary) = self.summary(reader, room)? else { return Ok(None) };
        if summary.world_readable {
            return Ok(Some(summary));
        }
        let Some(user_id) = user_id else {
            let is_open = matches!(
                summary.join_rule,
                JoinRuleSummary::Public
                    | JoinRuleSummary::Knock
                    | JoinRuleSummary::KnockRestricted(_)
            );
            return Ok(is_open.then_some(summary));
        };
        let row = self.membership(reader, room, user_id)?;
        let admits = match row.map(|row: MembershipRow| row.membership) {
            Some(Membership::Join | Membership::Invite) => true,
            Some(Membership::Ban) => false,
            _ => self.rule_admits(reader, room, (user_id, &summary.join_rule))?,
        };
        Ok(admits.then_some(summary))
    }

    /// Whether a join rule lets a user in, or lets them ask.
    fn rule_admits(
        &self,
        reader: &Reader<'_>,
        room: &Room,
        (user_id, rule): (&UserId, &JoinRuleSummary),
    ) -> Result<bool, ApiError> {
        let rules = &room.rules.authorization;
        match rule {
            JoinRuleSummary::Public => Ok(true),
            JoinRuleSummary::Knock => Ok(rules.knocking),
            JoinRuleSummary::KnockRestricted(_) => Ok(rules.knock_restricted_join_rule),
            JoinRuleSummary::Restricted(allowed) if rules.restricted_join_rule => {
                self.is_in_one_of(reader, user_id, allowed)
            }
            _ => Ok(false),
        }
    }

    fn is_in_one_of(
        &self,
        reader: &Reader<'_>,
        user_id: &UserId,
        allowed: &RestrictedSummary,
    ) -> Result<bool, ApiError> {
        for room_id in &allowed.allowed_room_ids {
            let room = self.room_by_nid(reader, self.interner().room(room_id))?;
            if let Some(room) = room
                && self.is_joined(reader, &room, user_id)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Rooms {
    /// [`Rooms::summary_for`] outside of a read step, with what the user is to the room: who is
    /// nothing to it, or is not known, has left.
    pub async fn room_summary(
        &self,
        room: &Room,
        user_id: Option<&UserId>,
    ) -> Result<Option<(RoomSummary, Membership)>, ApiError> {
        let (room, user_id) = (room.clone(), user_id.map(ToOwned::to_owned));
        self.read(move |rooms, reader| {
            let user_id = user_id.as_deref();
            let Some(summary) = rooms.summary_for(reader, &room, user_id)? else {
                return Ok(None);
            };
            let row = match user_id {
                Some(user_id) => rooms.membership(reader, &room, user_id)?,
                None => None,
            };
            let membership = row.map_or(Membership::Leave, |row| row.membership);
            let membership = match membership {
                Membership::None => Membership::Leave,
                membership => membership,
            };
            Ok(Some(((*summary).clone(), membership)))
        })
        .await
    }
}

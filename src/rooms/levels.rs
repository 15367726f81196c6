//! Power levels as they stand in one state: who may do what.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#mroompower_levels>

use std::collections::HashSet;

use ruma::{
    Int, OwnedUserId, UserId,
    events::{TimelineEventType, room::power_levels::UserPowerLevel},
    room_version_rules::RoomVersionRules,
    state_res::events::{RoomCreateEvent, RoomPowerLevelsEvent, RoomPowerLevelsIntField},
};

use super::event::Pdu;
use crate::error::ApiError;

/// The power levels of a room, with its creators.
pub(super) struct Levels<'a> {
    event: Option<RoomPowerLevelsEvent<Pdu>>,
    creators: HashSet<OwnedUserId>,
    rules: &'a RoomVersionRules,
}

/// What is done to someone or something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Invite,
    Redact,
}

impl<'a> Levels<'a> {
    /// From the create event and the power levels event of a state.
    pub(super) fn new(
        create: Pdu,
        power_levels: Option<Pdu>,
        rules: &'a RoomVersionRules,
    ) -> Result<Self, ApiError> {
        let creators = RoomCreateEvent::new(create)
            .creators(&rules.authorization)
            .map_err(ApiError::internal_text)?;
        Ok(Self { event: power_levels.map(RoomPowerLevelsEvent::new), creators, rules })
    }

    /// Whether a user is a creator of the room.
    pub(super) fn is_creator(&self, user_id: &str) -> bool {
        self.creators.iter().any(|creator| creator == user_id)
    }

    /// The power level of a user.
    pub(super) fn of(&self, user_id: &UserId) -> Result<UserPowerLevel, ApiError> {
        let creator = self.creators.contains(user_id);
        if creator && self.rules.authorization.explicitly_privilege_room_creators {
            return Ok(UserPowerLevel::Infinite);
        }
        let Some(event) = &self.event else {
            let level = if creator { 100_i32.into() } else { Int::from(0_i32) };
            return Ok(UserPowerLevel::Int(level));
        };
        event
            .user_power_level(user_id, &self.rules.authorization)
            .map(UserPowerLevel::Int)
            .map_err(ApiError::internal_text)
    }

    /// The creators and the users whose level is given.
    pub(super) fn named(&self) -> Result<Vec<OwnedUserId>, ApiError> {
        let mut named: Vec<_> = self.creators.iter().cloned().collect();
        if let Some(event) = &self.event {
            let users = event.users(&self.rules.authorization).map_err(ApiError::internal_text)?;
            named.extend(users.into_iter().flat_map(|users| users.keys().cloned()));
        }
        Ok(named)
    }

    /// Whether a user has the level that an action needs.
    pub(super) fn may(&self, user_id: &UserId, action: Action) -> Result<bool, ApiError> {
        Ok(self.of(user_id)? >= UserPowerLevel::Int(self.needed(action)?))
    }

    /// Whether a user whose level is not given has the level that an action needs.
    pub(super) fn may_by_default(&self, action: Action) -> Result<bool, ApiError> {
        Ok(self.field(RoomPowerLevelsIntField::UsersDefault)? >= self.needed(action)?)
    }

    fn needed(&self, action: Action) -> Result<Int, ApiError> {
        self.field(match action {
            Action::Invite => RoomPowerLevelsIntField::Invite,
            Action::Redact => RoomPowerLevelsIntField::Redact,
        })
    }

    fn field(&self, field: RoomPowerLevelsIntField) -> Result<Int, ApiError> {
        match &self.event {
            Some(event) => event
                .get_as_int_or_default(field, &self.rules.authorization)
                .map_err(ApiError::internal_text),
            None => Ok(field.default_value()),
        }
    }

    /// Whether a user has the level that an event of this type needs.
    pub(super) fn may_send(
        &self,
        user_id: &UserId,
        event_type: &TimelineEventType,
        state_key: Option<&str>,
    ) -> Result<bool, ApiError> {
        let needed = match &self.event {
            Some(event) => event
                .event_power_level(event_type, state_key, &self.rules.authorization)
                .map_err(ApiError::internal_text)?,
            None if state_key.is_some() => RoomPowerLevelsIntField::StateDefault.default_value(),
            None => Int::from(0_i32),
        };
        Ok(self.of(user_id)? >= UserPowerLevel::Int(needed))
    }
}

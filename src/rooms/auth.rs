//! Authorization: which events authorize an event, and whether they do.
//!
//! The rules themselves are ruma's (`ruma::state_res`); here is how they are fed.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#authorization-rules>

use ruma::{
    EventId, UserId,
    events::{StateEventType, TimelineEventType},
    room_version_rules::RoomVersionRules,
    state_res::{
        auth_types_for_event, check_state_dependent_auth_rules, check_state_independent_auth_rules,
    },
};
use serde_json::value::RawValue;

use super::event::Pdu;
use crate::error::ApiError;

/// What an event is, as far as the choice of its auth events asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    pub(super) event_type: &'a TimelineEventType,
    pub(super) sender: &'a UserId,
    pub(super) state_key: Option<&'a str>,
    pub(super) content: &'a RawValue,
}

/// The state keys whose events an event must cite.
///
/// <https://spec.matrix.org/v1.19/server-server-api/#auth-events-selection>
///
/// # Errors
/// 400 when the content of a member event cannot be read.
pub(super) fn auth_keys(
    subject: Subject<'_>,
    rules: &RoomVersionRules,
) -> Result<Vec<(StateEventType, String)>, ApiError> {
    auth_types_for_event(
        subject.event_type,
        subject.sender,
        subject.state_key,
        subject.content,
        &rules.authorization,
    )
    .map_err(ApiError::bad_json)
}

/// Why the rules refuse an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Denied(pub(super) String);

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        Self::forbidden(denied.0)
    }
}

/// The checks that need only the events an event cites.
pub(super) fn check_citations(
    rules: &RoomVersionRules,
    event: &Pdu,
    fetch: impl Fn(&EventId) -> Option<Pdu>,
) -> Result<(), Denied> {
    check_state_independent_auth_rules(&rules.authorization, event, fetch).map_err(Denied)
}

/// The checks against a state, given as a look-up.
pub(super) fn check_state(
    rules: &RoomVersionRules,
    event: &Pdu,
    state: impl Fn(&StateEventType, &str) -> Option<Pdu>,
) -> Result<(), Denied> {
    check_state_dependent_auth_rules(&rules.authorization, event, state).map_err(Denied)
}

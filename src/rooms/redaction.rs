//! Redactions: whether one applies, and the event without its content.
//!
//! The content is gone from the store with the commit of the redaction. A redaction that comes
//! before its target waits in `pending_redactions` and is judged when the target arrives.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#redactions>

use std::sync::Arc;

use kv::Direction;
use ruma::{CanonicalJsonObject, EventId, UserId, canonical_json::redact_in_place};

use super::{
    draft::Draft,
    event::{Pdu, StoredEvent, hash_of_event_id},
    levels::Action,
};
use crate::{
    error::ApiError,
    id::EventNid,
    storage::{
        rows::{EventFlags, TimelineEntry},
        schema::rooms::{PENDING_REDACTIONS, TIMELINE, TimelineKey},
    },
};

/// How many waiting redactions of one event are tried.
const WAITING_MAX: usize = 100;

/// What a redaction does to what is stored.
#[derive(Clone, Debug)]
pub(super) enum RedactionCommit {
    /// This event loses its content; its line in the timeline says so.
    Applied(Arc<StoredEvent>, Option<TimelineEntry>),
    /// The target is not here yet: this redaction waits for the event with this hash.
    Waiting([u8; 32]),
}

/// What an event means for redactions: it may be one, or one may have waited for it.
pub(super) fn decide(
    draft: &Draft<'_>,
    event: &StoredEvent,
) -> Result<Option<RedactionCommit>, ApiError> {
    if event.record.position.line == 0 {
        // Rejected, soft-failed or without a place: it does nothing.
        return Ok(None);
    }
    if let Some(target_id) = event.pdu.redacts() {
        return match draft.event_by_id(target_id)? {
            Some(target) if may_redact(draft, event, &target)? => {
                apply(draft, &target, event.nid).map(Some)
            }
            Some(_) => Ok(None),
            None => Ok(hash_of_event_id(target_id).map(RedactionCommit::Waiting)),
        };
    }
    let waiting = PENDING_REDACTIONS.prefix(&(draft.room.nid, event.record.hash));
    let rows = draft.reader.scan(&PENDING_REDACTIONS, &waiting, Direction::Forward, WAITING_MAX)?;
    for (key, ()) in rows {
        let redaction = draft.event(key.redaction)?;
        if may_redact(draft, &redaction, event)? {
            return apply(draft, event, key.redaction).map(Some);
        }
    }
    Ok(None)
}

fn apply(
    draft: &Draft<'_>,
    target: &StoredEvent,
    redaction: EventNid,
) -> Result<RedactionCommit, ApiError> {
    let after = redacted(draft, target, redaction)?;
    let key = TimelineKey { room: draft.room.nid, position: after.record.position };
    let entry = draft.reader.get(&TIMELINE, &key)?;
    let entry = entry.map(|entry| TimelineEntry { flags: after.record.flags, ..entry });
    Ok(RedactionCommit::Applied(Arc::new(after), entry))
}

/// Whether a redaction applies: its sender has the power to, or shares the server of the target's
/// sender (which answers for its own users: [`check_sender`]).
///
/// <https://spec.matrix.org/v1.19/rooms/v3/#handling-redactions>
fn may_redact(
    draft: &Draft<'_>,
    redaction: &StoredEvent,
    target: &StoredEvent,
) -> Result<bool, ApiError> {
    let sender = redaction.pdu.sender();
    if sender.server_name() == target.pdu.sender().server_name() {
        return Ok(true);
    }
    draft.levels()?.may(sender, Action::Redact)
}

/// Whether a user of this server may redact an event: the own ones, others with the power to.
///
/// # Errors
/// 404 when the room has no such event, 403 when the user may not.
pub(super) fn check_sender(
    draft: &Draft<'_>,
    sender: &UserId,
    target_id: &EventId,
) -> Result<(), ApiError> {
    draft.require_member(sender)?;
    let Some(target) = draft.event_by_id(target_id)? else {
        return Err(ApiError::not_found("The room has no such event"));
    };
    if target.pdu.sender() == sender || draft.levels()?.may(sender, Action::Redact)? {
        return Ok(());
    }
    Err(ApiError::forbidden("You may not redact events of others in this room"))
}

/// The target without what its room version does not keep.
fn redacted(
    draft: &Draft<'_>,
    target: &StoredEvent,
    redaction: EventNid,
) -> Result<StoredEvent, ApiError> {
    let rules = &draft.room.rules;
    let mut object: CanonicalJsonObject =
        serde_json::from_str(target.pdu.json()).map_err(ApiError::internal)?;
    redact_in_place(&mut object, &rules.redaction, None).map_err(ApiError::internal)?;
    let json = serde_json::to_string(&object).map_err(ApiError::internal)?.into_boxed_str();
    let event_id = target.pdu.event_id().to_owned();
    let pdu = Pdu::parse(json, event_id, draft.room.id.clone(), rules)
        .map_err(ApiError::internal)?
        .with_flags(target.record.flags);
    let mut record = target.record.clone();
    record.flags = record.flags.with(EventFlags::REDACTED).without(EventFlags::NOTIFIES);
    record.redacted_by = Some(redaction);
    Ok(StoredEvent { nid: target.nid, record, pdu })
}

//! Events of users who asked to be erased, for readers who come after.
//!
//! Whoever was in the room when an event was sent, or has been in it since before the erasure, sees
//! it as it was; others see it as if it were redacted. Only timelines: the state of a room is what it
//! is. Asked by `render` and by the search.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountdeactivate>

use kv::Reader;
use ruma::{CanonicalJsonObject, canonical_json::redact_in_place};

use super::{Pdu, StoredEvent, visibility::Viewer};
use crate::{
    error::ApiError,
    storage::{rows::Membership, schema::accounts::ERASED_USERS},
};

/// The event without its content, where the reader must not see that (any more).
pub(super) fn for_reader(
    reader: &Reader<'_>,
    viewer: &mut Viewer,
    event: &StoredEvent,
) -> Result<Option<StoredEvent>, ApiError> {
    let hides = hides(reader, viewer, event)?;
    hides.then(|| without_content(viewer, event)).transpose()
}

/// Whether the reader must not see the content of an event (any more).
pub fn hides(
    reader: &Reader<'_>,
    viewer: &mut Viewer,
    event: &StoredEvent,
) -> Result<bool, ApiError> {
    let sender = event.pdu.sender();
    if sender == viewer.user_id() || !viewer.may_be_erased(reader, sender)? {
        return Ok(false);
    }
    let Some(erased) = reader.get(&ERASED_USERS, &sender.to_string())? else { return Ok(false) };
    let is_older_member = viewer
        .membership()
        .is_some_and(|row| row.membership == Membership::Join && row.position < erased.position);
    Ok(!is_older_member && viewer.membership_at(reader, event)? != Membership::Join)
}

fn without_content(viewer: &Viewer, event: &StoredEvent) -> Result<StoredEvent, ApiError> {
    let room = viewer.room();
    let mut object: CanonicalJsonObject =
        serde_json::from_str(event.pdu.json()).map_err(ApiError::internal)?;
    redact_in_place(&mut object, &room.rules.redaction, None).map_err(ApiError::internal)?;
    let json = serde_json::to_string(&object).map_err(ApiError::internal)?.into_boxed_str();
    let event_id = event.pdu.event_id().to_owned();
    let pdu = Pdu::parse(json, event_id, room.id.clone(), &room.rules)
        .map_err(ApiError::internal)?
        .with_flags(event.record.flags);
    Ok(StoredEvent { nid: event.nid, record: event.record.clone(), pdu })
}

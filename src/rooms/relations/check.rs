//! What this server asks of its own users' relations: the sender learns at once what is wrong.
//!
//! Of other servers' events such relations are only not aggregated.

use http::StatusCode;
use kv::Direction;
use serde::Deserialize;

use super::{Relation, relation_in, relation_of};
use crate::{
    error::ApiError,
    rooms::{NewEvent, draft::Draft},
    storage::{rows::RelationKind, schema::rooms::RELATIONS},
};

/// How many annotations of one event are compared: the latest to come.
const ANNOTATIONS_MAX: usize = 2_000;

/// Checks what an event relates to before it is decided on.
///
/// # Errors
/// 400 for a thread on what relates to something itself, and for a second annotation alike.
pub(in crate::rooms) fn check_relation(
    draft: &Draft<'_>,
    event: &NewEvent,
) -> Result<(), ApiError> {
    if event.state_key.is_some() || event.redacts.is_some() {
        return Ok(());
    }
    let Some(relation) = relation_in(event.content.get()) else {
        return Ok(());
    };
    match relation.kind {
        RelationKind::Thread => check_thread(draft, &relation),
        RelationKind::Annotation => check_annotation(draft, event, &relation),
        RelationKind::Other | RelationKind::Reference | RelationKind::Replacement => Ok(()),
    }
}

/// <https://spec.matrix.org/v1.19/client-server-api/#validation-of-mthread-relationships>
fn check_thread(draft: &Draft<'_>, relation: &Relation) -> Result<(), ApiError> {
    let root = draft.event_by_id(&relation.event_id)?;
    if root.is_some_and(|root| relation_of(&root.pdu).is_some()) {
        let message = "A thread cannot begin at an event that relates to another";
        return Err(ApiError::unknown(message));
    }
    Ok(())
}

/// <https://spec.matrix.org/v1.19/client-server-api/#avoiding-duplicate-annotations>
fn check_annotation(
    draft: &Draft<'_>,
    event: &NewEvent,
    relation: &Relation,
) -> Result<(), ApiError> {
    let Some(key) = annotation_key(event.content.get()) else {
        return Ok(());
    };
    let interner = draft.rooms.interner();
    let sender = interner.user(&event.sender);
    let event_type = interner.event_type(&event.event_type.to_string());
    let all = RELATIONS.prefix(&(draft.room.nid, relation.parent, relation.kind as u8));
    let rows = draft.reader.scan(&RELATIONS, &all, Direction::Backward, ANNOTATIONS_MAX)?;
    for (_, row) in rows {
        if row.sender == sender
            && row.event_type == event_type
            && annotation_key(draft.event(row.event)?.pdu.content().get()).as_ref() == Some(&key)
        {
            let message = "You have annotated the event so already";
            return Err(ApiError::new(StatusCode::BAD_REQUEST, "M_DUPLICATE_ANNOTATION", message));
        }
    }
    Ok(())
}

fn annotation_key(content: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Content {
        #[serde(rename = "m.relates_to")]
        relates_to: Annotation,
    }
    #[derive(Deserialize)]
    struct Annotation {
        key: String,
    }
    Some(serde_json::from_str::<Content>(content).ok()?.relates_to.key)
}

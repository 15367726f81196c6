//! Events that are redacted together with the one they relate to.
//!
//! One after the other, each with a redaction of its own by the same sender, before the request is
//! answered: a client that hears nothing asks again, and what is redacted already relates to nothing
//! any more. What comes to relate to the event later is left alone.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/3912>

use std::ops::Bound;

use http::StatusCode;
use kv::{Direction, Reader};
use ruma::{EventId, OwnedEventId, OwnedUserId, UserId};

use super::{children, is_edit, relation_of};
use crate::{
    error::ApiError,
    rooms::{
        Room, Rooms, StoredEvent,
        send::{Sent, Transaction},
    },
    storage::rows::{RelationKind, RelationRow},
};

/// How many events are redacted with one, the latest: each costs a write to the disk.
const RELATED_MAX: usize = 1_000;
/// How many types of relation a request may name.
const TYPES_MAX: usize = 50;
/// Stands for all types.
const ANY: &str = "*";

/// Which of the events that relate to one are redacted with it.
#[derive(Clone, Debug)]
pub struct Related {
    /// The types of relation; `*` for any.
    pub rel_types: Vec<String>,
    /// Whether those of others are.
    pub of_others: bool,
}

impl Rooms {
    /// Redacts an event and what relates to it, as far as the sender may. Answers the redaction of
    /// the event itself.
    ///
    /// # Errors
    /// Those of [`Rooms::redact`]; 400 when there are too many types.
    pub async fn redact_with_related(
        &self,
        room: &Room,
        sender: OwnedUserId,
        (target, reason): (&EventId, Option<String>),
        (transaction, related): (Transaction, Related),
    ) -> Result<Sent, ApiError> {
        if related.rel_types.len() > TYPES_MAX {
            let message = format!("At most {TYPES_MAX} types of relation can be named");
            return Err(ApiError::invalid_param(message));
        }
        // Looked up first: a redacted event does not tell whether it could be edited.
        let found = self.related(room, &sender, target, related).await?;
        let of_target = (target, reason.clone());
        let sent = self.redact(room, sender.clone(), of_target, Some(transaction)).await?;
        for event_id in found {
            match self.redact(room, sender.clone(), (&event_id, reason.clone()), None).await {
                // Events that the sender may not redact are left out.
                Err(error) if error.status == StatusCode::FORBIDDEN => {}
                result => drop(result?),
            }
        }
        Ok(sent)
    }

    async fn related(
        &self,
        room: &Room,
        sender: &UserId,
        target: &EventId,
        related: Related,
    ) -> Result<Vec<OwnedEventId>, ApiError> {
        let (room, sender, target) = (room.clone(), sender.to_owned(), target.to_owned());
        self.read(move |rooms, reader| {
            let nid = rooms.event_nid(reader, &room, &target)?;
            let event = nid.map(|nid| rooms.event(reader, &room, nid)).transpose()?.flatten();
            let Some(event) = event else { return Ok(Vec::new()) };
            let sender = rooms.interner().user(&sender);
            let mut found = Vec::new();
            for row in rows(reader, &room, &event, &related.rel_types)? {
                if (related.of_others || row.sender == sender)
                    && let Some(child) = rooms.event(reader, &room, row.event)?
                    && is_valid(&event, &child)
                {
                    found.push(child.pdu.event_id().to_owned());
                }
            }
            Ok(found)
        })
        .await
    }
}

fn rows(
    reader: &Reader<'_>,
    room: &Room,
    event: &StoredEvent,
    rel_types: &[String],
) -> Result<Vec<RelationRow>, ApiError> {
    let any = rel_types.iter().any(|name| name == ANY);
    let is_wanted = |kind: &RelationKind| {
        any || rel_types.iter().any(|name| RelationKind::from_name(name) == *kind)
    };
    let kinds: Vec<_> = RelationKind::ALL.into_iter().filter(is_wanted).collect();
    let all = (Bound::Unbounded, Bound::Unbounded);
    let latest = (Direction::Backward, RELATED_MAX);
    let rows = children(reader, (room, event.record.hash), &kinds, all, latest)?;
    let rows = rows.into_iter().map(|(_, row)| row);
    Ok(rows.filter(|row| any || rel_types.contains(&row.rel_type)).collect())
}

/// Whether an event relates to another in a way that counts.
fn is_valid(event: &StoredEvent, child: &StoredEvent) -> bool {
    match relation_of(&child.pdu).map(|relation| relation.kind) {
        Some(RelationKind::Replacement) => is_edit(event, child),
        Some(RelationKind::Thread) => relation_of(&event.pdu).is_none(),
        Some(_) => true,
        None => false,
    }
}

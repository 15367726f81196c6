//! What is written of relations with an event, and taken back with its redaction.
//!
//! Parents are named by their hash, so that a child may come first; what depends on the parent (is
//! this edit valid?) is then made up for when it arrives. What the relations amount to is counted as
//! they come, so that a thread of thousands costs a reader one row. A commit that counts is on disk
//! before the next one is decided: see [`RelationCommit::counts`].
//!
//! That a parent is one stands in its record ([`EventFlags::PARENT`]), which its first child writes
//! again: 130 bytes once, and never for reactions, which are not aggregated. To probe the index
//! instead would cost each page of 50 events 50 look-ups of 3 µs, a third of its time.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#aggregations-of-child-events>

use std::{collections::HashMap, sync::Arc};

use kv::{Batch, Direction};

use super::{Relation, is_edit, newest_edit, relation_of};
use crate::{
    error::ApiError,
    id::{EventNid, UserNid},
    rooms::{StoredEvent, draft::Draft, redaction::RedactionCommit},
    storage::{
        rows::{
            AggregationRow, EventFlags, RelationKind, RelationRow, ThreadRow, TimelinePosition,
        },
        schema::rooms::{
            AGGREGATIONS, AggregationKey, EVENT_RECORDS, EventKey, RELATIONS, RelationKey,
            THREAD_SENDERS, THREADS, ThreadKey, ThreadSenderKey,
        },
    },
};

/// What is written of the relations of one event.
#[derive(Clone, Debug, Default)]
pub(in crate::rooms) struct RelationCommit {
    batch: Batch,
    parent: Option<EventNid>,
    counts: bool,
}

impl RelationCommit {
    /// Whether rows were read that the next event may change too.
    pub(in crate::rooms) fn counts(&self) -> bool {
        self.counts
    }

    /// The event that is a parent from now on: its record is written again.
    pub(in crate::rooms) fn parent(&self) -> Option<EventNid> {
        self.parent
    }

    /// Adds the rows.
    pub(in crate::rooms) fn write(&self, batch: &mut Batch) {
        batch.append(self.batch.clone());
    }
}

/// The rows that a draft has changed and that are not stored yet.
#[derive(Debug, Default)]
pub(in crate::rooms) struct Drafted {
    rows: HashMap<[u8; 32], AggregationRow>,
    senders: HashMap<([u8; 32], UserNid), u32>,
}

/// Works out what is written of an event's relations.
pub(in crate::rooms) fn decide(
    draft: &mut Draft<'_>,
    event: &Arc<StoredEvent>,
    redaction: Option<&RedactionCommit>,
) -> Result<RelationCommit, ApiError> {
    let mut commit = RelationCommit::default();
    // Rejected, soft-failed or without a place: it does nothing.
    if event.record.position == TimelinePosition::START {
        return Ok(commit);
    }
    if event.record.flags.has(EventFlags::PARENT) {
        adopt(draft, event, &mut commit)?;
    }
    match redaction {
        // A redaction waited for the event: it relates to nothing.
        Some(RedactionCommit::Applied(target, _)) if target.nid == event.nid => {}
        Some(RedactionCommit::Applied(target, _)) => {
            // As it was before.
            let target = draft.event(target.nid)?;
            if let Some(relation) = relation_of(&target.pdu)
                && target.record.position != TimelinePosition::START
            {
                remove(draft, &target, &relation, &mut commit)?;
            }
        }
        Some(RedactionCommit::Waiting(_)) => {}
        None => {
            if let Some(relation) = relation_of(&event.pdu) {
                add(draft, event, &relation, &mut commit)?;
            }
        }
    }
    Ok(commit)
}

/// Whether other events relate to one that is only arriving.
pub(in crate::rooms) fn is_awaited(draft: &Draft<'_>, hash: &[u8; 32]) -> Result<bool, ApiError> {
    Ok(draft
        .reader
        .contains(&AGGREGATIONS, &AggregationKey { room: draft.room.nid, parent: *hash })?)
}

/// Edits that came before what they edit can be judged now.
fn adopt(
    draft: &mut Draft<'_>,
    event: &StoredEvent,
    commit: &mut RelationCommit,
) -> Result<(), ApiError> {
    let mut row = row_of(draft, &event.record.hash)?.unwrap_or_default();
    let edit = newest_edit(draft.rooms, draft.reader, draft.room, event, |_| Ok(true))?;
    row.edit = edit.map(|edit| edit.nid);
    set_row(draft, event.record.hash, row, commit);
    Ok(())
}

fn add(
    draft: &mut Draft<'_>,
    event: &StoredEvent,
    relation: &Relation,
    commit: &mut RelationCommit,
) -> Result<(), ApiError> {
    let row = RelationRow {
        event: event.nid,
        event_type: event.record.event_type,
        sender: event.record.sender,
        rel_type: relation.rel_type.clone(),
    };
    commit.batch.put(&RELATIONS, &key(draft, event, relation), &row);
    if !relation.kind.is_aggregated() {
        return Ok(());
    }
    let mut row = row_of(draft, &relation.parent)?.unwrap_or_default();
    let parent = draft.event_by_id(&relation.event_id)?;
    match relation.kind {
        RelationKind::Thread => {
            count_sender(draft, event, relation, (1, commit))?;
            let place = event.record.position;
            if row.replies == 0 || place > row.latest {
                let before = (row.replies > 0).then_some(row.latest);
                move_thread(draft, relation, (before, Some(place)), commit);
                (row.latest, row.latest_event) = (place, event.nid);
            }
            row.replies = row.replies.saturating_add(1);
        }
        RelationKind::Reference => row.references = row.references.saturating_add(1),
        RelationKind::Replacement => {
            if let Some(parent) = &parent
                && is_edit(parent, event)
                && is_newer(draft, event, row.edit)?
            {
                row.edit = Some(event.nid);
            }
        }
        RelationKind::Other | RelationKind::Annotation => {}
    }
    set_row(draft, relation.parent, row, commit);
    if let Some(parent) = parent.filter(|parent| !parent.record.flags.has(EventFlags::PARENT)) {
        let mut record = parent.record.clone();
        record.flags = record.flags.with(EventFlags::PARENT);
        let key = EventKey { room: draft.room.nid, event: parent.nid };
        commit.batch.put(&EVENT_RECORDS, &key, &record);
        commit.parent = Some(parent.nid);
    }
    Ok(())
}

fn remove(
    draft: &mut Draft<'_>,
    target: &StoredEvent,
    relation: &Relation,
    commit: &mut RelationCommit,
) -> Result<(), ApiError> {
    commit.batch.delete(&RELATIONS, &key(draft, target, relation));
    if !relation.kind.is_aggregated() {
        return Ok(());
    }
    let Some(mut row) = row_of(draft, &relation.parent)? else {
        return Ok(());
    };
    match relation.kind {
        RelationKind::Thread => {
            count_sender(draft, target, relation, (-1, commit))?;
            row.replies = row.replies.saturating_sub(1);
            if row.latest_event == target.nid {
                let next = reply_before(draft, target, relation)?;
                move_thread(draft, relation, (Some(row.latest), next.map(|(at, _)| at)), commit);
                (row.latest, row.latest_event) = next.unwrap_or_default();
            }
        }
        RelationKind::Reference => row.references = row.references.saturating_sub(1),
        RelationKind::Replacement => {
            if row.edit == Some(target.nid)
                && let Some(parent) = draft.event_by_id(&relation.event_id)?
            {
                let is_other = |edit: &StoredEvent| Ok(edit.nid != target.nid);
                let edit = newest_edit(draft.rooms, draft.reader, draft.room, &parent, is_other)?;
                row.edit = edit.map(|edit| edit.nid);
            }
        }
        RelationKind::Other | RelationKind::Annotation => {}
    }
    set_row(draft, relation.parent, row, commit);
    Ok(())
}

fn key(draft: &Draft<'_>, child: &StoredEvent, relation: &Relation) -> RelationKey {
    RelationKey {
        room: draft.room.nid,
        parent: relation.parent,
        kind: relation.kind as u8,
        position: child.record.position,
    }
}

fn row_of(draft: &Draft<'_>, parent: &[u8; 32]) -> Result<Option<AggregationRow>, ApiError> {
    if let Some(row) = draft.relations.rows.get(parent) {
        return Ok(Some(row.clone()));
    }
    let key = AggregationKey { room: draft.room.nid, parent: *parent };
    Ok(draft.reader.get(&AGGREGATIONS, &key)?)
}

/// An empty row stays: a parent that comes later is known by it.
fn set_row(
    draft: &mut Draft<'_>,
    parent: [u8; 32],
    row: AggregationRow,
    commit: &mut RelationCommit,
) {
    commit.counts = true;
    commit.batch.put(&AGGREGATIONS, &AggregationKey { room: draft.room.nid, parent }, &row);
    draft.relations.rows.insert(parent, row);
}

fn count_sender(
    draft: &mut Draft<'_>,
    reply: &StoredEvent,
    relation: &Relation,
    (change, commit): (i32, &mut RelationCommit),
) -> Result<(), ApiError> {
    let sender = reply.record.sender;
    let key = ThreadSenderKey { room: draft.room.nid, root: relation.parent, sender };
    let known = match draft.relations.senders.get(&(relation.parent, sender)) {
        Some(count) => *count,
        None => draft.reader.get(&THREAD_SENDERS, &key)?.unwrap_or_default(),
    };
    let count = known.saturating_add_signed(change);
    match count {
        0 => commit.batch.delete(&THREAD_SENDERS, &key),
        count => commit.batch.put(&THREAD_SENDERS, &key, &count),
    }
    draft.relations.senders.insert((relation.parent, sender), count);
    Ok(())
}

/// Moves a thread to the place of another latest reply.
fn move_thread(
    draft: &Draft<'_>,
    relation: &Relation,
    (before, after): (Option<TimelinePosition>, Option<TimelinePosition>),
    commit: &mut RelationCommit,
) {
    let room = draft.room.nid;
    if let Some(latest) = before {
        commit.batch.delete(&THREADS, &ThreadKey { room, latest });
    }
    if let Some(latest) = after {
        let row = ThreadRow { root: relation.parent };
        commit.batch.put(&THREADS, &ThreadKey { room, latest }, &row);
    }
}

/// The reply that is the latest one without this.
fn reply_before(
    draft: &Draft<'_>,
    reply: &StoredEvent,
    relation: &Relation,
) -> Result<Option<(TimelinePosition, EventNid)>, ApiError> {
    let all = RELATIONS.prefix(&(draft.room.nid, relation.parent, relation.kind as u8));
    let rows = draft.reader.scan(&RELATIONS, &all, Direction::Backward, 2)?;
    let mut others = rows.into_iter().filter(|(_, row)| row.event != reply.nid);
    Ok(others.next().map(|(key, row)| (key.position, row.event)))
}

/// Whether an edit is newer than the one that counts so far.
fn is_newer(
    draft: &Draft<'_>,
    edit: &StoredEvent,
    known: Option<EventNid>,
) -> Result<bool, ApiError> {
    let Some(known) = known else { return Ok(true) };
    let known = draft.event(known)?;
    Ok(super::age_of(edit) > super::age_of(&known))
}

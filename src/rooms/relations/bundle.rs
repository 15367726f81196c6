//! Bundled aggregations: what the relations to an event amount to for one reader.
//!
//! Called for every event that is told, and returns at once for all but parents. Nothing of what the
//! reader may not see or of whom they ignore gets in; the count of a thread alone may hold replies
//! from between two stays of the reader in the room (the specification calls it approximate).
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#aggregations-of-child-events>

use std::{ops::ControlFlow, sync::Arc};

use kv::{Direction, Reader};

use super::{newest_edit, relation_of};
use crate::{
    error::ApiError,
    rooms::{
        StoredEvent,
        render::{Detail, Form, ObjectWriter, client_event},
        visibility::Viewer,
    },
    storage::{
        rows::{AggregationRow, EventFlags, RelationKind},
        schema::rooms::{AGGREGATIONS, AggregationKey, RELATIONS, THREAD_SENDERS, ThreadSenderKey},
    },
};

/// How many references of one event are told.
const REFERENCES_MAX: usize = 100;

/// How many of the latest replies are tried when the reader is not to see the last.
const REPLIES_MAX: usize = 500;

/// How many senders of a thread are compared with those whom the reader ignores.
const SENDERS_MAX: usize = 1_000;

/// Whether anything is aggregated of an event. State events have no aggregations.
pub(in crate::rooms) fn has_bundle(event: &StoredEvent) -> bool {
    let flags = event.record.flags;
    flags.has(EventFlags::PARENT) && !flags.has(EventFlags::STATE)
}

/// Writes `m.relations` of an event, if there is anything to tell.
pub(in crate::rooms) fn write_bundle(
    unsigned: &mut ObjectWriter,
    reader: &Reader<'_>,
    viewer: &mut Viewer,
    event: &StoredEvent,
    form: &Form,
) -> Result<(), ApiError> {
    if !has_bundle(event) {
        return Ok(());
    }
    let Some(row) = aggregation(reader, viewer, event)? else { return Ok(()) };
    let mut object = ObjectWriter::new(512);
    let mut is_empty = true;
    if let Some(edit) = edit(reader, viewer, event, &row)? {
        let form = Form { detail: Detail::Unbundled, ..form.clone() };
        let edit = client_event(reader, viewer, &edit, &form)?;
        object.raw("m.replace", edit.get().as_bytes());
        is_empty = false;
    }
    if row.references > 0 {
        let chunk = references(reader, viewer, event)?;
        if !chunk.is_empty() {
            object.raw("m.reference", format!(r#"{{"chunk":[{}]}}"#, chunk.join(",")).as_bytes());
            is_empty = false;
        }
    }
    if let Some(summary) = summary(reader, viewer, event, &row)? {
        let mut thread = ObjectWriter::new(512);
        let latest = client_event(reader, viewer, &summary.latest, form)?;
        thread.raw("latest_event", latest.get().as_bytes());
        thread.number("count", i64::from(summary.count));
        let participated = has_participated(reader, viewer, event)?;
        thread.raw("current_user_participated", if participated { b"true" } else { b"false" });
        object.raw("m.thread", thread.text());
        is_empty = false;
    }
    if !is_empty {
        unsigned.raw("m.relations", object.text());
    }
    Ok(())
}

/// What is counted of the relations to an event.
pub(in crate::rooms) fn aggregation(
    reader: &Reader<'_>,
    viewer: &Viewer,
    event: &StoredEvent,
) -> Result<Option<AggregationRow>, ApiError> {
    let key = AggregationKey { room: viewer.room().nid, parent: event.record.hash };
    Ok(reader.get(&AGGREGATIONS, &key)?)
}

/// The edit that counts: the newest that the reader may see. An event that is redacted has none.
fn edit(
    reader: &Reader<'_>,
    viewer: &mut Viewer,
    event: &StoredEvent,
    row: &AggregationRow,
) -> Result<Option<Arc<StoredEvent>>, ApiError> {
    let Some(newest) = row.edit.filter(|_| !event.record.flags.has(EventFlags::REDACTED)) else {
        return Ok(None);
    };
    if viewer.ignores(reader, event.record.sender)? {
        return Ok(None);
    }
    let (rooms, room) = (viewer.rooms().clone(), viewer.room().clone());
    let newest = rooms.event(reader, &room, newest)?;
    if let Some(newest) = newest
        && viewer.may_see(reader, &newest)?
    {
        return Ok(Some(newest));
    }
    newest_edit(&rooms, reader, &room, event, |edit| viewer.may_see(reader, edit))
}

/// The events that reference an event, each as JSON.
fn references(
    reader: &Reader<'_>,
    viewer: &mut Viewer,
    event: &StoredEvent,
) -> Result<Vec<String>, ApiError> {
    let (rooms, room) = (viewer.rooms().clone(), viewer.room().clone());
    let all = RELATIONS.prefix(&(room.nid, event.record.hash, RelationKind::Reference as u8));
    let mut chunk = Vec::new();
    for (_, row) in reader.scan(&RELATIONS, &all, Direction::Forward, REFERENCES_MAX)? {
        if viewer.ignores(reader, row.sender)? {
            continue;
        }
        if let Some(child) = rooms.event(reader, &room, row.event)?
            && viewer.may_see(reader, &child)?
        {
            // An id of these rooms is base64: nothing in it needs to be escaped.
            chunk.push(format!(r#"{{"event_id":"{}"}}"#, child.pdu.event_id()));
        }
    }
    Ok(chunk)
}

/// A thread as one reader sees it.
pub(in crate::rooms) struct Summary {
    latest: Arc<StoredEvent>,
    count: u32,
}

/// The summary of the thread that an event is the root of; `None` when it is none, or the reader
/// may see no reply of it.
pub(in crate::rooms) fn summary(
    reader: &Reader<'_>,
    viewer: &mut Viewer,
    event: &StoredEvent,
    row: &AggregationRow,
) -> Result<Option<Summary>, ApiError> {
    // A thread does not begin at what relates to something itself; so threads do not nest.
    if row.replies == 0 || relation_of(&event.pdu).is_some() {
        return Ok(None);
    }
    let (rooms, room) = (viewer.rooms().clone(), viewer.room().clone());
    let all = RELATIONS.prefix(&(room.nid, event.record.hash, RelationKind::Thread as u8));
    let mut unseen = 0;
    let mut replies = vec![row.latest_event];
    let mut is_first = true;
    while let Some(reply) = replies.pop() {
        let reply = rooms.event(reader, &room, reply)?;
        if let Some(reply) = reply.filter(|reply| !reply.record.flags.has(EventFlags::REDACTED))
            && !viewer.ignores(reader, reply.record.sender)?
        {
            if viewer.may_see(reader, &reply)? {
                let hidden = unseen + ignored_replies(reader, viewer, event)?;
                let count = row.replies.saturating_sub(hidden).max(1);
                return Ok(Some(Summary { latest: reply, count }));
            }
            unseen += 1;
        }
        if std::mem::take(&mut is_first) {
            let rows = reader.scan(&RELATIONS, &all, Direction::Backward, REPLIES_MAX)?;
            let others = rows.into_iter().map(|(_, row)| row.event);
            replies = others.filter(|reply| *reply != row.latest_event).collect();
            replies.reverse();
        }
    }
    Ok(None)
}

/// How many replies of a thread are by users whom the reader ignores.
fn ignored_replies(
    reader: &Reader<'_>,
    viewer: &Viewer,
    event: &StoredEvent,
) -> Result<u32, ApiError> {
    let ignored = viewer.ignored(reader)?;
    if ignored.is_empty() {
        return Ok(0);
    }
    let key = |sender| ThreadSenderKey { room: viewer.room().nid, root: event.record.hash, sender };
    if ignored.len() <= 32 {
        let keys: Vec<_> = ignored.iter().map(|&sender| key(sender)).collect();
        return Ok(reader.get_many(&THREAD_SENDERS, &keys)?.into_iter().flatten().sum());
    }
    let (mut sum, mut seen) = (0, 0);
    let all = THREAD_SENDERS.prefix(&(viewer.room().nid, event.record.hash));
    reader.for_each(&THREAD_SENDERS, &all, Direction::Forward, |key, count| {
        seen += 1;
        sum += if ignored.contains(&key.sender) { count } else { 0 };
        if seen < SENDERS_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(sum)
}

/// Whether the reader wrote the root of a thread or a reply in it.
pub(in crate::rooms) fn has_participated(
    reader: &Reader<'_>,
    viewer: &Viewer,
    root: &StoredEvent,
) -> Result<bool, ApiError> {
    if root.pdu.sender() == viewer.user_id() {
        return Ok(true);
    }
    let sender = viewer.rooms().interner().user(viewer.user_id());
    let key = ThreadSenderKey { room: viewer.room().nid, root: root.record.hash, sender };
    Ok(reader.contains(&THREAD_SENDERS, &key)?)
}

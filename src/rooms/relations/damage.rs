//! The check of the relations for damage: what is counted is what is there.

use std::collections::BTreeMap;

use kv::{Direction, Reader};

use crate::{
    error::ApiError,
    rooms::{Room, fsck::Findings},
    storage::{
        rows::{AggregationRow, RelationKind, TimelinePosition},
        schema::rooms::{AGGREGATIONS, RELATIONS, THREAD_SENDERS, THREADS},
    },
};

/// Compares the counts and the list of threads of a room with its relations.
pub(in crate::rooms) fn check_relations(
    reader: &Reader<'_>,
    room: &Room,
    findings: &mut Findings,
) -> Result<(), ApiError> {
    let mut counted = BTreeMap::<[u8; 32], AggregationRow>::new();
    let mut senders = BTreeMap::new();
    let all = RELATIONS.prefix(&room.nid);
    for (key, row) in reader.scan(&RELATIONS, &all, Direction::Forward, usize::MAX)? {
        let count = counted.entry(key.parent).or_default();
        if key.kind == RelationKind::Reference as u8 {
            count.references += 1;
        } else if key.kind == RelationKind::Thread as u8 {
            count.replies += 1;
            (count.latest, count.latest_event) = (key.position, row.event);
            *senders.entry((key.parent, row.sender)).or_insert(0_u32) += 1;
        }
    }
    let all = AGGREGATIONS.prefix(&room.nid);
    for (key, row) in reader.scan(&AGGREGATIONS, &all, Direction::Forward, usize::MAX)? {
        let count = counted.remove(&key.parent).unwrap_or_default();
        if row != (AggregationRow { edit: row.edit, ..count }) {
            findings.add(room, "the relations to an event are not counted as they are");
        }
    }
    if counted.values().any(|count| !count.is_empty()) {
        findings.add(room, "there are relations that are not counted");
    }
    let all = THREAD_SENDERS.prefix(&room.nid);
    let rows = reader.scan(&THREAD_SENDERS, &all, Direction::Forward, usize::MAX)?;
    let rows = rows.into_iter().map(|(key, count)| ((key.root, key.sender), count));
    if senders != rows.collect() {
        findings.add(room, "who wrote in a thread is not counted as it is");
    }
    check_threads(reader, room, findings)
}

/// Each thread is listed once, at the place of its latest reply.
fn check_threads(
    reader: &Reader<'_>,
    room: &Room,
    findings: &mut Findings,
) -> Result<(), ApiError> {
    let all = THREADS.prefix(&room.nid);
    let rows = reader.scan(&THREADS, &all, Direction::Forward, usize::MAX)?;
    let listed: BTreeMap<TimelinePosition, [u8; 32]> =
        rows.into_iter().map(|(key, row)| (key.latest, row.root)).collect();
    let all = AGGREGATIONS.prefix(&room.nid);
    let rows = reader.scan(&AGGREGATIONS, &all, Direction::Forward, usize::MAX)?;
    let threads = rows.into_iter().filter(|(_, row)| row.replies > 0);
    if listed != threads.map(|(key, row)| (row.latest, key.parent)).collect() {
        findings.add(room, "the list of threads is not that of the threads");
    }
    Ok(())
}

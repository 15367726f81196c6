//! The threads of a room, the one with the latest reply first.
//!
//! They stand in that order in a table of their own. The order is the same for all; what a reader is
//! told of each thread is what they may see of it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#querying-threads-in-a-room>

use std::{ops::Bound, sync::Arc};

use kv::{Direction, Reader};
use ruma::{CanonicalJsonObject, OwnedRoomId, canonical_json::redact_in_place};
use serde_json::value::RawValue;

use super::{
    Pdu, Room, Rooms, StoredEvent,
    event::event_id_of_hash,
    history::Asker,
    relations::bundle::{aggregation, has_participated, summary},
    render::{Form, client_event},
    timeline::PaginationToken,
    visibility::{Standing, Viewer, not_a_member},
};
use crate::{
    error::ApiError,
    storage::{
        rows::TimelinePosition,
        schema::rooms::{THREADS, ThreadKey},
    },
};

/// How many threads one page looks at.
const EXAMINED_MAX: usize = 1_000;

/// How many rows are read at once, at least.
const BATCH_MIN: usize = 24;

/// Which threads of a room are asked for.
#[derive(Clone, Debug)]
pub struct ThreadsRequest {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Whether only those are wanted that the asker wrote in.
    pub participated: bool,
    /// Where to go on.
    pub from: Option<PaginationToken>,
    /// How many at most.
    pub limit: usize,
}

/// Some threads of a room.
#[derive(Debug)]
pub struct Threads {
    /// The roots.
    pub chunk: Vec<Box<RawValue>>,
    /// Where to go on; `None` when there is nothing more.
    pub next: Option<PaginationToken>,
}

/// A page of a room's threads.
///
/// # Errors
/// 403 when the user is not, and was not, in the room.
pub async fn threads(
    rooms: &Rooms,
    asker: Asker,
    request: ThreadsRequest,
) -> Result<Threads, ApiError> {
    rooms
        .read(move |rooms, reader| {
            let viewer = asker.viewer(rooms, reader, &request.room_id)?;
            let mut viewer = viewer.ok_or_else(not_a_member)?;
            if viewer.standing(reader)? == Standing::Stranger {
                return Err(not_a_member());
            }
            read_threads(reader, &mut viewer, &request, &asker.form(rooms))
        })
        .await
}

fn read_threads(
    reader: &Reader<'_>,
    viewer: &mut Viewer,
    request: &ThreadsRequest,
    form: &Form,
) -> Result<Threads, ApiError> {
    let room = viewer.room().clone();
    let mut chunk = Vec::new();
    let mut from = request.from.unwrap_or(PaginationToken::after(TimelinePosition::END));
    let mut examined = 0;
    loop {
        let count = (request.limit - chunk.len() + 1).max(BATCH_MIN);
        let key = |latest| ThreadKey { room: room.nid, latest };
        let range = THREADS
            .range(Bound::Included(&key(TimelinePosition::START)), from.upper().map(key).as_ref());
        let rows = reader.scan(&THREADS, &range, Direction::Backward, count)?;
        let is_last = rows.len() < count;
        for (key, row) in rows {
            if chunk.len() == request.limit || examined == EXAMINED_MAX {
                return Ok(Threads { chunk, next: Some(from) });
            }
            examined += 1;
            from = PaginationToken::before(key.latest);
            if let Some(root) = wanted(reader, viewer, &row.root, request.participated)? {
                chunk.push(client_event(reader, viewer, &root, form)?);
            }
        }
        if is_last {
            return Ok(Threads { chunk, next: None });
        }
    }
}

/// The root of a thread, when the reader is to be told of the thread.
fn wanted(
    reader: &Reader<'_>,
    viewer: &mut Viewer,
    hash: &[u8; 32],
    participated: bool,
) -> Result<Option<Arc<StoredEvent>>, ApiError> {
    let (rooms, room) = (viewer.rooms().clone(), viewer.room().clone());
    let event_id = event_id_of_hash(hash, &room.rules);
    let Some(event) = rooms.event_by_id(reader, &room, &event_id)? else {
        return Ok(None);
    };
    if !viewer.may_see(reader, &event)?
        || (participated && !has_participated(reader, viewer, &event)?)
    {
        return Ok(None);
    }
    let row = aggregation(reader, viewer, &event)?.unwrap_or_default();
    if summary(reader, viewer, &event, &row)?.is_none() {
        return Ok(None);
    }
    if viewer.ignores(reader, event.record.sender)? {
        return redacted(&room, &event).map(Some);
    }
    Ok(Some(event))
}

/// What is told of a root by someone whom the reader ignores.
fn redacted(room: &Room, event: &StoredEvent) -> Result<Arc<StoredEvent>, ApiError> {
    let rules = &room.rules;
    let mut object: CanonicalJsonObject =
        serde_json::from_str(event.pdu.json()).map_err(ApiError::internal)?;
    redact_in_place(&mut object, &rules.redaction, None).map_err(ApiError::internal)?;
    let json = serde_json::to_string(&object).map_err(ApiError::internal)?.into_boxed_str();
    let event_id = event.pdu.event_id().to_owned();
    let pdu = Pdu::parse(json, event_id, room.id.clone(), rules).map_err(ApiError::internal)?;
    Ok(Arc::new(StoredEvent { pdu, ..event.clone() }))
}

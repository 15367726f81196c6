//! The task that keeps the index up to date: it follows the commits and, when it starts, looks for
//! rooms that have more than the index.
//!
//! It never stands in the way of a send: it works in small steps on a thread of its own, writes
//! without waiting for the disk, and pauses between steps so that what comes close together is
//! indexed together. A kill or a power cut may take the last steps together with their place: they
//! are done again.

use std::{
    collections::{HashSet, VecDeque},
    ops::Bound,
    sync::Arc,
    time::Duration,
};

use futures::FutureExt;
use kv::{Batch, Commit, CommitError, Direction, Durability, Feed, Json};

use super::{Inner, index::next_step};
use crate::{
    error::ApiError,
    id::RoomNid,
    storage::{
        rows::TimelinePosition,
        schema::{
            rooms::{ROOMS, TIMELINE, TimelineKey},
            search::{IndexRow, SEARCH_DOCUMENTS, SEARCH_INDEX, SEARCH_POSTINGS, SEARCH_ROOMS},
        },
        topic,
    },
    tasks::Stop,
};

/// How long it waits for more before it begins.
const GATHER: Duration = Duration::from_millis(50);
/// How long it waits before it tries again what failed.
const RETRY: Duration = Duration::from_secs(5);
/// How many rooms are looked at in one read when it starts.
const ROOMS_PER_READ: usize = 256;

/// Rooms that have more than the index, each once.
#[derive(Debug, Default)]
struct Queue {
    rooms: VecDeque<RoomNid>,
    known: HashSet<RoomNid>,
}

impl Queue {
    fn push(&mut self, room: RoomNid) {
        if self.known.insert(room) {
            self.rooms.push_back(room);
        }
    }

    fn pop(&mut self) -> Option<RoomNid> {
        let room = self.rooms.pop_front()?;
        self.known.remove(&room);
        Some(room)
    }

    fn push_all(&mut self, commits: &[Commit]) {
        for commit in commits {
            for topic in commit.topics.iter().filter(|topic| topic.space == topic::ROOM_EVENTS) {
                self.push(RoomNid(topic.id));
            }
        }
    }
}

/// Follows the store until the server stops.
pub(super) async fn run(search: Arc<Inner>, mut feed: Feed, mut stop: Stop) {
    let work = async {
        // What was written while the server was down, or before there was an index, waits behind
        // what is written now.
        let mut backlog = loop {
            match prepare(&search).await {
                Ok(backlog) => break backlog,
                Err(error) => {
                    tracing::error!(%error, "the search index is not ready; trying again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        let mut live = Queue::default();
        loop {
            if live.rooms.is_empty() && backlog.rooms.is_empty() {
                let Some(commits) = feed.next().await else { return };
                live.push_all(&commits);
                if live.rooms.is_empty() {
                    continue;
                }
                tokio::time::sleep(GATHER).await;
            }
            // Without waiting; that the feed has ended is found when there is nothing left to do.
            if let Some(Some(commits)) = feed.next().now_or_never() {
                live.push_all(&commits);
            }
            let (queue, room) = match (live.pop(), &mut live, &mut backlog) {
                (Some(room), live, _) => (live, Some(room)),
                (None, _, backlog) => {
                    let room = backlog.pop();
                    (backlog, room)
                }
            };
            if let Some(room) = room
                && step(&search, room).await
            {
                queue.push(room);
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = work => {}
        () = stop.requested() => {}
    }
}

/// Indexes some of a room. Whether to go on with it.
async fn step(search: &Arc<Inner>, room: RoomNid) -> bool {
    match try_step(search, room).await {
        Ok(has_more) => has_more,
        Err(error) if error.status == http::StatusCode::SERVICE_UNAVAILABLE => {
            tracing::warn!(%error, "the search index cannot be written; trying again");
            tokio::time::sleep(RETRY).await;
            true
        }
        Err(error) => {
            let cause = error.source.as_ref().map(ToString::to_string).unwrap_or_default();
            tracing::error!(%error, cause, "a room cannot be indexed until something is sent to it");
            false
        }
    }
}

async fn try_step(search: &Arc<Inner>, room: RoomNid) -> Result<bool, ApiError> {
    let inner = search.clone();
    let step = blocking(search, move |reader| next_step(&inner, reader, room)).await?;
    let Some(step) = step else { return Ok(false) };
    match search.rooms.store().commit(step.batch, Durability::Buffered).await {
        Ok(_) => Ok(step.has_more),
        Err(CommitError::Conflict) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Runs a read on a thread that may block, so that no request waits for it.
pub(super) async fn blocking<T: Send + 'static>(
    search: &Inner,
    read: impl FnOnce(&kv::Reader<'_>) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let store = search.rooms.store().clone();
    match tokio::task::spawn_blocking(move || read(&store.reader())).await {
        Ok(result) => result,
        Err(error) => Err(ApiError::internal(error)),
    }
}

/// Drops an index that was made in another way, and finds the rooms that have more than it holds.
/// That takes two look-ups for each room of the server, once.
async fn prepare(search: &Arc<Inner>) -> Result<Queue, ApiError> {
    let wanted = IndexRow { analyzer: search.analyzer.signature() };
    let found = blocking(search, |reader| Ok(reader.get(&SEARCH_INDEX, &0)?)).await?;
    if found.is_none_or(|Json(found)| found != wanted) {
        let mut batch = Batch::new();
        batch.delete_range(&SEARCH_POSTINGS, SEARCH_POSTINGS.prefix(&()));
        batch.delete_range(&SEARCH_DOCUMENTS, SEARCH_DOCUMENTS.prefix(&()));
        batch.delete_range(&SEARCH_ROOMS, SEARCH_ROOMS.prefix(&()));
        batch.put(&SEARCH_INDEX, &0, &Json(wanted));
        search.rooms.store().commit(batch, Durability::Synced).await?;
    }
    let mut queue = Queue::default();
    let mut last = None;
    loop {
        let (rooms, end) = blocking(search, move |reader| behind(reader, last)).await?;
        for room in rooms {
            queue.push(room);
        }
        match end {
            Some(end) => last = Some(end),
            None => return Ok(queue),
        }
        tokio::task::yield_now().await;
    }
}

/// Of some rooms after one those that have more than the index; and the last of them that was
/// looked at, if there may be more.
fn behind(
    reader: &kv::Reader<'_>,
    after: Option<RoomNid>,
) -> Result<(Vec<RoomNid>, Option<RoomNid>), ApiError> {
    let range = match &after {
        Some(after) => ROOMS.range(Bound::Excluded(after), Bound::<&RoomNid>::Unbounded),
        None => ROOMS.prefix(&()),
    };
    let rows = reader.scan(&ROOMS, &range, Direction::Forward, ROOMS_PER_READ)?;
    let rooms: Vec<RoomNid> = rows.into_iter().map(|(room, _)| room).collect();
    let indexed = reader.get_many(&SEARCH_ROOMS, &rooms)?;
    let mut behind = Vec::new();
    for (&room, indexed) in rooms.iter().zip(indexed) {
        let end = TimelineKey { room, position: TimelinePosition::END };
        let newest = reader.last_at_or_before(&TIMELINE, &room, &end)?;
        let newest = newest.map(|(key, _)| key.position).filter(|newest| newest.line == 1);
        if newest.is_some_and(|newest| newest.position > indexed.unwrap_or_default().position) {
            behind.push(room);
        }
    }
    let end = (rooms.len() == ROOMS_PER_READ).then(|| rooms.last().copied()).flatten();
    Ok((behind, end))
}

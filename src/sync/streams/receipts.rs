//! Receipts: what was read since the client last heard.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#mreceipt>

use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
};

use kv::{Direction, Position};
use ruma::OwnedEventId;
use serde::Serialize;

use super::{ClientEvent, Step, plain_event};
use crate::{
    error::ApiError,
    id::RoomNid,
    storage::schema::ephemeral::{
        RECEIPTS, RECEIPTS_BY_POSITION, ReceiptChange, ReceiptKind, ReceiptPositionKey,
    },
};

const TYPE: &str = "m.receipt";
/// How many receipts of one room are told at once, the newest first.
const RECEIPTS_MAX: usize = 1_000;

/// What there is to tell of a room's receipts.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    /// One event for each thread, since a user may have one receipt in each.
    pub(crate) events: Vec<ClientEvent>,
    /// Whether the reader's own are among them.
    pub(crate) own: bool,
}

#[derive(Serialize)]
struct Receipt {
    ts: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    thread_id: String,
}

type Content = BTreeMap<OwnedEventId, BTreeMap<&'static str, BTreeMap<String, Receipt>>>;

/// The receipts that were written after `since` (`None`: the newest of all, and the reader's own).
pub(crate) fn read(
    step: &Step<'_>,
    room: RoomNid,
    since: Option<Position>,
) -> Result<Receipts, ApiError> {
    let mut receipts = Receipts::default();
    let mut changes = changes(step, room, since)?;
    if since.is_none() && changes.len() == RECEIPTS_MAX {
        changes.extend(own(step, room)?);
    }
    let mut threads: BTreeMap<String, Content> = BTreeMap::new();
    for change in changes {
        let ReceiptChange { user_id, kind, thread, event_id, ts } = change;
        receipts.own |= user_id == step.user_id.as_str();
        let content = threads.entry(thread.clone()).or_default();
        let users = content.entry(event_id).or_default().entry(kind.name()).or_default();
        users.insert(user_id, Receipt { ts, thread_id: thread });
    }
    if step.filter.ephemeral.admits_type(TYPE, step.interner()) {
        receipts.events = threads
            .values()
            .map(|content| plain_event(TYPE, content))
            .collect::<Result<_, ApiError>>()?;
    }
    Ok(receipts)
}

/// The newest receipts that were written after `since`, in one event whatever their thread.
/// `None` as `since`: at most `limit` of all, and the reader's own.
pub(crate) fn merged(
    step: &Step<'_>,
    room: RoomNid,
    since: Option<Position>,
    limit: usize,
) -> Result<Option<ClientEvent>, ApiError> {
    let mut content = Content::new();
    let mut changes = changes_up_to(step, room, since, limit)?;
    if since.is_none() && changes.len() == limit {
        changes.extend(own(step, room)?);
    }
    for ReceiptChange { user_id, kind, thread, event_id, ts } in changes {
        let users = content.entry(event_id).or_default().entry(kind.name()).or_default();
        users.entry(user_id).or_insert(Receipt { ts, thread_id: thread });
    }
    if content.is_empty() { Ok(None) } else { plain_event(TYPE, &content).map(Some) }
}

/// The reader's own receipts.
fn own(step: &Step<'_>, room: RoomNid) -> Result<Vec<ReceiptChange>, ApiError> {
    let range = RECEIPTS.prefix(&(room, step.user_id.to_string()));
    let rows = step.reader.scan(&RECEIPTS, &range, Direction::Forward, RECEIPTS_MAX)?;
    let told = rows.into_iter().filter(|(_, row)| row.position <= step.now);
    Ok(told
        .filter_map(|(key, row)| {
            let kind = ReceiptKind::from_number(key.kind)?;
            let (user_id, thread) = (key.user_id, key.thread);
            Some(ReceiptChange { user_id, kind, thread, event_id: row.event_id, ts: row.ts })
        })
        .collect())
}

/// Private receipts of others are no one's business; those of ignored users neither.
fn changes(
    step: &Step<'_>,
    room: RoomNid,
    since: Option<Position>,
) -> Result<Vec<ReceiptChange>, ApiError> {
    changes_up_to(step, room, since, RECEIPTS_MAX)
}

fn changes_up_to(
    step: &Step<'_>,
    room: RoomNid,
    since: Option<Position>,
    limit: usize,
) -> Result<Vec<ReceiptChange>, ApiError> {
    let start = ReceiptPositionKey { room, position: since.unwrap_or_default() };
    let end = ReceiptPositionKey { room, position: step.now };
    let range = RECEIPTS_BY_POSITION.range(Bound::Excluded(&start), Bound::Included(&end));
    let mut changes = Vec::new();
    let visit = |_, change: ReceiptChange| {
        let is_own = change.user_id == step.user_id.as_str();
        let is_told = is_own
            || change.kind == ReceiptKind::Read
                && (step.ignored.is_empty() || !is_ignored(step, &change.user_id));
        if is_told {
            changes.push(change);
        }
        if changes.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    step.reader.for_each(&RECEIPTS_BY_POSITION, &range, Direction::Backward, visit)?;
    Ok(changes)
}

fn is_ignored(step: &Step<'_>, user_id: &str) -> bool {
    ruma::UserId::parse(user_id)
        .is_ok_and(|user_id| step.ignored.contains(&step.interner().user(&user_id)))
}

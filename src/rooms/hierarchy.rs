//! The rooms of a space, and of the spaces in it, depth first.
//!
//! A walk meets each room once, so that circles end; it goes at most [`DEPTH_MAX`] deep and meets at
//! most `ROOMS_MAX` rooms. What a page leaves over is kept in memory under the token of the next
//! one, bound to who asked for what; the store of these walks has a bound, and a walk that is gone is
//! begun again. Rooms that the user may not know of are left out, and spaces among them are not
//! entered.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#spaces>

use std::{collections::HashSet, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use kv::Reader;
use quick_cache::{Weighter, sync::Cache};
use ruma::{
    OwnedRoomId, OwnedUserId, RoomId,
    room::{RoomSummary, RoomType},
};
use serde_json::{Map, Value, json, value::RawValue};

use super::{
    Room, Rooms, StoredEvent,
    state_view::{Part, events_of_state},
};
use crate::{
    error::ApiError,
    id::{EventNid, RoomNid},
    storage::{
        rows::StateRef,
        schema::rooms::{EVENT_RECORDS, EventKey, ROOM_HEADS},
    },
};

/// How deep a walk goes at most, and by default.
pub const DEPTH_MAX: u8 = 16;
/// How many rooms a walk meets at most.
const ROOMS_MAX: usize = 20_000;
/// How many rooms one page looks at, most of which may be hidden.
const LOOKED_AT_MAX: usize = 2_000;
/// How many bytes all walks that wait for their next page may take.
const WALKS_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// How many walks about.
const WALKS: usize = 1_000;
/// How many records are looked up at once.
const RECORDS_AT_ONCE: usize = 256;

/// What is asked for: a token is good for the same alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HierarchyRequest {
    /// Who asks.
    pub user_id: OwnedUserId,
    /// The space at the top.
    pub room_id: OwnedRoomId,
    /// Only children that are suggested.
    pub suggested_only: bool,
    /// How deep to go.
    pub max_depth: u8,
}

/// A room of a page.
#[derive(Clone, Debug)]
pub struct HierarchyRoom {
    /// What the room is.
    pub summary: Arc<RoomSummary>,
    /// Its children, as stripped events with their time.
    pub children: Vec<Box<RawValue>>,
}

/// A page.
#[derive(Clone, Debug, Default)]
pub struct HierarchyPage {
    /// The rooms.
    pub rooms: Vec<HierarchyRoom>,
    /// The token of the next page.
    pub next_batch: Option<String>,
}

/// What is left of a walk.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    request: HierarchyRequest,
    /// What is next, the last first.
    stack: Vec<(RoomNid, u8)>,
    met: HashSet<RoomNid>,
}

/// The walks that wait for their next page.
pub(super) type Walks = Cache<String, Arc<Walk>, WalkWeight>;

/// Weighs a walk in bytes.
#[derive(Clone)]
pub(super) struct WalkWeight;

impl Weighter<String, Arc<Walk>> for WalkWeight {
    fn weight(&self, _: &String, walk: &Arc<Walk>) -> u64 {
        (walk.stack.len() * 16 + walk.met.len() * 18 + 400) as u64
    }
}

pub(super) fn walks() -> Walks {
    Cache::with_weighter(WALKS, WALKS_BYTES_MAX, WalkWeight)
}

/// A child of a space.
struct Child {
    room: RoomNid,
    /// What children are ordered by: without an order last, then by time and id.
    order: (bool, String, i64, String),
    event: Arc<StoredEvent>,
}

impl Rooms {
    /// A page of the rooms of a space: the first, or the one that `from` names.
    ///
    /// # Errors
    /// 403 when the user may not know of the space (or there is none), 400 when the token is not
    /// known or belongs to another request.
    pub async fn hierarchy(
        &self,
        request: HierarchyRequest,
        from: Option<&str>,
        limit: usize,
    ) -> Result<HierarchyPage, ApiError> {
        let walk = if let Some(token) = from {
            self.known_walk(&request, token)?
        } else {
            let root = self.interner().room(&request.room_id);
            let (stack, met) = (vec![(root, 0)], HashSet::from([root]));
            Arc::new(Walk { request, stack, met })
        };
        let limit = limit.max(1);
        let is_first = from.is_none();
        let (rooms, rest) = self
            .read(move |rooms, reader| {
                let mut rest = Walk::clone(&walk);
                if is_first {
                    check_root(rooms, reader, &rest.request)?;
                }
                let page = page(rooms, reader, &mut rest, limit)?;
                Ok((page, rest))
            })
            .await?;
        let next_batch = if rest.stack.is_empty() {
            None
        } else {
            let token = random_token()?;
            self.0.walks.insert(token.clone(), Arc::new(rest));
            Some(token)
        };
        Ok(HierarchyPage { rooms, next_batch })
    }

    fn known_walk(&self, request: &HierarchyRequest, token: &str) -> Result<Arc<Walk>, ApiError> {
        let walk = self.0.walks.get(token);
        let walk =
            walk.ok_or_else(|| ApiError::invalid_param("`from` is not known; begin again"))?;
        if walk.request != *request {
            return Err(ApiError::invalid_param(
                "`suggested_only` and `max_depth` cannot change from page to page",
            ));
        }
        Ok(walk)
    }
}

/// The answer is the same for a room that is not there.
fn check_root(
    rooms: &Rooms,
    reader: &Reader<'_>,
    request: &HierarchyRequest,
) -> Result<(), ApiError> {
    let refusal = || ApiError::forbidden("You are not allowed to view this room");
    let nid = rooms.interner().room(&request.room_id);
    let room = rooms.room_by_nid(reader, nid)?.filter(|room| room.id == request.room_id);
    let room = room.ok_or_else(refusal)?;
    rooms.summary_for(reader, &room, Some(&request.user_id))?.ok_or_else(refusal)?;
    Ok(())
}

fn page(
    rooms: &Rooms,
    reader: &Reader<'_>,
    walk: &mut Walk,
    limit: usize,
) -> Result<Vec<HierarchyRoom>, ApiError> {
    let mut page = Vec::new();
    for _ in 0..LOOKED_AT_MAX {
        if page.len() >= limit {
            break;
        }
        let Some((nid, depth)) = walk.stack.pop() else { break };
        let Some(room) = rooms.room_by_nid(reader, nid)? else { continue };
        let user_id = walk.request.user_id.clone();
        let Some(summary) = rooms.summary_for(reader, &room, Some(&user_id))? else { continue };
        let mut children = Vec::new();
        if summary.room_type == Some(RoomType::Space) {
            let found = children_of(rooms, reader, &room, walk.request.suggested_only)?;
            children =
                found.iter().map(|child| stripped(&child.event)).collect::<Result<_, _>>()?;
            if depth < walk.request.max_depth {
                walk.enter(&found, depth + 1);
            }
        }
        page.push(HierarchyRoom { summary, children });
    }
    Ok(page)
}

impl Walk {
    fn enter(&mut self, children: &[Child], depth: u8) {
        let mut new = Vec::new();
        for child in children {
            if self.met.len() < ROOMS_MAX && self.met.insert(child.room) {
                new.push((child.room, depth));
            }
        }
        self.stack.extend(new.into_iter().rev());
    }
}

/// The children of a space in their order.
fn children_of(
    rooms: &Rooms,
    reader: &Reader<'_>,
    room: &Room,
    suggested_only: bool,
) -> Result<Vec<Child>, ApiError> {
    let state = reader
        .get(&ROOM_HEADS, &room.nid)?
        .map_or(StateRef::EMPTY, |head| StateRef::trunk(head.state_version));
    let kind = rooms.interner().event_type("m.space.child");
    let mut children = Vec::new();
    let events = events_of_state(rooms, reader, room, state, &Part::Others)?;
    for events in events.chunks(RECORDS_AT_ONCE) {
        let keys: Vec<EventKey> =
            events.iter().map(|&event| EventKey { room: room.nid, event }).collect();
        let records = reader.get_many(&EVENT_RECORDS, &keys)?;
        let wanted = events
            .iter()
            .zip(records)
            .filter(|(_, record)| record.as_ref().is_some_and(|record| record.event_type == kind));
        let wanted: Vec<EventNid> = wanted.map(|(event, _)| *event).collect();
        for event in wanted {
            let event = rooms.stored_event(reader, room, event)?;
            children.extend(child_of(rooms, event, suggested_only));
        }
    }
    children.sort_by(|one, other| one.order.cmp(&other.order));
    Ok(children)
}

/// A child by its event; `None` when it is none (any more).
fn child_of(rooms: &Rooms, event: Arc<StoredEvent>, suggested_only: bool) -> Option<Child> {
    let content: Map<String, Value> = serde_json::from_str(event.pdu.content().get()).ok()?;
    content.get("via").and_then(Value::as_array)?;
    let suggested = content.get("suggested").and_then(Value::as_bool).unwrap_or(false);
    if suggested_only && !suggested {
        return None;
    }
    let room_id = <&RoomId>::try_from(event.pdu.state_key()?).ok()?.to_owned();
    let order = content.get("order").and_then(Value::as_str).filter(|order| is_order(order));
    let ts = i64::from(event.pdu.origin_server_ts().get());
    let order = (order.is_none(), order.unwrap_or_default().to_owned(), ts, room_id.to_string());
    Some(Child { room: rooms.interner().room(&room_id), order, event })
}

/// <https://spec.matrix.org/v1.19/client-server-api/#mspacechild>
fn is_order(order: &str) -> bool {
    order.len() <= 50 && order.bytes().all(|byte| (0x20..=0x7e).contains(&byte))
}

fn stripped(event: &StoredEvent) -> Result<Box<RawValue>, ApiError> {
    let pdu = &event.pdu;
    serde_json::value::to_raw_value(&json!({
        "type": pdu.event_type(),
        "state_key": pdu.state_key(),
        "sender": pdu.sender(),
        "origin_server_ts": pdu.origin_server_ts(),
        "content": pdu.content(),
    }))
    .map_err(ApiError::internal)
}

fn random_token() -> Result<String, ApiError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| ApiError::internal_text(format!("no randomness: {error}")))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

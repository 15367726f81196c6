//! The rooms of a user in the order of news, and which of them a request's lists and subscriptions
//! are about.
//!
//! Works on the room table. Filters by encryption and type need facts of rooms, which are
//! remembered once they were read: the type of a room never changes, and encryption stays on.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use kv::Position;
use quick_cache::sync::Cache;
use ruma::OwnedRoomId;

use super::{
    connection::{Base, Kind},
    request::{List, ListFilter, Wanted, Wish},
};
use crate::{
    error::ApiError,
    id::RoomNid,
    rooms::preferences::{InviteDecision, InviteWishes},
    storage::{
        rows::{Membership, MembershipRow},
        schema::rooms::{CURRENT_STATE, CurrentStateKey},
    },
    sync::{
        room_table::{News, RoomPositions},
        streams::Step,
    },
};

/// How many rooms' facts are remembered.
const FACTS_MAX: usize = 100_000;
/// The class of the current state that is not about members.
const CLASS_OTHERS: u8 = 0;

/// A room of the user.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) nid: RoomNid,
    pub(super) row: MembershipRow,
    /// Zero for rooms that are not joined.
    pub(super) positions: RoomPositions,
    /// Its place in the order; what clients get as `bump_stamp`.
    pub(super) stamp: Position,
    /// The lists whose ranges it is in, as bits.
    pub(super) lists: u32,
}

/// A room that a request is about.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) entry: Entry,
    pub(super) subscribed: bool,
    pub(super) wish: Arc<Wish>,
}

/// What is remembered of a room for filters.
#[derive(Clone, Debug, Default)]
struct Facts {
    room_type: Option<Arc<str>>,
    encrypted: bool,
    /// When it was not encrypted.
    looked_at: Position,
}

/// What is remembered of rooms for filters. Cheap to clone.
#[derive(Clone)]
pub(in crate::sync) struct RoomFacts(Arc<Cache<RoomNid, Facts>>);

impl RoomFacts {
    pub(in crate::sync) fn new() -> Self {
        Self(Arc::new(Cache::new(FACTS_MAX)))
    }

    fn of(&self, step: &Step<'_>, entry: &Entry) -> Result<Facts, ApiError> {
        let known = self.0.get(&entry.nid);
        if let Some(facts) = &known
            && (facts.encrypted || facts.looked_at >= entry.stamp.max(entry.positions.events))
        {
            return Ok(facts.clone());
        }
        let state = |event_type: &str| {
            let key = step.interner().state_key(event_type, "");
            let key = CurrentStateKey { room: entry.nid, class: CLASS_OTHERS, key };
            step.reader.get(&CURRENT_STATE, &key)
        };
        let room_type = match known {
            Some(facts) => facts.room_type,
            None => match (
                step.sources.rooms.room_by_nid(step.reader, entry.nid)?,
                state("m.room.create")?,
            ) {
                (Some(room), Some(create)) => {
                    let room_type: Option<String> =
                        step.event(&room, create)?.pdu.content_field("type");
                    room_type.map(Into::into)
                }
                _ => None,
            },
        };
        let encrypted = state("m.room.encryption")?.is_some();
        let facts = Facts { room_type, encrypted, looked_at: step.now };
        self.0.insert(entry.nid, facts.clone());
        Ok(facts)
    }
}

/// The user's rooms, the newest first: joined ones, invites, knocks, and of those that were left
/// the ones that the client was told of, or that somebody else made the user leave.
pub(super) fn entries(step: &Step<'_>, news: &News, base: &Base) -> Result<Vec<Entry>, ApiError> {
    let positions: HashMap<RoomNid, RoomPositions> = news.rooms.iter().copied().collect();
    let mut entries = Vec::with_capacity(news.memberships.len());
    let mut wishes = None;
    for &(nid, row) in news.memberships.iter() {
        let is_listed = match row.membership {
            Membership::Join | Membership::Knock => true,
            Membership::Invite => is_wanted(step, (nid, &row), &mut wishes)?,
            Membership::Leave | Membership::Ban => match base.rooms.get(&nid) {
                Some(told) if told.kind != Kind::Left => true,
                // Told once, unless it was left in another way since.
                Some(told) => told.member != row.event && !row.forgotten,
                None => row.was_joined && row.by_other && !row.forgotten,
            },
            Membership::None => false,
        };
        if !is_listed {
            continue;
        }
        let positions = positions.get(&nid).copied().unwrap_or_default();
        let is_joined = row.membership == Membership::Join;
        let stamp = if is_joined { positions.bumped } else { row.position };
        entries.push(Entry { nid, row, positions, stamp, lists: 0 });
    }
    entries.sort_unstable_by_key(|entry| (Reverse(entry.stamp), entry.nid));
    Ok(entries)
}

/// Whether the reader wants an invite of who sent it. `wishes` are read with the first one.
fn is_wanted(
    step: &Step<'_>,
    (nid, row): (RoomNid, &MembershipRow),
    wishes: &mut Option<InviteWishes>,
) -> Result<bool, ApiError> {
    let wishes = match wishes {
        Some(wishes) => wishes,
        None => wishes.insert(InviteWishes::read(step.interner(), step.reader, step.user_id)?),
    };
    let Some(room) = step.sources.rooms.room_by_nid(step.reader, nid)? else { return Ok(false) };
    let member = step.event(&room, row.event)?;
    Ok(wishes.decide(member.pdu.sender()) == InviteDecision::Allow)
}

/// Sorts the rooms into the lists; gives how many are in each.
pub(super) fn sort_in(
    step: &Step<'_>,
    facts: &RoomFacts,
    (lists, direct): (&[List], &HashSet<RoomNid>),
    entries: &mut [Entry],
) -> Result<Vec<u64>, ApiError> {
    let mut counts = Vec::with_capacity(lists.len());
    for (bit, list) in (0..).zip(lists) {
        let mut place = 0;
        for entry in entries.iter_mut() {
            if !admits(step, facts, (&list.filter, direct), entry)? {
                continue;
            }
            if list.ranges.iter().any(|&(first, last)| (first..=last).contains(&place)) {
                entry.lists |= 1 << bit;
            }
            place += 1;
        }
        counts.push(u64::try_from(place).unwrap_or(u64::MAX));
    }
    Ok(counts)
}

fn admits(
    step: &Step<'_>,
    facts: &RoomFacts,
    (filter, direct): (&ListFilter, &HashSet<RoomNid>),
    entry: &Entry,
) -> Result<bool, ApiError> {
    let is_invite = entry.row.membership == Membership::Invite;
    if filter.is_invite.is_some_and(|wanted| wanted != is_invite)
        || filter.is_dm.is_some_and(|wanted| wanted != direct.contains(&entry.nid))
    {
        return Ok(false);
    }
    let by_type = !filter.room_types.is_empty() || !filter.not_room_types.is_empty();
    if filter.is_encrypted.is_none() && !by_type {
        return Ok(true);
    }
    let facts = facts.of(step, entry)?;
    let is_in = |types: &[Option<String>]| {
        types.iter().any(|wanted| wanted.as_deref() == facts.room_type.as_deref())
    };
    Ok(filter.is_encrypted.is_none_or(|wanted| wanted == facts.encrypted)
        && (filter.room_types.is_empty() || is_in(&filter.room_types))
        && !is_in(&filter.not_room_types))
}

/// The rooms that a request is about, with all that is wanted of each.
pub(super) fn targets(wanted: &Wanted, entries: &[Entry]) -> Vec<Target> {
    let mut wishes: HashMap<u32, Arc<Wish>> = HashMap::new();
    let mut targets = Vec::new();
    for entry in entries {
        let subscription = wanted.subscriptions.get(&entry.nid);
        if entry.lists == 0 && subscription.is_none() {
            continue;
        }
        let of_lists = || {
            let lists = (0..).zip(&wanted.lists);
            lists.filter(|(bit, _)| entry.lists & 1 << bit != 0).map(|(_, list)| &list.wish)
        };
        let wish = match subscription {
            Some(subscription) => Wish::union(of_lists().chain([subscription])),
            None => wishes.entry(entry.lists).or_insert_with(|| Wish::union(of_lists())).clone(),
        };
        let subscribed = subscription.is_some();
        targets.push(Target { entry: *entry, subscribed, wish });
    }
    targets
}

/// The rooms that the user's account data calls direct.
pub(super) fn direct_rooms(step: &Step<'_>) -> Result<HashSet<RoomNid>, ApiError> {
    let data = step.sources.users.account_data();
    let content = data.read(step.reader, step.user_id, None, "m.direct")?;
    let Some(content) = content else { return Ok(HashSet::new()) };
    let direct: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(content.get()).unwrap_or_default();
    let rooms = direct.values().filter_map(serde_json::Value::as_array).flatten();
    let room_ids = rooms.filter_map(|room| OwnedRoomId::try_from(room.as_str()?).ok());
    Ok(room_ids.map(|room_id| step.interner().room(&room_id)).collect())
}

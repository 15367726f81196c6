//! The check of the event graph for damage: what must agree, agrees.
//!
//! Every event is read and its id computed again; the indexes, the timeline, the current state, the
//! members and the counters are compared with the events they are made from. Reads only.

use std::collections::{BTreeMap, BTreeSet};

use kv::{Direction, Reader};
use ruma::{CanonicalJsonObject, signatures::reference_hash};

use super::{Room, Rooms, event::event_id_of_hash, relations::damage::check_relations, state};
use crate::{
    error::ApiError,
    id::{EventNid, RoomNid, StateKeyNid},
    storage::{
        rows::{EventRecord, HeadRow, Membership, StateRef, TimelinePosition},
        schema::rooms::{
            CURRENT_STATE, EVENT_RECORDS, EVENTS, EVENTS_BY_HASH, EventHashKey, EventKey, MEMBERS,
            MEMBERSHIPS, MembershipKey, ROOM_HEADS, ROOMS, TIMELINE, TimelineKey,
        },
    },
};

/// How many findings are told; more say nothing new.
const FINDINGS_MAX: usize = 100;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// The rooms that were checked.
    pub rooms: u64,
    /// The events that were checked.
    pub events: u64,
    /// What is wrong, each in a sentence.
    pub damages: Vec<String>,
}

impl Findings {
    pub(super) fn add(&mut self, room: &Room, what: impl std::fmt::Display) {
        if self.damages.len() < FINDINGS_MAX {
            self.damages.push(format!("room {}: {what}", room.id));
        }
    }
}

impl Rooms {
    /// Checks all rooms. Blocks: for a command or a thread of its own.
    pub fn check(&self) -> Result<Findings, ApiError> {
        let reader = self.store().reader();
        let mut findings = Findings::default();
        let mut start = None::<RoomNid>;
        loop {
            let range = match &start {
                None => ROOMS.prefix(&()),
                Some(last) => ROOMS
                    .range(std::ops::Bound::Excluded(last), std::ops::Bound::<&RoomNid>::Unbounded),
            };
            let rows = reader.scan(&ROOMS, &range, Direction::Forward, 100)?;
            let Some((last, _)) = rows.last() else { return Ok(findings) };
            start = Some(*last);
            for (nid, row) in rows {
                let room = Room::new(nid, row.0.room_id, row.0.version)?;
                findings.rooms += 1;
                if self.interner().room(&room.id) != nid {
                    findings.add(&room, "the number is not that of its id");
                }
                self.check_room(&reader, &room, &mut findings)?;
            }
        }
    }

    fn check_room(
        &self,
        reader: &Reader<'_>,
        room: &Room,
        findings: &mut Findings,
    ) -> Result<(), ApiError> {
        let Some(head) = reader.get(&ROOM_HEADS, &room.nid)? else {
            findings.add(room, "it has no head");
            return Ok(());
        };
        let records = check_events(reader, room, &head, findings)?;
        check_extremities(room, &head, &records, findings);
        check_timeline(reader, room, &records, findings)?;
        check_relations(reader, room, findings)?;
        let state = state::full(reader, room.nid, StateRef::trunk(head.state_version))?;
        check_current_state(reader, room, (&state, &records), findings)?;
        self.check_members(reader, room, &head, findings)
    }

    /// The members, the rooms of each member and the counters against the current state.
    fn check_members(
        &self,
        reader: &Reader<'_>,
        room: &Room,
        head: &HeadRow,
        findings: &mut Findings,
    ) -> Result<(), ApiError> {
        let rows =
            reader.scan(&MEMBERS, &MEMBERS.prefix(&room.nid), Direction::Forward, usize::MAX)?;
        let mut counts = BTreeMap::<u8, u64>::new();
        for (key, event) in rows {
            *counts.entry(key.membership).or_default() += 1;
            let number = self.interner().state_key("m.room.member", &key.user_id);
            let at = StateRef::trunk(head.state_version);
            if state::lookup(reader, room.nid, at, number)? != Some(event) {
                findings.add(room, format_args!("the member {} is not in the state", key.user_id));
            }
            let membership_key = MembershipKey { user_id: key.user_id.clone(), room: room.nid };
            let row = reader.get(&MEMBERSHIPS, &membership_key)?;
            if row.is_none_or(|row| row.event != event || row.membership as u8 != key.membership) {
                findings.add(room, format_args!("{} has another membership", key.user_id));
            }
        }
        let count = |membership: Membership| counts.get(&(membership as u8)).copied().unwrap_or(0);
        let counted = (count(Membership::Join), count(Membership::Invite));
        if counted != (head.joined_members, head.invited_members) {
            findings.add(room, "the counters of members are wrong");
        }
        Ok(())
    }
}

type Records = BTreeMap<EventNid, EventRecord>;

/// Every event: there, with the id that its bytes give, found by that id.
fn check_events(
    reader: &Reader<'_>,
    room: &Room,
    head: &HeadRow,
    findings: &mut Findings,
) -> Result<Records, ApiError> {
    let mut records = Records::new();
    let all = EVENT_RECORDS.prefix(&room.nid);
    for (key, record) in reader.scan(&EVENT_RECORDS, &all, Direction::Forward, usize::MAX)? {
        findings.events += 1;
        let event_id = event_id_of_hash(&record.hash, &room.rules);
        match reader.get(&EVENTS, &EventKey { room: room.nid, event: key.event })? {
            None => findings.add(room, format_args!("{event_id} has no content")),
            Some(json) => {
                let object: Result<CanonicalJsonObject, _> = serde_json::from_str(&json.0);
                let text = object
                    .ok()
                    .and_then(|object| reference_hash(&object, &room.rules).ok())
                    .map(|hash| format!("${hash}"));
                if text.as_deref() != Some(event_id.as_str()) {
                    findings.add(room, format_args!("the bytes of {event_id} have another id"));
                }
            }
        }
        let by_hash = EventHashKey { room: room.nid, hash: record.hash };
        if reader.get(&EVENTS_BY_HASH, &by_hash)? != Some(key.event) {
            findings.add(room, format_args!("{event_id} is not found by its id"));
        }
        records.insert(key.event, record);
    }
    let next = u32::try_from(records.len()).unwrap_or(u32::MAX).saturating_add(1);
    if head.next_event != EventNid(next) {
        findings
            .add(room, format_args!("event {} is next, but {next} should be", head.next_event.0));
    }
    for (nid, record) in &records {
        let cited = record.prev_events.iter().chain(&record.auth_events);
        if let Some(missing) = cited.into_iter().find(|cited| !records.contains_key(cited)) {
            findings
                .add(room, format_args!("event {} cites {}, which is not there", nid.0, missing.0));
        }
    }
    Ok(records)
}

/// There is an extremity, each is shown, and no event that is shown follows one.
fn check_extremities(room: &Room, head: &HeadRow, records: &Records, findings: &mut Findings) {
    if head.extremities.is_empty() {
        findings.add(room, "it has no extremity");
    }
    let shown = |record: &EventRecord| record.position != TimelinePosition::START;
    let followed: BTreeSet<_> = records
        .values()
        .filter(|record| shown(record))
        .flat_map(|record| &record.prev_events)
        .collect();
    for extremity in &head.extremities {
        match records.get(extremity) {
            Some(record) if shown(record) => {}
            _ => findings.add(room, format_args!("the extremity {} is not shown", extremity.0)),
        }
        if followed.contains(extremity) {
            findings.add(room, format_args!("an event follows the extremity {}", extremity.0));
        }
    }
}

/// The timeline has exactly the events that have a place in it, each at its place.
fn check_timeline(
    reader: &Reader<'_>,
    room: &Room,
    records: &Records,
    findings: &mut Findings,
) -> Result<(), ApiError> {
    let all = TIMELINE.prefix(&room.nid);
    let rows = reader.scan(&TIMELINE, &all, Direction::Forward, usize::MAX)?;
    let placed = records.values().filter(|record| record.position != TimelinePosition::START);
    if rows.len() != placed.count() {
        findings.add(room, "the timeline has not exactly the events that belong there");
    }
    for (TimelineKey { position, .. }, entry) in rows {
        if records.get(&entry.event).is_none_or(|record| record.position != position) {
            findings.add(room, format_args!("event {} is at a wrong place", entry.event.0));
        }
    }
    Ok(())
}

/// The current state is the newest version of the trunk, and made of state events that are there.
fn check_current_state(
    reader: &Reader<'_>,
    room: &Room,
    (state, records): (&BTreeMap<StateKeyNid, EventNid>, &Records),
    findings: &mut Findings,
) -> Result<(), ApiError> {
    let all = CURRENT_STATE.prefix(&room.nid);
    let rows = reader.scan(&CURRENT_STATE, &all, Direction::Forward, usize::MAX)?;
    let projected: BTreeMap<_, _> = rows.into_iter().map(|(key, event)| (key.key, event)).collect();
    if projected != *state {
        findings.add(room, "the current state is not the newest version of the state");
    }
    for (key, event) in state {
        if records.get(event).is_none_or(|record| record.state_key != *key) {
            findings.add(room, format_args!("the state holds {}, which is no such event", event.0));
        }
    }
    Ok(())
}

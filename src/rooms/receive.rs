//! The path of an event from elsewhere, once its signatures are verified: the checks on receipt,
//! then the same commit as for a local event.
//!
//! Every source of such events (transactions, missing events, backfill, joins) enters here.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu>

use std::collections::HashMap;

use ruma::{
    CanonicalJsonObject, OwnedEventId, events::StateEventType, signatures::reference_hash,
    state_res::check_pdu_format,
};

use super::{
    Pdu, Room, Rooms, StoredEvent,
    auth::{self, Denied},
    draft::{Accepted, Draft},
    event::{EVENT_BYTES_MAX, hash_of_event_id},
    relations,
    resolve::{self, Resolved},
};
use crate::{
    error::ApiError,
    id::{EventNid, StateKeyNid},
    storage::rows::{EventFlags, EventRecord, StateRef},
};

/// What became of an event from elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was here already.
    Known,
    /// It is part of the room.
    Accepted,
    /// It is kept, but the current state refuses it: not shown, not built upon (step 6).
    SoftFailed(String),
    /// It is kept as rejected: the state that it was made on refuses it (steps 4 and 5).
    Rejected(String),
    /// It cannot be judged before these events are here.
    Missing(Vec<OwnedEventId>),
    /// It is no event of this room (step 1): nothing was kept.
    Dropped(String),
}

impl Rooms {
    /// Takes in an event whose signatures and hash the caller has verified.
    ///
    /// # Errors
    /// Only for failures of this server; whatever is wrong with the event is an [`Outcome`].
    pub async fn receive(
        &self,
        room: &Room,
        object: CanonicalJsonObject,
    ) -> Result<Outcome, ApiError> {
        let (pdu, hash) = match parse(room, &object) {
            Ok(parsed) => parsed,
            Err(reason) => return Ok(Outcome::Dropped(reason)),
        };
        self.write_settled(room, move |draft| receive(draft, &pdu, hash)).await
    }
}

/// Step 1: the event is valid in its room's version.
fn parse(room: &Room, object: &CanonicalJsonObject) -> Result<(Pdu, [u8; 32]), String> {
    let json = serde_json::to_string(object).map_err(|error| error.to_string())?;
    if json.len() > EVENT_BYTES_MAX {
        return Err("the event is larger than 65536 bytes".to_owned());
    }
    check_pdu_format(object, &room.rules.event_format)?;
    let named = object.get("room_id").and_then(|id| id.as_str());
    if named.is_some_and(|id| id != room.id.as_str()) {
        return Err("the event belongs to another room".to_owned());
    }
    let text = reference_hash(object, &room.rules).map_err(|error| error.to_string())?;
    let event_id = OwnedEventId::try_from(format!("${text}")).map_err(|error| error.to_string())?;
    let hash = hash_of_event_id(&event_id).ok_or("the event has no reference hash")?;
    let pdu = Pdu::parse(json.into_boxed_str(), event_id, room.id.clone(), &room.rules)
        .map_err(|error| error.to_string())?;
    Ok((pdu, hash))
}

fn receive(draft: &mut Draft<'_>, pdu: &Pdu, hash: [u8; 32]) -> Result<Outcome, ApiError> {
    if draft.event_by_id(pdu.event_id())?.is_some() {
        return Ok(Outcome::Known);
    }
    let (prev, auth) = match cited(draft, pdu)? {
        Ok(cited) => cited,
        Err(missing) => return Ok(Outcome::Missing(missing)),
    };
    let refs: Vec<_> = prev.iter().map(|event| event.record.state_after).collect();
    let Resolved { base, changes } = resolve::resolve(draft, &refs)?;
    let before = draft.state.child(draft.reader, base, &changes)?;
    let verdict = judge(draft, pdu, &auth, before)?;
    let flags = match &verdict {
        // What relates to it may have come first.
        Verdict::Accepted if relations::index::is_awaited(draft, &hash)? => EventFlags::PARENT,
        Verdict::Accepted => EventFlags::default(),
        Verdict::SoftFailed(_) => EventFlags::SOFT_FAILED,
        Verdict::Rejected(_) => EventFlags::REJECTED,
    };
    let mut accepted = Accepted {
        pdu: pdu.clone().with_flags(flags),
        hash,
        flags,
        prev_events: prev.iter().map(|event| event.nid).collect(),
        auth_events: auth.iter().map(|event| event.nid).collect(),
        states: None,
        changes: Vec::new(),
        transaction: None,
    };
    let covers = draft.head.extremities.iter().all(|e| accepted.prev_events.contains(&e.nid));
    let follows_head = covers && before == draft.state.head();
    if !(follows_head && verdict == Verdict::Accepted) {
        place_off_head(draft, &mut accepted, before, &verdict)?;
    }
    draft.accept(accepted)?;
    Ok(match verdict {
        Verdict::Accepted => Outcome::Accepted,
        Verdict::SoftFailed(reason) => Outcome::SoftFailed(reason),
        Verdict::Rejected(reason) => Outcome::Rejected(reason),
    })
}

type Events = Vec<std::sync::Arc<StoredEvent>>;

/// The events that an event follows and those that authorize it, or which of them are missing.
fn cited(
    draft: &Draft<'_>,
    pdu: &Pdu,
) -> Result<Result<(Events, Events), Vec<OwnedEventId>>, ApiError> {
    let mut missing = Vec::new();
    let mut find = |ids: &[OwnedEventId]| {
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            match draft.event_by_id(id)? {
                Some(event) => found.push(event),
                None => missing.push(id.clone()),
            }
        }
        Ok::<_, ApiError>(found)
    };
    let cited = (find(pdu.prev_events())?, find(pdu.auth_events())?);
    Ok(if missing.is_empty() { Ok(cited) } else { Err(missing) })
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Accepted,
    SoftFailed(String),
    Rejected(String),
}

/// Steps 4 to 6.
fn judge(
    draft: &Draft<'_>,
    pdu: &Pdu,
    auth: &Events,
    before: StateRef,
) -> Result<Verdict, ApiError> {
    let rules = &draft.room.rules;
    let create = draft.current("m.room.create", "")?;
    let mut cited: HashMap<(StateEventType, String), Pdu> = HashMap::new();
    for event in auth.iter().chain(&create) {
        let kind = StateEventType::from(event.pdu.event_type());
        let key = event.pdu.state_key().unwrap_or_default().to_owned();
        cited.insert((kind, key), event.pdu.clone());
    }
    let by_id = |id: &ruma::EventId| cited.values().find(|event| event.event_id() == id).cloned();
    let step_4 = auth::check_citations(rules, pdu, by_id).and_then(|()| {
        auth::check_state(rules, pdu, |kind, key| {
            cited.get(&(kind.clone(), key.to_owned())).cloned()
        })
    });
    if let Err(Denied(reason)) = step_4 {
        return Ok(Verdict::Rejected(reason));
    }
    if let Err(Denied(reason)) = check_at(draft, pdu, before)? {
        return Ok(Verdict::Rejected(reason));
    }
    if let Err(Denied(reason)) = check_at(draft, pdu, draft.state.head())? {
        return Ok(Verdict::SoftFailed(reason));
    }
    Ok(Verdict::Accepted)
}

/// Checks an event against a state: looks up what the rules ask for, then asks them.
fn check_at(draft: &Draft<'_>, pdu: &Pdu, at: StateRef) -> Result<Result<(), Denied>, ApiError> {
    let rules = &draft.room.rules;
    let subject = auth::Subject {
        event_type: pdu.kind(),
        sender: pdu.sender(),
        state_key: pdu.state_key(),
        content: pdu.content(),
    };
    let mut keys = match auth::auth_keys(subject, rules) {
        Ok(keys) => keys,
        Err(error) => return Ok(Err(Denied(error.message.into_owned()))),
    };
    keys.push((StateEventType::RoomCreate, String::new()));
    let mut state = HashMap::new();
    for (kind, key) in keys {
        let number = draft.rooms.interner().state_key(&kind.to_string(), &key);
        if let Some(nid) = draft.state.view(draft.reader).lookup(at, number)? {
            state.insert((kind, key), draft.event(nid)?.pdu.clone());
        }
    }
    Ok(auth::check_state(rules, pdu, |kind, key| {
        state.get(&(kind.clone(), key.to_owned())).cloned()
    }))
}

/// An event that does not simply follow the head: its own states, and what the current state
/// becomes when it is one of several ends of the graph.
fn place_off_head(
    draft: &mut Draft<'_>,
    accepted: &mut Accepted,
    before: StateRef,
    verdict: &Verdict,
) -> Result<(), ApiError> {
    let nid = draft.head.row.next_event;
    let key = state_key(draft, &accepted.pdu);
    let after = match (key, verdict) {
        (Some(key), Verdict::Accepted | Verdict::SoftFailed(_)) => {
            draft.state.child(draft.reader, before, &[(key, Some(nid))])?
        }
        _ => before,
    };
    accepted.states = Some((before, after));
    if *verdict != Verdict::Accepted {
        return Ok(());
    }
    draft.preview(preview(draft, accepted, nid, key.unwrap_or_default(), (before, after)));
    let mut ends = vec![after];
    for extremity in &draft.head.extremities {
        if !accepted.prev_events.contains(&extremity.nid) {
            ends.push(draft.event(extremity.nid)?.record.state_after);
        }
    }
    let Resolved { base, changes } = resolve::resolve(draft, &ends)?;
    let resolved = draft.state.child(draft.reader, base, &changes)?;
    let view = draft.state.view(draft.reader);
    let changes = view.diff(draft.state.head(), resolved)?;
    accepted.changes = changes.into_iter().map(|change| (change.key, change.new)).collect();
    Ok(())
}

fn state_key(draft: &Draft<'_>, pdu: &Pdu) -> Option<StateKeyNid> {
    pdu.state_key().map(|key| draft.rooms.interner().state_key(pdu.event_type(), key))
}

/// The event as the resolution must find it before it has its place.
fn preview(
    draft: &Draft<'_>,
    accepted: &Accepted,
    nid: EventNid,
    state_key: StateKeyNid,
    (state_before, state_after): (StateRef, StateRef),
) -> StoredEvent {
    let pdu = accepted.pdu.clone();
    let interner = draft.rooms.interner();
    let record = EventRecord {
        hash: accepted.hash,
        flags: accepted.flags,
        event_type: interner.event_type(pdu.event_type()),
        sender: interner.user(pdu.sender()),
        state_key,
        membership: super::draft::membership_of(&pdu),
        origin_server_ts: pdu.origin_server_ts().0.into(),
        depth: pdu.depth(),
        position: crate::storage::rows::TimelinePosition::START,
        state_before,
        state_after,
        auth_events: accepted.auth_events.clone(),
        prev_events: accepted.prev_events.clone(),
        redacted_by: None,
        transaction: None,
    };
    StoredEvent { nid, record, pdu }
}

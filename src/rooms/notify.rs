//! What an event means for unread counts, and whom it notifies: gathers from the room what push
//! rules ask about.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#push-rules>

use std::collections::{BTreeMap, BTreeSet};

use kv::Reader;
use ruma::{
    OwnedEventId, OwnedUserId, UserId, events::room::power_levels::UserPowerLevel, push::Action,
};
use serde::Deserialize;

use super::{
    Room, Rooms, StoredEvent, commit::MemberChange, draft::Draft, event::Pdu, levels::Levels,
    redaction::RedactionCommit, state,
};
use crate::{
    error::ApiError,
    push::{
        OddUser,
        counts::{Counted, MAIN, MENTIONS_MAX, ODD_MAX, Question},
        rules::{self, Context, EventParts, SenderLevel, Subject},
    },
    storage::{
        rows::{EventFlags, Membership, StateRef},
        schema::rooms::ROOM_HEADS,
    },
};

/// How far relations are followed up to the thread.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#threaded-read-receipts>
const HOPS_MAX: usize = 3;
/// The longest id of a thread's root; what names a longer one is of the main timeline.
const ROOT_BYTES_MAX: usize = 255;

/// What an event adds to counts.
pub(super) fn decide(
    draft: &mut Draft<'_>,
    event: &StoredEvent,
    members: &[MemberChange],
    redaction: Option<&RedactionCommit>,
) -> Result<Counted, ApiError> {
    let mut counted = Counted::default();
    let is_shown = event.record.position.line != 0;
    let redacted = match redaction {
        Some(RedactionCommit::Applied(target, _)) => Some(target.nid),
        _ => None,
    };
    if is_shown && redacted != Some(event.nid) {
        counted = judge(draft, event)?;
    }
    if let Some(target) = redacted.filter(|target| *target != event.nid) {
        // As it was before: the redaction is not committed yet.
        let target = draft.event(target)?;
        if target.record.position.line != 0 {
            let thread = thread_of(draft, &target.pdu)?;
            let room = draft.room.nid;
            counted.redacts(draft.reader, room, thread, target.record.position)?;
        }
    }
    for change in members {
        let joins = change.row.membership == Membership::Join && change.before != Membership::Join;
        if joins && is_local(draft.rooms, &change.user_id) {
            counted.joined(&change.user_id);
        }
    }
    Ok(counted)
}

fn judge(draft: &mut Draft<'_>, event: &StoredEvent) -> Result<Counted, ApiError> {
    let Some(subject) = subject(&event.pdu) else { return Ok(Counted::default()) };
    let thread = thread_of(draft, &event.pdu)?;
    let room = draft.room.nid;
    let mut odd = draft.rooms.push().odd_members(draft.reader, room)?;
    odd.truncate(ODD_MAX);
    let asks_sender = subject.mentions_room() || odd.iter().any(|user| user.asks_sender);
    let sender = event.pdu.sender();
    let level = if asks_sender {
        let power_levels = draft.current("m.room.power_levels", "")?;
        sender_level(&draft.levels()?, power_levels.as_deref(), sender)?
    } else {
        SenderLevel::default()
    };
    let mut named = Vec::with_capacity(odd.len());
    for user in odd {
        let name = if user.asks_name {
            draft
                .current("m.room.member", user.user_id.as_str())?
                .and_then(|member| name_in(&member))
        } else {
            None
        };
        named.push((user, name));
    }
    let question = Question {
        mentioned: mentioned(draft, &subject)?,
        odd: named,
        own: is_local(draft.rooms, sender.as_str()).then_some(sender),
        context: Context {
            room_id: &draft.room.id,
            user_id: sender,
            joined_members: draft.head.row.joined_members,
            display_name: None,
            sender: &level,
        },
        subject: &subject,
    };
    let mut tail = std::mem::take(&mut draft.head.tail);
    let counted = Counted::judge(draft.reader, room, thread, &question, &mut tail);
    draft.head.tail = tail;
    Ok(counted?)
}

/// The joined users of this server whom an event mentions.
fn mentioned(draft: &Draft<'_>, subject: &Subject) -> Result<BTreeSet<OwnedUserId>, ApiError> {
    let mut mentioned = BTreeSet::new();
    for user in subject.mentions().into_iter().take(MENTIONS_MAX) {
        if let Ok(user) = UserId::parse(user)
            && is_local(draft.rooms, user.as_str())
            && draft.membership(user.as_str())? == Membership::Join
        {
            mentioned.insert(user);
        }
    }
    Ok(mentioned)
}

fn is_local(rooms: &Rooms, user_id: &str) -> bool {
    <&UserId>::try_from(user_id).is_ok_and(|user| user.server_name() == rooms.server_name())
}

fn subject(pdu: &Pdu) -> Option<Subject> {
    Subject::new(EventParts {
        event_id: pdu.event_id(),
        room_id: pdu.room_id(),
        sender: pdu.sender(),
        event_type: pdu.event_type(),
        state_key: pdu.state_key(),
        origin_server_ts: pdu.origin_server_ts().get().into(),
        content: pdu.content(),
    })
}

/// The user's name by a member event.
fn name_in(member: &StoredEvent) -> Option<String> {
    member.pdu.content_field("displayname")
}

fn sender_level(
    levels: &Levels<'_>,
    power_levels: Option<&StoredEvent>,
    sender: &UserId,
) -> Result<SenderLevel, ApiError> {
    let level = match levels.of(sender)? {
        UserPowerLevel::Infinite => None,
        UserPowerLevel::Int(level) => Some(level.into()),
        _ => Some(0),
    };
    let needed: Option<BTreeMap<String, serde_json::Value>> =
        power_levels.and_then(|event| event.pdu.content_field("notifications"));
    let needed = needed.unwrap_or_default().into_iter();
    let needed = needed.filter_map(|(key, level)| Some((key, level.as_i64()?))).collect();
    Ok(SenderLevel { level, needed })
}

#[derive(Deserialize)]
struct Relation {
    rel_type: Option<String>,
    event_id: Option<OwnedEventId>,
}

fn relation_of(pdu: &Pdu) -> Option<Relation> {
    if pdu.state_key().is_some() || !pdu.content().get().contains("\"m.relates_to\"") {
        return None;
    }
    pdu.content_field("m.relates_to")
}

/// The thread that an event is of, as receipts name it.
fn thread_of(draft: &Draft<'_>, pdu: &Pdu) -> Result<String, ApiError> {
    thread_by(pdu, |event_id| draft.event_by_id(event_id).map(|event| event.map(|e| e.pdu.clone())))
}

fn thread_by(
    pdu: &Pdu,
    find: impl Fn(&ruma::EventId) -> Result<Option<Pdu>, ApiError>,
) -> Result<String, ApiError> {
    let mut relation = relation_of(pdu);
    for _ in 0..HOPS_MAX {
        let Some(Relation { rel_type, event_id: Some(parent) }) = relation else { break };
        if rel_type.as_deref() == Some("m.thread") {
            if parent.as_bytes().len() > ROOT_BYTES_MAX {
                break;
            }
            return Ok(parent.to_string());
        }
        relation = find(&parent)?.and_then(|parent| relation_of(&parent));
    }
    Ok(MAIN.to_owned())
}

/// What a user's rules, as they are now, do with an event.
#[derive(Clone, Debug)]
pub struct Notified {
    /// The actions; never empty.
    pub actions: Vec<Action>,
    /// The thread that the event is of, as receipts name it.
    pub thread: String,
}

impl Rooms {
    /// Whether and how an event notifies a user of this server, by the user's rules and the room as
    /// they are now; `None`: it does not.
    pub fn notified(
        &self,
        reader: &Reader<'_>,
        room: &Room,
        event: &StoredEvent,
        user_id: &UserId,
    ) -> Result<Option<Notified>, ApiError> {
        let odd = self.push().odd_user(reader, user_id)?;
        let is_ignored = odd.as_ref().is_some_and(|odd| odd.ignored.contains(event.pdu.sender()));
        let is_mute = odd.as_ref().is_some_and(|odd| odd.mutes(&room.id));
        if is_ignored || is_mute || event.record.flags.has(EventFlags::REDACTED) {
            return Ok(None);
        }
        let Some(subject) = subject(&event.pdu) else { return Ok(None) };
        let facts = Facts::read(self, reader, room)?;
        let asks_sender = odd.as_ref().is_some_and(|odd| odd.asks_sender);
        let level = if asks_sender || subject.mentions_room() {
            facts.sender_level(event.pdu.sender())?
        } else {
            SenderLevel::default()
        };
        let name = if odd.as_ref().is_some_and(|odd| odd.asks_name) {
            facts.event("m.room.member", user_id.as_str())?.and_then(|event| name_in(&event))
        } else {
            None
        };
        let context = Context {
            room_id: &room.id,
            user_id,
            joined_members: facts.joined_members,
            display_name: name.as_deref(),
            sender: &level,
        };
        let actions = if let Some(OddUser { rules, .. }) = odd.as_deref() {
            rules::actions(rules, &subject, &context).to_vec()
        } else {
            let rules = rules::predefined(user_id);
            rules::actions(&rules, &subject, &context).to_vec()
        };
        if rules::verdict(&actions).notify == 0 {
            return Ok(None);
        }
        let find = |event_id: &ruma::EventId| {
            Ok(self.event_by_id(reader, room, event_id)?.map(|event| event.pdu.clone()))
        };
        Ok(Some(Notified { actions, thread: thread_by(&event.pdu, find)? }))
    }

    /// An event of a room's current state.
    pub fn current_event(
        &self,
        reader: &Reader<'_>,
        room: &Room,
        (event_type, state_key): (&str, &str),
    ) -> Result<Option<std::sync::Arc<StoredEvent>>, ApiError> {
        Facts::read(self, reader, room)?.event(event_type, state_key)
    }
}

/// A room as it is now.
struct Facts<'a> {
    rooms: &'a Rooms,
    reader: &'a Reader<'a>,
    room: &'a Room,
    joined_members: u64,
    state: StateRef,
}

impl<'a> Facts<'a> {
    fn read(rooms: &'a Rooms, reader: &'a Reader<'a>, room: &'a Room) -> Result<Self, ApiError> {
        let head = reader.get(&ROOM_HEADS, &room.nid)?;
        let joined_members = head.as_ref().map_or(0, |head| head.joined_members);
        let state = head.map_or(StateRef::EMPTY, |head| StateRef::trunk(head.state_version));
        Ok(Self { rooms, reader, room, joined_members, state })
    }

    fn event(
        &self,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<std::sync::Arc<StoredEvent>>, ApiError> {
        let key = self.rooms.interner().state_key(event_type, state_key);
        match state::lookup(self.reader, self.room.nid, self.state, key)? {
            Some(nid) => self.rooms.event(self.reader, self.room, nid),
            None => Ok(None),
        }
    }

    fn sender_level(&self, sender: &UserId) -> Result<SenderLevel, ApiError> {
        let create = self
            .event("m.room.create", "")?
            .ok_or_else(|| ApiError::internal_text("a room without a create event"))?;
        let power_levels = self.event("m.room.power_levels", "")?;
        let pdu = power_levels.as_ref().map(|event| event.pdu.clone());
        let levels = Levels::new(create.pdu.clone(), pdu, &self.room.rules)?;
        sender_level(&levels, power_levels.as_deref(), sender)
    }
}

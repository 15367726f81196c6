//! Upgrading a room: a new room takes its place.
//!
//! The order is safe to stop at any point and to try again. First the new room is made with a note that
//! it is to replace the old one; then comes what may be much (bans, the children of a space) and the
//! creator steps down to their level; then, in one commit, the old room points to the new one, its
//! aliases and its place in the directory move, and the note goes. Who tries again goes on with the
//! room that the note names; once the old room points to it, that room is the answer.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-upgrades>

use kv::{Batch, Direction, Json};
use ruma::{
    OwnedRoomId, OwnedUserId, RoomVersionId, events::TimelineEventType,
    room_version_rules::RoomVersionRules,
};
use serde_json::{Map, Value, json, value::RawValue};

use super::{
    NewEvent, Room, Rooms, alias,
    create::{self, CreateRoom, Preset},
    directory,
    draft::Draft,
    membership::MemberProfile,
    state_view::{Part, events_of_state},
    validate,
};
use crate::{
    error::ApiError,
    storage::{
        rows::{Membership, StateRef, reports::UpgradeRow},
        schema::{
            reports::{ROOM_UPGRADES, UpgradeKey},
            rooms::{ALIASES, ALIASES_BY_ROOM, MEMBERS, PUBLIC_ROOMS, ROOM_HEADS, RoomAliasKey},
        },
    },
};

/// The state that is taken over, besides the power levels.
const TRANSFERRED: [&str; 10] = [
    "m.room.server_acl",
    "m.room.encryption",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.guest_access",
    "m.room.history_visibility",
    "m.room.join_rules",
    "m.room.canonical_alias",
    "m.room.policy",
];

/// How many bans or children of a space are written at once.
const EVENTS_AT_ONCE: usize = 200;
/// How many creators there may be besides the one who upgrades.
const CREATORS_MAX: usize = 100;
/// The level that a tombstone needs where creators stand above all.
const TOMBSTONE_LEVEL: i64 = 150;

/// A wanted upgrade.
#[derive(Clone, Debug)]
pub struct Upgrade {
    /// Who upgrades.
    pub sender: OwnedUserId,
    /// The sender's profile, for the member event.
    pub profile: MemberProfile,
    /// The new version.
    pub version: RoomVersionId,
    /// The creators besides the sender, where the version has them.
    pub additional_creators: Vec<OwnedUserId>,
}

/// What the new room takes over from the old one.
#[derive(Clone, Debug)]
struct Inheritance {
    create: Map<String, Value>,
    levels: Option<Map<String, Value>>,
    /// Whether the creators of the old room stand above all.
    privileged: bool,
    state: Vec<(TimelineEventType, Box<RawValue>)>,
    last_event: Option<String>,
    /// The new room, when the old one points to it already.
    done: Option<OwnedRoomId>,
    /// The note of an upgrade that was not finished.
    note: Option<UpgradeRow>,
}

/// A state event that is copied after the room is made: type, state key, content.
type Copied = (TimelineEventType, String, Box<RawValue>);

impl Rooms {
    /// Upgrades a room; gives the id of the new one. Trying again gives the same.
    ///
    /// # Errors
    /// 403 when the sender may not, 400 when the version is unknown here.
    pub async fn upgrade(&self, room: &Room, wanted: Upgrade) -> Result<OwnedRoomId, ApiError> {
        let rules = create::creatable(&wanted.version)?;
        if wanted.additional_creators.len() > CREATORS_MAX {
            return Err(ApiError::invalid_param("A room has at most 100 further creators"));
        }
        let mut wanted = wanted;
        if !rules.authorization.additional_room_creators {
            wanted.additional_creators.clear();
        }
        wanted.additional_creators.retain(|user_id| *user_id != wanted.sender);
        wanted.additional_creators.sort();
        wanted.additional_creators.dedup();
        let inheritance = self.inheritance(room, &wanted).await?;
        if let Some(done) = inheritance.done {
            return Ok(done);
        }
        let replacement = match self.noted(&inheritance, &wanted).await? {
            Some(replacement) => replacement,
            None => self.make_replacement(room, &wanted, &rules, &inheritance).await?,
        };
        self.copy_bans_and_children(room, &replacement, &wanted.sender).await?;
        let request = new_room(room, &wanted, &rules, &inheritance);
        let levels = levels_of(&request, &rules, &inheritance)?;
        self.settle_levels(&replacement, &wanted.sender, levels).await?;
        self.replace(room, &replacement, &wanted).await
    }

    /// Reads what the new room takes over; refuses whoever may not upgrade.
    async fn inheritance(&self, room: &Room, wanted: &Upgrade) -> Result<Inheritance, ApiError> {
        let wanted = wanted.clone();
        self.write(room, move |draft| {
            draft.require_member(&wanted.sender)?;
            let tombstone = TimelineEventType::RoomTombstone;
            if !draft.levels()?.may_send(&wanted.sender, &tombstone, Some(""))? {
                return Err(ApiError::forbidden("You may not upgrade this room"));
            }
            let create = object(draft, "m.room.create")?.unwrap_or_default();
            let mut state = Vec::new();
            for kind in TRANSFERRED {
                if let Some(event) = draft.current(kind, "")? {
                    state.push((event.pdu.kind().clone(), event.pdu.content().to_owned()));
                }
            }
            let last = draft.head.extremities.iter().max_by_key(|extremity| extremity.depth);
            let key = upgrade_key(draft.room, &wanted.version);
            Ok(Inheritance {
                create,
                levels: object(draft, "m.room.power_levels")?,
                privileged: draft.room.rules.authorization.explicitly_privilege_room_creators,
                state,
                last_event: last.map(|extremity| extremity.event_id.to_string()),
                done: replacement_of(draft, &wanted)?,
                note: draft.reader.get(&ROOM_UPGRADES, &key)?.map(|row| row.0),
            })
        })
        .await
    }

    /// The room that an earlier try of the same upgrade made.
    async fn noted(
        &self,
        inheritance: &Inheritance,
        wanted: &Upgrade,
    ) -> Result<Option<Room>, ApiError> {
        match &inheritance.note {
            Some(note)
                if note.creator == wanted.sender
                    && note.additional_creators == wanted.additional_creators =>
            {
                self.room(&note.replacement).await
            }
            _ => Ok(None),
        }
    }

    async fn make_replacement(
        &self,
        room: &Room,
        wanted: &Upgrade,
        rules: &RoomVersionRules,
        inheritance: &Inheritance,
    ) -> Result<Room, ApiError> {
        let request = new_room(room, wanted, rules, inheritance);
        let events = first_events(&request, rules, inheritance)?;
        let key = upgrade_key(room, &wanted.version);
        let note = inheritance.note.clone().map(Json);
        let wanted = wanted.clone();
        let room_id = self
            .create_with(&request, move |draft, now| {
                for event in &events {
                    // What is malformed in the old room is left behind.
                    if validate::check_new_event(event).is_ok() {
                        draft.add(event, now, None)?;
                    }
                }
                let row = UpgradeRow {
                    replacement: draft.room.id.clone(),
                    creator: wanted.sender.clone(),
                    additional_creators: wanted.additional_creators.clone(),
                };
                draft.extra.check(&ROOM_UPGRADES, &key, note.as_ref());
                draft.extra.put(&ROOM_UPGRADES, &key, &Json(row));
                Ok(())
            })
            .await?;
        self.known_room(&room_id).await
    }

    /// Copies what may be too much for one commit; what is there already stays.
    async fn copy_bans_and_children(
        &self,
        old: &Room,
        new: &Room,
        sender: &OwnedUserId,
    ) -> Result<(), ApiError> {
        let the_room = old.clone();
        let copied = self.read(move |rooms, reader| copied(rooms, reader, &the_room)).await?;
        let now = self.clock().now();
        for events in copied.chunks(EVENTS_AT_ONCE) {
            let (events, sender) = (events.to_vec(), sender.clone());
            self.write(new, move |draft| {
                for (kind, state_key, content) in &events {
                    if draft.current(&kind.to_string(), state_key)?.is_some() {
                        continue;
                    }
                    let event = NewEvent {
                        sender: sender.clone(),
                        event_type: kind.clone(),
                        state_key: Some(state_key.clone()),
                        content: content.clone(),
                        redacts: None,
                    };
                    allow_refusal(draft.add(&event, now, None))?;
                }
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Sets the power levels that stay, once nothing more is to be copied.
    async fn settle_levels(
        &self,
        new: &Room,
        sender: &OwnedUserId,
        levels: Map<String, Value>,
    ) -> Result<(), ApiError> {
        let kind = TimelineEventType::RoomPowerLevels;
        let event = NewEvent::state(sender.clone(), kind, "", &levels)?;
        let now = self.clock().now();
        self.write(new, move |draft| {
            if object(draft, "m.room.power_levels")?.as_ref() != Some(&levels) {
                allow_refusal(draft.add(&event, now, None))?;
            }
            Ok(())
        })
        .await
    }

    /// Lets the old room point to the new one, and moves its names, in one commit; gives the room
    /// that it points to.
    async fn replace(
        &self,
        old: &Room,
        new: &Room,
        wanted: &Upgrade,
    ) -> Result<OwnedRoomId, ApiError> {
        let (new, wanted) = (new.clone(), wanted.clone());
        let now = self.clock().now();
        self.write(old, move |draft| {
            // Another try of the same was quicker.
            if let Some(existing) = replacement_of(draft, &wanted)? {
                return Ok(existing);
            }
            let state =
                |kind, content: &Value| NewEvent::state(wanted.sender.clone(), kind, "", content);
            draft.require_member(&wanted.sender)?;
            let tombstone = json!({
                "body": "This room has been replaced",
                "replacement_room": new.id,
            });
            draft.add(&state(TimelineEventType::RoomTombstone, &tombstone)?, now, None)?;
            move_names(draft, &new)?;
            if let Some(alias) = object(draft, "m.room.canonical_alias")?
                && !alias.is_empty()
            {
                let event = state(TimelineEventType::RoomCanonicalAlias, &json!({}))?;
                allow_refusal(draft.add(&event, now, None))?;
            }
            if let Some(levels) = closed_levels(object(draft, "m.room.power_levels")?) {
                let event = state(TimelineEventType::RoomPowerLevels, &Value::Object(levels))?;
                allow_refusal(draft.add(&event, now, None))?;
            }
            let key = upgrade_key(draft.room, &wanted.version);
            draft.extra.delete(&ROOM_UPGRADES, &key);
            Ok(new.id.clone())
        })
        .await
    }
}

fn upgrade_key(room: &Room, version: &RoomVersionId) -> UpgradeKey {
    UpgradeKey { room: room.nid, version: version.to_string() }
}

/// What the sender may not do in the old room is left as it is.
fn allow_refusal<T>(result: Result<T, ApiError>) -> Result<(), ApiError> {
    match result {
        Err(error) if error.status.is_server_error() => Err(error),
        _ => Ok(()),
    }
}

fn object(draft: &Draft<'_>, kind: &str) -> Result<Option<Map<String, Value>>, ApiError> {
    let event = draft.current(kind, "")?;
    Ok(event.and_then(|event| serde_json::from_str(event.pdu.content().get()).ok()))
}

/// The room that the same sender made take the old one's place, in the same version.
fn replacement_of(draft: &Draft<'_>, wanted: &Upgrade) -> Result<Option<OwnedRoomId>, ApiError> {
    let Some(tombstone) = draft.current("m.room.tombstone", "")? else { return Ok(None) };
    let named: Option<OwnedRoomId> = tombstone.pdu.content_field("replacement_room");
    let Some(named) = named.filter(|_| tombstone.pdu.sender() == wanted.sender) else {
        return Ok(None);
    };
    let nid = draft.rooms.interner().room(&named);
    let room = draft.rooms.room_by_nid(draft.reader, nid)?;
    Ok(room.filter(|room| room.version == wanted.version && room.id == named).map(|_| named))
}

fn new_room(
    room: &Room,
    wanted: &Upgrade,
    rules: &RoomVersionRules,
    inheritance: &Inheritance,
) -> CreateRoom {
    let mut content = Map::new();
    for field in ["type", "m.federate"] {
        if let Some(value) = inheritance.create.get(field) {
            content.insert(field.to_owned(), value.clone());
        }
    }
    let mut predecessor = json!({ "room_id": room.id });
    // From version 12 on the event may be left out, and clients do not look for it.
    if !rules.authorization.room_create_event_id_as_room_id
        && let Some(event_id) = &inheritance.last_event
    {
        predecessor["event_id"] = json!(event_id);
    }
    content.insert("predecessor".to_owned(), predecessor);
    if !wanted.additional_creators.is_empty() {
        content.insert("additional_creators".to_owned(), json!(wanted.additional_creators));
    }
    CreateRoom {
        creator: wanted.sender.clone(),
        profile: wanted.profile.clone(),
        version: Some(wanted.version.clone()),
        creation_content: content,
        preset: Preset::Private,
        listed: false,
        alias: None,
        name: None,
        topic: None,
        invites: Vec::new(),
        is_direct: false,
        initial_state: Vec::new(),
        power_level_override: Map::new(),
    }
}

/// The first events of the new room. The creator may do all until everything is copied, also where
/// the old room leaves the sender too little for it.
fn first_events(
    request: &CreateRoom,
    rules: &RoomVersionRules,
    inheritance: &Inheritance,
) -> Result<Vec<NewEvent>, ApiError> {
    let creator = &request.creator;
    let own = request.profile.content("join");
    let member = TimelineEventType::RoomMember;
    let mut events = vec![NewEvent::state(creator.clone(), member, creator.as_str(), &own)?];
    for (kind, content) in &inheritance.state {
        let content = match kind {
            TimelineEventType::RoomJoinRules => join_rules(content, rules)?,
            _ => content.clone(),
        };
        events.push(NewEvent {
            sender: creator.clone(),
            event_type: kind.clone(),
            state_key: Some(String::new()),
            content,
            redacts: None,
        });
    }
    let levels = raised_levels(levels_of(request, rules, inheritance)?, request, rules);
    let kind = TimelineEventType::RoomPowerLevels;
    events.push(NewEvent::state(creator.clone(), kind, "", &levels)?);
    Ok(events)
}

/// The power levels that the new room ends up with.
fn levels_of(
    request: &CreateRoom,
    rules: &RoomVersionRules,
    inheritance: &Inheritance,
) -> Result<Map<String, Value>, ApiError> {
    let Some(levels) = &inheritance.levels else { return Ok(create::power_levels(request, rules)) };
    let levels = new_levels(levels.clone(), request, rules, inheritance.privileged);
    let kind = TimelineEventType::RoomPowerLevels;
    let event = NewEvent::state(request.creator.clone(), kind, "", &levels)?;
    let is_sound = validate::check_new_event(&event).is_ok();
    Ok(if is_sound { levels } else { create::power_levels(request, rules) })
}

/// The same with the creator above everybody and everything, where creators are not so anyway.
fn raised_levels(
    mut levels: Map<String, Value>,
    request: &CreateRoom,
    rules: &RoomVersionRules,
) -> Map<String, Value> {
    if rules.authorization.explicitly_privilege_room_creators {
        return levels;
    }
    let nested = ["users", "events"].into_iter().filter_map(|field| levels.get(field));
    let nested = nested.filter_map(Value::as_object).flat_map(Map::values);
    let highest = levels.values().chain(nested).filter_map(Value::as_i64).max().unwrap_or(0);
    let users = levels.entry("users").or_insert_with(|| json!({}));
    if let Some(users) = users.as_object_mut() {
        users.insert(request.creator.to_string(), json!(highest.max(100)));
    }
    levels
}

/// Join rules that the new version does not know become those of an invite.
fn join_rules(content: &RawValue, rules: &RoomVersionRules) -> Result<Box<RawValue>, ApiError> {
    let known: Map<String, Value> = serde_json::from_str(content.get()).unwrap_or_default();
    let rules = &rules.authorization;
    let supported = match known.get("join_rule").and_then(Value::as_str) {
        Some("knock") => rules.knocking,
        Some("restricted") => rules.restricted_join_rule,
        Some("knock_restricted") => rules.knock_restricted_join_rule,
        _ => true,
    };
    if supported {
        return Ok(content.to_owned());
    }
    serde_json::value::to_raw_value(&json!({ "join_rule": "invite" })).map_err(ApiError::internal)
}

/// The power levels of the old room as they fit the new one.
fn new_levels(
    mut levels: Map<String, Value>,
    request: &CreateRoom,
    rules: &RoomVersionRules,
    was_privileged: bool,
) -> Map<String, Value> {
    let is_privileged = rules.authorization.explicitly_privilege_room_creators;
    let mut users = match levels.remove("users") {
        Some(Value::Object(users)) => users,
        _ => Map::new(),
    };
    let highest = users.values().filter_map(Value::as_i64).max().unwrap_or(0).max(100);
    let creators: Vec<String> = request
        .creation_content
        .get("additional_creators")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|user_id| user_id.as_str().map(str::to_owned))
        .chain([request.creator.to_string()])
        .collect();
    if is_privileged {
        users.retain(|user_id, _| !creators.contains(user_id));
    } else if was_privileged {
        // Their power was not written anywhere.
        users.insert(request.creator.to_string(), json!(highest));
    }
    levels.insert("users".to_owned(), Value::Object(users));
    if is_privileged && !was_privileged {
        let events = levels.entry("events").or_insert_with(|| json!({}));
        if let Some(events) = events.as_object_mut() {
            let known = events.get("m.room.tombstone").and_then(Value::as_i64).unwrap_or(0);
            events.insert("m.room.tombstone".to_owned(), json!(known.max(TOMBSTONE_LEVEL)));
        }
    }
    levels
}

/// The levels with which nobody writes to the old room by mistake; `None`: they are so already.
fn closed_levels(levels: Option<Map<String, Value>>) -> Option<Map<String, Value>> {
    let mut levels = levels?;
    let level = |levels: &Map<String, Value>, field: &str| {
        levels.get(field).and_then(Value::as_i64).unwrap_or(0)
    };
    let least = level(&levels, "users_default").saturating_add(1).max(50);
    let fields = ["events_default", "invite"];
    if fields.iter().all(|field| level(&levels, field) >= least) {
        return None;
    }
    for field in fields {
        let raised = level(&levels, field).max(least);
        levels.insert(field.to_owned(), json!(raised));
    }
    Some(levels)
}

/// The bans of a room, and the children of a space.
fn copied(rooms: &Rooms, reader: &kv::Reader<'_>, room: &Room) -> Result<Vec<Copied>, ApiError> {
    let mut copied = Vec::new();
    let banned = MEMBERS.prefix(&(room.nid, Membership::Ban as u8));
    for (key, nid) in reader.scan(&MEMBERS, &banned, Direction::Forward, usize::MAX)? {
        let event = rooms.stored_event(reader, room, nid)?;
        let mut content = MemberProfile::default().content("ban");
        if let Some(reason) = event.pdu.content_field::<String>("reason") {
            content.insert("reason".to_owned(), json!(reason));
        }
        let content = serde_json::value::to_raw_value(&content).map_err(ApiError::internal)?;
        copied.push((TimelineEventType::RoomMember, key.user_id, content));
    }
    let state = reader
        .get(&ROOM_HEADS, &room.nid)?
        .map_or(StateRef::EMPTY, |head| StateRef::trunk(head.state_version));
    let child = rooms.interner().event_type("m.space.child");
    for nid in events_of_state(rooms, reader, room, state, &Part::Others)? {
        let event = rooms.stored_event(reader, room, nid)?;
        if event.record.event_type == child
            && let Some(state_key) = event.pdu.state_key()
            // A child without servers is one that was removed.
            && event.pdu.content_field::<Vec<String>>("via").is_some()
        {
            let content = event.pdu.content().to_owned();
            copied.push((event.pdu.kind().clone(), state_key.to_owned(), content));
        }
    }
    Ok(copied)
}

/// Moves the aliases of this server and the place in the directory, within the draft's commit.
fn move_names(draft: &mut Draft<'_>, new: &Room) -> Result<(), ApiError> {
    let old = draft.room.nid;
    let mut batch = Batch::new();
    for alias in alias::aliases_of(draft.reader, old)? {
        let key = alias.as_str().to_owned();
        let Some(row) = draft.reader.get(&ALIASES, &key)? else { continue };
        let mut moved = row.0.clone();
        moved.room_id = new.id.clone();
        batch.check(&ALIASES, &key, Some(&row));
        batch.put(&ALIASES, &key, &Json(moved));
        batch.delete(&ALIASES_BY_ROOM, &RoomAliasKey { room: old, alias: key.clone() });
        batch.put(&ALIASES_BY_ROOM, &RoomAliasKey { room: new.nid, alias: key }, &());
    }
    if draft.reader.contains(&PUBLIC_ROOMS, &old)? {
        batch.delete(&PUBLIC_ROOMS, &old);
        directory::list(&mut batch, new.nid);
    }
    draft.extra.append(batch);
    Ok(())
}

/// Whether a room took the place of another: it says so, and so does the other.
///
/// What only the new room says proves nothing: anybody may name any room (attack case T83).
pub(super) fn predecessor(
    rooms: &Rooms,
    reader: &kv::Reader<'_>,
    room: &Room,
) -> Result<Option<Room>, ApiError> {
    let current = |room: &Room, kind: &str, field: &str| -> Result<Option<Value>, ApiError> {
        let key = rooms.interner().state_key(kind, "");
        let key = crate::storage::schema::rooms::CurrentStateKey { room: room.nid, class: 0, key };
        let Some(nid) = reader.get(&crate::storage::schema::rooms::CURRENT_STATE, &key)? else {
            return Ok(None);
        };
        Ok(rooms.stored_event(reader, room, nid)?.pdu.content_field(field))
    };
    let named = current(room, "m.room.create", "predecessor")?;
    let named = named.as_ref().and_then(|named| named.get("room_id")).and_then(Value::as_str);
    let Some(named) = named.and_then(|named| OwnedRoomId::try_from(named).ok()) else {
        return Ok(None);
    };
    let old = rooms.room_by_nid(reader, rooms.interner().room(&named))?;
    let Some(old) = old.filter(|old| old.id == named) else { return Ok(None) };
    let replacement = current(&old, "m.room.tombstone", "replacement_room")?;
    let is_real = replacement.is_some_and(|id| id.as_str() == Some(room.id.as_str()));
    Ok(is_real.then_some(old))
}

impl Rooms {
    /// The room whose place this one took, if both say so and the user has been in it.
    pub async fn predecessor_of(
        &self,
        room: &Room,
        user_id: &ruma::UserId,
    ) -> Result<Option<Room>, ApiError> {
        let (room, user_id) = (room.clone(), user_id.to_owned());
        self.read(move |rooms, reader| {
            let Some(old) = predecessor(rooms, reader, &room)? else { return Ok(None) };
            let row = rooms.membership(reader, &old, &user_id)?;
            let was_in =
                row.is_some_and(|row| row.was_joined || row.membership == Membership::Join);
            Ok(was_in.then_some(old))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(value: &Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn an_old_room_is_closed_once() {
        let closed = closed_levels(Some(levels(&json!({ "users_default": 60 })))).unwrap();
        assert_eq!((&closed["events_default"], &closed["invite"]), (&json!(61), &json!(61)));
        assert_eq!(closed_levels(Some(closed)), None);
        let kept = levels(&json!({ "events_default": 70, "invite": 0 }));
        let closed = closed_levels(Some(kept)).unwrap();
        assert_eq!((&closed["events_default"], &closed["invite"]), (&json!(70), &json!(50)));
        assert_eq!(closed_levels(None), None);
    }
}

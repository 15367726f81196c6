//! Creating a room: all its first events are decided in order and committed at once.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom>

use std::collections::BTreeMap;

use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedRoomAliasId, OwnedRoomId, OwnedUserId, RoomId, RoomVersionId,
    events::TimelineEventType, room_version_rules::RoomVersionRules,
};
use serde_json::{Map, Value, json, value::RawValue};

use super::{
    NewEvent, Pdu, Room, Rooms, alias, auth,
    compose::{self, Place},
    directory,
    draft::{Accepted, Draft},
    membership::MemberProfile,
    validate,
};
use crate::{error::ApiError, storage::rows::EventFlags};

/// How often a room is tried to be made when its id is taken.
const ATTEMPTS_MAX: u32 = 16;
/// How many users one request may invite.
const INVITES_MAX: usize = 100;

/// How many events the client may give a new room.
const INITIAL_STATE_MAX: usize = 500;

/// The presets of a new room.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#creation>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Whoever is invited may join.
    Private,
    /// The same, and all who are invited at once have the creator's power.
    TrustedPrivate,
    /// Everybody may join.
    Public,
}

impl Preset {
    const fn join_rule(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Private | Self::TrustedPrivate => "invite",
        }
    }

    const fn guest_access(self) -> &'static str {
        match self {
            Self::Public => "forbidden",
            Self::Private | Self::TrustedPrivate => "can_join",
        }
    }
}

/// What a new room shall be.
#[derive(Clone, Debug)]
pub struct CreateRoom {
    /// Who creates it.
    pub creator: OwnedUserId,
    /// The creator's profile, for the member event.
    pub profile: MemberProfile,
    /// The version; the server's default if none is named.
    pub version: Option<RoomVersionId>,
    /// Further fields of the create event.
    pub creation_content: Map<String, Value>,
    /// The preset.
    pub preset: Preset,
    /// Whether the directory shows it.
    pub listed: bool,
    /// An alias on this server.
    pub alias: Option<OwnedRoomAliasId>,
    /// The name.
    pub name: Option<String>,
    /// The topic.
    pub topic: Option<String>,
    /// Who is invited, with the profiles known here.
    pub invites: Vec<(OwnedUserId, MemberProfile)>,
    /// Whether the invites are to a direct chat.
    pub is_direct: bool,
    /// Further state: type, state key, content.
    pub initial_state: Vec<(TimelineEventType, String, Box<RawValue>)>,
    /// What differs in the power levels.
    pub power_level_override: Map<String, Value>,
}

impl Rooms {
    /// Creates a room.
    ///
    /// # Errors
    /// 400 `M_UNSUPPORTED_ROOM_VERSION`, `M_ROOM_IN_USE` (the alias), `M_INVALID_ROOM_STATE`.
    pub async fn create(&self, request: CreateRoom) -> Result<OwnedRoomId, ApiError> {
        let version = request.version.clone().unwrap_or_else(|| self.default_version().clone());
        let rules = creatable(&version)?;
        if request.invites.len() > INVITES_MAX {
            return Err(ApiError::invalid_param("A request invites at most 100 users"));
        }
        check_initial_state(&request)?;
        for (user_id, _) in &request.invites {
            self.check_reachable(user_id)?;
        }
        let wanted = request.clone();
        self.create_in(&request, (&version, &rules), move |draft, now| {
            add_first_events(draft, &wanted, now)
        })
        .await
    }

    /// Creates a room with other first events than those of the request, after its create event.
    pub(super) async fn create_with(
        &self,
        request: &CreateRoom,
        first: impl Fn(&mut Draft<'_>, MilliSecondsSinceUnixEpoch) -> Result<(), ApiError>
        + Clone
        + Send
        + 'static,
    ) -> Result<OwnedRoomId, ApiError> {
        let version = request.version.clone().unwrap_or_else(|| self.default_version().clone());
        let rules = creatable(&version)?;
        self.create_in(request, (&version, &rules), first).await
    }

    async fn create_in(
        &self,
        request: &CreateRoom,
        (version, rules): (&RoomVersionId, &RoomVersionRules),
        first: impl Fn(&mut Draft<'_>, MilliSecondsSinceUnixEpoch) -> Result<(), ApiError>
        + Clone
        + Send
        + 'static,
    ) -> Result<OwnedRoomId, ApiError> {
        let now = self.clock().now();
        // From version 12 on, two rooms that are created alike in the same millisecond would be
        // one: then the later one moves on by a millisecond.
        for delay in 0..ATTEMPTS_MAX {
            let now = MilliSecondsSinceUnixEpoch(now.0.saturating_add(delay.into()));
            if let Some(room_id) =
                self.try_create(request, (version, rules), now, first.clone()).await?
            {
                return Ok(room_id);
            }
        }
        Err(ApiError::unavailable("Too many rooms are created at once; try again"))
    }

    async fn try_create(
        &self,
        request: &CreateRoom,
        (version, rules): (&RoomVersionId, &RoomVersionRules),
        now: MilliSecondsSinceUnixEpoch,
        first: impl Fn(&mut Draft<'_>, MilliSecondsSinceUnixEpoch) -> Result<(), ApiError>
        + Send
        + 'static,
    ) -> Result<Option<OwnedRoomId>, ApiError> {
        let (pdu, hash) = self.create_event(request, version, rules, now)?;
        let room_id = pdu.room_id().to_owned();
        let nid = self.interner().room(&room_id);
        let room = Room::new(nid, room_id.clone(), version.clone())?;
        let made = self
            .write_new(&room, move |draft| {
                draft.accept(Accepted {
                    pdu: pdu.clone(),
                    hash,
                    flags: EventFlags::default(),
                    prev_events: Vec::new(),
                    auth_events: Vec::new(),
                    states: None,
                    changes: Vec::new(),
                    transaction: None,
                })?;
                first(draft, now)
            })
            .await?;
        Ok(made.map(|()| room_id))
    }

    /// The create event: its hash is the id of a room from version 12 on.
    fn create_event(
        &self,
        request: &CreateRoom,
        version: &RoomVersionId,
        rules: &RoomVersionRules,
        now: MilliSecondsSinceUnixEpoch,
    ) -> Result<(Pdu, [u8; 32]), ApiError> {
        let mut content = request.creation_content.clone();
        content.insert("room_version".to_owned(), json!(version));
        content.remove("creator");
        if !rules.authorization.use_room_create_sender {
            content.insert("creator".to_owned(), json!(request.creator));
        }
        if rules.authorization.additional_room_creators {
            add_creators(&mut content, request)?;
        } else {
            content.remove("additional_creators");
        }
        let creator = request.creator.clone();
        let event = NewEvent::state(creator, TimelineEventType::RoomCreate, "", &content)?;
        let random = RoomId::new_v1(self.server_name());
        let place = Place {
            room_id: (!rules.authorization.room_create_event_id_as_room_id).then_some(&*random),
            rules,
            prev_events: Vec::new(),
            auth_events: Vec::new(),
            depth: 1,
            origin_server_ts: now,
        };
        let (pdu, hash) = compose::compose(self.signer(), &event, &place)?;
        auth::check_citations(rules, &pdu, |_| None)
            .map_err(|denied| ApiError::bad_json(denied.to_string()))?;
        Ok((pdu, hash))
    }
}

/// The rules of a version in which this server makes rooms.
pub(super) fn creatable(version: &RoomVersionId) -> Result<RoomVersionRules, ApiError> {
    let unsupported = || {
        ApiError::unsupported_room_version(format!(
            "This server makes no rooms of version {version}"
        ))
    };
    if !super::CREATABLE_VERSIONS.contains(version) {
        return Err(unsupported());
    }
    version.rules().ok_or_else(unsupported)
}

/// <https://spec.matrix.org/v1.19/rooms/v12/>
fn add_creators(content: &mut Map<String, Value>, request: &CreateRoom) -> Result<(), ApiError> {
    let mut creators: Vec<OwnedUserId> = match content.remove("additional_creators") {
        None => Vec::new(),
        Some(value) => serde_json::from_value(value)
            .map_err(|_| ApiError::bad_json("`additional_creators` is not a list of user ids"))?,
    };
    if request.preset == Preset::TrustedPrivate {
        creators.extend(request.invites.iter().map(|(user_id, _)| user_id.clone()));
    }
    creators.retain(|user_id| *user_id != request.creator);
    creators.sort();
    creators.dedup();
    if !creators.is_empty() {
        content.insert("additional_creators".to_owned(), json!(creators));
    }
    Ok(())
}

fn add_first_events(
    draft: &mut Draft<'_>,
    request: &CreateRoom,
    now: MilliSecondsSinceUnixEpoch,
) -> Result<(), ApiError> {
    for event in first_events(request, &draft.room.rules)? {
        validate::check_new_event(&event).map_err(invalid_state)?;
        validate::check_in_room(draft, &event)?;
        draft.add(&event, now, None).map_err(invalid_state)?;
    }
    for (user_id, profile) in &request.invites {
        draft.rooms.check_invite_wanted(draft.reader, user_id, &request.creator)?;
        let mut content = profile.content("invite");
        if request.is_direct {
            content.insert("is_direct".to_owned(), json!(true));
        }
        let kind = TimelineEventType::RoomMember;
        let event = NewEvent::state(request.creator.clone(), kind, user_id.as_str(), &content)?;
        draft.add(&event, now, None)?;
    }
    if let Some(name) = &request.alias {
        alias::claim(draft.reader, &mut draft.extra, draft.room, (name, &request.creator))?;
    }
    if request.listed {
        directory::list(&mut draft.extra, draft.room.nid);
    }
    Ok(())
}

/// What `initial_state` may not bring in past the checks and limits of its own way: memberships, and
/// aliases that do not lead to the room.
fn check_initial_state(request: &CreateRoom) -> Result<(), ApiError> {
    if request.initial_state.len() > INITIAL_STATE_MAX {
        let message = format!("A room begins with at most {INITIAL_STATE_MAX} events");
        return Err(ApiError::invalid_param(message));
    }
    for (kind, _, content) in &request.initial_state {
        match kind {
            TimelineEventType::RoomMember => {
                let message = "Invite by `invite`: memberships have no place in `initial_state`";
                return Err(ApiError::invalid_room_state(message));
            }
            TimelineEventType::RoomCanonicalAlias => {
                for alias in alias::named_aliases(content)? {
                    if request.alias.as_ref() != Some(&alias) {
                        let message = format!("{alias} does not lead to this room");
                        return Err(ApiError::bad_alias(message));
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// A refusal that comes from what the client wanted the room to be.
fn invalid_state(error: ApiError) -> ApiError {
    match error.errcode.as_ref() {
        "M_FORBIDDEN" => ApiError::invalid_room_state(error.message),
        _ => error,
    }
}

/// The events between the create event and the invites, in the order of the specification.
fn first_events(request: &CreateRoom, rules: &RoomVersionRules) -> Result<Vec<NewEvent>, ApiError> {
    let state = |kind: TimelineEventType, key: &str, content: &Value| {
        NewEvent::state(request.creator.clone(), kind, key, content)
    };
    let own = Value::Object(request.profile.content("join"));
    let mut events = vec![state(TimelineEventType::RoomMember, request.creator.as_str(), &own)?];
    let levels = Value::Object(power_levels(request, rules));
    events.push(state(TimelineEventType::RoomPowerLevels, "", &levels)?);
    if let Some(alias) = &request.alias {
        let content = json!({ "alias": alias });
        events.push(state(TimelineEventType::RoomCanonicalAlias, "", &content)?);
    }
    let given = |kind: &TimelineEventType| {
        request.initial_state.iter().any(|(other, key, _)| other == kind && key.is_empty())
    };
    let preset = request.preset;
    for (kind, content) in [
        (TimelineEventType::RoomJoinRules, json!({ "join_rule": preset.join_rule() })),
        (TimelineEventType::RoomHistoryVisibility, json!({ "history_visibility": "shared" })),
        (TimelineEventType::RoomGuestAccess, json!({ "guest_access": preset.guest_access() })),
    ] {
        if !given(&kind) {
            events.push(state(kind, "", &content)?);
        }
    }
    for (kind, state_key, content) in &request.initial_state {
        events.push(NewEvent {
            sender: request.creator.clone(),
            event_type: kind.clone(),
            state_key: Some(state_key.clone()),
            content: content.clone(),
            redacts: None,
        });
    }
    if let Some(name) = &request.name {
        events.push(state(TimelineEventType::RoomName, "", &json!({ "name": name }))?);
    }
    if let Some(topic) = &request.topic {
        let rich = json!({ "m.text": [{ "body": topic }] });
        let content = json!({ "topic": topic, "m.topic": rich });
        events.push(state(TimelineEventType::RoomTopic, "", &content)?);
    }
    Ok(events)
}

pub(super) fn power_levels(request: &CreateRoom, rules: &RoomVersionRules) -> Map<String, Value> {
    let privileged = rules.authorization.explicitly_privilege_room_creators;
    let mut users: BTreeMap<&OwnedUserId, i64> = BTreeMap::new();
    if !privileged {
        users.insert(&request.creator, 100);
        if request.preset == Preset::TrustedPrivate {
            users.extend(request.invites.iter().map(|(user_id, _)| (user_id, 100)));
        }
    }
    let invite = if request.preset == Preset::Public { 50 } else { 0 };
    // Where creators stand above all, nobody else upgrades the room unless it is given to them.
    let tombstone = if privileged { 150 } else { 100 };
    let levels = json!({
        "users": users,
        "users_default": 0,
        "events": {
            "m.room.name": 50,
            "m.room.power_levels": 100,
            "m.room.history_visibility": 100,
            "m.room.canonical_alias": 50,
            "m.room.avatar": 50,
            "m.room.tombstone": tombstone,
            "m.room.server_acl": 100,
            "m.room.encryption": 100,
        },
        "events_default": 0,
        "state_default": 50,
        "ban": 50,
        "kick": 50,
        "redact": 50,
        "invite": invite,
    });
    let Value::Object(mut levels) = levels else { return Map::new() };
    levels.extend(request.power_level_override.clone());
    levels
}

//! Creating rooms.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#creation>

use std::sync::Arc;

use ruma::{
    OwnedUserId, RoomAliasId,
    api::client::room::{
        Visibility,
        create_room::v3::{self, RoomPreset},
    },
    events::{AnyInitialStateEvent, TimelineEventType},
    serde::Raw,
};
use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};

use super::{
    ClientApi, RateLimits,
    membership_change::{invited_profile, member_profile, no_invites_by_address},
};
use crate::{
    error::ApiError,
    http::Requester,
    rooms::create::{CreateRoom, Preset},
};

/// `POST /_matrix/client/v3/createRoom`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom>
///
/// The operator may have rooms encrypted by default, but not those that bridges and bots make: they
/// say themselves what they can read.
pub async fn create_room(
    app: Arc<ClientApi>,
    auth: Requester,
    request: v3::Request,
) -> Result<v3::Response, ApiError> {
    app.limits_of(&auth).room_creation.check(&auth.user_id)?;
    if !request.invite_3pid.is_empty() {
        return Err(no_invites_by_address());
    }
    let limits = app.limits_of(&auth);
    let invited = request.invite.clone();
    for (number, user_id) in invited.iter().enumerate() {
        let charged = limits.invites_per_issuer.check(&auth.user_id);
        charged
            .and_then(|()| limits.invites_per_user.check(user_id))
            .inspect_err(|_| give_back_invites(limits, &invited[..number]))?;
    }
    create(&app, auth, request).await.inspect_err(|_| give_back_invites(limits, &invited))
}

/// Nobody was invited: else rooms that are refused could keep others from inviting these users.
fn give_back_invites(limits: &RateLimits, invited: &[OwnedUserId]) {
    for user_id in invited {
        limits.invites_per_user.give_back(user_id, 1);
    }
}

async fn create(
    app: &ClientApi,
    auth: Requester,
    request: v3::Request,
) -> Result<v3::Response, ApiError> {
    let mut invites = Vec::with_capacity(request.invite.len());
    for user_id in request.invite.clone() {
        let profile = invited_profile(app, &user_id).await?;
        if !invites.iter().any(|(known, _)| *known == user_id) && user_id != auth.user_id {
            invites.push((user_id, profile));
        }
    }
    let for_appservice = auth.appservice.is_some();
    let mut wanted = CreateRoom {
        profile: member_profile(app, &auth.user_id).await?,
        alias: alias(app, &auth, request.room_alias_name.as_deref())?,
        preset: preset(&request)?,
        listed: request.visibility == Visibility::Public,
        creation_content: object(request.creation_content, "creation_content")?,
        power_level_override: object(
            request.power_level_content_override,
            "power_level_content_override",
        )?,
        initial_state: request.initial_state.iter().map(initial_state).collect::<Result<_, _>>()?,
        creator: auth.user_id,
        version: request.room_version,
        name: request.name,
        topic: request.topic,
        invites,
        is_direct: request.is_direct,
    };
    if !for_appservice {
        app.encryption.encrypt_by_default(&mut wanted)?;
    }
    Ok(v3::Response::new(app.rooms.create(wanted).await?))
}

fn preset(request: &v3::Request) -> Result<Preset, ApiError> {
    match &request.preset {
        Some(RoomPreset::PrivateChat) => Ok(Preset::Private),
        Some(RoomPreset::TrustedPrivateChat) => Ok(Preset::TrustedPrivate),
        Some(RoomPreset::PublicChat) => Ok(Preset::Public),
        Some(_) => Err(ApiError::invalid_param("The preset is unknown")),
        None if request.visibility == Visibility::Public => Ok(Preset::Public),
        None => Ok(Preset::Private),
    }
}

fn alias(
    app: &ClientApi,
    auth: &Requester,
    name: Option<&str>,
) -> Result<Option<ruma::OwnedRoomAliasId>, ApiError> {
    let Some(name) = name else {
        return Ok(None);
    };
    let text = format!("#{name}:{}", app.rooms.server_name());
    match RoomAliasId::parse(&text) {
        Ok(alias) if !name.is_empty() && !name.contains([':', '#', '\0']) && text.len() <= 255 => {
            app.appservices.check_alias(&alias, auth.appservice.as_ref())?;
            Ok(Some(alias.clone()))
        }
        _ => Err(ApiError::invalid_param(format!("{name} cannot be the name of an alias"))),
    }
}

fn object<T>(raw: Option<Raw<T>>, field: &str) -> Result<Map<String, Value>, ApiError> {
    match raw {
        None => Ok(Map::new()),
        Some(raw) => serde_json::from_str(raw.json().get())
            .map_err(|_| ApiError::bad_json(format!("`{field}` is not an object"))),
    }
}

/// Clients leave the state key out where it is empty.
fn initial_state(
    raw: &Raw<AnyInitialStateEvent>,
) -> Result<(TimelineEventType, String, Box<RawValue>), ApiError> {
    #[derive(Deserialize)]
    struct Event {
        #[serde(rename = "type")]
        kind: TimelineEventType,
        #[serde(default)]
        state_key: String,
        content: Box<RawValue>,
    }
    let event: Event = serde_json::from_str(raw.json().get()).map_err(|error| {
        ApiError::bad_json(format!("An event of `initial_state` is incomplete: {error}"))
    })?;
    Ok((event.kind, event.state_key, event.content))
}

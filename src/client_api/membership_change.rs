//! Joining, inviting, knocking, leaving, removing, banning, forgetting.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-membership>

use std::sync::Arc;

use ruma::{
    OwnedUserId, RoomOrAliasId, UserId,
    api::client::{
        knock::knock_room,
        membership::{
            ban_user, forget_room,
            invite_user::{self, v3::InvitationRecipient},
            join_room_by_id, join_room_by_id_or_alias, kick_user, leave_room, unban_user,
        },
    },
};
use serde_json::{Map, Value, value::RawValue};

use super::{ClientApi, RateLimits, appservice::resolve_alias};
use crate::{
    error::ApiError,
    http::Requester,
    rooms::{
        Room,
        membership::{Change, MemberProfile},
    },
    storage::rows::users::AccountRow,
    users::successors,
};

/// How long a reason may be, in bytes.
const REASON_BYTES_MAX: usize = 2000;

/// `POST /_matrix/client/v3/rooms/{roomId}/join`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidjoin>
pub async fn join_by_id(
    app: Arc<ClientApi>,
    auth: Requester,
    request: join_room_by_id::v3::Request,
) -> Result<join_room_by_id::v3::Response, ApiError> {
    let room = app.rooms.known_room(&request.room_id).await?;
    join(&app, &room, auth, request.reason).await?;
    Ok(join_room_by_id::v3::Response::new(request.room_id))
}

/// `POST /_matrix/client/v3/join/{roomIdOrAlias}`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3joinroomidoralias>
pub async fn join_by_id_or_alias(
    app: Arc<ClientApi>,
    auth: Requester,
    request: join_room_by_id_or_alias::v3::Request,
) -> Result<join_room_by_id_or_alias::v3::Response, ApiError> {
    let room = named_room(&app, &request.room_id_or_alias).await?;
    join(&app, &room, auth, request.reason).await?;
    Ok(join_room_by_id_or_alias::v3::Response::new(room.id.clone()))
}

/// `POST /_matrix/client/v3/knock/{roomIdOrAlias}`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3knockroomidoralias>
pub async fn knock(
    app: Arc<ClientApi>,
    auth: Requester,
    request: knock_room::v3::Request,
) -> Result<knock_room::v3::Response, ApiError> {
    app.limits_of(&auth).joins.check(&auth.user_id)?;
    let room = named_room(&app, &request.room_id_or_alias).await?;
    let change = own(&app, auth, request.reason).await?;
    app.rooms.knock(&room, change).await?;
    Ok(knock_room::v3::Response::new(room.id.clone()))
}

/// `POST /_matrix/client/v3/rooms/{roomId}/invite`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidinvite>
pub async fn invite(
    app: Arc<ClientApi>,
    auth: Requester,
    request: invite_user::v3::Request,
) -> Result<invite_user::v3::Response, ApiError> {
    let InvitationRecipient::UserId(recipient) = request.recipient else {
        return Err(no_invites_by_address());
    };
    app.limits_of(&auth).invites_per_issuer.check(&auth.user_id)?;
    let room = app.rooms.known_room(&request.room_id).await?;
    charge_invite(&app, &room, &auth, &recipient.user_id).await?;
    let target = recipient.user_id.clone();
    let limits = app.limits_of(&auth);
    let invite = async {
        let profile = invited_profile(&app, &target).await?;
        let reason = checked(recipient.reason)?;
        let (sender, target) = (auth.user_id.clone(), target.clone());
        app.rooms.invite(&room, Change { sender, target, reason, profile }).await
    };
    invite.await.inspect_err(|_| give_back_invite(limits, &room, &target))?;
    Ok(invite_user::v3::Response::new())
}

/// `POST /_matrix/client/v3/rooms/{roomId}/leave`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidleave>
pub async fn leave(
    app: Arc<ClientApi>,
    auth: Requester,
    request: leave_room::v3::Request,
) -> Result<leave_room::v3::Response, ApiError> {
    app.limits_of(&auth).messages.check(&auth.user_id)?;
    let room = app.rooms.known_room(&request.room_id).await?;
    let change = Change::own(auth.user_id, MemberProfile::default(), checked(request.reason)?);
    app.rooms.leave(&room, change).await?;
    Ok(leave_room::v3::Response::new())
}

/// `POST /_matrix/client/v3/rooms/{roomId}/forget`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidforget>
pub async fn forget(
    app: Arc<ClientApi>,
    auth: Requester,
    request: forget_room::v3::Request,
) -> Result<forget_room::v3::Response, ApiError> {
    let room = app.rooms.known_room(&request.room_id).await?;
    app.rooms.forget(&room, &auth.user_id).await?;
    Ok(forget_room::v3::Response::new())
}

/// `POST /_matrix/client/v3/rooms/{roomId}/kick`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidkick>
pub async fn kick(
    app: Arc<ClientApi>,
    auth: Requester,
    request: kick_user::v3::Request,
) -> Result<kick_user::v3::Response, ApiError> {
    app.limits_of(&auth).messages.check(&auth.user_id)?;
    let room = app.rooms.known_room(&request.room_id).await?;
    app.rooms.kick(&room, on(auth, request.user_id, request.reason)?).await?;
    Ok(kick_user::v3::Response::new())
}

/// `POST /_matrix/client/v3/rooms/{roomId}/ban`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidban>
pub async fn ban(
    app: Arc<ClientApi>,
    auth: Requester,
    request: ban_user::v3::Request,
) -> Result<ban_user::v3::Response, ApiError> {
    app.limits_of(&auth).messages.check(&auth.user_id)?;
    let room = app.rooms.known_room(&request.room_id).await?;
    app.rooms.ban(&room, on(auth, request.user_id, request.reason)?).await?;
    Ok(ban_user::v3::Response::new())
}

/// `POST /_matrix/client/v3/rooms/{roomId}/unban`
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidunban>
pub async fn unban(
    app: Arc<ClientApi>,
    auth: Requester,
    request: unban_user::v3::Request,
) -> Result<unban_user::v3::Response, ApiError> {
    app.limits_of(&auth).messages.check(&auth.user_id)?;
    let room = app.rooms.known_room(&request.room_id).await?;
    app.rooms.unban(&room, on(auth, request.user_id, request.reason)?).await?;
    Ok(unban_user::v3::Response::new())
}

/// What member events tell of a user of this server; nothing is known of others.
pub(super) async fn member_profile(
    app: &ClientApi,
    user_id: &UserId,
) -> Result<MemberProfile, ApiError> {
    if user_id.server_name() != app.rooms.server_name() {
        return Ok(MemberProfile::default());
    }
    let profile = app.users.profiles().get(user_id).await?;
    Ok(profile.map_or_else(MemberProfile::default, |profile| MemberProfile {
        displayname: profile.display_name().map(str::to_owned),
        avatar_url: profile.avatar_url(),
    }))
}

/// [`member_profile`] of a user who is to be invited: one that an application service has not made
/// yet is asked for.
pub(super) async fn invited_profile(
    app: &ClientApi,
    user_id: &UserId,
) -> Result<MemberProfile, ApiError> {
    if user_id.server_name() == app.rooms.server_name() {
        match app.users.accounts().get(user_id).await? {
            None => {
                app.appservices.ask_user(user_id).await;
            }
            Some(account) => check_invitable(&account)?,
        }
    }
    member_profile(app, user_id).await
}

/// Nobody is left who could take the invite, or refuse it.
fn check_invitable(account: &AccountRow) -> Result<(), ApiError> {
    match account.deactivated_ts {
        Some(_) => Err(ApiError::forbidden("The account of this user is deactivated")),
        None => Ok(()),
    }
}

async fn join(
    app: &ClientApi,
    room: &Room,
    auth: Requester,
    reason: Option<String>,
) -> Result<(), ApiError> {
    app.limits_of(&auth).joins.check(&auth.user_id)?;
    let limits = app.limits_of(&auth);
    limits.joins_per_room.peek(&room.id)?;
    let user_id = auth.user_id.clone();
    let was_in = app.rooms.has_joined(room, &user_id).await?;
    let guest = auth.guest.then(|| auth.user_id.clone());
    if let Some(guest) = &guest {
        app.users.admit_guest(&app.rooms, room, guest).await?;
    }
    let change = own(app, auth, reason).await?;
    app.rooms.join(room, change).await?;
    charge_joined(limits, room);
    if !was_in {
        successors::carry_over(&app.users, &app.rooms, room, &user_id).await;
    }
    if let Some(guest) = &guest {
        app.users.confirm_guest(&app.rooms, room, guest).await?;
    }
    Ok(())
}

/// Charges for a member event that is sent as state what the endpoint that it stands for charges.
/// Who is in the room already only changes how they are named there. Gives whether the room is to be
/// charged for a join once the event is sent.
pub(super) async fn charge_member_event(
    app: &ClientApi,
    room: &Room,
    (auth, target): (&Requester, &str),
    content: &RawValue,
) -> Result<bool, ApiError> {
    let (sender, limits) = (&auth.user_id, app.limits_of(auth));
    let content: Map<String, Value> = serde_json::from_str(content.get())
        .map_err(|_| ApiError::bad_json("The content is not an object"))?;
    match content.get("membership").and_then(Value::as_str) {
        Some("invite") => {
            let target = <&UserId>::try_from(target)
                .map_err(|_| ApiError::invalid_param("The state key is not a user id"))?;
            limits.invites_per_issuer.check(sender)?;
            charge_invite(app, room, auth, target).await?;
            if let Some(account) = app.users.accounts().get(target).await? {
                check_invitable(&account)
                    .inspect_err(|_| give_back_invite(limits, room, target))?;
            }
        }
        Some("join") if !app.rooms.has_joined(room, sender).await? => {
            limits.joins.check(sender)?;
            limits.joins_per_room.peek(&room.id)?;
            return Ok(true);
        }
        Some("knock") => limits.joins.check(sender)?,
        _ => {}
    }
    Ok(false)
}

/// Charges a room for a join that succeeded: who is refused must not keep others out.
pub(super) fn charge_joined(limits: &RateLimits, room: &Room) {
    // Joins at the same time may all have passed: the last of them are in all the same.
    let _ = limits.joins_per_room.check(&room.id);
}

/// Gives back what [`charge_invite`] took for an invite that was refused: else whoever may not invite
/// could keep others from it.
pub(super) fn give_back_invite(limits: &RateLimits, room: &Room, target: &UserId) {
    limits.invites_per_room.give_back(&room.id, 1);
    limits.invites_per_user.give_back(target, 1);
}

/// Charges a room and the invited for an invite. The issuer was charged before; who is not in the
/// room must not use up what its members have.
async fn charge_invite(
    app: &ClientApi,
    room: &Room,
    auth: &Requester,
    target: &UserId,
) -> Result<(), ApiError> {
    if !app.rooms.has_joined(room, &auth.user_id).await? {
        return Err(ApiError::forbidden("You are not in this room"));
    }
    let limits = app.limits_of(auth);
    limits.invites_per_user.peek(target)?;
    limits.invites_per_room.check(&room.id)?;
    limits.invites_per_user.check(target)
}

/// Nobody is invited by an address: this server uses no identity server.
pub(super) fn no_invites_by_address() -> ApiError {
    let message = "This server invites nobody by e-mail or phone";
    ApiError::new(http::StatusCode::FORBIDDEN, "M_THREEPID_DENIED", message)
}

async fn own(app: &ClientApi, auth: Requester, reason: Option<String>) -> Result<Change, ApiError> {
    let profile = member_profile(app, &auth.user_id).await?;
    Ok(Change::own(auth.user_id, profile, checked(reason)?))
}

fn on(auth: Requester, target: OwnedUserId, reason: Option<String>) -> Result<Change, ApiError> {
    let profile = MemberProfile::default();
    Ok(Change { sender: auth.user_id, target, reason: checked(reason)?, profile })
}

fn checked(reason: Option<String>) -> Result<Option<String>, ApiError> {
    if reason.as_ref().is_some_and(|reason| reason.len() > REASON_BYTES_MAX) {
        return Err(ApiError::invalid_param("A reason has at most 2000 bytes"));
    }
    Ok(reason)
}

async fn named_room(app: &ClientApi, name: &RoomOrAliasId) -> Result<Room, ApiError> {
    if let Ok(room_id) = <&ruma::RoomId>::try_from(name) {
        return app.rooms.known_room(room_id).await;
    }
    let alias = <&ruma::RoomAliasId>::try_from(name)
        .map_err(|_| ApiError::invalid_param("This is neither a room id nor an alias"))?;
    let row = resolve_alias(app, alias).await?;
    let row = row.ok_or_else(|| ApiError::not_found(format!("There is no alias {alias} here")))?;
    app.rooms.known_room(&row.room_id).await
}

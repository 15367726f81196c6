//! What the server is and can: versions, capabilities, where clients and servers find it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#server-discovery>

use std::{collections::BTreeMap, sync::Arc};

use axum::response::Response;
use ruma::api::{
    client::discovery::{
        discover_homeserver,
        get_capabilities::{
            self,
            v3::{
                AccountModerationCapability, Capabilities, GetLoginTokenCapability,
                ProfileFieldsCapability, RoomVersionStability, RoomVersionsCapability,
                ThirdPartyIdChangesCapability,
            },
        },
        get_supported_versions,
    },
    federation::discovery::discover_homeserver as discover_federation,
};
use serde_json::json;
use url::Url;

use super::{ClientApi, raw, rtc};
use crate::{
    config::EncryptedRooms,
    encryption::default_rooms::encrypted_presets,
    error::ApiError,
    http::{MaybeRequester, NoAuth, Requester},
    rooms::CREATABLE_VERSIONS,
};

/// Each version by itself: clients look for one by its exact name.
const VERSIONS: [&str; 19] = [
    "v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10", "v1.11",
    "v1.12", "v1.13", "v1.14", "v1.15", "v1.16", "v1.17", "v1.18", "v1.19",
];

/// Only what works. Those that end in `stable` say what the versions say too: clients ask for them by
/// name (Element Web for MSC2285, MSC3827 and, in older versions, cross-signing; mautrix for MSC2246 and MSC3916).
const UNSTABLE_FEATURES: &[&str] = &[
    "com.beeper.msc4169",
    "fi.mau.msc2246.stable",
    "fi.mau.msc2659",
    "fi.mau.msc2659.stable",
    "org.matrix.e2e_cross_signing",
    "org.matrix.msc2285.stable",
    "org.matrix.msc3026.busy_presence",
    "org.matrix.msc3030",
    "org.matrix.msc3266",
    "org.matrix.msc3440.stable",
    "org.matrix.msc3715.stable",
    "org.matrix.msc3771",
    "org.matrix.msc3773",
    "org.matrix.msc3814",
    "org.matrix.msc3827.stable",
    "org.matrix.msc3856.stable",
    "org.matrix.msc3912",
    "org.matrix.msc3916.stable",
    "org.matrix.msc3981",
    "org.matrix.msc4140",
    "org.matrix.msc4151",
    "org.matrix.msc4155",
    "org.matrix.msc4380.stable",
    "org.matrix.simplified_msc3575",
    "uk.half-shot.msc2666",
    "uk.half-shot.msc2666.mutual_rooms",
    "uk.half-shot.msc2666.query_mutual_rooms",
    "uk.half-shot.msc2666.query_mutual_rooms.stable",
    "uk.tcpip.msc4133",
    "uk.tcpip.msc4133.stable",
    "uk.timedout.msc4323",
    "uk.timedout.msc4323.stable",
];

/// `GET /.well-known/matrix/client`
/// <https://spec.matrix.org/v1.19/client-server-api/#getwell-knownmatrixclient>
///
/// With what the operator adds for clients, where calls are carried (MSC4143), and that new rooms
/// are encrypted where the operator has it so (as Element reads it).
pub(super) async fn discover_homeserver(
    app: Arc<ClientApi>,
    _auth: NoAuth,
    _request: discover_homeserver::Request,
) -> Result<Response, ApiError> {
    let url = app.config.server.public_base_url.as_ref().ok_or_else(not_configured)?;
    let mut known = app.config.server.well_known_client.clone();
    known.insert("m.homeserver".to_owned(), json!({ "base_url": base_url(url) }));
    if let Some(foci) = rtc::foci(&app.config.calls) {
        known.insert("org.matrix.msc4143.rtc_foci".to_owned(), foci);
    }
    if app.config.encryption.default_for != EncryptedRooms::None {
        // Clients encrypt by themselves unless they are told not to: so `false` is never said.
        let default = json!({ "default": true });
        known.entry("io.element.e2ee").or_insert(default);
    }
    raw::json(&known)
}

/// `GET /.well-known/matrix/server`
/// <https://spec.matrix.org/v1.19/server-server-api/#getwell-knownmatrixserver>
pub(super) async fn discover_homeserver_of_federation(
    app: Arc<ClientApi>,
    _auth: NoAuth,
    _request: discover_federation::Request,
) -> Result<discover_federation::Response, ApiError> {
    let url = app.config.server.public_base_url.as_ref().ok_or_else(not_configured)?;
    let host = url.host_str().ok_or_else(not_configured)?;
    let port = url.port_or_known_default().unwrap_or(443);
    let server = format!("{host}:{port}").try_into().map_err(ApiError::internal)?;
    Ok(discover_federation::Response::new(server))
}

/// `GET /_matrix/client/versions`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientversions>
pub(super) async fn get_supported_versions(
    app: Arc<ClientApi>,
    _auth: MaybeRequester,
    _request: get_supported_versions::Request,
) -> Result<get_supported_versions::Response, ApiError> {
    let versions = VERSIONS.map(str::to_owned).to_vec();
    let mut response = get_supported_versions::Response::new(versions);
    response.unstable_features =
        UNSTABLE_FEATURES.iter().map(|feature| ((*feature).to_owned(), true)).collect();
    for (preset, is_encrypted) in encrypted_presets(app.config.encryption.default_for) {
        let feature = format!("io.element.e2ee_forced.{preset}");
        response.unstable_features.insert(feature, is_encrypted);
    }
    if app.config.encryption.qr_login {
        for feature in ["org.matrix.msc4108", "io.element.msc4388"] {
            response.unstable_features.insert(feature.to_owned(), true);
        }
    }
    if app.config.calls.livekit_service_url.is_some() {
        response.unstable_features.insert("org.matrix.msc4143".to_owned(), true);
    }
    Ok(response)
}

/// `GET /_matrix/client/v3/capabilities`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3capabilities>
///
/// What is as the specification assumes it anyway (`m.change_password`, `m.set_displayname`,
/// `m.set_avatar_url`) is left out.
pub(super) async fn get_capabilities(
    app: Arc<ClientApi>,
    auth: Requester,
    _request: get_capabilities::v3::Request,
) -> Result<get_capabilities::v3::Response, ApiError> {
    let available: BTreeMap<_, _> = CREATABLE_VERSIONS
        .into_iter()
        .map(|version| (version, RoomVersionStability::Stable))
        .collect();
    let default = app.config.rooms.default_version.clone();
    let mut capabilities = Capabilities::new();
    capabilities.room_versions = RoomVersionsCapability::new(default, available);
    capabilities.thirdparty_id_changes =
        ThirdPartyIdChangesCapability::new(app.users.emails().is_enabled());
    capabilities.get_login_token = GetLoginTokenCapability::new(app.config.login.tokens);
    capabilities.account_moderation = AccountModerationCapability::new(auth.admin, auth.admin);
    capabilities.profile_fields = Some(ProfileFieldsCapability::new(true));
    let delayed = &app.config.delayed_events;
    let delayed = json!({
        "max_delay_ms": delayed.delay_seconds_max.saturating_mul(1000),
        "max_scheduled": delayed.scheduled_per_user_max,
    });
    capabilities.set("org.matrix.msc4140.delayed_events", delayed).map_err(ApiError::internal)?;
    let previews = serde_json::json!({ "enabled": app.config.url_previews.enabled });
    capabilities.set("io.element.msc4452.preview_url", previews).map_err(ApiError::internal)?;
    Ok(get_capabilities::v3::Response::new(capabilities))
}

/// The address as clients expect it: without a slash at its end.
pub(super) fn base_url(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

fn not_configured() -> ApiError {
    ApiError::not_found("The server has no public address in its configuration")
}

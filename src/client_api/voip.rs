//! Calls between two: a name and a password for the TURN server.
//!
//! With a shared secret they follow the convention of coturn's REST API: the name says until when
//! it is good, the password is its HMAC.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#voice-over-ip>

use std::{sync::Arc, time::Duration};

use axum::response::Response;
use base64::{Engine, prelude::BASE64_STANDARD};
use ring::hmac;
use ruma::UserId;
use serde_json::{Value, json};

use super::{ClientApi, raw};
use crate::{
    config::CallsConfig,
    error::ApiError,
    http::{RawRequest, Requester},
};

/// The paths of [`get_turn_server_info`].
pub(super) const TURN_SERVER_PATHS: &[&str] =
    &["/_matrix/client/v3/voip/turnServer", "/_matrix/client/r0/voip/turnServer"];

/// `GET /_matrix/client/v3/voip/turnServer`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3voipturnserver>
///
/// `{}` where there is no TURN server, which ruma's response cannot say.
pub(super) async fn get_turn_server_info(
    app: Arc<ClientApi>,
    auth: Requester,
    _request: RawRequest,
) -> Result<Response, ApiError> {
    let now = Duration::from_millis(app.rooms.clock().now().get().into());
    let answer = turn_server(&app.config.calls, &auth.user_id, now).unwrap_or_else(|| json!({}));
    raw::json(&answer)
}

/// What a user needs for the TURN server; `now` is since 1970.
fn turn_server(calls: &CallsConfig, user_id: &UserId, now: Duration) -> Option<Value> {
    if calls.turn_uris.is_empty() {
        return None;
    }
    let lifetime = Duration::from_millis(calls.turn_lifetime_ms);
    let (username, password) = match (&calls.turn_secret, &calls.turn_username) {
        (Some(secret), _) => {
            let username = format!("{}:{user_id}", (now + lifetime).as_secs());
            // SHA-1 is what TURN servers take; as an HMAC it is not broken.
            let key =
                hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.reveal().as_bytes());
            let password = BASE64_STANDARD.encode(hmac::sign(&key, username.as_bytes()));
            (username, password)
        }
        (None, Some(username)) => {
            let password = calls.turn_password.as_ref()?.reveal();
            (username.clone(), password.to_owned())
        }
        (None, None) => return None,
    };
    Some(json!({
        "username": username,
        "password": password,
        "uris": calls.turn_uris,
        "ttl": lifetime.as_secs(),
    }))
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;
    use crate::config::Secret;

    #[test]
    fn a_password_is_the_hmac_of_the_name() {
        let mut calls = CallsConfig {
            turn_uris: vec!["turn:turn.example.org".to_owned()],
            turn_lifetime_ms: 600_000,
            ..CallsConfig::default()
        };
        let alice = user_id!("@alice:hs1");
        let now = Duration::from_secs(1_700_000_000);
        assert_eq!(turn_server(&calls, alice, now), None);
        calls.turn_secret = Some(Secret::new("secret"));
        let answer = turn_server(&calls, alice, now).unwrap();
        assert_eq!(answer["username"], "1700000600:@alice:hs1");
        // printf '1700000600:@alice:hs1' | openssl dgst -sha1 -hmac secret -binary | base64
        assert_eq!(answer["password"], "9u9o8iN4kCUJ4wUvAoNRheYlRZw=");
        assert_eq!(answer["ttl"], 600);
        calls.turn_secret = None;
        calls.turn_username = Some("matrix".to_owned());
        assert_eq!(turn_server(&calls, alice, now), None, "a name without a password");
        calls.turn_password = Some(Secret::new("p"));
        assert_eq!(turn_server(&calls, alice, now).unwrap()["password"], "p");
    }
}

//! The keys that other servers sign with, as they publish them.
//!
//! A key is believed as long as its server says, and a week at most; half of that time later it is
//! read again. That a server has no such key, or does not answer, is remembered too, so that
//! requests with made-up names or keys cost little. Old keys sign no requests. Attack cases T07 to
//! T09.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#retrieving-server-keys>

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, ServerName,
    serde::Base64,
    signatures::{PublicKeyMap, PublicKeySet, verify_json},
};

use super::client::{Federation, FederationError};
use crate::egress::Limits;

/// What bounds the answer of a server.
const LIMITS: Limits =
    Limits { duration_max: Duration::from_secs(8), bytes_max: 64 * 1024, redirects_max: 0 };
/// How many servers are asked at once.
pub(super) const FETCHES_AT_ONCE: usize = 64;
/// How many keys of a server are known.
const KEYS_MAX: usize = 100;
/// How long a key is believed at most.
const VALIDITY_MAX: Duration = Duration::from_hours(7 * 24);
/// How long a server is not asked again that has no such key or does not answer: at first, at most.
const PAUSE_MIN: Duration = Duration::from_mins(1);
const PAUSE_MAX: Duration = Duration::from_hours(1);

/// What is known of a server's keys.
#[derive(Debug, Default)]
pub(super) struct RemoteKeys {
    keys: BTreeMap<String, VerifyKey>,
    /// By the monotonic clock.
    not_before: Option<Duration>,
    failures: u32,
}

/// Times are in milliseconds of the wall clock.
#[derive(Clone, Debug, PartialEq, Eq)]
struct VerifyKey {
    key: Base64,
    refresh_ts: u64,
    valid_until_ts: u64,
}

impl Federation {
    /// The key of a server by its id, if it may sign requests now.
    pub async fn verify_key(
        &self,
        server: &ServerName,
        key_id: &str,
    ) -> Result<Option<Base64>, FederationError> {
        let peer = self.peer(server);
        // Held while the server is asked, so that this happens once.
        let mut known = peer.keys.lock().await;
        let (now_ms, monotonic) = self.now();
        let key = known.valid(key_id, now_ms).cloned();
        let is_fresh = key.as_ref().is_some_and(|key| now_ms < key.refresh_ts);
        if is_fresh || known.not_before.is_some_and(|time| monotonic < time) {
            return Ok(key.map(|key| key.key));
        }
        match self.fetch_keys(server, &known, now_ms).await {
            Ok(fetched) => {
                known.keys.retain(|_, key| now_ms < key.valid_until_ts);
                known.keys.extend(fetched);
                known.failures = 0;
                known.not_before = Some(monotonic + PAUSE_MIN);
                Ok(known.valid(key_id, now_ms).map(|key| key.key.clone()))
            }
            Err(error) => {
                known.pause(monotonic);
                tracing::debug!(%server, %error, "the keys of a server cannot be had");
                key.map(|key| Some(key.key)).ok_or(error)
            }
        }
    }

    async fn fetch_keys(
        &self,
        server: &ServerName,
        known: &RemoteKeys,
        now_ms: u64,
    ) -> Result<BTreeMap<String, VerifyKey>, FederationError> {
        let _slot = self.key_slot().await;
        let request = http::Request::get("/_matrix/key/v2/server").body(Bytes::new());
        let request =
            request.map_err(|_| FederationError::BadAnswer("a request to it cannot be written"))?;
        let body = self.send(server, request, LIMITS).await?.rest().await?;
        let fetched = published(server, &body, now_ms).map_err(FederationError::BadAnswer)?;
        let differs = |(id, key): (&String, &VerifyKey)| {
            known.valid(id, now_ms).is_some_and(|known| known.key != key.key)
        };
        if fetched.iter().any(differs) {
            return Err(FederationError::BadAnswer("another key has the name of a valid one"));
        }
        Ok(fetched)
    }
}

impl RemoteKeys {
    fn valid(&self, key_id: &str, now_ms: u64) -> Option<&VerifyKey> {
        self.keys.get(key_id).filter(|key| now_ms < key.valid_until_ts)
    }

    fn pause(&mut self, monotonic: Duration) {
        let pause = PAUSE_MIN.saturating_mul(1 << self.failures.min(8)).min(PAUSE_MAX);
        self.not_before = Some(monotonic + pause);
        self.failures = self.failures.saturating_add(1);
    }
}

/// The keys in what a server published, which has to be signed with one of them.
fn published(
    server: &ServerName,
    body: &[u8],
    now_ms: u64,
) -> Result<BTreeMap<String, VerifyKey>, &'static str> {
    let mut object: CanonicalJsonObject =
        serde_json::from_slice(body).map_err(|_| "its keys are no canonical JSON")?;
    if object.get("server_name").and_then(CanonicalJsonValue::as_str) != Some(server.as_str()) {
        return Err("its keys are those of another server");
    }
    let Some(CanonicalJsonValue::Integer(until)) = object.get("valid_until_ts") else {
        return Err("its keys do not say until when they are valid");
    };
    let validity_ms = u64::try_from(i64::from(*until)).unwrap_or_default().saturating_sub(now_ms);
    let validity_max_ms = u64::try_from(VALIDITY_MAX.as_millis()).unwrap_or(u64::MAX);
    let validity_ms = validity_ms.min(validity_max_ms);
    if validity_ms == 0 {
        return Err("its keys are not valid any more");
    }
    let keys = verify_keys(&object)?;
    // Others may have signed too, whose keys are not known here.
    let signatures = object.get("signatures").and_then(CanonicalJsonValue::as_object);
    let own = signatures.and_then(|all| all.get(server.as_str())).cloned();
    let own = own.ok_or("its keys are not signed by it")?;
    let own = CanonicalJsonObject::from([(server.to_string(), own)]);
    object.insert("signatures".to_owned(), own.into());
    let map = PublicKeyMap::from([(server.to_string(), keys.clone())]);
    verify_json(&map, &object).map_err(|_| "its keys are not signed by it")?;
    let key = |key| VerifyKey {
        key,
        refresh_ts: now_ms + validity_ms / 2,
        valid_until_ts: now_ms + validity_ms,
    };
    Ok(keys.into_iter().map(|(id, base64)| (id, key(base64))).collect())
}

/// The keys for ed25519.
fn verify_keys(object: &CanonicalJsonObject) -> Result<PublicKeySet, &'static str> {
    let listed = object.get("verify_keys").and_then(CanonicalJsonValue::as_object);
    let listed = listed.ok_or("it publishes no keys")?;
    if listed.len() > KEYS_MAX {
        return Err("it publishes too many keys");
    }
    let mut keys = PublicKeySet::new();
    for (id, value) in listed {
        let text = value.as_object().and_then(|key| key.get("key")?.as_str());
        let key = text.and_then(|text| Base64::parse(text).ok());
        let key = key.ok_or("one of its keys cannot be read")?;
        if id.starts_with("ed25519:") {
            keys.insert(id.clone(), key);
        }
    }
    Ok(keys)
}

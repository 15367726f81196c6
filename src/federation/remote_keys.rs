//! The keys that other servers sign with, as they publish them.
//!
//! A key is believed as long as its server says, and a week at most; half of that time later it is
//! read again, and what is not listed any more is not believed any more. That a server has no such
//! key, or does not answer, is remembered too, so that requests with made-up names or keys cost
//! little. Old keys sign no requests. Attack cases T07 to T09.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#retrieving-server-keys>

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, ServerName,
    serde::Base64,
    signatures::{PublicKeyMap, PublicKeySet, verify_json},
};
use tokio::time::timeout;

use super::client::{Federation, FederationError, Peer};
use crate::egress::{EgressError, Limits};

/// What bounds the answer of a server.
const LIMITS: Limits =
    Limits { duration_max: Duration::from_secs(8), bytes_max: 64 * 1024, redirects_max: 0 };
/// How many servers are asked at once.
pub(super) const FETCHES_AT_ONCE: usize = 64;
/// How many keys of a server are known, how long their ids and they themselves are, in bytes.
const KEYS_MAX: usize = 16;
const KEY_ID_BYTES_MAX: usize = 255;
const KEY_BYTES: usize = 32;
/// How long a key is believed at most.
const VALIDITY_MAX: Duration = Duration::from_hours(7 * 24);
/// How long a server is not asked again that has no such key or does not answer: at first, at most.
const PAUSE_MIN: Duration = Duration::from_mins(1);
const PAUSE_MAX: Duration = Duration::from_hours(1);

/// What is known of a server's keys.
#[derive(Clone, Debug, Default)]
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
        // What is known is answered at once, whatever others have asked for in this server's name.
        let (known, is_settled) = self.known(&peer, key_id);
        if is_settled {
            return Ok(known);
        }
        let _asking = match (peer.asking_keys.try_lock(), known) {
            (Ok(asking), _) => asking,
            (Err(_), Some(key)) => return Ok(Some(key)),
            (Err(_), None) => peer.asking_keys.lock().await,
        };
        let (key, is_settled) = self.known(&peer, key_id);
        if is_settled {
            return Ok(key);
        }
        let (now_ms, monotonic) = self.now();
        let known = peer.keys.lock().clone();
        match self.fetch_keys(server, &known, now_ms).await {
            Ok(keys) => {
                let fetched =
                    RemoteKeys { keys, not_before: Some(monotonic + PAUSE_MIN), failures: 0 };
                let key = fetched.valid(key_id, now_ms).map(|key| key.key.clone());
                *peer.keys.lock() = fetched;
                Ok(key)
            }
            Err(error) => {
                peer.keys.lock().pause(monotonic);
                tracing::debug!(%server, %error, "the keys of a server cannot be had");
                key.map(Some).ok_or(error)
            }
        }
    }

    /// The key as it is known, and whether its server need not be asked now.
    fn known(&self, peer: &Peer, key_id: &str) -> (Option<Base64>, bool) {
        let (now_ms, monotonic) = self.now();
        let known = peer.keys.lock();
        let key = known.valid(key_id, now_ms);
        let is_fresh = key.is_some_and(|key| now_ms < key.refresh_ts);
        let is_settled = is_fresh || known.not_before.is_some_and(|time| monotonic < time);
        (key.map(|key| key.key.clone()), is_settled)
    }

    async fn fetch_keys(
        &self,
        server: &ServerName,
        known: &RemoteKeys,
        now_ms: u64,
    ) -> Result<BTreeMap<String, VerifyKey>, FederationError> {
        let slot = timeout(LIMITS.duration_max, self.key_slot()).await;
        let _slot = slot.map_err(|_| EgressError::Timeout)?;
        let request = http::Request::get("/_matrix/key/v2/server").body(Bytes::new());
        let request =
            request.map_err(|_| FederationError::BadAnswer("a request to it cannot be written"))?;
        // A server that sends us something is there again, however long it was to be left alone.
        let body = self.send_anyway(server, request, LIMITS).await?.rest().await?;
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
        // Those of other kinds may have any shape.
        if !id.starts_with("ed25519:") {
            continue;
        }
        let text = value.as_object().and_then(|key| key.get("key")?.as_str());
        let key = text.and_then(|text| Base64::parse(text).ok());
        let key = key.filter(|key| key.as_bytes().len() == KEY_BYTES);
        let key = key.filter(|_| id.len() <= KEY_ID_BYTES_MAX);
        keys.insert(id.clone(), key.ok_or("one of its keys cannot be read")?);
    }
    Ok(keys)
}

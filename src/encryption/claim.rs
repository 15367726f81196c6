//! `/keys/claim`: hands out one-time keys, each once, the oldest first; then the fallback key.
//!
//! A claim chooses keys on one view, checks their rows and removes them in one synced batch; on a
//! conflict it chooses again. What is answered is on disk, so that no restart hands it out again. A
//! key that is taken and not answered, because something broke in between, is lost, never doubled.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysclaim>

use std::{
    collections::{BTreeSet, HashSet},
    ops::ControlFlow,
    sync::Arc,
};

use kv::{Batch, Direction, Reader};
use ruma::UserId;

use super::{
    ATTEMPTS, Encryption, busy, commit, fallback_keys,
    in_flight::{Waiting, place},
    one_time_keys,
    upload::counts_change,
};
use crate::{
    error::ApiError,
    storage::{
        rows::encryption::FallbackKeyRow,
        schema::{
            encryption::{DeviceAlgorithmKey, FALLBACK_KEYS, ONE_TIME_KEYS},
            users::DeviceKey,
        },
    },
};

/// The most devices of which keys are claimed at once.
const DEVICES_MAX: usize = 10_000;
/// How many of them share a batch, which stays below a megabyte.
const DEVICES_PER_BATCH: usize = 500;
/// How many keys are looked at where others claim the same device's at the moment.
const CANDIDATES: usize = 8;

/// A key that was handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedKey {
    /// Whose it is, and its algorithm.
    pub queue: DeviceAlgorithmKey,
    /// Its id, without the algorithm.
    pub key_id: String,
    /// The key as JSON.
    pub key: Vec<u8>,
}

/// What came of a claim.
#[derive(Clone, Debug, Default)]
pub struct Claimed {
    /// The keys; none for devices that have none.
    pub keys: Vec<ClaimedKey>,
    /// Whether it broke off before it had tried all.
    pub incomplete: bool,
}

impl Claimed {
    /// Those of `wanted` of which there is no key.
    fn missing(&self, wanted: Vec<DeviceAlgorithmKey>) -> Vec<DeviceAlgorithmKey> {
        let has: HashSet<_> = self.keys.iter().map(|key| &key.queue).collect();
        wanted.into_iter().filter(|queue| !has.contains(queue)).collect()
    }
}

/// What there is for one device.
enum Found {
    /// One-time keys, the oldest first.
    OneTime(Vec<Waiting>),
    /// No one-time key is left.
    Fallback(DeviceAlgorithmKey, FallbackKeyRow),
}

impl Encryption {
    /// Claims a key of each of these devices of this server; devices of others have none here.
    pub async fn claim_keys(&self, wanted: Vec<DeviceAlgorithmKey>) -> Result<Claimed, ApiError> {
        if wanted.len() > DEVICES_MAX {
            let message = format!("Claim keys of at most {DEVICES_MAX} devices at once");
            return Err(ApiError::invalid_param(message));
        }
        let mut claimed = Claimed::default();
        let is_asked = |queue: &DeviceAlgorithmKey| self.0.asks_for_claims(&queue.user_id);
        let (asked, stored): (Vec<_>, Vec<_>) = wanted.into_iter().partition(is_asked);
        self.claim_all(&stored, true, &mut claimed).await?;
        if asked.is_empty() {
            return Ok(claimed);
        }
        // Those that application services keep come before fallback keys.
        self.claim_all(&asked, false, &mut claimed).await?;
        let missing = claimed.missing(asked);
        claimed.keys.extend(self.0.ask_for_claims(&missing).await);
        let missing = claimed.missing(missing);
        self.claim_all(&missing, true, &mut claimed).await?;
        Ok(claimed)
    }

    async fn claim_all(
        &self,
        wanted: &[DeviceAlgorithmKey],
        with_fallback: bool,
        claimed: &mut Claimed,
    ) -> Result<(), ApiError> {
        for wanted in wanted.chunks(DEVICES_PER_BATCH) {
            match self.claim_some(wanted, with_fallback).await {
                Ok(keys) => claimed.keys.extend(keys),
                Err(error) if claimed.keys.is_empty() => return Err(error),
                // The keys of before are handed out and must be told.
                Err(error) => {
                    tracing::warn!(%error, "not all keys could be claimed");
                    claimed.incomplete = true;
                    break;
                }
            }
        }
        Ok(())
    }

    async fn claim_some(
        &self,
        wanted: &[DeviceAlgorithmKey],
        with_fallback: bool,
    ) -> Result<Vec<ClaimedKey>, ApiError> {
        let wanted: Arc<[DeviceAlgorithmKey]> = wanted.into();
        for _ in 0..ATTEMPTS {
            // Before the view: what another claim has removed by then is not in the view.
            let taken = self.0.claims.taken(&wanted);
            let queues = Arc::clone(&wanted);
            let read = self.0.store.read(move |reader| {
                let found = queues.iter().zip(&taken).map(|(queue, taken)| {
                    let is_taken = |key: &Waiting| taken.contains(&place(&key.0));
                    find(reader, queue, is_taken, if taken.is_empty() { 1 } else { CANDIDATES })
                });
                found.collect::<Result<Vec<_>, kv::Error>>()
            });
            let (mut one_time, mut fallback) = (Vec::new(), Vec::new());
            for found in read.await?.into_iter().flatten() {
                match found {
                    Found::OneTime(keys) => one_time.push(keys),
                    Found::Fallback(queue, row) if with_fallback => fallback.push((queue, row)),
                    Found::Fallback(..) => {}
                }
            }
            let Some((_guard, one_time)) = self.0.claims.take(one_time) else { continue };
            let batch = self.hand_out(&one_time, &fallback);
            if batch.is_empty() || commit(&self.0.store, batch).await?.is_some() {
                let one_time = one_time.into_iter().map(ClaimedKey::from);
                return Ok(one_time.chain(fallback.into_iter().map(ClaimedKey::from)).collect());
            }
        }
        Err(busy())
    }

    /// The batch by which keys are handed out. One for fallback keys that were used before is empty.
    fn hand_out(
        &self,
        one_time: &[Waiting],
        fallback: &[(DeviceAlgorithmKey, FallbackKeyRow)],
    ) -> Batch {
        let mut batch = Batch::new();
        let mut devices = BTreeSet::new();
        for (key, row) in one_time {
            one_time_keys::hand_out(&mut batch, key, row);
            devices.insert((&key.user_id, &key.device_id));
        }
        for (key, row) in fallback {
            if fallback_keys::hand_out(&mut batch, key, row) {
                devices.insert((&key.user_id, &key.device_id));
            }
        }
        for (user_id, device_id) in devices {
            let device = DeviceKey { user_id: user_id.clone(), device_id: device_id.clone() };
            // Keys are stored under ids of users that have logged in.
            if let Ok(user_id) = <&UserId>::try_from(user_id.as_str()) {
                counts_change(&mut batch, self.0.interner, user_id, &device);
                self.0.tell_counts(&mut batch, &device);
            }
        }
        batch
    }
}

/// The first keys of a device that are free, or its fallback key.
fn find(
    reader: &Reader<'_>,
    queue: &DeviceAlgorithmKey,
    is_taken: impl Fn(&Waiting) -> bool,
    limit: usize,
) -> Result<Option<Found>, kv::Error> {
    let DeviceAlgorithmKey { user_id, device_id, algorithm } = queue.clone();
    let range = ONE_TIME_KEYS.prefix(&(user_id, device_id, algorithm));
    let mut keys = Vec::new();
    reader.for_each(&ONE_TIME_KEYS, &range, Direction::Forward, |key, row| {
        let key = (key, row);
        if !is_taken(&key) {
            keys.push(key);
        }
        if keys.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    if !keys.is_empty() {
        return Ok(Some(Found::OneTime(keys)));
    }
    let fallback = reader.get(&FALLBACK_KEYS, queue)?;
    Ok(fallback.map(|row| Found::Fallback(queue.clone(), row)))
}

impl From<Waiting> for ClaimedKey {
    fn from((key, row): Waiting) -> Self {
        let queue = DeviceAlgorithmKey {
            user_id: key.user_id,
            device_id: key.device_id,
            algorithm: key.algorithm,
        };
        Self { queue, key_id: row.key_id, key: row.key }
    }
}

impl From<(DeviceAlgorithmKey, FallbackKeyRow)> for ClaimedKey {
    fn from((queue, row): (DeviceAlgorithmKey, FallbackKeyRow)) -> Self {
        Self { queue, key_id: row.key_id, key: row.key }
    }
}

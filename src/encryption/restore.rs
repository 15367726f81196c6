//! What a restored database must not do: hand out one-time keys that may have been handed out after
//! the backup was made, or let clients believe in device lists that they have seen newer.
//!
//! Each step is a batch of its own and the epoch is written last, so that a start that is broken off
//! begins again.

use std::ops::Bound;

use kv::{Batch, Direction, Json, Key, Reader, Table, Value};
use ruma::UserId;

use super::{
    ATTEMPTS, Encryption, busy, commit,
    device_lists::{self, Told, mark},
    one_time_keys,
    upload::counts_change,
};
use crate::{
    error::ApiError,
    id::Interner,
    storage::{
        rows::encryption::FallbackKeyRow,
        schema::{
            encryption::{
                DEVICE_LISTS, DeviceAlgorithmKey, ENCRYPTION_EPOCH, FALLBACK_KEYS,
                ONE_TIME_KEY_ID_COUNTS,
            },
            users::DeviceKey,
        },
    },
};

/// How many rows a step is about.
const ROWS_PER_STEP: usize = 100;

/// Decides a step on a view, from the key on that the one before gave.
type Decide<K> = fn(&Reader<'_>, Interner, Option<&K>) -> Result<Step<K>, kv::Error>;

/// The rows of a step, and the key of the last where there may be more.
type Page<K, V> = (Vec<(K, V)>, Option<K>);

/// What a step writes, whom it tells, and from where the next one goes on; `None`: it was the last.
struct Step<K> {
    batch: Batch,
    told: Vec<Told>,
    next: Option<K>,
}

impl Encryption {
    /// Says in which epoch the database is. In another one than that in which the keys were last used
    /// it was restored from a backup: then the one-time keys go, fallback keys count as used, and
    /// every device list as changed.
    pub async fn enter(&self, epoch: u64) -> Result<(), ApiError> {
        let known = self.0.store.read(|reader| reader.get(&ENCRYPTION_EPOCH, &0)).await?;
        if known == Some(Json(epoch)) {
            return Ok(());
        }
        self.for_all(remove_one_time_keys).await?;
        self.for_all(use_fallback_keys).await?;
        self.for_all(mark_users).await?;
        self.tell_all_counts().await?;
        let mut batch = Batch::new();
        batch.check(&ENCRYPTION_EPOCH, &0, known.as_ref());
        batch.put(&ENCRYPTION_EPOCH, &0, &Json(epoch));
        commit(&self.0.store, batch).await?.map(|_| ()).ok_or_else(busy)
    }

    /// Takes steps until one says that it was the last.
    async fn for_all<K: Clone + Send + 'static>(&self, decide: Decide<K>) -> Result<(), ApiError> {
        let (mut after, mut conflicts) = (None, 0);
        loop {
            let (interner, from) = (self.0.interner, after.clone());
            let read = self.0.store.read(move |reader| decide(reader, interner, from.as_ref()));
            let Step { batch, told, next } = read.await?;
            if !batch.is_empty() && commit(&self.0.store, batch).await?.is_none() {
                conflicts += 1;
                if conflicts == ATTEMPTS {
                    return Err(busy());
                }
                continue;
            }
            for told in told {
                device_lists::settle(&self.0.store, self.0.interner, told).await?;
            }
            let Some(next) = next else { return Ok(()) };
            after = Some(next);
        }
    }
}

fn page<K: Key + Clone, V: Value>(
    reader: &Reader<'_>,
    table: &Table<K, V>,
    after: Option<&K>,
) -> Result<Page<K, V>, kv::Error> {
    let start = after.map_or(Bound::Unbounded, Bound::Excluded);
    let range = table.range(start, Bound::<&K>::Unbounded);
    let rows = reader.scan(table, &range, Direction::Forward, ROWS_PER_STEP)?;
    let next = rows.last().filter(|_| rows.len() == ROWS_PER_STEP).map(|(key, _)| key.clone());
    Ok((rows, next))
}

fn remove_one_time_keys(
    reader: &Reader<'_>,
    interner: Interner,
    after: Option<&DeviceKey>,
) -> Result<Step<DeviceKey>, kv::Error> {
    let (rows, next) = page(reader, &ONE_TIME_KEY_ID_COUNTS, after)?;
    let mut batch = Batch::new();
    for (device, _) in rows {
        one_time_keys::remove_all(&mut batch, &device);
        let Ok(user_id) = UserId::parse(&device.user_id) else { continue };
        counts_change(&mut batch, interner, &user_id, &device);
    }
    Ok(Step { batch, told: Vec::new(), next })
}

/// Nobody knows which of them were handed out after the backup, nor whether their devices still have
/// them: so their clients are made to upload new ones.
fn use_fallback_keys(
    reader: &Reader<'_>,
    interner: Interner,
    after: Option<&DeviceAlgorithmKey>,
) -> Result<Step<DeviceAlgorithmKey>, kv::Error> {
    let (rows, next) = page(reader, &FALLBACK_KEYS, after)?;
    let mut batch = Batch::new();
    for (key, row) in rows.into_iter().filter(|(_, row)| !row.used) {
        batch.check(&FALLBACK_KEYS, &key, Some(&row));
        batch.put(&FALLBACK_KEYS, &key, &FallbackKeyRow { used: true, ..row });
        let Ok(user_id) = UserId::parse(&key.user_id) else { continue };
        let device = DeviceKey { user_id: key.user_id, device_id: key.device_id };
        counts_change(&mut batch, interner, &user_id, &device);
    }
    Ok(Step { batch, told: Vec::new(), next })
}

fn mark_users(
    reader: &Reader<'_>,
    interner: Interner,
    after: Option<&String>,
) -> Result<Step<String>, kv::Error> {
    let (rows, next) = page(reader, &DEVICE_LISTS, after)?;
    let mut batch = Batch::new();
    let mut told = Vec::new();
    for (user, _) in rows {
        let Ok(user_id) = UserId::parse(&user) else { continue };
        told.push(mark(reader, &mut batch, interner, &user_id)?);
    }
    Ok(Step { batch, told, next })
}

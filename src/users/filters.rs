//! Stored filters: what clients give to `/sync` by number.
//!
//! The same content has the same number. Only so many are kept for each user; the oldest makes
//! room, and a client whose filter is gone stores it again. Numbers are not given twice, so what a
//! number stands for may stay in memory.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#filtering>

use std::sync::Arc;

use kv::{Batch, Direction, Reader, Store};
use quick_cache::{Weighter, sync::Cache};
use ruma::{OwnedUserId, UInt, UserId, api::client::filter::FilterDefinition};

use super::{
    accounts::{ATTEMPTS, busy, commit},
    secret,
};
use crate::{
    config::Config,
    error::ApiError,
    storage::schema::users::{FILTERS, FILTERS_BY_HASH, FilterHashKey, FilterKey},
};

/// How many bytes of filters are kept in memory, by [`StoredFilter::weight`].
pub(crate) const CACHE_BYTES_MAX: u64 = 16 << 20;

/// How many filters of a common size that is.
pub(crate) const CACHE_ITEMS: usize = 4_096;

/// The most things of one kind that a filter asks for.
const LIMIT_MAX: u32 = 1_000;

/// Stores filters and finds them.
#[derive(Clone)]
pub struct Filters(Arc<Parts>);

struct Parts {
    store: Store,
    size_bytes_max: usize,
    count_max: usize,
    cache: Cache<(OwnedUserId, u32), Arc<StoredFilter>, Weight>,
}

/// A filter as it is stored.
#[derive(Clone, Debug)]
pub struct StoredFilter {
    /// What it says.
    pub definition: FilterDefinition,
    json_bytes: usize,
}

impl StoredFilter {
    /// About how many bytes it takes in memory, parsed or compiled.
    pub fn weight(&self) -> u64 {
        // The shortest strings of a list take twelve times their JSON.
        12 * self.json_bytes as u64 + 2_048
    }
}

#[derive(Clone)]
struct Weight;

impl Weighter<(OwnedUserId, u32), Arc<StoredFilter>> for Weight {
    fn weight(&self, _: &(OwnedUserId, u32), filter: &Arc<StoredFilter>) -> u64 {
        filter.weight()
    }
}

/// What is read before a filter is stored.
enum Before {
    /// The same filter is stored already.
    Known(u32),
    /// The next number, and what makes room.
    New { next: u32, evicted: Vec<(FilterKey, Vec<u8>)> },
}

impl Filters {
    pub(super) fn new(store: Store, config: &Config) -> Self {
        let limits = &config.limits;
        Self(Arc::new(Parts {
            store,
            size_bytes_max: limits.filter_size_bytes_max,
            count_max: limits.filters_per_user_max.max(1),
            cache: Cache::with_weighter(CACHE_ITEMS, CACHE_BYTES_MAX, Weight),
        }))
    }

    /// Stores a filter; gives its number.
    pub async fn create(
        &self,
        user_id: &UserId,
        mut filter: FilterDefinition,
    ) -> Result<String, ApiError> {
        Self::clamp(&mut filter);
        let json = serde_json::to_vec(&filter).map_err(ApiError::internal)?;
        if json.len() > self.0.size_bytes_max {
            return Err(ApiError::too_large("The filter is too large"));
        }
        let hash = FilterHashKey { user_id: user_id.to_string(), hash: secret::hash(&json) };
        for _ in 0..ATTEMPTS {
            let (key, count_max) = (hash.clone(), self.0.count_max);
            let before = self.0.store.read(move |reader| before(reader, &key, count_max));
            let (next, evicted) = match before.await? {
                Before::Known(number) => return Ok(number.to_string()),
                Before::New { next, evicted } => (next, evicted),
            };
            let mut batch = Batch::new();
            let key = FilterKey { user_id: user_id.to_string(), filter: next };
            batch.check_absent(&FILTERS, &key);
            batch.put(&FILTERS, &key, &json);
            batch.put(&FILTERS_BY_HASH, &hash, &next);
            for (key, json) in evicted {
                let hash = secret::hash(&json);
                batch.delete(&FILTERS, &key);
                let user_id = key.user_id;
                batch.delete(&FILTERS_BY_HASH, &FilterHashKey { user_id, hash });
            }
            if commit(&self.0.store, batch).await?.is_some() {
                return Ok(next.to_string());
            }
        }
        Err(busy())
    }

    /// The filter with this number.
    pub async fn get(
        &self,
        user_id: &UserId,
        number: &str,
    ) -> Result<Option<Arc<StoredFilter>>, ApiError> {
        let Ok(filter) = number.parse::<u32>() else { return Ok(None) };
        let cached = (user_id.to_owned(), filter);
        if let Some(filter) = self.0.cache.get(&cached) {
            return Ok(Some(filter));
        }
        let key = FilterKey { user_id: user_id.to_string(), filter };
        let json = self.0.store.read(move |reader| reader.get(&FILTERS, &key)).await?;
        let Some(json) = json else { return Ok(None) };
        let definition = serde_json::from_slice(&json).map_err(ApiError::internal)?;
        let filter = Arc::new(StoredFilter { definition, json_bytes: json.len() });
        self.0.cache.insert(cached, Arc::clone(&filter));
        Ok(Some(filter))
    }

    /// Lowers the limits of a filter to those of the server.
    fn clamp(filter: &mut FilterDefinition) {
        let max = UInt::from(LIMIT_MAX);
        let room = &mut filter.room;
        for limit in [
            &mut room.timeline.limit,
            &mut room.state.limit,
            &mut room.ephemeral.limit,
            &mut room.account_data.limit,
            &mut filter.presence.limit,
            &mut filter.account_data.limit,
        ] {
            *limit = limit.map(|limit| limit.min(max));
        }
    }
}

fn before(
    reader: &Reader<'_>,
    hash: &FilterHashKey,
    count_max: usize,
) -> Result<Before, kv::Error> {
    if let Some(number) = reader.get(&FILTERS_BY_HASH, hash)? {
        return Ok(Before::Known(number));
    }
    let range = FILTERS.prefix(&hash.user_id);
    let mut newest = None;
    let mut count = 0;
    reader.for_each(&FILTERS, &range, Direction::Backward, |key: FilterKey, _| {
        newest = newest.max(Some(key.filter));
        count += 1;
        std::ops::ControlFlow::Continue(())
    })?;
    let beyond = (count + 1_usize).saturating_sub(count_max);
    let evicted = match beyond {
        0 => Vec::new(),
        beyond => reader.scan(&FILTERS, &range, Direction::Forward, beyond)?,
    };
    Ok(Before::New { next: newest.map_or(0, |newest| newest + 1), evicted })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_filters_do_not_fill_the_memory() {
        let cache = Cache::with_weighter(CACHE_ITEMS, CACHE_BYTES_MAX, Weight);
        let user_id = ruma::user_id!("@alice:hs1").to_owned();
        let filter = StoredFilter { definition: FilterDefinition::default(), json_bytes: 64 << 10 };
        let filter = Arc::new(filter);
        for number in 0..1_000 {
            cache.insert((user_id.clone(), number), Arc::clone(&filter));
        }
        assert!(cache.weight() <= CACHE_BYTES_MAX);
        assert!(cache.len() < 30);
    }
}

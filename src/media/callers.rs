//! For whom files of other servers are fetched, and how many and how much at once.
//!
//! Two things are counted for each user and for each address: the fetches of this moment, and bytes
//! over time. A fetch holds its places until it ends, also when those who asked have hung up; what is
//! over waits for a place, so that a client may ask for all pictures of a page at once.
//!
//! Attack case T110.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use ruma::OwnedUserId;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use crate::{config::Config, error::ApiError, http::RateLimiter};

/// How many files are fetched at once for all callers together.
const FETCHES_MAX: usize = 64;
/// How many more may wait, for each that may run.
const WAITING_PER_FETCH: usize = 16;
/// When to come again where too many wait.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// What a fetch counts for at least, in bytes: asking for what is not there is no free work either.
const FETCH_BYTES_MIN: u64 = 4_096;

/// Who has a file of another server fetched.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The user.
    pub user_id: OwnedUserId,
    /// Where they are, as limits count it.
    pub address: IpAddr,
    /// Whether the limits of one user and of one address hold for them.
    pub is_limited: bool,
}

impl Caller {
    fn limited(&self) -> Vec<Limited> {
        if !self.is_limited {
            return Vec::new();
        }
        vec![Limited::User(self.user_id.clone()), Limited::Address(self.address)]
    }
}

/// What is limited by itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Limited {
    User(OwnedUserId),
    Address(IpAddr),
    /// All that this server fetches.
    Everybody,
}

/// All callers.
pub(super) struct Callers {
    bytes: RateLimiter,
    fetches_max: usize,
    /// The places of those who fetch or wait at the moment.
    places: Mutex<HashMap<Limited, Arc<Semaphore>>>,
}

impl Callers {
    pub(super) fn new(config: &Config) -> Self {
        let limits = &config.rate_limits;
        let bytes = RateLimiter::of(limits, "remote_media_bytes", &limits.remote_media_bytes);
        let fetches_max = config.media.remote_fetches_max.clamp(1, Semaphore::MAX_PERMITS / 32);
        Self { bytes, fetches_max, places: Mutex::default() }
    }

    /// Waits for a place to fetch, at most until then.
    pub(super) async fn enter(
        self: &Arc<Self>,
        caller: &Caller,
        deadline: Instant,
    ) -> Result<Vec<Place>, ApiError> {
        let mut places = Vec::new();
        // Always in this order, so that none wait for each other.
        for limited in caller.limited() {
            places.push(self.place(limited, self.fetches_max, deadline).await?);
        }
        places.push(self.place(Limited::Everybody, FETCHES_MAX, deadline).await?);
        Ok(places)
    }

    async fn place(
        self: &Arc<Self>,
        limited: Limited,
        fetches_max: usize,
        deadline: Instant,
    ) -> Result<Place, ApiError> {
        let (mut place, semaphore) = {
            let mut places = self.places.lock();
            let semaphore = places
                .entry(limited.clone())
                .or_insert_with(|| Arc::new(Semaphore::new(fetches_max)));
            // Each that runs or waits holds it once, and the map does.
            if Arc::strong_count(semaphore) > fetches_max * (1 + WAITING_PER_FETCH) {
                return Err(too_many());
            }
            let place = Place { callers: self.clone(), limited, permit: None };
            (place, semaphore.clone())
        };
        let permit = timeout_at(deadline, semaphore.acquire_owned()).await;
        let permit = permit.map_err(|_| too_many())?;
        place.permit = Some(permit.map_err(ApiError::internal)?);
        Ok(place)
    }

    /// Takes what a fetch counts for at least; `M_LIMIT_EXCEEDED` when the caller has no bytes left.
    pub(super) fn budget(self: &Arc<Self>, caller: &Caller) -> Result<Budget, ApiError> {
        let limited = caller.limited();
        let mut budget =
            Budget { callers: self.clone(), limited, reserved: 0, used: FETCH_BYTES_MIN };
        budget.reserve(FETCH_BYTES_MIN)?;
        Ok(budget)
    }
}

/// A place to fetch; free again when it goes.
pub(super) struct Place {
    callers: Arc<Callers>,
    limited: Limited,
    permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.permit = None;
        let mut places = self.callers.places.lock();
        if places.get(&self.limited).is_some_and(|semaphore| Arc::strong_count(semaphore) == 1) {
            places.remove(&self.limited);
        }
    }
}

/// The bytes of one fetch; what was reserved and not read is given back when it goes.
pub(super) struct Budget {
    callers: Arc<Callers>,
    limited: Vec<Limited>,
    reserved: u64,
    used: u64,
}

impl Budget {
    /// Reserves so many bytes for all of the fetch, or says when to come again.
    pub(super) fn reserve(&mut self, bytes: u64) -> Result<(), ApiError> {
        let more = bytes.saturating_sub(self.reserved);
        if more == 0 {
            return Ok(());
        }
        for (index, limited) in self.limited.iter().enumerate() {
            if let Err(mut error) = self.callers.bytes.check_many(limited, more) {
                for before in &self.limited[..index] {
                    self.callers.bytes.give_back(before, more);
                }
                error.message = "Too many bytes of other servers' files were fetched for you or \
                                 your address"
                    .into();
                return Err(error);
            }
        }
        self.reserved += more;
        Ok(())
    }

    /// Says that of the file so many bytes were read by now.
    pub(super) fn read(&mut self, bytes: u64) -> Result<(), ApiError> {
        self.used = self.used.max(bytes);
        self.reserve(bytes)
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        let unused = self.reserved.saturating_sub(self.used);
        for limited in &self.limited {
            self.callers.bytes.give_back(limited, unused);
        }
    }
}

fn too_many() -> ApiError {
    let mut error = ApiError::limit_exceeded(RETRY_AFTER);
    error.message =
        "Too many files of other servers are being fetched for you or your address".into();
    error
}

#[cfg(test)]
mod tests {
    use ruma::{owned_user_id, server_name};

    use super::*;
    use crate::config::RateLimit;

    fn callers(change: impl FnOnce(&mut Config)) -> Arc<Callers> {
        let mut config = Config::for_server(server_name!("example.org").to_owned());
        change(&mut config);
        Arc::new(Callers::new(&config))
    }

    fn caller(name: &str, last: u8) -> Caller {
        let user_id = OwnedUserId::try_from(format!("@{name}:example.org")).unwrap();
        Caller { user_id, address: IpAddr::from([203, 0, 113, last]), is_limited: true }
    }

    #[tokio::test]
    async fn t110_so_many_at_once_and_the_rest_waits() {
        let callers = callers(|config| config.media.remote_fetches_max = 2);
        let now = Instant::now();
        let alice = caller("alice", 1);
        let mut places = Vec::new();
        for _ in 0..2 {
            places.push(callers.enter(&alice, now).await.unwrap());
        }
        let error = callers.enter(&alice, now).await.err().unwrap();
        assert_eq!(error.errcode, "M_LIMIT_EXCEEDED");
        assert!(error.retry_after.is_some());
        // The address counts by itself, and so does the user.
        assert!(callers.enter(&caller("bob", 1), now).await.is_err());
        assert!(callers.enter(&caller("alice", 2), now).await.is_err());
        callers.enter(&caller("bob", 2), now).await.unwrap();
        callers.enter(&Caller { is_limited: false, ..alice.clone() }, now).await.unwrap();
        // A place that is left is taken by who waits.
        let later = now + Duration::from_hours(1);
        let waiting = tokio::spawn({
            let (callers, alice) = (callers.clone(), alice.clone());
            async move { callers.enter(&alice, later).await.map(|_| ()) }
        });
        tokio::task::yield_now().await;
        places.pop();
        waiting.await.unwrap().unwrap();
        // So many wait, and no more.
        places.push(callers.enter(&alice, now).await.unwrap());
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..2 * WAITING_PER_FETCH {
            let (callers, alice) = (callers.clone(), alice.clone());
            waiting.spawn(async move { callers.enter(&alice, later).await.map(|_| ()) });
        }
        tokio::task::yield_now().await;
        assert!(callers.enter(&alice, later).await.is_err());
        waiting.shutdown().await;
        drop(places);
        assert!(callers.places.lock().is_empty(), "nothing stays behind");
    }

    #[test]
    fn t110_bytes_are_counted_for_the_user_and_the_address() {
        let limit = RateLimit::new(0.001, 10_000);
        let callers = callers(|config| config.rate_limits.remote_media_bytes = limit);
        let mut budget = callers.budget(&caller("alice", 1)).unwrap();
        budget.reserve(9_000).unwrap();
        budget.read(5_000).unwrap();
        budget.read(9_500).unwrap();
        let error = budget.read(10_001).unwrap_err();
        assert_eq!(error.errcode, "M_LIMIT_EXCEEDED");
        drop(budget);
        assert!(callers.budget(&caller("alice", 2)).is_err());
        assert!(callers.budget(&caller("bob", 1)).is_err());
        let unlimited = Caller {
            user_id: owned_user_id!("@alice:example.org"),
            address: IpAddr::from([203, 0, 113, 1]),
            is_limited: false,
        };
        callers.budget(&unlimited).unwrap().reserve(1_000_000).unwrap();
        // What was not read is given back, but for the least; refused by one, nothing is taken
        // from the other.
        let mut budget = callers.budget(&caller("bob", 2)).unwrap();
        budget.reserve(10_000).unwrap();
        drop(budget);
        callers.budget(&caller("bob", 2)).unwrap().reserve(5_904).unwrap();
        assert!(callers.budget(&caller("carol", 1)).is_err());
        callers.budget(&caller("carol", 3)).unwrap().reserve(10_000).unwrap();
    }
}

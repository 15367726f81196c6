//! Rate limits by key: a token bucket for each, in bounded memory. What is counted are uses, or
//! bytes.
//!
//! A bucket is one number, the time at which it is full again (the generic cell rate algorithm).
//! Keys are kept as hashes with a secret of the process, in two generations: when the younger one
//! is full, or so old that the buckets of the older have refilled, the older is dropped.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    config::{RateLimit, RateLimitsConfig},
    error::ApiError,
};

/// The most buckets in one generation; 16 bytes each.
const BUCKETS_MAX: usize = 1 << 16;

/// Uses that were refused, by the name of the limit in the configuration.
const REFUSALS_TOTAL: &str = "rate_limit_refusals_total";

/// Slower than once in a hundred days is no rate.
const INTERVAL_MAX: Duration = Duration::from_hours(100 * 24);

/// Limits how often something may be done, for each key by itself.
pub struct RateLimiter {
    /// Its name among the figures; empty: refusals are not counted.
    name: &'static str,
    /// How long one use takes to refill; zero: there is no limit.
    interval_ns: u64,
    /// How far ahead of now a bucket may be used.
    burst_ns: u64,
    start: Instant,
    hasher: RandomState,
    buckets: Mutex<Buckets>,
}

/// When each bucket is full again, in nanoseconds after the limiter's start.
#[derive(Default)]
struct Buckets {
    young: HashMap<u64, u64>,
    old: HashMap<u64, u64>,
    /// When the young generation began.
    since_ns: u64,
}

impl RateLimiter {
    /// `burst` uses at once, refilled at `per_second`. Nothing is limited where the rate is not a
    /// positive number.
    pub fn new(per_second: f64, burst: u32) -> Self {
        let limited = per_second.is_finite() && per_second > 0.0;
        let interval = if limited {
            Duration::try_from_secs_f64(1.0 / per_second).unwrap_or(INTERVAL_MAX).min(INTERVAL_MAX)
        } else {
            Duration::ZERO
        };
        let interval_ns = nanoseconds(interval);
        Self {
            name: "",
            interval_ns,
            burst_ns: interval_ns.saturating_mul(u64::from(burst.max(1))),
            start: Instant::now(),
            hasher: RandomState::new(),
            buckets: Mutex::default(),
        }
    }

    /// As the configuration has it, which may turn all limits off. What is refused is counted under
    /// the name.
    pub fn of(config: &RateLimitsConfig, name: &'static str, limit: &RateLimit) -> Self {
        if !config.enabled {
            return Self::unlimited();
        }
        Self { name, ..Self::new(limit.per_second, limit.burst) }
    }

    /// A limiter that refuses nothing.
    pub fn unlimited() -> Self {
        Self::new(f64::INFINITY, 1)
    }

    /// Uses the key once; `M_LIMIT_EXCEEDED` with the time to wait when its bucket is empty.
    pub fn check(&self, key: impl Hash) -> Result<(), ApiError> {
        self.check_at(key, Instant::now())
    }

    /// [`RateLimiter::check`] at a given time.
    pub fn check_at(&self, key: impl Hash, now: Instant) -> Result<(), ApiError> {
        self.decide(key, now, (1, true))
    }

    /// Uses the key so often at once. More than the burst counts as the whole of it: it passes when
    /// the bucket is full.
    pub fn check_many(&self, key: impl Hash, uses: u64) -> Result<(), ApiError> {
        self.check_many_at(key, uses, Instant::now())
    }

    /// [`RateLimiter::check_many`] at a given time.
    pub fn check_many_at(&self, key: impl Hash, uses: u64, now: Instant) -> Result<(), ApiError> {
        if uses == 0 { Ok(()) } else { self.decide(key, now, (uses, true)) }
    }

    /// Takes back uses that were not needed after all.
    pub fn give_back(&self, key: impl Hash, uses: u64) {
        if self.interval_ns == 0 || uses == 0 {
            return;
        }
        let key = self.hasher.hash_one(key);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let given_ns = self.interval_ns.saturating_mul(uses).min(self.burst_ns);
        let full_at = buckets.full_at(key).saturating_sub(given_ns);
        buckets.young.insert(key, full_at);
    }

    /// Whether the key could be used, without using it: for what only counts when it fails.
    pub fn peek(&self, key: impl Hash) -> Result<(), ApiError> {
        self.decide(key, Instant::now(), (1, false))
    }

    fn decide(
        &self,
        key: impl Hash,
        now: Instant,
        (uses, takes): (u64, bool),
    ) -> Result<(), ApiError> {
        let decision = self.take(key, now, (uses, takes));
        if decision.is_err() && !self.name.is_empty() {
            metrics::counter!(REFUSALS_TOTAL, "limit" => self.name).increment(1);
        }
        decision.map_err(ApiError::limit_exceeded)
    }

    /// Uses the key, or tells how long it is until it can be used.
    fn take(
        &self,
        key: impl Hash,
        now: Instant,
        (uses, takes): (u64, bool),
    ) -> Result<(), Duration> {
        if self.interval_ns == 0 {
            return Ok(());
        }
        let now_ns = nanoseconds(now.saturating_duration_since(self.start));
        let key = self.hasher.hash_one(key);
        // A poisoned map is whole: no step between two of its changes can panic.
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.rotate(now_ns, self.burst_ns);
        let taken_ns = self.interval_ns.saturating_mul(uses).min(self.burst_ns);
        let full_at = buckets.full_at(key).max(now_ns).saturating_add(taken_ns);
        let ahead = full_at - now_ns;
        if ahead > self.burst_ns {
            return Err(Duration::from_nanos(ahead - self.burst_ns));
        }
        if takes {
            buckets.young.insert(key, full_at);
        }
        Ok(())
    }
}

impl Buckets {
    fn full_at(&self, key: u64) -> u64 {
        let full_at = self.young.get(&key).or_else(|| self.old.get(&key));
        full_at.copied().unwrap_or_default()
    }

    /// Drops the old generation when the young one is full, or when all of the old is full again.
    fn rotate(&mut self, now_ns: u64, burst_ns: u64) {
        let stale = now_ns.saturating_sub(self.since_ns) > burst_ns;
        if self.young.len() >= BUCKETS_MAX || (stale && !self.young.is_empty()) {
            self.old = std::mem::take(&mut self.young);
            self.since_ns = now_ns;
        } else if stale && !self.old.is_empty() {
            self.old = HashMap::new();
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn t71_a_burst_passes_and_then_the_rate_counts() {
        let limiter = RateLimiter::new(0.5, 3);
        let now = Instant::now() + Duration::from_secs(1);
        for _ in 0..3 {
            limiter.check_at("alice", now).unwrap();
        }
        let error = limiter.check_at("alice", now).unwrap_err();
        assert_eq!(error.errcode, "M_LIMIT_EXCEEDED");
        assert_eq!(error.retry_after, Some(Duration::from_secs(2)));
        // Another key has its own bucket, and refusals cost nothing.
        limiter.check_at("bob", now).unwrap();
        assert!(limiter.check_at("alice", now + Duration::from_millis(1999)).is_err());
        limiter.check_at("alice", now + Duration::from_secs(2)).unwrap();
        assert!(limiter.check_at("alice", now + Duration::from_secs(2)).is_err());
    }

    #[test]
    fn several_uses_at_once_count_as_so_many() {
        let limiter = RateLimiter::new(2.0, 10);
        let now = Instant::now() + Duration::from_secs(1);
        limiter.check_many_at("alice", 0, now).unwrap();
        limiter.check_many_at("alice", 4, now).unwrap();
        let error = limiter.check_many_at("alice", 8, now).unwrap_err();
        assert_eq!(error.retry_after, Some(Duration::from_secs(1)));
        limiter.check_many_at("alice", 6, now).unwrap();
        // What is more than all passes when all is there, and takes all.
        let error = limiter.check_many_at("alice", 1_000, now).unwrap_err();
        assert_eq!(error.retry_after, Some(Duration::from_secs(5)));
        limiter.check_many_at("alice", u64::MAX, now + Duration::from_secs(5)).unwrap();
        assert!(limiter.check_at("alice", now + Duration::from_secs(5)).is_err());
    }

    #[test]
    fn what_is_refused_is_counted_by_its_name() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let figures = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            let config = RateLimitsConfig::default();
            let limiter = RateLimiter::of(&config, "reports", &RateLimit::new(0.001, 1));
            limiter.check("alice").unwrap();
            limiter.check("alice").unwrap_err();
            limiter.peek("alice").unwrap_err();
        });
        let line = format!("{REFUSALS_TOTAL}{{limit=\"reports\"}} 2");
        assert!(figures.render().contains(&line), "{}", figures.render());
    }

    #[test]
    fn peeking_uses_nothing() {
        let limiter = RateLimiter::new(0.001, 1);
        limiter.peek("alice").unwrap();
        limiter.peek("alice").unwrap();
        limiter.check("alice").unwrap();
        assert!(limiter.peek("alice").is_err());
    }

    #[test]
    fn t98_a_million_keys_stay_bounded() {
        let limiter = RateLimiter::new(0.01, 3);
        let now = Instant::now();
        for key in 0..1_000_000 {
            limiter.check_at(key, now).unwrap();
        }
        let buckets = limiter.buckets.lock().unwrap();
        assert!(buckets.young.len() + buckets.old.len() <= 2 * BUCKETS_MAX);
    }

    #[test]
    fn what_has_refilled_is_forgotten() {
        let limiter = RateLimiter::new(1.0, 2);
        let now = Instant::now();
        limiter.check_at("alice", now).unwrap();
        limiter.check_at("bob", now + Duration::from_secs(10)).unwrap();
        limiter.check_at("bob", now + Duration::from_secs(20)).unwrap();
        let buckets = limiter.buckets.lock().unwrap();
        assert_eq!(buckets.young.len() + buckets.old.len(), 2);
        assert!(!buckets.young.contains_key(&limiter.hasher.hash_one("alice")));
    }

    #[test]
    fn odd_rates_limit_nothing_or_do_not_overflow() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let limiter = RateLimiter::new(rate, 0);
            (0..100).for_each(|_| limiter.check("alice").unwrap());
        }
        let limiter = RateLimiter::new(f64::MIN_POSITIVE, u32::MAX);
        limiter.check("alice").unwrap();
    }
}

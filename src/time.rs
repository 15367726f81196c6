//! The clock: the only place where the time of day is read.
//!
//! A [`Clock`] is passed to whatever needs the time, so that a test can hold it still and move it.
//! The wall clock is for `origin_server_ts`, the validity of keys and retention; how long something
//! took or may take comes from [`Clock::monotonic`], which no change of the system's time moves.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use ruma::{MilliSecondsSinceUnixEpoch, UInt};

/// Tells the time; cheap to clone, and clones of a manual clock move together.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System { started: Instant },
    Manual(Arc<ManualClock>),
}

/// Both are in milliseconds.
#[derive(Debug)]
struct ManualClock {
    wall: AtomicU64,
    monotonic: AtomicU64,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Source::System { started: Instant::now() })
    }

    /// A clock that stands at `start` until a test moves it.
    pub fn manual(start: MilliSecondsSinceUnixEpoch) -> Self {
        let wall = AtomicU64::new(start.get().into());
        Self(Source::Manual(Arc::new(ManualClock { wall, monotonic: AtomicU64::new(0) })))
    }

    /// The time of day. It may jump, also backwards.
    pub fn now(&self) -> MilliSecondsSinceUnixEpoch {
        let milliseconds = match &self.0 {
            Source::System { .. } => system_milliseconds(),
            Source::Manual(manual) => manual.wall.load(Ordering::SeqCst),
        };
        MilliSecondsSinceUnixEpoch(UInt::new_saturating(milliseconds))
    }

    /// The time since this clock was made. It never goes backwards.
    pub fn monotonic(&self) -> Duration {
        match &self.0 {
            Source::System { started } => started.elapsed(),
            Source::Manual(manual) => {
                Duration::from_millis(manual.monotonic.load(Ordering::SeqCst))
            }
        }
    }

    /// Lets time pass on a manual clock; the machine's clock takes no orders and ignores it.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(manual) = &self.0 {
            let milliseconds = whole_milliseconds(by);
            manual.wall.fetch_add(milliseconds, Ordering::SeqCst);
            manual.monotonic.fetch_add(milliseconds, Ordering::SeqCst);
        }
    }

    /// Sets the time of day of a manual clock, as an operator or NTP would: no time passes.
    pub fn set(&self, now: MilliSecondsSinceUnixEpoch) {
        if let Source::Manual(manual) = &self.0 {
            manual.wall.store(now.get().into(), Ordering::SeqCst);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the clock that is passed around")]
fn system_milliseconds() -> u64 {
    // A machine without a battery may start before 1970 was over; that is the beginning of time.
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, whole_milliseconds)
}

fn whole_milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u32) -> MilliSecondsSinceUnixEpoch {
        MilliSecondsSinceUnixEpoch(milliseconds.into())
    }

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = Clock::manual(at(1_000));
        let clone = clock.clone();
        assert_eq!((clone.now(), clone.monotonic()), (at(1_000), Duration::ZERO));
        clock.advance(Duration::from_millis(250));
        assert_eq!((clone.now(), clone.monotonic()), (at(1_250), Duration::from_millis(250)));
    }

    #[test]
    fn a_jump_of_the_wall_clock_does_not_touch_durations() {
        let clock = Clock::manual(at(5_000));
        clock.set(at(1));
        assert_eq!((clock.now(), clock.monotonic()), (at(1), Duration::ZERO));
    }

    #[test]
    fn the_system_clock_is_later_than_this_test() {
        let year_2026 = 1_767_225_600_000_u64;
        let clock = Clock::system();
        assert!(u64::from(clock.now().get()) > year_2026);
        clock.advance(Duration::from_hours(1));
        assert!(clock.monotonic() < Duration::from_mins(1));
    }
}

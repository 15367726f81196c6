//! Counts checks, printing those that fail as they happen.

use std::{fmt::Debug, time::Duration};

use tokio::time::{Instant, sleep};

/// How long a condition may take to come true.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
}

impl Tally {
    /// Counts one check; a false one is printed and the run goes on.
    pub(crate) fn check(&mut self, holds: bool, message: &str) {
        if holds {
            self.passed += 1;
        } else {
            self.failed += 1;
            println!("sdk: FAILED: {message}");
        }
    }

    /// Counts one check that two values are the same.
    pub(crate) fn equal<T: Debug + PartialEq>(&mut self, actual: &T, expected: &T, message: &str) {
        let holds = actual == expected;
        let detail = if holds { String::new() } else { format!(": {actual:?}, not {expected:?}") };
        self.check(holds, &format!("{message}{detail}"));
    }

    /// Waits until a condition holds, and counts whether it came true.
    pub(crate) async fn until<F>(&mut self, condition: impl Fn() -> F, message: &str)
    where
        F: Future<Output = bool>,
    {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if condition().await {
                return self.check(true, message);
            }
            sleep(Duration::from_millis(50)).await;
        }
        self.check(false, message);
    }
}

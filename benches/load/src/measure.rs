//! Figures from samples, and a stopwatch for the server's CPU.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::server::Process;

/// How fast one thing was done, and at what cost.
pub(crate) struct Rate {
    /// How often a second.
    pub(crate) per_second: f64,
    /// Half of them took no longer.
    pub(crate) p50: Duration,
    /// All but a hundredth of them took no longer.
    pub(crate) p99: Duration,
    /// What the server's process spent on each, if it is known.
    pub(crate) cpu: Option<Duration>,
}

/// Measures wall-clock time and the server's CPU from its start on.
pub(crate) struct Stopwatch {
    process: Option<Process>,
    begun: Instant,
    cpu: Option<Duration>,
}

impl Stopwatch {
    /// Starts.
    pub(crate) fn start(process: Option<Process>) -> Result<Self> {
        let cpu = process.map(Process::cpu).transpose()?;
        Ok(Self { process, begun: Instant::now(), cpu })
    }

    /// The time since the start, and the server's CPU in it.
    pub(crate) fn read(&self) -> Result<(Duration, Option<Duration>)> {
        let elapsed = self.begun.elapsed();
        let cpu = match (self.process, self.cpu) {
            (Some(process), Some(before)) => Some(process.cpu()?.saturating_sub(before)),
            _ => None,
        };
        Ok((elapsed, cpu))
    }

    /// The rate of what took `samples` since the start.
    pub(crate) fn rate(&self, mut samples: Vec<Duration>) -> Result<Rate> {
        let (elapsed, cpu) = self.read()?;
        samples.sort_unstable();
        Ok(Rate {
            per_second: float(samples.len()) / elapsed.as_secs_f64(),
            p50: percentile(&samples, 50),
            p99: percentile(&samples, 99),
            cpu: cpu.map(|cpu| each(cpu, samples.len())),
        })
    }
}

/// The share of one in so many.
pub(crate) fn each(whole: Duration, count: usize) -> Duration {
    whole / u32::try_from(count.max(1)).unwrap_or(u32::MAX)
}

/// The sample that so many percent are not above; `samples` are sorted.
pub(crate) fn percentile(samples: &[Duration], percent: usize) -> Duration {
    let index = samples.len() * percent / 100;
    samples.get(index).or(samples.last()).copied().unwrap_or_default()
}

/// A count as a number to divide.
pub(crate) fn float(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// A number of bytes as a number to divide; exact up to 4 GiB, and to a kilobyte above.
pub(crate) fn of_u64(bytes: u64) -> f64 {
    match u32::try_from(bytes) {
        Ok(bytes) => f64::from(bytes),
        Err(_) => f64::from(u32::try_from(bytes / 1024).unwrap_or(u32::MAX)) * 1024.0,
    }
}

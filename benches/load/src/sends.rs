//! How fast messages are acknowledged: each sender sends one after the other.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures::future;

use crate::{
    measure::{Rate, Stopwatch},
    people::{Channel, Person},
    server::Process,
};

/// What is sent before the measurement begins, as caches fill and connections warm up.
const WARM_UP: Duration = Duration::from_millis(500);

/// What a run of senders gives.
pub(crate) struct Outcome {
    /// The measured part.
    pub(crate) rate: Rate,
    /// How many messages were sent in all, the warm-up's too.
    pub(crate) total: usize,
}

/// Lets every sender send into the room at the same place of `rooms`, for so long.
pub(crate) async fn measure(
    senders: &mut [Person],
    rooms: &[Channel],
    duration: Duration,
    process: Option<Process>,
) -> Result<Outcome> {
    let warm_up = send_until(senders, rooms, Instant::now() + WARM_UP).await?.len();
    let stopwatch = Stopwatch::start(process)?;
    let samples = send_until(senders, rooms, Instant::now() + duration).await?;
    let total = warm_up + samples.len();
    Ok(Outcome { rate: stopwatch.rate(samples)?, total })
}

async fn send_until(
    senders: &mut [Person],
    rooms: &[Channel],
    end: Instant,
) -> Result<Vec<Duration>> {
    let each = senders.iter_mut().zip(rooms).map(async |(sender, room)| {
        let mut samples = Vec::new();
        while Instant::now() < end {
            let begun = Instant::now();
            sender.send(room).await?;
            samples.push(begun.elapsed());
        }
        anyhow::Ok(samples)
    });
    Ok(future::try_join_all(each).await?.concat())
}

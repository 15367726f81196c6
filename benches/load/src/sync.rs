//! How soon and at what cost `/sync` tells what is new, or that nothing is.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::future;

use crate::{
    measure::{Rate, Stopwatch, each},
    people::{Channel, Person},
    server::Process,
};

/// Longer than any round takes, so that only the message ends the wait.
const TIMEOUT_MS: u32 = 30_000;

/// How long the server gets to park all waiting requests before a message is sent.
const SETTLE: Duration = Duration::from_millis(150);

/// What it takes to tell all waiting clients of one message.
pub(crate) struct Delivery {
    /// From the request to send to the last byte at the last client, one sample a round, sorted.
    pub(crate) last: Vec<Duration>,
    /// The same to the last byte at the client in the middle.
    pub(crate) middle: Vec<Duration>,
    /// The server's CPU for each waiting client: the wake-up, the answer, and the next request.
    pub(crate) cpu: Option<Duration>,
    /// The bytes of one answer.
    pub(crate) answer_bytes: usize,
    /// How many messages were sent.
    pub(crate) sent: usize,
}

/// Sends messages one by one to clients that all wait for it.
pub(crate) async fn deliver(
    sender: &mut Person,
    waiters: &mut [Person],
    room: &Channel,
    rounds: usize,
    process: Option<Process>,
) -> Result<Delivery> {
    for waiter in &mut *waiters {
        waiter.catch_up().await?;
    }
    // One round that is not measured: receipts and the like of the set-up are then through.
    round(sender, waiters, room).await?;
    let stopwatch = Stopwatch::start(process)?;
    let (mut last, mut middle, mut answer_bytes) = (Vec::new(), Vec::new(), 0);
    for _ in 0..rounds {
        let round = round(sender, waiters, room).await?;
        middle.push(round.delays[round.delays.len() / 2]);
        last.extend(round.delays.last());
        answer_bytes = round.answer_bytes;
    }
    let (_, cpu) = stopwatch.read()?;
    last.sort_unstable();
    middle.sort_unstable();
    let cpu = cpu.map(|cpu| each(cpu, rounds * waiters.len()));
    Ok(Delivery { last, middle, cpu, answer_bytes, sent: rounds + 1 })
}

struct Round {
    /// How long each client waited for its last byte, sorted.
    delays: Vec<Duration>,
    answer_bytes: usize,
}

async fn round(sender: &mut Person, waiters: &mut [Person], room: &Channel) -> Result<Round> {
    let waiting = future::try_join_all(waiters.iter_mut().map(async |waiter| {
        let mut answer = waiter.sync(TIMEOUT_MS).await?;
        // A server may also wake a client for what its filter then hides.
        while !brings_message(&answer) {
            answer = waiter.sync(TIMEOUT_MS).await?;
        }
        anyhow::Ok((Instant::now(), answer.len()))
    }));
    let sending = async {
        tokio::time::sleep(SETTLE).await;
        let begun = Instant::now();
        sender.send(room).await?;
        anyhow::Ok(begun)
    };
    let (answers, begun) = future::try_join(waiting, sending).await?;
    ensure!(answers.iter().all(|(at, _)| *at > begun), "a waiting client was told something else");
    let mut delays: Vec<_> = answers.iter().map(|(at, _)| at.duration_since(begun)).collect();
    delays.sort_unstable();
    Ok(Round { delays, answer_bytes: answers.first().map_or(0, |(_, length)| *length) })
}

fn brings_message(answer: &[u8]) -> bool {
    const TYPE: &[u8] = b"m.room.message";
    answer.windows(TYPE.len()).any(|window| window == TYPE)
}

/// Asks again and again, without waiting, when there is nothing new.
pub(crate) async fn idle(
    person: &mut Person,
    duration: Duration,
    process: Option<Process>,
) -> Result<Rate> {
    person.catch_up().await?;
    let stopwatch = Stopwatch::start(process)?;
    let end = Instant::now() + duration;
    let mut samples = Vec::new();
    while Instant::now() < end {
        let begun = Instant::now();
        person.sync(0).await?;
        samples.push(begun.elapsed());
    }
    stopwatch.rate(samples)
}

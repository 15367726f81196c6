//! Many connections that wait: what each of them costs in memory.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use hyper::Method;
use tokio::task::JoinSet;

use crate::{
    client::Client,
    people::{self, Person},
    server::Process,
};

/// How many polls one device may have open.
const POLLS_PER_DEVICE: usize = 4;
/// How many connections are opened at once.
const AT_ONCE: usize = 64;

/// The memory that each of so many idle long polls takes, by the resident memory before and after.
pub(crate) async fn idle_polls(
    address: SocketAddr,
    count: usize,
    process: Process,
) -> Result<(u64, u64)> {
    let mut people = people::register(address, count.div_ceil(POLLS_PER_DEVICE)).await?;
    for person in &mut people {
        person.catch_up().await?;
    }
    // What the set-up took and gave back is not the polls'.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = process.resident_bytes()?;
    let requests: Vec<_> = people
        .iter()
        .flat_map(|person| vec![waiting(person); POLLS_PER_DEVICE])
        .take(count)
        .collect();
    // The server takes so many connections and no more, and ends those that ask nothing.
    drop(people);
    let mut opened = stream::iter(requests)
        .map(|(token, path)| async move {
            let mut client = Client::connect(address).await?;
            client.authenticate(&token);
            anyhow::Ok((client, path))
        })
        .buffer_unordered(AT_ONCE);
    let mut polls = JoinSet::new();
    while let Some((mut client, path)) = opened.try_next().await? {
        polls.spawn(async move { client.ask(Method::GET, &path, Bytes::new()).await });
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    if let Some(answer) = polls.join_next().now_or_never().flatten() {
        answer?.context("a poll that should wait")?;
        anyhow::bail!("a poll was answered at once");
    }
    let after = process.resident_bytes()?;
    polls.shutdown().await;
    Ok((before, after))
}

fn waiting(person: &Person) -> (String, String) {
    let token = person.token.trim_start_matches("Bearer ").to_owned();
    (token, person.poll_path(80_000))
}

//! How many synced batches a second one disk takes, by the number of writers at once.
//!
//! `cargo run -p kv --example commit_rate [DIRECTORY]`: the directory says which disk.
#![expect(clippy::print_stdout, reason = "a program that prints its result")]

use std::time::{Duration, Instant};

use kv::{Batch, ColumnFamily, Durability, EngineOptions, Position, Store, Table};

const ROWS: ColumnFamily = ColumnFamily {
    name: "rows",
    index: 0,
    block_size_bytes: 8192,
    dense: false,
    point_lookups: false,
};
const EVENTS: Table<Position, Vec<u8>> = Table::new("events", ROWS, 1, "commit_rate");
const INDEX: Table<(u64, Position), Position> = Table::new("index", ROWS, 2, "commit_rate");

/// About what an event is: its bytes and eight rows that lead to it.
fn event(writer: u64) -> Batch {
    let mut batch = Batch::new();
    batch.put(&EVENTS, &Position::pending(0), &vec![b'e'; 780]);
    for index in 0..8 {
        batch.put(&INDEX, &(index * 1000 + writer, Position::pending(0)), &Position::pending(0));
    }
    batch
}

async fn write(store: Store, writer: u64, until: Instant) -> Vec<Duration> {
    let mut taken = Vec::new();
    while Instant::now() < until {
        let start = Instant::now();
        store.commit(event(writer), Durability::Synced).await.expect("the disk works");
        taken.push(start.elapsed());
    }
    taken
}

fn main() {
    let parent = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let directory = tempfile::tempdir_in(parent).expect("a directory to write to");
    let store = Store::open(directory.path(), &[ROWS], &EngineOptions::default()).expect("opens");
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    println!("writers  batches/s  groups/s      p50      p99");
    for writers in [1, 8, 50] {
        let (before, start) = (store.counters(), Instant::now());
        let until = start + Duration::from_secs(4);
        let mut taken = runtime.block_on(async {
            let tasks: Vec<_> = (0..writers)
                .map(|writer| tokio::spawn(write(store.clone(), writer, until)))
                .collect();
            let mut taken = Vec::new();
            for task in tasks {
                taken.extend(task.await.expect("no writer panics"));
            }
            taken
        });
        let elapsed = start.elapsed().as_millis().max(1);
        let groups = u128::from(store.counters().groups - before.groups) * 1000 / elapsed;
        let batches = taken.len() as u128 * 1000 / elapsed;
        taken.sort_unstable();
        let (p50, p99) = (taken[taken.len() / 2], taken[taken.len() * 99 / 100]);
        println!("{writers:7}  {batches:9}  {groups:8}  {p50:>7.1?}  {p99:>7.1?}");
    }
}

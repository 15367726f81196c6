//! The load program: measures the real binary from outside, over loopback, as clients see it.
//!
//! `make bench` runs it on the release binary. It starts the server itself (through
//! `tests/causerie`, on fresh data), or takes one that runs (`--url`, and `--pid` for its CPU and
//! memory). It uses one thread, so that of two cores at least one is the server's.

#![expect(clippy::print_stdout, reason = "a program for a terminal")]

mod client;
mod crowd;
mod keys;
mod measure;
mod media;
mod members;
mod people;
mod reads;
mod report;
mod sends;
mod server;
mod sync;

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use clap::Parser;

use crate::{
    people::{Channel, Person},
    report::Report,
    server::{Process, Server},
};

/// Measures a Matrix homeserver from outside.
#[derive(Parser)]
struct Options {
    /// The binary to start.
    #[arg(long, required_unless_present = "url")]
    binary: Option<PathBuf>,
    /// A server that runs already, as `127.0.0.1:8008`; what needs a restart is left out.
    #[arg(long, conflicts_with = "binary")]
    url: Option<SocketAddr>,
    /// The process of that server, for its CPU and memory.
    #[arg(long, requires = "url")]
    pid: Option<u32>,
    /// How long each measurement of a rate runs.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// How many send at once.
    #[arg(long, default_value_t = 50)]
    senders: usize,
    /// How many wait in `/sync`.
    #[arg(long, default_value_t = 200)]
    waiters: usize,
    /// How many messages are delivered to the waiters.
    #[arg(long, default_value_t = 30)]
    deliveries: usize,
    /// How many idle long polls are opened at once; each takes two files of the limit of the
    /// process.
    #[arg(long, default_value_t = 10_000)]
    polls: usize,
    /// Measures only a part.
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// A further setting of the server.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Where the folder of the data is made, to measure a certain disk.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Leaves out what is measured without waiting for the disk.
    #[arg(long)]
    durable_only: bool,
    /// Where the figures are written as JSON too.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What can be measured by itself.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Part {
    /// What encryption asks for.
    Keys,
    /// What clients read, large files and idle polls.
    Reads,
    /// What a message costs in a room of many.
    Members,
}

impl Options {
    fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = Options::parse();
    let mut report = Report::new();
    match &options.binary {
        Some(_) => of_binary(&options, &mut report).await?,
        None => of_url(&options, &mut report).await?,
    }
    if let Some(path) = &options.json {
        fs::write(path, report.json()).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// All there is to measure, on servers of our own.
async fn of_binary(options: &Options, report: &mut Report) -> Result<()> {
    match options.only {
        Some(Part::Keys) => return of_keys(options, report).await,
        Some(Part::Reads) => return of_reads(options, report).await,
        Some(Part::Members) => return of_members(options, report).await,
        None => {}
    }
    of_keys(options, report).await?;
    of_reads(options, report).await?;
    of_members(options, report).await?;
    let mut server = Server::start(options, &[]).await?;
    report.section("start");
    report.figure("start-up on no data", server.ready.as_secs_f64() * 1_000.0, "ms");
    tokio::time::sleep(Duration::from_secs(1)).await;
    report.memory("resident idle", server.process.resident_bytes()?);

    report.section("durable");
    let mut load = Load::prepare(options, server.address).await?;
    load.sends(options, report, Some(server.process)).await?;
    report.section("sync");
    load.syncs(options, report, Some(server.process)).await?;
    report.section("after the load");
    report.memory("resident", server.process.resident_bytes()?);

    // A clean restart writes out what was in memory; a second stop shows what is left on disk.
    server.stop().await?;
    server.restart().await?;
    report.figure("start-up with data", server.ready.as_secs_f64() * 1_000.0, "ms");
    report.memory("resident", server.process.resident_bytes()?);
    server.stop().await?;
    let disk = server.disk_bytes()?;
    report.memory("on disk", disk);
    report.figure("events", measure::float(load.events), "");
    report.figure("disk per event", measure::of_u64(disk) / measure::float(load.events), "B");

    if !options.durable_only {
        report.section("unsynced");
        let mut server = Server::start(options, &["database.durable=false"]).await?;
        let mut load = Load::prepare(options, server.address).await?;
        load.sends(options, report, Some(server.process)).await?;
        server.stop().await?;
    }
    Ok(())
}

/// What encryption asks for, on a server of its own.
async fn of_keys(options: &Options, report: &mut Report) -> Result<()> {
    let settings = ["encryption.signed_device_keys_only=false"];
    let mut server = Server::start(options, &settings).await?;
    let process = Some(server.process);
    let world = keys::prepare(server.address).await?;
    let outcome = world.measure(options.duration(), process).await?;
    report.section(&format!("{} devices of {} users", keys::USERS * keys::DEVICES, keys::USERS));
    report.rate(&format!("query, {} KiB", outcome.query_bytes / 1024), &outcome.query);
    report.rate("claim of a key of each", &outcome.claim);
    report.rate("a message to each", &outcome.fan_out);
    report.memory("resident", server.process.resident_bytes()?);
    server.stop().await
}

/// What a message costs by the size of its room, on a server of its own.
async fn of_members(options: &Options, report: &mut Report) -> Result<()> {
    let server = members::Counted::start(options).await?;
    for members in members::MEMBERS {
        let (cost, filled) = server.cost(members).await?;
        report.section(&format!("a room of {members} members of this server"));
        report.figure("filled in", filled.as_secs_f64() * 1_000.0, "ms");
        report.rate("a message", &cost.rate);
        report.figure("written for each", cost.rows, "rows");
    }
    server.stop().await
}

/// What clients read, on a server of its own.
async fn of_reads(options: &Options, report: &mut Report) -> Result<()> {
    let large = ["media.upload_size_bytes_max=209715200"];
    let mut server = Server::start(options, &large).await?;
    let process = Some(server.process);
    let mut people = people::register(server.address, 17).await?;
    let rooms = reads::fill(&mut people).await?;
    let reader = &mut people[0];
    let duration = options.duration();
    let (count, each) = (reads::ROOMS, reads::MESSAGES);
    report.section(&format!("reads, {count} rooms of {each} messages"));
    let (rate, bytes) = reads::initial_sync(reader, duration, process).await?;
    report.rate(&format!("first sync, {} KiB", bytes / 1024), &rate);
    let (rate, bytes) = reads::first_window(reader, duration, process).await?;
    report.rate(&format!("first window, {} KiB", bytes / 1024), &rate);
    let (rate, _) = reads::page(reader, &rooms[0], duration, process).await?;
    report.rate("page of 50 messages", &rate);
    let (rate, _) = reads::search(reader, duration, process).await?;
    report.rate(&format!("search in {}", count * each), &rate);
    report.section("a file of 100 MiB");
    let outcome = media::measure(server.address, reader, server.process).await?;
    report.figure("up", outcome.upload.as_secs_f64() * 1_000.0, "ms");
    report.figure("down", outcome.download.as_secs_f64() * 1_000.0, "ms");
    report.memory("rise of resident", outcome.rise_bytes);
    report.section(&format!("{} idle polls", options.polls));
    let (before, after) = crowd::idle_polls(server.address, options.polls, server.process).await?;
    report.memory("resident", after);
    let each = measure::of_u64(after.saturating_sub(before)) / measure::float(options.polls);
    report.figure("each", each, "B");
    server.stop().await
}

/// What can be measured on a server that somebody else started.
async fn of_url(options: &Options, report: &mut Report) -> Result<()> {
    let address = options.url.context("no server")?;
    let process = options.pid.map(Process);
    report.section("sends");
    let mut load = Load::prepare(options, address).await?;
    load.sends(options, report, process).await?;
    report.section("sync");
    load.syncs(options, report, process).await?;
    if let Some(process) = process {
        report.section("after the load");
        report.memory("resident", process.resident_bytes()?);
    }
    Ok(())
}

/// The people and rooms that a server is measured with.
struct Load {
    senders: Vec<Person>,
    waiters: Vec<Person>,
    /// One room for each sender; the first sender is in all of them.
    own_rooms: Vec<Channel>,
    /// One room with all senders and all waiters in it.
    one_room: Channel,
    /// How many events the server has, as far as they are ours.
    events: usize,
}

impl Load {
    async fn prepare(options: &Options, address: SocketAddr) -> Result<Self> {
        let mut people = people::register(address, options.senders + options.waiters).await?;
        let waiters = people.split_off(options.senders);
        let mut senders = people;
        let mut own_rooms = Vec::new();
        for number in 0..senders.len() {
            let channel = senders[number].create_channel(&format!("channel {number}")).await?;
            if number > 0 {
                senders[0].join(&channel).await?;
            }
            own_rooms.push(channel);
        }
        let mut load = Self {
            events: senders.len() * (people::EVENTS_PER_CHANNEL + 1),
            senders,
            waiters,
            own_rooms,
            one_room: Channel::default(),
        };
        load.one_room = load.senders[0].create_channel("everybody").await?;
        for person in load.senders.iter_mut().skip(1).chain(&mut load.waiters) {
            person.join(&load.one_room).await?;
        }
        load.events += people::EVENTS_PER_CHANNEL + load.senders.len() + load.waiters.len();
        Ok(load)
    }

    async fn sends(
        &mut self,
        options: &Options,
        report: &mut Report,
        process: Option<Process>,
    ) -> Result<()> {
        let duration = options.duration();
        let count = self.senders.len();
        let one_room = vec![self.one_room.clone(); count];
        let runs = [
            ("1 sender".to_owned(), 1, &self.own_rooms),
            (format!("{count} senders in {count} rooms"), count, &self.own_rooms),
            (format!("{count} senders in 1 room"), count, &one_room),
        ];
        for (name, senders, rooms) in runs {
            let senders = &mut self.senders[..senders];
            let outcome = sends::measure(senders, rooms, duration, process).await?;
            self.events += outcome.total;
            report.rate(&name, &outcome.rate);
        }
        Ok(())
    }

    async fn syncs(
        &mut self,
        options: &Options,
        report: &mut Report,
        process: Option<Process>,
    ) -> Result<()> {
        let (sender, waiters) = (&mut self.senders[0], &mut self.waiters);
        let rounds = options.deliveries;
        let delivery = sync::deliver(sender, waiters, &self.one_room, rounds, process).await?;
        self.events += delivery.sent;
        report.delivery(waiters.len(), &delivery);
        let rooms = self.own_rooms.len() + 1;
        let idle = sync::idle(&mut self.waiters[0], options.duration(), process).await?;
        report.rate("empty sync, 1 room", &idle);
        let idle = sync::idle(&mut self.senders[0], options.duration(), process).await?;
        report.rate(&format!("empty sync, {rooms} rooms"), &idle);
        Ok(())
    }
}

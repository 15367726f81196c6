//! What a message costs in a room of few and of many users of this server: rows written, and CPU.
//!
//! The members are an application service's users, for theirs is the registration without a
//! password, and to hash 10,000 of those takes minutes. To a room they are members like others.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;

use crate::{
    Options,
    client::Client,
    measure::{Rate, Stopwatch, float, of_u64},
    people::{self, Channel, Person, quoted},
    server::Server,
};

/// How many members the small room and the large room have, its creator among them.
pub(crate) const MEMBERS: [usize; 2] = [10, 10_000];
/// How many messages are sent into each.
const MESSAGES: usize = 500;
/// How many members join at once.
const AT_ONCE: usize = 8;
/// How long nothing may be written until what is written in the background is taken to be done.
const QUIET: Duration = Duration::from_secs(2);
/// How long that may take.
const QUIET_PATIENCE: Duration = Duration::from_mins(2);

const TOKEN: &str = "members-of-the-load-program";
const REGISTRATION: &str = r#"
id: load
url: null
as_token: members-of-the-load-program
hs_token: never-used
sender_localpart: load-service
rate_limited: false
namespaces:
  users: [{ exclusive: true, regex: "@member-.*" }]
"#;

/// A server with the members' application service and its figures.
pub(crate) struct Counted {
    server: Server,
    metrics: SocketAddr,
    address: SocketAddr,
    // Read by the server when it starts.
    _folder: tempfile::TempDir,
}

/// What one message costs.
pub(crate) struct Cost {
    /// How fast it is acknowledged.
    pub(crate) rate: Rate,
    /// Rows written, what is written in the background among them.
    pub(crate) rows: f64,
}

impl Counted {
    /// Starts one.
    pub(crate) async fn start(options: &Options) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let registration = registration(folder.path())?;
        let metrics = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let settings = [
            format!("metrics.listener={metrics}"),
            format!("appservices.registrations=['{registration}']"),
        ];
        let settings: Vec<_> = settings.iter().map(String::as_str).collect();
        let server = Server::start(options, &settings).await?;
        Ok(Self { metrics, address: server.address, server, _folder: folder })
    }

    /// Ends it.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.server.stop().await
    }

    /// Fills a room up to so many members; what a message into it costs, and how long the joins took.
    pub(crate) async fn cost(&self, members: usize) -> Result<(Cost, Duration)> {
        let mut people = people::register(self.address, 1).await?;
        let sender = people.first_mut().context("nobody sends")?;
        let room = sender.create_channel(&format!("a room of {members}")).await?;
        let begun = Instant::now();
        self.fill(&room, members).await?;
        let filled = begun.elapsed();
        Ok((self.measure(sender, &room).await?, filled))
    }

    async fn fill(&self, room: &Channel, members: usize) -> Result<()> {
        let lanes = (0..AT_ONCE).map(|lane| async move {
            let mut client = Client::connect(self.address).await?;
            client.authenticate(TOKEN);
            for number in (1 + lane..members).step_by(AT_ONCE) {
                let name = format!("member-{members}-{number}");
                let kind = "m.login.application_service";
                let body = json!({ "type": kind, "username": name, "inhibit_login": true });
                client.post("/v3/register", &body).await?;
                let user = quoted(&format!("@{name}:localhost"));
                let path = format!("/v3/join/{}?user_id={user}", room.quoted_id);
                client.post(&path, &json!({})).await?;
            }
            anyhow::Ok(())
        });
        stream::iter(lanes).buffer_unordered(AT_ONCE).try_collect().await
    }

    async fn measure(&self, sender: &mut Person, room: &Channel) -> Result<Cost> {
        let before = self.quiet().await?;
        let stopwatch = Stopwatch::start(Some(self.server.process))?;
        let mut samples = Vec::with_capacity(MESSAGES);
        for _ in 0..MESSAGES {
            let begun = Instant::now();
            sender.send(room).await?;
            samples.push(begun.elapsed());
        }
        let rate = stopwatch.rate(samples)?;
        let rows = of_u64(self.quiet().await? - before) / float(MESSAGES);
        Ok(Cost { rate, rows })
    }

    /// How many rows were written when nothing more is.
    async fn quiet(&self) -> Result<u64> {
        let begun = Instant::now();
        let mut last = self.rows().await?;
        while begun.elapsed() < QUIET_PATIENCE {
            tokio::time::sleep(QUIET).await;
            let now = self.rows().await?;
            if now == last {
                return Ok(now);
            }
            last = now;
        }
        anyhow::bail!("the server writes without end")
    }

    async fn rows(&self) -> Result<u64> {
        let figures = Client::connect(self.metrics).await?.page("/metrics").await?;
        let line = figures.lines().find_map(|line| line.strip_prefix("database_puts_total "));
        Ok(line.context("no count of the rows written")?.parse()?)
    }
}

fn registration(folder: &Path) -> Result<String> {
    let path = folder.join("load.yaml");
    fs::write(&path, REGISTRATION)?;
    path.into_os_string().into_string().ok().context("a folder whose name is not text")
}

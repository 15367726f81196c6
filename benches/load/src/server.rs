//! The server as a process: started through `tests/causerie`, watched through `/proc`.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use hyper::{Method, StatusCode};
use tempfile::TempDir;

use crate::{Options, client::Client};

/// The one place that knows how the binary is started.
const LAUNCHER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/causerie");

const READY_TIME_MAX: Duration = Duration::from_secs(30);
const STOP_TIME_MAX: Duration = Duration::from_secs(30);

/// The kernel counts a process's CPU in hundredths of a second, on every architecture we build for.
const TICK: Duration = Duration::from_millis(10);

/// A server of our own on data of its own, gone when dropped.
pub(crate) struct Server {
    command: Command,
    child: Child,
    data: TempDir,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// What to watch.
    pub(crate) process: Process,
    /// How long the last start took, from the process's beginning to its first answer.
    pub(crate) ready: Duration,
}

impl Server {
    /// Starts the binary on fresh data and waits until it answers.
    pub(crate) async fn start(options: &Options, settings: &[&str]) -> Result<Self> {
        let data = match &options.data {
            Some(parent) => TempDir::with_prefix_in("causerie-load-", parent),
            None => TempDir::with_prefix("causerie-load-"),
        }?;
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut command = Command::new(LAUNCHER);
        command
            .arg("serve")
            .arg(options.binary.as_ref().context("no binary")?)
            .arg(address.port().to_string())
            .arg(data.path())
            .args(&options.settings)
            .args(settings);
        let begun = Instant::now();
        let child = command.spawn().with_context(|| format!("starting {LAUNCHER}"))?;
        let process = Process(child.id());
        let mut server = Self { command, child, data, address, process, ready: Duration::ZERO };
        server.wait_ready(begun).await?;
        Ok(server)
    }

    /// Starts it again on the same data.
    pub(crate) async fn restart(&mut self) -> Result<()> {
        let begun = Instant::now();
        self.child = self.command.spawn()?;
        self.process = Process(self.child.id());
        self.wait_ready(begun).await
    }

    async fn wait_ready(&mut self, begun: Instant) -> Result<()> {
        while begun.elapsed() < READY_TIME_MAX {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended by itself: {status}");
            }
            if let Ok(mut client) = Client::connect(self.address).await {
                let answer = client.call(Method::GET, "/versions", Bytes::new()).await;
                if answer.is_ok_and(|(status, _)| status == StatusCode::OK) {
                    self.ready = begun.elapsed();
                    return Ok(());
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        bail!("the server is not ready after {READY_TIME_MAX:?}");
    }

    /// Ends it with SIGTERM.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        let status = Command::new("kill").arg(self.child.id().to_string()).status()?;
        ensure!(status.success(), "the server cannot be signaled");
        let begun = Instant::now();
        while begun.elapsed() < STOP_TIME_MAX {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "the server ended with {status} after SIGTERM");
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        bail!("the server is still there {STOP_TIME_MAX:?} after SIGTERM");
    }

    /// The size of all files of the data folder.
    pub(crate) fn disk_bytes(&self) -> Result<u64> {
        size_bytes(self.data.path())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails for a process that has ended already, which is all that is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn size_bytes(folder: &Path) -> Result<u64> {
    let mut total = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        total += if metadata.is_dir() { size_bytes(&entry.path())? } else { metadata.len() };
    }
    Ok(total)
}

/// A process, by its id.
#[derive(Clone, Copy)]
pub(crate) struct Process(pub(crate) u32);

impl Process {
    /// The CPU that all its threads have taken so far, in user and system mode.
    pub(crate) fn cpu(self) -> Result<Duration> {
        let stat = self.read("stat")?;
        // The second field, the name in parentheses, may hold anything; `utime` is the 14th field.
        let (_, rest) = stat.rsplit_once(')').context("a strange /proc/PID/stat")?;
        let mut fields = rest.split_whitespace().skip(11);
        let mut ticks = 0;
        for _ in ["utime", "stime"] {
            ticks += fields.next().context("a short /proc/PID/stat")?.parse::<u32>()?;
        }
        Ok(TICK * ticks)
    }

    /// The memory that is resident.
    pub(crate) fn resident_bytes(self) -> Result<u64> {
        let status = self.read("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        Ok(kib.context("no VmRSS in /proc/PID/status")?.parse::<u64>()? * 1024)
    }

    fn read(self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.0);
        fs::read_to_string(&path).with_context(|| format!("reading {path}"))
    }
}

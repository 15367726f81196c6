//! Makes thumbnails in processes of their own, each with limits of memory and time that the program
//! sets before it reads anything (`cli/thumbnail.rs`).
//!
//! So many run at once, and only so many more wait; whoever comes then is told to come again.

use std::{
    io::{Read, Write},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::{Semaphore, mpsc};

use super::files::FileParts;
use crate::{
    config::{MediaConfig, ThumbnailMethod, ThumbnailSize},
    error::ApiError,
};

/// How many wait for a process for each that may run.
const WAITING_PER_PROCESS: usize = 16;
/// The largest thumbnail, in bytes.
const BYTES_MAX: u64 = 16 << 20;
/// What runs when nothing else is set: this program, also after its file was replaced.
const SELF: &str = "/proc/self/exe";

/// Where thumbnails are made.
pub(super) struct Workshop {
    program: PathBuf,
    running: Semaphore,
    waiting: Semaphore,
}

/// A thumbnail that was made.
pub(super) struct Made {
    pub(super) content_type: &'static str,
    pub(super) bytes: Bytes,
}

impl Workshop {
    pub(super) fn new(config: &MediaConfig) -> Self {
        let processes = config.thumbnail_processes_max.clamp(1, Semaphore::MAX_PERMITS / 32);
        Self {
            program: config.thumbnail_program.clone().unwrap_or_else(|| PathBuf::from(SELF)),
            running: Semaphore::new(processes),
            waiting: Semaphore::new(processes * (1 + WAITING_PER_PROCESS)),
        }
    }

    /// Makes a thumbnail; `None` when the picture cannot be read within the limits.
    pub(super) async fn make(
        &self,
        size: Option<ThumbnailSize>,
        moves: bool,
        mut source: FileParts,
    ) -> Result<Option<Made>, ApiError> {
        let _waiting = self
            .waiting
            .try_acquire()
            .map_err(|_| ApiError::limit_exceeded(Duration::from_secs(2)))?;
        let _running = self.running.acquire().await.map_err(ApiError::internal)?;
        let mut command = self.command(size, moves);
        let (sender, receiver) = mpsc::channel(4);
        let feed = async move {
            while let Some(part) = source.next().await {
                // Nobody takes it: the process has ended.
                if sender.send(part.map_err(ApiError::internal)?).await.is_err() {
                    break;
                }
            }
            Ok::<(), ApiError>(())
        };
        let run = tokio::task::spawn_blocking(move || run(&mut command, receiver));
        let (given, made) = tokio::join!(feed, run);
        let made = made.map_err(ApiError::internal)?.map_err(ApiError::internal)?;
        given?;
        Ok(made)
    }

    fn command(&self, size: Option<ThumbnailSize>, moves: bool) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("thumbnail").env_clear().stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(Stdio::null());
        if let Some(ThumbnailSize { width, height, method }) = size {
            let method = match method {
                ThumbnailMethod::Crop => "crop",
                ThumbnailMethod::Scale => "scale",
            };
            command.arg("--size").arg(format!("{width}x{height}")).arg("--method").arg(method);
        }
        if moves {
            command.arg("--animated");
        }
        command
    }
}

/// Gives the process its picture, then takes what it made: it reads all before it writes, and ends
/// by itself when its time is over.
fn run(command: &mut Command, mut source: mpsc::Receiver<Bytes>) -> std::io::Result<Option<Made>> {
    let mut process = command.spawn()?;
    if let Some(mut stdin) = process.stdin.take() {
        while let Some(part) = source.blocking_recv() {
            // It may have seen enough.
            if stdin.write_all(&part).is_err() {
                break;
            }
        }
    }
    drop(source);
    let mut out = Vec::new();
    if let Some(stdout) = process.stdout.take() {
        let read = stdout.take(BYTES_MAX + 1).read_to_end(&mut out);
        if read.is_err() || out.len() as u64 > BYTES_MAX {
            let _ = process.kill();
            out.clear();
        }
    }
    let status = process.wait()?;
    if !status.success() {
        tracing::debug!(%status, "a picture could not be made smaller");
        return Ok(None);
    }
    let mut out = Bytes::from(out);
    let Some(end) = out.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
    let head = out.split_to(end + 1);
    let content_type = ["image/png", "image/jpeg", "image/gif"]
        .into_iter()
        .find(|name| head.strip_suffix(b"\n") == Some(name.as_bytes()));
    Ok(content_type.map(|content_type| Made { content_type, bytes: out }))
}

//! `causerie thumbnail`: makes a thumbnail of the picture on the standard input. The server starts it
//! for each thumbnail, so that a picture made to harm harms this process alone; people need not call
//! it.
//!
//! Its limits are set before anything is read. Beyond one it is ended by the system or by the
//! allocator, which the server takes for a picture that cannot be read.

use std::io::{self, Read, Write};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::{
    config::{ThumbnailMethod, ThumbnailSize},
    media::picture,
};

/// The memory for data, in bytes.
const MEMORY_BYTES_MAX: u64 = 256 << 20;
/// The time on a processor, in seconds.
const SECONDS_MAX: u64 = 5;
/// The largest picture, in bytes: half of the memory is for what it becomes.
const SOURCE_BYTES_MAX: u64 = 100 << 20;

/// What `thumbnail` understands.
#[derive(Args, Debug)]
pub struct ThumbnailArgs {
    /// The size to come to, in pixels; without it the picture keeps its size.
    #[arg(long, value_name = "WIDTHxHEIGHT")]
    size: Option<String>,
    /// How the picture comes to it.
    #[arg(long, value_enum, default_value_t = Method::Scale)]
    method: Method,
    /// Whether a picture that moves may go on moving.
    #[arg(long)]
    animated: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Method {
    Crop,
    Scale,
}

/// Reads a picture, writes its thumbnail.
pub fn run(args: &ThumbnailArgs) -> anyhow::Result<()> {
    limit()?;
    let size = args.size.as_deref().map(|text| parse_size(text, args.method)).transpose()?;
    let mut source = Vec::new();
    io::stdin().lock().take(SOURCE_BYTES_MAX + 1).read_to_end(&mut source)?;
    if source.len() as u64 > SOURCE_BYTES_MAX {
        bail!("the picture is too large");
    }
    let mut out = io::stdout().lock();
    picture::thumbnail(&source, size, args.animated, &mut out)?;
    out.flush()?;
    Ok(())
}

fn limit() -> anyhow::Result<()> {
    for (resource, most) in [
        (Resource::Data, MEMORY_BYTES_MAX),
        (Resource::Cpu, SECONDS_MAX),
        (Resource::Fsize, 0),
        (Resource::Core, 0),
        (Resource::Nofile, 3),
    ] {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        setrlimit(resource, limit).context("the limits of the process cannot be set")?;
    }
    Ok(())
}

fn parse_size(text: &str, method: Method) -> anyhow::Result<ThumbnailSize> {
    let parsed = text.split_once('x').and_then(|(width, height)| {
        Some((width.parse::<u32>().ok()?, height.parse::<u32>().ok()?))
    });
    let Some((width, height)) = parsed.filter(|(width, height)| *width > 0 && *height > 0) else {
        bail!("{text} is not a size");
    };
    let method = match method {
        Method::Crop => ThumbnailMethod::Crop,
        Method::Scale => ThumbnailMethod::Scale,
    };
    Ok(ThumbnailSize { width, height, method })
}

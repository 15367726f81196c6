//! Large files: how fast they go up and down, and whether the server's memory stays flat.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::{Method, Request, StatusCode, body::Frame, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::{people::Person, server::Process};

/// The size of the file.
pub(crate) const FILE_BYTES: usize = 100 * 1024 * 1024;
const CHUNK_BYTES: usize = 64 * 1024;
/// How often the memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What came of sending a file up and fetching it again.
pub(crate) struct Outcome {
    pub(crate) upload: Duration,
    pub(crate) download: Duration,
    /// How far the resident memory rose above what it was before, at most.
    pub(crate) rise_bytes: u64,
}

/// Sends a file up and fetches it again, on connections of its own.
pub(crate) async fn measure(
    address: SocketAddr,
    person: &Person,
    process: Process,
) -> Result<Outcome> {
    let before = process.resident_bytes()?;
    let peak = Arc::new(AtomicU64::new(before));
    let seen = Arc::clone(&peak);
    let watch = tokio::spawn(async move {
        while let Ok(bytes) = process.resident_bytes() {
            seen.fetch_max(bytes, Ordering::Relaxed);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    });
    let begun = Instant::now();
    let uri = upload(address, person).await?;
    let upload = begun.elapsed();
    let begun = Instant::now();
    let bytes = download(address, person, &uri).await?;
    let download = begun.elapsed();
    watch.abort();
    ensure!(bytes == FILE_BYTES, "{bytes} bytes came back");
    let rise_bytes = peak.load(Ordering::Relaxed).saturating_sub(before);
    Ok(Outcome { upload, download, rise_bytes })
}

async fn upload(address: SocketAddr, person: &Person) -> Result<String> {
    let chunk = Bytes::from(vec![7_u8; CHUNK_BYTES]);
    let chunks = (0..FILE_BYTES / CHUNK_BYTES).map(move |_| Ok::<_, anyhow::Error>(chunk.clone()));
    let body = StreamBody::new(stream::iter(chunks.map(|chunk| chunk.map(Frame::data))));
    let (mut requests, connection) =
        http1::handshake(TokioIo::new(TcpStream::connect(address).await?)).await?;
    tokio::spawn(connection);
    let request = Request::post("/_matrix/media/v3/upload?filename=large.bin")
        .header(header::HOST, address.to_string())
        .header(header::AUTHORIZATION, &person.token)
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header(header::CONTENT_LENGTH, FILE_BYTES)
        .body(body)?;
    let answer = requests.send_request(request).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    ensure!(status == StatusCode::OK, "{status} {}", String::from_utf8_lossy(&body));
    let answer: Value = serde_json::from_slice(&body)?;
    Ok(answer["content_uri"].as_str().context("no content_uri")?.to_owned())
}

async fn download(address: SocketAddr, person: &Person, uri: &str) -> Result<usize> {
    let (mut requests, connection) =
        http1::handshake(TokioIo::new(TcpStream::connect(address).await?)).await?;
    tokio::spawn(connection);
    let path = uri.strip_prefix("mxc://").context("no mxc://")?;
    let request = Request::builder()
        .method(Method::GET)
        .uri(format!("/_matrix/client/v1/media/download/{path}"))
        .header(header::HOST, address.to_string())
        .header(header::AUTHORIZATION, &person.token)
        .body(http_body_util::Empty::<Bytes>::new())?;
    let answer = requests.send_request(request).await?;
    ensure!(answer.status() == StatusCode::OK, "{}", answer.status());
    let (mut body, mut bytes) = (answer.into_body(), 0);
    while let Some(frame) = body.frame().await {
        bytes += frame?.data_ref().map_or(0, Bytes::len);
    }
    Ok(bytes)
}

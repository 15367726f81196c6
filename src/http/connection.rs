//! A connection's stream that does not wait for ever for a request's head.
//!
//! hyper's own limit covers the idle time between two requests too, and a reverse proxy must be
//! able to keep an idle connection for longer than a head may take. So hyper has the idle limit,
//! and this the one for heads: from a connection's start, or the first byte of a head, to the
//! request. HTTP/2 limits its heads itself once it runs, so there it ends with the first request.
//!
//! It also sees which HTTP a client speaks. hyper-util's `auto` does that too, but hands the first 24
//! bytes on by themselves, and hyper's buffer then grows to 16 KiB for the life of the connection.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

/// How a client begins that speaks HTTP/2.
///
/// <https://www.rfc-editor.org/rfc/rfc9113#section-3.4>
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the requests of a connection tell its stream.
#[derive(Default)]
pub(super) struct Progress {
    requests: AtomicU32,
    busy: AtomicBool,
    multiplexed: AtomicBool,
}

impl Progress {
    /// A request's head is complete.
    pub(super) fn begin(&self, multiplexed: bool) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.busy.store(true, Ordering::Relaxed);
        if multiplexed {
            self.multiplexed.store(true, Ordering::Relaxed);
        }
    }

    /// The request is answered.
    pub(super) fn end(&self) {
        self.busy.store(false, Ordering::Relaxed);
    }
}

/// The stream; reads fail when a head takes too long.
pub(super) struct HeadGuard<I> {
    io: I,
    /// What was read to see which HTTP it is; read again first.
    first: Vec<u8>,
    progress: Arc<Progress>,
    duration_max: Duration,
    /// When the head that is being read must be complete.
    deadline: Option<Instant>,
    /// Wakes at the deadline; made only when a head does not come at once.
    timer: Option<Pin<Box<Sleep>>>,
    /// How many requests had begun when the deadline was last looked at.
    requests_seen: u32,
}

impl<I> HeadGuard<I> {
    pub(super) fn new(io: I, duration_max: Duration) -> (Self, Arc<Progress>) {
        let progress = Arc::new(Progress::default());
        let guard = Self {
            io,
            first: Vec::new(),
            progress: Arc::clone(&progress),
            duration_max,
            deadline: Some(Instant::now() + duration_max),
            timer: None,
            requests_seen: 0,
        };
        (guard, progress)
    }

    /// Whether a head is awaited or being read; forgets the deadline of one that has come.
    fn guards(&mut self) -> bool {
        let requests = self.progress.requests.load(Ordering::Relaxed);
        let busy = self.progress.busy.load(Ordering::Relaxed);
        let multiplexed = self.progress.multiplexed.load(Ordering::Relaxed);
        if requests != self.requests_seen || busy || multiplexed {
            self.requests_seen = requests;
            self.deadline = None;
            self.timer = None;
        }
        !busy && !multiplexed
    }

    fn poll_deadline(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        timer.as_mut().poll(context)
    }
}

impl<I: AsyncRead + Unpin> HeadGuard<I> {
    /// Whether the client speaks HTTP/2, by the first bytes.
    pub(super) async fn is_http2(&mut self) -> io::Result<bool> {
        let mut first = [0; PREFACE.len()];
        let mut read = 0;
        while first[..read] == PREFACE[..read] && read < PREFACE.len() {
            match self.read(&mut first[read..]).await? {
                0 => break,
                more => read += more,
            }
        }
        self.first = first[..read].to_vec();
        Ok(first == *PREFACE)
    }

    /// Reads what was read before and, with it, what has come since.
    fn read_again(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) {
        let count = self.first.len().min(buffer.remaining());
        buffer.put_slice(&self.first[..count]);
        self.first.drain(..count);
        if self.first.is_empty() {
            self.first = Vec::new();
            // An error, or the end, comes again with the next read.
            let _ = Pin::new(&mut self.io).poll_read(context, buffer);
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for HeadGuard<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.first.is_empty() {
            this.read_again(context, buffer);
            return Poll::Ready(Ok(()));
        }
        let guards = this.guards();
        let filled = buffer.filled().len();
        let read = Pin::new(&mut this.io).poll_read(context, buffer);
        if !guards {
            return read;
        }
        if read.is_pending() {
            ready!(this.poll_deadline(context));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if buffer.filled().len() > filled && this.deadline.is_none() {
            this.deadline = Some(Instant::now() + this.duration_max);
        }
        read
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for HeadGuard<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

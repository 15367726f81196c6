//! A socket and the connections on it.
//!
//! Its own accept loop instead of `axum::serve`: that needs twice the memory for each idle long
//! poll. A connection ends when its client stalls (head, handshake, idle), and on shutdown once
//! its requests are answered or the drain's time is over.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use axum::body::Body;
use futures::FutureExt;
use http::{Request, Version};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    config::ListenAddress,
    http::{
        App, Peer, TlsFiles,
        connection::HeadGuard,
        tls::{self, TlsError},
    },
};

/// How many requests may run at once on one HTTP/2 connection: a proxy sends all its own here.
const STREAMS_MAX: u32 = 1_000;

/// How many connections the system may hold that are not accepted yet.
const BACKLOG: u32 = 1_024;

/// The limits of a listener.
#[derive(Clone, Debug)]
pub struct ListenerSettings {
    /// The most connections at once; more wait unaccepted.
    pub connections_max: u32,
    /// The largest head of a request, at least 8 KiB.
    pub head_bytes_max: usize,
    /// How long a head (and a TLS handshake) may take.
    pub head_duration_max: Duration,
    /// How long a connection may stay without a request. More than what proxies in front use
    /// (usually 60 seconds), so that they close first.
    pub idle_max: Duration,
    /// How long running requests may go on after the shutdown began.
    pub drain_max: Duration,
}

impl Default for ListenerSettings {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            head_bytes_max: 16 << 10,
            head_duration_max: Duration::from_secs(10),
            idle_max: Duration::from_secs(75),
            drain_max: Duration::from_secs(20),
        }
    }
}

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address cannot be listened on.
    #[error("cannot listen on {0}")]
    Bind(ListenAddress, #[source] io::Error),
    /// The TLS files cannot be used.
    #[error("cannot use TLS on {0}")]
    Tls(ListenAddress, #[source] TlsError),
}

/// An open socket that does not serve yet.
pub struct Listener {
    socket: Socket,
    tls: Option<TlsAcceptor>,
    settings: Arc<ListenerSettings>,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

enum Stream {
    Tcp(TcpStream, IpAddr),
    Unix(UnixStream),
}

/// Boxed, since what holds it before it is served is as large as all kinds of connections.
type TlsStream = Box<tokio_rustls::server::TlsStream<TcpStream>>;

impl Listener {
    /// Opens a socket.
    pub async fn bind(
        address: &ListenAddress,
        tls: Option<&TlsFiles>,
        settings: ListenerSettings,
    ) -> Result<Self, ListenError> {
        let tls = tls.map(tls::acceptor).transpose();
        let tls = tls.map_err(|error| ListenError::Tls(address.clone(), error))?;
        let socket = match address {
            ListenAddress::Tcp(address) => bind_tcp(*address),
            ListenAddress::Unix { path, mode } => bind_unix(path.clone(), *mode).await,
        };
        let socket = socket.map_err(|error| ListenError::Bind(address.clone(), error))?;
        Ok(Self { socket, tls, settings: Arc::new(settings) })
    }

    /// The address of a TCP socket; its port is the real one where 0 was asked for.
    pub fn local_address(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(socket) => socket.local_addr().ok(),
            Socket::Unix(_) => None,
        }
    }

    /// Serves until `shutdown` becomes true (or its sender is gone), then finishes what runs.
    pub async fn serve(self, app: App, mut shutdown: watch::Receiver<bool>) {
        let Self { socket, tls, settings } = self;
        let connections_max = settings.connections_max.max(1);
        let permits = Arc::new(Semaphore::new(connections_max as usize));
        let (http1, http2) = (http1_of(&settings), http2_of(&settings));
        let server = Arc::new(Server { app, http1, http2, tls, settings });
        loop {
            let accepted = tokio::select! {
                accepted = accept(&socket, &permits) => accepted,
                () = stopped(&mut shutdown) => break,
            };
            match accepted {
                Ok((stream, permit)) => {
                    let server = Arc::clone(&server);
                    tokio::spawn(server.connection(stream, permit, shutdown.clone()));
                }
                Err(error) => {
                    // Usually no file descriptor is free: waiting lets connections end.
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(socket);
        let drained = permits.acquire_many(connections_max);
        if timeout(server.settings.drain_max + Duration::from_secs(1), drained).await.is_err() {
            tracing::warn!("some requests did not end before the shutdown");
        }
    }
}

/// What all connections of a listener share.
struct Server {
    app: App,
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    tls: Option<TlsAcceptor>,
    settings: Arc<ListenerSettings>,
}

impl Server {
    /// Serves a connection to its end. The permit bounds their number and tells when all ended.
    async fn connection(
        self: Arc<Self>,
        stream: Stream,
        _permit: OwnedSemaphorePermit,
        shutdown: watch::Receiver<bool>,
    ) {
        let open = metrics::gauge!("http_connections");
        open.increment(1.0);
        // Boxed, so that no connection carries the space of the other kinds or of the handshake.
        match (stream, &self.tls) {
            (Stream::Unix(stream), _) => {
                Box::pin(self.requests(stream, Peer::Unix, shutdown)).await;
            }
            (Stream::Tcp(stream, address), None) => {
                Box::pin(self.requests(stream, Peer::Tcp(address), shutdown)).await;
            }
            (Stream::Tcp(stream, address), Some(tls)) => {
                if let Some(stream) = Box::pin(self.handshake(stream, tls)).await {
                    Box::pin(self.requests(stream, Peer::Tcp(address), shutdown)).await;
                }
            }
        }
        open.decrement(1.0);
    }

    async fn handshake(&self, stream: TcpStream, tls: &TlsAcceptor) -> Option<TlsStream> {
        match timeout(self.settings.head_duration_max, tls.accept(stream)).await {
            Ok(Ok(stream)) => return Some(Box::new(stream)),
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
            Err(_) => tracing::debug!("TLS handshake took too long"),
        }
        None
    }

    async fn requests<I>(&self, stream: I, peer: Peer, mut shutdown: watch::Receiver<bool>)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut stream, progress) = HeadGuard::new(stream, self.settings.head_duration_max);
        let is_http2 = tokio::select! {
            is_http2 = stream.is_http2() => is_http2,
            () = stopped(&mut shutdown) => return,
        };
        let app = self.app.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            progress.begin(request.version() == Version::HTTP_2);
            let progress = Arc::clone(&progress);
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer);
            app.clone().answer(request).map(move |response| {
                progress.end();
                Ok::<_, std::convert::Infallible>(response)
            })
        });
        let stream = TokioIo::new(stream);
        // Boxed: one of HTTP/2 is twice as large.
        let ended = match is_http2 {
            Ok(false) => {
                let connection = Box::pin(self.http1.serve_connection(stream, service));
                self.drive(connection, http1::Connection::graceful_shutdown, shutdown).await
            }
            Ok(true) => {
                let connection = Box::pin(self.http2.serve_connection(stream, service));
                self.drive(connection, http2::Connection::graceful_shutdown, shutdown).await
            }
            Err(error) => return tracing::trace!(%error, "connection ended"),
        };
        if let Err(error) = ended {
            // Clients go away all the time: nothing an operator could act on.
            tracing::trace!(%error, "connection ended");
        }
    }

    /// Serves requests until the client goes away, or those that run when the shutdown begins.
    async fn drive<C>(
        &self,
        mut connection: Pin<Box<C>>,
        begin_end: fn(Pin<&mut C>),
        mut shutdown: watch::Receiver<bool>,
    ) -> hyper::Result<()>
    where
        C: Future<Output = hyper::Result<()>>,
    {
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = stopped(&mut shutdown) => {}
        }
        begin_end(connection.as_mut());
        timeout(self.settings.drain_max, connection).await.unwrap_or(Ok(()))
    }
}

fn http1_of(settings: &ListenerSettings) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(settings.idle_max)
        .max_buf_size(settings.head_bytes_max.max(8 << 10));
    builder
}

fn http2_of(settings: &ListenerSettings) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(settings.idle_max)
        .keep_alive_timeout(settings.head_duration_max)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(settings.head_bytes_max).unwrap_or(u32::MAX));
    builder
}

fn bind_tcp(address: SocketAddr) -> io::Result<Socket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    // Accepted connections inherit it: clients that vanish are noticed.
    socket.set_keepalive(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG).map(Socket::Tcp)
}

async fn bind_unix(path: PathBuf, mode: u32) -> io::Result<Socket> {
    // A socket's file outlives its server. One that still answers is not taken away.
    let is_socket = std::fs::symlink_metadata(&path).is_ok_and(|file| file.file_type().is_socket());
    if is_socket && UnixStream::connect(&path).await.is_err() {
        std::fs::remove_file(&path)?;
    }
    let socket = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
    Ok(Socket::Unix(socket))
}

async fn accept(
    socket: &Socket,
    permits: &Arc<Semaphore>,
) -> io::Result<(Stream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.map_err(io::Error::other)?;
    let stream = match socket {
        Socket::Tcp(socket) => {
            let (stream, address) = socket.accept().await?;
            stream.set_nodelay(true)?;
            Stream::Tcp(stream, address.ip())
        }
        Socket::Unix(socket) => Stream::Unix(socket.accept().await?.0),
    };
    Ok((stream, permit))
}

/// Ends when the shutdown has begun.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // An error says that the sender is gone, which means the same.
    drop(shutdown.wait_for(|stop| *stop).await);
}

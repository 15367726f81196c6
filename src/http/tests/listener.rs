//! Connections over real sockets: limits of heads, keep-alive, shutdown, Unix sockets.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};

use super::server;
use crate::{
    config::ListenAddress,
    http::{Listener, ListenerSettings, TlsFiles},
};

const GET: &str = "GET /_matrix/client/versions HTTP/1.1\r\nHost: hs1\r\n\r\n";

/// Starts a server whose heads may take 200 ms and whose connections may idle for 2 s.
async fn start(
    address: &ListenAddress,
) -> (Option<SocketAddr>, watch::Sender<bool>, JoinHandle<()>) {
    let settings = ListenerSettings {
        head_duration_max: Duration::from_millis(200),
        idle_max: Duration::from_secs(2),
        drain_max: Duration::from_secs(2),
        ..ListenerSettings::default()
    };
    let listener = Listener::bind(address, None, settings).await.unwrap();
    let bound = listener.local_address();
    let (stop, stopped) = watch::channel(false);
    (bound, stop, tokio::spawn(listener.serve(server(), stopped)))
}

async fn start_tcp() -> (SocketAddr, watch::Sender<bool>, JoinHandle<()>) {
    let (address, stop, serving) = start(&ListenAddress::Tcp(([127, 0, 0, 1], 0).into())).await;
    (address.unwrap(), stop, serving)
}

/// Reads one answer with a `Content-Length`.
async fn read_answer(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut answer = String::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).await.unwrap();
        answer.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        let complete = answer.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let length = head.split_once("content-length: ").map_or("0", |(_, rest)| rest);
            length.lines().next().unwrap().parse::<usize>().unwrap() <= body.len()
        });
        if complete || read == 0 {
            return answer;
        }
    }
}

#[tokio::test]
async fn an_idle_connection_stays_open_longer_than_a_head_may_take() {
    let (address, _stop, _serving) = start_tcp().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    for _ in 0..3 {
        stream.write_all(GET.as_bytes()).await.unwrap();
        let answer = read_answer(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
}

#[tokio::test]
async fn t99_slow_and_large_heads_end_the_connection() {
    let (address, _stop, _serving) = start_tcp().await;
    for start in ["", "GET / HTTP/1.1\r\n", "PRI * HTT"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let began = Instant::now();
        stream.write_all(start.as_bytes()).await.unwrap();
        // A byte now and then does not help.
        for _ in 0..50 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if !start.is_empty() && stream.write_all(b"x").await.is_err() {
                break;
            }
        }
        let mut rest = Vec::new();
        let ended = timeout(Duration::from_secs(1), stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "{start:?}");
        assert!(began.elapsed() < Duration::from_millis(1900), "{start:?}");
    }
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20 << 10));
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = read_answer(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test]
async fn http_2_is_known_by_its_first_bytes_however_they_come() {
    let (address, _stop, _serving) = start_tcp().await;
    let mut begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // An empty frame of settings.
    begin.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    for pieces in [1, 3, begin.len()] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        for piece in begin.chunks(begin.len().div_ceil(pieces)) {
            stream.write_all(piece).await.unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let mut frame = [0; 9];
        stream.read_exact(&mut frame).await.unwrap();
        assert_eq!(frame[3], 4, "the server's settings, {pieces} pieces");
    }
    // So is what only begins alike, and a head that comes byte by byte.
    for text in ["PRI * HTTP/1.1\r\nHost: hs1\r\n\r\n", GET] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        for byte in text.as_bytes() {
            stream.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert!(read_answer(&mut stream).await.starts_with("HTTP/1.1 "), "{text}");
    }
}

#[tokio::test]
async fn t86_a_large_body_is_refused_by_its_announcement() {
    let (address, _stop, _serving) = start_tcp().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = "POST /echo/a/b HTTP/1.1\r\nHost: hs1\r\nContent-Length: 1073741824\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = read_answer(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("M_TOO_LARGE"), "{answer}");
}

#[tokio::test]
async fn a_shutdown_answers_what_runs_and_takes_no_more() {
    let (address, stop, serving) = start_tcp().await;
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(GET.as_bytes()).await.unwrap();
    read_answer(&mut idle).await;
    let mut running = TcpStream::connect(address).await.unwrap();
    running.write_all(b"GET /slow HTTP/1.1\r\nHost: hs1\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    stop.send(true).unwrap();
    let answer = read_answer(&mut running).await;
    assert!(answer.ends_with("done"), "{answer}");
    timeout(Duration::from_secs(1), serving).await.unwrap().unwrap();
    assert_eq!(idle.read(&mut [0; 16]).await.unwrap(), 0);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_unix_socket_serves_and_replaces_a_dead_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("causerie.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let address = ListenAddress::Unix { path: path.clone(), mode: 0o600 };
    let (_, _stop, _serving) = start(&address).await;
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(GET.as_bytes()).await.unwrap();
    assert!(read_answer(&mut stream).await.starts_with("HTTP/1.1 200 OK\r\n"));
    // One that answers is left alone.
    assert!(Listener::bind(&address, None, ListenerSettings::default()).await.is_err());
}

#[tokio::test]
async fn tls_without_its_files_says_which() {
    let directory = tempfile::tempdir().unwrap();
    let certificate = directory.path().join("certificate.pem");
    let files = TlsFiles { certificate: certificate.clone(), key: certificate.clone() };
    let bind = async || {
        let address = ListenAddress::Tcp(([127, 0, 0, 1], 0).into());
        let bound = Listener::bind(&address, Some(&files), ListenerSettings::default()).await;
        super::super::response::chain(&bound.err().unwrap())
    };
    assert!(bind().await.contains("cannot read"));
    std::fs::write(&certificate, "no certificate").unwrap();
    assert!(bind().await.contains("certificate.pem has no certificate in PEM form"));
}

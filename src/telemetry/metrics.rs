//! Figures for Prometheus, on a listener of their own, so that they are never public by accident.
//!
//! Without [`install`] the macros of the crate `metrics` do nothing and cost nothing. Histograms
//! have fixed buckets, for durations in seconds (names that end in `_seconds`) and for sizes.

use std::{fs, future::Future, time::Duration};

use axum::{Router, http::header::CONTENT_TYPE, routing};
use kv::{Counters, Status, Store};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::{net::TcpListener, sync::oneshot, time};

const RESIDENT_MEMORY: &str = "process_resident_memory_bytes";
const BUILD_INFO: &str = "causerie_build_info";
const DATABASE_WRITABLE: &str = "database_writable";
const CONTENT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The name of a figure, what it says, and where it is found.
type Figure = (&'static str, &'static str, fn(&Counters) -> u64);

/// What the store counts.
const DATABASE: [Figure; 8] = [
    ("database_gets_total", "Rows looked up by their key", |c| c.gets),
    ("database_seeks_total", "Range reads begun", |c| c.seeks),
    ("database_rows_scanned_total", "Rows that range reads visited", |c| c.rows_scanned),
    ("database_batches_total", "Batches committed", |c| c.batches),
    ("database_groups_total", "Writes, each of one or more batches", |c| c.groups),
    ("database_puts_total", "Rows written", |c| c.puts),
    ("database_deletes_total", "Rows and ranges of rows removed", |c| c.deletes),
    ("database_syncs_total", "Writes that waited for the disk", |c| c.syncs),
];

/// How often what histograms gathered is sorted into their buckets, which frees its memory.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// How long requests may take to end once the server stops: who sends half of one waits forever.
const DRAIN_DURATION_MAX: Duration = Duration::from_secs(2);

/// From a tenth of a millisecond to the longest wait of a client.
const SECONDS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 10.0, 60.0];

/// From a short message to the largest upload.
const SIZES: [f64; 8] = [256.0, 1e3, 4e3, 16e3, 64e3, 256e3, 1e6, 16e6];

/// Why figures cannot be collected.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The buckets are wrong: a mistake in this file.
    #[error("the buckets of the histograms are wrong")]
    Buckets(#[from] BuildError),
    /// Something else in this process collects figures already.
    #[error("figures were already collected")]
    Twice(#[from] metrics::SetRecorderError<metrics_exporter_prometheus::PrometheusRecorder>),
}

/// The figures collected so far.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
    store: Option<Store>,
}

impl Metrics {
    /// With what the store counts: by itself, so it is asked when the figures are.
    #[must_use]
    pub fn with_store(self, store: Store) -> Self {
        metrics::describe_gauge!(DATABASE_WRITABLE, "1 while the database takes writes, 0 if not");
        for (name, meaning, _) in DATABASE {
            metrics::describe_counter!(name, meaning);
        }
        Self { store: Some(store), ..self }
    }

    /// All figures in the text format of Prometheus.
    pub fn render(&self) -> String {
        if let Some(store) = &self.store {
            let writable = store.status() == Status::Ready;
            metrics::gauge!(DATABASE_WRITABLE).set(f64::from(u8::from(writable)));
            let counters = store.counters();
            for (name, _, count) in DATABASE {
                metrics::counter!(name).absolute(count(&counters));
            }
        }
        if let Some(bytes) = resident_memory_bytes() {
            metrics::gauge!(RESIDENT_MEMORY).set(bytes);
        }
        self.handle.render()
    }
}

/// Collects what the server counts from now on, for the whole process.
pub fn install() -> Result<Metrics, MetricsError> {
    let recorder = builder()?.build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder)?;
    metrics::describe_gauge!(RESIDENT_MEMORY, "Resident memory of the process");
    metrics::describe_gauge!(BUILD_INFO, "Always 1; the label names the version");
    metrics::gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(Metrics { handle, store: None })
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_bytes".to_owned()), &SIZES)
}

/// Answers `GET /metrics` on `listener` until `stop` resolves and for a moment at most after it.
pub async fn serve(
    metrics: Metrics,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let upkeep = tokio::spawn(upkeep(metrics.clone()));
    let answer = move || {
        let text = metrics.render();
        async move { ([(CONTENT_TYPE, CONTENT)], text) }
    };
    let router = Router::new().route("/metrics", routing::get(answer));
    let (stopping, stopped) = oneshot::channel::<()>();
    let serving = axum::serve(listener, router).with_graceful_shutdown(async {
        stop.await;
        drop(stopping);
    });
    let drained = async {
        // The sender is only ever dropped.
        let _ = stopped.await;
        time::sleep(DRAIN_DURATION_MAX).await;
    };
    let outcome = tokio::select! {
        outcome = serving => outcome,
        () = drained => Ok(()),
    };
    upkeep.abort();
    outcome
}

async fn upkeep(metrics: Metrics) {
    let mut interval = time::interval(UPKEEP_INTERVAL);
    loop {
        interval.tick().await;
        metrics.handle.run_upkeep();
    }
}

fn resident_memory_bytes() -> Option<f64> {
    resident_kib(&fs::read_to_string("/proc/self/status").ok()?).map(|kib| f64::from(kib) * 1024.0)
}

fn resident_kib(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use kv::{Batch, ColumnFamily, Durability};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;

    #[test]
    fn histograms_have_buckets() {
        let recorder = builder().unwrap().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            metrics::histogram!("request_seconds").record(0.002);
            metrics::histogram!("request_bytes").record(300.0);
        });
        let text = recorder.handle().render();
        assert!(text.contains("request_seconds_bucket{le=\"0.0025\"} 1"), "{text}");
        assert!(text.contains("request_bytes_bucket{le=\"256\"} 0"), "{text}");
    }

    #[test]
    fn the_resident_memory_is_read() {
        assert_eq!(resident_kib("Name:\tx\nVmRSS:\t   12345 kB\n"), Some(12_345));
        assert_eq!(resident_kib("Name:\tx\n"), None);
    }

    #[tokio::test]
    async fn figures_are_served_until_the_end() {
        let family = ColumnFamily {
            name: "rows",
            index: 0,
            block_size_bytes: 8192,
            dense: false,
            point_lookups: false,
        };
        let store = Store::memory(&[family]);
        store.commit(Batch::new(), Durability::Synced).await.unwrap();
        let metrics = install().unwrap().with_store(store);
        metrics::counter!("things_total").increment(3);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(serve(metrics, listener, async {
            let _ = stopped.await;
        }));
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        let database = ["database_syncs_total 1", "database_writable 1"];
        let process = [CONTENT, "things_total 3", "causerie_build_info{version=", RESIDENT_MEMORY];
        for expected in database.iter().chain(&process) {
            assert!(answer.contains(expected), "{expected} is missing in {answer}");
        }
        stop.send(()).unwrap();
        server.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn half_a_request_does_not_hold_up_the_end() {
        let metrics = Metrics { handle: builder().unwrap().build_recorder().handle(), store: None };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(serve(metrics, listener, async {
            let _ = stopped.await;
        }));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost:").await.unwrap();
        // The listener must have accepted it, or it is not waited for.
        time::sleep(Duration::from_millis(50)).await;
        stop.send(()).unwrap();
        time::timeout(2 * DRAIN_DURATION_MAX, server).await.unwrap().unwrap().unwrap();
    }
}

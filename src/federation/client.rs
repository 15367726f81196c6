//! Requests to other servers: found, signed, sent, and not repeated at once where none answers.
//!
//! Knows neither rooms nor users. What is asked of a server is signed with this server's key; what
//! it answers is bounded in time and size; where it sends us elsewhere we do not go.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#request-authentication>

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header::HOST};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use ruma::{
    OwnedServerName, ServerName,
    api::{
        Metadata, OutgoingRequest, OutgoingRequestExt,
        federation::authentication::{ServerSignatures, XMatrixSigningInput},
        path_builder::PathBuilder,
    },
};
use serde::Deserialize;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use super::{
    discovery::{Discovered, Discovery, Way},
    remote_keys::{FETCHES_AT_ONCE, RemoteKeys},
    server_keys::Signer,
};
use crate::{
    config::FederationConfig,
    egress::{Call, Egress, EgressError, Incoming, Limits, Reach},
    time::Clock,
};

/// Of how many servers it is remembered where they are and whether they answer.
const PEERS_MAX: usize = 10_000;
/// How long a server is left alone after it did not answer: at first, and at most.
const PAUSE_MIN: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_hours(1);
/// How long a server may be looked for, and how long it may take until it begins to answer or says
/// what is wrong, however long the rest may take.
const DISCOVERY_DURATION_MAX: Duration = Duration::from_secs(20);
const HEAD_DURATION_MAX: Duration = Duration::from_mins(1);
/// What is read of an error.
const ERROR_BYTES_MAX: usize = 64 * 1024;

/// Makes requests to other servers; cheap to clone.
#[derive(Clone)]
pub struct Federation(pub(super) Arc<Parts>);

pub(super) struct Parts {
    pub(super) egress: Egress,
    pub(super) discovery: Discovery,
    config: FederationConfig,
    signer: Arc<Signer>,
    clock: Clock,
    peers: Cache<OwnedServerName, Arc<Peer>>,
    key_fetches: Semaphore,
    pub(super) head_duration_max: Duration,
}

/// What is known of another server.
#[derive(Default)]
pub(super) struct Peer {
    pub(super) keys: Mutex<RemoteKeys>,
    /// Held while the server is asked for its keys, so that this happens once.
    pub(super) asking_keys: tokio::sync::Mutex<()>,
    /// Held while the server is looked for, so that this happens once.
    discovered: tokio::sync::Mutex<Discovered>,
    pause: Mutex<Pause>,
}

/// How often a server has not answered, and until when it is left alone, by the monotonic clock.
#[derive(Default)]
struct Pause {
    failures: u32,
    until: Option<Duration>,
}

/// Why another server gave no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum FederationError {
    /// The operator does not want it asked.
    #[error("this server does not talk with {0}")]
    NotAllowed(OwnedServerName),
    /// The server did not answer lately, and is not asked again so soon.
    #[error("the server did not answer lately and is left alone for {} s", .0.as_secs())]
    BackingOff(Duration),
    /// Nothing came back, or not all of it.
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// It answered with an error.
    #[error("the server answered {status} {errcode}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// The Matrix error code, empty where it gave none.
        errcode: String,
    },
    /// What it answered is not what the specification says.
    #[error("the answer of the server cannot be used: {0}")]
    BadAnswer(&'static str),
}

/// The part of an error that is looked at.
#[derive(Default, Deserialize)]
struct MatrixError {
    errcode: String,
}

impl Federation {
    /// Requests are signed by `signer`.
    pub fn new(
        egress: Egress,
        config: FederationConfig,
        signer: Arc<Signer>,
        clock: Clock,
    ) -> Self {
        Self(Arc::new(Parts {
            config,
            discovery: Discovery::new(egress.clone(), clock.clone()),
            egress,
            signer,
            clock,
            peers: Cache::new(PEERS_MAX),
            key_fetches: Semaphore::new(FETCHES_AT_ONCE),
            head_duration_max: HEAD_DURATION_MAX,
        }))
    }

    /// Whether this server talks with another at all.
    pub fn allows(&self, server: &ServerName) -> bool {
        self.0.config.allows(server)
    }

    /// Makes a signed request; gives its answer when that is 200.
    pub(super) async fn request<R>(
        &self,
        server: &ServerName,
        request: R,
        limits: Limits,
    ) -> Result<Incoming, FederationError>
    where
        R: OutgoingRequest,
        R: Metadata<Authentication = ServerSignatures>,
        for<'a> R::PathBuilder: PathBuilder<Input<'a> = ()>,
    {
        let signing = XMatrixSigningInput::new(
            self.0.signer.server_name.clone(),
            server.to_owned(),
            &self.0.signer.key_pair,
        );
        let request = request
            .try_into_http_request::<Vec<u8>>("https://unknown", signing, ())
            .map_err(|_| FederationError::BadAnswer("a request to it cannot be written"))?;
        self.send(server, request.map(Bytes::from), limits).await
    }

    /// Sends a request to a server, whatever host its URL names, unless it is left alone.
    pub(super) async fn send(
        &self,
        server: &ServerName,
        request: http::Request<Bytes>,
        limits: Limits,
    ) -> Result<Incoming, FederationError> {
        self.peer(server).check(self.0.clock.monotonic())?;
        self.send_anyway(server, request, limits).await
    }

    /// The same also to a server that is left alone: for what has a pause of its own.
    pub(super) async fn send_anyway(
        &self,
        server: &ServerName,
        request: http::Request<Bytes>,
        limits: Limits,
    ) -> Result<Incoming, FederationError> {
        if server == self.0.signer.server_name {
            return Err(FederationError::BadAnswer("it is this server itself"));
        }
        if !self.allows(server) {
            return Err(FederationError::NotAllowed(server.to_owned()));
        }
        let peer = self.peer(server);
        let answer = self.attempt(server, &peer, &request, limits).await;
        peer.note(&answer, self.0.clock.monotonic());
        let incoming = answer?;
        if incoming.status == StatusCode::OK {
            return Ok(incoming);
        }
        match timeout(self.0.head_duration_max, refusal(incoming)).await {
            Ok(error) => Err(error),
            Err(_elapsed) => Err(EgressError::Timeout.into()),
        }
    }

    /// Says that a server has sent something, and has proven that it did: so it is there again.
    pub fn heard_from(&self, server: &ServerName) {
        *self.peer(server).pause.lock() = Pause::default();
    }

    /// Tries the ways to a server until one leads to an answer.
    async fn attempt(
        &self,
        server: &ServerName,
        peer: &Peer,
        request: &http::Request<Bytes>,
        limits: Limits,
    ) -> Result<Incoming, FederationError> {
        let elapsed = |_| FederationError::from(EgressError::Timeout);
        let ways = timeout(DISCOVERY_DURATION_MAX, async {
            let mut discovered = peer.discovered.lock().await;
            self.0.discovery.ways(server, &mut discovered).await
        });
        let ways = ways.await.map_err(elapsed)??;
        let head_duration_max = limits.duration_max.min(self.0.head_duration_max);
        let answer = timeout(head_duration_max, self.first_answer(&ways, request, limits));
        answer.await.map_err(elapsed)?
    }

    async fn first_answer(
        &self,
        ways: &[Way],
        request: &http::Request<Bytes>,
        limits: Limits,
    ) -> Result<Incoming, FederationError> {
        let mut outcome = Err(FederationError::BadAnswer("there is no way to it"));
        for way in ways {
            let answer = self.0.egress.open_by(&way.route, call(request, way, limits)?).await;
            let failed = matches!(answer, Err(EgressError::Failed(_)));
            outcome = answer.map_err(FederationError::from);
            if !failed {
                break;
            }
        }
        outcome
    }

    /// The wall clock in milliseconds, and the monotonic one.
    pub(super) fn now(&self) -> (u64, Duration) {
        (self.0.clock.now().get().into(), self.0.clock.monotonic())
    }

    /// Waits until a server may be asked for its keys; none when the semaphore is closed, which
    /// nobody does.
    pub(super) async fn key_slot(&self) -> Option<SemaphorePermit<'_>> {
        self.0.key_fetches.acquire().await.ok()
    }

    pub(super) fn peer(&self, server: &ServerName) -> Arc<Peer> {
        let made = self.0.peers.get_or_insert_with(&server.to_owned(), || {
            Ok::<_, std::convert::Infallible>(Arc::<Peer>::default())
        });
        match made {
            Ok(peer) => peer,
            Err(never) => match never {},
        }
    }
}

impl fmt::Debug for Federation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Federation({:?})", self.0.signer)
    }
}

impl Peer {
    /// Refuses what would disturb a server that is left alone.
    fn check(&self, now: Duration) -> Result<(), FederationError> {
        match self.pause.lock().left(now) {
            Some(left) => Err(FederationError::BackingOff(left)),
            None => Ok(()),
        }
    }

    /// Leaves the server alone if it did not answer.
    pub(super) fn note(&self, answer: &Result<Incoming, FederationError>, now: Duration) {
        match answer {
            // It may be there for others who ask, so this says nothing.
            Err(FederationError::Egress(EgressError::TooLarge)) => {}
            Err(FederationError::Egress(_)) => self.pause.lock().lengthen(now),
            _ => *self.pause.lock() = Pause::default(),
        }
    }
}

impl Pause {
    /// How long the server is still left alone.
    fn left(&self, now: Duration) -> Option<Duration> {
        let left = self.until?.saturating_sub(now);
        (!left.is_zero()).then_some(left)
    }

    /// Twice as long as before, and up to a fourth more, so that not all come back at once. Requests
    /// that failed together count as one, or who sends many would have it left alone for long.
    fn lengthen(&mut self, now: Duration) {
        if self.left(now).is_some() {
            return;
        }
        let pause = PAUSE_MIN.saturating_mul(1 << self.failures.min(16)).min(PAUSE_MAX);
        let chance = getrandom::u32().unwrap_or_default() % 256;
        self.until = Some(now + pause + pause * chance / 1024);
        self.failures = self.failures.saturating_add(1);
    }
}

/// A request on its way.
fn call(
    request: &http::Request<Bytes>,
    way: &Way,
    limits: Limits,
) -> Result<Call, FederationError> {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let mut url = way.url.clone();
    let (path, query) =
        target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    url.set_path(path);
    url.set_query(query);
    // What is signed is what is sent, to the letter.
    if url[url::Position::BeforePath..] != *target {
        return Err(FederationError::BadAnswer("a request to it cannot be written"));
    }
    let mut headers = request.headers().clone();
    headers.insert(HOST, HeaderValue::clone(&way.host));
    Ok(Call {
        method: request.method().clone(),
        url,
        headers,
        body: request.body().clone(),
        reach: Reach::Public,
        limits,
    })
}

/// What a server says that does not answer as it should.
async fn refusal(mut incoming: Incoming) -> FederationError {
    let status = incoming.status;
    let body = match incoming.at_most(ERROR_BYTES_MAX).await {
        Ok(body) => body,
        Err(error) => return error.into(),
    };
    // A proxy answers in its own words.
    let error: MatrixError = serde_json::from_slice(&body).unwrap_or_default();
    FederationError::Refused { status, errcode: error.errcode }
}

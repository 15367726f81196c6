//! The one way out: every HTTP request that this server makes itself.
//!
//! Called by whoever fetches previews, pushes to gateways, talks to application services or to
//! other servers. An address that a user or another server chose ([`Reach::Public`]) leads to public
//! addresses only: the address is checked as written, as resolved and again at each redirect, so
//! that nobody makes this server knock at its own network. Time and size have caps; nothing is
//! decompressed.
//!
//! Attack cases T96, T101, T102.

mod address;
mod resolve;
mod route;

use std::{error::Error as StdError, io, path::PathBuf, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, Method, StatusCode,
    header::{AUTHORIZATION, COOKIE, LOCATION},
};
use quick_cache::sync::Cache;
use tokio::time::Instant;
use url::Url;

pub use self::route::Route;
use self::{
    address::AddressFilter,
    resolve::{Blocked, Resolver},
    route::Detour,
};
use crate::config::EgressConfig;

/// How many idle connections to one host are kept.
const IDLE_PER_HOST_MAX: usize = 4;
/// How long a connection may take to come about.
const CONNECT_DURATION_MAX: Duration = Duration::from_secs(10);

/// Makes HTTP requests; cheap to clone.
#[derive(Clone, Debug)]
pub struct Egress(Arc<Clients>);

#[derive(Debug)]
struct Clients {
    filter: Arc<AddressFilter>,
    resolver: Resolver,
    certificates: Vec<reqwest::Certificate>,
    public: reqwest::Client,
    configured: reqwest::Client,
    servers: reqwest::Client,
    detours: Cache<Arc<Detour>, reqwest::Client>,
}

/// Who chose where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// A user or another server: public addresses alone, and those the operator allows.
    Public,
    /// The operator, in the configuration or as an administrator: any address.
    Configured,
}

/// What bounds a request.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the first attempt to connect to the last byte of the answer, redirects included.
    pub duration_max: Duration,
    /// The body of the answer.
    pub bytes_max: usize,
    /// How often a GET is sent elsewhere.
    pub redirects_max: usize,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Call {
    /// The method; only GET and HEAD follow redirects.
    pub method: Method,
    /// Where to: `http` or `https`.
    pub url: Url,
    /// Headers besides those HTTP needs.
    pub headers: HeaderMap,
    /// The body; empty for none.
    pub body: Bytes,
    /// Who chose the address.
    pub reach: Reach,
    /// What bounds it.
    pub limits: Limits,
}

/// An answer, whole.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// Where it came from in the end.
    pub url: Url,
    /// The body.
    pub body: Bytes,
}

/// An answer whose body is still to come.
#[derive(Debug)]
pub struct Incoming {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// Where it comes from in the end.
    pub url: Url,
    response: reqwest::Response,
    left: usize,
    deadline: Instant,
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// It may not go there.
    #[error("requests to {0} are not allowed")]
    Blocked(String),
    /// It took too long.
    #[error("the request took too long")]
    Timeout,
    /// The answer is too large.
    #[error("the answer is too large")]
    TooLarge,
    /// It was sent elsewhere too often, or to an address that is none.
    #[error("the answer leads to too many redirects or to no address")]
    Redirects,
    /// A name that has no addresses.
    #[error("no address of {0} was found")]
    NoAddress(String, #[source] io::Error),
    /// The other side cannot be reached or does not speak HTTP.
    #[error("the request failed")]
    Failed(#[source] reqwest::Error),
}

/// Why no request can be made at all.
#[derive(Debug, thiserror::Error)]
pub enum EgressStartError {
    /// The clients cannot be made, or a certificate is none.
    #[error("no HTTP client can be made")]
    Client(#[from] reqwest::Error),
    /// A file of certificates cannot be read.
    #[error("the certificates in {path} cannot be read")]
    Certificates {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Egress {
    /// Makes the clients.
    pub fn new(config: &EgressConfig) -> Result<Self, EgressStartError> {
        let filter =
            Arc::new(AddressFilter::new(&config.allowed_networks, &config.denied_networks));
        let resolver = Resolver::new(filter.clone());
        let certificates = certificates(&config.trusted_certificates)?;
        let public = builder(&certificates).dns_resolver(resolver.clone());
        let configured = builder(&certificates);
        let servers = route::builder(&certificates).dns_resolver(resolver.clone());
        Ok(Self(Arc::new(Clients {
            public: public.build()?,
            configured: configured.build()?,
            servers: servers.build()?,
            detours: Cache::new(route::CLIENTS_MAX),
            filter,
            resolver,
            certificates,
        })))
    }

    /// Makes a request and reads the whole answer.
    pub async fn call(&self, call: Call) -> Result<Answer, EgressError> {
        let mut incoming = self.open(call).await?;
        let body = incoming.rest().await?;
        let Incoming { status, headers, url, .. } = incoming;
        Ok(Answer { status, headers, url, body })
    }

    /// Makes a request and reads the head of the answer.
    pub async fn open(&self, call: Call) -> Result<Incoming, EgressError> {
        self.open_where(call, |_| true).await
    }

    /// The same, but goes only where `allowed` says, also when it is sent elsewhere.
    pub async fn open_where(
        &self,
        mut call: Call,
        allowed: impl Fn(&Url) -> bool,
    ) -> Result<Incoming, EgressError> {
        let deadline = Instant::now() + call.limits.duration_max;
        let mut redirects = 0;
        loop {
            if !allowed(&call.url) {
                return Err(EgressError::Blocked(
                    call.url.host_str().unwrap_or_default().to_owned(),
                ));
            }
            let response = send(self.client(&call)?, &call, deadline).await?;
            let follows = call.method == Method::GET || call.method == Method::HEAD;
            if follows && response.status().is_redirection() {
                let location = response.headers().get(LOCATION).and_then(|url| url.to_str().ok());
                if let Some(location) = location {
                    let next = call.url.join(location).map_err(|_| EgressError::Redirects)?;
                    redirects += 1;
                    if redirects > call.limits.redirects_max {
                        return Err(EgressError::Redirects);
                    }
                    call.redirect_to(next);
                    continue;
                }
            }
            return Ok(Incoming::new(response, call, deadline));
        }
    }

    /// The client for whoever chose the address.
    fn client(&self, call: &Call) -> Result<&reqwest::Client, EgressError> {
        match call.reach {
            Reach::Public => {
                self.0.filter.check_url(&call.url)?;
                Ok(&self.0.public)
            }
            Reach::Configured => Ok(&self.0.configured),
        }
    }
}

/// What all clients have in common.
fn builder(certificates: &[reqwest::Certificate]) -> reqwest::ClientBuilder {
    // Another part may have chosen it already; it is the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .user_agent(concat!("Causerie/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_DURATION_MAX)
        .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
        .tls_certs_merge(certificates.iter().cloned())
}

/// Reads the certificates that are trusted besides those of the system.
fn certificates(paths: &[PathBuf]) -> Result<Vec<reqwest::Certificate>, EgressStartError> {
    let mut all = Vec::new();
    for path in paths {
        let unreadable = |source| EgressStartError::Certificates { path: path.clone(), source };
        let pem = std::fs::read(path).map_err(unreadable)?;
        let found = reqwest::Certificate::from_pem_bundle(&pem)?;
        if found.is_empty() {
            return Err(unreadable(io::Error::other("there is no certificate in it")));
        }
        all.extend(found);
    }
    Ok(all)
}

/// Sends a request once and reads the head of the answer.
async fn send(
    client: &reqwest::Client,
    call: &Call,
    deadline: Instant,
) -> Result<reqwest::Response, EgressError> {
    let request = client
        .request(call.method.clone(), call.url.clone())
        .headers(call.headers.clone())
        .body(call.body.clone())
        .send();
    match tokio::time::timeout_at(deadline, request).await {
        Ok(response) => response.map_err(failure),
        Err(_elapsed) => Err(EgressError::Timeout),
    }
}

impl Limits {
    /// For a short exchange of JSON with a service.
    pub const JSON: Self =
        Self { duration_max: Duration::from_secs(30), bytes_max: 1024 * 1024, redirects_max: 0 };
}

impl Call {
    /// Goes elsewhere; what authenticates us stays with the origin it was meant for.
    fn redirect_to(&mut self, url: Url) {
        if url.origin() != self.url.origin() {
            self.headers.remove(AUTHORIZATION);
            self.headers.remove(COOKIE);
        }
        self.url = url;
    }
}

impl Incoming {
    fn new(response: reqwest::Response, call: Call, deadline: Instant) -> Self {
        Self {
            status: response.status(),
            headers: response.headers().clone(),
            url: call.url,
            response,
            left: call.limits.bytes_max,
            deadline,
        }
    }

    /// Reads the rest of the body, which may be no larger than this.
    pub async fn at_most(&mut self, bytes_max: usize) -> Result<Bytes, EgressError> {
        self.left = self.left.min(bytes_max);
        self.rest().await
    }

    /// Reads the rest of the body.
    pub async fn rest(&mut self) -> Result<Bytes, EgressError> {
        let mut body = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    /// The next part of the body; `None` at its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, EgressError> {
        let chunk = tokio::time::timeout_at(self.deadline, self.response.chunk());
        let Ok(chunk) = chunk.await else { return Err(EgressError::Timeout) };
        let Some(chunk) = chunk.map_err(failure)? else { return Ok(None) };
        self.left = self.left.checked_sub(chunk.len()).ok_or(EgressError::TooLarge)?;
        Ok(Some(chunk))
    }
}

/// Tells what our resolver refused from other failures.
fn failure(error: reqwest::Error) -> EgressError {
    // Where connecting took too long, another address may be quicker.
    if error.is_timeout() && !error.is_connect() {
        return EgressError::Timeout;
    }
    let mut cause: Option<&(dyn StdError + 'static)> = error.source();
    while let Some(source) = cause {
        if let Some(blocked) = source.downcast_ref::<Blocked>() {
            return EgressError::Blocked(blocked.0.clone());
        }
        cause = source.source();
    }
    EgressError::Failed(error.without_url())
}

#[cfg(test)]
mod tests;

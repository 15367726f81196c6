//! The one way out: every HTTP request that this server makes itself.
//!
//! Called by whoever fetches previews, pushes to gateways or talks to application services. An
//! address that a user or another server chose ([`Reach::Public`]) leads to public addresses only:
//! the address is checked as written, as resolved and again at each redirect, so that nobody makes
//! this server knock at its own network. Time and size have caps; nothing is decompressed.
//!
//! Attack cases T96, T101, T102.

mod address;
mod resolve;

use std::{error::Error as StdError, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, Method, StatusCode,
    header::{AUTHORIZATION, COOKIE, LOCATION},
};
use tokio::time::Instant;
use url::Url;

use self::{
    address::AddressFilter,
    resolve::{Blocked, Resolver},
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
    public: reqwest::Client,
    configured: reqwest::Client,
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
    /// The other side cannot be reached or does not speak HTTP.
    #[error("the request failed")]
    Failed(#[source] reqwest::Error),
}

impl Egress {
    /// Makes the clients.
    pub fn new(config: &EgressConfig) -> Result<Self, reqwest::Error> {
        let filter =
            Arc::new(AddressFilter::new(&config.allowed_networks, &config.denied_networks));
        let builder = || {
            // Another part may have chosen it already; it is the same one.
            let _ = rustls::crypto::ring::default_provider().install_default();
            reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .referer(false)
                .user_agent(concat!("Causerie/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT_DURATION_MAX)
                .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
        };
        let public = builder().dns_resolver(Resolver::new(filter.clone())).build()?;
        let configured = builder().build()?;
        Ok(Self(Arc::new(Clients { filter, public, configured })))
    }

    /// Makes a request and reads the whole answer.
    pub async fn call(&self, call: Call) -> Result<Answer, EgressError> {
        let mut incoming = self.open(call).await?;
        let mut body = BytesMut::new();
        while let Some(chunk) = incoming.chunk().await? {
            body.extend_from_slice(&chunk);
        }
        let Incoming { status, headers, url, .. } = incoming;
        Ok(Answer { status, headers, url, body: body.freeze() })
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
            let response = self.send(&call, deadline).await?;
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
            return Ok(Incoming {
                status: response.status(),
                headers: response.headers().clone(),
                url: call.url,
                response,
                left: call.limits.bytes_max,
                deadline,
            });
        }
    }

    async fn send(&self, call: &Call, deadline: Instant) -> Result<reqwest::Response, EgressError> {
        let client = match call.reach {
            Reach::Public => {
                self.0.filter.check_url(&call.url)?;
                &self.0.public
            }
            Reach::Configured => &self.0.configured,
        };
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
    if error.is_timeout() {
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

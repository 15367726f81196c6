//! Where to find a server: its name may carry an address, or stand for another host by its
//! `.well-known` file or in the DNS.
//!
//! What is found out is kept as long as the other side says, within bounds, so that a server is
//! asked for seldom; and also that nothing was found, so that a server that is not there costs
//! little. Attack cases T96, T102.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#resolving-server-names>

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{CACHE_CONTROL, EXPIRES},
};
use ruma::{OwnedServerName, ServerName};
use serde::Deserialize;
use url::Url;

use super::{client::FederationError, dns::Dns};
use crate::{
    egress::{Call, Egress, EgressError, Limits, Reach, Route},
    time::Clock,
};

/// Where servers listen that say nothing else.
const DEFAULT_PORT: u16 = 8448;
/// What is read of a `.well-known` file.
const WELL_KNOWN_LIMITS: Limits =
    Limits { duration_max: Duration::from_secs(10), bytes_max: 50 * 1024, redirects_max: 5 };
/// How long a delegation is kept where its server does not say, and the bounds of what it says.
const KEPT_UNSAID: Duration = Duration::from_hours(24);
const KEPT_MIN: Duration = Duration::from_mins(5);
const KEPT_MAX: Duration = Duration::from_hours(48);
/// How long it is kept that there is no delegation: at first after a failure, and at most.
const FAILURE_KEPT: Duration = Duration::from_mins(5);
const FAILURE_KEPT_MAX: Duration = Duration::from_hours(1);
/// How many hosts of one server are tried.
const HOSTS_MAX: usize = 5;

/// A way to a server.
#[derive(Clone, Debug)]
pub(super) struct Way {
    /// Scheme, host and port: whom the certificate has to name, and where to connect.
    pub(super) url: Url,
    /// What the request says in `Host`.
    pub(super) host: HeaderValue,
    /// How to connect.
    pub(super) route: Route,
}

/// What was found out of one server.
#[derive(Debug, Default)]
pub(super) struct Discovered {
    ways: Option<(Arc<[Way]>, Duration)>,
    delegation: Delegation,
}

/// What a server's `.well-known` file says.
#[derive(Debug, Default)]
struct Delegation {
    server: Option<OwnedServerName>,
    /// By the monotonic clock: when the server was last told of, and until when it is not asked.
    told: Duration,
    kept_until: Option<Duration>,
    failures: u32,
}

/// Finds servers.
#[derive(Debug)]
pub(super) struct Discovery {
    egress: Egress,
    clock: Clock,
    dns: Dns,
    well_known_port: u16,
}

/// <https://spec.matrix.org/v1.19/server-server-api/#getwell-knownmatrixserver>
#[derive(Deserialize)]
struct WellKnown {
    #[serde(rename = "m.server")]
    server: String,
}

impl Discovery {
    pub(super) fn new(egress: Egress, clock: Clock) -> Self {
        Self { egress, clock, dns: Dns::system(), well_known_port: 443 }
    }

    /// Asks others than the system's name servers, and reads `.well-known` files from another port.
    #[cfg(test)]
    pub(super) fn in_test(&mut self, dns: Dns, well_known_port: u16) {
        (self.dns, self.well_known_port) = (dns, well_known_port);
    }

    /// The ways to a server, the best first; never none.
    pub(super) async fn ways(
        &self,
        server: &ServerName,
        known: &mut Discovered,
    ) -> Result<Arc<[Way]>, FederationError> {
        let now = self.clock.monotonic();
        if let Some((ways, until)) = &known.ways
            && now < *until
        {
            return Ok(Arc::clone(ways));
        }
        if is_address(server) {
            return Ok([self.straight(server)?].into());
        }
        self.refresh(server, &mut known.delegation).await;
        let delegated = known.delegation.server.as_deref().unwrap_or(server);
        let delegated_until = known.delegation.kept_until.unwrap_or(now);
        let (ways, until) = if is_address(delegated) {
            ([self.straight(delegated)?].into(), delegated_until)
        } else {
            let (ways, kept) = self.by_name(delegated).await?;
            (ways, delegated_until.min(now + kept))
        };
        known.ways = Some((Arc::clone(&ways), until));
        Ok(ways)
    }

    /// The way to a name that needs no looking up but that of its host.
    fn straight(&self, server: &ServerName) -> Result<Way, FederationError> {
        let port = server.port().unwrap_or(DEFAULT_PORT);
        way(server.host(), port, server, self.egress.direct())
    }

    /// The ways to a host that may have records of its own in the DNS, and how long they hold.
    async fn by_name(
        &self,
        server: &ServerName,
    ) -> Result<(Arc<[Way]>, Duration), FederationError> {
        let host = server.host();
        let services = self.dns.services(host).await;
        if services.targets.is_empty() {
            return Ok(([self.straight(server)?].into(), services.kept));
        }
        let (mut ways, mut failure) = (Vec::new(), None);
        for target in services.targets.iter().take(HOSTS_MAX) {
            match self.egress.by_way_of(host, &target.host).await {
                Ok(route) => ways.push(way(host, target.port, server, route)?),
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if ways.is_empty() => Err(error.into()),
            _ => Ok((ways.into(), services.kept)),
        }
    }

    /// Reads the `.well-known` file again if it is time to.
    async fn refresh(&self, server: &ServerName, delegation: &mut Delegation) {
        let now = self.clock.monotonic();
        if delegation.kept_until.is_some_and(|until| now < until) {
            return;
        }
        match self.well_known(server.host()).await {
            Ok((delegated, kept)) => {
                tracing::debug!(%server, %delegated, "a server is delegated");
                *delegation = Delegation {
                    server: Some(delegated),
                    told: now,
                    kept_until: Some(now + kept),
                    failures: 0,
                };
            }
            Err(reason) => {
                tracing::debug!(%server, reason, "a server is not delegated");
                delegation.missed(now);
            }
        }
    }

    /// What the `.well-known` file of a host says, and how long it holds.
    async fn well_known(&self, host: &str) -> Result<(OwnedServerName, Duration), String> {
        let url = format!("https://{host}:{}/.well-known/matrix/server", self.well_known_port);
        let call = Call {
            method: Method::GET,
            url: Url::parse(&url).map_err(|error| error.to_string())?,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            reach: Reach::Public,
            limits: WELL_KNOWN_LIMITS,
        };
        let secure = |url: &Url| url.scheme() == "https";
        let text = |error: EgressError| error.to_string();
        let mut incoming = self.egress.open_where(call, secure).await.map_err(text)?;
        if incoming.status != StatusCode::OK {
            return Err(format!("it answered {}", incoming.status));
        }
        let body = incoming.rest().await.map_err(text)?;
        let told: WellKnown = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        let server = ServerName::parse(&told.server).map_err(|error| error.to_string())?;
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(self.clock.now().get().into());
        Ok((server, kept(&incoming.headers, now)))
    }
}

impl Delegation {
    /// Notes that the file could not be read. What it said before holds a while longer.
    fn missed(&mut self, now: Duration) {
        if now.saturating_sub(self.told) > KEPT_MAX {
            self.server = None;
        }
        let pause = FAILURE_KEPT.saturating_mul(1 << self.failures.min(8)).min(FAILURE_KEPT_MAX);
        self.kept_until = Some(now + pause);
        self.failures = self.failures.saturating_add(1);
    }
}

/// Whether a name says where to connect, so that nothing else may.
fn is_address(server: &ServerName) -> bool {
    server.is_ip_literal() || server.port().is_some()
}

fn way(host: &str, port: u16, server: &ServerName, route: Route) -> Result<Way, FederationError> {
    let unusable = FederationError::BadAnswer("the name of the server leads to no address");
    let Ok(url) = Url::parse(&format!("https://{host}:{port}/")) else { return Err(unusable) };
    let Ok(host) = HeaderValue::from_str(server.as_str()) else { return Err(unusable) };
    Ok(Way { url, host, route })
}

/// How long an answer may be kept, as its headers say, within our bounds.
fn kept(headers: &HeaderMap, now: SystemTime) -> Duration {
    let control = headers.get(CACHE_CONTROL).and_then(|value| value.to_str().ok());
    for directive in control.unwrap_or_default().split(',') {
        let directive = directive.trim().to_ascii_lowercase();
        if directive == "no-store" || directive == "no-cache" {
            return KEPT_MIN;
        }
        let seconds = directive.strip_prefix("max-age=").map(|age| age.trim_matches('"'));
        if let Some(seconds) = seconds.and_then(|seconds| seconds.parse().ok()) {
            return Duration::from_secs(seconds).clamp(KEPT_MIN, KEPT_MAX);
        }
    }
    let expires = headers.get(EXPIRES).and_then(|value| value.to_str().ok());
    let Some(expires) = expires else { return KEPT_UNSAID };
    // A date that cannot be read has passed (RFC 9111, 5.3).
    let until = httpdate::parse_http_date(expires).unwrap_or(SystemTime::UNIX_EPOCH);
    let left = until.duration_since(now).unwrap_or_default();
    left.clamp(KEPT_MIN, KEPT_MAX)
}

//! The way to another homeserver, whose name may stand for a host of another name.
//!
//! Requests between servers carry the `Host` that the specification says, which HTTP/2 has no place
//! for beside the address: so they are HTTP/1.1. They follow no redirects.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#resolving-server-names>

use std::net::SocketAddr;

use tokio::time::Instant;

use super::{
    Call, Egress, EgressError, Incoming,
    resolve::{Blocked, LookupError},
    send,
};

/// A way to another server; cheap to clone.
#[derive(Clone, Debug)]
pub struct Route(reqwest::Client);

/// What the clients of all routes have in common.
pub(super) fn builder(certificates: &[reqwest::Certificate]) -> reqwest::ClientBuilder {
    super::builder(certificates).http1_only()
}

impl Egress {
    /// The way to hosts by their own names.
    pub fn direct(&self) -> Route {
        Route(self.0.servers.clone())
    }

    /// The way to a host by the addresses of another: what answers there has to prove that it is
    /// `host`.
    ///
    /// # Errors
    /// [`EgressError::Blocked`] when one of the addresses is forbidden.
    pub async fn by_way_of(&self, host: &str, other: &str) -> Result<Route, EgressError> {
        let addresses = self.0.resolver.lookup(other).await.map_err(|error| match error {
            LookupError::Blocked(Blocked(name)) => EgressError::Blocked(name),
            LookupError::Failed(error) => EgressError::NoAddress(other.to_owned(), error),
        })?;
        self.to_addresses(host, &addresses)
    }

    fn to_addresses(&self, host: &str, addresses: &[SocketAddr]) -> Result<Route, EgressError> {
        let client = builder(&self.0.certificates).resolve_to_addrs(host, addresses);
        Ok(Route(client.build().map_err(EgressError::Failed)?))
    }

    /// Makes a request to another server and reads the head of the answer, whatever it is.
    pub async fn open_by(&self, route: &Route, call: Call) -> Result<Incoming, EgressError> {
        self.0.filter.check_url(&call.url)?;
        let deadline = Instant::now() + call.limits.duration_max;
        let response = send(&route.0, &call, deadline).await?;
        Ok(Incoming::new(response, call, deadline))
    }
}

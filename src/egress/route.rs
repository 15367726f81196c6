//! The way to another homeserver, whose name may stand for a host of another name.
//!
//! Requests between servers carry the `Host` that the specification says, which HTTP/2 has no place
//! for beside the address: so they are HTTP/1.1. They follow no redirects.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#resolving-server-names>

use std::{net::SocketAddr, sync::Arc};

use tokio::time::Instant;

use super::{
    Call, Egress, EgressError, Incoming,
    resolve::{Blocked, LookupError},
    send,
};

/// For how many hosts that are reached by way of others a client is kept.
pub(super) const CLIENTS_MAX: usize = 256;

/// A way to another server; cheap to clone, and small: many are kept.
#[derive(Clone, Debug)]
pub struct Route(Option<Arc<Detour>>);

/// A host, and the addresses of another that are used for it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Detour {
    host: String,
    addresses: Vec<SocketAddr>,
}

/// What the clients of all routes have in common.
pub(super) fn builder(certificates: &[reqwest::Certificate]) -> reqwest::ClientBuilder {
    super::builder(certificates).http1_only()
}

impl Egress {
    /// The way to hosts by their own names.
    pub fn direct(&self) -> Route {
        Route(None)
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
        Ok(Route(Some(Arc::new(Detour { host: host.to_owned(), addresses }))))
    }

    /// The client for a route. One costs about 100 KB and milliseconds to make, so that those of the
    /// hosts that are asked most are kept, and no more than so many.
    fn client_for(&self, route: &Route) -> Result<reqwest::Client, EgressError> {
        let Some(detour) = &route.0 else { return Ok(self.0.servers.clone()) };
        self.0.detours.get_or_insert_with(detour, || {
            let client = builder(&self.0.certificates)
                .resolve_to_addrs(&detour.host, &detour.addresses)
                // Should another name than that one ever be looked up.
                .dns_resolver(self.0.resolver.clone());
            client.build().map_err(EgressError::Failed)
        })
    }

    /// Makes a request to another server and reads the head of the answer, whatever it is.
    pub async fn open_by(&self, route: &Route, call: Call) -> Result<Incoming, EgressError> {
        self.0.filter.check_url(&call.url)?;
        let deadline = Instant::now() + call.limits.duration_max;
        let response = send(&self.client_for(route)?, &call, deadline).await?;
        Ok(Incoming::new(response, call, deadline))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EgressConfig;

    /// Attack case T102: whoever has many names costs little memory.
    #[tokio::test]
    async fn t102_clients_for_detours_are_few() {
        let config = EgressConfig {
            allowed_networks: vec!["127.0.0.1".parse().unwrap()],
            ..EgressConfig::default()
        };
        let egress = Egress::new(&config).unwrap();
        let mut routes = Vec::new();
        for number in 0..CLIENTS_MAX + 10 {
            let route = egress.by_way_of(&format!("{number}.test"), "127.0.0.1").await.unwrap();
            egress.client_for(&route).unwrap();
            routes.push(route);
        }
        assert!(egress.0.detours.len() <= CLIENTS_MAX, "{}", egress.0.detours.len());
        egress.client_for(&egress.direct()).unwrap();
    }
}

//! Names become addresses, of which none may be forbidden.
//!
//! A name with one forbidden address is refused as a whole: whoever mixes them wants us to try. The
//! connection is made to the addresses that were checked here; the name is not looked up again.

use std::{io, net::SocketAddr, sync::Arc};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::address::AddressFilter;

/// A name that leads to an address that is not public.
#[derive(Debug, thiserror::Error)]
#[error("{0} leads to an address that is not public")]
pub(super) struct Blocked(pub(super) String);

/// The system's resolver behind the filter.
pub(super) struct Resolver(Arc<AddressFilter>);

impl Resolver {
    pub(super) fn new(filter: Arc<AddressFilter>) -> Self {
        Self(filter)
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let filter = Arc::clone(&self.0);
        Box::pin(async move {
            let addresses: Vec<SocketAddr> =
                tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            if addresses.is_empty() {
                return Err(io::Error::from(io::ErrorKind::NotFound).into());
            }
            if addresses.iter().any(|address| !filter.allows(address.ip())) {
                return Err(Blocked(name.as_str().to_owned()).into());
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

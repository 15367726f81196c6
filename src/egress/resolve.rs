//! Names become addresses, of which none may be forbidden.
//!
//! A name with one forbidden address is refused as a whole: whoever mixes them wants us to try. The
//! connection is made to the addresses that were checked here; the name is not looked up again.
//!
//! A look-up occupies a thread of the pool that reads of the store need too, for as long as the
//! name server likes: so few run at once, and the others wait until the call that needs them gives
//! up.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
    sync::Arc,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;

use super::address::AddressFilter;

/// How many names are looked up at once.
const LOOKUPS_AT_ONCE: usize = 8;
/// How many addresses of a name are kept: more are not tried.
const ADDRESSES_MAX: usize = 16;

/// A name that leads to an address that is not public.
#[derive(Debug, thiserror::Error)]
#[error("{0} leads to an address that is not public")]
pub(super) struct Blocked(pub(super) String);

/// Why a name has no addresses.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookupError {
    /// It leads where nobody may go.
    #[error(transparent)]
    Blocked(#[from] Blocked),
    /// It could not be looked up, or has none.
    #[error(transparent)]
    Failed(#[from] io::Error),
}

/// The system's resolver behind the filter; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Resolver {
    filter: Arc<AddressFilter>,
    slots: Arc<Semaphore>,
}

impl Resolver {
    pub(super) fn new(filter: Arc<AddressFilter>) -> Self {
        Self { filter, slots: Arc::new(Semaphore::new(LOOKUPS_AT_ONCE)) }
    }
}

impl Resolver {
    /// The addresses of a name, none of which is forbidden; their port is 0.
    pub(super) async fn lookup(&self, host: &str) -> Result<Vec<SocketAddr>, LookupError> {
        let name = host.to_owned();
        let look = move || Ok((name.as_str(), 0).to_socket_addrs()?.collect());
        let mut addresses: Vec<SocketAddr> = in_slot(Arc::clone(&self.slots), look).await?;
        if addresses.is_empty() {
            return Err(io::Error::from(io::ErrorKind::NotFound).into());
        }
        if addresses.iter().any(|address| !self.filter.allows(address.ip())) {
            return Err(Blocked(host.to_owned()).into());
        }
        addresses.truncate(ADDRESSES_MAX);
        Ok(addresses)
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            match resolver.lookup(name.as_str()).await {
                Ok(addresses) => Ok(Box::new(addresses.into_iter()) as Addrs),
                Err(LookupError::Blocked(blocked)) => Err(blocked.into()),
                Err(LookupError::Failed(error)) => Err(error.into()),
            }
        })
    }
}

/// Runs what blocks, once there is a free slot.
async fn in_slot<T: Send + 'static>(
    slots: Arc<Semaphore>,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let permit = slots.acquire_owned().await.map_err(io::Error::other)?;
    // The permit goes along: a look-up whose call is gone still occupies its thread.
    let worked = tokio::task::spawn_blocking(move || {
        let result = work();
        drop(permit);
        result
    });
    worked.await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_lookup_keeps_its_slot_until_it_ends() {
        let slots = Arc::new(Semaphore::new(1));
        let (started, has_started) = tokio::sync::oneshot::channel();
        let (end, ends) = mpsc::channel::<()>();
        let slow = tokio::spawn(in_slot(Arc::clone(&slots), move || {
            started.send(()).unwrap();
            ends.recv().ok();
            Ok(())
        }));
        has_started.await.unwrap();
        slow.abort();
        assert!(slow.await.unwrap_err().is_cancelled());
        assert_eq!(slots.available_permits(), 0, "the thread is still busy");
        end.send(()).unwrap();
        assert_eq!(in_slot(slots, || Ok(7)).await.unwrap(), 7);
    }
}

//! Who is at the other end: the client's address, also behind a reverse proxy.
//!
//! `X-Forwarded-For` is believed only from trusted proxies, and then its right-most hop that is
//! not itself trusted: what stands left of it is the client's own claim.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use http::HeaderMap;

use crate::config::Network;

/// The address a request comes from, after trusted proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientAddress(pub IpAddr);

impl ClientAddress {
    /// What stands for a request without an address (a Unix socket without a proxy).
    pub const LOCAL: Self = Self(IpAddr::V4(Ipv4Addr::LOCALHOST));

    /// The address to limit rates by: of IPv6 the /64, since one client has all of it.
    #[must_use]
    pub fn limit_key(self) -> IpAddr {
        match self.0 {
            IpAddr::V4(_) => self.0,
            IpAddr::V6(address) => {
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))
            }
        }
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// The other end of a connection; the listener puts it into each request's extensions.
#[derive(Clone, Copy, Debug)]
pub enum Peer {
    /// A TCP connection from this address.
    Tcp(IpAddr),
    /// A Unix socket: a proxy on this machine, trusted by the socket's permissions.
    Unix,
}

/// The proxies whose `X-Forwarded-For` is believed. A Unix socket's other end always is.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(pub Vec<Network>);

impl TrustedProxies {
    /// The client of a request: the right-most hop that is not a trusted proxy.
    #[must_use]
    pub fn client(&self, peer: Peer, headers: &HeaderMap) -> ClientAddress {
        let mut client = match peer {
            Peer::Tcp(address) => {
                let address = address.to_canonical();
                if !self.trusts(address) {
                    return ClientAddress(address);
                }
                address
            }
            Peer::Unix => ClientAddress::LOCAL.0,
        };
        let values = headers.get_all("x-forwarded-for");
        let hops: Vec<&str> = values
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .collect();
        for hop in hops.into_iter().rev() {
            let Some(address) = parse_hop(hop.trim()) else { break };
            client = address;
            if !self.trusts(address) {
                break;
            }
        }
        ClientAddress(client)
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }
}

/// An address, with or without a port: some proxies add it.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let address = hop.parse::<IpAddr>().ok();
    let address = address.or_else(|| hop.parse::<SocketAddr>().ok().map(|address| address.ip()));
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(trusted: &[&str], peer: &str, forwarded: &[&'static str]) -> String {
        let trusted = TrustedProxies(trusted.iter().map(|text| text.parse().unwrap()).collect());
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", http::HeaderValue::from_static(value));
        }
        let peer = if peer.is_empty() { Peer::Unix } else { Peer::Tcp(peer.parse().unwrap()) };
        trusted.client(peer, &headers).to_string()
    }

    #[test]
    fn t71_forwarded_for_is_believed_only_from_trusted_proxies() {
        assert_eq!(client(&[], "203.0.113.9", &["1.2.3.4"]), "203.0.113.9");
        assert_eq!(client(&["10.0.0.0/8"], "203.0.113.9", &["1.2.3.4"]), "203.0.113.9");
        assert_eq!(client(&["10.0.0.0/8"], "10.1.1.1", &["1.2.3.4"]), "1.2.3.4");
        // The client wrote 6.6.6.6 itself; the proxy appended where it really came from.
        assert_eq!(client(&["10.0.0.0/8"], "10.1.1.1", &["6.6.6.6, 1.2.3.4"]), "1.2.3.4");
        assert_eq!(
            client(&["10.0.0.0/8"], "10.1.1.1", &["6.6.6.6", "1.2.3.4, 10.2.2.2"]),
            "1.2.3.4"
        );
        assert_eq!(client(&["10.0.0.0/8"], "10.1.1.1", &["6.6.6.6, nonsense"]), "10.1.1.1");
        assert_eq!(client(&["10.0.0.0/8"], "10.1.1.1", &[]), "10.1.1.1");
        assert_eq!(client(&["::1"], "::1", &["[2001:db8::1]:443"]), "2001:db8::1");
        assert_eq!(client(&["127.0.0.1"], "::ffff:127.0.0.1", &["1.2.3.4:80"]), "1.2.3.4");
        assert_eq!(client(&[], "", &["6.6.6.6, 1.2.3.4"]), "1.2.3.4");
    }

    #[test]
    fn an_ipv6_client_is_limited_by_its_64() {
        let one = ClientAddress("2001:db8:0:1::1".parse().unwrap());
        let other = ClientAddress("2001:db8:0:1:ffff::2".parse().unwrap());
        assert_eq!(one.limit_key(), other.limit_key());
    }
}

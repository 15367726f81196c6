//! Which addresses a request may reach that a user or another server asked for: public ones.
//!
//! <https://www.iana.org/assignments/iana-ipv4-special-registry/> and its counterpart for IPv6 list
//! the others. Addresses that carry an IPv4 address inside (mapped, compatible, 6to4, NAT64,
//! Teredo) are as good as the one they carry, or refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

use super::EgressError;
use crate::config::Network;

/// What is not public, besides what the operator adds.
const DENIED: [&str; 29] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/32",
    "2001:2::/48",
    "2001:10::/28",
    "2001:20::/28",
    "2001:db8::/32",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
];

/// Ports below 1024 that speak HTTP. Others there are mail, remote shells and the like.
const LOW_PORTS: [u16; 2] = [80, 443];

/// Decides about addresses.
#[derive(Debug)]
pub(super) struct AddressFilter {
    allowed: Vec<Network>,
    denied: Vec<Network>,
}

impl AddressFilter {
    /// What the operator allows wins, then what the operator denies, then the list above.
    pub(super) fn new(allowed: &[Network], denied: &[Network]) -> Self {
        let special = DENIED.iter().map(|network| {
            network.parse().expect("the list above has networks only, as a test sees")
        });
        Self { allowed: allowed.to_vec(), denied: denied.iter().copied().chain(special).collect() }
    }

    /// Whether a request may connect there.
    pub(super) fn allows(&self, address: IpAddr) -> bool {
        if self.is_in(&self.allowed, address) {
            return true;
        }
        if let IpAddr::V6(address) = address
            && let Some(carried) = carried(address)
        {
            return self.allows(IpAddr::V4(carried));
        }
        !self.is_in(&self.denied, address)
    }

    #[expect(clippy::unused_self, reason = "reads as a sentence where it is called")]
    fn is_in(&self, networks: &[Network], address: IpAddr) -> bool {
        networks.iter().any(|network| network.contains(address))
    }

    /// Refuses what can be seen to be wrong before any name is resolved.
    pub(super) fn check_url(&self, url: &Url) -> Result<(), EgressError> {
        let blocked = || EgressError::Blocked(shown(url));
        if !matches!(url.scheme(), "http" | "https") {
            return Err(blocked());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(blocked());
        }
        let port = url.port_or_known_default().ok_or_else(blocked)?;
        if port < 1024 && !LOW_PORTS.contains(&port) {
            return Err(blocked());
        }
        let allowed = match url.host() {
            Some(Host::Ipv4(address)) => self.allows(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => self.allows(IpAddr::V6(address)),
            Some(Host::Domain(name)) => !name.trim_end_matches('.').is_empty(),
            None => false,
        };
        if allowed { Ok(()) } else { Err(blocked()) }
    }
}

/// The IPv4 address that an IPv6 address leads to.
fn carried(address: Ipv6Addr) -> Option<Ipv4Addr> {
    if let Some(mapped) = address.to_ipv4_mapped() {
        return Some(mapped);
    }
    let [first, second, third, _, _, _, seventh, eighth] = address.segments();
    let of = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match (first, second) {
        (0x2002, _) => Some(of(second, third)),
        (0x64, 0xff9b) if address.segments()[2..6] == [0; 4] => Some(of(seventh, eighth)),
        _ => None,
    }
}

/// The address for an error: without what may be secret.
fn shown(url: &Url) -> String {
    let host = url.host_str().unwrap_or("an address without a host");
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attack case T101: the addresses as they are written.
    #[test]
    fn t101_only_public_addresses_are_reached() {
        let filter = AddressFilter::new(&[], &["198.41.0.0/16".parse().unwrap()]);
        let blocked = [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0.0.0.0/",
            "http://[::]/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::127.0.0.1]/",
            "http://[2002:7f00:1::]/",
            "http://[64:ff9b::7f00:1]/",
            "http://[64:ff9b:1::1]/",
            "http://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/",
            "http://169.254.169.254/",
            "http://a@127.0.0.1/",
            "http://a@example.org/",
            "http://example.org:22/",
            "http://example.org:25/",
            "http://198.41.0.4/",
            "file:///etc/passwd",
            "gopher://example.org/",
            "http://100.64.0.1/",
            "http://[fe80::1]/",
            "http://[fd00::1]/",
        ];
        for url in blocked {
            let parsed = Url::parse(url).unwrap();
            assert!(filter.check_url(&parsed).is_err(), "{url}");
        }
        for url in [
            "http://example.org/",
            "https://8.8.8.8:8448/",
            "http://[2606:4700::1111]/",
            "http://[64:ff9b::808:808]/",
        ] {
            filter.check_url(&Url::parse(url).unwrap()).expect(url);
        }
    }

    #[test]
    fn the_operator_opens_networks() {
        let filter = AddressFilter::new(&["127.0.0.0/8".parse().unwrap()], &[]);
        filter.check_url(&Url::parse("http://127.0.0.1:8080/").unwrap()).unwrap();
        assert!(filter.allows("::ffff:127.0.0.1".parse().unwrap()));
        assert!(!filter.allows("10.0.0.1".parse().unwrap()));
    }
}

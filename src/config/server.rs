//! The section `[server]`: the server's name, its listeners, and what stands in front of it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use ruma::OwnedServerName;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use url::Url;

use super::Network;

/// Who the server is and where it listens.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// The name of the server: the part after the colon in `@alice:example.org`. It is in every
    /// identifier that the server makes and can never be changed.
    ///
    /// Example: `"example.org"`
    pub name: OwnedServerName,

    /// Where the server listens. Each listener has an `address` (`"127.0.0.1:8008"`) or a
    /// `unix_socket` (a path, with `unix_socket_mode = "660"`); says whether it `serves`
    /// `"client"`, `"federation"` or `"both"`; and may speak TLS:
    /// `tls = { certificate = "/path/fullchain.pem", key = "/path/privkey.pem" }`.
    #[serde(default = "default_listeners")]
    pub listeners: Vec<Listener>,

    /// The address under which clients reach the server from outside, published in
    /// `/.well-known/matrix/client`. Without it no such file is served.
    ///
    /// Example: `"https://matrix.example.org"`
    #[serde(default)]
    pub public_base_url: Option<Url>,

    /// What else clients find in `/.well-known/matrix/client`, by the names that they know.
    ///
    /// Example: `{ "m.tile_server" = { "map_style_url" = "https://maps.example.org/style.json" } }`
    #[serde(default)]
    pub well_known_client: Map<String, Value>,

    /// The addresses and networks of your reverse proxies. Only from these is `X-Forwarded-For`
    /// believed; without an entry every user behind a proxy shares one rate limit.
    ///
    /// Example: `["127.0.0.1", "10.0.0.0/8"]`
    #[serde(default)]
    pub trusted_proxies: Vec<Network>,

    /// Whether `?access_token=…` in the address of a request is accepted. Such tokens end up in
    /// the logs of proxies; only very old clients need it.
    #[serde(default)]
    pub access_token_in_query: bool,
}

impl ServerConfig {
    pub(super) fn for_server(name: OwnedServerName) -> Self {
        Self {
            name,
            listeners: default_listeners(),
            public_base_url: None,
            well_known_client: Map::new(),
            trusted_proxies: Vec::new(),
            access_token_in_query: false,
        }
    }
}

fn default_listeners() -> Vec<Listener> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 8008));
    vec![Listener { address: ListenAddress::Tcp(address), serves: Serves::Both, tls: None }]
}

/// One place where the server listens.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "ListenerSettings", into = "ListenerSettings")]
pub struct Listener {
    /// Where.
    pub address: ListenAddress,
    /// Which APIs are answered here.
    pub serves: Serves,
    /// The certificate, if TLS ends here and not at a proxy.
    pub tls: Option<Tls>,
}

/// A TCP port or a unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix {
        /// Its path.
        path: PathBuf,
        /// The mode of its file, such as `0o660`.
        mode: u32,
    },
}

impl ListenAddress {
    /// Whether only programs on this machine can come in, and no proxy is meant to pass others on.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            // A unix socket exists for a proxy in front, and that one may be open to everybody.
            Self::Unix { .. } => false,
        }
    }
}

impl std::fmt::Display for ListenAddress {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(formatter),
            Self::Unix { path, .. } => path.display().fmt(formatter),
        }
    }
}

/// Which APIs a listener answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Serves {
    /// The client-server API.
    Client,
    /// The server-server API.
    Federation,
    /// Both on one port.
    #[default]
    Both,
}

impl Serves {
    /// Whether clients are answered.
    pub fn client(self) -> bool {
        self != Self::Federation
    }

    /// Whether other servers are answered.
    pub fn federation(self) -> bool {
        self != Self::Client
    }
}

/// A certificate and its key, both as PEM files.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The chain of certificates, the server's own first.
    pub certificate: PathBuf,
    /// The private key of the first.
    pub key: PathBuf,
}

/// A listener as it is written in the file.
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ListenerSettings {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unix_socket: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unix_socket_mode: Option<String>,
    #[serde(default)]
    serves: Serves,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tls: Option<Tls>,
}

impl TryFrom<ListenerSettings> for Listener {
    type Error = String;

    fn try_from(settings: ListenerSettings) -> Result<Self, String> {
        let ListenerSettings { address, unix_socket, unix_socket_mode, serves, tls } = settings;
        let address = match (address, unix_socket) {
            (Some(address), None) if unix_socket_mode.is_none() => {
                ListenAddress::Tcp(address.parse().map_err(|_| {
                    format!("`{address}` is not an IP address and a port, as in `127.0.0.1:8008`")
                })?)
            }
            (None, Some(path)) => {
                let mode = unix_socket_mode.as_deref().unwrap_or("660");
                ListenAddress::Unix { path, mode: parse_mode(mode)? }
            }
            _ => {
                return Err("a listener has either an `address` or a `unix_socket` (the latter \
                            may have a `unix_socket_mode`)"
                    .to_owned());
            }
        };
        Ok(Self { address, serves, tls })
    }
}

impl From<Listener> for ListenerSettings {
    fn from(Listener { address, serves, tls }: Listener) -> Self {
        let mut settings =
            Self { address: None, unix_socket: None, unix_socket_mode: None, serves, tls };
        match address {
            ListenAddress::Tcp(address) => settings.address = Some(address.to_string()),
            ListenAddress::Unix { path, mode } => {
                settings.unix_socket = Some(path);
                settings.unix_socket_mode = Some(format!("{mode:o}"));
            }
        }
        settings
    }
}

fn parse_mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err(format!("the `unix_socket_mode` `{text}` is not a file mode such as `660`")),
    }
}

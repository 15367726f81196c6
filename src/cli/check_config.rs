//! `causerie check-config`: whether the server would start with these settings.

use std::{fs, net::TcpListener, path::Path};

use anyhow::{Context, bail};

use super::say;
use crate::config::{Config, ListenAddress, Listener};

/// Settings that parse and make sense have come this far; what is left is what they point at.
pub(super) fn run(config: &Config) -> anyhow::Result<()> {
    check(config)?;
    say("the configuration is fine")?;
    Ok(())
}

fn check(config: &Config) -> anyhow::Result<()> {
    for listener in &config.server.listeners {
        check_listener(listener)?;
    }
    check_database(&config.database.path)
}

fn check_listener(listener: &Listener) -> anyhow::Result<()> {
    if let Some(tls) = &listener.tls {
        for path in [&tls.certificate, &tls.key] {
            fs::File::open(path).with_context(|| {
                let (address, path) = (&listener.address, path.display());
                format!("the listener on {address} needs {path}, which cannot be read")
            })?;
        }
    }
    match &listener.address {
        ListenAddress::Tcp(address) => check_address(*address),
        ListenAddress::Unix { path, .. } => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            match parent {
                Some(folder) if !folder.is_dir() => {
                    bail!("the unix socket {} needs a folder that does not exist", path.display())
                }
                _ => Ok(()),
            }
        }
    }
}

/// An address in use is no mistake: the server that uses it may be the one that runs already.
fn check_address(address: std::net::SocketAddr) -> anyhow::Result<()> {
    match TcpListener::bind(address) {
        Err(error) if error.kind() == std::io::ErrorKind::AddrNotAvailable => {
            bail!("this machine has no address {}", address.ip())
        }
        _ => Ok(()),
    }
}

fn check_database(path: &Path) -> anyhow::Result<()> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => {
            bail!("`database.path` is {}, which is a file and not a folder", path.display())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use ruma::server_name;
    use tempfile::TempDir;

    use super::*;
    use crate::config::{Serves, Tls};

    fn outcome(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::for_server(server_name!("example.org").to_owned());
        change(&mut config);
        check(&config).map_or_else(|error| error.to_string(), |()| "fine".to_owned())
    }

    #[test]
    fn what_the_settings_point_at_is_checked() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let missing = folder.path().join("missing");

        assert_eq!(outcome(|_| {}), "fine");
        let sentence = outcome(|config| config.database.path = file.clone());
        assert!(sentence.ends_with("which is a file and not a folder"), "{sentence}");
        let sentence = outcome(|config| {
            let tls = Tls { certificate: file.clone(), key: missing.clone() };
            config.server.listeners[0].tls = Some(tls);
        });
        assert!(sentence.ends_with("missing, which cannot be read"), "{sentence}");
        let sentence = outcome(|config| {
            let address = ListenAddress::Unix { path: missing.join("socket"), mode: 0o660 };
            config.server.listeners = vec![Listener { address, serves: Serves::Both, tls: None }];
        });
        assert!(sentence.ends_with("needs a folder that does not exist"), "{sentence}");
        let sentence = outcome(|config| {
            // An address that is kept for documentation, so no machine has it.
            let address = ListenAddress::Tcp("192.0.2.1:8008".parse().unwrap());
            config.server.listeners = vec![Listener { address, serves: Serves::Both, tls: None }];
        });
        assert_eq!(sentence, "this machine has no address 192.0.2.1");
    }
}

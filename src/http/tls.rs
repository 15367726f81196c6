//! TLS of a listener, for servers without a reverse proxy.

use std::{
    fs::File,
    io::{self, BufReader},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{ServerConfig, crypto::ring};
use tokio_rustls::TlsAcceptor;

/// Where the certificate and its key are.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate and its chain, PEM, the server's own first.
    pub certificate: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
}

/// Why TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// A file has not what it should.
    #[error("{} has no {wanted} in PEM form", .path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// What it should have.
        wanted: &'static str,
    },
    /// Certificate and key do not serve.
    #[error("the certificate and the key cannot be used")]
    Unusable(#[from] rustls::Error),
}

/// Loads the files; HTTP/2 and HTTP/1.1 are offered.
pub(super) fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, TlsError> {
    let certificates: Vec<_> = rustls_pemfile::certs(&mut open(&files.certificate)?)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::Read(files.certificate.clone(), error))?;
    if certificates.is_empty() {
        return Err(TlsError::Empty { path: files.certificate.clone(), wanted: "certificate" });
    }
    let key = rustls_pemfile::private_key(&mut open(&files.key)?)
        .map_err(|error| TlsError::Read(files.key.clone(), error))?
        .ok_or_else(|| TlsError::Empty { path: files.key.clone(), wanted: "private key" })?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn open(path: &Path) -> Result<BufReader<File>, TlsError> {
    let file = File::open(path).map_err(|error| TlsError::Read(path.to_owned(), error))?;
    Ok(BufReader::new(file))
}

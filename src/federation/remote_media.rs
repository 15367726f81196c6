//! Files of other servers: asked for with this server's signature, read a part at a time.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#content-repository>

use bytes::Bytes;
use ruma::ServerName;

use super::client::{Federation, FederationError};

/// A file of another server whose content is still to come.
#[derive(Debug)]
pub struct RemoteFile {
    /// What it is said to be: a MIME type, unchecked.
    pub content_type: Option<String>,
    /// What it is said to be called, unchecked.
    pub file_name: Option<String>,
    /// It is no larger than this, in bytes, where the other server says so.
    pub size_bytes_max: Option<u64>,
}

impl Federation {
    /// Asks a server for one of its files.
    pub async fn open_media(
        &self,
        _origin: &ServerName,
        _media_id: &str,
        _bytes_max: u64,
    ) -> Result<RemoteFile, FederationError> {
        Err(FederationError::BadAnswer("not yet"))
    }
}

impl RemoteFile {
    /// The next part of the content; `None` at its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, FederationError> {
        Ok(None)
    }
}

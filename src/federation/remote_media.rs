//! Files of other servers: asked for with this server's signature, read a part at a time.
//!
//! The answer is `multipart/mixed`: what is known of the file (nothing, so far), then the file, or
//! where it lies. Memory is bounded, whatever the other server sends. Servers that do not know the
//! request are asked as it was done before.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#content-repository>

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::{
    HeaderMap, HeaderName, Method, StatusCode,
    header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION},
};
use multer::Multipart;
use ruma::{
    ServerName, api::federation::authenticated_media::get_content::v1 as get_content,
    http_headers::ContentDisposition,
};
use tokio::time::timeout;
use url::Url;

use super::client::{Federation, FederationError};
use crate::egress::{Call, EgressError, Incoming, Limits, Reach};

/// How long a file may take, from the first byte sent to the last one read.
const DURATION_MAX: Duration = Duration::from_mins(10);
/// How often we follow where a file is said to lie.
const REDIRECTS_MAX: usize = 5;
/// What comes before the file at most: the first part, and the head of the second.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// A file of another server whose content is still to come.
pub struct RemoteFile {
    /// What it is said to be: a MIME type, unchecked.
    pub content_type: Option<String>,
    /// What it is said to be called, unchecked.
    pub file_name: Option<String>,
    /// It is no larger than this, in bytes, where the other server says so.
    pub size_bytes_max: Option<u64>,
    body: Body,
}

enum Body {
    Part(multer::Field<'static>),
    Plain(Incoming),
}

impl fmt::Debug for RemoteFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "RemoteFile({:?}, {:?})", self.content_type, self.file_name)
    }
}

impl Federation {
    /// Asks a server for one of its files, of which at most `bytes_max` bytes are read.
    ///
    /// # Errors
    /// [`FederationError::Refused`] with what the server says; [`EgressError::TooLarge`] also later,
    /// from [`RemoteFile::chunk`].
    pub async fn open_media(
        &self,
        origin: &ServerName,
        media_id: &str,
        bytes_max: u64,
    ) -> Result<RemoteFile, FederationError> {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let limits = Limits {
            duration_max: DURATION_MAX,
            bytes_max: bytes_max.saturating_add(HEAD_BYTES_MAX),
            redirects_max: 0,
        };
        let request = get_content::Request::new(media_id.to_owned());
        match self.request(origin, request, limits).await {
            Ok(incoming) => {
                let file = self.open_parts(incoming, bytes_max);
                let file = timeout(self.0.head_duration_max, file).await;
                file.unwrap_or_else(|_| Err(EgressError::Timeout.into()))
            }
            Err(FederationError::Refused { status: StatusCode::NOT_FOUND, errcode })
                if errcode == "M_UNRECOGNIZED" || errcode.is_empty() =>
            {
                self.open_as_before(origin, media_id, Limits { bytes_max, ..limits }).await
            }
            Err(error) => Err(error),
        }
    }

    /// Reads up to where the file begins, or follows to where it lies.
    async fn open_parts(
        &self,
        incoming: Incoming,
        bytes_max: usize,
    ) -> Result<RemoteFile, FederationError> {
        let boundary = text(&incoming.headers, &CONTENT_TYPE)
            .filter(|value| value.to_ascii_lowercase().starts_with("multipart/mixed"))
            .and_then(|value| boundary(&value))
            .ok_or(FederationError::BadAnswer("it is no `multipart/mixed`"))?;
        let size_bytes_max = length(&incoming.headers);
        too_large(size_bytes_max, bytes_max.saturating_add(HEAD_BYTES_MAX))?;
        let begun = Arc::new(AtomicBool::new(false));
        let mut parts = Multipart::new(Parts::new(incoming, Arc::clone(&begun)), boundary);
        let metadata = next_part(&mut parts).await?;
        drop(metadata);
        let part = next_part(&mut parts).await?;
        begun.store(true, Ordering::Relaxed);
        match text(part.headers(), &LOCATION) {
            Some(location) => self.open_elsewhere(&location, bytes_max).await,
            None => Ok(RemoteFile {
                content_type: text(part.headers(), &CONTENT_TYPE),
                file_name: file_name(part.headers()),
                size_bytes_max,
                body: Body::Part(part),
            }),
        }
    }

    /// Reads a file from where its server says that it lies: no homeserver, so nothing is signed.
    async fn open_elsewhere(
        &self,
        location: &str,
        bytes_max: usize,
    ) -> Result<RemoteFile, FederationError> {
        let secure = |url: &Url| url.scheme() == "https";
        let url = Url::parse(location).ok().filter(secure);
        let url = url.ok_or(FederationError::BadAnswer("the file lies at no `https` address"))?;
        let limits = Limits { duration_max: DURATION_MAX, bytes_max, redirects_max: REDIRECTS_MAX };
        let (headers, body) = (HeaderMap::new(), Bytes::new());
        let call = Call { method: Method::GET, url, headers, body, reach: Reach::Public, limits };
        let incoming = self.0.egress.open_where(call, secure).await?;
        if incoming.status != StatusCode::OK {
            let (status, errcode) = (incoming.status, String::new());
            return Err(FederationError::Refused { status, errcode });
        }
        plain(incoming, bytes_max)
    }

    /// Asks a server from before 1.11, which gives its files to everybody.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixmediav3downloadservernamemediaid>
    async fn open_as_before(
        &self,
        origin: &ServerName,
        media_id: &str,
        limits: Limits,
    ) -> Result<RemoteFile, FederationError> {
        let target = format!("/_matrix/media/v3/download/{origin}/{media_id}?allow_remote=false");
        let request = http::Request::get(target).body(Bytes::new());
        let request =
            request.map_err(|_| FederationError::BadAnswer("there can be no file of this name"))?;
        plain(self.send(origin, request, limits).await?, limits.bytes_max)
    }
}

impl RemoteFile {
    /// The next part of the content; `None` at its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, FederationError> {
        match &mut self.body {
            Body::Part(part) => part.chunk().await.map_err(broken),
            Body::Plain(incoming) => Ok(incoming.chunk().await?),
        }
    }
}

/// A file that is an answer as it is.
fn plain(incoming: Incoming, bytes_max: usize) -> Result<RemoteFile, FederationError> {
    let size_bytes_max = length(&incoming.headers);
    too_large(size_bytes_max, bytes_max)?;
    Ok(RemoteFile {
        content_type: text(&incoming.headers, &CONTENT_TYPE),
        file_name: file_name(&incoming.headers),
        size_bytes_max,
        body: Body::Plain(incoming),
    })
}

async fn next_part(
    parts: &mut Multipart<'static>,
) -> Result<multer::Field<'static>, FederationError> {
    let part = parts.next_field().await.map_err(broken)?;
    part.ok_or(FederationError::BadAnswer("it has fewer than two parts"))
}

/// Refuses before the first byte is read what is said to be larger than it may be.
fn too_large(size_bytes: Option<u64>, bytes_max: usize) -> Result<(), FederationError> {
    let fits = size_bytes.is_none_or(|size| usize::try_from(size).is_ok_and(|n| n <= bytes_max));
    if fits { Ok(()) } else { Err(EgressError::TooLarge.into()) }
}

fn length(headers: &HeaderMap) -> Option<u64> {
    text(headers, &CONTENT_LENGTH)?.parse().ok()
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

fn file_name(headers: &HeaderMap) -> Option<String> {
    let disposition = ContentDisposition::try_from(headers.get(CONTENT_DISPOSITION)?.as_bytes());
    disposition.ok()?.filename
}

/// The boundary that a content type names (RFC 2046, 5.1.1).
fn boundary(content_type: &str) -> Option<String> {
    let multipart = content_type.split_once(';')?.1;
    for parameter in multipart.split(';') {
        let Some((name, value)) = parameter.split_once('=') else { continue };
        let value = value.trim().trim_matches('"');
        if name.trim().eq_ignore_ascii_case("boundary") && (1..=70).contains(&value.len()) {
            return Some(value.to_owned());
        }
    }
    None
}

/// What went wrong while parts were read.
fn broken(error: multer::Error) -> FederationError {
    if let multer::Error::StreamReadFailed(source) = error
        && let Ok(error) = source.downcast::<FederationError>()
    {
        return *error;
    }
    FederationError::BadAnswer("its parts cannot be told apart")
}

/// A body for [`Multipart`], which would read all that is there into memory: this has one chunk
/// there at a time, and ends when the head is too long.
struct Parts {
    chunks: Pin<Box<dyn Stream<Item = Result<Bytes, FederationError>> + Send>>,
    gave: bool,
}

impl Parts {
    /// `begun` is set by whoever finds where the file begins.
    fn new(incoming: Incoming, begun: Arc<AtomicBool>) -> Self {
        let state = (incoming, begun, 0);
        let chunks = futures::stream::try_unfold(state, |(mut incoming, begun, read)| async move {
            if read > HEAD_BYTES_MAX && !begun.load(Ordering::Relaxed) {
                return Err(FederationError::BadAnswer("the file does not begin"));
            }
            let Some(chunk) = incoming.chunk().await? else { return Ok(None) };
            let read = read.saturating_add(chunk.len());
            Ok(Some((chunk, (incoming, begun, read))))
        });
        Self { chunks: chunks.boxed(), gave: false }
    }
}

impl Stream for Parts {
    type Item = Result<Bytes, FederationError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if std::mem::take(&mut self.gave) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let chunk = self.chunks.as_mut().poll_next(context);
        self.gave = chunk.is_ready();
        chunk
    }
}

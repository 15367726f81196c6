//! Fetching files of other servers for those of our users who ask.
//!
//! Each file is fetched once however many ask, by a task that goes on when they hang up. It is
//! written as an upload is, under a name that is noted before, and gets its row once all of it is on
//! disk: what breaks off leaves nothing. Everything that is bounded is checked before it is done:
//! places and bytes of the caller (`callers.rs`), room (`cache.rs`), the size.
//!
//! Attack cases T109, T110.
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediadownloadservernamemediaid>

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::StatusCode;
use ruma::ServerName;
use tokio::time::{Instant, timeout};

use super::{
    ATTEMPTS, Media, NewMedia, busy,
    callers::{Budget, Caller, Place},
    download::{not_found, not_yet_uploaded},
    upload::Over,
};
use crate::{
    egress::EgressError,
    error::ApiError,
    federation::{client::FederationError, remote_media::RemoteFile},
    http::BODY_IDLE_MAX,
    storage::{rows::media::MediaKind, schema::media::MediaKey},
};

/// What ends a fetch that is over the caller's limits, and only that.
const LIMITED: &str = "M_LIMIT_EXCEEDED";

/// A file on its way.
struct Reading {
    file: RemoteFile,
    origin: String,
    budget: Budget,
    read_bytes: u64,
    bytes_max: u64,
}

impl Media {
    /// Fetches a file that is not here; its row is there afterwards.
    pub(super) async fn fetch(
        &self,
        key: &MediaKey,
        caller: &Caller,
        deadline: Instant,
    ) -> Result<(), ApiError> {
        for _ in 0..ATTEMPTS {
            let mut is_ours = false;
            let fetched = if let Some(fetched) = self.0.fetches.joined(key).await {
                fetched
            } else {
                let places = self.0.callers.enter(caller, deadline).await?;
                let work = || {
                    is_ours = true;
                    self.clone().fetch_with(key.clone(), caller.clone(), places)
                };
                self.0.fetches.join(key.clone(), work).await
            };
            match fetched {
                Some(Err(error)) if !is_ours && error.errcode == LIMITED => {
                    // The limits were those of somebody else.
                }
                Some(fetched) => return fetched,
                None => return Err(ApiError::internal_text("a fetch of a file was broken off")),
            }
        }
        Err(busy())
    }

    async fn fetch_with(
        self,
        key: MediaKey,
        caller: Caller,
        places: Vec<Place>,
    ) -> Result<(), ApiError> {
        let mut fetched = self.fetch_now(&key, &caller).await;
        drop(places);
        if let Err(error) = &fetched {
            tracing::debug!(%error, key = super::uri(&key), "a file was not fetched");
            // It came while this was under way, or is withheld since.
            if self.row(&key).await?.is_some() {
                fetched = Ok(());
            }
        }
        let outcome = fetched.as_ref().map_or_else(|error| error.errcode.clone(), |()| "OK".into());
        metrics::counter!("media_remote_fetches_total", "outcome" => outcome).increment(1);
        fetched
    }

    async fn fetch_now(&self, key: &MediaKey, caller: &Caller) -> Result<(), ApiError> {
        // Another fetch may have ended just now.
        if self.row(key).await?.is_some() {
            return Ok(());
        }
        let mut budget = self.0.callers.budget(caller)?;
        drop(self.make_room(0).await?);
        let origin = ServerName::parse(&key.origin).map_err(ApiError::internal)?;
        let bytes_max = self.0.config.remote_size_bytes_max;
        let file = self.0.federation.open_media(&origin, &key.media_id, bytes_max).await;
        let file = file.map_err(|error| refusal(&key.origin, &error))?;
        let announced = file.size_bytes_max.map(|bytes| bytes.min(bytes_max));
        let _room = self.make_room(announced.unwrap_or(bytes_max)).await?;
        budget.reserve(announced.unwrap_or(0))?;
        let new = NewMedia {
            kind: MediaKind::Remote,
            uploader: None,
            content_type: file.content_type.clone(),
            filename: file.file_name.clone(),
            announced_bytes: None,
        };
        let origin = key.origin.clone();
        let reading = Reading { file, origin, budget, read_bytes: 0, bytes_max };
        self.receive(key, new, reading.parts().boxed(), Over::Nothing).await
    }

    /// Whether a name is this server's, however it is written: it never asks itself.
    pub(super) fn is_own(&self, origin: &str) -> bool {
        self.0.server_name.as_str().eq_ignore_ascii_case(origin)
    }
}

impl Reading {
    /// The content, cut off at the first limit that it exceeds.
    fn parts(self) -> impl Stream<Item = Result<Bytes, ApiError>> + Send {
        futures::stream::try_unfold(self, |mut reading| async move {
            // Whoever sends next to nothing keeps a place from others.
            let part = timeout(BODY_IDLE_MAX, reading.file.chunk()).await;
            let part = part.unwrap_or_else(|_| Err(EgressError::Timeout.into()));
            let part = part.map_err(|error| refusal(&reading.origin, &error))?;
            let Some(part) = part else { return Ok(None) };
            reading.read_bytes = reading.read_bytes.saturating_add(part.len() as u64);
            if reading.read_bytes > reading.bytes_max {
                return Err(too_large());
            }
            reading.budget.read(reading.read_bytes)?;
            Ok(Some((part, reading)))
        })
    }
}

/// What a client learns of a fetch that failed: which server it was, and nothing of where requests
/// may go.
fn refusal(origin: &str, error: &FederationError) -> ApiError {
    let failed = |status: StatusCode, text: &str| {
        ApiError::new(status, "M_UNKNOWN", format!("The server {origin} {text}"))
    };
    match error {
        FederationError::NotAllowed(_) => {
            ApiError::not_found(format!("This server fetches no files of {origin}"))
        }
        FederationError::Refused { errcode, .. } if errcode == "M_NOT_YET_UPLOADED" => {
            not_yet_uploaded()
        }
        FederationError::Refused { status, errcode }
            if *status == StatusCode::PAYLOAD_TOO_LARGE || errcode == "M_TOO_LARGE" =>
        {
            too_large()
        }
        FederationError::Refused { status: StatusCode::NOT_FOUND, .. } => not_found(),
        FederationError::Refused { status, .. } => {
            let text = format!("did not give the file: it answered {}", status.as_u16());
            failed(StatusCode::BAD_GATEWAY, &text)
        }
        FederationError::BackingOff(rest) => {
            let text = "did not answer lately, and is not asked again so soon";
            let mut error = failed(StatusCode::BAD_GATEWAY, text);
            error.retry_after = Some(*rest);
            error
        }
        FederationError::Egress(EgressError::TooLarge) => too_large(),
        FederationError::Egress(EgressError::Timeout) => {
            failed(StatusCode::GATEWAY_TIMEOUT, "took too long to give the file")
        }
        FederationError::Egress(_) => failed(StatusCode::BAD_GATEWAY, "cannot be reached"),
        FederationError::BadAnswer(_) => {
            failed(StatusCode::BAD_GATEWAY, "gave an answer that cannot be read")
        }
    }
}

/// The specification has 502 for what comes from another server, and 413 for uploads.
fn too_large() -> ApiError {
    let text = "The file is larger than this server fetches from others";
    ApiError::new(StatusCode::BAD_GATEWAY, "M_TOO_LARGE", text)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_goes_wrong_elsewhere_is_told() {
        let refused = |status: StatusCode, errcode: &str| FederationError::Refused {
            status,
            errcode: errcode.to_owned(),
        };
        let cases = [
            (refused(StatusCode::NOT_FOUND, "M_NOT_FOUND"), (404, "M_NOT_FOUND")),
            (refused(StatusCode::NOT_FOUND, ""), (404, "M_NOT_FOUND")),
            (
                refused(StatusCode::GATEWAY_TIMEOUT, "M_NOT_YET_UPLOADED"),
                (504, "M_NOT_YET_UPLOADED"),
            ),
            (refused(StatusCode::BAD_GATEWAY, "M_TOO_LARGE"), (502, "M_TOO_LARGE")),
            (refused(StatusCode::PAYLOAD_TOO_LARGE, ""), (502, "M_TOO_LARGE")),
            // Its limits are not this server's.
            (refused(StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED"), (502, "M_UNKNOWN")),
            (refused(StatusCode::UNAUTHORIZED, "M_UNAUTHORIZED"), (502, "M_UNKNOWN")),
            (FederationError::BackingOff(Duration::from_mins(1)), (502, "M_UNKNOWN")),
            (FederationError::BadAnswer("no boundary"), (502, "M_UNKNOWN")),
            (EgressError::Timeout.into(), (504, "M_UNKNOWN")),
            (EgressError::TooLarge.into(), (502, "M_TOO_LARGE")),
            (EgressError::Blocked("127.0.0.1".to_owned()).into(), (502, "M_UNKNOWN")),
        ];
        for (error, (status, errcode)) in cases {
            let told = refusal("other.example", &error);
            assert_eq!((told.status.as_u16(), &*told.errcode), (status, errcode), "{error}");
            assert!(!told.message.contains("127.0.0.1"), "{}", told.message);
            let names_it = told.message.contains("other.example");
            assert_eq!(names_it, errcode == "M_UNKNOWN", "{}", told.message);
        }
    }
}

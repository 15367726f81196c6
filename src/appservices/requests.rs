//! Requests to application services: one way for all of them.
//!
//! The operator chose the address, so it may lead anywhere. The token goes into the header alone.
//! Of an answer only its beginning is read, however long it is (attack case T84); what the caller
//! does with it is the caller's matter. Questions on behalf of users (`ask_*`) have a short time and
//! at most so many at once for each application service.
//!
//! <https://spec.matrix.org/v1.19/application-service-api/#homeserver---application-service-api>

use std::{collections::BTreeMap, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use ruma::{RoomAliasId, UserId};
use serde::de::DeserializeOwned;
use url::Url;

use super::{Appservice, Appservices};
use crate::egress::{Call, EgressError, Incoming, Limits, Reach};

/// How much of an answer is read.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// How long an application service may take to answer a question that a user waits for.
const QUESTION_DURATION_MAX: Duration = Duration::from_secs(10);
/// How often a question is asked when there is no answer.
const QUESTION_ATTEMPTS: usize = 2;

/// What goes along with a request.
#[derive(Clone, Debug)]
pub enum Body {
    /// Nothing.
    None,
    /// JSON.
    Json(Bytes),
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Called {
    /// The status.
    pub status: StatusCode,
    /// The beginning of the body.
    pub body: Bytes,
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The application service wants no requests.
    #[error("the application service has no address")]
    NoUrl,
    /// It did not answer.
    #[error(transparent)]
    Egress(#[from] EgressError),
}

impl Appservices {
    /// Makes a request. `path` holds the segments after the address, which are encoded here.
    pub async fn call(
        &self,
        appservice: &Appservice,
        (method, path): (Method, &[&str]),
        (query, body): (&[(String, String)], Body),
        duration_max: Duration,
    ) -> Result<Called, RequestError> {
        let url = appservice.url.as_ref().ok_or(RequestError::NoUrl)?;
        let limits = Limits { duration_max, bytes_max: ANSWER_BYTES_MAX, redirects_max: 0 };
        let (headers, body) = (headers(appservice, &body), bytes_of(body));
        let url = address(url, path, query);
        let call = Call { method, url, headers, body, reach: Reach::Configured, limits };
        let incoming = self.0.egress.open(call).await?;
        Ok(Called { status: incoming.status, body: beginning(incoming).await? })
    }

    /// The same, and where the path is unknown there, the one it had in earlier drafts.
    pub async fn call_or_legacy(
        &self,
        appservice: &Appservice,
        (method, path, legacy): (Method, &[&str], &[&str]),
        (query, body): (&[(String, String)], Body),
        duration_max: Duration,
    ) -> Result<Called, RequestError> {
        let first =
            self.call(appservice, (method.clone(), path), (query, body.clone()), duration_max);
        let called = first.await?;
        if !is_unknown_path(&called) {
            return Ok(called);
        }
        let second = self.call(appservice, (method, legacy), (query, body), duration_max);
        let legacy = second.await?;
        // Where both are unknown, the answer of the present path tells more.
        Ok(if is_unknown_path(&legacy) { called } else { legacy })
    }

    /// Whether one of the application services knows, and so has now made, a user that this server
    /// does not know. Failures count as no.
    pub async fn ask_user(&self, user_id: &UserId) -> bool {
        for appservice in self.registry().all() {
            if appservice.sender != user_id && appservice.covers_user(user_id) {
                let id = user_id.as_str();
                let paths: (&[&str], &[&str]) =
                    (&["_matrix", "app", "v1", "users", id], &["users", id]);
                if self.ask_existence(appservice, paths).await == Some(true) {
                    return true;
                }
            }
        }
        false
    }

    /// The same for an alias. `None`: an application service whose it could be did not answer.
    pub async fn ask_alias(&self, alias: &RoomAliasId) -> Option<bool> {
        let mut all_answered = true;
        for appservice in self.registry().all() {
            if !appservice.covers_alias(alias) || appservice.url.is_none() {
                continue;
            }
            let id = alias.as_str();
            let paths: (&[&str], &[&str]) =
                (&["_matrix", "app", "v1", "rooms", id], &["rooms", id]);
            match self.ask_existence(appservice, paths).await {
                Some(true) => return Some(true),
                Some(false) => {}
                None => all_answered = false,
            }
        }
        all_answered.then_some(false)
    }

    async fn ask_existence(
        &self,
        appservice: &Appservice,
        (path, legacy): (&[&str], &[&str]),
    ) -> Option<bool> {
        let called = self.ask(appservice, (path, legacy), &[]).await?;
        if !called.status.is_success() && called.status != StatusCode::NOT_FOUND {
            let status = called.status.as_u16();
            tracing::warn!(appservice = %appservice.id, status, "a question was refused");
        }
        Some(called.status.is_success())
    }

    /// Asks an application service something and reads the JSON of its answer. `None`: it does not
    /// know, or gave no answer that can be read.
    pub async fn ask_json<T: DeserializeOwned>(
        &self,
        appservice: &Appservice,
        paths: (&[&str], &[&str]),
        query: &[(String, String)],
    ) -> Option<T> {
        let called = self.ask(appservice, paths, query).await?;
        if !called.status.is_success() {
            return None;
        }
        match serde_json::from_slice(&called.body) {
            Ok(answer) => Some(answer),
            Err(error) => {
                tracing::warn!(appservice = %appservice.id, %error, "an answer cannot be read");
                None
            }
        }
    }

    async fn ask(
        &self,
        appservice: &Appservice,
        (path, legacy): (&[&str], &[&str]),
        query: &[(String, String)],
    ) -> Option<Called> {
        appservice.url.as_ref()?;
        let Ok(_permit) = appservice.questions.try_acquire() else {
            tracing::warn!(appservice = %appservice.id, "too many questions at once");
            return None;
        };
        for _ in 0..QUESTION_ATTEMPTS {
            let request = (Method::GET, path, legacy);
            let called = self.call_or_legacy(
                appservice,
                request,
                (query, Body::None),
                QUESTION_DURATION_MAX,
            );
            match called.await {
                Ok(called) => return Some(called),
                Err(error) => {
                    tracing::warn!(appservice = %appservice.id, %error, "a question has no answer");
                }
            }
        }
        None
    }

    /// The query of a third-party look-up, without what is not for the application service.
    pub fn fields(query: BTreeMap<String, String>) -> Vec<(String, String)> {
        const OURS: [&str; 4] =
            ["access_token", "user_id", "device_id", "org.matrix.msc3202.device_id"];
        query.into_iter().filter(|(name, _)| !OURS.contains(&name.as_str())).collect()
    }
}

/// Whether an answer says that there is no such endpoint, rather than no such thing: both may be
/// 404.
pub(super) fn is_unknown_path(called: &Called) -> bool {
    #[derive(serde::Deserialize)]
    struct Error {
        errcode: Option<String>,
    }
    match called.status {
        StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => true,
        StatusCode::NOT_FOUND => {
            let error: Option<Error> = serde_json::from_slice(&called.body).ok();
            let errcode = error.and_then(|error| error.errcode);
            errcode.is_none_or(|errcode| errcode == "M_UNRECOGNIZED")
        }
        _ => false,
    }
}

/// Below the address; a path that it has stays.
fn address(base: &Url, path: &[&str], query: &[(String, String)]) -> Url {
    let mut url = base.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(path);
    }
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    url
}

fn headers(appservice: &Appservice, body: &Body) -> HeaderMap {
    let mut headers = HeaderMap::new();
    // The token was checked to be visible ASCII when it was registered.
    if let Ok(mut value) = HeaderValue::try_from(format!("Bearer {}", appservice.row.hs_token)) {
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    if matches!(body, Body::Json(_)) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    headers
}

fn bytes_of(body: Body) -> Bytes {
    match body {
        Body::None => Bytes::new(),
        Body::Json(bytes) => bytes,
    }
}

/// The beginning of a body; what is longer is cut off.
async fn beginning(mut incoming: Incoming) -> Result<Bytes, EgressError> {
    let mut body = BytesMut::new();
    loop {
        match incoming.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) | Err(EgressError::TooLarge) => return Ok(body.freeze()),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_one_segment_each() {
        let base = Url::parse("http://bridge:1/base/").unwrap();
        let path = ["_matrix", "app", "v1", "users", "@a/../b?c#d:hs1"];
        let url = address(&base, &path, &[("a b".to_owned(), "&".to_owned())]);
        assert_eq!(
            url.as_str(),
            "http://bridge:1/base/_matrix/app/v1/users/@a%2F..%2Fb%3Fc%23d:hs1?a+b=%26"
        );
    }

    #[test]
    fn an_unknown_thing_is_no_unknown_path() {
        let called = |status, body: &'static str| Called { status, body: body.into() };
        let (missing, method) = (StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED);
        assert!(is_unknown_path(&called(missing, "<html>")));
        assert!(is_unknown_path(&called(missing, r#"{"errcode":"M_UNRECOGNIZED"}"#)));
        assert!(is_unknown_path(&called(method, "")));
        assert!(!is_unknown_path(&called(missing, r#"{"errcode":"M_NOT_FOUND"}"#)));
        assert!(!is_unknown_path(&called(StatusCode::OK, "{}")));
    }
}

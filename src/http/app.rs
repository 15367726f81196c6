//! The boundary around all routes: what happens to every request and every answer.
//!
//! CORS and preflight, the client's address, a request id, 404 and 405, panics, metrics, and the
//! one log line of a failure. No span stays open while a request waits: a long poll would keep it
//! for minutes. What fails is logged with the request's id.

use std::{
    any::Any,
    convert::Infallible,
    fmt,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{self, Poll},
    time::Instant,
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
};
use futures::{
    FutureExt,
    future::{Either, lazy, ready},
};
use http::{Extensions, Method, StatusCode};
use tower::Service;

use crate::{
    error::ApiError,
    http::{
        ClientAddress, Peer, TrustedProxies, cors,
        endpoint::Pattern,
        response::{Failure, Refusal, chain},
    },
};

/// A request's number since the start, as the log names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestId(pub u64);

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "r{:x}", self.0)
    }
}

/// What is known of a request besides HTTP; in its extensions.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// Where the request comes from.
    pub address: ClientAddress,
    /// Its id in the log.
    pub id: RequestId,
    /// Whether an access token in the query counts.
    pub query_tokens: bool,
}

impl Context {
    /// The context of a request that came through an [`App`]; else one that trusts nothing.
    #[must_use]
    pub fn of(extensions: &Extensions) -> Self {
        let unknown =
            Self { address: ClientAddress::LOCAL, id: RequestId::default(), query_tokens: false };
        extensions.get().copied().unwrap_or(unknown)
    }
}

/// What an operator may set.
#[derive(Clone, Debug, Default)]
pub struct AppSettings {
    /// Whether an access token in the query (`?access_token=`) counts.
    pub query_tokens: bool,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: TrustedProxies,
}

/// All routes with their boundary: a service that is cheap to clone.
#[derive(Clone)]
pub struct App {
    shared: Arc<Shared>,
}

struct Shared {
    router: Router,
    settings: AppSettings,
    next_id: AtomicU64,
}

impl App {
    /// Puts the boundary around a router.
    pub fn new(router: Router, settings: AppSettings) -> Self {
        let router = router
            .fallback(async || ApiError::unrecognized("Unrecognized request"))
            .method_not_allowed_fallback(async || {
                ApiError::method_not_allowed("The method is not supported on this path")
            });
        Self { shared: Arc::new(Shared { router, settings, next_id: AtomicU64::new(1) }) }
    }

    /// Answers a request. Never panics.
    ///
    /// No `async` function: that would hold the space of the request for as long as its answer takes,
    /// which for a long poll is minutes.
    pub fn answer(
        self,
        mut request: Request,
    ) -> impl Future<Output = Response> + Send + 'static + use<> {
        if request.method() == Method::OPTIONS {
            return Either::Left(ready(cors::preflight()));
        }
        let started = Instant::now();
        let context = self.context(&request);
        let method = method_name(request.method());
        request.extensions_mut().insert(context);
        let mut router = self.shared.router.clone();
        let answer = AssertUnwindSafe(lazy(move |_| router.call(request)).flatten());
        Either::Right(answer.catch_unwind().map(move |outcome| {
            let mut response = match outcome {
                Ok(Ok(response)) => response,
                Ok(Err(never)) => match never {},
                Err(panic) => panicked(&*panic),
            };
            cors::allow(response.headers_mut());
            account(&mut response, method, context.id, started);
            response
        }))
    }

    fn context(&self, request: &Request) -> Context {
        let peer = request.extensions().get().copied().unwrap_or(Peer::Unix);
        let settings = &self.shared.settings;
        Context {
            address: settings.trusted_proxies.client(peer, request.headers()),
            id: RequestId(self.shared.next_id.fetch_add(1, Ordering::Relaxed)),
            query_tokens: settings.query_tokens,
        }
    }
}

impl Service<Request> for App {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().answer(request).map(Ok))
    }
}

/// A panic is a bug of ours, but one request's only. The process's panic hook has counted it and
/// logged its place.
fn panicked(panic: &(dyn Any + Send)) -> Response {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text");
    ApiError::internal_text(format!("the handler panicked: {text}")).into_response()
}

/// Counts an answer and logs it where it is a failure of ours.
fn account(response: &mut Response, method: &'static str, id: RequestId, started: Instant) {
    let pattern = response.extensions_mut().remove::<Pattern>();
    let endpoint = pattern.map_or("none", |pattern| pattern.0);
    let status = response.status();
    let failure = response.extensions_mut().remove::<Failure>();
    // Without a cause it is no failure of ours: 502 to 504 also tell that a bridge, another server or
    // an uploader did not do its part.
    let is_ours = status == StatusCode::INTERNAL_SERVER_ERROR
        || failure.as_ref().is_some_and(|Failure(error)| error.source.is_some());
    if status.is_server_error() && is_ours {
        let error = failure.map(|Failure(error)| chain(&error)).unwrap_or_default();
        tracing::error!(request = %id, method, endpoint, status = status.as_u16(), error, "request failed");
    } else if status.is_server_error() {
        let error = failure.map(|Failure(error)| chain(&error)).unwrap_or_default();
        tracing::info!(request = %id, method, endpoint, status = status.as_u16(), error, "request not served");
    } else {
        tracing::debug!(request = %id, method, endpoint, status = status.as_u16(), "request");
    }
    if let Some(Refusal(errcode)) = response.extensions_mut().remove() {
        metrics::counter!("http_refusals_total", "endpoint" => endpoint, "errcode" => errcode)
            .increment(1);
    }
    metrics::counter!(
        "http_requests_total",
        "endpoint" => endpoint, "method" => method, "status" => status.as_str().to_owned()
    )
    .increment(1);
    metrics::histogram!("http_request_seconds", "endpoint" => endpoint)
        .record(started.elapsed().as_secs_f64());
}

/// The method as a label: made-up ones must not make new time series.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        _ => "other",
    }
}

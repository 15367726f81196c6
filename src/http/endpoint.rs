//! Routes: handlers that take and answer ruma's types become an axum router.
//!
//! A handler is registered for every path ruma knows of its endpoint. Each request goes the same
//! way: authenticate from the head, read and check the body, parse, call. What the first steps
//! need is dropped before the handler runs, since a long poll may wait for minutes. A handler that
//! may change something runs to its end even where the client hangs up: what follows a commit, such
//! as dropping a session from memory, must not be left out.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#api-standards>

use std::{convert::Infallible, future::Future, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{FromRequestParts, RawPathParams, Request},
    response::{IntoResponse, Response},
    routing::{MethodFilter, on_service},
};
use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{Method, request::Parts};
use ruma::{
    api::{IncomingRequest, IncomingRequestExt, path_builder::PathBuilder},
    serde::JsonObject,
};
use tower::service_fn;

use crate::{
    error::ApiError,
    http::{
        Authentication, BODY_BYTES_MAX, BODY_IDLE_MAX, Fits, JsonRules,
        body::{check_encoding, check_json_headers},
        check_json, read_body,
        response::{refusal, render},
    },
};

/// What is special about an endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    body: BodyKind,
    body_bytes_max: usize,
    body_idle_max: Duration,
    more_paths: &'static [&'static str],
    changes_nothing: bool,
    omits_nulls: bool,
    needed_field: Option<&'static str>,
    rewrite: Option<Rewrite>,
}

/// Makes of a body what ruma reads; `None` where nothing is to be changed.
pub type Rewrite = fn(&[u8]) -> Option<Vec<u8>>;

#[derive(Clone, Copy, Debug)]
enum BodyKind {
    Json(JsonRules),
    Bytes,
}

impl Options {
    /// A JSON body of at most 1 MiB, and the paths ruma knows.
    pub const DEFAULT: Self = Self {
        body: BodyKind::Json(JsonRules::REQUEST),
        body_bytes_max: BODY_BYTES_MAX,
        body_idle_max: BODY_IDLE_MAX,
        more_paths: &[],
        changes_nothing: false,
        omits_nulls: false,
        needed_field: None,
        rewrite: None,
    };

    /// The body is the content of an event: stricter JSON.
    #[must_use]
    pub const fn event(mut self) -> Self {
        self.body = BodyKind::Json(JsonRules::EVENT_CONTENT);
        self
    }

    /// The body is bytes of any kind.
    #[must_use]
    pub const fn bytes(mut self) -> Self {
        self.body = BodyKind::Bytes;
        self
    }

    /// The largest body.
    #[must_use]
    pub const fn body_bytes_max(mut self, bytes: usize) -> Self {
        self.body_bytes_max = bytes;
        self
    }

    /// The handler changes nothing, though its method says so: it ends when the client hangs up.
    #[must_use]
    pub const fn changes_nothing(mut self) -> Self {
        self.changes_nothing = true;
        self
    }

    /// Fields of the answer that are null are left out: ruma writes some that the specification has
    /// as strings or not at all.
    #[must_use]
    pub const fn omit_nulls(mut self) -> Self {
        self.omits_nulls = true;
        self
    }

    /// The body is refused without this field: for a reader of ruma that takes it for granted and
    /// would panic.
    #[must_use]
    pub const fn needs_field(mut self, name: &'static str) -> Self {
        self.needed_field = Some(name);
        self
    }

    /// The body is made what ruma reads, before it does: for forms of before that clients still send.
    #[must_use]
    pub const fn rewritten(mut self, rewrite: Rewrite) -> Self {
        self.rewrite = Some(rewrite);
        self
    }

    /// Paths besides those ruma knows, in its notation (`/a/{b}`). Variables at the end may be
    /// missing where ruma takes fewer (the state key).
    #[must_use]
    pub const fn more_paths(mut self, paths: &'static [&'static str]) -> Self {
        self.more_paths = paths;
        self
    }
}

/// One method on one path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// The path, with its variables in braces.
    pub path: &'static str,
    /// The method; where it is GET, HEAD is answered too.
    pub method: String,
}

/// The path an endpoint is known by; left in the answer's extensions for the metrics.
#[derive(Clone, Copy)]
pub(super) struct Pattern(pub(super) &'static str);

/// A request to an endpoint without ruma types; its body is not read yet.
pub struct RawRequest {
    /// Method, address and headers.
    pub head: Parts,
    /// The values of the path's variables, percent-decoded.
    pub path_arguments: Vec<String>,
    /// The body: see [`read_body`].
    pub body: Body,
}

/// A parameter of a query, the first of its name.
pub fn parameter(query: &str, wanted: &str) -> Option<String> {
    url::form_urlencoded::parse(query.as_bytes())
        .find(|(name, _)| name == wanted)
        .map(|(_, value)| value.into_owned())
}

/// Handlers on a state, collected into a router.
pub struct Routes<S> {
    state: Arc<S>,
    router: Router,
    list: Vec<Route>,
}

impl<S: Send + Sync + 'static> Routes<S> {
    /// No routes yet.
    pub fn new(state: Arc<S>) -> Self {
        Self { state, router: Router::new(), list: Vec::new() }
    }

    /// Adds an endpoint.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "routes are no numbers")]
    pub fn add<A, R, H, F>(self, handler: H) -> Self
    where
        A: Authentication<S> + Fits<R::Authentication>,
        R: IncomingRequest + Send + 'static,
        H: Fn(Arc<S>, A, R) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<R::OutgoingResponse, ApiError>> + Send + 'static,
    {
        self.add_with(Options::DEFAULT, handler)
    }

    /// Adds an endpoint with options.
    #[must_use]
    pub fn add_with<A, R, H, F>(self, options: Options, handler: H) -> Self
    where
        A: Authentication<S> + Fits<R::Authentication>,
        R: IncomingRequest + Send + 'static,
        H: Fn(Arc<S>, A, R) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<R::OutgoingResponse, ApiError>> + Send + 'static,
    {
        self.add_rendered(options, move |state, auth: A, request: R| {
            let answer = handler(state, auth, request);
            async move { render(answer.await?, options.omits_nulls) }
        })
    }

    /// Adds an endpoint whose handler makes the HTTP response itself, of parts it has rendered
    /// before.
    #[must_use]
    pub fn add_rendered<A, R, H, F>(self, options: Options, handler: H) -> Self
    where
        A: Authentication<S> + Fits<R::Authentication>,
        R: IncomingRequest + Send + 'static,
        H: Fn(Arc<S>, A, R) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<Response, ApiError>> + Send + 'static,
    {
        let history = R::PATH_BUILDER;
        let known = history.all_paths();
        let paths: Vec<_> = options.more_paths.iter().copied().chain(known).collect();
        let state = Arc::clone(&self.state);
        self.register(&R::METHOD, &paths, move |request| {
            let (state, handler) = (Arc::clone(&state), handler.clone());
            async move {
                // Boxed, so that a waiting handler does not carry its space along.
                let parsed = Box::pin(parse::<S, A, R>(&state, options, request)).await;
                let (auth, request) = parsed?;
                let changes = may_change(&R::METHOD) && !options.changes_nothing;
                to_its_end(changes, handler(state, auth, request)).await
            }
        })
    }

    /// Adds an endpoint that ruma does not know or that streams its body; the last path names it in
    /// the metrics. The head is authenticated; [`Authentication::verify_body`] is not called.
    #[must_use]
    pub fn add_raw<A, H, F>(self, method: &Method, paths: &[&'static str], handler: H) -> Self
    where
        A: Authentication<S>,
        H: Fn(Arc<S>, A, RawRequest) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<Response, ApiError>> + Send + 'static,
    {
        let state = Arc::clone(&self.state);
        let changes = may_change(method);
        self.register(method, paths, move |request: Request| {
            let (state, handler) = (Arc::clone(&state), handler.clone());
            async move {
                let (auth, request) = Box::pin(identify::<S, A>(&state, request)).await?;
                to_its_end(changes, handler(state, auth, request)).await
            }
        })
    }

    /// Every method and path, in the order they were added.
    pub fn list(&self) -> &[Route] {
        &self.list
    }

    /// The router; merge those of several states, then wrap them in an [`App`](crate::http::App).
    pub fn into_router(self) -> Router {
        self.router
    }

    fn register<H, F>(mut self, method: &Method, paths: &[&'static str], endpoint: H) -> Self
    where
        H: Fn(Request) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<Response, ApiError>> + Send + 'static,
    {
        // The last one names it: ruma lists the newest stable path last.
        let Some(pattern) = paths.last().copied() else { return self };
        let filter = MethodFilter::try_from(method.clone())
            .expect("every endpoint's method is one of the standard ones");
        let service = service_fn(move |request: Request| {
            // No `async` block: that has space for the endpoint twice.
            endpoint(request).map(|answer| {
                let mut response = answer.unwrap_or_else(IntoResponse::into_response);
                response.extensions_mut().insert(Pattern(pattern));
                Ok::<_, Infallible>(response)
            })
        });
        for path in paths.iter().copied() {
            let route = Route { path, method: method.to_string() };
            if self.list.contains(&route) {
                continue;
            }
            self.list.push(route);
            self.router =
                self.router.route(&number_variables(path), on_service(filter, service.clone()));
        }
        self
    }
}

fn may_change(method: &Method) -> bool {
    *method != Method::GET && *method != Method::HEAD
}

/// Runs a handler. One that may change something is a task of its own, since the connection drops
/// what it waits for when the client hangs up.
fn to_its_end<F>(changes: bool, handler: F) -> BoxFuture<'static, Result<Response, ApiError>>
where
    F: Future<Output = Result<Response, ApiError>> + Send + 'static,
{
    if !changes {
        return Box::pin(handler);
    }
    let task = tokio::spawn(handler);
    Box::pin(async move {
        match task.await {
            Ok(answer) => answer,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(cancelled) => Err(ApiError::internal(cancelled)),
            },
        }
    })
}

/// Names a path's variables by their place. ruma's endpoints name the same place differently
/// (`room_id`, `room_id_or_alias`), which the router does not take.
fn number_variables(path: &str) -> String {
    let segments = path.split('/').enumerate().map(|(place, segment)| {
        if segment.starts_with('{') { format!("{{v{place}}}") } else { segment.to_owned() }
    });
    segments.collect::<Vec<_>>().join("/")
}

/// Authenticates a request whose handler reads it.
async fn identify<S, A>(state: &S, request: Request) -> Result<(A, RawRequest), ApiError>
where
    A: Authentication<S>,
{
    let (mut head, body) = request.into_parts();
    let path_arguments = path_arguments(&mut head).await?;
    let auth = A::from_head(state, &head).await?;
    Ok((auth, RawRequest { head, path_arguments, body }))
}

/// Authenticates and parses a request.
async fn parse<S, A, R>(state: &S, options: Options, request: Request) -> Result<(A, R), ApiError>
where
    A: Authentication<S>,
    R: IncomingRequest,
{
    let (mut head, body) = request.into_parts();
    let arguments = path_arguments(&mut head).await?;
    let mut auth = A::from_head(state, &head).await?;
    let body = if head.method == Method::GET || head.method == Method::HEAD {
        Bytes::new()
    } else {
        checked_body(&head, body, options).await?
    };
    auth.verify_body(state, &head, &body).await?;
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // ruma reads nothing as `{}` for most endpoints, but not for joins and knocks by alias.
    let body = match options.body {
        BodyKind::Json(_) if body.is_empty() => &b"{}"[..],
        _ => &body[..],
    };
    if let Some(name) = options.needed_field {
        check_field(body, name)?;
    }
    let rewritten = options.rewrite.and_then(|rewrite| rewrite(body));
    let request = http::Request::from_parts(head, rewritten.as_deref().unwrap_or(body));
    let request = R::try_from_http_request(request, &arguments).map_err(|error| refusal(&error))?;
    Ok((auth, request))
}

fn check_field(body: &[u8], name: &str) -> Result<(), ApiError> {
    let fields: Result<JsonObject, _> = serde_json::from_slice(body);
    // What is no object is refused by ruma.
    if fields.is_ok_and(|fields| !fields.contains_key(name)) {
        return Err(ApiError::bad_json(format!("The field `{name}` is missing")));
    }
    Ok(())
}

async fn checked_body(head: &Parts, body: Body, options: Options) -> Result<Bytes, ApiError> {
    match options.body {
        BodyKind::Json(_) => check_json_headers(&head.headers)?,
        BodyKind::Bytes => check_encoding(&head.headers)?,
    }
    let body = read_body(body, options.body_bytes_max, options.body_idle_max).await?;
    if let BodyKind::Json(rules) = options.body {
        // Nothing counts as `{}`, but never as an event's content.
        if !body.is_empty() || rules.canonical_numbers {
            check_json(&body, rules)?;
        }
    }
    Ok(body)
}

async fn path_arguments(head: &mut Parts) -> Result<Vec<String>, ApiError> {
    let arguments = RawPathParams::from_request_parts(head, &())
        .await
        .map_err(|_| ApiError::invalid_param("The path is not valid UTF-8 once percent-decoded"))?;
    // The router takes `//` for a variable that is empty; no endpoint means that.
    if arguments.iter().any(|(_, value)| value.is_empty()) {
        return Err(ApiError::unrecognized("Unrecognized request"));
    }
    Ok(arguments.iter().map(|(_, value)| value.to_owned()).collect())
}

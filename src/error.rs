//! The one error that reaches a client: status, errcode, a text that helps, and its cause.
//!
//! Constructors are named after the specification's codes; the status of each stands in one table.
//! Internal failures answer 500 `M_UNKNOWN` with a fixed text; their cause is logged once, where
//! the response is made.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#standard-error-response>

use std::{borrow::Cow, error::Error as StdError, fmt, sync::Arc, time::Duration};

use http::StatusCode;
use serde_json::{Map, Value, json};

/// What a handler answers when it does not answer its response.
#[derive(Clone, Debug)]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// The `errcode`; empty where the body has none (user-interactive authentication).
    pub errcode: Cow<'static, str>,
    /// The `error` text, for people.
    pub message: Cow<'static, str>,
    /// Further fields of the body.
    pub fields: Map<String, Value>,
    /// When to try again: `Retry-After` and `retry_after_ms`.
    pub retry_after: Option<Duration>,
    /// The cause, for the log only.
    pub source: Option<Arc<dyn StdError + Send + Sync>>,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $status:ident $errcode:literal;)*) => {
        impl ApiError {$(
            $(#[$doc])*
            pub fn $name(message: impl Into<Cow<'static, str>>) -> Self {
                Self::new(StatusCode::$status, $errcode, message)
            }
        )*}
    };
}

codes! {
    /// The body is not JSON at all.
    not_json = BAD_REQUEST "M_NOT_JSON";
    /// The body is JSON, but not what the endpoint takes.
    bad_json = BAD_REQUEST "M_BAD_JSON";
    /// A parameter has a wrong value.
    invalid_param = BAD_REQUEST "M_INVALID_PARAM";
    /// A parameter is missing.
    missing_param = BAD_REQUEST "M_MISSING_PARAM";
    /// The user may not do this.
    forbidden = FORBIDDEN "M_FORBIDDEN";
    /// There is no such thing, or the user may not know of it.
    not_found = NOT_FOUND "M_NOT_FOUND";
    /// The request has no access token.
    missing_token = UNAUTHORIZED "M_MISSING_TOKEN";
    /// No such endpoint.
    unrecognized = NOT_FOUND "M_UNRECOGNIZED";
    /// The endpoint exists, the method does not.
    method_not_allowed = METHOD_NOT_ALLOWED "M_UNRECOGNIZED";
    /// Something is larger than allowed.
    too_large = PAYLOAD_TOO_LARGE "M_TOO_LARGE";
    /// The user name is taken.
    user_in_use = BAD_REQUEST "M_USER_IN_USE";
    /// The user name breaks the rules of names.
    invalid_username = BAD_REQUEST "M_INVALID_USERNAME";
    /// The alias is taken.
    room_in_use = BAD_REQUEST "M_ROOM_IN_USE";
    /// The initial state of a new room is refused.
    invalid_room_state = BAD_REQUEST "M_INVALID_ROOM_STATE";
    /// The name is reserved for an application service, or not for the one that asks.
    exclusive = BAD_REQUEST "M_EXCLUSIVE";
    /// The application service manages devices, so that it does not log in as its users.
    appservice_login_unsupported = BAD_REQUEST "M_APPSERVICE_LOGIN_UNSUPPORTED";
    /// The room version is unknown here.
    unsupported_room_version = BAD_REQUEST "M_UNSUPPORTED_ROOM_VERSION";
    /// The canonical alias does not name the room.
    bad_alias = BAD_REQUEST "M_BAD_ALIAS";
    /// The change does not fit the state of the thing (a ban of someone who is banned ...).
    bad_state = FORBIDDEN "M_BAD_STATE";
    /// Another server does not prove who it is.
    unauthorized = UNAUTHORIZED "M_UNAUTHORIZED";
    /// The password is too weak.
    weak_password = BAD_REQUEST "M_WEAK_PASSWORD";
    /// The account is deactivated.
    user_deactivated = FORBIDDEN "M_USER_DEACTIVATED";
    /// The account is suspended, and this is more than it may do.
    user_suspended = FORBIDDEN "M_USER_SUSPENDED";
    /// The proof for an address of a third party is missing, used up or wrong.
    threepid_auth_failed = BAD_REQUEST "M_THREEPID_AUTH_FAILED";
    /// Another account has the address.
    threepid_in_use = BAD_REQUEST "M_THREEPID_IN_USE";
    /// This server takes no addresses of this kind.
    threepid_medium_not_supported = BAD_REQUEST "M_THREEPID_MEDIUM_NOT_SUPPORTED";
    /// Guests may not do this.
    guest_access_forbidden = FORBIDDEN "M_GUEST_ACCESS_FORBIDDEN";
    /// A profile is larger than allowed.
    profile_too_large = BAD_REQUEST "M_PROFILE_TOO_LARGE";
    /// The name of a profile field is longer than allowed.
    key_too_large = BAD_REQUEST "M_KEY_TOO_LARGE";
    /// Anything the specification has no code for, in a 400.
    unknown = BAD_REQUEST "M_UNKNOWN";
    /// A content type that the endpoint does not take.
    unsupported_media_type = UNSUPPORTED_MEDIA_TYPE "M_UNKNOWN";
}

impl ApiError {
    /// An error with any status and code.
    pub fn new(
        status: StatusCode,
        errcode: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            errcode: errcode.into(),
            message: message.into(),
            fields: Map::new(),
            retry_after: None,
            source: None,
        }
    }

    /// The access token is not known (any more). `soft_logout`: the session can be revived.
    pub fn unknown_token(message: impl Into<Cow<'static, str>>, soft_logout: bool) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "M_UNKNOWN_TOKEN", message)
            .with("soft_logout", json!(soft_logout))
    }

    /// An administrator locked the account; the session is kept.
    pub fn user_locked() -> Self {
        let message = "The account is locked";
        Self::new(StatusCode::UNAUTHORIZED, "M_USER_LOCKED", message)
            .with("soft_logout", json!(true))
    }

    /// Too many requests; try again after this time.
    pub fn limit_exceeded(retry_after: Duration) -> Self {
        let mut error =
            Self::new(StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED", "Too many requests");
        error.retry_after = Some(retry_after);
        error
    }

    /// The server does not take writes now; reads go on.
    pub fn unavailable(message: impl Into<Cow<'static, str>>) -> Self {
        let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN", message);
        error.retry_after = Some(Duration::from_secs(5));
        error
    }

    /// A failure of ours. The client learns only that; the cause goes to the log.
    pub fn internal(source: impl StdError + Send + Sync + 'static) -> Self {
        let mut error =
            Self::new(StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN", "Internal server error");
        error.source = Some(Arc::new(source));
        error
    }

    /// [`ApiError::internal`] where the cause is only a text.
    pub fn internal_text(cause: impl Into<String>) -> Self {
        Self::internal(Cause(cause.into()))
    }

    /// Adds a field to the body.
    #[must_use]
    pub fn with(mut self, field: &str, value: Value) -> Self {
        self.fields.insert(field.to_owned(), value);
        self
    }

    /// The body as the specification has it.
    pub fn body(&self) -> Value {
        let mut body = self.fields.clone();
        if !self.errcode.is_empty() {
            body.insert("errcode".to_owned(), json!(self.errcode));
            body.insert("error".to_owned(), json!(self.message));
        }
        if let Some(after) = self.retry_after {
            // Rounded up: whoever waits exactly this long must not come too early.
            let milliseconds = after.as_nanos().div_ceil(1_000_000);
            let milliseconds = u64::try_from(milliseconds).unwrap_or(u64::MAX);
            body.insert("retry_after_ms".to_owned(), json!(milliseconds));
        }
        Value::Object(body)
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}: {}", self.status.as_u16(), self.errcode, self.message)
    }
}

impl StdError for ApiError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<kv::Error> for ApiError {
    fn from(error: kv::Error) -> Self {
        match error {
            kv::Error::Unavailable(_) => {
                let mut unavailable = Self::unavailable("The server cannot write at the moment");
                unavailable.source = Some(Arc::new(error));
                unavailable
            }
            kv::Error::Corrupt { .. } | kv::Error::Io(_) => Self::internal(error),
        }
    }
}

impl From<kv::CommitError> for ApiError {
    fn from(error: kv::CommitError) -> Self {
        match error {
            kv::CommitError::Store(error) => error.into(),
            kv::CommitError::TooLarge(_) => {
                let mut refusal = Self::too_large("That is more than can be written at once");
                refusal.source = Some(Arc::new(error));
                refusal
            }
            kv::CommitError::Conflict => Self::internal(error),
        }
    }
}

/// A cause that is only a text.
#[derive(Debug)]
struct Cause(String);

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl StdError for Cause {}

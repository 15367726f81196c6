//! Who sends a request: the types a handler takes as its `auth`, and how they come about.
//!
//! Which type an endpoint may take is fixed by its authentication scheme ([`Fits`]): a wrong one
//! does not compile. Authentication looks at the head only, before any of the body is read; what
//! covers the body too (the signature of a server) is finished in
//! [`Authentication::verify_body`].
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#using-access-tokens>

use std::{borrow::Cow, fmt, future::Future, sync::Arc};

use http::{header::AUTHORIZATION, request::Parts};
use ruma::{
    OwnedDeviceId, OwnedUserId,
    api::auth_scheme::{
        AccessToken, AccessTokenOptional, AppserviceToken, AppserviceTokenOptional, NoAccessToken,
        NoAuthentication,
    },
};

use crate::{
    error::ApiError,
    http::{ClientAddress, Context},
};

/// A session's name: the hash of its access token, never the token.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub [u8; 32]);

impl fmt::Debug for SessionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second, third, fourth, ..] = self.0;
        write!(formatter, "SessionId({first:02x}{second:02x}{third:02x}{fourth:02x}..)")
    }
}

/// Whether an administrator restricts an account.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#account-moderation>
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// Nobody does.
    #[default]
    Good,
    /// It may read, and little else.
    Suspended,
    /// It may only log out.
    Locked,
}

/// Who sends a request with a user's access token.
#[derive(Clone, Debug)]
pub struct Requester {
    /// The user.
    pub user_id: OwnedUserId,
    /// The device the session belongs to; empty where an application service names none.
    pub device_id: OwnedDeviceId,
    /// The session.
    pub session: SessionId,
    /// Whether the account is a guest's.
    pub guest: bool,
    /// Whether an administrator restricts the account.
    pub standing: Standing,
    /// Whether the user may administer the server.
    pub admin: bool,
    /// Where the request comes from.
    pub address: ClientAddress,
    /// The application service that acts as the user.
    pub appservice: Option<AppserviceCaller>,
}

impl Requester {
    /// Whether what the user does is charged against the rate limits.
    pub fn is_rate_limited(&self) -> bool {
        self.appservice.as_ref().is_none_or(|appservice| appservice.rate_limited)
    }
}

/// Which application service sends a request with its own token.
#[derive(Clone, Debug)]
pub struct AppserviceCaller {
    /// The id of its registration.
    pub id: Arc<str>,
    /// Whether the rate limits hold for the user that it acts as.
    pub rate_limited: bool,
}

/// For endpoints that application services use without being anybody.
#[derive(Clone, Debug)]
pub struct MaybeAppservice {
    /// The application service, if the request has the token of one.
    pub caller: Option<AppserviceCaller>,
    /// Whether there is any token.
    pub has_token: bool,
    /// Where the request comes from.
    pub address: ClientAddress,
}

impl MaybeAppservice {
    /// The application service, where nobody else may go on.
    ///
    /// # Errors
    /// 401 as for any endpoint that takes a token.
    pub fn required(self) -> Result<AppserviceCaller, ApiError> {
        match self.caller {
            Some(caller) => Ok(caller),
            None if self.has_token => Err(ApiError::unknown_token(
                "This is not the token of an application service",
                false,
            )),
            None => Err(missing_token()),
        }
    }
}

/// What a request shows to be authenticated.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    /// The access token.
    pub token: &'a str,
    /// The query, in which an application service says whom it acts as.
    pub query: &'a str,
    /// Where the request comes from.
    pub address: ClientAddress,
}

impl Credentials<'_> {
    /// A parameter of the query.
    pub fn parameter(&self, name: &str) -> Option<Cow<'_, str>> {
        let mut parameters = url::form_urlencoded::parse(self.query.as_bytes());
        parameters.find(|(known, _)| known == name).map(|(_, value)| value)
    }
}

/// For endpoints that need no authentication but use it when present.
#[derive(Clone, Debug)]
pub struct MaybeRequester(pub Option<Requester>);

/// The same for handlers that treat those without a token by their address.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who it is, if there was a token.
    pub requester: Option<Requester>,
    /// Where the request comes from.
    pub address: ClientAddress,
}

/// For endpoints without authentication.
#[derive(Clone, Copy, Debug)]
pub struct NoAuth {
    /// Where the request comes from.
    pub address: ClientAddress,
}

/// Looks up access tokens; implemented by the state of the APIs that take them.
pub trait Authenticator: Send + Sync + 'static {
    /// Whose token this is; `M_UNKNOWN_TOKEN` when nobody's.
    fn authenticate(
        &self,
        credentials: Credentials<'_>,
    ) -> impl Future<Output = Result<Requester, ApiError>> + Send;

    /// The application service whose token this is.
    fn appservice(&self, _token: &str) -> Option<AppserviceCaller> {
        None
    }

    /// Refuses what this kind of account may not do at all at the endpoint of this request.
    fn permit(&self, requester: &Requester, _head: &Parts) -> Result<(), ApiError> {
        match requester.standing {
            Standing::Locked => Err(ApiError::user_locked()),
            Standing::Good | Standing::Suspended => Ok(()),
        }
    }
}

/// A type that says who sends a request, made from its head.
pub trait Authentication<S>: Sized + Send + 'static {
    /// Authenticates from method, address and headers, before any of the body is read.
    fn from_head(state: &S, head: &Parts) -> impl Future<Output = Result<Self, ApiError>> + Send;

    /// Checks what covers the body too. The handler runs only after it.
    fn verify_body(
        &mut self,
        _state: &S,
        _head: &Parts,
        _body: &[u8],
    ) -> impl Future<Output = Result<(), ApiError>> + Send {
        std::future::ready(Ok(()))
    }
}

/// That an [`Authentication`] is the right one for endpoints of a scheme.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not how an endpoint with the scheme `{Scheme}` is authenticated"
)]
pub trait Fits<Scheme> {}

impl Fits<AccessToken> for Requester {}
impl Fits<AccessTokenOptional> for MaybeRequester {}
impl Fits<AccessTokenOptional> for Caller {}
impl Fits<AppserviceToken> for AppserviceCaller {}
impl Fits<AppserviceTokenOptional> for MaybeAppservice {}
impl Fits<NoAccessToken> for MaybeRequester {}
impl Fits<AccessTokenOptional> for NoAuth {}
impl Fits<NoAccessToken> for NoAuth {}
impl Fits<NoAuthentication> for NoAuth {}

impl<S: Authenticator> Authentication<S> for Requester {
    async fn from_head(state: &S, head: &Parts) -> Result<Self, ApiError> {
        let token = access_token(head).ok_or_else(missing_token)?;
        let requester = state.authenticate(credentials(head, &token)).await?;
        state.permit(&requester, head)?;
        Ok(requester)
    }
}

impl<S: Authenticator> Authentication<S> for MaybeRequester {
    async fn from_head(state: &S, head: &Parts) -> Result<Self, ApiError> {
        let Some(token) = access_token(head) else { return Ok(Self(None)) };
        let requester = state.authenticate(credentials(head, &token)).await?;
        state.permit(&requester, head)?;
        Ok(Self(Some(requester)))
    }
}

impl<S: Authenticator> Authentication<S> for AppserviceCaller {
    async fn from_head(state: &S, head: &Parts) -> Result<Self, ApiError> {
        let token = access_token(head).ok_or_else(missing_token)?;
        if let Some(caller) = state.appservice(&token) {
            return Ok(caller);
        }
        // A token that is nobody's is told so, as everywhere.
        state.authenticate(credentials(head, &token)).await?;
        Err(ApiError::forbidden("Only application services may do this"))
    }
}

impl<S: Authenticator> Authentication<S> for MaybeAppservice {
    async fn from_head(state: &S, head: &Parts) -> Result<Self, ApiError> {
        let token = access_token(head);
        Ok(Self {
            caller: token.as_ref().and_then(|token| state.appservice(token)),
            has_token: token.is_some(),
            address: Context::of(&head.extensions).address,
        })
    }
}

impl<S: Authenticator> Authentication<S> for Caller {
    async fn from_head(state: &S, head: &Parts) -> Result<Self, ApiError> {
        let MaybeRequester(requester) = MaybeRequester::from_head(state, head).await?;
        Ok(Self { requester, address: Context::of(&head.extensions).address })
    }
}

impl<S: Sync> Authentication<S> for NoAuth {
    async fn from_head(_state: &S, head: &Parts) -> Result<Self, ApiError> {
        Ok(Self { address: Context::of(&head.extensions).address })
    }
}

fn credentials<'a>(head: &'a Parts, token: &'a str) -> Credentials<'a> {
    let address = Context::of(&head.extensions).address;
    Credentials { token, query: head.uri.query().unwrap_or_default(), address }
}

fn missing_token() -> ApiError {
    ApiError::missing_token("The request has no access token")
}

/// The access token of a request, if it has a well-formed one. In the query it counts only where
/// the configuration says so: there it ends up in logs and referrers, and version 1.20 of the
/// specification removes it.
fn access_token(head: &Parts) -> Option<Cow<'_, str>> {
    if let Some(value) = head.headers.get(AUTHORIZATION) {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        let token = token.trim();
        let well_formed = !token.is_empty() && !token.contains(char::is_whitespace);
        return (scheme.eq_ignore_ascii_case("bearer") && well_formed)
            .then_some(Cow::Borrowed(token));
    }
    if !Context::of(&head.extensions).query_tokens {
        return None;
    }
    url::form_urlencoded::parse(head.uri.query()?.as_bytes())
        .find(|(name, token)| name == "access_token" && !token.is_empty())
        .map(|(_, token)| token)
}

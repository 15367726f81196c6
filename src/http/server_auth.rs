//! Other servers as senders of requests: what they sign is the method, the address as it came, both
//! names and the body.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#request-authentication>

use std::future::Future;

use http::{Method, Request, header::AUTHORIZATION, request::Parts};
use ruma::{
    OwnedServerName, ServerName,
    api::federation::authentication::{ServerSignatures, XMatrix},
    serde::Base64,
    signatures::{PublicKeyMap, PublicKeySet},
};

use super::{Authentication, Fits};
use crate::error::ApiError;

/// The kind of key that signs requests.
const KEY_PREFIX: &str = "ed25519:";

/// Another server that sends a request.
#[derive(Debug)]
pub struct OtherServer {
    name: OwnedServerName,
    /// What it shows, as long as that is to be verified together with the body.
    unverified: Option<XMatrix>,
}

/// Knows the keys of servers; implemented by the state of the API that other servers call.
pub trait ServerAuthenticator: Send + Sync + 'static {
    /// The name of this server.
    fn server_name(&self) -> &ServerName;

    /// The key of another server by this id, if requests may be signed with it now.
    ///
    /// # Errors
    /// When the key cannot be had.
    fn verify_key(
        &self,
        server: &ServerName,
        key_id: &str,
    ) -> impl Future<Output = Result<Option<Base64>, ApiError>> + Send;

    /// Another server has sent something, and proven that it did.
    fn heard_from(&self, server: &ServerName);
}

impl OtherServer {
    /// Which server it is.
    ///
    /// # Errors
    /// 401 when the request has a body that is not verified, as in
    /// [`Routes::add_raw`](super::Routes::add_raw).
    pub fn name(&self) -> Result<&ServerName, ApiError> {
        match self.unverified {
            None => Ok(&self.name),
            Some(_) => Err(ApiError::unauthorized("The signature has not been verified")),
        }
    }
}

impl Fits<ServerSignatures> for OtherServer {}

impl<S: ServerAuthenticator> Authentication<S> for OtherServer {
    async fn from_head(state: &S, head: &Parts) -> Result<Self, ApiError> {
        let signed = shown(head)?;
        let own_name = state.server_name();
        if signed.destination.as_deref().is_some_and(|destination| destination != own_name) {
            return Err(ApiError::unauthorized("The request is meant for another server"));
        }
        if signed.origin == own_name {
            return Err(ApiError::unauthorized("This server sends itself no requests"));
        }
        if !signed.key.as_str().starts_with(KEY_PREFIX) {
            return Err(ApiError::unauthorized("Only keys for ed25519 sign requests"));
        }
        let name = signed.origin.clone();
        if head.method == Method::GET || head.method == Method::HEAD {
            verify(state, &signed, head, &[]).await?;
            return Ok(Self { name, unverified: None });
        }
        Ok(Self { name, unverified: Some(signed) })
    }

    async fn verify_body(&mut self, state: &S, head: &Parts, body: &[u8]) -> Result<(), ApiError> {
        if let Some(signed) = &self.unverified {
            verify(state, signed, head, body).await?;
        }
        self.unverified = None;
        Ok(())
    }
}

/// What a request shows.
fn shown(head: &Parts) -> Result<XMatrix, ApiError> {
    let mut values = head.headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Err(ApiError::unauthorized("The request is not signed by a server"));
    };
    if values.next().is_some() {
        return Err(ApiError::unauthorized("The request has more than one signature"));
    }
    let text = value.to_str().map_err(|_| unreadable("it has characters beyond ASCII"))?;
    XMatrix::parse(quoted(text)).map_err(|error| unreadable(&error.to_string()))
}

/// The same with all values in quotes and one space behind the scheme: older servers leave quotes
/// out around colons, which the grammar of headers does not allow and the specification wants
/// understood; and ruma's parser knows one space alone.
fn quoted(text: &str) -> String {
    let (scheme, text) = text.split_once(' ').unwrap_or((text, ""));
    let mut with_quotes = format!("{scheme} ");
    let (mut in_quotes, mut in_value, mut is_escaped) = (false, false, false);
    let mut rest = text.trim_start_matches(' ').chars().peekable();
    while let Some(char) = rest.next() {
        if in_value && (char == ',' || char.is_ascii_whitespace()) {
            with_quotes.push('"');
            in_value = false;
        }
        with_quotes.push(char);
        let begins = char == '=' && !in_quotes && !in_value;
        in_quotes ^= char == '"' && !is_escaped && !in_value;
        is_escaped = char == '\\' && !is_escaped;
        let is_bare = |next: &char| *next != '"' && *next != ',' && !next.is_ascii_whitespace();
        if begins && rest.peek().is_some_and(is_bare) {
            with_quotes.push('"');
            in_value = true;
        }
    }
    if in_value {
        with_quotes.push('"');
    }
    with_quotes
}

fn unreadable(why: &str) -> ApiError {
    ApiError::unauthorized(format!("The signature of the server cannot be read: {why}"))
}

async fn verify<S: ServerAuthenticator>(
    state: &S,
    signed: &XMatrix,
    head: &Parts,
    body: &[u8],
) -> Result<(), ApiError> {
    let key = state.verify_key(&signed.origin, signed.key.as_str()).await?;
    let key = key.ok_or_else(|| {
        let (key, origin) = (&signed.key, &signed.origin);
        ApiError::unauthorized(format!("{origin} has no key {key} that may sign requests now"))
    })?;
    let keys = PublicKeySet::from([(signed.key.to_string(), key)]);
    let keys = PublicKeyMap::from([(signed.origin.to_string(), keys)]);
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = head.uri.clone();
    signed
        .verify_http_request(&request, state.server_name(), &keys)
        .map_err(|_| ApiError::unauthorized("The signature is not that of this request"))?;
    state.heard_from(&signed.origin);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_in_quotes() {
        for (text, expected) in [
            ("X-Matrix a=b:1,c=\"d,e=f\"", "X-Matrix a=\"b:1\",c=\"d,e=f\""),
            ("X-Matrix a=b: , c=d==", "X-Matrix a=\"b:\" , c=\"d==\""),
            (r#"X-Matrix a="b\"=c",d=e"#, r#"X-Matrix a="b\"=c",d="e""#),
            ("X-Matrix   a= b,c=,d", "X-Matrix a= b,c=,d"),
            ("X-Matrix", "X-Matrix "),
            ("", " "),
        ] {
            assert_eq!(quoted(text), expected);
        }
    }
}

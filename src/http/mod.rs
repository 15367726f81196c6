//! HTTP: everything between a socket and a handler that takes and answers ruma's types.
//!
//! [`Routes`] turns handlers into an axum router (`endpoint.rs`), [`App`] is the boundary around it
//! (CORS, request ids, panics, metrics, the log of failures), [`Listener`] serves an [`App`] on a
//! socket. Authentication comes before the body is read (`auth.rs`, `server_auth.rs`,
//! `body.rs`); a JSON body is
//! checked once before ruma parses it (`json.rs`).
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#api-standards>

mod address;
mod app;
mod auth;
mod body;
mod connection;
mod cors;
mod endpoint;
mod json;
mod listener;
mod rate;
mod response;
mod server_auth;
mod tls;

pub use address::{ClientAddress, Peer, TrustedProxies};
pub use app::{App, AppSettings, Context, RequestId};
pub use auth::{
    AppserviceCaller, Authentication, Authenticator, Caller, Credentials, Fits, MaybeAppservice,
    MaybeRequester, NoAuth, Requester, SessionId, Standing,
};
pub use body::{BODY_BYTES_MAX, BODY_IDLE_MAX, check_encoding, check_json_headers, read_body};
pub use endpoint::{Options, RawRequest, Rewrite, Route, Routes, parameter};
pub use json::{JsonError, JsonRules, check_json};
pub use listener::{ListenError, Listener, ListenerSettings};
pub use rate::RateLimiter;
pub use server_auth::{OtherServer, ServerAuthenticator};
pub use tls::TlsFiles;

#[cfg(test)]
mod tests;

//! The page for clients that know none of the ways to log in: it logs in by itself, in a browser.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#login-fallback>

use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;

use super::{ClientApi, pages::page_with_script};
use crate::{
    error::ApiError,
    http::{NoAuth, RawRequest},
};

/// The paths of [`show`].
pub(super) const PATHS: &[&str] =
    &["/_matrix/static/client/login", "/_matrix/static/client/login/"];

const FORM: &str = "<form method=\"post\">\
    <p><label>User name <input name=\"user\" autocomplete=\"username\" required></label></p>\
    <p><label>Password <input name=\"password\" type=\"password\" autocomplete=\"current-password\" \
    required></label></p>\
    <button type=\"submit\">Log in</button></form><p id=\"outcome\" role=\"status\"></p>";

/// Of the page's address only what `/login` takes beside who logs in is passed on.
const SCRIPT: &str = r#"
const form = document.querySelector("form"), outcome = document.getElementById("outcome");
form.addEventListener("submit", async (submit) => {
  submit.preventDefault();
  const query = new URLSearchParams(location.search);
  const body = {
    type: "m.login.password",
    identifier: { type: "m.id.user", user: form.user.value },
    password: form.password.value,
  };
  for (const name of ["device_id", "initial_device_display_name"]) {
    if (query.has(name)) body[name] = query.get(name);
  }
  if (query.get("refresh_token") === "true") body.refresh_token = true;
  try {
    const headers = { "Content-Type": "application/json" };
    const request = { method: "POST", headers, body: JSON.stringify(body) };
    const answer = await fetch("/_matrix/client/v3/login", request);
    const response = await answer.json();
    outcome.textContent = answer.ok ? "You are logged in." : response.error;
    if (answer.ok && window.matrixLogin && window.matrixLogin.onLogin) {
      window.matrixLogin.onLogin(response);
    }
  } catch (error) {
    outcome.textContent = "The server could not be reached.";
  }
});
"#;

/// `GET /_matrix/static/client/login/`
/// <https://spec.matrix.org/v1.19/client-server-api/#login-fallback>
///
/// Logs in by password alone.
pub(super) async fn show(
    _app: Arc<ClientApi>,
    _auth: NoAuth,
    _request: RawRequest,
) -> Result<Response, ApiError> {
    Ok(page_with_script(StatusCode::OK, "Log in", FORM, SCRIPT))
}

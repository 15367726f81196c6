//! The few HTML pages of this server: forms with a button, shown in a browser and in no frame.
//!
//! Whatever is put into a page is escaped by whoever puts it ([`escape`]); the policy lets no script
//! run but the one that is written here.

use axum::{body::Body, response::Response};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

pub(super) use crate::users::email::escape;
use crate::{
    error::ApiError,
    http::{BODY_IDLE_MAX, RawRequest, read_body},
    users::secret,
};

/// The largest form.
const FORM_BYTES_MAX: usize = 16 * 1024;

/// Tells a client that shows the page that the stage is done.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#fallback>
const DONE_SCRIPT: &str = "if(window.onAuthDone){window.onAuthDone();}\
    else if(window.opener&&window.opener.postMessage){window.opener.postMessage(\"authDone\",\"*\");}";

/// A page with this title and these parts of HTML.
pub(super) fn page(status: StatusCode, title: &str, html: &str) -> Response {
    render(status, title, html, None)
}

/// A page with a script of this program.
pub(super) fn page_with_script(
    status: StatusCode,
    title: &str,
    html: &str,
    script: &'static str,
) -> Response {
    render(status, title, html, Some(script))
}

/// The page after the last step.
pub(super) fn done_page(text: &str) -> Response {
    let html = format!("<p>{}</p>", escape(text));
    render(StatusCode::OK, "Done", &html, Some(DONE_SCRIPT))
}

/// The page that tells of a failure.
pub(super) fn failure_page(error: &ApiError) -> Response {
    page(error.status, "That did not work", &format!("<p>{}</p>", escape(&error.message)))
}

/// A form that sends these hidden fields; `inside` is HTML between them and the button.
pub(super) fn form(hidden: &[(&str, &str)], inside: &str, button: &str) -> String {
    let mut html = "<form method=\"post\">".to_owned();
    for (name, value) in hidden {
        let (name, value) = (escape(name), escape(value));
        html.extend(["<input type=\"hidden\" name=\"", &name, "\" value=\"", &value, "\">"]);
    }
    let button = escape(button);
    html.extend([inside, "<button type=\"submit\">", &button, "</button></form>"]);
    html
}

/// The fields of a form that was sent.
pub(super) async fn fields(request: RawRequest) -> Result<Vec<(String, String)>, ApiError> {
    let body = read_body(request.body, FORM_BYTES_MAX, BODY_IDLE_MAX).await?;
    Ok(url::form_urlencoded::parse(&body).into_owned().collect())
}

/// The parameters of the address.
pub(super) fn query(request: &RawRequest) -> Vec<(String, String)> {
    let query = request.head.uri.query().unwrap_or_default();
    url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

/// One of them; empty where it is missing.
pub(super) fn value<'a>(fields: &'a [(String, String)], name: &str) -> &'a str {
    let found = fields.iter().find(|(field, _)| field == name);
    found.map_or("", |(_, value)| value.as_str())
}

fn render(status: StatusCode, title: &str, html: &str, script: Option<&str>) -> Response {
    let nonce = STANDARD.encode(secret::random::<16>());
    let title = escape(title);
    let script = script
        .map(|script| format!("<script nonce=\"{nonce}\">{script}</script>"))
        .unwrap_or_default();
    let text = format!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{title}</title></head><body><h1>{title}</h1>{html}\
         {script}</body></html>"
    );
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    protect(response.headers_mut(), &nonce);
    response
}

fn protect(headers: &mut HeaderMap, nonce: &str) {
    let fixed = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("x-robots-tag"), "noindex"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; connect-src 'self'; form-action 'self'; \
         base-uri 'none'; frame-ancestors 'none'"
    );
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
}

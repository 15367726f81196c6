//! The section `[email]`: how the server sends mail.

use serde::{Deserialize, Serialize};

use super::Secret;

/// How the server sends mail. With it users can add an e-mail address to their account, log in with
/// it and set a new password by it. Needs `server.public_base_url`, since mails have a link.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmailConfig {
    /// The mail server, with user and password: `smtps://` for TLS from the start (port 465),
    /// `smtp://…?tls=required` for STARTTLS (port 587), `smtp://` for neither, which only a mail
    /// server on the same machine should see.
    ///
    /// Example: `"smtps://causerie:password@mail.example.org"`
    pub smtp_url: Option<Secret>,

    /// Whom mails come from.
    ///
    /// Example: `"Causerie <noreply@example.org>"`
    pub from: Option<String>,
}

impl EmailConfig {
    /// Whether mail can be sent.
    pub fn is_enabled(&self) -> bool {
        self.smtp_url.is_some()
    }
}

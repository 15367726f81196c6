//! The texts of mails, plain and as HTML. Everything that is put into HTML is escaped.

use crate::storage::rows::accounts::EmailPurpose;

/// A mail without its addresses.
pub(super) struct Mail {
    pub(super) subject: String,
    pub(super) plain: String,
    pub(super) html: String,
}

/// The mail for a request; without a link it tells why there is none.
pub(super) fn mail(server: &str, purpose: EmailPurpose, link: Option<&str>) -> Mail {
    let (subject, text) = match (purpose, link.is_some()) {
        (EmailPurpose::Register, true) => (
            "Confirm your address",
            "Somebody, hopefully you, makes an account on {server} with this e-mail address. If \
             it was you, follow the link and confirm.",
        ),
        (EmailPurpose::Register, false) => (
            "You have an account already",
            "Somebody, hopefully you, wanted to make an account on {server} with this e-mail \
             address. There is an account with it already: log in, or ask for a new password.",
        ),
        (EmailPurpose::Add, true) => (
            "Confirm your address",
            "Somebody, hopefully you, adds this e-mail address to an account on {server}. If it \
             was you, follow the link and confirm.",
        ),
        (EmailPurpose::Add, false) => (
            "This address is in use",
            "Somebody, hopefully you, wanted to add this e-mail address to an account on \
             {server}. An account has it already, so it was not added.",
        ),
        (EmailPurpose::ResetPassword, true) => (
            "A new password",
            "Somebody, hopefully you, wants to set a new password for your account on {server}. \
             If it was you, follow the link and confirm.",
        ),
        (EmailPurpose::ResetPassword, false) => (
            "No account has this address",
            "Somebody, hopefully you, wanted to set a new password on {server}, but no account \
             there has this e-mail address.",
        ),
    };
    let text = text.replace("{server}", server);
    let ignore = "If it was not you, ignore this mail.";
    let plain_link = link.map(|link| format!("{link}\n\n")).unwrap_or_default();
    let html_link = link.map(escape).map(|link| format!("<p><a href=\"{link}\">{link}</a></p>"));
    Mail {
        subject: format!("{server}: {subject}"),
        plain: format!("{text}\n\n{plain_link}{ignore}\n"),
        html: format!(
            "<!DOCTYPE html><html><body><p>{}</p>{}<p>{ignore}</p></body></html>",
            escape(&text),
            html_link.unwrap_or_default()
        ),
    }
}

/// Text as it may stand in HTML, also between quotes.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t74_what_is_put_into_html_is_escaped() {
        let mail = mail("<b>&x", EmailPurpose::Add, Some("https://x/?a=1&b=\"><script>"));
        assert!(mail.plain.contains("https://x/?a=1&b=\"><script>\n"));
        assert!(mail.html.contains("href=\"https://x/?a=1&amp;b=&quot;&gt;&lt;script&gt;\""));
        assert!(mail.html.contains("&lt;b&gt;&amp;x"));
        assert!(!mail.html.contains("<script>"));
    }
}

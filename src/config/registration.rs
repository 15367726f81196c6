//! The section `[registration]`: who may make an account.

use serde::{Deserialize, Serialize};
use url::Url;

use super::Secret;

/// Who may make an account. An administrator always can, with `causerie admin create-user`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub struct RegistrationConfig {
    /// Whether people may register themselves, with one of the `tokens` below.
    pub enabled: bool,

    /// The registration tokens that are accepted: letters, digits, `.`, `_`, `~` and `-`, at most
    /// 64 characters each. Whoever knows one can make any number of accounts; for tokens that are
    /// good for so many accounts or so long see `causerie admin registration-token`.
    ///
    /// Example: `["a-long-random-text"]`
    pub tokens: Vec<Secret>,

    /// Whether people may register without a token. On a public address that invites spammers
    /// within days, so the server refuses to start with it unless every listener for clients is on a
    /// loopback address.
    pub open_without_token: bool,

    /// Says that registration without a token is wanted although others than this machine can
    /// reach the server.
    pub i_understand_that_anyone_can_register: bool,

    /// Whether who registers must prove to have an e-mail address, which needs the section
    /// `[email]`.
    pub require_email: bool,

    /// What one has to agree to in order to register. Each policy has a `name` (lower-case letters,
    /// digits and `_`), a `version`, a `title` for people and the `url` of its text:
    /// `[{ name = "privacy", version = "1", title = "Privacy", url = "https://example.org/privacy" }]`.
    pub terms: Vec<Policy>,

    /// Whether guests may come: accounts without a password that may only read and join rooms that
    /// let guests in. Anybody who reaches the server can make one.
    pub guests: bool,

    /// Whether a new account begins with a display name, the part of its id before the server, as
    /// clients would show the whole id else. Users change or remove it as they like.
    pub display_name_from_id: bool,
}

impl Default for RegistrationConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            tokens: Vec::new(),
            open_without_token: false,
            i_understand_that_anyone_can_register: false,
            require_email: false,
            terms: Vec::new(),
            guests: false,
            display_name_from_id: true,
        }
    }
}

/// Something to agree to.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Its name among the policies.
    pub name: String,
    /// Which version of it.
    pub version: String,
    /// What it is called, for people.
    pub title: String,
    /// The language of title and text.
    #[serde(default = "english")]
    pub language: String,
    /// Where its text is.
    pub url: Url,
}

fn english() -> String {
    "en".to_owned()
}

//! The section `[support]`: whom people can ask.

use ruma::OwnedUserId;
use serde::{Deserialize, Serialize};
use url::Url;

/// Whom people can ask about the server, published in `/.well-known/matrix/support`. Without any of
/// it no such file is served.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SupportConfig {
    /// The people: each has a `role` (`"m.role.admin"` for any question, `"m.role.security"` for
    /// reports of weaknesses, `"m.role.dpo"` for the protection of data) and a `matrix_id`, an
    /// `email_address` or both: `[{ role = "m.role.admin", matrix_id = "@admin:example.org" }]`.
    pub contacts: Vec<SupportContact>,

    /// A page with help.
    ///
    /// Example: `"https://example.org/help"`
    pub page: Option<Url>,
}

/// Somebody who can be asked.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SupportContact {
    /// What about.
    pub role: String,
    /// The Matrix id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matrix_id: Option<OwnedUserId>,
    /// The e-mail address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email_address: Option<String>,
}

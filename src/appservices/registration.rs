//! Registrations: what describes an application service, read from YAML and checked.
//!
//! Read from the files of the configuration at the start and from what an administrator hands in.
//! Every mistake is told in a sentence that names the field. The namespaces' regular expressions
//! are checked against their limits by [`super::namespaces`].
//!
//! <https://spec.matrix.org/v1.19/application-service-api/#registration>

use ring::digest::{SHA256, digest};
use ruma::{OwnedUserId, ServerName, UserId};
use serde::Deserialize;
use url::Url;

use crate::storage::schema::appservices::{AppserviceRow, NamespaceRow};

/// The largest registration, in bytes.
const REGISTRATION_BYTES_MAX: usize = 1 << 20;
/// The longest id, and the longest name of a protocol, in bytes.
pub(super) const ID_BYTES_MAX: usize = 255;
/// The longest token, in bytes.
const TOKEN_BYTES_MAX: usize = 1024;
/// The longest address, in bytes.
const URL_BYTES_MAX: usize = 2048;
/// How many namespaces of one kind, and how many protocols.
const LIST_MAX: usize = 100;
/// How tokens of users begin: a token of an application service never does, so that no token can
/// be both (attack case T84).
const USER_TOKEN_PREFIXES: [&str; 2] = ["cat_", "crt_"];

/// Why a registration is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistrationError {
    /// It is no YAML, or lacks something.
    #[error("it cannot be read: {0}")]
    Syntax(String),
    /// It makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// Another one has the same id or token.
    #[error("{0} is registered already, or has the same `as_token`")]
    Taken(String),
}

/// A registration as it is written.
#[expect(clippy::struct_excessive_bools, reason = "a registration has that many flags")]
#[derive(Deserialize)]
struct Written {
    id: String,
    #[serde(default)]
    url: Option<String>,
    as_token: String,
    hs_token: String,
    sender_localpart: String,
    #[serde(default)]
    namespaces: Namespaces,
    #[serde(default)]
    rate_limited: Option<bool>,
    #[serde(default)]
    receive_ephemeral: bool,
    #[serde(default, rename = "de.sorunome.msc2409.push_ephemeral")]
    msc2409: bool,
    #[serde(default, rename = "org.matrix.msc3202")]
    msc3202: bool,
    #[serde(default, rename = "io.element.msc4190")]
    msc4190: bool,
    #[serde(default)]
    protocols: Option<Vec<String>>,
}

/// Lists that are written `null`, or not at all, are empty.
#[derive(Default, Deserialize)]
struct Namespaces {
    #[serde(default)]
    users: Option<Vec<NamespaceRow>>,
    #[serde(default)]
    aliases: Option<Vec<NamespaceRow>>,
    #[serde(default)]
    rooms: Option<Vec<NamespaceRow>>,
}

/// Reads a registration; gives its id and what is kept of it.
pub(super) fn read(yaml: &str) -> Result<(String, AppserviceRow), RegistrationError> {
    if yaml.len() > REGISTRATION_BYTES_MAX {
        return Err(invalid("it is larger than a mebibyte"));
    }
    let written: Written = serde_yaml_ng::from_str(yaml)
        .map_err(|error| RegistrationError::Syntax(error.to_string()))?;
    check_id("id", &written.id)?;
    if written.id.contains('|') {
        return Err(invalid("`id` has a `|`, which separates it from a network"));
    }
    check_token("as_token", &written.as_token)?;
    check_token("hs_token", &written.hs_token)?;
    if is_of_user(&written.as_token) {
        return Err(invalid("`as_token` begins like the token of a user"));
    }
    let namespaces = written.namespaces;
    let row = AppserviceRow {
        url: written.url.filter(|url| !url.is_empty()),
        as_token_hash: token_hash(&written.as_token),
        hs_token: written.hs_token,
        sender_localpart: written.sender_localpart,
        users: list("users", namespaces.users)?,
        aliases: list("aliases", namespaces.aliases)?,
        rooms: list("rooms", namespaces.rooms)?,
        rate_limited: written.rate_limited.unwrap_or(true),
        receive_ephemeral: written.receive_ephemeral,
        msc2409: written.msc2409,
        msc3202: written.msc3202,
        msc4190: written.msc4190,
        protocols: list("protocols", written.protocols)?,
    };
    row.protocols.iter().try_for_each(|protocol| check_id("protocols", protocol))?;
    Ok((written.id, row))
}

/// Whether a token is one of a user by its beginning.
pub(super) fn is_of_user(token: &str) -> bool {
    USER_TOKEN_PREFIXES.iter().any(|prefix| token.starts_with(prefix))
}

fn list<T>(name: &str, list: Option<Vec<T>>) -> Result<Vec<T>, RegistrationError> {
    let list = list.unwrap_or_default();
    if list.len() > LIST_MAX {
        return Err(invalid(format!("`{name}` has more than {LIST_MAX} entries")));
    }
    Ok(list)
}

fn check_id(name: &str, id: &str) -> Result<(), RegistrationError> {
    if id.is_empty() || id.len() > ID_BYTES_MAX || id.contains(char::is_control) {
        return Err(invalid(format!("`{name}` is empty, too long or has control characters")));
    }
    Ok(())
}

fn check_token(name: &str, token: &str) -> Result<(), RegistrationError> {
    let is_good = (1..=TOKEN_BYTES_MAX).contains(&token.len())
        && token.bytes().all(|byte| byte.is_ascii_graphic());
    if is_good {
        return Ok(());
    }
    Err(invalid(format!(
        "`{name}` is empty, too long or has other characters than visible ASCII without spaces"
    )))
}

/// The address, if there is one.
pub(super) fn url(row: &AppserviceRow) -> Result<Option<Url>, RegistrationError> {
    let Some(text) = &row.url else { return Ok(None) };
    let url = Url::parse(text).map_err(|error| invalid(format!("`url`: {error}")))?;
    let is_http = matches!(url.scheme(), "http" | "https");
    if !is_http || !url.has_host() || text.len() > URL_BYTES_MAX {
        return Err(invalid("`url` is not an address with `http://` or `https://`"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(invalid("`url` has a query or a fragment"));
    }
    Ok(Some(url))
}

/// The application service's own user.
pub(super) fn sender(
    row: &AppserviceRow,
    server_name: &ServerName,
) -> Result<OwnedUserId, RegistrationError> {
    let localpart = &row.sender_localpart;
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._=-/+".contains(&byte);
    let user_id = UserId::parse(format!("@{localpart}:{server_name}"));
    match user_id {
        Ok(user_id)
            if !localpart.is_empty()
                && localpart.bytes().all(allowed)
                && user_id.as_bytes().len() <= 255 =>
        {
            Ok(user_id)
        }
        _ => Err(invalid(
            "`sender_localpart` is not a user name (without `@` and server) of a-z, 0-9 and the \
             signs . _ = - / +",
        )),
    }
}

/// What is kept of a token. With its length nobody finds a token for a hash.
pub(super) fn token_hash(token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}

pub(super) fn invalid(text: impl Into<String>) -> RegistrationError {
    RegistrationError::Invalid(text.into())
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;

    const GOOD: &str = "
id: telegram
url: http://localhost:29317
as_token: secret-a
hs_token: secret-h
sender_localpart: telegrambot
rate_limited: false
de.sorunome.msc2409.push_ephemeral: true
receive_ephemeral: true
namespaces:
  users:
    - exclusive: true
      regex: '@telegram_.*:example\\.org'
  aliases: null
";

    #[test]
    fn a_file_as_bridges_generate_it() {
        let (id, row) = read(GOOD).unwrap();
        assert_eq!(id, "telegram");
        assert!(!row.rate_limited && row.receive_ephemeral && row.msc2409 && !row.msc3202);
        assert_eq!(row.users.len(), 1);
        assert_eq!(url(&row).unwrap().unwrap().port(), Some(29317));
        let sender = sender(&row, server_name!("example.org")).unwrap();
        assert_eq!(sender, "@telegrambot:example.org");
        assert!(!format!("{row:?}").contains("secret"));
    }

    #[test]
    fn t84_mistakes_are_told() {
        let cases = [
            ("id: telegram", "id: ''", "`id`"),
            ("as_token: secret-a", "as_token: cat_x", "token of a user"),
            ("as_token: secret-a", "as_token: 'a b'", "`as_token`"),
            ("hs_token: secret-h", "hs_token: ''", "`hs_token`"),
            ("hs_token: secret-h", "", "hs_token"),
            ("exclusive: true", "exclusive: maybe", "exclusive"),
        ];
        for (from, to, expected) in cases {
            let error = read(&GOOD.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(expected), "{to}: {error}");
        }
        for bad in ["ftp://x", "http://", "nowhere", "http://x/?q"] {
            let (_, row) = read(&GOOD.replace("http://localhost:29317", bad)).unwrap();
            assert!(url(&row).is_err(), "{bad}");
        }
        let (_, row) = read(&GOOD.replace("telegrambot", "Bot")).unwrap();
        assert!(sender(&row, server_name!("example.org")).is_err());
    }
}

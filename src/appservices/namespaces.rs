//! Namespaces: regular expressions that say which users, aliases and rooms are an application
//! service's business.
//!
//! An expression must match from the beginning of the id; the end is open unless it says `$`. That
//! is how other servers take them, and registrations in the wild rely on it (`@_irc_`). There are
//! no look-arounds and no back-references, so that no id takes longer than linear time.
//!
//! <https://spec.matrix.org/v1.19/application-service-api/#registration>

use regex::{Regex, RegexBuilder};

use super::registration::{RegistrationError, invalid};
use crate::storage::schema::appservices::NamespaceRow;

/// The longest expression, in bytes.
const REGEX_BYTES_MAX: usize = 2000;
/// The memory that one compiled expression may take, in bytes.
const REGEX_SIZE_BYTES_MAX: usize = 1 << 20;

/// The namespaces of one kind.
#[derive(Debug, Default)]
pub(super) struct Namespaces(Vec<Namespace>);

#[derive(Debug)]
struct Namespace {
    exclusive: bool,
    regex: Regex,
}

impl Namespaces {
    /// Compiles them.
    pub(super) fn compile(kind: &str, rows: &[NamespaceRow]) -> Result<Self, RegistrationError> {
        let compiled = rows.iter().map(|row| {
            if row.regex.is_empty() || row.regex.len() > REGEX_BYTES_MAX {
                return Err(invalid(format!("a `regex` in `{kind}` is empty or too long")));
            }
            let regex = RegexBuilder::new(&format!("^(?:{})", row.regex))
                .size_limit(REGEX_SIZE_BYTES_MAX)
                .dfa_size_limit(REGEX_SIZE_BYTES_MAX)
                .build()
                .map_err(|error| {
                    invalid(format!("the `regex` {} in `{kind}`: {error}", row.regex))
                })?;
            Ok(Namespace { exclusive: row.exclusive, regex })
        });
        compiled.collect::<Result<_, _>>().map(Self)
    }

    /// Whether an id is in one of them.
    pub(super) fn covers(&self, id: &str) -> bool {
        self.0.iter().any(|namespace| namespace.regex.is_match(id))
    }

    /// Whether an id is in an exclusive one of them.
    pub(super) fn reserves(&self, id: &str) -> bool {
        self.0.iter().any(|namespace| namespace.exclusive && namespace.regex.is_match(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespaces(regex: &str, exclusive: bool) -> Result<Namespaces, RegistrationError> {
        Namespaces::compile("users", &[NamespaceRow { exclusive, regex: regex.to_owned() }])
    }

    #[test]
    fn expressions_match_from_the_beginning() {
        let irc = namespaces("@_irc_.*", true).unwrap();
        assert!(irc.covers("@_irc_bob:hs1") && irc.reserves("@_irc_bob:hs1"));
        assert!(!irc.covers("@x_irc_bob:hs1") && !irc.covers("x@_irc_bob:hs1"));
        assert!(namespaces("@_irc_", false).unwrap().covers("@_irc_bob:hs1"));
        assert!(!namespaces("@_irc_", false).unwrap().reserves("@_irc_bob:hs1"));
        assert!(!namespaces("@a:hs1$", false).unwrap().covers("@a:hs1.evil"));
        // Alternatives are all held to the beginning.
        let two = namespaces("@a:|@b:", false).unwrap();
        assert!(two.covers("@b:hs1") && !two.covers("x@b:hs1"));
    }

    #[test]
    fn t84_expressions_have_limits() {
        for bad in ["", "(", "(a{1000}){1000}{1000}", "(?=x)", &"x".repeat(2001)] {
            assert!(namespaces(bad, false).is_err(), "{bad}");
        }
    }
}

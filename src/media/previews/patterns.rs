//! Which addresses the operator lets previews be made of.
//!
//! A pattern with `://` is for the whole address, another one for its host; `*` stands for anything.

use regex::{RegexSet, RegexSetBuilder};
use url::Url;

/// What the compiled patterns may take, in bytes.
const SIZE_BYTES_MAX: usize = 64 << 20;

/// What may be fetched.
pub(super) struct Patterns {
    /// `None`: everything that is not denied.
    allowed: Option<Lists>,
    denied: Lists,
}

/// Patterns by what they are for; `None` where they are more than can be used.
struct Lists(Option<(RegexSet, RegexSet)>);

impl Patterns {
    pub(super) fn new(allowed: &[String], denied: &[String]) -> Self {
        let allowed = (!allowed.is_empty()).then(|| Lists::new(allowed));
        Self { allowed, denied: Lists::new(denied) }
    }

    /// Patterns that cannot be used allow nothing.
    pub(super) fn allow(&self, url: &Url) -> bool {
        let is_allowed = |lists: &Lists| lists.name(url).unwrap_or(false);
        !self.denied.name(url).unwrap_or(true) && self.allowed.as_ref().is_none_or(is_allowed)
    }
}

impl Lists {
    fn new(patterns: &[String]) -> Self {
        let (addresses, hosts): (Vec<&String>, Vec<&String>) =
            patterns.iter().partition(|pattern| pattern.contains("://"));
        let sets = set(&addresses).and_then(|addresses| Ok((addresses, set(&hosts)?)));
        Self(
            sets.inspect_err(|error| {
                tracing::error!(%error, "the patterns in `url_previews` cannot be used");
            })
            .ok(),
        )
    }

    fn name(&self, url: &Url) -> Option<bool> {
        let (addresses, hosts) = self.0.as_ref()?;
        let host = url.host_str().unwrap_or_default().trim_end_matches('.');
        Some(addresses.is_match(&plain(url)) || hosts.is_match(host))
    }
}

/// An address in its plainest spelling: without the dot that may end a host, and without escapes
/// where none are needed.
fn plain(url: &Url) -> String {
    let mut url = url.clone();
    let host = url.host_str().map(|host| host.trim_end_matches('.').to_owned());
    // What is no host without the dot stays as it is.
    let _ = url.set_host(host.as_deref());
    let mut plain = String::with_capacity(url.as_str().len());
    let mut rest = url.as_str();
    while let Some((before, after)) = rest.split_once('%') {
        plain.push_str(before);
        let byte = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let plain_byte = byte.filter(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(byte));
        if let Some(byte) = plain_byte {
            plain.push(char::from(byte));
            rest = &after[2..];
        } else {
            plain.push('%');
            rest = after;
        }
    }
    plain + rest
}

fn set(patterns: &[&String]) -> Result<RegexSet, regex::Error> {
    let expressions = patterns.iter().map(|pattern| {
        let parts = pattern.split('*').map(regex::escape);
        format!("(?is)^{}$", parts.collect::<Vec<_>>().join(".*"))
    });
    RegexSetBuilder::new(expressions).size_limit(SIZE_BYTES_MAX).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(allowed: &[&str], denied: &[&str], url: &str) -> bool {
        let owned =
            |patterns: &[&str]| patterns.iter().map(|&it| it.to_owned()).collect::<Vec<_>>();
        Patterns::new(&owned(allowed), &owned(denied)).allow(&Url::parse(url).unwrap())
    }

    #[test]
    fn t104_patterns_are_for_hosts_or_whole_addresses() {
        assert!(allows(&[], &[], "https://example.org/"));
        assert!(!allows(&[], &["example.org"], "https://EXAMPLE.org/a"));
        assert!(!allows(&[], &["example.org"], "https://example.org./a"));
        assert!(allows(&[], &["example.org"], "https://www.example.org/a"));
        assert!(!allows(&[], &["*.example.org"], "https://www.example.org/a"));
        assert!(allows(&[], &["exampleXorg"], "https://example.org/"));
        assert!(!allows(&[], &["https://example.org/private/*"], "https://example.org/private/x"));
        for spelling in ["https://example.org./private/x", "https://example.org/%70riv%61te/x"] {
            assert!(!allows(&[], &["https://example.org/private/*"], spelling), "{spelling}");
        }
        assert!(allows(&[], &["https://example.org/private/*"], "https://example.org/public%2"));
        assert!(allows(&[], &["https://example.org/private/*"], "https://example.org/public"));
        assert!(allows(&["example.org"], &[], "https://example.org/"));
        assert!(!allows(&["example.org"], &[], "https://example.com/"));
        assert!(!allows(&["*"], &["example.org"], "https://example.org/"));
    }
}

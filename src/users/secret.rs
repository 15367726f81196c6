//! Secrets: the one place where they are made, and how tokens are named without keeping them.
//!
//! All bytes come from the operating system's generator. A token is stored only as its hash: with
//! 256 random bits nobody finds a token for a hash, so a plain SHA-256 is enough.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::digest::{SHA256, digest};

/// Fills an array from the operating system's generator.
///
/// # Panics
/// When the operating system has no random bytes, which none does that runs a server.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system always has random bytes once it runs");
    bytes
}

/// Text that stands for a secret; it never shows in debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A new token of 256 random bits. The prefix tells kinds apart, also in scanners for leaks.
    pub fn new(prefix: &str) -> Self {
        Self(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(random::<32>())))
    }

    /// The text, for the one who may have it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The text, for the one who may have it.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl From<String> for Token {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[token]")
    }
}

/// SHA-256 of a token (or of anything).
pub fn hash(text: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, text).as_ref());
    hash
}

/// SHA-256 of several parts, each with its length, so that no two lists of parts are alike.
pub fn hash_parts(parts: &[&[u8]]) -> [u8; 32] {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part);
    }
    hash(&bytes)
}

/// A name of `length` lower-case letters and digits, for things people may have to type.
pub fn random_name(length: usize) -> String {
    // 32 signs, so that each stands for five bits and none is likelier than another.
    const SIGNS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    std::iter::repeat_with(|| char::from(SIGNS[usize::from(random::<1>()[0] & 31)]))
        .take(length)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_long_differ_and_hide() {
        let (one, other) = (Token::new("cat_"), Token::new("cat_"));
        assert_ne!(one, other);
        assert!(one.reveal().starts_with("cat_"));
        assert_eq!(one.reveal().len(), 4 + 43);
        assert_eq!(format!("{one:?}"), "[token]");
    }

    #[test]
    fn parts_are_not_confused() {
        assert_ne!(hash_parts(&[b"ab", b"c"]), hash_parts(&[b"a", b"bc"]));
        assert_ne!(hash_parts(&[b"ab"]), hash_parts(&[b"ab", b""]));
    }
}

//! Where a page of results goes on, as clients carry it.
//!
//! A token says nothing that its bearer does not know, and a forged one shows nothing else: what a
//! user may see is checked for each result of each page.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use kv::Position;
use serde::{Deserialize, Serialize};

use crate::error::ApiError;

/// The longest token: an id in it has at most 255 bytes.
const TOKEN_BYTES_MAX: usize = 1_024;

/// A place in a list of results.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Token {
    /// Only what is before it; for results by rank, what the first page looked at.
    #[serde(rename = "p")]
    pub(super) position: u64,
    /// For results by rank: how many were shown.
    #[serde(rename = "o", default)]
    pub(super) offset: usize,
    /// How many results there are, as the first page counted them.
    #[serde(rename = "c")]
    pub(super) count: u64,
    /// Only results of this room.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub(super) room: Option<String>,
    /// Only results of this sender.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub(super) sender: Option<String>,
}

impl Token {
    pub(super) fn new(position: Position, offset: usize, count: u64) -> Self {
        Self { position: position.as_u64(), offset, count, ..Self::default() }
    }

    pub(super) fn position(&self) -> Position {
        Position::from_u64(self.position)
    }

    pub(super) fn parse(text: &str) -> Result<Self, ApiError> {
        let token = (text.len() <= TOKEN_BYTES_MAX)
            .then(|| URL_SAFE_NO_PAD.decode(text).ok())
            .flatten()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        token.ok_or_else(|| ApiError::invalid_param("`next_batch` is not a token of a search"))
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let json = serde_json::to_vec(self).map_err(|_| std::fmt::Error)?;
        formatter.write_str(&URL_SAFE_NO_PAD.encode(json))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back() {
        let token =
            Token { room: Some("!r:hs1".to_owned()), ..Token::new(Position::from_u64(7), 20, 31) };
        assert_eq!(Token::parse(&token.to_string()).unwrap(), token);
        for wrong in ["", "x", "e30", &"A".repeat(2_000)] {
            assert_eq!(Token::parse(wrong).unwrap_err().errcode, "M_INVALID_PARAM");
        }
    }
}

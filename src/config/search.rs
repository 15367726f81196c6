//! The section `[search]`: the full-text search of messages.

use serde::{Deserialize, Serialize};

/// The full-text search of messages. Only what is not encrypted can be found: the texts of messages,
/// names and topics of rooms.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SearchConfig {
    /// Whether the server keeps an index of messages and answers searches. Without it clients are
    /// told that there is no search. An index that was kept before stays and is brought up to date
    /// when the search is enabled again.
    pub enabled: bool,

    /// The language whose word endings a search ignores, so that `meeting` also finds `meetings`:
    /// `"danish"`, `"dutch"`, `"english"`, `"finnish"`, `"french"`, `"german"`, `"hungarian"`,
    /// `"italian"`, `"norwegian"`, `"portuguese"`, `"romanian"`, `"russian"`, `"spanish"`,
    /// `"swedish"`, `"turkish"` and others. Without it words are found as they are written. A change
    /// makes the index anew at the next start, which takes time.
    ///
    /// Example: `"english"`
    pub language: Option<SearchLanguage>,
}

impl Default for SearchConfig {
    fn default() -> Self {
        Self { enabled: true, language: None }
    }
}

/// The languages that word endings are known of.
#[expect(missing_docs, reason = "they are what they are called")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SearchLanguage {
    Arabic,
    Danish,
    Dutch,
    English,
    Finnish,
    French,
    German,
    Greek,
    Hungarian,
    Italian,
    Norwegian,
    Portuguese,
    Romanian,
    Russian,
    Spanish,
    Swedish,
    Tamil,
    Turkish,
}

//! Terms: what texts and queries are cut into. Both go through the same [`Analyzer`].
//!
//! Words by the rules of Unicode, in their compatibility form (NFKC) and without case; with a
//! language set, without their endings. Scripts that are written without spaces give single
//! characters and pairs of neighbours, so that a query finds its characters side by side.
//!
//! <https://www.unicode.org/reports/tr29/#Word_Boundaries>

use std::collections::BTreeMap;

use rust_stemmers::{Algorithm, Stemmer};
use unicode_normalization::UnicodeNormalization;
use unicode_segmentation::UnicodeSegmentation;

use crate::config::SearchLanguage;

/// How many bytes of a text are looked at.
const TEXT_BYTES_MAX: usize = 32 * 1024;

/// How many different terms of a text are kept.
pub(super) const TERMS_MAX: usize = 1_000;

/// Changes when the same text gives other terms than before.
const VERSION: u32 = 1;

/// Cuts texts into terms.
pub struct Analyzer {
    language: Option<SearchLanguage>,
    stemmer: Option<Stemmer>,
}

impl std::fmt::Debug for Analyzer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Analyzer({})", self.signature())
    }
}

/// The terms of a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// How often each occurs.
    pub counts: BTreeMap<String, u32>,
    /// How many words the text has.
    pub words: usize,
}

impl Terms {
    fn add(&mut self, term: String) {
        if let Some(count) = self.counts.get_mut(&term) {
            *count += 1;
        } else if self.counts.len() < TERMS_MAX {
            self.counts.insert(term, 1);
        }
    }
}

impl Analyzer {
    /// With the endings of a language, or none.
    pub fn new(language: Option<SearchLanguage>) -> Self {
        Self { language, stemmer: language.map(|language| Stemmer::create(algorithm(language))) }
    }

    /// What an index made with it is marked with.
    pub fn signature(&self) -> String {
        match self.language {
            None => format!("{VERSION}"),
            Some(language) => format!("{VERSION} {language:?}"),
        }
    }

    /// The terms of a text that is stored.
    pub fn terms(&self, text: &str) -> Terms {
        let mut terms = Terms::default();
        for word in words(text) {
            terms.words += 1;
            match word {
                Word::Spaced(word) => terms.add(self.stem(&word)),
                Word::Unspaced(run) => {
                    for one in &run {
                        terms.add(one.to_string());
                    }
                    for pair in run.windows(2) {
                        terms.add(pair.iter().collect());
                    }
                }
            }
        }
        terms
    }

    /// The terms that a text must have to be found by a query, and the query's words.
    pub fn query(&self, text: &str) -> Query {
        let mut query = Query::default();
        for word in words(text) {
            match word {
                Word::Spaced(word) => {
                    query.terms.push(self.stem(&word));
                    query.words.push(word);
                }
                Word::Unspaced(run) => {
                    if let [one] = run[..] {
                        query.terms.push(one.to_string());
                    }
                    query.terms.extend(run.windows(2).map(|pair| pair.iter().collect::<String>()));
                    query.words.push(run.into_iter().collect());
                }
            }
        }
        query.terms.sort();
        query.terms.dedup();
        query
    }

    /// The words of a text that a query found, as they are written there.
    pub fn found_words<'a>(&self, text: &'a str, query: &Query) -> Vec<&'a str> {
        let found = |word: &&str| {
            words(word).into_iter().any(|word| match word {
                Word::Spaced(word) => query.terms.binary_search(&self.stem(&word)).is_ok(),
                Word::Unspaced(_) => false,
            })
        };
        prefix(text).unicode_words().filter(found).collect()
    }

    fn stem(&self, word: &str) -> String {
        match &self.stemmer {
            Some(stemmer) => stemmer.stem(word).into_owned(),
            None => word.to_owned(),
        }
    }
}

/// A query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// The terms, sorted, each once.
    pub terms: Vec<String>,
    /// The words as they were asked for, without case.
    pub words: Vec<String>,
}

enum Word {
    Spaced(String),
    /// Neighbours of a script without spaces.
    Unspaced(Vec<char>),
}

fn words(text: &str) -> Vec<Word> {
    let folded = fold(prefix(text));
    let mut words = Vec::new();
    let mut end_of_run = None;
    for (at, word) in folded.unicode_word_indices() {
        let mut rest = word;
        let mut place = at;
        while let Some(first) = rest.chars().next() {
            let unspaced = is_unspaced(first);
            let length = rest.find(|c| is_unspaced(c) != unspaced).unwrap_or(rest.len());
            let (part, after) = rest.split_at(length);
            match words.last_mut() {
                Some(Word::Unspaced(run)) if unspaced && end_of_run == Some(place) => {
                    run.extend(part.chars());
                }
                _ if unspaced => words.push(Word::Unspaced(part.chars().collect())),
                _ => words.push(Word::Spaced(part.to_owned())),
            }
            place += length;
            end_of_run = unspaced.then_some(place);
            rest = after;
        }
    }
    words
}

/// The beginning of a text, as far as it is looked at.
fn prefix(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

/// A text in its compatibility form and without case.
pub fn fold(text: &str) -> String {
    let lower = text.nfkc().flat_map(char::to_lowercase);
    // What lower case alone does not bring together.
    let folded = lower.flat_map(|c| match c {
        'ß' => ['s', 's'].into_iter().take(2),
        'ς' => ['σ', 'σ'].into_iter().take(1),
        c => [c, c].into_iter().take(1),
    });
    folded.nfkc().collect()
}

/// Whether a character is of a script that is written without spaces, or whose words carry so many
/// endings that pairs of characters find more than words do.
pub fn is_unspaced(c: char) -> bool {
    matches!(u32::from(c),
        // Thai, Lao, Burmese, Khmer.
        0x0e00..=0x0eff | 0x1000..=0x109f | 0x1780..=0x17ff
        // Hangul.
        | 0x1100..=0x11ff | 0xac00..=0xd7ff
        // Japanese and Chinese.
        | 0x3005 | 0x3040..=0x30ff | 0x3400..=0x4dbf | 0x4e00..=0x9fff | 0xf900..=0xfaff
        | 0x20000..=0x3ffff)
}

fn algorithm(language: SearchLanguage) -> Algorithm {
    match language {
        SearchLanguage::Arabic => Algorithm::Arabic,
        SearchLanguage::Danish => Algorithm::Danish,
        SearchLanguage::Dutch => Algorithm::Dutch,
        SearchLanguage::English => Algorithm::English,
        SearchLanguage::Finnish => Algorithm::Finnish,
        SearchLanguage::French => Algorithm::French,
        SearchLanguage::German => Algorithm::German,
        SearchLanguage::Greek => Algorithm::Greek,
        SearchLanguage::Hungarian => Algorithm::Hungarian,
        SearchLanguage::Italian => Algorithm::Italian,
        SearchLanguage::Norwegian => Algorithm::Norwegian,
        SearchLanguage::Portuguese => Algorithm::Portuguese,
        SearchLanguage::Romanian => Algorithm::Romanian,
        SearchLanguage::Russian => Algorithm::Russian,
        SearchLanguage::Spanish => Algorithm::Spanish,
        SearchLanguage::Swedish => Algorithm::Swedish,
        SearchLanguage::Tamil => Algorithm::Tamil,
        SearchLanguage::Turkish => Algorithm::Turkish,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(text: &str) -> Vec<String> {
        Analyzer::new(None).terms(text).counts.into_keys().collect()
    }

    #[test]
    fn words_are_cut_and_folded() {
        for (text, expected) in [
            ("Hello, WORLD! hello", vec!["hello", "world"]),
            ("don't stop-now", vec!["don't", "now", "stop"]),
            ("ﬁne Ｗｉｄｅ ①", vec!["1", "fine", "wide"]),
            ("STRASSE straße", vec!["strasse"]),
            ("ΟΔΟΣ οδός", vec!["οδοσ", "οδόσ"]),
            ("e\u{301}tude étude", vec!["étude"]),
            ("… 👍 --", vec![]),
            ("v1.19 3.14", vec!["3.14", "v1.19"]),
        ] {
            assert_eq!(terms(text), expected, "{text}");
        }
        let counted = Analyzer::new(None).terms("a b A");
        assert_eq!((counted.counts["a"], counted.words), (2, 3));
    }

    #[test]
    fn scripts_without_spaces_give_pairs() {
        assert_eq!(terms("東京都"), ["京", "京都", "東", "東京", "都"]);
        assert_eq!(terms("猫 犬"), ["犬", "猫"]);
        assert_eq!(terms("API仕様"), ["api", "仕", "仕様", "様"]);
        let analyzer = Analyzer::new(None);
        assert_eq!(analyzer.query("京").terms, ["京"]);
        assert_eq!(analyzer.query("東京都").terms, ["京都", "東京"]);
        assert_eq!(analyzer.query("東京都 Tour").words, ["東京都", "tour"]);
        assert_eq!(analyzer.query("회의").terms, ["회의"]);
        assert!(terms("회의실에서").contains(&"회의".to_owned()));
    }

    #[test]
    fn a_language_takes_endings_off() {
        let english = Analyzer::new(Some(SearchLanguage::English));
        let query = english.query("Meetings");
        assert_eq!(query.words, ["meetings"]);
        assert!(english.terms("the meeting").counts.contains_key(&query.terms[0]));
        assert_eq!(english.found_words("A Meeting is met", &query), ["Meeting"]);
        assert_ne!(english.signature(), Analyzer::new(None).signature());
    }

    #[test]
    fn a_text_gives_a_bounded_number_of_terms() {
        let long = (0..5_000).map(|n| format!("w{n}")).collect::<Vec<_>>().join(" ");
        assert_eq!(terms(&long).len(), TERMS_MAX);
        assert!(terms(&"ä".repeat(TEXT_BYTES_MAX)).len() == 1);
    }
}

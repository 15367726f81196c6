//! One pass over a JSON body before ruma parses it: what serde lets through and events must not
//! contain.
//!
//! The pass keeps its own stack, so no depth of nesting can overflow the program's. Duplicate keys
//! are refused because two readers of the same bytes would see two different events.
//!
//! <https://spec.matrix.org/v1.19/appendices/#canonical-json>

use std::borrow::Cow;

use crate::error::ApiError;

/// The largest integer of canonical JSON, 2^53 - 1.
const INTEGER_MAX: u64 = (1 << 53) - 1;

/// What a body must keep to besides being JSON.
#[derive(Clone, Copy, Debug)]
pub struct JsonRules {
    /// How deep arrays and objects may nest.
    pub depth_max: usize,
    /// Whether numbers must be integers of canonical JSON.
    pub canonical_numbers: bool,
}

impl JsonRules {
    /// Any request.
    pub const REQUEST: Self = Self { depth_max: 128, canonical_numbers: false };

    /// The content of an event. An event may be 64 deep, and its content is one of its fields.
    pub const EVENT_CONTENT: Self = Self { depth_max: 63, canonical_numbers: true };
}

/// What is wrong with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// It is not JSON: `M_NOT_JSON`.
    #[error("{reason} at byte {at}")]
    NotJson {
        /// What is wrong.
        reason: &'static str,
        /// Where, counted in bytes from 0.
        at: usize,
    },
    /// It is JSON, but has what the API forbids: `M_BAD_JSON`.
    #[error("{reason} at byte {at}")]
    BadJson {
        /// What is wrong.
        reason: &'static str,
        /// Where, counted in bytes from 0.
        at: usize,
    },
}

impl From<JsonError> for ApiError {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::NotJson { .. } => Self::not_json(format!("The body is not JSON: {error}")),
            JsonError::BadJson { .. } => {
                Self::bad_json(format!("The body is not acceptable: {error}"))
            }
        }
    }
}

/// Checks that the bytes are one JSON object that keeps to the rules.
pub fn check_json(bytes: &[u8], rules: JsonRules) -> Result<(), JsonError> {
    if let Err(error) = std::str::from_utf8(bytes) {
        return Err(JsonError::NotJson { reason: "invalid UTF-8", at: error.valid_up_to() });
    }
    let mut scanner =
        Scanner { bytes, at: 0, rules, bad: None, open: Vec::new(), keys: Vec::new() };
    scanner.document()?;
    scanner.bad.map_or(Ok(()), Err)
}

/// An array or object that is not closed yet.
enum Open {
    Array,
    /// Its keys stand in `Scanner::keys` from this index on.
    Object(usize),
}

/// Whether a value is complete or its first element comes next.
enum Step {
    Ended,
    Opened,
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    rules: JsonRules,
    /// The first thing that is JSON but forbidden; something that is no JSON wins over it.
    bad: Option<JsonError>,
    open: Vec<Open>,
    /// The keys of all open objects, inner ones last.
    keys: Vec<Cow<'a, str>>,
}

impl Scanner<'_> {
    fn document(&mut self) -> Result<(), JsonError> {
        self.skip_space();
        if self.bytes.get(self.at).is_some_and(|byte| *byte != b'{') {
            self.forbid("the body must be an object");
        }
        loop {
            if matches!(self.value()?, Step::Opened) {
                continue;
            }
            if self.close()? {
                break;
            }
        }
        if self.at < self.bytes.len() { self.fail("something follows the value") } else { Ok(()) }
    }

    /// After a value: closes what closes, until a next value begins (`false`) or the document
    /// ends (`true`).
    fn close(&mut self) -> Result<bool, JsonError> {
        loop {
            self.skip_space();
            let Some(innermost) = self.open.last() else { return Ok(true) };
            match (innermost, self.peek()?) {
                (Open::Array, b',') => {
                    self.at += 1;
                    self.skip_space();
                    return Ok(false);
                }
                (Open::Object(_), b',') => {
                    self.at += 1;
                    self.skip_space();
                    self.key()?;
                    return Ok(false);
                }
                (Open::Array, b']') => {
                    self.at += 1;
                    self.open.pop();
                }
                (Open::Object(first_key), b'}') => {
                    let first_key = *first_key;
                    self.check_duplicates(first_key)?;
                    self.at += 1;
                    self.open.pop();
                }
                (Open::Array, _) => return self.fail("expected `,` or `]`"),
                (Open::Object(_), _) => return self.fail("expected `,` or `}`"),
            }
        }
    }

    /// Reads a value, or the opening of one up to its first element.
    fn value(&mut self) -> Result<Step, JsonError> {
        match self.peek()? {
            b'{' => {
                self.descend(Open::Object(self.keys.len()))?;
                if self.peek()? == b'}' {
                    self.at += 1;
                    self.open.pop();
                    return Ok(Step::Ended);
                }
                self.key()?;
                Ok(Step::Opened)
            }
            b'[' => {
                self.descend(Open::Array)?;
                if self.peek()? == b']' {
                    self.at += 1;
                    self.open.pop();
                    return Ok(Step::Ended);
                }
                Ok(Step::Opened)
            }
            b'"' => self.string().map(|_| Step::Ended),
            b'-' | b'0'..=b'9' => self.number().map(|()| Step::Ended),
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            _ => self.fail("expected a value"),
        }
    }

    fn descend(&mut self, opened: Open) -> Result<(), JsonError> {
        if self.open.len() >= self.rules.depth_max {
            return self.fail("nested too deep");
        }
        self.open.push(opened);
        self.at += 1;
        self.skip_space();
        Ok(())
    }

    fn key(&mut self) -> Result<(), JsonError> {
        if self.peek()? != b'"' {
            return self.fail("expected a key");
        }
        let start = self.at;
        let escaped = self.string()?;
        let quoted = &self.bytes[start..self.at];
        let key = if escaped {
            // `"\u0061"` and `"a"` are the same key.
            match serde_json::from_slice::<String>(quoted) {
                Ok(key) => Cow::Owned(key),
                Err(_) => return self.fail("a key that cannot be read"),
            }
        } else {
            let key = std::str::from_utf8(&quoted[1..quoted.len() - 1]);
            Cow::Borrowed(key.expect("the whole body is UTF-8, and a quote is a boundary of it"))
        };
        self.keys.push(key);
        self.skip_space();
        if self.peek()? != b':' {
            return self.fail("expected `:`");
        }
        self.at += 1;
        self.skip_space();
        Ok(())
    }

    /// Sorting keeps the memory linear and needs no hash that could be attacked.
    fn check_duplicates(&mut self, first_key: usize) -> Result<(), JsonError> {
        let keys = &mut self.keys[first_key..];
        keys.sort_unstable();
        if keys.windows(2).any(|pair| pair[0] == pair[1]) {
            return self.fail("a key stands twice in the object that ends");
        }
        self.keys.truncate(first_key);
        Ok(())
    }

    /// Reads a string; whether it has escapes.
    fn string(&mut self) -> Result<bool, JsonError> {
        self.at += 1;
        let mut escaped = false;
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Ok(escaped);
                }
                b'\\' => {
                    escaped = true;
                    self.escape()?;
                }
                0..0x20 => return self.fail("a control character in a string"),
                _ => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        match self.peek()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {
                self.at += 1;
                Ok(())
            }
            b'u' => match self.code_unit()? {
                0xD800..=0xDBFF => {
                    let paired = self.bytes[self.at..].starts_with(b"\\u");
                    self.at += usize::from(paired);
                    if paired && matches!(self.code_unit()?, 0xDC00..=0xDFFF) {
                        Ok(())
                    } else {
                        self.fail("a surrogate without its pair")
                    }
                }
                0xDC00..=0xDFFF => self.fail("a surrogate without its pair"),
                _ => Ok(()),
            },
            _ => self.fail("an unknown escape"),
        }
    }

    /// Reads `uXXXX`.
    fn code_unit(&mut self) -> Result<u16, JsonError> {
        let digits = self.bytes.get(self.at + 1..self.at + 5).unwrap_or_default();
        if digits.len() != 4 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return self.fail("an incomplete escape");
        }
        self.at += 5;
        Ok(digits.iter().fold(0, |unit, digit| {
            let value = char::from(*digit).to_digit(16).unwrap_or_default();
            (unit << 4) | u16::try_from(value).unwrap_or_default()
        }))
    }

    fn number(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        let negative = self.bytes[self.at] == b'-';
        self.at += usize::from(negative);
        let digits_start = self.at;
        let digits = self.digits()?;
        let leading_zero = self.bytes[digits_start] == b'0';
        if leading_zero && digits > 1 {
            self.at = start;
            return self.fail("a number with a leading zero");
        }
        let integer = &self.bytes[digits_start..self.at];
        let mut canonical = !(negative && leading_zero) && integer_is_canonical(integer);
        if self.bytes.get(self.at) == Some(&b'.') {
            canonical = false;
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.bytes.get(self.at), Some(b'e' | b'E')) {
            canonical = false;
            self.at += 1;
            self.at += usize::from(matches!(self.bytes.get(self.at), Some(b'+' | b'-')));
            self.digits()?;
        }
        if self.rules.canonical_numbers && !canonical {
            let end = std::mem::replace(&mut self.at, start);
            self.forbid("a number that is no integer between -(2^53 - 1) and 2^53 - 1");
            self.at = end;
        }
        Ok(())
    }

    /// Reads at least one digit; how many.
    fn digits(&mut self) -> Result<usize, JsonError> {
        let rest = &self.bytes[self.at..];
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 {
            return self.fail("expected a digit");
        }
        self.at += count;
        Ok(count)
    }

    fn literal(&mut self, literal: &[u8]) -> Result<Step, JsonError> {
        if !self.bytes[self.at..].starts_with(literal) {
            return self.fail("expected a value");
        }
        self.at += literal.len();
        Ok(Step::Ended)
    }

    fn skip_space(&mut self) {
        let rest = &self.bytes[self.at..];
        self.at +=
            rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
    }

    fn peek(&self) -> Result<u8, JsonError> {
        match self.bytes.get(self.at) {
            Some(byte) => Ok(*byte),
            None => self.fail("unexpected end"),
        }
    }

    fn fail<T>(&self, reason: &'static str) -> Result<T, JsonError> {
        Err(JsonError::NotJson { reason, at: self.at })
    }

    fn forbid(&mut self, reason: &'static str) {
        self.bad.get_or_insert(JsonError::BadJson { reason, at: self.at });
    }
}

fn integer_is_canonical(digits: &[u8]) -> bool {
    // 2^53 has 16 digits, and there are no leading zeros.
    digits.len() <= 16
        && digits.iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0')) <= INTEGER_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The errcode that a body gets, or nothing.
    fn code(body: impl AsRef<[u8]>, rules: JsonRules) -> Option<&'static str> {
        match check_json(body.as_ref(), rules) {
            Ok(()) => None,
            Err(JsonError::NotJson { .. }) => Some("M_NOT_JSON"),
            Err(JsonError::BadJson { .. }) => Some("M_BAD_JSON"),
        }
    }

    fn request(body: impl AsRef<[u8]>) -> Option<&'static str> {
        code(body, JsonRules::REQUEST)
    }

    fn event(body: impl AsRef<[u8]>) -> Option<&'static str> {
        code(body, JsonRules::EVENT_CONTENT)
    }

    #[test]
    fn takes_what_is_json() {
        for body in [
            "{}",
            " {\r\n\t} ",
            r#"{"a":[],"b":{},"c":[1,-2,3.5,1e9,1E-2,0,-0],"d":[true,false,null,"x"]}"#,
            r#"{"a":{"a":{"a":1}},"b":[{"a":1},{"a":2}]}"#,
            r#"{"":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00é😀"}"#,
        ] {
            assert_eq!(request(body), None, "{body}");
            serde_json::from_str::<serde_json::Value>(body).unwrap();
        }
    }

    #[test]
    fn refuses_what_is_not_json() {
        for body in [
            "",
            " ",
            "{",
            "}",
            "{]",
            "[}",
            "{}}",
            "{} x",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "{'a':1}",
            "{\"a\":[1,]}",
            "{\"a\":[1 2]}",
            "{\"a\":[,1]}",
            "{,}",
            "{\"a\":01}",
            "{\"a\":+1}",
            "{\"a\":.5}",
            "{\"a\":1.}",
            "{\"a\":1e}",
            "{\"a\":-}",
            "{\"a\":0x1}",
            "{\"a\":tru}",
            "{\"a\":\"}",
            "{\"a\":\"\n\"}",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\\u12g4\"}",
            "{\"a\":\"\\u12",
            "{\"a\":\"\\",
            "{\"a\" 1}",
            "{\"a\":1 \"b\":2}",
            "// x\n{}",
        ] {
            assert_eq!(request(body), Some("M_NOT_JSON"), "{body}");
            assert!(serde_json::from_str::<serde_json::Value>(body).is_err(), "{body}");
        }
    }

    #[test]
    fn the_body_is_an_object() {
        for body in ["[]", "1", "null", "\"x\"", "[{}]"] {
            assert_eq!(request(body), Some("M_BAD_JSON"), "{body}");
        }
        assert_eq!(request("[1"), Some("M_NOT_JSON"));
    }

    #[test]
    fn t22_numbers_of_events_are_integers_of_53_bits() {
        for number in ["0", "1", "-1", "9007199254740991", "-9007199254740991"] {
            assert_eq!(event(format!("{{\"a\":[{{\"b\":{number}}}]}}")), None, "{number}");
        }
        for number in [
            "9007199254740992",
            "-9007199254740992",
            "90071992547409910",
            "123456789012345678901234567890",
            "1.0",
            "1.1",
            "1e2",
            "1E2",
            "-0",
            "-0.0",
            "0e0",
        ] {
            let body = format!("{{\"a\":[{{\"b\":{number}}}]}}");
            assert_eq!(event(&body), Some("M_BAD_JSON"), "{number}");
            assert_eq!(request(&body), None, "{number}");
        }
        for number in ["NaN", "Infinity", "-Infinity", "nan", "1_000"] {
            assert_eq!(event(format!("{{\"a\":{number}}}")), Some("M_NOT_JSON"), "{number}");
        }
        // What is no JSON wins over a number that is not allowed.
        assert_eq!(event("{\"a\":1.5"), Some("M_NOT_JSON"));
    }

    #[test]
    fn t23_duplicate_keys_are_refused_at_any_depth() {
        for body in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"b":2,"a":3}"#,
            r#"{"content":{"a":1,"b":{"a":1},"a":2}}"#,
            r#"{"a":[{"b":1,"b":2}]}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"":1,"":2}"#,
        ] {
            assert_eq!(request(body), Some("M_NOT_JSON"), "{body}");
        }
        assert_eq!(request(r#"{"a":{"a":1},"b":[{"a":1}],"A":2}"#), None);
    }

    #[test]
    fn t24_depth_is_bounded_without_recursion() {
        let nested =
            |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert_eq!(event(nested(63)), None);
        assert_eq!(event(nested(64)), Some("M_NOT_JSON"));
        assert_eq!(request(nested(128)), None);
        for depth in [129, 10_000, 1_000_000] {
            assert_eq!(request(nested(depth)), Some("M_NOT_JSON"), "{depth}");
            assert_eq!(request("{\"a\":".repeat(depth)), Some("M_NOT_JSON"), "{depth}");
        }
    }

    #[test]
    fn t25_broken_text_is_not_json() {
        assert_eq!(request(b"{\"a\":\"\xff\"}"), Some("M_NOT_JSON"));
        assert_eq!(request(b"{\"a\":\"\xed\xa0\x80\"}"), Some("M_NOT_JSON"));
        assert_eq!(request(b"\xef\xbb\xbf{}"), Some("M_NOT_JSON"));
        for text in [r"\ud800", r"\ud800x", r"\udc00", r"\ud800\ud800", r"\ud800\n", r"\ud800\u00"]
        {
            assert_eq!(request(format!("{{\"a\":\"{text}\"}}")), Some("M_NOT_JSON"), "{text}");
            assert_eq!(request(format!("{{\"{text}\":1}}")), Some("M_NOT_JSON"), "{text}");
        }
        assert_eq!(request(r#"{"a":"\u0000"}"#), None);
        assert_eq!(request("{\"a\":\"\0\"}"), Some("M_NOT_JSON"));
    }
}

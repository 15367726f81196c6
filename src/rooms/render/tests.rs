//! The client form of events.

use serde_json::{Value, json};

use super::*;

fn parse(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap()
}

#[test]
fn objects_are_written_field_by_field() {
    let mut object = ObjectWriter::new(16);
    object.string("a\"b", "line\nbreak \u{1f600}");
    object.number("n", -5);
    object.raw("content", br#"{"x":[1,2]}"#);
    let text = object.finish().unwrap();
    let expected = json!({ "a\"b": "line\nbreak \u{1f600}", "n": -5, "content": { "x": [1, 2] } });
    assert_eq!(parse(text.get().as_bytes()), expected);
    assert_eq!(ObjectWriter::new(0).finish().unwrap().get(), "{}");
}

#[test]
fn the_content_of_a_redaction_says_what_it_redacts() {
    for (content, expected) in [
        ("{}", json!({ "redacts": "$a" })),
        (r#"{"reason":"spam"}"#, json!({ "redacts": "$a", "reason": "spam" })),
        // Up to version 10 the field in the content is only what someone wrote there.
        (r#"{"redacts":"$b"}"#, json!({ "redacts": "$a" })),
    ] {
        assert_eq!(parse(&content_with_redacts(content, "$a")), expected, "{content}");
    }
}

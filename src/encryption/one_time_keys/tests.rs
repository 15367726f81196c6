//! Attack case T77, the part about one-time keys.

use serde_json::json;

use super::*;

fn parse(id: &str, key: &serde_json::Value) -> Result<NewKey, ApiError> {
    NewKey::parse(id, &serde_json::value::to_raw_value(key).unwrap())
}

#[test]
fn keys_are_objects_or_strings_by_their_algorithm() {
    let signed = json!({ "signatures": {}, "key": "AAAA" });
    let key = parse("signed_curve25519:AAA:B", &signed).unwrap();
    assert_eq!((key.algorithm.as_str(), key.key_id.as_str()), ("signed_curve25519", "AAA:B"));
    assert_eq!(key.json, br#"{"key":"AAAA","signatures":{}}"#, "canonical");
    assert!(parse("curve25519:A", &json!("AAAA")).is_ok());
    assert!(parse("curve25519:A", &json!({ "key": "AAAA" })).is_ok());
    assert!(parse(&format!("a:{}", "i".repeat(253)), &json!("AAAA")).is_ok());
}

#[test]
fn t77_what_is_no_key_is_refused() {
    let object = json!({ "key": "AAAA", "signatures": {} });
    let cases = [
        ("signed_curve25519", object.clone(), "M_INVALID_PARAM"),
        ("signed_curve25519:", object.clone(), "M_INVALID_PARAM"),
        (":A", object.clone(), "M_INVALID_PARAM"),
        (&format!("a:{}", "i".repeat(254)), object, "M_INVALID_PARAM"),
        ("signed_curve25519:A", json!("AAAA"), "M_BAD_JSON"),
        ("signed_curve25519:A", json!({ "signatures": {} }), "M_BAD_JSON"),
        ("signed_curve25519:A", json!({ "key": 1 }), "M_BAD_JSON"),
        ("signed_curve25519:A", json!({ "key": "A", "x": 1.5 }), "M_BAD_JSON"),
        ("curve25519:A", json!(null), "M_BAD_JSON"),
        ("curve25519:A", json!("A".repeat(4_096)), "M_TOO_LARGE"),
    ];
    for (id, key, errcode) in cases {
        assert_eq!(parse(id, &key).unwrap_err().errcode, errcode, "{id}: {key}");
    }
}

#[test]
fn the_algorithms_and_the_keys_of_each_are_bounded() {
    let key = |algorithm: &str| NewKey {
        algorithm: algorithm.to_owned(),
        key_id: "A".to_owned(),
        json: Vec::new(),
    };
    let (a, b) = (key("a"), key("b"));
    let waiting = BTreeMap::from([("a".to_owned(), 1), ("gone".to_owned(), 0)]);
    let added = check_counts(&waiting, &[&a, &a, &b], 3).unwrap();
    assert_eq!(added, BTreeMap::from([("a", 2), ("b", 1)]));
    assert!(check_counts(&waiting, &[&a, &a, &b], 2).is_err());
    let full: BTreeMap<_, _> = (0..ALGORITHMS_MAX).map(|n| (n.to_string(), 0)).collect();
    assert!(check_counts(&full, &[&a], 3).is_err());
    assert!(check_counts(&full, &[&key("1")], 3).is_ok());
}

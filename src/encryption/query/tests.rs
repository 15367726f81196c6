//! What is spliced into the JSON of a device.

use serde_json::{Value, json};

use super::{
    answer::{write_devices, write_end},
    *,
};

fn signed_by(signer: &str, key_id: &str, signature: &str) -> Signatures {
    let keys = BTreeMap::from([(key_id.to_owned(), signature.to_owned())]);
    BTreeMap::from([(signer.to_owned(), keys)])
}

fn value(json: &[u8]) -> Value {
    serde_json::from_slice(json).unwrap()
}

#[test]
fn signatures_are_added_where_there_are_some_and_where_there_are_none() {
    // The word stands in a value too, before the field.
    let before = json!({ "a": "\"signatures\":{", "signatures": { "@a:hs1": { "ed25519:D": "1" } },
        "z": [{ "signatures": {} }] });
    let mut json = before.to_string().into_bytes();
    add_signatures(&mut json, signed_by("@a:hs1", "ed25519:S", "2"));
    add_signatures(&mut json, signed_by("@b:hs1", "ed25519:U", "3"));
    let mut after = before;
    after["signatures"]["@a:hs1"]["ed25519:S"] = json!("2");
    after["signatures"]["@b:hs1"] = json!({ "ed25519:U": "3" });
    assert_eq!(value(&json), after);
    let mut json = br#"{"a":1}"#.to_vec();
    add_signatures(&mut json, signed_by("@a:hs1", "ed25519:S", "2"));
    assert_eq!(value(&json), json!({ "a": 1, "signatures": { "@a:hs1": { "ed25519:S": "2" } } }));
}

#[test]
fn the_name_of_a_device_is_told_and_escaped() {
    let mut json = br#"{"a":1}"#.to_vec();
    add_unsigned(&mut json, Some("Al's \"phone\""));
    let unsigned = json!({ "device_display_name": "Al's \"phone\"" });
    assert_eq!(value(&json), json!({ "a": 1, "unsigned": unsigned }));
    let mut json = br#"{"a":1}"#.to_vec();
    add_unsigned(&mut json, None);
    assert_eq!(value(&json), json!({ "a": 1, "unsigned": {} }));
}

#[test]
fn an_answer_is_json() {
    let user = |name: &str, devices| UserKeys {
        user_id: UserId::parse(name).unwrap(),
        devices,
        cross_signing: CrossSigningKeys {
            master: Some(b"{\"m\":1}".to_vec()),
            ..CrossSigningKeys::default()
        },
    };
    let answer = |pages: &[&[UserKeys]]| {
        let (mut out, mut written, mut cross_signing) = (Vec::new(), 0, Vec::new());
        for users in pages {
            write_devices(&mut out, written, users);
            written += users.len();
            let keys = users.iter().map(|user| (user.user_id.clone(), user.cross_signing.clone()));
            cross_signing.extend(keys);
        }
        write_end(&mut out, &cross_signing);
        value(&out)
    };
    assert_eq!(answer(&[&[]])["device_keys"], json!({}));
    let devices = vec![("D\"".to_owned(), b"{}".to_vec()), ("E".to_owned(), b"{}".to_vec())];
    let users = [user("@a:hs1", devices), user("@b:hs1", Vec::new())];
    let expected = json!({
        "device_keys": { "@a:hs1": { "D\"": {}, "E": {} }, "@b:hs1": {} },
        "failures": {},
        "master_keys": { "@a:hs1": { "m": 1 }, "@b:hs1": { "m": 1 } },
        "self_signing_keys": {},
        "user_signing_keys": {},
    });
    assert_eq!(answer(&[&users]), expected);
    assert_eq!(answer(&[&users[..1], &users[1..]]), expected);
}

//! Attack case T77, the part about identity keys.

use ruma::{
    CanonicalJsonObject,
    serde::{Base64, base64::Standard},
    signatures::Ed25519KeyPair,
};
use serde_json::{Value, json};

use super::*;

fn device() -> DeviceKey {
    DeviceKey { user_id: "@a:hs1".to_owned(), device_id: "DEV".to_owned() }
}

/// Signed keys of the device; `change` comes before the signature.
fn signed(change: impl FnOnce(&mut Value)) -> Value {
    let der = Ed25519KeyPair::generate();
    let pair = Ed25519KeyPair::from_der(&der, "DEV".to_owned()).unwrap();
    let key = Base64::<Standard>::new(pair.public_key().to_vec()).encode();
    let mut keys = json!({
        "user_id": "@a:hs1",
        "device_id": "DEV",
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": { "ed25519:DEV": key, "curve25519:DEV": key },
    });
    change(&mut keys);
    let mut object: CanonicalJsonObject = serde_json::from_value(keys).unwrap();
    ruma::signatures::sign_json("@a:hs1", &pair, &mut object).unwrap();
    serde_json::to_value(object).unwrap()
}

fn parse(keys: &Value, signed_only: bool) -> Result<NewDeviceKeys, ApiError> {
    let raw = serde_json::value::to_raw_value(keys).unwrap();
    let config =
        EncryptionConfig { signed_device_keys_only: signed_only, ..EncryptionConfig::default() };
    NewDeviceKeys::parse(&raw, &device(), &config)
}

#[track_caller]
fn refused(keys: &Value, errcode: &str) {
    let error = parse(keys, true).unwrap_err();
    assert_eq!(error.errcode, errcode, "{error} for {keys}");
}

#[test]
fn what_a_device_signed_is_taken_as_it_is() {
    let keys = signed(|keys| keys["unknown"] = json!({ "x": [1, null, "é"] }));
    let json = parse(&keys, true).unwrap().json;
    assert_eq!(serde_json::from_slice::<Value>(&json).unwrap(), keys);
    let padded = signed(|keys| {
        let key = keys["keys"]["ed25519:DEV"].as_str().unwrap().to_owned() + "=";
        keys["keys"]["curve25519:DEV"] = json!(key);
    });
    assert!(parse(&padded, true).is_ok());
    let mut told = keys.clone();
    told["unsigned"] = json!({ "device_display_name": "mine" });
    assert_eq!(parse(&told, true).unwrap().json, json, "what is not signed is not kept");
}

#[test]
fn t77_keys_of_others_and_without_a_valid_signature_are_refused() {
    let with = |field: &str, value: Value| {
        let field = field.to_owned();
        signed(move |keys| keys[&field] = value)
    };
    refused(&with("user_id", json!("@b:hs1")), "M_INVALID_PARAM");
    refused(&with("device_id", json!("OTHER")), "M_INVALID_PARAM");
    refused(&with("algorithms", json!(vec!["a"; 17])), "M_INVALID_PARAM");
    refused(&with("algorithms", json!("m.olm")), "M_BAD_JSON");
    refused(&with("keys", json!({})), "M_INVALID_PARAM");
    refused(&with("keys", json!({ "ed25519:DEV": 1 })), "M_BAD_JSON");
    for field in ["user_id", "device_id", "algorithms", "keys", "signatures"] {
        let mut keys = signed(|_| {});
        keys.as_object_mut().unwrap().remove(field);
        refused(&keys, "M_BAD_JSON");
    }
    let more_keys: [fn(&mut Value); 4] = [
        |keys| keys["keys"]["ed25519:OTHER"] = json!("AAAA"),
        |keys| keys["keys"]["ed25519"] = json!("AAAA"),
        |keys| keys["keys"]["curve25519:DEV"] = json!("not base64!"),
        |keys| keys["keys"]["curve25519:DEV"] = json!("AAAA"),
    ];
    for change in more_keys {
        refused(&signed(change), "M_INVALID_PARAM");
    }
    let forged: [fn(&mut Value); 6] = [
        |keys| keys["signatures"] = json!({}),
        |keys| keys["signatures"] = json!({ "@a:hs1": {} }),
        |keys| keys["signatures"]["@a:hs1"]["ed25519:DEV"] = json!("AAAA"),
        |keys| keys["signatures"]["@a:hs1"]["ed25519:DEV"] = json!("?"),
        |keys| keys["algorithms"] = json!([]),
        |keys| keys["more"] = json!(1),
    ];
    for forge in forged {
        let mut keys = signed(|_| {});
        forge(&mut keys);
        refused(&keys, "M_INVALID_PARAM");
    }
    refused(&signed(|keys| keys["x"] = json!("x".repeat(32 * 1024))), "M_TOO_LARGE");
    for value in [json!([]), json!("x"), json!(1)] {
        refused(&value, "M_BAD_JSON");
    }
    let mut float = signed(|_| {});
    float["x"] = json!(1.5);
    refused(&float, "M_BAD_JSON");
}

#[test]
fn where_the_operator_says_so_keys_need_no_signature_but_no_wrong_one() {
    let mut keys = signed(|_| {});
    keys["keys"] = json!({ "ed25519:DEV": "+/aaa" });
    keys.as_object_mut().unwrap().remove("signatures");
    assert!(parse(&keys, false).is_ok());
    keys["signatures"] = json!({});
    keys["keys"] = json!({});
    assert!(parse(&keys, false).is_ok());
    let mut forged = signed(|_| {});
    forged["more"] = json!(1);
    assert!(parse(&forged, false).is_err());
}

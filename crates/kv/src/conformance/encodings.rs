//! The bytes on disk. A change of one of these is a change of the format: stored rows must still
//! be read.

use proptest::prelude::*;

use super::{LOG, NAMES, PAIRS};
use crate::{
    Json, Key, KeyReader, KeyWriter, Position, Value, ValueReader, ValueWriter, table::hex,
};

crate::key_structs! {
    /// A key of its own type.
    struct Place {
        /// First.
        room: u64,
        /// Then.
        name: String,
    }
}

fn key(key: &impl Key) -> Vec<u8> {
    let mut writer = KeyWriter::default();
    key.encode(&mut writer);
    writer.bytes
}

fn value(value: &impl Value) -> Vec<u8> {
    let mut writer = ValueWriter::default();
    value.encode(&mut writer);
    writer.bytes
}

fn read_key<K: Key>(bytes: &[u8]) -> K {
    let mut reader = KeyReader::new(bytes);
    let key = K::decode(&mut reader).unwrap();
    assert!(reader.is_empty());
    key
}

#[test]
fn keys_have_these_bytes() {
    assert_eq!(hex(&key(&1_u8)), "01");
    assert_eq!(hex(&key(&0x0102_u16)), "0102");
    assert_eq!(hex(&key(&0x0102_0304_u32)), "01020304");
    assert_eq!(hex(&key(&1_u64)), "0000000000000001");
    assert_eq!(hex(&key(&1_i64)), "8000000000000001");
    assert_eq!(hex(&key(&-1_i64)), "7fffffffffffffff");
    assert_eq!(hex(&key(&[1_u8, 2, 3])), "010203");
    assert_eq!(hex(&key(&"ab".to_owned())), "61620001");
    assert_eq!(hex(&key(&vec![0_u8, 1])), "00ff010001");
    assert_eq!(hex(&key(&())), "");
    assert_eq!(hex(&key(&("a".to_owned(), 2_u8, Position::from_u64(3)))), {
        "61000102".to_owned() + "0000000000000003"
    });
    let place = Place { room: 1, name: "a".to_owned() };
    assert_eq!(hex(&key(&place)), "0000000000000001610001");
    assert_eq!(hex(&NAMES.raw_key(&"a".to_owned()).bytes), "01610001");
    assert_eq!(hex(&PAIRS.prefix(&1_u64).end), "020000000000000002");
    let pending = LOG.raw_key(&Position::pending(2));
    assert_eq!((hex(&pending.bytes).as_str(), pending.pending), {
        ("01ffffffffffff0002", vec![(1, 2)])
    });
}

#[test]
fn values_have_these_bytes() {
    assert_eq!(hex(&value(&1_i64)), "0100000000000000");
    assert_eq!(hex(&value(&-2_i64)), "feffffffffffffff");
    assert_eq!(hex(&value(&1_u32)), "01000000");
    assert_eq!(hex(&value(&Position::from_u64(1))), "0000000000000001");
    assert_eq!(hex(&value(&vec![1_u8, 2])), "0102");
    assert_eq!(hex(&value(&())), "");
    assert_eq!(hex(&value(&Json(vec![1, 2]))), hex(b"\x01[1,2]"));
    let mut writer = ValueWriter::default();
    writer.u8(1);
    writer.u16(2);
    writer.u32(3);
    writer.u64(4);
    writer.bytes(b"ab");
    assert_eq!(hex(&writer.bytes), "010200030000000400000000000000020000006162");
}

#[test]
fn broken_bytes_are_errors() {
    let string = |bytes: &[u8]| String::decode(&mut KeyReader::new(bytes));
    for bytes in [&b""[..], b"a", b"a\0", b"a\0\x02", b"\xff\0\x01"] {
        assert!(string(bytes).is_err(), "{bytes:?}");
    }
    assert!(u64::decode(&mut KeyReader::new(&[1; 7])).is_err());
    assert!(ValueReader::new(&[9, 0, 0, 0, 1]).bytes().is_err());
    assert!(ValueReader::new(&[2]).version(1).is_err());
    assert!(ValueReader::new(&[0]).version(1).is_err());
    assert!(Json::<u32>::decode(&mut ValueReader::new(b"\x01{")).is_err());
    assert!(PAIRS.decode_key(&[2; 18]).is_err(), "too long");
    assert!(PAIRS.decode_value(&[], &[0; 5]).is_err(), "too long");
}

#[test]
fn no_number_becomes_a_pending_position() {
    assert_eq!(Position::from_u64(u64::MAX), Position::MAX);
    assert_eq!(Position::MAX.pending_index(), None);
    assert_eq!(Position::pending(u16::MAX).pending_index(), Some(u16::MAX));
    assert!(Position::MAX < Position::pending(0));
}

/// Strings with many zeros, the end and the escape among their bytes.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![Just(0), Just(1), Just(0xff), any::<u8>()], 0..6)
}

type Fields = (Vec<u8>, i64, String, u16);

fn fields() -> impl Strategy<Value = Fields> {
    let text = prop::collection::vec(prop_oneof![Just('\0'), Just('\u{1}'), any::<char>()], 0..4);
    let number = prop_oneof![-2..2_i64, any::<i64>()];
    (bytes(), number, text.prop_map(String::from_iter), any::<u16>())
}

proptest! {
    #[test]
    fn encoded_keys_sort_as_their_fields(a in fields(), b in fields()) {
        prop_assert_eq!(key(&a).cmp(&key(&b)), a.cmp(&b));
    }

    #[test]
    fn keys_round_trip(a in fields()) {
        prop_assert_eq!(read_key::<Fields>(&key(&a)), a);
    }

    #[test]
    fn a_prefix_holds_just_its_keys(prefix in bytes(), a in bytes(), number in any::<u64>()) {
        let table: crate::Table<(Vec<u8>, u64), ()> = crate::Table::new("t", super::ROWS, 1, "t");
        let range = table.prefix(&prefix);
        let row = table.raw_key(&(a.clone(), number)).bytes;
        prop_assert_eq!(range.start <= row && row < range.end, a == prefix);
    }

    #[test]
    fn no_bytes_panic_a_decoder(bytes in bytes()) {
        let _ = Fields::decode(&mut KeyReader::new(&bytes));
        let _ = ValueReader::new(&bytes).string();
        let _ = Json::<String>::decode(&mut ValueReader::new(&bytes));
    }
}

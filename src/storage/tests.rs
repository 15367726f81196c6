//! The bytes of every key and every row, against the file `encodings.txt`: a change of them is a
//! change of the format and needs a migration. `UPDATE=1 cargo test --lib storage` rewrites it.

use std::{collections::BTreeMap, fmt::Debug, fmt::Write};

use kv::{Json, Key, KeyReader, KeyWriter, Position, Value, ValueReader, ValueWriter};
use ruma::{
    RoomVersionId, owned_event_id, owned_room_alias_id, owned_room_id, owned_server_name,
    owned_user_id,
};

use super::{
    rows::{
        EventBytes, EventFlags, EventRecord, HeadRow, Membership, MembershipRow, OverlayRow,
        RelationRow, StateChange, StateChanges, StateKeyName, StateRef, TimelineEntry,
        TimelinePosition, TransactionMark,
        rooms::{AliasRow, RoomInfo},
        users::{
            AccessTokenRow, AccountDataRow, AccountRow, DeviceRow, DeviceSeenRow, ProfileRow,
            RefreshFamilyRow, RegistrationTokenRow, ThreadSubscriptionRow,
        },
    },
    schema::{
        ephemeral::{ReceiptChange, ReceiptKey, ReceiptKind, ReceiptPositionKey, ReceiptRow},
        rooms::{
            BranchKey, CurrentStateKey, EventHashKey, EventKey, MemberKey, MembershipKey,
            OverlayHashKey, PendingRedactionKey, RelationKey, RoomAliasKey, StateKeyKey,
            StateLogKey, StateVersionKey, TimelineKey, TransactionKey,
        },
        server::{IdentityRow, SigningKeyRow},
        users::{
            AccountDataChangeKey, AccountDataKey, DeviceKey, DeviceTokenKey, FilterHashKey,
            FilterKey, ThreadSubscriptionChangeKey, ThreadSubscriptionKey,
        },
    },
};
use crate::id::{BranchNid, EventNid, RoomNid, StateKeyNid, UserNid};

const ROOM: RoomNid = RoomNid(0x0102_0304_0506_0708);
const KEY: StateKeyNid = StateKeyNid(0x1112_1314_1516_1718);
const USER: UserNid = UserNid(0x2122_2324_2526_2728);
const POSITION: Position = Position::from_u64(0x3132);
const PLACE: TimelinePosition = TimelinePosition::live(POSITION);

#[derive(Default)]
struct Encodings(String);

impl Encodings {
    fn key<K: Key + PartialEq + Debug>(&mut self, name: &str, key: &K) {
        let mut writer = KeyWriter::default();
        key.encode(&mut writer);
        self.line("key", name, writer.as_bytes());
        let mut reader = KeyReader::new(writer.as_bytes());
        assert_eq!(&K::decode(&mut reader).unwrap(), key, "{name}");
    }

    fn row<V: Value + PartialEq + Debug>(&mut self, name: &str, row: &V) {
        let mut writer = ValueWriter::default();
        row.encode(&mut writer);
        self.line("row", name, writer.as_bytes());
        let mut reader = ValueReader::new(writer.as_bytes());
        assert_eq!(&V::decode(&mut reader).unwrap(), row, "{name}");
        assert!(reader.is_empty(), "{name}");
    }

    fn line(&mut self, kind: &str, name: &str, bytes: &[u8]) {
        write!(self.0, "{kind} {name} ").unwrap();
        for byte in bytes {
            write!(self.0, "{byte:02x}").unwrap();
        }
        self.0.push('\n');
    }
}

#[test]
fn the_bytes_are_what_they_were() {
    let mut encodings = Encodings::default();
    room_keys(&mut encodings);
    user_keys(&mut encodings);
    room_rows(&mut encodings);
    state_rows(&mut encodings);
    user_rows(&mut encodings);
    server_rows(&mut encodings);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/storage/encodings.txt");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &encodings.0).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap();
    for (line, expected) in encodings.0.lines().zip(expected.lines()) {
        assert_eq!(line, expected);
    }
    assert_eq!(encodings.0.lines().count(), expected.lines().count());
}

fn room_keys(encodings: &mut Encodings) {
    let (event, branch) = (EventNid(7), BranchNid(3));
    let user_id = || "@a:hs1".to_owned();
    encodings.key("EventKey", &EventKey { room: ROOM, event });
    encodings.key("EventHashKey", &EventHashKey { room: ROOM, hash: [9; 32] });
    let waiting = PendingRedactionKey { room: ROOM, hash: [9; 32], redaction: event };
    encodings.key("PendingRedactionKey", &waiting);
    encodings.key("TimelineKey", &TimelineKey { room: ROOM, position: PLACE });
    let inverted_version = u32::MAX - 5;
    encodings.key(
        "StateVersionKey",
        &StateVersionKey { room: ROOM, branch, key: KEY, inverted_version },
    );
    encodings.key("StateLogKey", &StateLogKey { room: ROOM, branch, version: 5, part: 1 });
    encodings.key("BranchKey", &BranchKey { room: ROOM, branch });
    encodings.key("OverlayHashKey", &OverlayHashKey { room: ROOM, hash: 4, branch });
    encodings.key("StateKeyKey", &StateKeyKey { room: ROOM, key: KEY });
    encodings.key("CurrentStateKey", &CurrentStateKey { room: ROOM, class: 1, key: KEY });
    encodings.key("MemberKey", &MemberKey { room: ROOM, membership: 3, user_id: user_id() });
    encodings.key("MembershipKey", &MembershipKey { user_id: user_id(), room: ROOM });
    encodings.key(
        "TransactionKey",
        &TransactionKey {
            user_id: user_id(),
            device_id: "D\0".to_owned(),
            endpoint: "send".to_owned(),
            transaction_id: "t".to_owned(),
        },
    );
    encodings.key("RoomAliasKey", &RoomAliasKey { room: ROOM, alias: "#a:hs1".to_owned() });
    encodings.key("RelationKey", &RelationKey { room: ROOM, parent: event, position: PLACE });
}

fn user_keys(encodings: &mut Encodings) {
    let user_id = || "@a:hs1".to_owned();
    let thread = "main".to_owned();
    encodings.key("ReceiptKey", &ReceiptKey { room: ROOM, user_id: user_id(), kind: 1, thread });
    encodings.key("ReceiptPositionKey", &ReceiptPositionKey { room: ROOM, position: POSITION });
    let device_id = || "D".to_owned();
    encodings.key("DeviceKey", &DeviceKey { user_id: user_id(), device_id: device_id() });
    let token =
        DeviceTokenKey { user_id: user_id(), device_id: device_id(), kind: 1, hash: [8; 32] };
    encodings.key("DeviceTokenKey", &token);
    let kind = || "m.x".to_owned();
    let data = AccountDataKey { user_id: user_id(), room: ROOM, kind: kind(), part: 2 };
    encodings.key("AccountDataKey", &data);
    let thread = || "$t".to_owned();
    let followed = ThreadSubscriptionKey { user_id: user_id(), room: ROOM, thread: thread() };
    encodings.key("ThreadSubscriptionKey", &followed);
    let change = ThreadSubscriptionChangeKey {
        user_id: user_id(),
        position: POSITION,
        room: ROOM,
        thread: thread(),
    };
    encodings.key("ThreadSubscriptionChangeKey", &change);
    let change =
        AccountDataChangeKey { user_id: user_id(), position: POSITION, room: ROOM, kind: kind() };
    encodings.key("AccountDataChangeKey", &change);
    encodings.key("FilterKey", &FilterKey { user_id: user_id(), filter: 6 });
    encodings.key("FilterHashKey", &FilterHashKey { user_id: user_id(), hash: [5; 32] });
}

fn room_rows(encodings: &mut Encodings) {
    let state = StateRef { branch: BranchNid(3), version: 5 };
    encodings.row("EventBytes", &EventBytes("{}".into()));
    encodings.row("EventNid", &EventNid(7));
    encodings.row("EventKey", &EventKey { room: ROOM, event: EventNid(7) });
    encodings.row("StateRef", &state);
    encodings.row(
        "EventRecord",
        &EventRecord {
            hash: [9; 32],
            flags: EventFlags::STATE.with(EventFlags::REDACTED),
            event_type: 0x41,
            sender: USER,
            state_key: KEY,
            membership: Membership::Join,
            origin_server_ts: 0x51,
            depth: 0x52,
            position: PLACE,
            state_before: StateRef::trunk(4),
            state_after: state,
            auth_events: vec![EventNid(1), EventNid(2)],
            prev_events: vec![EventNid(6)],
            redacted_by: Some(EventNid(8)),
            transaction: Some(TransactionMark {
                device_id: "D".to_owned(),
                transaction_id: "t".to_owned(),
            }),
        },
    );
    encodings.row(
        "TimelineEntry",
        &TimelineEntry {
            event: EventNid(7),
            event_type: 0x41,
            sender: USER,
            flags: EventFlags::NOTIFIES,
            state_version: 5,
        },
    );
}

fn state_rows(encodings: &mut Encodings) {
    let state = StateRef { branch: BranchNid(3), version: 5 };
    let change = StateChange { key: KEY, old: Some(EventNid(1)), new: None };
    encodings.row("StateChanges", &StateChanges { position: POSITION, changes: vec![change] });
    encodings.row("OverlayRow", &OverlayRow { base: state, changes: vec![change] });
    let name = StateKeyName { event_type: "m.x".to_owned(), state_key: "k".to_owned() };
    encodings.row("StateKeyName", &name);
    encodings.row(
        "HeadRow",
        &HeadRow {
            next_event: EventNid(8),
            state_version: 5,
            next_branch: 2,
            extremities: vec![EventNid(7)],
            joined_members: 3,
            invited_members: 1,
        },
    );
    encodings.row(
        "MembershipRow",
        &MembershipRow {
            membership: Membership::Leave,
            event: EventNid(7),
            position: POSITION,
            was_joined: true,
            forgotten: true,
            by_other: true,
        },
    );
    let rel_type = "m.thread".to_owned();
    let relation = RelationRow { event: EventNid(7), event_type: 0x41, sender: USER, rel_type };
    encodings.row("RelationRow", &relation);
    let room_id = owned_room_id!("!r:hs1");
    encodings
        .row("RoomInfo", &Json(RoomInfo { room_id: room_id.clone(), version: RoomVersionId::V11 }));
    encodings.row(
        "AliasRow",
        &Json(AliasRow {
            room_id,
            creator: owned_user_id!("@a:hs1"),
            alias: owned_room_alias_id!("#a:hs1"),
            servers: vec![owned_server_name!("hs1")],
        }),
    );
}

fn user_rows(encodings: &mut Encodings) {
    let event_id = owned_event_id!("$e");
    let (user_id, device_id) = (owned_user_id!("@a:hs1"), ruma::owned_device_id!("D"));
    encodings.row(
        "ReceiptRow",
        &ReceiptRow { position: POSITION, place: PLACE, event_id: event_id.clone(), ts: 0x61 },
    );
    encodings.row(
        "ReceiptChange",
        &ReceiptChange {
            user_id: user_id.to_string(),
            kind: ReceiptKind::ReadPrivate,
            thread: "main".to_owned(),
            event_id,
            ts: 0x61,
        },
    );
    encodings.row(
        "AccountDataRow",
        &AccountDataRow { position: POSITION, parts: 1, content: b"{}".to_vec() },
    );
    encodings.row(
        "AccountRow",
        &Json(AccountRow {
            created_ts: 1,
            password_hash: Some("h".to_owned()),
            admin: true,
            deactivated_ts: Some(2),
            erased: true,
        }),
    );
    let fields = BTreeMap::from([("displayname".to_owned(), "A".into())]);
    let followed = ThreadSubscriptionRow { position: POSITION, subscribed: true, automatic: true };
    encodings.row("ThreadSubscriptionRow", &followed);
    encodings.row("ProfileRow", &Json(ProfileRow(fields)));
    let display_name = Some("N".to_owned());
    encodings.row("DeviceRow", &Json(DeviceRow { display_name, created_ts: 1, revision: 2 }));
    let address = [127, 0, 0, 1].into();
    encodings.row("DeviceSeenRow", &Json(DeviceSeenRow { ts: 1, address }));
    encodings.row(
        "AccessTokenRow",
        &Json(AccessTokenRow {
            user_id: user_id.clone(),
            device_id: device_id.clone(),
            expires_ts: Some(1),
            replaces: Some([1; 32]),
            used: true,
        }),
    );
    encodings.row(
        "RefreshFamilyRow",
        &Json(RefreshFamilyRow {
            user_id,
            device_id,
            current: [1; 32],
            previous: Some([2; 32]),
            access: [3; 32],
            rotated_ts: 1,
        }),
    );
    let token = RegistrationTokenRow { uses_allowed: Some(2), uses: 1, expires_ts: Some(3) };
    encodings.row("RegistrationTokenRow", &Json(token));
}

fn server_rows(encodings: &mut Encodings) {
    encodings.row(
        "IdentityRow",
        &Json(IdentityRow {
            server_name: owned_server_name!("hs1"),
            interner: [1; 16],
            epoch: 2,
            schema_version: 1,
        }),
    );
    let mut writer = ValueWriter::default();
    let key = SigningKeyRow {
        der: vec![1, 2],
        version: "a".to_owned(),
        created_ts: 1,
        expired_ts: Some(2),
    };
    Json(key).encode(&mut writer);
    encodings.line("row", "SigningKeyRow", writer.as_bytes());
}

//! The bytes of every key and every row, against the file `encodings.txt`: a change of them is a
//! change of the format and needs a migration. `UPDATE=1 cargo test --lib storage` rewrites it.

use std::{collections::BTreeMap, fmt::Debug, fmt::Write};

use kv::{Json, Key, KeyReader, KeyWriter, Position, Value, ValueReader, ValueWriter};
use ruma::{
    RoomVersionId, owned_event_id, owned_room_alias_id, owned_room_id, owned_server_name,
    owned_user_id,
};
use serde_json::value::RawValue;

use super::{
    rows::{
        AggregationRow, EventBytes, EventFlags, EventRecord, HeadRow, Membership, MembershipRow,
        OverlayRow, RelationRow, StateChange, StateChanges, StateKeyName, StateRef, ThreadRow,
        TimelineEntry, TimelinePosition, TransactionMark,
        accounts::{
            EmailPurpose, EmailSessionRow, ErasureRow, LoginTokenRow, OwnerRow, ThirdPartyIdRow,
        },
        delayed_events::{ClientTransaction, DelayedEventRow, Outcome, Reason},
        encryption::{
            AppserviceMessageRow, BackupKeyRow, BackupVersionRow, DehydratedDeviceRow,
            FallbackKeyRow, OneTimeKeyIdRow, OneTimeKeyRow,
        },
        media::{BlobRow, MediaKind, MediaRow, MediaUsageRow, PreviewRow, ThumbnailRow},
        push::{CountRow, Counts, PusherCursorRow, PusherRow, ThreadRow as PushThreadRow},
        reports::{ReportRow, ReportSubject, UpgradeRow},
        rooms::{AliasRow, RoomInfo},
        users::{
            AccessTokenRow, AccountDataRow, AccountRow, DeviceRow, DeviceSeenRow, ProfileRow,
            RefreshFamilyRow, RegistrationTokenRow, ThreadSubscriptionRow,
        },
    },
    schema::{
        accounts::{ExpiringKey, GuestMemberKey, ThirdPartyIdKey, ThirdPartyOwnerKey},
        appservices::{
            AppserviceDeviceListKey, AppserviceQueueKey, AppserviceRow, AppserviceTransactionKey,
            DeviceListRow, NamespaceRow, NetworkRoomKey, QueuedRow, TransactionPartRow,
        },
        delayed_events::{DelayedDueKey, DelayedStateKey, DelayedUserKey},
        directory::DirectoryKey,
        encryption::{
            AppserviceDeviceKey, BackupKeyKey, BackupVersionKey, CrossSigningKeyKey,
            DeviceAlgorithmKey, DeviceListChangeKey, OneTimeKeyIdKey, OneTimeKeyKey,
            OwnSignatureChangeKey, SignatureKey, ToDeviceKey, ToDeviceTransactionKey,
        },
        ephemeral::{ReceiptChange, ReceiptKey, ReceiptKind, ReceiptPositionKey, ReceiptRow},
        media::{MediaKey, PendingMediaKey, RemoteUseKey, ThumbnailKey, UserMediaKey},
        push::{PushExceptionKey, PushOwnKey, PushSumKey, PushThreadKey},
        pushers::{PushUnmutedKey, PusherByKey, PusherKey},
        reports::UpgradeKey,
        rooms::{
            AggregationKey, BranchKey, CurrentStateKey, EventHashKey, EventKey, MemberKey,
            MembershipKey, OverlayHashKey, PendingRedactionKey, RelationKey, RoomAliasKey,
            StateKeyKey, StateLogKey, StateVersionKey, ThreadKey, ThreadSenderKey, TimelineKey,
            TransactionKey,
        },
        search::{
            DocumentKey, DocumentRow, IndexRow, IndexedRow, Posting, PostingBlock, PostingKey,
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
    account_keys(&mut encodings);
    account_rows(&mut encodings);
    server_rows(&mut encodings);
    delayed_events(&mut encodings);
    reports_and_upgrades(&mut encodings);
    search_rows(&mut encodings);
    appservice_rows(&mut encodings);
    media_encodings(&mut encodings);
    push_rows(&mut encodings);
    backups(&mut encodings);
    keys_of_devices(&mut encodings);
    signatures_and_messages(&mut encodings);
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

fn appservice_rows(encodings: &mut Encodings) {
    let appservice = || "irc".to_owned();
    let key = NetworkRoomKey { appservice: appservice(), network: "net".to_owned(), room: ROOM };
    encodings.key("NetworkRoomKey", &key);
    let key = AppserviceQueueKey { appservice: appservice(), position: POSITION };
    encodings.key("AppserviceQueueKey", &key);
    let key = AppserviceTransactionKey { appservice: appservice(), part: 1 };
    encodings.key("AppserviceTransactionKey", &key);
    let (user_id, device_id) = ("@a:hs1".to_owned(), "D".to_owned());
    let key =
        AppserviceDeviceKey { appservice: appservice(), position: POSITION, user_id, device_id };
    encodings.key("AppserviceDeviceKey", &key);
    let row = AppserviceMessageRow { counted: true, event: b"{}".to_vec() };
    encodings.row("AppserviceMessageRow", &row);
    let key = AppserviceDeviceListKey { appservice: appservice(), position: POSITION, index: 1 };
    encodings.key("AppserviceDeviceListKey", &key);
    let changed = DeviceListRow::Changed("@a:hs1".to_owned());
    encodings.row("DeviceListRow::Changed", &changed);
    encodings.row("DeviceListRow::Left", &DeviceListRow::Left("@a:hs1".to_owned()));
    encodings.row("DeviceListRow::Members", &DeviceListRow::Members(ROOM));
    encodings.row("QueuedRow::Event", &QueuedRow::Event(ROOM, EventNid(7)));
    encodings.row("QueuedRow::Receipt", &QueuedRow::Receipt(ROOM));
    let row =
        TransactionPartRow { transaction_id: "ab".to_owned(), parts: 2, body: b"{}".to_vec() };
    encodings.row("TransactionPartRow", &row);
    let row = AppserviceRow {
        url: Some("http://localhost:1".to_owned()),
        as_token_hash: [7; 32],
        hs_token: "h".to_owned(),
        sender_localpart: "ircbot".to_owned(),
        users: vec![NamespaceRow { exclusive: true, regex: "@irc_.*".to_owned() }],
        aliases: Vec::new(),
        rooms: Vec::new(),
        rate_limited: false,
        receive_ephemeral: true,
        msc2409: false,
        msc3202: true,
        msc4190: false,
        protocols: vec!["irc".to_owned()],
    };
    encodings.row("AppserviceRow", &Json(row));
}

fn push_rows(encodings: &mut Encodings) {
    let (user_id, thread) = (|| "@a:hs1".to_owned(), || "main".to_owned());
    encodings.key("PushSumKey", &PushSumKey { room: ROOM, thread: thread(), place: PLACE });
    let key = PushExceptionKey { user_id: user_id(), room: ROOM, thread: thread(), place: PLACE };
    encodings.key("PushExceptionKey", &key);
    encodings.key("PushOwnKey", &PushOwnKey { user_id: user_id(), room: ROOM, thread: thread() });
    encodings.key("PushThreadKey", &PushThreadKey { room: ROOM, place: PLACE });
    let (app_id, pushkey) = (|| "app".to_owned(), || "key".to_owned());
    let key = PusherKey { user_id: user_id(), app_id: app_id(), pushkey: pushkey() };
    encodings.key("PusherKey", &key);
    let key = PusherByKey { app_id: app_id(), pushkey: pushkey(), user_id: user_id() };
    encodings.key("PusherByKey", &key);
    encodings.key("PushUnmutedKey", &PushUnmutedKey { user_id: user_id(), room: ROOM });
    let own = Counts { notify: 1, highlight: -1 };
    encodings.row("CountRow", &CountRow { total: Counts { notify: 7, highlight: 2 }, own });
    encodings.row("PushThreadRow", &PushThreadRow { root: "$root".to_owned() });
    let cursor = PusherCursorRow { since: 1, position: POSITION, failures: 2, badge: 3 };
    encodings.row("PusherCursorRow", &cursor);
    let row = PusherRow {
        user_id: owned_user_id!("@a:hs1"),
        device_id: "D".into(),
        since: 1,
        set_ts: 2,
        app_display_name: "App".to_owned(),
        device_display_name: "Phone".to_owned(),
        lang: "en".to_owned(),
        profile_tag: None,
        url: "https://push.example/_matrix/push/v1/notify".to_owned(),
        format: Some("event_id_only".to_owned()),
        data: serde_json::Map::new(),
    };
    encodings.row("PusherRow", &Json(row));
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
    let parent = [9; 32];
    encodings.key("RelationKey", &RelationKey { room: ROOM, parent, kind: 3, position: PLACE });
    encodings.key("AggregationKey", &AggregationKey { room: ROOM, parent });
    encodings.key("ThreadKey", &ThreadKey { room: ROOM, latest: PLACE });
    encodings.key("ThreadSenderKey", &ThreadSenderKey { room: ROOM, root: parent, sender: USER });
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
    let (latest, latest_event) = (PLACE, EventNid(7));
    let counted = AggregationRow { replies: 3, latest, latest_event, edit: None, references: 2 };
    encodings.row("AggregationRow", &counted);
    encodings.row("ThreadRow", &ThreadRow { root: [9; 32] });
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
            guest: true,
            locked: true,
            suspended: true,
            accepted_terms: BTreeMap::from([("privacy".to_owned(), "1".to_owned())]),
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

fn search_rows(encodings: &mut Encodings) {
    let word = DirectoryKey { word: "ann".to_owned(), user_id: "@a:hs1".to_owned() };
    encodings.key("DirectoryKey", &word);
    encodings.key("PostingKey", &PostingKey { room: ROOM, term: 0x71, from: POSITION });
    encodings.key("DocumentKey", &DocumentKey { room: ROOM, position: POSITION });
    let posting = |number| Posting { position: Position::from_u64(number), count: 2, length: 9 };
    let block = PostingBlock(vec![posting(0x3132), posting(0x3133), posting(0x0100_3133)]);
    encodings.row("PostingBlock", &block);
    encodings.row("PostingBlock", &PostingBlock(vec![posting(Position::MAX.as_u64())]));
    let text = DocumentRow::Text { edit: Some(EventNid(7)), terms: vec![0x71, 0x72] };
    encodings.row("DocumentRow", &text);
    encodings.row("DocumentRow", &DocumentRow::Text { edit: None, terms: Vec::new() });
    encodings.row("DocumentRow", &DocumentRow::EditOf(POSITION));
    encodings.row("IndexedRow", &IndexedRow { position: POSITION });
    encodings.row("IndexRow", &Json(IndexRow { analyzer: "1 English".to_owned() }));
}

fn account_rows(encodings: &mut Encodings) {
    let user_id = owned_user_id!("@a:hs1");
    encodings.row("OwnerRow", &Json(OwnerRow { user_id: user_id.clone() }));
    encodings.row("LoginTokenRow", &Json(LoginTokenRow { user_id, password: Some([1; 32]) }));
    encodings.row("ThirdPartyIdRow", &Json(ThirdPartyIdRow { validated_ts: 1, added_ts: 2 }));
    encodings.row("ErasureRow", &ErasureRow { position: POSITION });
    encodings.row(
        "EmailSessionRow",
        &Json(EmailSessionRow {
            purpose: EmailPurpose::ResetPassword,
            address: "a@hs1".to_owned(),
            token: Some([1; 32]),
            send_attempt: 2,
            failures: 3,
            validated_ts: Some(4),
            expires_ts: 5,
        }),
    );
}

fn account_keys(encodings: &mut Encodings) {
    let (user_id, medium) = (|| "@a:hs1".to_owned(), || "email".to_owned());
    let address = || "a@hs1".to_owned();
    encodings.key("ExpiringKey", &ExpiringKey { expires_ts: 0x61, hash: [9; 32] });
    let key = ThirdPartyIdKey { user_id: user_id(), medium: medium(), address: address() };
    encodings.key("ThirdPartyIdKey", &key);
    let key = ThirdPartyOwnerKey { medium: medium(), address: address() };
    encodings.key("ThirdPartyOwnerKey", &key);
    encodings.key("GuestMemberKey", &GuestMemberKey { room: ROOM, user_id: user_id() });
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

fn delayed_events(encodings: &mut Encodings) {
    let (user_id, delay_id) = ("@a:hs1".to_owned(), "d".to_owned());
    let due = DelayedDueKey { due_ts: 0x71, delay_id: delay_id.clone() };
    encodings.key("DelayedDueKey", &due);
    let of_user = DelayedUserKey { user_id, finalized: 1, ts: 0x72, delay_id: delay_id.clone() };
    encodings.key("DelayedUserKey", &of_user);
    encodings.key("DelayedStateKey", &DelayedStateKey { room: ROOM, delay_id });
    let transaction = ClientTransaction {
        device_id: "D".to_owned(),
        endpoint: "send".to_owned(),
        id: "t".to_owned(),
    };
    let outcome = Outcome {
        ts: 5,
        reason: Reason::Delay,
        event_id: Some(owned_event_id!("$e")),
        error: Some(("M_UNKNOWN".to_owned(), "why".to_owned())),
    };
    encodings.row(
        "DelayedEventRow",
        &Json(DelayedEventRow {
            user_id: owned_user_id!("@a:hs1"),
            room_id: owned_room_id!("!r:hs1"),
            event_type: "m.x".to_owned(),
            state_key: Some("k".to_owned()),
            content: serde_json::json!({ "a": 1 }),
            created_ts: 1,
            delay_ms: 2,
            running_since: 3,
            next_event: 4,
            transaction,
            outcome: Some(outcome),
        }),
    );
}

fn reports_and_upgrades(encodings: &mut Encodings) {
    encodings.key("UpgradeKey", &UpgradeKey { room: ROOM, version: "12".to_owned() });
    encodings.row(
        "UpgradeRow",
        &Json(UpgradeRow {
            replacement: owned_room_id!("!n:hs1"),
            creator: owned_user_id!("@a:hs1"),
            additional_creators: vec![owned_user_id!("@b:hs1")],
        }),
    );
    let (room_id, sender) = (owned_room_id!("!r:hs1"), owned_user_id!("@b:hs1"));
    let event =
        ReportSubject::Event { room_id: room_id.clone(), event_id: owned_event_id!("$e"), sender };
    let user = ReportSubject::User(owned_user_id!("@b:hs1"));
    for subject in [event, ReportSubject::Room(room_id), user] {
        let (reporter, reason) = (owned_user_id!("@a:hs1"), "why".to_owned());
        encodings.row("ReportRow", &Json(ReportRow { reporter, ts: 1, reason, subject }));
    }
}

fn media_encodings(encodings: &mut Encodings) {
    let (user_id, media_id) = (|| "@a:hs1".to_owned(), || "m".to_owned());
    encodings.key("MediaKey", &MediaKey { origin: "hs1".to_owned(), media_id: media_id() });
    encodings
        .key("ThumbnailKey", &ThumbnailKey { hash: [9; 32], width: 96, height: 97, method: 3 });
    let key = UserMediaKey { user_id: user_id(), created_ts: 1, media_id: media_id() };
    encodings.key("UserMediaKey", &key);
    let key = PendingMediaKey { user_id: user_id(), media_id: media_id() };
    encodings.key("PendingMediaKey", &key);
    let key = RemoteUseKey { used_ts: 1, origin: "hs1".to_owned(), media_id: media_id() };
    encodings.key("RemoteUseKey", &key);
    encodings.row(
        "MediaRow",
        &Json(MediaRow {
            kind: MediaKind::Local,
            created_ts: 1,
            uploader: Some(owned_user_id!("@a:hs1")),
            blob: Some([2; 32]),
            size_bytes: 3,
            content_type: Some("t/t".to_owned()),
            filename: Some("f".to_owned()),
            expires_ts: Some(4),
            quarantined_ts: Some(5),
        }),
    );
    encodings.row("BlobRow", &Json(BlobRow { file: "f".to_owned(), size_bytes: 1, uses: 2 }));
    encodings.row(
        "ThumbnailRow",
        &Json(ThumbnailRow {
            created_ts: 1,
            file: Some("f".to_owned()),
            size_bytes: 2,
            content_type: "t/t".to_owned(),
        }),
    );
    encodings.row("MediaUsageRow", &Json(MediaUsageRow { files: 1, bytes: 2, revision: 3 }));
    let fields = serde_json::Map::from_iter([("og:title".to_owned(), "T".into())]);
    encodings.row("PreviewRow", &Json(PreviewRow { created_ts: 1, fields }));
}

fn backups(encodings: &mut Encodings) {
    let user_id = || "@a:hs1".to_owned();
    encodings.key("BackupVersionKey", &BackupVersionKey { user_id: user_id(), version: 2 });
    let (room_id, session_id) = ("!r:hs1".to_owned(), "s".to_owned());
    let key = BackupKeyKey { user_id: user_id(), version: 2, room_id, session_id };
    encodings.key("BackupKeyKey", &key);
    let version = BackupVersionRow {
        etag: 3,
        count: 4,
        size_bytes: 900,
        deleted: true,
        algorithm: "m.x".to_owned(),
        auth_data: b"{}".to_vec(),
    };
    encodings.row("BackupVersionRow", &version);
    let key = BackupKeyRow {
        first_message_index: 5,
        forwarded_count: 6,
        is_verified: true,
        session_data: b"{}".to_vec(),
    };
    encodings.row("BackupKeyRow", &key);
}

fn signatures_and_messages(encodings: &mut Encodings) {
    let (user_id, device_id) = (|| "@a:hs1".to_owned(), || "D".to_owned());
    encodings.key("CrossSigningKeyKey", &CrossSigningKeyKey { user_id: user_id(), usage: 1 });
    let (target, key_id) = (device_id(), "ed25519:K".to_owned());
    let key = SignatureKey { user_id: user_id(), signer: user_id(), target, key_id };
    encodings.key("SignatureKey", &key);
    let key = OwnSignatureChangeKey { signer: user_id(), user_id: user_id() };
    encodings.key("OwnSignatureChangeKey", &key);
    let row = DehydratedDeviceRow {
        device_id: device_id(),
        device_data: RawValue::from_string("{\"algorithm\":\"x\"}".to_owned()).unwrap(),
        display_name: Some("Dry".to_owned()),
    };
    encodings.row("DehydratedDeviceRow", &Json(row));
    let key = DeviceListChangeKey { position: POSITION, user_id: user_id() };
    encodings.key("DeviceListChangeKey", &key);
    let key = ToDeviceKey { user_id: user_id(), device_id: device_id(), position: POSITION };
    encodings.key("ToDeviceKey", &key);
    let key = ToDeviceTransactionKey {
        day: 1,
        user_id: user_id(),
        device_id: device_id(),
        event_type: "m.x".to_owned(),
        transaction_id: "t".to_owned(),
    };
    encodings.key("ToDeviceTransactionKey", &key);
}

fn keys_of_devices(encodings: &mut Encodings) {
    let (user_id, device_id, algorithm) =
        (|| "@a:hs1".to_owned(), || "D".to_owned(), || "x".to_owned());
    let key = OneTimeKeyKey {
        user_id: user_id(),
        device_id: device_id(),
        algorithm: algorithm(),
        position: POSITION,
        index: 5,
    };
    encodings.key("OneTimeKeyKey", &key);
    let key = OneTimeKeyIdKey {
        user_id: user_id(),
        device_id: device_id(),
        algorithm: algorithm(),
        key_id: "AAA".to_owned(),
    };
    encodings.key("OneTimeKeyIdKey", &key);
    let key =
        DeviceAlgorithmKey { user_id: user_id(), device_id: device_id(), algorithm: algorithm() };
    encodings.key("DeviceAlgorithmKey", &key);
    let (key_id, key) = (|| "AAA".to_owned(), || b"{}".to_vec());
    encodings.row("OneTimeKeyRow", &OneTimeKeyRow { key_id: key_id(), key: key() });
    for handed_out in [false, true] {
        let row = OneTimeKeyIdRow { hash: [9; 32], position: POSITION, index: 5, handed_out };
        encodings.row("OneTimeKeyIdRow", &row);
    }
    for used in [false, true] {
        encodings.row("FallbackKeyRow", &FallbackKeyRow { key_id: key_id(), key: key(), used });
    }
}

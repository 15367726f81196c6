//! Rooms on the memory engine: made, written to, read back, forked.

use std::sync::Arc;

use kv::Store;
use ruma::{
    CanonicalJsonObject, MilliSecondsSinceUnixEpoch, OwnedUserId, RoomVersionId, UInt,
    events::TimelineEventType,
    owned_user_id, server_name,
    signatures::{Ed25519KeyPair, hash_and_sign_event},
};
use serde_json::{Map, json, value::to_raw_value};

use super::{
    CREATABLE_VERSIONS, NewEvent, Outcome, Parts, Room, Rooms, StoredEvent, Transaction,
    create::{CreateRoom, Preset},
    head::Head,
    membership::{Change, MemberProfile},
};
use crate::{
    error::ApiError,
    federation::server_keys::Signer,
    id::Interner,
    storage::{rows::Membership, schema::FAMILIES},
    time::Clock,
};

pub(super) fn rooms() -> Rooms {
    let key = Ed25519KeyPair::generate();
    let signer = Signer {
        server_name: server_name!("hs1").to_owned(),
        key_pair: Ed25519KeyPair::from_der(&key, "1".to_owned()).unwrap(),
    };
    Rooms::new(Parts {
        store: Store::memory(&FAMILIES),
        interner: Interner::new([7; 16]),
        signer: Arc::new(signer),
        clock: Clock::manual(MilliSecondsSinceUnixEpoch(UInt::from(1_700_000_000_u32))),
        default_version: RoomVersionId::V12,
        event_cache_bytes: 1 << 20,
    })
}

pub(super) fn alice() -> OwnedUserId {
    owned_user_id!("@alice:hs1")
}

pub(super) fn bob() -> OwnedUserId {
    owned_user_id!("@bob:hs1")
}

pub(super) fn request(preset: Preset) -> CreateRoom {
    CreateRoom {
        creator: alice(),
        profile: MemberProfile::default(),
        version: None,
        creation_content: Map::new(),
        preset,
        listed: false,
        alias: None,
        name: Some("Lobby".to_owned()),
        topic: None,
        invites: Vec::new(),
        is_direct: false,
        initial_state: Vec::new(),
        power_level_override: Map::new(),
    }
}

pub(super) async fn make(rooms: &Rooms, request: CreateRoom) -> Room {
    let room_id = rooms.create(request).await.unwrap();
    rooms.known_room(&room_id).await.unwrap()
}

fn message(sender: OwnedUserId, body: &str) -> NewEvent {
    NewEvent {
        sender,
        event_type: TimelineEventType::RoomMessage,
        state_key: None,
        content: to_raw_value(&json!({ "msgtype": "m.text", "body": body })).unwrap(),
        redacts: None,
    }
}

async fn join(rooms: &Rooms, room: &Room, user: OwnedUserId) -> Result<(), ApiError> {
    rooms.join(room, Change::own(user, MemberProfile::default(), None)).await
}

pub(super) async fn current(
    rooms: &Rooms,
    room: &Room,
    kind: &str,
    key: &str,
) -> Option<Arc<StoredEvent>> {
    let (kind, key) = (kind.to_owned(), key.to_owned());
    rooms.write(room, move |draft| draft.current(&kind, &key)).await.unwrap()
}

#[tokio::test]
async fn a_room_of_every_version_is_made_and_written_to() {
    for version in CREATABLE_VERSIONS {
        let rooms = rooms();
        let room =
            make(&rooms, CreateRoom { version: Some(version.clone()), ..request(Preset::Public) })
                .await;
        assert_eq!(room.version, version);
        assert_eq!(room.id.server_name().is_none(), version == RoomVersionId::V12);
        join(&rooms, &room, bob()).await.unwrap();
        let sent = rooms.send(&room, message(bob(), "hi"), None).await.unwrap();
        let found = rooms
            .event_by_id(&rooms.store().reader(), &room, &sent.event_id)
            .unwrap()
            .expect("what was sent is there");
        assert_eq!(found.pdu.sender(), bob());
        assert_eq!(found.record.prev_events.len(), 1);
        let name = current(&rooms, &room, "m.room.name", "").await.unwrap();
        assert_eq!(name.pdu.content_field::<String>("name").as_deref(), Some("Lobby"));
        let head = Head::load(&rooms, &rooms.store().reader(), &room).unwrap();
        assert_eq!((head.row.joined_members, head.extremities.len()), (2, 1));
    }
}

#[tokio::test]
async fn a_transaction_makes_one_event() {
    let rooms = rooms();
    let room = make(&rooms, request(Preset::Public)).await;
    let transaction = Transaction {
        device_id: "D".to_owned(),
        endpoint: "send".to_owned(),
        transaction_id: "1".to_owned(),
    };
    let tries =
        (0..4).map(|_| rooms.send(&room, message(alice(), "once"), Some(transaction.clone())));
    let sent = futures::future::try_join_all(tries).await.unwrap();
    assert!(sent.iter().all(|other| other == &sent[0]));
}

#[tokio::test]
async fn many_senders_make_one_line() {
    let rooms = rooms();
    let room = make(&rooms, request(Preset::Public)).await;
    let sends = (0..100).map(|n| rooms.send(&room, message(alice(), &n.to_string()), None));
    let sent = futures::future::try_join_all(sends).await.unwrap();
    let reader = rooms.store().reader();
    let mut depths: Vec<_> = sent
        .iter()
        .map(|sent| rooms.event_by_id(&reader, &room, &sent.event_id).unwrap().unwrap().pdu.depth())
        .collect();
    depths.sort_unstable();
    assert!(depths.windows(2).all(|pair| pair[0] + 1 == pair[1]));
}

#[tokio::test]
async fn memberships_follow_the_rules() {
    let rooms = rooms();
    let room = make(&rooms, request(Preset::Private)).await;
    assert_eq!(join(&rooms, &room, bob()).await.unwrap_err().errcode, "M_FORBIDDEN");
    let to_bob =
        Change { sender: alice(), target: bob(), reason: None, profile: MemberProfile::default() };
    rooms.invite(&room, to_bob.clone()).await.unwrap();
    join(&rooms, &room, bob()).await.unwrap();
    assert_eq!(rooms.invite(&room, to_bob.clone()).await.unwrap_err().errcode, "M_FORBIDDEN");
    rooms.ban(&room, to_bob.clone()).await.unwrap();
    assert_eq!(join(&rooms, &room, bob()).await.unwrap_err().errcode, "M_FORBIDDEN");
    rooms.unban(&room, to_bob.clone()).await.unwrap();
    let row = rooms.membership(&rooms.store().reader(), &room, &bob()).unwrap().unwrap();
    assert_eq!((row.membership, row.was_joined), (Membership::Leave, true));
    rooms.forget(&room, &bob()).await.unwrap();
    assert_eq!(rooms.kick(&room, to_bob).await.unwrap_err().errcode, "M_FORBIDDEN");
}

#[tokio::test]
async fn t46_redactions_need_power_and_take_the_text_away() {
    let rooms = rooms();
    let room = make(&rooms, request(Preset::Public)).await;
    join(&rooms, &room, bob()).await.unwrap();
    let sent = rooms.send(&room, message(alice(), "secret"), None).await.unwrap();
    let by_bob = rooms.redact(&room, bob(), (&sent.event_id, None), None).await;
    assert_eq!(by_bob.unwrap_err().errcode, "M_FORBIDDEN");
    rooms.redact(&room, alice(), (&sent.event_id, Some("oops".to_owned())), None).await.unwrap();
    let reader = rooms.store().reader();
    let event = rooms.event_by_id(&reader, &room, &sent.event_id).unwrap().unwrap();
    assert_eq!(event.pdu.content().get(), "{}");
    assert!(event.record.redacted_by.is_some());
    // The create event keeps what its version keeps.
    let create = current(&rooms, &room, "m.room.create", "").await.unwrap();
    rooms.redact(&room, alice(), (create.pdu.event_id(), None), None).await.unwrap();
    let create = current(&rooms, &room, "m.room.create", "").await.unwrap();
    assert!(create.pdu.content().get().contains("room_version"));
    let other = make(&rooms, request(Preset::Public)).await;
    let elsewhere = rooms.redact(&other, alice(), (&sent.event_id, None), None).await;
    assert_eq!(elsewhere.unwrap_err().errcode, "M_NOT_FOUND");
}

#[tokio::test]
async fn t36_t37_power_levels_are_checked() {
    let rooms = rooms();
    let room = make(&rooms, request(Preset::Public)).await;
    join(&rooms, &room, bob()).await.unwrap();
    let levels = |content: serde_json::Value| {
        NewEvent::state(alice(), TimelineEventType::RoomPowerLevels, "", &content).unwrap()
    };
    for (content, errcode) in [
        (json!({ "users": { "@alice:hs1": 100 } }), "M_BAD_JSON"),
        (json!({ "ban": "50" }), "M_BAD_JSON"),
        (json!({ "users": { "@bob:hs1": 1.5 } }), "M_BAD_JSON"),
        (json!({ "users_default": 9_007_199_254_740_992_u64 }), "M_BAD_JSON"),
        (json!({ "users": { "bob": 5 } }), "M_BAD_JSON"),
    ] {
        let error = rooms.send(&room, levels(content), None).await.unwrap_err();
        assert_eq!(error.errcode, errcode, "{error}");
    }
    let by_bob = NewEvent { sender: bob(), ..levels(json!({ "users_default": 100 })) };
    assert_eq!(rooms.send(&room, by_bob, None).await.unwrap_err().errcode, "M_FORBIDDEN");
}

/// Another server's event, signed by a key of its own, at any place of the graph.
pub(super) fn foreign(
    room: &Room,
    sender: &str,
    cites: (&[&StoredEvent], &[&StoredEvent]),
    (kind, state_key, content): (&str, Option<&str>, serde_json::Value),
) -> CanonicalJsonObject {
    let ids = |events: &[&StoredEvent]| -> Vec<_> {
        events.iter().map(|event| event.pdu.event_id().to_string()).collect()
    };
    let depth = cites.0.iter().map(|event| event.pdu.depth()).max().unwrap_or(0) + 1;
    let mut event = json!({
        "room_id": room.id, "sender": sender, "type": kind, "content": content, "depth": depth,
        "origin_server_ts": 1_700_000_000_u32 + u32::try_from(depth).unwrap(),
        "prev_events": ids(cites.0), "auth_events": ids(cites.1),
    });
    if let Some(key) = state_key {
        event["state_key"] = json!(key);
    }
    let mut object: CanonicalJsonObject = serde_json::from_value(event).unwrap();
    let key = Ed25519KeyPair::from_der(&Ed25519KeyPair::generate(), "x".to_owned()).unwrap();
    hash_and_sign_event("evil", &key, &mut object, &room.rules.redaction).unwrap();
    object
}

pub(super) async fn newest(rooms: &Rooms, room: &Room) -> Arc<StoredEvent> {
    rooms
        .write(room, |draft| {
            let last = draft.head.extremities.last().expect("a room has an extremity");
            draft.event(last.nid)
        })
        .await
        .unwrap()
}

#[tokio::test]
async fn a_fork_is_resolved_and_a_ban_soft_fails() {
    let rooms = rooms();
    let mut wanted = request(Preset::Public);
    wanted.power_level_override.insert("state_default".to_owned(), json!(0));
    let room = make(&rooms, wanted).await;
    let levels = current(&rooms, &room, "m.room.power_levels", "").await.unwrap();
    let rules = current(&rooms, &room, "m.room.join_rules", "").await.unwrap();
    let before = newest(&rooms, &room).await;
    let charlie = "@charlie:evil";
    let joined = foreign(
        &room,
        charlie,
        (&[&before], &[&levels, &rules]),
        ("m.room.member", Some(charlie), json!({ "membership": "join" })),
    );
    assert_eq!(rooms.receive(&room, joined.clone()).await.unwrap(), Outcome::Accepted);
    assert_eq!(rooms.receive(&room, joined).await.unwrap(), Outcome::Known);
    let member = current(&rooms, &room, "m.room.member", charlie).await.unwrap();
    // Two topics at once: one end of the graph is local, the other is not.
    let topic = |text: &str| json!({ "topic": text });
    let local =
        NewEvent::state(alice(), TimelineEventType::RoomTopic, "", &topic("alice's")).unwrap();
    rooms.send(&room, local, None).await.unwrap();
    let cites = (&[&*member][..], &[&*levels, &*member][..]);
    let fork = foreign(&room, charlie, cites, ("m.room.topic", Some(""), topic("charlie's")));
    assert_eq!(rooms.receive(&room, fork).await.unwrap(), Outcome::Accepted);
    let head = Head::load(&rooms, &rooms.store().reader(), &room).unwrap();
    assert_eq!(head.extremities.len(), 2);
    // A local event joins the ends again.
    rooms.send(&room, message(alice(), "together"), None).await.unwrap();
    let head = Head::load(&rooms, &rooms.store().reader(), &room).unwrap();
    assert_eq!(head.extremities.len(), 1);
    // Banned here, sending from before the ban: kept, but not shown.
    let ban = Change {
        sender: alice(),
        target: charlie.try_into().unwrap(),
        reason: None,
        profile: MemberProfile::default(),
    };
    rooms.ban(&room, ban).await.unwrap();
    let late = foreign(&room, charlie, cites, ("m.room.message", None, json!({ "body": "x" })));
    assert!(matches!(rooms.receive(&room, late).await.unwrap(), Outcome::SoftFailed(_)));
    let newest_now = newest(&rooms, &room).await;
    let after_ban = (&[&*newest_now][..], &[&*levels, &*member][..]);
    let worse = foreign(&room, charlie, after_ban, ("m.room.message", None, json!({})));
    assert!(matches!(rooms.receive(&room, worse).await.unwrap(), Outcome::Rejected(_)));
    let head = Head::load(&rooms, &rooms.store().reader(), &room).unwrap();
    assert_eq!(head.extremities.len(), 1);
    let findings = rooms.check().unwrap();
    assert_eq!((findings.rooms, findings.damages), (1, Vec::new()));
}

#[tokio::test]
async fn strangers_learn_nothing_by_what_is_refused() {
    let rooms = rooms();
    let room = make(&rooms, request(Preset::Private)).await;
    let sent = rooms.send(&room, message(alice(), "hi"), None).await.unwrap();
    let on = |target: &str| Change {
        sender: bob(),
        target: target.try_into().unwrap(),
        reason: None,
        profile: MemberProfile::default(),
    };
    let redaction = rooms.redact(&room, bob(), (&sent.event_id, None), None).await.unwrap_err();
    let unknown = ruma::event_id!("$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    let of_nothing = rooms.redact(&room, bob(), (unknown, None), None).await.unwrap_err();
    assert_eq!(redaction.to_string(), of_nothing.to_string());
    let member = rooms.kick(&room, on("@alice:hs1")).await.unwrap_err();
    let nobody = rooms.kick(&room, on("@carol:hs1")).await.unwrap_err();
    assert_eq!(member.to_string(), nobody.to_string());
    let invited = rooms.invite(&room, on("@alice:hs1")).await.unwrap_err();
    assert_eq!(invited.to_string(), member.to_string());
}

#[tokio::test]
async fn t24_a_content_that_is_too_deep_is_refused() {
    let rooms = rooms();
    let room = make(&rooms, request(Preset::Public)).await;
    let nested = |depth: usize| {
        let text = format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        let content = serde_json::value::RawValue::from_string(text).unwrap();
        NewEvent { content, ..message(alice(), "") }
    };
    rooms.send(&room, nested(62), None).await.unwrap();
    let error = rooms.send(&room, nested(63), None).await.unwrap_err();
    assert_eq!(error.errcode, "M_BAD_JSON");
}

#[tokio::test]
async fn nobody_vouches_for_a_join_but_the_server() {
    let rooms = rooms();
    let open = make(&rooms, request(Preset::Public)).await;
    let mut wanted = request(Preset::Private);
    let rule = json!({ "join_rule": "restricted",
        "allow": [{ "type": "m.room_membership", "room_id": open.id }] });
    let rule = to_raw_value(&rule).unwrap();
    wanted.initial_state = vec![(TimelineEventType::RoomJoinRules, String::new(), rule)];
    let room = make(&rooms, wanted).await;
    assert_eq!(join(&rooms, &room, bob()).await.unwrap_err().errcode, "M_FORBIDDEN");
    let forged = json!({ "membership": "join", "join_authorised_via_users_server": alice() });
    let kind = TimelineEventType::RoomMember;
    let forged = NewEvent::state(bob(), kind, bob().as_str(), &forged).unwrap();
    let refused = rooms.send(&room, forged.clone(), None).await.unwrap_err();
    assert_eq!(refused.errcode, "M_FORBIDDEN");
    join(&rooms, &open, bob()).await.unwrap();
    join(&rooms, &room, bob()).await.unwrap();
    let member = current(&rooms, &room, "m.room.member", "@bob:hs1").await.unwrap();
    assert!(
        member.pdu.content().get().contains("\"join_authorised_via_users_server\":\"@alice:hs1\"")
    );
}

#[tokio::test]
async fn a_redaction_is_never_a_state_event() {
    let rooms = rooms();
    let mut wanted = request(Preset::Public);
    wanted.power_level_override.insert("events".to_owned(), json!({ "m.room.redaction": 0 }));
    let room = make(&rooms, wanted).await;
    join(&rooms, &room, bob()).await.unwrap();
    let sent = rooms.send(&room, message(alice(), "mine"), None).await.unwrap();
    let content = json!({ "redacts": sent.event_id });
    let kind = TimelineEventType::RoomRedaction;
    let event = NewEvent::state(bob(), kind, "x", &content).unwrap();
    assert_eq!(rooms.send(&room, event, None).await.unwrap_err().errcode, "M_BAD_JSON");
}

#[tokio::test]
async fn t47_an_old_view_does_not_bring_redacted_text_back() {
    let rooms = rooms();
    let room = make(&rooms, request(Preset::Public)).await;
    let sent = rooms.send(&room, message(alice(), "secret"), None).await.unwrap();
    let old = rooms.store().reader();
    rooms.redact(&room, alice(), (&sent.event_id, None), None).await.unwrap();
    // The old view may still show it, to whom it was shown anyway ...
    rooms.event_by_id(&old, &room, &sent.event_id).unwrap().unwrap();
    // ... but nobody who looks after the redaction sees it.
    let new = rooms.store().reader();
    let event = rooms.event_by_id(&new, &room, &sent.event_id).unwrap().unwrap();
    assert_eq!(event.pdu.content().get(), "{}");
}

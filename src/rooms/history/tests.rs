//! Reading rooms on the memory engine, as each kind of reader.

use ruma::{OwnedUserId, RoomVersionId, events::TimelineEventType, owned_device_id, owned_user_id};
use serde_json::{Value, json, value::to_raw_value};

use super::*;
use crate::rooms::{
    NewEvent, Room, Transaction,
    create::{CreateRoom, Preset},
    members::{self, MembersRequest, StateEventRequest},
    membership::{Change, MemberProfile},
    tests::{alice, bob, request, rooms},
};

fn asker(user_id: OwnedUserId) -> Asker {
    Asker { user_id, device_id: Some(owned_device_id!("PHONE")) }
}

fn filter(filter: Value) -> RoomEventFilter {
    serde_json::from_value(filter).unwrap()
}

fn value(raw: &RawValue) -> Value {
    serde_json::from_str(raw.get()).unwrap()
}

async fn make(rooms: &Rooms, request: CreateRoom) -> Room {
    let room_id = rooms.create(request).await.unwrap();
    rooms.known_room(&room_id).await.unwrap()
}

async fn make_with_visibility(rooms: &Rooms, visibility: &str) -> Room {
    let content = to_raw_value(&json!({ "history_visibility": visibility })).unwrap();
    let initial_state = vec![(TimelineEventType::RoomHistoryVisibility, String::new(), content)];
    make(rooms, CreateRoom { initial_state, ..request(Preset::Public) }).await
}

async fn say(rooms: &Rooms, room: &Room, body: &str) -> OwnedEventId {
    say_as(rooms, room, body, None).await
}

async fn say_as(
    rooms: &Rooms,
    room: &Room,
    body: &str,
    transaction: Option<Transaction>,
) -> OwnedEventId {
    let content = to_raw_value(&json!({ "msgtype": "m.text", "body": body })).unwrap();
    let event = NewEvent {
        sender: alice(),
        event_type: TimelineEventType::RoomMessage,
        state_key: None,
        content,
        redacts: None,
    };
    rooms.send(room, event, transaction).await.unwrap().event_id
}

async fn rename(rooms: &Rooms, room: &Room, name: &str) -> OwnedEventId {
    let event = NewEvent::state(alice(), TimelineEventType::RoomName, "", &json!({ "name": name }));
    rooms.send(room, event.unwrap(), None).await.unwrap().event_id
}

fn own(user: OwnedUserId) -> Change {
    Change::own(user, MemberProfile::default(), None)
}

fn by_alice(target: OwnedUserId) -> Change {
    Change { sender: alice(), target, reason: None, profile: MemberProfile::default() }
}

async fn join(rooms: &Rooms, room: &Room, user: OwnedUserId) {
    rooms.join(room, own(user)).await.unwrap();
}

fn backward(room: &Room, limit: usize) -> MessagesRequest {
    MessagesRequest {
        room_id: room.id.clone(),
        from: None,
        to: None,
        direction: Direction::Backward,
        limit,
        filter: RoomEventFilter::default(),
        related: RelatedBy::default(),
    }
}

/// All pages, as event ids; fails when a page has more than the limit.
async fn all_pages(rooms: &Rooms, user: OwnedUserId, first: MessagesRequest) -> Vec<String> {
    let (limit, direction) = (first.limit, first.direction);
    let mut request = first;
    let mut ids = Vec::new();
    for _ in 0..200 {
        let page = messages(rooms, asker(user.clone()), request.clone()).await.unwrap();
        assert!(page.chunk.len() <= limit);
        ids.extend(page.chunk.iter().map(|event| event_id(event)));
        let forward_end = direction == Direction::Forward && page.chunk.is_empty();
        match page.end {
            Some(end) if !forward_end => request.from = Some(end),
            _ => return ids,
        }
    }
    panic!("the pages do not end");
}

fn event_id(event: &RawValue) -> String {
    value(event)["event_id"].as_str().unwrap().to_owned()
}

fn status<T>(result: &Result<T, ApiError>) -> u16 {
    result.as_ref().err().map_or(200, |error| error.status.as_u16())
}

/// For each visibility and reader which of four events are seen: before the invite, between invite
/// and join, after the join, after the leave.
const SEEN: [(&str, [&str; 5]); 4] = [
    ("world_readable", ["yyyy", "yyyy", "yyyy", "yyyy", "yyyy"]),
    ("shared", ["yyyy", "nnnn", "yyyn", "yyyn", "nnnn"]),
    ("invited", ["nyyy", "nyyy", "nyyn", "nyyn", "nnnn"]),
    ("joined", ["nnyy", "nnnn", "nnyn", "nnyn", "nnnn"]),
];

fn readers() -> [OwnedUserId; 5] {
    [
        owned_user_id!("@joined:hs1"),
        owned_user_id!("@invited:hs1"),
        owned_user_id!("@left:hs1"),
        owned_user_id!("@banned:hs1"),
        owned_user_id!("@never:hs1"),
    ]
}

/// The room of the table, with its four events.
async fn story(rooms: &Rooms, visibility: &str) -> (Room, [OwnedEventId; 4]) {
    let [joined, invited, left, banned, _] = readers();
    let room = make_with_visibility(rooms, visibility).await;
    let first = say(rooms, &room, "before the invite").await;
    for user in [&joined, &invited, &left, &banned] {
        rooms.invite(&room, by_alice(user.clone())).await.unwrap();
    }
    let second = say(rooms, &room, "between").await;
    for user in [&joined, &left, &banned] {
        join(rooms, &room, user.clone()).await;
    }
    let third = say(rooms, &room, "after the join").await;
    rooms.leave(&room, own(left)).await.unwrap();
    rooms.ban(&room, by_alice(banned)).await.unwrap();
    let fourth = say(rooms, &room, "after the leave").await;
    (room, [first, second, third, fourth])
}

#[tokio::test]
async fn t56_each_reader_sees_what_the_table_says() {
    for (visibility, rows) in SEEN {
        let rooms = rooms();
        let (room, events) = story(&rooms, visibility).await;
        for (reader, expected) in readers().into_iter().zip(rows) {
            let mut single = String::new();
            let mut surroundings = String::new();
            for id in &events {
                let found = event(&rooms, asker(reader.clone()), room.id.clone(), id.clone()).await;
                single.push(if status(&found) == 200 { 'y' } else { 'n' });
                let request = ContextRequest {
                    room_id: room.id.clone(),
                    event_id: id.clone(),
                    limit: 0,
                    filter: RoomEventFilter::default(),
                    related: RelatedBy::default(),
                };
                let found = context(&rooms, asker(reader.clone()), request).await;
                surroundings.push(if status(&found) == 200 { 'y' } else { 'n' });
            }
            assert_eq!(single, expected, "/event, {visibility}, {reader}");
            assert_eq!(surroundings, expected, "/context, {visibility}, {reader}");
            let read = messages(&rooms, asker(reader.clone()), backward(&room, 100)).await;
            let is_member = ["joined", "left", "banned"].contains(&reader.localpart());
            if !is_member && visibility != "world_readable" {
                assert_eq!(status(&read), 403, "/messages, {visibility}, {reader}");
                continue;
            }
            let read: Vec<_> = read.unwrap().chunk.iter().map(|event| event_id(event)).collect();
            let listed: String = events
                .iter()
                .map(|id| if read.iter().any(|read| id == read) { 'y' } else { 'n' })
                .collect();
            assert_eq!(listed, expected, "/messages, {visibility}, {reader}");
        }
    }
}

#[tokio::test]
async fn own_leave_is_the_last_event_of_who_left() {
    let rooms = rooms();
    for (visibility, _) in &SEEN[1..] {
        let (room, _) = story(&rooms, visibility).await;
        for (user, membership) in [("@left:hs1", "leave"), ("@banned:hs1", "ban")] {
            let user = OwnedUserId::try_from(user).unwrap();
            let page = messages(&rooms, asker(user.clone()), backward(&room, 1)).await.unwrap();
            let last = value(&page.chunk[0]);
            assert_eq!(last["state_key"], user.as_str(), "{visibility}");
            assert_eq!(last["content"]["membership"], membership);
            assert_eq!(last["unsigned"]["membership"], membership);
            assert_eq!(last["unsigned"]["prev_content"]["membership"], "join");
        }
    }
}

#[tokio::test]
async fn pages_have_no_gaps_and_no_doubles() {
    let rooms = rooms();
    let room = make(&rooms, request(Preset::Public)).await;
    for n in 0..30 {
        say(&rooms, &room, &n.to_string()).await;
    }
    let whole = all_pages(&rooms, alice(), backward(&room, 1_000)).await;
    assert!(whole.len() > 30);
    for limit in [1, 7, 30, whole.len() - 1, whole.len(), whole.len() + 1] {
        let pages = all_pages(&rooms, alice(), backward(&room, limit)).await;
        assert_eq!(pages, whole, "backward by {limit}");
        let forward = MessagesRequest { direction: Direction::Forward, ..backward(&room, limit) };
        let mut pages = all_pages(&rooms, alice(), forward).await;
        pages.reverse();
        assert_eq!(pages, whole, "forward by {limit}");
    }
}

#[tokio::test]
async fn a_page_stops_at_to_and_says_nothing_of_an_end() {
    let rooms = rooms();
    let room = make(&rooms, request(Preset::Public)).await;
    let first = messages(&rooms, asker(alice()), backward(&room, 1)).await.unwrap();
    let (a, b) = (say(&rooms, &room, "a").await, say(&rooms, &room, "b").await);
    let to = Some(first.start);
    let request = MessagesRequest { to, ..backward(&room, 10) };
    let page = messages(&rooms, asker(alice()), request).await.unwrap();
    let ids: Vec<_> = page.chunk.iter().map(|event| event_id(event)).collect();
    assert_eq!(ids, [b.as_str(), a.as_str()]);
    assert_eq!(page.end, None);
}

#[tokio::test]
async fn what_is_sent_meanwhile_does_not_move_a_page() {
    let rooms = rooms();
    let room = make(&rooms, request(Preset::Public)).await;
    let whole = all_pages(&rooms, alice(), backward(&room, 100)).await;
    let first = messages(&rooms, asker(alice()), backward(&room, 2)).await.unwrap();
    say(&rooms, &room, "later").await;
    let from = first.end;
    let rest = all_pages(&rooms, alice(), MessagesRequest { from, ..backward(&room, 3) }).await;
    assert_eq!(rest, whole[2..]);
    let forward = MessagesRequest {
        from: Some(first.start),
        direction: Direction::Forward,
        ..backward(&room, 5)
    };
    let page = messages(&rooms, asker(alice()), forward).await.unwrap();
    assert_eq!(value(&page.chunk[0])["content"]["body"], "later");
}

#[tokio::test]
async fn t92_history_behind_unwanted_events_is_reached() {
    let rooms = rooms();
    let room = make(&rooms, request(Preset::Public)).await;
    let sends = (0..crate::rooms::timeline::EXAMINED_MAX + 50).map(|n| {
        let (rooms, room) = (&rooms, &room);
        async move { say(rooms, room, &n.to_string()).await }
    });
    futures::future::join_all(sends).await;
    let wanted = filter(json!({ "types": ["m.room.create"] }));
    let request = MessagesRequest { filter: wanted, ..backward(&room, 10) };
    let page = messages(&rooms, asker(alice()), request.clone()).await.unwrap();
    assert!(page.chunk.is_empty());
    let from = Some(page.end.expect("there is history behind"));
    let page = messages(&rooms, asker(alice()), MessagesRequest { from, ..request }).await.unwrap();
    assert_eq!(page.chunk.len(), 1);
    assert_eq!(value(&page.chunk[0])["type"], "m.room.create");
    assert_eq!(page.end, None);
}

#[tokio::test]
async fn the_context_is_around_the_event() {
    let rooms = rooms();
    let room = make(&rooms, request(Preset::Public)).await;
    let mut ids = Vec::new();
    for n in 0..9 {
        ids.push(say(&rooms, &room, &n.to_string()).await);
    }
    let request = ContextRequest {
        room_id: room.id.clone(),
        event_id: ids[4].clone(),
        limit: 5,
        filter: filter(json!({ "lazy_load_members": true })),
        related: RelatedBy::default(),
    };
    let found = context(&rooms, asker(alice()), request).await.unwrap();
    let list = |events: &[Box<RawValue>]| events.iter().map(|e| event_id(e)).collect::<Vec<_>>();
    assert_eq!(event_id(&found.event), ids[4].as_str());
    assert_eq!(list(&found.before), [ids[3].as_str(), ids[2].as_str()]);
    assert_eq!(list(&found.after), [ids[5].as_str(), ids[6].as_str(), ids[7].as_str()]);
    let members =
        found.state.iter().filter(|event| value(event)["type"] == "m.room.member").count();
    assert_eq!(members, 1);
    assert!(found.state.len() > 4);
    // The tokens go on from there.
    let from = Some(found.start);
    let page = messages(&rooms, asker(alice()), MessagesRequest { from, ..backward(&room, 1) });
    assert_eq!(event_id(&page.await.unwrap().chunk[0]), ids[1].as_str());
    let forward = MessagesRequest {
        from: Some(found.end),
        direction: Direction::Forward,
        ..backward(&room, 1)
    };
    let page = messages(&rooms, asker(alice()), forward).await.unwrap();
    assert_eq!(event_id(&page.chunk[0]), ids[8].as_str());
}

#[tokio::test]
async fn t56_the_transaction_id_is_told_to_the_senders_device_only() {
    let rooms = rooms();
    let room = make(&rooms, request(Preset::Public)).await;
    join(&rooms, &room, bob()).await;
    let transaction = Transaction {
        device_id: "PHONE".to_owned(),
        endpoint: "send".to_owned(),
        transaction_id: "m1".to_owned(),
    };
    let id = say_as(&rooms, &room, "hi", Some(transaction)).await;
    for (user, device, told) in [
        (alice(), Some(owned_device_id!("PHONE")), json!("m1")),
        (alice(), Some(owned_device_id!("LAPTOP")), Value::Null),
        (alice(), None, Value::Null),
        (bob(), Some(owned_device_id!("PHONE")), Value::Null),
    ] {
        let asker = Asker { user_id: user, device_id: device };
        let found = event(&rooms, asker, room.id.clone(), id.clone()).await.unwrap();
        assert_eq!(value(&found)["unsigned"]["transaction_id"], told);
    }
}

#[tokio::test]
async fn a_client_event_has_the_fields_of_the_format() {
    let rooms = rooms();
    let room = make(&rooms, request(Preset::Public)).await;
    let old = rename(&rooms, &room, "old").await;
    let id = rename(&rooms, &room, "new").await;
    rooms.clock().advance(std::time::Duration::from_secs(5));
    let found = event(&rooms, asker(alice()), room.id.clone(), id.clone()).await.unwrap();
    let now = u64::from(rooms.clock().now().get());
    let expected = json!({
        "content": { "name": "new" },
        "event_id": id,
        "origin_server_ts": now - 5_000,
        "room_id": room.id,
        "sender": alice(),
        "state_key": "",
        "type": "m.room.name",
        "unsigned": {
            "age": 5_000,
            "membership": "join",
            "prev_content": { "name": "old" },
            "prev_sender": alice(),
            "replaces_state": old,
        },
    });
    assert_eq!(value(&found), expected);
}

#[tokio::test]
async fn a_redaction_is_told_in_the_old_way_and_the_new() {
    for version in [RoomVersionId::V10, RoomVersionId::V11, RoomVersionId::V12] {
        let rooms = rooms();
        let version = Some(version);
        let room = make(&rooms, CreateRoom { version, ..request(Preset::Public) }).await;
        let id = say(&rooms, &room, "oops").await;
        let why = Some("spam".to_owned());
        let redaction = rooms.redact(&room, alice(), (&id, why), None).await.unwrap().event_id;
        let found = event(&rooms, asker(alice()), room.id.clone(), id.clone()).await.unwrap();
        let found = value(&found);
        assert_eq!(found["content"], json!({}));
        let because = &found["unsigned"]["redacted_because"];
        assert_eq!(because["event_id"], redaction.as_str());
        assert_eq!(because["content"], json!({ "reason": "spam", "redacts": id }));
        assert_eq!(because["redacts"], id.as_str());
        let told = event(&rooms, asker(alice()), room.id.clone(), redaction).await.unwrap();
        assert_eq!(value(&told)["redacts"], id.as_str());
        assert_eq!(value(&told)["content"]["redacts"], id.as_str());
    }
}

#[tokio::test]
async fn t58_who_is_not_a_member_reads_nothing() {
    let rooms = rooms();
    let room = make(&rooms, request(Preset::Public)).await;
    let unknown = ruma::owned_room_id!("!nowhere:hs1");
    for room_id in [room.id.clone(), unknown] {
        let members = MembersRequest {
            room_id: room_id.clone(),
            at: None,
            membership: None,
            not_membership: None,
        };
        let at = MembersRequest { at: Some(PaginationToken::START), ..members.clone() };
        for request in [members, at] {
            assert_eq!(status(&members::members(&rooms, asker(bob()), request).await), 403);
        }
        let joined = members::joined_members(&rooms, bob(), room_id.clone()).await;
        assert_eq!(status(&joined), 403);
        let state = members::state_events(&rooms, asker(bob()), room_id.clone()).await;
        assert_eq!(status(&state), 403);
        let one = StateEventRequest {
            room_id: room_id.clone(),
            event_type: "m.room.name".to_owned(),
            state_key: String::new(),
            whole: false,
        };
        assert_eq!(status(&members::state_event(&rooms, asker(bob()), one).await), 403);
        let page = MessagesRequest { room_id, ..backward(&room, 10) };
        assert_eq!(status(&messages(&rooms, asker(bob()), page).await), 403);
    }
}

async fn name_for(rooms: &Rooms, room: &Room, user: OwnedUserId) -> Result<Value, ApiError> {
    let request = StateEventRequest {
        room_id: room.id.clone(),
        event_type: "m.room.name".to_owned(),
        state_key: String::new(),
        whole: false,
    };
    let content = members::state_event(rooms, asker(user), request).await?;
    Ok(value(&content)["name"].clone())
}

#[tokio::test]
async fn t58_who_left_reads_the_state_of_then() {
    let rooms = rooms();
    let room = make(&rooms, request(Preset::Public)).await;
    join(&rooms, &room, bob()).await;
    rooms.leave(&room, own(bob())).await.unwrap();
    rename(&rooms, &room, "secret").await;
    assert_eq!(name_for(&rooms, &room, bob()).await.unwrap(), "Lobby");
    assert_eq!(name_for(&rooms, &room, alice()).await.unwrap(), "secret");
    // A ban or an invite later does not open what came between.
    rooms.ban(&room, by_alice(bob())).await.unwrap();
    assert_eq!(name_for(&rooms, &room, bob()).await.unwrap(), "Lobby");
    rooms.unban(&room, by_alice(bob())).await.unwrap();
    rooms.invite(&room, by_alice(bob())).await.unwrap();
    assert_eq!(name_for(&rooms, &room, bob()).await.unwrap(), "Lobby");
    let everything = members::state_events(&rooms, asker(bob()), room.id.clone()).await.unwrap();
    let name = everything.iter().map(|event| value(event));
    let name = name.filter(|event| event["type"] == "m.room.name").collect::<Vec<_>>();
    assert_eq!((name.len(), &name[0]["content"]["name"]), (1, &json!("Lobby")));
    join(&rooms, &room, bob()).await;
    assert_eq!(name_for(&rooms, &room, bob()).await.unwrap(), "secret");
    let absent = StateEventRequest {
        room_id: room.id.clone(),
        event_type: "m.room.topic".to_owned(),
        state_key: String::new(),
        whole: true,
    };
    assert_eq!(status(&members::state_event(&rooms, asker(bob()), absent).await), 404);
}

#[tokio::test]
async fn who_forgot_a_room_reads_nothing() {
    let rooms = rooms();
    let room = make(&rooms, request(Preset::Public)).await;
    join(&rooms, &room, bob()).await;
    let id = say(&rooms, &room, "hi").await;
    rooms.leave(&room, own(bob())).await.unwrap();
    let asked = || event(&rooms, asker(bob()), room.id.clone(), id.clone());
    assert_eq!(status(&asked().await), 200);
    rooms.forget(&room, &bob()).await.unwrap();
    assert_eq!(status(&asked().await), 404);
    assert_eq!(status(&messages(&rooms, asker(bob()), backward(&room, 10)).await), 403);
}

#[tokio::test]
async fn members_are_told_as_of_then_and_by_membership() {
    let rooms = rooms();
    let room = make(&rooms, request(Preset::Public)).await;
    join(&rooms, &room, bob()).await;
    let then = messages(&rooms, asker(alice()), backward(&room, 1)).await.unwrap().start;
    let carol = owned_user_id!("@carol:hs1");
    join(&rooms, &room, carol.clone()).await;
    rooms.leave(&room, own(bob())).await.unwrap();
    let request = MembersRequest {
        room_id: room.id.clone(),
        at: None,
        membership: None,
        not_membership: None,
    };
    let list = async |user: OwnedUserId, request: MembersRequest| {
        let members = members::members(&rooms, asker(user), request).await.unwrap();
        let mut names: Vec<_> = members
            .iter()
            .map(|event| value(event)["state_key"].as_str().unwrap().to_owned())
            .collect();
        names.sort();
        names.join(" ")
    };
    let all = "@alice:hs1 @bob:hs1 @carol:hs1";
    assert_eq!(list(alice(), request.clone()).await, all);
    let join = MembersRequest { membership: Some(Membership::Join), ..request.clone() };
    assert_eq!(list(alice(), join.clone()).await, "@alice:hs1 @carol:hs1");
    let present = MembersRequest { not_membership: Some(Membership::Leave), ..request.clone() };
    assert_eq!(list(alice(), present.clone()).await, "@alice:hs1 @carol:hs1");
    let then = MembersRequest { at: Some(then), ..present };
    assert_eq!(list(alice(), then.clone()).await, "@alice:hs1 @bob:hs1");
    // Who left reads the members at the leave, whatever place is asked for.
    let dave = owned_user_id!("@dave:hs1");
    crate::rooms::history::tests::join(&rooms, &room, dave).await;
    assert_eq!(list(bob(), join.clone()).await, "@alice:hs1 @carol:hs1");
    let at = Some(PaginationToken::live(kv::Position::MAX));
    assert_eq!(list(bob(), MembersRequest { at, ..join }).await, "@alice:hs1 @carol:hs1");
    assert_eq!(list(bob(), then).await, "@alice:hs1 @bob:hs1");
}

#[tokio::test]
async fn joined_members_and_rooms_are_the_current_ones() {
    let rooms = rooms();
    let room = make(&rooms, request(Preset::Public)).await;
    let other = make(&rooms, request(Preset::Public)).await;
    let profile = MemberProfile { displayname: Some("Bob".to_owned()), avatar_url: None };
    rooms.join(&room, Change::own(bob(), profile.clone(), None)).await.unwrap();
    join(&rooms, &other, bob()).await;
    rooms.leave(&other, own(bob())).await.unwrap();
    let joined = members::joined_members(&rooms, alice(), room.id.clone()).await.unwrap();
    assert_eq!(joined.len(), 2);
    assert_eq!(joined[&bob()], profile);
    let rooms_of_bob = members::joined_rooms(&rooms, bob()).await.unwrap();
    assert_eq!(rooms_of_bob, std::slice::from_ref(&room.id));
    assert_eq!(members::joined_rooms(&rooms, alice()).await.unwrap().len(), 2);
}

#[tokio::test]
async fn lazy_loading_tells_the_members_who_sent_something() {
    let rooms = rooms();
    let room = make(&rooms, request(Preset::Public)).await;
    for n in 0..5 {
        let user = OwnedUserId::try_from(format!("@user{n}:hs1")).unwrap();
        join(&rooms, &room, user).await;
    }
    say(&rooms, &room, "hi").await;
    let lazy = filter(json!({ "lazy_load_members": true, "types": ["m.room.message"] }));
    let request = MessagesRequest { filter: lazy, ..backward(&room, 10) };
    let page = messages(&rooms, asker(alice()), request).await.unwrap();
    assert_eq!((page.chunk.len(), page.state.len()), (1, 1));
    assert_eq!(value(&page.state[0])["state_key"], alice().as_str());
}

//! After any history a client of `/sync` and one of sliding sync know the same.
//!
//! The one follows step by step; the other looks through windows that grow and shrink, loses
//! answers and asks again. In the end both have the same rooms, state, newest events, counts,
//! account data and receipts, and got the same messages for all devices in the same order.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    harness::{Client, TestServer, encode, ids, text},
    sliding::{pos, slide},
    to_device::put,
};

const ROOMS: usize = 4;

/// A step of a history. Users and rooms are numbers; what is not allowed is refused and changes
/// nothing.
#[derive(Clone, Debug)]
enum Step {
    Say(usize, usize),
    Set(usize, usize, &'static str),
    Member(usize, usize, &'static str),
    Read(usize, usize),
    Data(Option<usize>, u8),
    Redact(usize),
    Tell(usize),
    Sync,
    Slide { range_end: usize, limit: usize, open: Option<usize>, twice: bool },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (user, room) = (0..3_usize, 0..ROOMS);
    let pair = || (user.clone(), room.clone());
    let kinds = prop_oneof![Just("m.room.topic"), Just("m.room.name"), Just("org.example")];
    let verbs = prop_oneof![
        5 => Just("join"),
        2 => Just("leave"),
        2 => Just("invite"),
        1 => Just("kick"),
        1 => Just("ban"),
        1 => Just("unban"),
        1 => Just("forget"),
        1 => Just("knock"),
    ];
    let slide = (0..ROOMS, 1..6_usize, proptest::option::of(room.clone()), any::<bool>());
    let step = prop_oneof![
        6 => pair().prop_map(|(user, room)| Step::Say(user, room)),
        3 => (pair(), kinds).prop_map(|((user, room), kind)| Step::Set(user, room, kind)),
        6 => (pair(), verbs).prop_map(|((user, room), verb)| Step::Member(user, room, verb)),
        2 => pair().prop_map(|(user, room)| Step::Read(user, room)),
        2 => (proptest::option::of(room.clone()), any::<u8>())
            .prop_map(|(room, value)| Step::Data(room, value)),
        1 => room.clone().prop_map(Step::Redact),
        3 => user.clone().prop_map(Step::Tell),
        3 => Just(Step::Sync),
        5 => slide.prop_map(|(range_end, limit, open, twice)| Step::Slide { range_end, limit, open, twice }),
    ];
    proptest::collection::vec(step, 20..70)
}

/// What a client knows of a room that its user has joined.
#[derive(Clone, Debug, Default, PartialEq)]
struct Room {
    state: BTreeMap<(String, String), String>,
    timeline: Vec<String>,
    name: Option<String>,
    joined: u64,
    invited: u64,
    unread: u64,
}

/// What a client knows.
#[derive(Debug, Default)]
struct Known {
    joined: BTreeMap<String, Room>,
    invites: BTreeMap<String, Value>,
    knocks: BTreeMap<String, Value>,
    data: BTreeMap<(String, String), Value>,
    receipts: BTreeMap<(String, String), String>,
    messages: Vec<Value>,
    inbox: Option<String>,
    token: Option<String>,
}

fn list(events: &Value) -> impl Iterator<Item = &Value> {
    events.as_array().into_iter().flatten()
}

impl Room {
    fn take_state(&mut self, events: &Value) {
        for event in list(events) {
            let key = (text(&event["type"]), text(&event["state_key"]));
            if key.0 == "m.room.name" {
                self.name = event["content"]["name"].as_str().map(str::to_owned);
            }
            self.state.insert(key, text(&event["event_id"]));
        }
    }
}

impl Known {
    fn forget(&mut self, room: &str) {
        self.joined.remove(room);
        self.invites.remove(room);
        self.knocks.remove(room);
    }

    fn take_data(&mut self, room: &str, events: &Value) {
        for event in list(events) {
            let key = (room.to_owned(), text(&event["type"]));
            self.data.insert(key, event["content"].clone());
        }
    }

    fn take_receipts(&mut self, room: &str, event: &Value) {
        for (event_id, kinds) in event["content"].as_object().into_iter().flatten() {
            for user in kinds["m.read"].as_object().into_iter().flat_map(|users| users.keys()) {
                self.receipts.insert((room.to_owned(), user.clone()), event_id.clone());
            }
        }
    }

    async fn sync(&mut self, client: &Client<'_>) {
        let query = "timeout=0&use_state_after=true";
        let told = client.sync_with(self.token.as_deref(), query).await;
        self.token = Some(text(&told["next_batch"]));
        self.take_data("", &told["account_data"]["events"]);
        self.messages.extend(list(&told["to_device"]["events"]).cloned());
        let rooms = |section: &str| told["rooms"][section].as_object().cloned().unwrap_or_default();
        for (id, told) in rooms("leave") {
            self.forget(&id);
            drop(told);
        }
        for (section, field) in [("invite", "invite_state"), ("knock", "knock_state")] {
            for (id, told) in rooms(section) {
                self.forget(&id);
                let known = if section == "invite" { &mut self.invites } else { &mut self.knocks };
                known.insert(id, told[field]["events"].clone());
            }
        }
        for (id, told) in rooms("join") {
            self.invites.remove(&id);
            self.knocks.remove(&id);
            self.take_data(&id, &told["account_data"]["events"]);
            for event in list(&told["ephemeral"]["events"]) {
                self.take_receipts(&id, event);
            }
            let room = self.joined.entry(id).or_default();
            room.take_state(&told["state_after"]["events"]);
            let events = ids(&told["timeline"]["events"]);
            if told["timeline"]["limited"] == json!(true) {
                room.timeline.clear();
            }
            room.timeline.extend(events);
            let summary = &told["summary"];
            let count = |field: &str, before: u64| summary[field].as_u64().unwrap_or(before);
            room.joined = count("m.joined_member_count", room.joined);
            room.invited = count("m.invited_member_count", room.invited);
            room.unread = told["unread_notifications"]["notification_count"].as_u64().unwrap();
        }
    }

    fn take_slide(&mut self, told: &Value, own: &str) {
        self.token = Some(pos(told));
        let extensions = &told["extensions"];
        self.messages.extend(list(&extensions["to_device"]["events"]).cloned());
        self.inbox = Some(text(&extensions["to_device"]["next_batch"]));
        self.take_data("", &extensions["account_data"]["global"]);
        for (id, events) in extensions["account_data"]["rooms"].as_object().unwrap() {
            self.take_data(id, events);
        }
        for (id, event) in extensions["receipts"]["rooms"].as_object().unwrap() {
            self.take_receipts(id, event);
        }
        for (id, told) in told["rooms"].as_object().unwrap() {
            self.take_room(id, told, own);
        }
    }

    /// As a client does that reads what it is to a room from the state alone.
    fn take_room(&mut self, id: &str, told: &Value, own: &str) {
        if let Some(stripped) = told.get("invite_state") {
            self.forget(id);
            let knocks = list(stripped).any(|event| {
                event["state_key"] == json!(own) && event["content"]["membership"] == json!("knock")
            });
            let known = if knocks { &mut self.knocks } else { &mut self.invites };
            known.insert(id.to_owned(), stripped.clone());
            return;
        }
        let own = list(&told["required_state"]).find(|event| {
            event["type"] == json!("m.room.member") && event["state_key"] == json!(own)
        });
        let membership = own.and_then(|event| event["content"]["membership"].as_str());
        if matches!(membership, Some("leave" | "ban")) {
            self.forget(id);
            return;
        }
        self.invites.remove(id);
        self.knocks.remove(id);
        let initial = told["initial"] == json!(true);
        if initial {
            self.joined.remove(id);
        }
        assert!(
            initial || self.joined.contains_key(id),
            "news of a room that was never told: {told}"
        );
        let room = self.joined.entry(id.to_owned()).or_default();
        let name = room.name.clone();
        room.take_state(&told["required_state"]);
        // The name is told by itself.
        room.name = told.get("name").map_or(name, |name| name.as_str().map(str::to_owned));
        let whole =
            told["limited"] == json!(true) || told["unstable_expanded_timeline"] == json!(true);
        if whole {
            room.timeline.clear();
        }
        room.timeline.extend(ids(&told["timeline"]));
        room.joined = told["joined_count"].as_u64().unwrap_or(room.joined);
        room.invited = told["invited_count"].as_u64().unwrap_or(room.invited);
        room.unread = told["notification_count"].as_u64().unwrap_or(room.unread);
    }
}

/// A server with three users, one of whom has two devices, and four rooms of the first.
struct World<'a> {
    users: [Client<'a>; 3],
    /// The second user's device that uses sliding sync.
    second: Client<'a>,
    sent: usize,
    rooms: Vec<String>,
    last_events: Vec<Option<String>>,
    /// What the second user's clients know.
    classic: Known,
    sliding: Known,
    required: Value,
    /// The rooms in which something was redacted: counts may follow late.
    redacted: [bool; ROOMS],
}

impl World<'_> {
    async fn step(&mut self, step: &Step) {
        match *step {
            Step::Say(user, room) => {
                let content = json!({ "msgtype": "m.text", "body": "hi" });
                let id = &self.rooms[room];
                let sent = self.users[user].try_send(id, "m.room.message", content).await;
                if let Some(event) = sent.body["event_id"].as_str() {
                    self.last_events[room] = Some(event.to_owned());
                }
            }
            Step::Set(user, room, kind) => {
                let value = text(&json!(format!("{:?}", self.last_events[room])));
                let content = match kind {
                    "m.room.name" if value.len().is_multiple_of(2) => json!({}),
                    "m.room.name" => json!({ "name": value }),
                    _ => json!({ "topic": value }),
                };
                self.users[user].try_set(&self.rooms[room], kind, content).await;
            }
            Step::Member(user, room, verb) => {
                let (id, client) = (&self.rooms[room], &self.users[user]);
                match verb {
                    "join" | "leave" | "forget" => client.act(id, verb).await,
                    "knock" => client.post(&format!("v3/knock/{id}"), json!({})).await,
                    _ => self.users[0].act_on(id, verb, client).await,
                };
            }
            Step::Read(user, room) => {
                if let Some(event) = &self.last_events[room] {
                    let id = &self.rooms[room];
                    let path = format!("v3/rooms/{id}/receipt/m.read/{}", encode(event));
                    self.users[user].post(&path, json!({})).await;
                }
            }
            Step::Data(room, value) => {
                let own = self.users[1].id();
                let place =
                    room.map_or_else(String::new, |room| format!("rooms/{}/", self.rooms[room]));
                let path = format!("v3/user/{own}/{place}account_data/org.example.{}", value % 3);
                self.users[1].put(&path, json!({ "value": value })).await;
            }
            Step::Redact(room) => {
                self.redacted[room] = true;
                if let Some(event) = &self.last_events[room] {
                    self.users[0].try_redact(&self.rooms[room], event).await;
                }
            }
            Step::Tell(user) => {
                self.sent += 1;
                let messages = json!({ self.users[1].id(): { "*": { "n": self.sent } } });
                put(&self.users[user], &self.sent.to_string(), messages).await.ok();
            }
            Step::Sync => self.classic.sync(&self.users[1].clone()).await,
            Step::Slide { range_end, limit, open, twice } => {
                self.slide((range_end, limit, open), twice).await;
            }
        }
    }

    async fn slide(
        &mut self,
        (range_end, limit, open): (usize, usize, Option<usize>),
        twice: bool,
    ) {
        let bob = self.second.clone();
        let mut to_device = json!({ "enabled": true, "limit": 3 });
        if let Some(inbox) = &self.sliding.inbox {
            to_device["since"] = json!(inbox);
        }
        let list = json!({
            "ranges": [[0, range_end]], "timeline_limit": limit, "required_state": self.required,
        });
        let mut body = json!({
            "lists": { "all": list },
            "extensions": {
                "account_data": { "enabled": true },
                "receipts": { "enabled": true },
                "to_device": to_device,
            },
        });
        if let Some(open) = open {
            let wish = json!({ "timeline_limit": 10, "required_state": self.required });
            body["room_subscriptions"] = json!({ &self.rooms[open]: wish });
        }
        // The first answer gets lost.
        if twice {
            slide(&bob, self.sliding.token.as_deref(), &body).await;
        }
        let told = slide(&bob, self.sliding.token.as_deref(), &body).await;
        self.sliding.take_slide(&told, bob.id());
    }

    /// Both clients catch up and are compared.
    async fn compare(&mut self) {
        self.classic.sync(&self.users[1].clone()).await;
        self.slide((99, 3, None), false).await;
        // Messages come in pages of three here.
        while self.sliding.messages.len() < self.classic.messages.len() {
            let before = self.sliding.messages.len();
            self.slide((99, 3, None), false).await;
            assert!(self.sliding.messages.len() > before, "messages got lost");
        }
        let (classic, sliding) = (&self.classic, &self.sliding);
        assert_eq!(classic.messages, sliding.messages);
        assert_eq!(classic.messages.len(), self.sent);
        let rooms = |known: &Known| known.joined.keys().cloned().collect::<Vec<_>>();
        assert_eq!(rooms(classic), rooms(sliding), "joined rooms");
        assert_eq!(classic.invites, sliding.invites);
        assert_eq!(classic.knocks, sliding.knocks);
        for (id, expected) in &classic.joined {
            let found = &sliding.joined[id];
            let count = expected.timeline.len().min(found.timeline.len());
            let tail = |room: &Room| room.timeline[room.timeline.len() - count..].to_vec();
            assert!(count > 0, "{id} has no event");
            assert_eq!(tail(expected), tail(found), "the newest events of {id}");
            let expected_state: BTreeMap<_, _> = expected
                .state
                .iter()
                .filter(|((kind, _), _)| {
                    self.required == json!([["*", "*"]]) || kind != "org.example"
                })
                .collect();
            assert_eq!(expected_state, found.state.iter().collect(), "the state of {id}");
            let place = self.rooms.iter().position(|room| room == id).unwrap();
            let unread = |room: &Room| (!self.redacted[place]).then_some(room.unread);
            let facts = |room: &Room| (room.name.clone(), room.joined, room.invited, unread(room));
            assert_eq!(facts(expected), facts(found), "{id}");
            let of_room = |known: &Known| {
                let data = known.data.iter().filter(|((room, _), _)| room == id);
                let data: Vec<_> = data.map(|(key, value)| (key.clone(), value.clone())).collect();
                let receipts = known.receipts.iter().filter(|((room, _), _)| room == id);
                (data, receipts.map(|(key, at)| (key.clone(), at.clone())).collect::<Vec<_>>())
            };
            assert_eq!(of_room(classic), of_room(sliding), "{id}");
        }
        let global = |known: &Known| {
            let data = known.data.iter().filter(|((room, _), _)| room.is_empty());
            data.map(|(key, value)| (key.clone(), value.clone())).collect::<Vec<_>>()
        };
        assert_eq!(global(classic), global(sliding));
    }
}

async fn run(steps: Vec<Step>, all_state: bool) {
    let server = TestServer::new().await;
    let users =
        [server.client("alice").await, server.client("bob").await, server.client("carol").await];
    let second = server.device_of("bob").await;
    let mut rooms = Vec::new();
    for preset in ["public_chat", "public_chat", "private_chat", "public_chat"] {
        let rule = json!({ "type": "m.room.join_rules", "content": { "join_rule": "knock" } });
        let state = if preset == "private_chat" { json!([rule]) } else { json!([]) };
        let wanted = json!({ "preset": preset, "initial_state": state });
        rooms.push(users[0].create_room(wanted).await);
    }
    for room in [&rooms[0], &rooms[1], &rooms[3]] {
        users[1].join(room).await;
    }
    users[2].join(&rooms[0]).await;
    let every = [
        "create",
        "join_rules",
        "power_levels",
        "history_visibility",
        "guest_access",
        "name",
        "topic",
        "member",
    ];
    let every: Vec<Value> =
        every.iter().map(|kind| json!([format!("m.room.{kind}"), "*"])).collect();
    let required = if all_state { json!([["*", "*"]]) } else { json!(every) };
    let last_events = vec![None; ROOMS];
    let (classic, sliding) = Default::default();
    let redacted = [false; ROOMS];
    let sent = 0;
    let mut world =
        World { users, second, sent, rooms, last_events, classic, sliding, required, redacted };
    for (number, step) in steps.iter().enumerate() {
        world.step(step).await;
        if number % 17 == 16 {
            world.compare().await;
        }
    }
    world.compare().await;
}

/// How many histories are tried: `PROPTEST_CASES`, else a few.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(24)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn both_syncs_tell_the_same_truth(steps in steps(), all_state in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(steps, all_state));
    }
}

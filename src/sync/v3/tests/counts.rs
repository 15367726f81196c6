//! Unread counts against the plain evaluation of every event by every user's rules.

use std::collections::{BTreeMap, HashMap};

use proptest::{prelude::*, test_runner::TestRunner};
use ruma::{
    EventId, OwnedEventId, UserId,
    events::receipt::ReceiptThread,
    push::{
        Action, NewConditionalPushRule, NewPatternedPushRule, NewPushRule, NewSimplePushRule,
        RuleKind, Ruleset,
    },
};

use serde_json::value::RawValue;

use super::*;
use crate::{
    ephemeral::{NewReceipt, Thread, reading::readable_place},
    push::{
        Query, Unread,
        rules::{Context, EventParts, SenderLevel, Subject, actions, verdict},
        unread::UnreadCounts,
    },
    storage::{rows::push::Counts, schema::ephemeral::ReceiptKind},
    users::RulePlace,
};

/// What happens in a history.
#[derive(Clone, Debug)]
enum Step {
    /// Somebody sends something: who, what, into which thread (an earlier event), whom it mentions.
    Send(usize, Kind, Option<usize>, Option<usize>),
    /// Somebody reads up to an event, in which sense.
    Read(usize, usize, Sense),
    Redact(usize),
    Join(usize),
    Leave(usize),
    /// Somebody reads everything and changes their rules.
    Rules(usize, Change),
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Text,
    Cake,
    Notice,
    Edit,
    Room,
    Reaction,
}

#[derive(Clone, Copy, Debug)]
enum Sense {
    Whole,
    Private,
    Threaded,
}

#[derive(Clone, Copy, Debug)]
enum RuleChange {
    Keyword,
    Quiet,
    MuteSender,
    Ignore,
    Reactions,
}

type Change = RuleChange;

const USERS: usize = 4;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let kind = prop_oneof![
        4 => Just(Kind::Text),
        1 => Just(Kind::Cake),
        1 => Just(Kind::Notice),
        1 => Just(Kind::Edit),
        1 => Just(Kind::Room),
        1 => Just(Kind::Reaction),
    ];
    let sense = prop_oneof![Just(Sense::Whole), Just(Sense::Private), Just(Sense::Threaded)];
    let change = prop_oneof![
        Just(RuleChange::Keyword),
        Just(RuleChange::Quiet),
        Just(RuleChange::MuteSender),
        Just(RuleChange::Ignore),
        Just(RuleChange::Reactions),
    ];
    let user = 0..USERS;
    let maybe = |most: usize| prop_oneof![2 => Just(None), 1 => (0..most).prop_map(Some)];
    let step = prop_oneof![
        12 => (user.clone(), kind, maybe(40), maybe(USERS)).prop_map(|(u, k, t, m)| Step::Send(u, k, t, m)),
        3 => (user.clone(), 0..40_usize, sense).prop_map(|(u, e, s)| Step::Read(u, e, s)),
        2 => (0..40_usize).prop_map(Step::Redact),
        1 => (1..USERS).prop_map(Step::Join),
        1 => (1..USERS).prop_map(Step::Leave),
        1 => (user, change).prop_map(|(u, c)| Step::Rules(u, c)),
    ];
    prop::collection::vec(step, 1..50)
}

/// What the plain evaluation knows.
struct Model {
    events: Vec<Told>,
    joined: [Option<usize>; USERS],
    rules: Vec<Ruleset>,
    ignored: [Vec<usize>; USERS],
    /// Up to where each user has read, in all threads and in each, as numbers of events.
    read: Vec<HashMap<String, usize>>,
}

struct Told {
    id: OwnedEventId,
    thread: String,
    /// Whether it relates to another event: then no thread begins at it.
    relates: bool,
    redacted: bool,
    /// What it is for each user.
    counts: [Counts; USERS],
}

impl Model {
    fn unread(&self, user: usize) -> Unread {
        let mut by_thread: BTreeMap<&str, Counts> = BTreeMap::new();
        let start = self.joined[user].unwrap_or(usize::MAX);
        for (index, event) in self.events.iter().enumerate().skip(start.min(self.events.len())) {
            let read = |thread: &str| self.read[user].get(thread).copied().unwrap_or(0);
            let is_read = index < read("").max(read(&event.thread));
            if !is_read && !event.redacted {
                let counts = by_thread.entry(&event.thread).or_default();
                *counts = *counts + event.counts[user];
            }
        }
        let mut unread = Unread::default();
        for (thread, counts) in by_thread {
            let counts = UnreadCounts {
                highlight_count: u64::try_from(counts.highlight).unwrap(),
                notification_count: u64::try_from(counts.notify).unwrap(),
            };
            unread.highlight_count += counts.highlight_count;
            unread.notification_count += counts.notification_count;
            if thread == "main" {
                unread.main = counts;
            } else if counts != UnreadCounts::default() {
                unread.threads.insert(OwnedEventId::try_from(thread).unwrap(), counts);
            }
        }
        unread
    }

    fn mark(&mut self, user: usize, thread: &str, upto: usize) {
        let read = self.read[user].entry(thread.to_owned()).or_default();
        *read = (*read).max(upto);
    }
}

struct World {
    server: Server,
    room: Room,
    clients: Vec<Client>,
    model: Model,
}

impl World {
    async fn new() -> Self {
        let server = Server::new();
        let mut clients = Vec::new();
        for name in ["alice", "bob", "carol", "dora"] {
            clients.push(server.client(name).await);
        }
        let room = server.room(&clients[0], Preset::Public).await;
        let rules = clients.iter().map(|client| Ruleset::server_default(&client.user_id)).collect();
        let model = Model {
            events: Vec::new(),
            joined: [Some(0), None, None, None],
            rules,
            ignored: Default::default(),
            read: vec![HashMap::new(); USERS],
        };
        Self { server, room, clients, model }
    }

    async fn apply(&mut self, step: &Step) {
        match step {
            Step::Send(user, kind, thread, mention) => {
                self.send(*user, *kind, *thread, *mention).await;
            }
            Step::Read(user, event, sense) => self.read(*user, *event, *sense).await,
            Step::Redact(event) => self.redact(*event).await,
            Step::Join(user) if self.model.joined[*user].is_none() => {
                self.server.join(&self.room, &self.clients[*user]).await;
                self.model.joined[*user] = Some(self.model.events.len());
            }
            Step::Leave(user) if self.model.joined[*user].is_some() => {
                self.server.leave(&self.room, &self.clients[*user]).await;
                self.model.joined[*user] = None;
            }
            Step::Rules(user, change) => self.change(*user, *change).await,
            Step::Join(_) | Step::Leave(_) => {}
        }
    }

    async fn send(&mut self, user: usize, kind: Kind, root: Option<usize>, mention: Option<usize>) {
        if self.model.joined[user].is_none() {
            return;
        }
        let root = root.and_then(|root| self.model.events.get(root));
        // A thread begins at an event of the main timeline.
        let root = root.filter(|root| root.thread == "main" && !root.redacted);
        let begins_thread = !matches!(kind, Kind::Edit | Kind::Reaction);
        let root = root.filter(|root| !begins_thread || !root.relates);
        let root = root.map(|root| root.id.clone());
        let mut content = match kind {
            Kind::Notice => json!({ "msgtype": "m.notice", "body": "note" }),
            Kind::Cake => json!({ "msgtype": "m.text", "body": "a Cake!" }),
            _ => json!({ "msgtype": "m.text", "body": "hi" }),
        };
        let mut thread = "main".to_owned();
        if let Some(root) = &root {
            let rel_type = match kind {
                Kind::Edit => "m.replace",
                Kind::Reaction => "m.annotation",
                _ => {
                    thread = root.to_string();
                    "m.thread"
                }
            };
            content["m.relates_to"] = json!({ "rel_type": rel_type, "event_id": root });
        }
        let mut mentions = json!({});
        if let Some(mention) = mention {
            mentions["user_ids"] = json!([self.clients[mention].user_id]);
        }
        if matches!(kind, Kind::Room) {
            mentions["room"] = json!(true);
        }
        content["m.mentions"] = mentions;
        let event_type =
            if matches!(kind, Kind::Reaction) { "m.reaction" } else { "m.room.message" };
        let client = self.clients[user].clone();
        let sent = self.server.send(&self.room, &client, (event_type, None), content.clone()).await;
        let raw = to_raw_value(&content).unwrap();
        let (counts, notifies_others) = self.judge(user, &sent, (event_type, &raw));
        let (thread_of, relates) = (thread.clone(), root.is_some());
        let told = Told { id: sent, thread: thread_of, relates, redacted: false, counts };
        self.model.events.push(told);
        if notifies_others {
            let upto = self.model.events.len();
            self.model.mark(user, &thread, upto);
        }
    }

    /// What an event is for each user, and whether it notifies users with the default rules.
    fn judge(
        &self,
        sender: usize,
        event_id: &EventId,
        (event_type, told): (&str, &RawValue),
    ) -> ([Counts; USERS], bool) {
        let subject = Subject::new(EventParts {
            event_id,
            room_id: &self.room.id,
            sender: &self.clients[sender].user_id,
            event_type,
            state_key: None,
            origin_server_ts: 1,
            content: told,
        })
        .unwrap();
        let level = if sender == 0 { None } else { Some(0) };
        let level = SenderLevel { level, needed: BTreeMap::new() };
        let judge = |rules: &Ruleset, user_id: &UserId| {
            let joined = self.model.joined.iter().flatten().count() as u64;
            let context = Context {
                room_id: &self.room.id,
                user_id,
                joined_members: joined,
                display_name: None,
                sender: &level,
            };
            verdict(actions(rules, &subject, &context))
        };
        let mut counts = [Counts::ZERO; USERS];
        for (other, count) in counts.iter_mut().enumerate() {
            let is_there = self.model.joined[other].is_some();
            if is_there && !self.model.ignored[other].contains(&sender) {
                *count = judge(&self.model.rules[other], &self.clients[other].user_id);
            }
        }
        let nobody = ruma::user_id!("@nobody:elsewhere");
        (counts, judge(&Ruleset::server_default(nobody), nobody).notify > 0)
    }

    async fn read(&mut self, user: usize, event: usize, sense: Sense) {
        let Some(told) = self.model.events.get(event) else { return };
        if self.model.joined[user].is_none_or(|joined| event < joined) {
            return;
        }
        let thread = match sense {
            Sense::Threaded if told.thread == "main" => ReceiptThread::Main,
            Sense::Threaded => ReceiptThread::Thread(told.thread.clone().try_into().unwrap()),
            _ => ReceiptThread::Unthreaded,
        };
        if told.redacted {
            // Its relation is gone with its content, and with it the thread.
            return;
        }
        let (id, named) = (told.id.clone(), told.thread.clone());
        let kind = match sense {
            Sense::Private => ReceiptKind::ReadPrivate,
            _ => ReceiptKind::Read,
        };
        self.receipt(user, &id, kind, &thread).await;
        let key = if matches!(sense, Sense::Threaded) { named } else { String::new() };
        self.model.mark(user, &key, event + 1);
    }

    async fn receipt(&self, user: usize, id: &EventId, kind: ReceiptKind, thread: &ReceiptThread) {
        let thread = Thread::from_request(thread).unwrap();
        let user_id = &self.clients[user].user_id;
        let rooms = &self.server.rooms;
        let place = readable_place(rooms, &self.room, user_id, (id, &thread)).await.unwrap();
        let (event_id, ts) = (id.to_owned(), rooms.clock().now());
        let receipt = NewReceipt { kind, thread, event_id, place, ts };
        self.server.receipts.set(self.room.nid, user_id, vec![receipt]).await.unwrap();
    }

    async fn redact(&mut self, event: usize) {
        let Some(told) = self.model.events.get_mut(event) else { return };
        told.redacted = true;
        let (id, alice) = (told.id.clone(), self.clients[0].user_id.clone());
        self.server.rooms.redact(&self.room, alice, (&id, None), None).await.unwrap();
    }

    /// Reads everything first: what was counted before is not counted again.
    async fn change(&mut self, user: usize, change: RuleChange) {
        let upto = self.model.events.len();
        if self.model.joined[user].is_some_and(|joined| joined < upto) {
            let id = self.model.events[upto - 1].id.clone();
            self.receipt(user, &id, ReceiptKind::Read, &ReceiptThread::Unthreaded).await;
            self.model.mark(user, "", upto);
            assert_eq!(self.unread(user).await, Unread::default());
        }
        let user_id = self.clients[user].user_id.clone();
        let other = (user + 1) % USERS;
        let rules = self.server.users.push_rules();
        let loud = vec![Action::Notify];
        let place = RulePlace::default();
        let set = |rule| rules.set(&user_id, rule, &place);
        match change {
            RuleChange::Keyword => {
                let rule = NewPatternedPushRule::new("cake".into(), "c?ke".into(), loud);
                set(NewPushRule::Content(rule)).await.unwrap();
            }
            RuleChange::Quiet => {
                rules
                    .set_enabled(&user_id, RuleKind::Underride, ".m.rule.message", false)
                    .await
                    .unwrap();
            }
            RuleChange::MuteSender => {
                let other = self.clients[other].user_id.clone();
                let rule = NewSimplePushRule::new(other, Vec::new());
                set(NewPushRule::Sender(rule)).await.unwrap();
            }
            RuleChange::Ignore => {
                let content =
                    json!({ "ignored_users": { self.clients[other].user_id.as_str(): {} } });
                let content = to_raw_value(&content).unwrap();
                let data = self.server.users.account_data();
                data.set(&user_id, None, "m.ignored_user_list", &content).await.unwrap();
                self.model.ignored[user] = vec![other];
            }
            RuleChange::Reactions => {
                let condition = ruma::push::EventMatchConditionData::new(
                    "type".to_owned(),
                    "m.reaction".to_owned(),
                );
                let rule =
                    NewConditionalPushRule::new("reactions".into(), vec![condition.into()], loud);
                set(NewPushRule::Override(rule)).await.unwrap();
            }
        }
        self.model.rules[user] = rules.get(&user_id).await.unwrap();
    }

    async fn unread(&self, user: usize) -> Unread {
        let (rooms, room) = (self.server.rooms.clone(), self.room.clone());
        let user_id = self.clients[user].user_id.clone();
        let store = self.server.store.clone();
        store
            .read(move |reader| {
                let query = Query {
                    user_id: &user_id,
                    room: room.nid,
                    room_id: &room.id,
                    joined: Position::ZERO,
                    now: reader.position(),
                };
                rooms.push().unread(reader, query)
            })
            .await
            .unwrap()
    }

    async fn check(&self, step: &Step) {
        for user in 0..USERS {
            if self.model.joined[user].is_some() {
                let expected = self.model.unread(user);
                assert_eq!(self.unread(user).await, expected, "user {user} after {step:?}");
            }
        }
    }
}

#[test]
fn counts_are_as_by_plain_evaluation() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config =
        ProptestConfig { failure_persistence: None, cases: 192, ..ProptestConfig::default() };
    let run = |steps: Vec<Step>| {
        runtime.block_on(async {
            let mut world = World::new().await;
            for step in &steps {
                world.apply(step).await;
                world.check(step).await;
            }
        });
        Ok(())
    };
    TestRunner::new(config).run(&steps(), run).unwrap();
}

#[tokio::test]
async fn an_event_costs_the_same_however_many_have_joined() {
    let server = Server::new();
    let alice = server.client("alice").await;
    let room = server.room(&alice, Preset::Public).await;
    let mut puts = Vec::new();
    for number in 0..40 {
        if number == 1 || number == 39 {
            let before = server.store.counters().puts;
            server.say(&room, &alice, "hi").await;
            puts.push(server.store.counters().puts - before);
        }
        let member = server.client(&format!("member{number}")).await;
        server.join(&room, &member).await;
    }
    assert_eq!(puts[0], puts[1]);
    let before = server.store.counters().puts;
    let content = json!({
        "msgtype": "m.text",
        "body": "hi",
        "m.mentions": { "user_ids": ["@member3:hs1", "@member4:hs1", "@nobody:hs1"] },
    });
    server.send(&room, &alice, ("m.room.message", None), content).await;
    // One row for each of those who are mentioned and here.
    assert_eq!(server.store.counters().puts - before, puts[0] + 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn events_that_are_sent_at_once_are_all_counted() {
    let world = World::new().await;
    let (server, room) = (&world.server, &world.room);
    let [alice, bob] = [&world.clients[0], &world.clients[1]];
    server.join(room, bob).await;
    let thread = server.say(room, alice, "root").await;
    let content = |number: usize| {
        let mut content = json!({ "msgtype": "m.text", "body": "hi" });
        if number.is_multiple_of(2) {
            content["m.mentions"] = json!({ "user_ids": [bob.user_id] });
        }
        if number.is_multiple_of(3) {
            content["m.relates_to"] = json!({ "rel_type": "m.thread", "event_id": thread });
        }
        content
    };
    let sends =
        (0..180).map(|number| server.send(room, alice, ("m.room.message", None), content(number)));
    futures::future::join_all(sends).await;
    let unread = world.unread(1).await;
    let counts =
        |highlight_count, notification_count| UnreadCounts { highlight_count, notification_count };
    assert_eq!(unread.whole(), counts(90, 181));
    assert_eq!(unread.main, counts(60, 121));
    assert_eq!(unread.threads, BTreeMap::from([(thread, counts(30, 60))]));
}

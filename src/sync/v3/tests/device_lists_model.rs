//! Device lists against a model: random histories of rooms and of changed devices, and clients that
//! go on from new and from old tokens.

use std::collections::{BTreeMap, BTreeSet};

use kv::{Batch, CommitError, Durability};
use proptest::{prelude::*, test_runner::TestRunner};

use super::{device_lists::lists, *};
use crate::encryption::device_lists::{Told, settle};

const USERS: usize = 4;
const ROOMS: usize = 4;

/// What happens in a history.
#[derive(Clone, Debug)]
enum Step {
    /// Somebody makes a room.
    Create(usize),
    Join(usize, usize),
    Leave(usize, usize),
    Forget(usize, usize),
    /// Who does it, to whom, where.
    Invite(usize, usize, usize),
    Kick(usize, usize, usize),
    Ban(usize, usize, usize),
    Unban(usize, usize, usize),
    /// Somebody gets another display name in a room.
    Rename(usize, usize),
    Say(usize, usize),
    /// Somebody's devices begin to change: it is decided whom to wake.
    Begin(usize),
    /// Somebody's devices change; what was decided is what began.
    Change(usize),
    /// The same while they have left a room.
    Away(usize, usize),
    /// Somebody syncs from a token so many answers ago.
    Sync(usize, usize),
    /// Somebody begins anew.
    First(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let user = || 0..USERS;
    let place = || (0..USERS, 0..ROOMS);
    let deed = || (0..USERS, 0..USERS, 0..ROOMS);
    let ago = prop_oneof![4 => Just(0_usize), 2 => 0..6_usize];
    let step = prop_oneof![
        2 => user().prop_map(Step::Create),
        8 => place().prop_map(|(user, room)| Step::Join(user, room)),
        5 => place().prop_map(|(user, room)| Step::Leave(user, room)),
        1 => place().prop_map(|(user, room)| Step::Forget(user, room)),
        3 => deed().prop_map(|(user, target, room)| Step::Invite(user, target, room)),
        1 => deed().prop_map(|(user, target, room)| Step::Kick(user, target, room)),
        1 => deed().prop_map(|(user, target, room)| Step::Ban(user, target, room)),
        1 => deed().prop_map(|(user, target, room)| Step::Unban(user, target, room)),
        1 => place().prop_map(|(user, room)| Step::Rename(user, room)),
        1 => place().prop_map(|(user, room)| Step::Say(user, room)),
        1 => user().prop_map(Step::Begin),
        4 => user().prop_map(Step::Change),
        2 => place().prop_map(|(user, room)| Step::Away(user, room)),
        9 => (user(), ago).prop_map(|(user, ago)| Step::Sync(user, ago)),
        1 => user().prop_map(Step::First),
    ];
    prop::collection::vec(step, 1..60)
}

/// What everybody is to every room.
type Memberships = [[Membership; USERS]; ROOMS];

/// Which version of the devices of each user a client has.
type Known = BTreeMap<usize, u32>;

/// A client after an answer.
#[derive(Clone)]
struct Snapshot {
    token: String,
    /// What one has that forgets whom it need not follow.
    known: Known,
    /// What one has that does not.
    kept: Known,
    memberships: Memberships,
}

/// What an answer was read from: it is read again when more has happened.
struct Past {
    user: usize,
    since: Position,
    news: News,
    told: (Vec<String>, Vec<String>),
    memberships: Memberships,
}

struct World {
    server: Server,
    clients: Vec<Client>,
    rooms: Vec<Room>,
    memberships: Memberships,
    versions: [u32; USERS],
    begun: [Option<(Batch, Told)>; USERS],
    snapshots: [Vec<Snapshot>; USERS],
    past: Vec<Past>,
    renames: usize,
}

fn share(memberships: &Memberships, one: usize, other: usize) -> bool {
    memberships.iter().any(|room| room[one] == Membership::Join && room[other] == Membership::Join)
}

/// Whether `other` came into a room of `one`, to stay or as a guest to be, between two times.
fn came(before: &Memberships, now: &Memberships, one: usize, other: usize) -> bool {
    before.iter().zip(now).any(|(before, now)| {
        let is_there = matches!(now[other], Membership::Join | Membership::Invite);
        let is_new = before[one] != Membership::Join || before[other] != now[other];
        now[one] == Membership::Join && is_there && is_new
    })
}

fn invited(before: &Memberships, now: &Memberships, one: usize, other: usize) -> bool {
    before.iter().zip(now).any(|(before, now)| {
        let is_new = before[one] != Membership::Join || before[other] != Membership::Invite;
        now[one] == Membership::Join && now[other] == Membership::Invite && is_new
    })
}

impl World {
    async fn new() -> Self {
        let server = Server::new();
        let mut clients = Vec::new();
        for name in ["alice", "bob", "carol", "dora"] {
            clients.push(server.client(name).await);
        }
        let mut world = Self {
            server,
            clients,
            rooms: Vec::new(),
            memberships: [[Membership::None; USERS]; ROOMS],
            versions: [0; USERS],
            begun: Default::default(),
            snapshots: Default::default(),
            past: Vec::new(),
            renames: 0,
        };
        world.create(0).await;
        for user in 0..USERS {
            world.first(user).await;
        }
        world
    }

    async fn apply(&mut self, step: &Step) {
        use Membership::{Ban, Invite, Join, Leave};
        match *step {
            Step::Create(user) => self.create(user).await,
            Step::Join(user, room) => self.change(user, user, room, Join).await,
            Step::Leave(user, room) => self.change(user, user, room, Leave).await,
            Step::Invite(user, target, room) => self.change(user, target, room, Invite).await,
            Step::Ban(user, target, room) => self.change(user, target, room, Ban).await,
            Step::Kick(user, target, room) if user != target => {
                self.change(user, target, room, Leave).await;
            }
            Step::Unban(user, target, room) => self.unban(user, target, room).await,
            Step::Forget(user, room) => {
                if let Some(room) = self.rooms.get(room) {
                    let _ = self.server.rooms.forget(room, &self.clients[user].user_id).await;
                }
            }
            Step::Rename(user, room) if self.memberships[room][user] == Join => {
                self.renames += 1;
                let content =
                    json!({ "membership": "join", "displayname": self.renames.to_string() });
                let client = &self.clients[user];
                let kind = ("m.room.member", Some(client.user_id.as_str()));
                self.server.send(&self.rooms[room], client, kind, content).await;
            }
            Step::Say(user, room) if self.memberships[room][user] == Join => {
                self.server.say(&self.rooms[room], &self.clients[user], "hi").await;
            }
            Step::Begin(user) => self.begun[user] = Some(self.decide(user).await),
            Step::Change(user) => self.change_devices(user).await,
            Step::Away(user, room) => {
                self.change(user, user, room, Leave).await;
                self.change_devices(user).await;
                self.change(user, user, room, Join).await;
            }
            Step::Sync(user, ago) => self.sync(user, ago).await,
            Step::First(user) => self.first(user).await,
            Step::Kick(..) | Step::Rename(..) | Step::Say(..) => {}
        }
    }

    async fn create(&mut self, user: usize) {
        if self.rooms.len() < ROOMS {
            self.memberships[self.rooms.len()][user] = Membership::Join;
            self.rooms.push(self.server.room(&self.clients[user], Preset::Public).await);
        }
    }

    async fn change(&mut self, user: usize, target: usize, room: usize, to: Membership) {
        let Some(known) = self.rooms.get(room) else { return };
        let rooms = &self.server.rooms;
        let change = self.clients[user].change(&self.clients[target]);
        let changed = match to {
            Membership::Join => rooms.join(known, change).await,
            Membership::Invite => rooms.invite(known, change).await,
            Membership::Ban => rooms.ban(known, change).await,
            _ if user == target => rooms.leave(known, change).await,
            _ => rooms.kick(known, change).await,
        };
        // What is not allowed does not happen.
        if changed.is_ok() {
            self.memberships[room][target] = to;
        }
    }

    async fn unban(&mut self, user: usize, target: usize, room: usize) {
        let Some(known) = self.rooms.get(room) else { return };
        let change = self.clients[user].change(&self.clients[target]);
        if self.server.rooms.unban(known, change).await.is_ok() {
            self.memberships[room][target] = Membership::Leave;
        }
    }

    async fn decide(&self, user: usize) -> (Batch, Told) {
        self.server.decide_change(&self.clients[user]).await
    }

    async fn change_devices(&mut self, user: usize) {
        let mut begun = self.begun[user].take();
        loop {
            let (batch, told) = match begun.take() {
                Some(begun) => begun,
                None => self.decide(user).await,
            };
            let store = &self.server.store;
            match store.commit(batch, Durability::Synced).await {
                Ok(_) => {
                    self.versions[user] += 1;
                    return settle(store, *self.server.rooms.interner(), told).await.unwrap();
                }
                Err(CommitError::Conflict) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// A client that begins asks for the devices of all with whom its user shares a room.
    async fn first(&mut self, user: usize) {
        let answer = self.server.sync(&self.clients[user], None).await;
        assert_eq!(lists(&answer), (vec![], vec![]), "a first answer tells no changes");
        let shared = (0..USERS).filter(|&other| other == user || self.shares(user, other));
        let known: Known = shared.map(|other| (other, self.versions[other])).collect();
        let kept = known.clone();
        let (token, memberships) = (token(&answer), self.memberships);
        self.snapshots[user].push(Snapshot { token, known, kept, memberships });
    }

    fn shares(&self, one: usize, other: usize) -> bool {
        share(&self.memberships, one, other)
    }

    async fn sync(&mut self, user: usize, ago: usize) {
        self.check_past().await;
        let place = self.snapshots[user].len().saturating_sub(ago + 1);
        let Snapshot { token: since, mut known, mut kept, memberships } =
            self.snapshots[user][place].clone();
        let client = &self.clients[user];
        let answer = self.server.sync(client, Some(&since)).await;
        let told = lists(&answer);
        let by_name =
            |name: &String| self.clients.iter().position(|client| client.user_id == *name).unwrap();
        let changed: BTreeSet<usize> = told.0.iter().map(by_name).collect();
        let left: BTreeSet<usize> = told.1.iter().map(by_name).collect();
        self.check(user, (&memberships, &known), (&changed, &left));
        self.check_other_ways(user, (&since, &token(&answer)), &told).await;
        for &other in &changed {
            known.insert(other, self.versions[other]);
            kept.insert(other, self.versions[other]);
        }
        known.retain(|other, _| !left.contains(other));
        for other in (0..USERS).filter(|&other| other == user || self.shares(user, other)) {
            let version = Some(&self.versions[other]);
            assert_eq!(known.get(&other), version, "{user} has an old list of {other}");
            assert_eq!(kept.get(&other), version, "{user} keeps an old list of {other}");
        }
        let memberships = self.memberships;
        let snapshot = Snapshot { token: token(&answer), known, kept, memberships };
        self.snapshots[user].push(snapshot);
    }

    /// All is told that must be, and nothing else.
    fn check(
        &self,
        user: usize,
        (before, known): (&Memberships, &Known),
        (changed, left): (&BTreeSet<usize>, &BTreeSet<usize>),
    ) {
        let now = &self.memberships;
        for other in 0..USERS {
            let (then, shares) = (share(before, user, other), self.shares(user, other));
            let own = other == user;
            let is_old = known.get(&other) != Some(&self.versions[other]);
            let invited = invited(before, now, user, other);
            let must = (own || shares) && is_old || !own && (shares && !then || invited);
            let may = must || !own && came(before, now, user, other);
            let told = changed.contains(&other);
            assert!(told || !must, "{user} is not told that {other} changed");
            assert!(may || !told, "{user} is told of {other}, who is no business of theirs");
            let parted = !own && then && !shares && !told;
            assert_eq!(left.contains(&other), parted, "whether {other} left {user}");
        }
    }

    /// What comes after the time of an answer changes nothing in it; only changes of devices may be
    /// told too early.
    async fn check_past(&self) {
        for past in &self.past {
            let user_id = &self.clients[past.user].user_id;
            let news = past.news.clone();
            let lists = self.server.sync.device_lists(user_id, past.since, news).await.unwrap();
            assert_eq!(lists.left, past.told.1, "who left {} then", past.user);
            let changed: BTreeSet<&String> = lists.changed.iter().collect();
            assert!(past.told.0.iter().all(|name| changed.contains(name)));
            for (other, client) in self.clients.iter().enumerate() {
                let name = client.user_id.to_string();
                if changed.contains(&name) && !past.told.0.contains(&name) {
                    let shared = share(&past.memberships, past.user, other);
                    assert!(shared || other == past.user, "{other} did not share a room then");
                }
            }
        }
    }

    /// What `/keys/changes` and a look at everything say is the same.
    async fn check_other_ways(
        &mut self,
        user: usize,
        (since, next): (&str, &str),
        told: &(Vec<String>, Vec<String>),
    ) {
        let user_id = &self.clients[user].user_id;
        let sync = &self.server.sync;
        let changes = sync.key_changes(user_id, (since, next), || Ok(())).await.unwrap();
        assert_eq!((&changes.changed, &changes.left), (&told.0, &told.1));
        let news = sync.everything(user_id).await.unwrap();
        let since = SyncToken::parse(since).unwrap().position;
        let changes = sync.device_lists(user_id, since, news.clone()).await.unwrap();
        assert_eq!((&changes.changed, &changes.left), (&told.0, &told.1));
        let (told, memberships) = (told.clone(), self.memberships);
        self.past.push(Past { user, since, news, told, memberships });
        if self.past.len() > 4 {
            self.past.remove(0);
        }
    }
}

#[test]
fn clients_have_the_lists_of_all_with_whom_they_share_a_room() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config =
        ProptestConfig { failure_persistence: None, cases: 400, ..ProptestConfig::default() };
    let run = |steps: Vec<Step>| {
        runtime.block_on(async {
            let mut world = World::new().await;
            for step in &steps {
                world.apply(step).await;
            }
            for user in 0..USERS {
                world.sync(user, 0).await;
            }
        });
        Ok(())
    };
    TestRunner::new(config).run(&steps(), run).unwrap();
}

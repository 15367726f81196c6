//! Whose device lists a client is told of.

use kv::{Batch, Durability};

use super::{polls::LONG, *};
use crate::encryption::device_lists::{Told, mark, settle};

/// Who changed, and who left.
pub(super) fn lists(answer: &Value) -> (Vec<String>, Vec<String>) {
    let names = |field: &str| {
        let names = answer["device_lists"][field].as_array().cloned().unwrap_or_default();
        names.iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    };
    (names("changed"), names("left"))
}

/// The same of these.
fn told(changed: &[&Client], left: &[&Client]) -> (Vec<String>, Vec<String>) {
    let names = |clients: &[&Client]| {
        clients.iter().map(|client| client.user_id.to_string()).collect::<Vec<_>>()
    };
    (names(changed), names(left))
}

impl Server {
    /// Decides what is written when something about a user's devices changes.
    pub(super) async fn decide_change(&self, client: &Client) -> (Batch, Told) {
        let (interner, user_id) = (*self.rooms.interner(), client.user_id.clone());
        let read = self.store.read(move |reader| {
            let mut batch = Batch::new();
            let told = mark(reader, &mut batch, interner, &user_id)?;
            Ok::<_, kv::Error>((batch, told))
        });
        read.await.unwrap()
    }

    async fn change_devices(&self, client: &Client) {
        let (batch, told) = self.decide_change(client).await;
        self.store.commit(batch, Durability::Synced).await.unwrap();
        settle(&self.store, *self.rooms.interner(), told).await.unwrap();
    }

    /// Syncs, and gives what is told of device lists.
    async fn lists(&self, client: &Client, since: &mut String) -> (Vec<String>, Vec<String>) {
        let answer = self.sync(client, Some(since)).await;
        *since = token(&answer);
        lists(&answer)
    }
}

#[tokio::test]
async fn who_shares_a_room_and_changes_is_told() {
    let server = Server::new();
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let carol = server.client("carol").await;
    let room = server.room(&alice, Preset::Public).await;
    server.join(&room, &bob).await;
    let first = server.sync(&alice, None).await;
    assert!(first.get("device_lists").is_none());
    let mut since = token(&first);
    server.change_devices(&carol).await;
    assert_eq!(server.lists(&alice, &mut since).await, told(&[], &[]), "a stranger");
    server.change_devices(&bob).await;
    assert_eq!(server.lists(&alice, &mut since).await, told(&[&bob], &[]));
    assert_eq!(server.lists(&alice, &mut since).await, told(&[], &[]), "once");
    server.change_devices(&alice).await;
    assert_eq!(server.lists(&alice, &mut since).await, told(&[&alice], &[]), "her own");
    assert_eq!(server.lists(&alice, &mut token(&first)).await, told(&[&alice, &bob], &[]));
}

#[tokio::test]
async fn a_change_wakes_those_who_wait() {
    let server = Arc::new(Server::new());
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = server.room(&alice, Preset::Public).await;
    server.join(&room, &bob).await;
    let first = server.sync(&alice, None).await;
    let (waiting, client) = (server.clone(), alice.clone());
    let poll =
        tokio::spawn(async move { waiting.sync_how(&client, Some(&token(&first)), LONG).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!poll.is_finished());
    server.change_devices(&bob).await;
    let answer = tokio::time::timeout(Duration::from_secs(5), poll).await.unwrap().unwrap();
    assert_eq!(lists(&answer), told(&[&bob], &[]));
}

#[tokio::test]
async fn who_comes_into_a_room_is_told_and_who_leaves_the_last_one() {
    let server = Server::new();
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let (room, other) =
        (server.room(&alice, Preset::Public).await, server.room(&bob, Preset::Public).await);
    let mut since = token(&server.sync(&alice, None).await);
    server.join(&room, &bob).await;
    assert_eq!(server.lists(&alice, &mut since).await, told(&[&bob], &[]), "he joins");
    server.join(&other, &alice).await;
    assert_eq!(server.lists(&alice, &mut since).await, told(&[&bob], &[]), "she joins");
    server.leave(&room, &bob).await;
    assert_eq!(server.lists(&alice, &mut since).await, told(&[], &[]), "one is left");
    server.leave(&other, &bob).await;
    assert_eq!(server.lists(&alice, &mut since).await, told(&[], &[&bob]), "none is left");
    server.change_devices(&bob).await;
    assert_eq!(server.lists(&alice, &mut since).await, told(&[], &[]), "he is a stranger");
    server.join(&room, &bob).await;
    assert_eq!(server.lists(&alice, &mut since).await, told(&[&bob], &[]), "he is back");
    server.leave(&room, &alice).await;
    assert_eq!(server.lists(&alice, &mut since).await, told(&[], &[&bob]), "she leaves");
}

#[tokio::test]
async fn who_leaves_and_comes_back_is_told_if_something_changed() {
    let server = Server::new();
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = server.room(&alice, Preset::Public).await;
    server.join(&room, &bob).await;
    let mut since = token(&server.sync(&alice, None).await);
    server.leave(&room, &bob).await;
    server.join(&room, &bob).await;
    assert_eq!(server.lists(&alice, &mut since).await, told(&[], &[]));
    server.leave(&room, &bob).await;
    server.change_devices(&bob).await;
    server.join(&room, &bob).await;
    assert_eq!(server.lists(&alice, &mut since).await, told(&[&bob], &[]));
}

#[tokio::test]
async fn new_display_names_are_no_changes() {
    let server = Server::new();
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = server.room(&alice, Preset::Public).await;
    server.join(&room, &bob).await;
    let mut since = token(&server.sync(&alice, None).await);
    for client in [&alice, &bob] {
        let content = json!({ "membership": "join", "displayname": "new" });
        let kind = ("m.room.member", Some(client.user_id.as_str()));
        server.send(&room, client, kind, content).await;
    }
    assert_eq!(server.lists(&alice, &mut since).await, told(&[], &[]));
}

#[tokio::test]
async fn who_is_invited_is_told_for_what_is_encrypted_now() {
    let server = Server::new();
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = server.room(&alice, Preset::Private).await;
    let (mut since, mut bobs) =
        (token(&server.sync(&alice, None).await), token(&server.sync(&bob, None).await));
    server.invite(&room, &alice, &bob).await;
    assert_eq!(server.lists(&alice, &mut since).await, told(&[&bob], &[]));
    assert_eq!(server.lists(&bob, &mut bobs).await, told(&[], &[]), "he is not in it");
    server.change_devices(&alice).await;
    assert_eq!(server.lists(&bob, &mut bobs).await, told(&[], &[]), "he is not in it");
    server.change_devices(&bob).await;
    assert_eq!(server.lists(&alice, &mut since).await, told(&[&alice], &[]), "her own");
    server.join(&room, &bob).await;
    assert_eq!(server.lists(&alice, &mut since).await, told(&[&bob], &[]));
    assert_eq!(server.lists(&bob, &mut bobs).await, told(&[&alice, &bob], &[]));
}

#[tokio::test]
async fn who_comes_after_somebody_left_stays_a_stranger() {
    let server = Server::new();
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let (carol, dora) = (server.client("carol").await, server.client("dora").await);
    let room = server.room(&alice, Preset::Public).await;
    server.join(&room, &bob).await;
    server.join(&room, &carol).await;
    let mut since = token(&server.sync(&carol, None).await);
    server.leave(&room, &carol).await;
    server.join(&room, &dora).await;
    server.leave(&room, &bob).await;
    server.change_devices(&alice).await;
    assert_eq!(server.lists(&carol, &mut since).await, told(&[], &[&alice, &bob]));
}

#[tokio::test]
async fn those_who_are_ignored_are_told() {
    let server = Server::new();
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = server.room(&alice, Preset::Public).await;
    server.join(&room, &bob).await;
    let ignored = to_raw_value(&json!({ "ignored_users": { "@bob:hs1": {} } })).unwrap();
    let data = server.users.account_data();
    data.set(&alice.user_id, None, "m.ignored_user_list", &ignored).await.unwrap();
    let mut since = token(&server.sync(&alice, None).await);
    server.change_devices(&bob).await;
    assert_eq!(server.lists(&alice, &mut since).await, told(&[&bob], &[]));
}

#[tokio::test]
async fn many_who_change_are_found_by_the_rooms() {
    let server = Server::new();
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let (room, large) =
        (server.room(&alice, Preset::Public).await, server.room(&bob, Preset::Public).await);
    server.join(&large, &alice).await;
    server.join(&room, &bob).await;
    let mut clients = vec![bob.clone()];
    for number in 0..40 {
        let client = server.client(&format!("member{number:02}")).await;
        server.join(&large, &client).await;
        clients.push(client);
    }
    let (mut since, old) =
        (token(&server.sync(&alice, None).await), token(&server.sync(&alice, None).await));
    for client in &clients {
        server.change_devices(client).await;
    }
    let all: Vec<&Client> = clients.iter().collect();
    assert_eq!(server.lists(&alice, &mut since).await, told(&all, &[]));
    server.leave(&large, &alice).await;
    assert_eq!(server.lists(&alice, &mut since).await, told(&[], &all[1..]));
    assert_eq!(server.lists(&alice, &mut old.clone()).await, told(&[&bob], &all[1..]));
}

#[tokio::test]
async fn who_joins_while_a_change_is_on_its_way_is_not_forgotten() {
    let server = Server::new();
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = server.room(&alice, Preset::Public).await;
    let mut since = token(&server.sync(&alice, None).await);
    let (batch, woken) = server.decide_change(&bob).await;
    server.join(&room, &bob).await;
    assert_eq!(server.lists(&alice, &mut since).await, told(&[&bob], &[]), "before the change");
    server.store.commit(batch, Durability::Synced).await.unwrap();
    // Nobody in the room was woken, and whoever syncs does not look.
    assert_eq!(server.lists(&alice, &mut since).await, told(&[], &[]));
    settle(&server.store, *server.rooms.interner(), woken).await.unwrap();
    assert_eq!(server.lists(&alice, &mut since).await, told(&[&bob], &[]), "after it");
}

#[tokio::test]
async fn changes_between_tokens_are_those_of_a_sync() {
    let server = Server::new();
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let carol = server.client("carol").await;
    let room = server.room(&alice, Preset::Public).await;
    server.join(&room, &bob).await;
    let from = token(&server.sync(&alice, None).await);
    let changes = async |from: &str, to: &str| {
        let lists = server.sync.key_changes(&alice.user_id, (from, to), || Ok(())).await.unwrap();
        (lists.changed, lists.left)
    };
    assert_eq!(changes(&from, &from).await, told(&[], &[]));
    server.change_devices(&bob).await;
    server.join(&room, &carol).await;
    let to = token(&server.sync(&alice, None).await);
    assert_eq!(changes(&from, &to).await, told(&[&bob, &carol], &[]));
    assert_eq!(changes(&to, &to).await, told(&[], &[]));
    assert_eq!(changes(&to, &from).await, told(&[], &[]), "from the end to the start");
    server.leave(&room, &carol).await;
    server.change_devices(&bob).await;
    // The last change of each is known alone, so what comes later counts as well.
    assert_eq!(changes(&from, &to).await, told(&[&bob], &[]));
    let lost = SyncToken { epoch: EPOCH + 1, ..SyncToken::parse(&from).unwrap() };
    assert_eq!(changes(&lost.to_string(), &to).await, told(&[&bob], &[]), "after a restore");
    let answer = server.sync(&alice, Some(&lost.to_string())).await;
    assert_eq!(answer["device_lists"]["changed"], json!([bob.user_id]), "and in a full sync");
    let future = format!("s{EPOCH:x}_99999");
    assert_eq!(changes(&from, &future).await, told(&[&bob], &[]));
    for (from, to) in [("", &*to), ("x", &to), (&from, "t1_2"), (&from, "")] {
        let error =
            server.sync.key_changes(&alice.user_id, (from, to), || Ok(())).await.unwrap_err();
        assert_eq!((error.status.as_u16(), &*error.errcode), (400, "M_INVALID_PARAM"));
    }
}

/// What a sync after one message reads: gets and seeks.
async fn cost_of_a_message(members: usize) -> (u64, u64) {
    let server = Server::new();
    let alice = server.client("alice").await;
    let room = server.room(&alice, Preset::Public).await;
    for number in 1..members {
        let name = format!("@member{number}:hs1");
        let change = Change {
            sender: name.parse().unwrap(),
            target: name.parse().unwrap(),
            reason: None,
            profile: MemberProfile::default(),
        };
        server.rooms.join(&room, change).await.unwrap();
    }
    let since = token(&server.sync(&alice, None).await);
    server.say(&room, &alice, "warm").await;
    let since = token(&server.sync(&alice, Some(&since)).await);
    server.say(&room, &alice, "hi").await;
    let user_id = &alice.user_id;
    let position = SyncToken::parse(&since).unwrap().position;
    let news = server.sync.everything(user_id).await.unwrap();
    let before = server.store.counters();
    let lists = server.sync.device_lists(user_id, position, news).await.unwrap();
    let after = server.store.counters();
    assert!(lists.is_empty());
    assert_eq!((after.gets, after.seeks), (before.gets, before.seeks), "device lists read nothing");
    let answer = server.sync(&alice, Some(&since)).await;
    assert_eq!(timeline(joined(&answer, &room.id)), ["hi"]);
    let whole = server.store.counters();
    (whole.gets - after.gets, whole.seeks - after.seeks)
}

#[tokio::test]
async fn a_message_costs_device_lists_nothing_however_many_are_there() {
    let small = cost_of_a_message(2).await;
    assert_eq!(cost_of_a_message(1_000).await, small);
}

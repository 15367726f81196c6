//! Relations between events of other servers, which come in any order.

use ruma::{CanonicalJsonObject, signatures::reference_hash};
use serde_json::{Value, json};

use super::*;
use crate::rooms::{
    Outcome,
    create::Preset,
    history::{self, Asker},
    tests::{alice, current, foreign, make, newest, request, rooms},
};

const CHARLIE: &str = "@charlie:evil";

/// A room with someone from elsewhere in it.
struct Scene {
    rooms: Rooms,
    room: Room,
    member: Arc<StoredEvent>,
    levels: Arc<StoredEvent>,
}

impl Scene {
    async fn new() -> Self {
        let rooms = rooms();
        let room = make(&rooms, request(Preset::Public)).await;
        let levels = current(&rooms, &room, "m.room.power_levels", "").await.unwrap();
        let rules = current(&rooms, &room, "m.room.join_rules", "").await.unwrap();
        let before = newest(&rooms, &room).await;
        let join = json!({ "membership": "join" });
        let joined = foreign(
            &room,
            CHARLIE,
            (&[&before], &[&levels, &rules]),
            ("m.room.member", Some(CHARLIE), join),
        );
        assert_eq!(rooms.receive(&room, joined).await.unwrap(), Outcome::Accepted);
        let member = current(&rooms, &room, "m.room.member", CHARLIE).await.unwrap();
        Self { rooms, room, member, levels }
    }

    /// A message beside all others, with its id.
    fn message(&self, content: Value) -> (CanonicalJsonObject, String) {
        self.event("m.room.message", content)
    }

    fn event(&self, kind: &str, content: Value) -> (CanonicalJsonObject, String) {
        let cites = (&[&*self.member][..], &[&*self.levels, &*self.member][..]);
        let object = foreign(&self.room, CHARLIE, cites, (kind, None, content));
        let id = format!("${}", reference_hash(&object, &self.room.rules).unwrap());
        (object, id)
    }

    fn related(&self, rel_type: &str, parent: &str, body: &str) -> (CanonicalJsonObject, String) {
        self.message(json!({
            "body": body,
            "m.new_content": { "body": body },
            "m.relates_to": { "rel_type": rel_type, "event_id": parent },
        }))
    }

    async fn receive(&self, object: CanonicalJsonObject) {
        let outcome = self.rooms.receive(&self.room, object).await.unwrap();
        assert_eq!(outcome, Outcome::Accepted);
    }

    /// What is told of the relations to an event.
    async fn told(&self, event_id: &str) -> Value {
        let asker = Asker { user_id: alice(), device_id: None };
        let event_id = event_id.try_into().unwrap();
        let room_id = self.room.id.clone();
        let event = history::event(&self.rooms, asker, room_id, event_id).await.unwrap();
        let event: Value = serde_json::from_str(event.get()).unwrap();
        event["unsigned"]["m.relations"].clone()
    }
}

#[test]
fn only_a_whole_relation_is_one() {
    let hash = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let relation = |content: Value| relation_in(&content.to_string());
    let whole = json!({ "rel_type": "m.thread", "event_id": format!("${hash}") });
    let found = relation(json!({ "m.relates_to": whole })).unwrap();
    assert_eq!((found.kind, found.parent), (RelationKind::Thread, [0; 32]));
    for part in [
        json!({ "m.in_reply_to": { "event_id": format!("${hash}") } }),
        json!({ "event_id": format!("${hash}") }),
        json!({ "rel_type": "m.thread" }),
        json!({ "rel_type": 1, "event_id": format!("${hash}") }),
        json!({ "rel_type": "m.thread", "event_id": "$short" }),
        json!({ "rel_type": "m.thread", "event_id": "none" }),
        json!("m.thread"),
        json!(null),
    ] {
        assert_eq!(relation(json!({ "m.relates_to": part })), None, "{part}");
    }
    assert_eq!(relation(json!({ "body": "m.relates_to" })), None);
}

#[tokio::test]
async fn a_parent_finds_the_children_that_came_first() {
    let scene = Scene::new().await;
    let (root, root_id) = scene.message(json!({ "body": "root" }));
    let (reply, reply_id) = scene.related("m.thread", &root_id, "reply");
    let (edit, edit_id) = scene.related("m.replace", &root_id, "edit");
    let (reference, reference_id) = scene.related("m.reference", &root_id, "reference");
    let (other, _) = scene.event(
        "org.other",
        json!({ "m.new_content": {}, "m.relates_to": { "rel_type": "m.replace", "event_id": root_id } }),
    );
    for child in [reply, edit, reference, other] {
        scene.receive(child).await;
    }
    scene.receive(root).await;
    let told = scene.told(&root_id).await;
    assert_eq!(told["m.thread"]["latest_event"]["event_id"], json!(reply_id));
    assert_eq!(told["m.thread"]["count"], json!(1));
    assert_eq!(told["m.replace"]["event_id"], json!(edit_id));
    assert_eq!(told["m.reference"]["chunk"], json!([{ "event_id": reference_id }]));
}

#[tokio::test]
async fn of_edits_of_one_time_the_larger_id_counts() {
    let scene = Scene::new().await;
    let (original, original_id) = scene.message(json!({ "body": "original" }));
    scene.receive(original).await;
    let mut ids = Vec::new();
    for body in ["a", "b", "c", "d"] {
        let (edit, id) = scene.related("m.replace", &original_id, body);
        scene.receive(edit).await;
        ids.push(id);
    }
    ids.sort();
    assert_eq!(scene.told(&original_id).await["m.replace"]["event_id"], json!(ids[3]));
    let redact = async |id: &str| {
        let id: OwnedEventId = id.try_into().unwrap();
        scene.rooms.redact(&scene.room, alice(), (&id, None), None).await.unwrap();
    };
    redact(&ids[3]).await;
    assert_eq!(scene.told(&original_id).await["m.replace"]["event_id"], json!(ids[2]));
    redact(&ids[0]).await;
    assert_eq!(scene.told(&original_id).await["m.replace"]["event_id"], json!(ids[2]));
}

#[tokio::test]
async fn t46_a_child_that_is_redacted_on_arrival_relates_to_nothing() {
    let scene = Scene::new().await;
    let (root, root_id) = scene.message(json!({ "body": "root" }));
    scene.receive(root).await;
    let (reply, reply_id) = scene.related("m.thread", &root_id, "reply");
    let (redaction, _) = scene.event("m.room.redaction", json!({ "redacts": reply_id }));
    scene.receive(redaction).await;
    scene.receive(reply).await;
    assert_eq!(scene.told(&root_id).await, Value::Null);
    let reader = scene.rooms.store().reader();
    let all = RELATIONS.prefix(&scene.room.nid);
    assert_eq!(reader.scan(&RELATIONS, &all, Direction::Forward, 10).unwrap(), []);
    assert_eq!(scene.rooms.check().unwrap().damages, Vec::<String>::new());
}

#[tokio::test]
async fn threads_of_other_servers_that_nest_are_not_told() {
    let scene = Scene::new().await;
    let (root, root_id) = scene.message(json!({ "body": "root" }));
    let (reply, reply_id) = scene.related("m.thread", &root_id, "reply");
    let (nested, _) = scene.related("m.thread", &reply_id, "nested");
    for event in [nested, reply, root] {
        scene.receive(event).await;
    }
    let told = scene.told(&root_id).await;
    let latest = &told["m.thread"]["latest_event"];
    assert_eq!(latest["event_id"], json!(reply_id));
    assert_eq!(latest["unsigned"]["m.relations"], Value::Null);
}

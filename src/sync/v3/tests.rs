//! `GET /sync` against rooms and users on the memory engine.

mod counts;
mod device_lists;
mod device_lists_model;
mod flows;
mod gaps;
mod messages;
mod polls;

use std::sync::Arc;

use kv::Store;
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedDeviceId, OwnedRoomId, RoomVersionId, UInt,
    events::TimelineEventType, server_name, signatures::Ed25519KeyPair,
};
use serde_json::{Map, Value, json, value::to_raw_value};

use super::*;
use crate::{
    appservices::Appservices,
    config::{Config, LimitsConfig},
    encryption::Encryption,
    ephemeral::{Presence, Receipts, Typing},
    federation::server_keys::Signer,
    http::ClientAddress,
    id::Interner,
    rooms::{
        NewEvent, Parts, Rooms,
        create::{CreateRoom, Preset},
        membership::{Change, MemberProfile},
    },
    storage::schema::FAMILIES,
    time::Clock,
    users::{NewSession, Users},
};

const EPOCH: u64 = 0xe;

/// A server without HTTP.
struct Server {
    store: Store,
    rooms: Rooms,
    users: Users,
    encryption: Encryption,
    typing: Typing,
    receipts: Receipts,
    sync: Sync,
}

/// Someone who syncs with one device.
#[derive(Clone)]
struct Client {
    user_id: OwnedUserId,
    device_id: OwnedDeviceId,
    session: SessionId,
}

/// How a sync is asked for.
#[derive(Clone, Default)]
struct How {
    filter: Value,
    timeout_ms: u64,
    full_state: bool,
    state_form: StateForm,
}

impl Server {
    fn new() -> Self {
        let store = Store::memory(&FAMILIES);
        let interner = Interner::new([7; 16]);
        let clock = Clock::manual(MilliSecondsSinceUnixEpoch(UInt::from(1_700_000_000_u32)));
        let config = Arc::new(Config::for_server(server_name!("hs1").to_owned()));
        let signer = Signer {
            server_name: server_name!("hs1").to_owned(),
            key_pair: Ed25519KeyPair::from_der(&Ed25519KeyPair::generate(), "1".to_owned())
                .unwrap(),
        };
        let rooms = Rooms::new(Parts {
            store: store.clone(),
            interner,
            signer: Arc::new(signer),
            clock: clock.clone(),
            default_version: RoomVersionId::V11,
            event_cache_bytes: 1 << 20,
        });
        let presence = Presence::disabled(store.clone(), interner, clock.clone());
        let appservices = Appservices::none(store.clone(), config.server.name.clone());
        let encryption =
            Encryption::new(store.clone(), (interner, clock.clone()), &config, appservices.clone());
        let users = Users::new(store.clone(), interner, &config, clock, appservices);
        let typing = Typing::new(store.clone());
        let receipts = Receipts::new(store.clone());
        let told = (typing.clone(), presence);
        let parts = (rooms.clone(), users.clone(), encryption.clone());
        let sync = Sync::start(parts, told, EPOCH, &LimitsConfig::default());
        Self { store, rooms, users, encryption, typing, receipts, sync }
    }

    async fn client(&self, name: &str) -> Client {
        let user_id = match self.users.accounts().create_by_admin(name, None, false).await {
            Ok(user_id) => user_id,
            Err(_) => self.users.accounts().parse(name).unwrap(),
        };
        let session = NewSession {
            user_id,
            device_id: None,
            display_name: None,
            refresh: false,
            account: None,
        };
        let issued = self.users.sessions().open(session).await.unwrap();
        let token = issued.access_token.reveal();
        let requester = self.users.authenticate(token, ClientAddress::LOCAL).await.unwrap();
        let (user_id, device_id) = (requester.user_id, requester.device_id);
        Client { user_id, device_id, session: requester.session }
    }

    async fn room(&self, creator: &Client, preset: Preset) -> Room {
        let request = CreateRoom {
            creator: creator.user_id.clone(),
            profile: MemberProfile::default(),
            version: None,
            creation_content: Map::new(),
            preset,
            listed: false,
            alias: None,
            name: None,
            topic: None,
            invites: Vec::new(),
            is_direct: false,
            initial_state: Vec::new(),
            power_level_override: Map::new(),
        };
        let room_id = self.rooms.create(request).await.unwrap();
        self.rooms.known_room(&room_id).await.unwrap()
    }

    async fn say(&self, room: &Room, sender: &Client, body: &str) -> ruma::OwnedEventId {
        let content = json!({ "msgtype": "m.text", "body": body });
        self.send(room, sender, ("m.room.message", None), content).await
    }

    async fn send(
        &self,
        room: &Room,
        sender: &Client,
        (event_type, state_key): (&str, Option<&str>),
        content: Value,
    ) -> ruma::OwnedEventId {
        let event = NewEvent {
            sender: sender.user_id.clone(),
            event_type: TimelineEventType::from(event_type),
            state_key: state_key.map(str::to_owned),
            content: to_raw_value(&content).unwrap(),
            redacts: None,
        };
        self.rooms.send(room, event, None).await.unwrap().event_id
    }

    async fn join(&self, room: &Room, client: &Client) {
        self.rooms.join(room, client.change(client)).await.unwrap();
    }

    async fn invite(&self, room: &Room, sender: &Client, target: &Client) {
        self.rooms.invite(room, sender.change(target)).await.unwrap();
    }

    async fn leave(&self, room: &Room, client: &Client) {
        self.rooms.leave(room, client.change(client)).await.unwrap();
    }

    async fn sync(&self, client: &Client, since: Option<&str>) -> Value {
        self.sync_how(client, since, How::default()).await
    }

    async fn sync_how(&self, client: &Client, since: Option<&str>, how: How) -> Value {
        self.try_sync(client, since, how).await.unwrap()
    }

    async fn try_sync(
        &self,
        client: &Client,
        since: Option<&str>,
        how: How,
    ) -> Result<Value, ApiError> {
        let body = self.sync.v3(Box::new(client.request(since, how))).await?;
        Ok(serde_json::from_slice(&body).unwrap())
    }
}

impl Client {
    fn request(&self, since: Option<&str>, how: How) -> Request {
        let filter = match how.filter {
            Value::Null => None,
            filter => Some(FilterChoice::Inline(Box::new(serde_json::from_value(filter).unwrap()))),
        };
        Request {
            user_id: self.user_id.clone(),
            device_id: self.device_id.clone(),
            session: self.session,
            since: since.map(str::to_owned),
            filter,
            timeout: Duration::from_millis(how.timeout_ms),
            full_state: how.full_state,
            state_form: how.state_form,
            presence: None,
        }
    }

    fn change(&self, target: &Self) -> Change {
        Change {
            sender: self.user_id.clone(),
            target: target.user_id.clone(),
            reason: None,
            profile: MemberProfile::default(),
        }
    }
}

fn token(answer: &Value) -> String {
    answer["next_batch"].as_str().unwrap().to_owned()
}

/// Whether an answer tells nothing.
fn is_empty(answer: &Value) -> bool {
    answer.as_object().unwrap().keys().all(|key| key == "next_batch" || key.starts_with("device_"))
}

/// A joined room of an answer.
fn joined<'a>(answer: &'a Value, room: &OwnedRoomId) -> &'a Value {
    &answer["rooms"]["join"][room.as_str()]
}

/// What the timeline of a room says: the bodies of messages, the types (and keys) of others.
fn timeline(room: &Value) -> Vec<String> {
    room["timeline"]["events"].as_array().map_or_else(Vec::new, |events| names(events))
}

/// What a list of state says, sorted.
fn state(room: &Value, field: &str) -> Vec<String> {
    let mut names = names(room[field]["events"].as_array().unwrap());
    names.sort_unstable();
    names
}

fn names(events: &[Value]) -> Vec<String> {
    let name = |event: &Value| {
        if let Some(body) = event["content"]["body"].as_str() {
            return body.to_owned();
        }
        let key = event["state_key"].as_str().unwrap_or_default();
        format!("{} {key}", event["type"].as_str().unwrap()).trim().to_owned()
    };
    events.iter().map(name).collect()
}

fn lazy() -> How {
    let filter = json!({ "room": { "state": { "lazy_load_members": true } } });
    How { filter, ..How::default() }
}

fn limit(limit: u64) -> How {
    How { filter: json!({ "room": { "timeline": { "limit": limit } } }), ..How::default() }
}

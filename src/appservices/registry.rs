//! The registry: all application services at one time, found by id and by token.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use ruma::{OwnedUserId, RoomAliasId, RoomId, ServerName, UserId};
use tokio::sync::{Notify, Semaphore};
use url::Url;

use super::{
    keys::Silences,
    namespaces::Namespaces,
    registration::{self, RegistrationError, invalid},
};
use crate::{http::AppserviceCaller, storage::schema::appservices::AppserviceRow};

/// How many there may be: who is interested in a room is a set of bits.
const APPSERVICES_MAX: usize = 128;
/// How many questions one is asked at the same time.
const QUESTIONS_MAX: usize = 16;

/// Where a registration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file that the configuration names.
    File(PathBuf),
    /// An administrator.
    Database,
}

/// An application service.
#[derive(Debug)]
pub struct Appservice {
    /// Its id.
    pub id: Arc<str>,
    /// Its registration.
    pub row: AppserviceRow,
    /// Where it listens.
    pub url: Option<Url>,
    /// Its own user.
    pub sender: OwnedUserId,
    /// Where its registration comes from.
    pub source: Source,
    /// Tells its sender that it can be reached again.
    pub reachable: Notify,
    /// How many more questions it may be asked now.
    pub(super) questions: Semaphore,
    /// What it is not asked now.
    pub(super) silences: Silences,
    server_name: ruma::OwnedServerName,
    users: Namespaces,
    aliases: Namespaces,
    rooms: Namespaces,
}

impl Appservice {
    /// From a registration, checked.
    pub(super) fn new(
        id: &str,
        row: AppserviceRow,
        source: Source,
        server_name: &ServerName,
    ) -> Result<Arc<Self>, RegistrationError> {
        Ok(Arc::new(Self {
            id: id.into(),
            url: registration::url(&row)?,
            sender: registration::sender(&row, server_name)?,
            source,
            reachable: Notify::new(),
            questions: Semaphore::new(QUESTIONS_MAX),
            silences: Silences::default(),
            server_name: server_name.to_owned(),
            users: Namespaces::compile("users", &row.users)?,
            aliases: Namespaces::compile("aliases", &row.aliases)?,
            rooms: Namespaces::compile("rooms", &row.rooms)?,
            row,
        }))
    }

    /// How it appears in requests that act as this user.
    pub fn caller(&self, user_id: &UserId) -> AppserviceCaller {
        let rate_limited = self.row.rate_limited && user_id != self.sender;
        AppserviceCaller { id: self.id.clone(), rate_limited }
    }

    /// Notes that it can be reached again.
    pub fn is_back(&self) {
        self.silences.end();
        self.reachable.notify_one();
    }

    /// Whether it may act as a user and is told what happens to them. Only users of this server
    /// count.
    pub fn covers_user(&self, user_id: &UserId) -> bool {
        user_id == self.sender
            || (user_id.server_name() == self.server_name && self.users.covers(user_id.as_str()))
    }

    /// Whether nobody else may make this user.
    pub fn reserves_user(&self, user_id: &UserId) -> bool {
        user_id == self.sender
            || (user_id.server_name() == self.server_name && self.users.reserves(user_id.as_str()))
    }

    /// Whether an alias is in its namespaces.
    pub fn covers_alias(&self, alias: &RoomAliasId) -> bool {
        self.aliases.covers(alias.as_str())
    }

    /// Whether nobody else may make this alias.
    pub fn reserves_alias(&self, alias: &RoomAliasId) -> bool {
        self.aliases.reserves(alias.as_str())
    }

    /// Whether a room is in its namespaces by its id.
    pub fn covers_room(&self, room_id: &RoomId) -> bool {
        self.rooms.covers(room_id.as_str())
    }

    /// Whether it is sent what encryption needs: messages to devices, changes of device lists and
    /// of counts of keys (MSC3202); and asked for keys (MSC3983, MSC3984).
    pub fn wants_encryption(&self) -> bool {
        self.row.msc3202 && self.url.is_some()
    }

    /// Whether it is sent what is not kept: typing, receipts.
    pub fn receives_ephemeral(&self) -> bool {
        self.row.receive_ephemeral || self.row.msc2409
    }
}

/// All application services.
#[derive(Debug, Default)]
pub struct Registry {
    all: Vec<Arc<Appservice>>,
    by_token: HashMap<[u8; 32], Arc<Appservice>>,
}

impl Registry {
    /// Ids and tokens must be unique.
    pub(super) fn new(all: Vec<Arc<Appservice>>) -> Result<Self, RegistrationError> {
        if all.len() > APPSERVICES_MAX {
            return Err(invalid(format!("there are more than {APPSERVICES_MAX}")));
        }
        let mut by_token = HashMap::new();
        for (index, appservice) in all.iter().enumerate() {
            let same_id = all[..index].iter().any(|other| other.id == appservice.id);
            let before = by_token.insert(appservice.row.as_token_hash, appservice.clone());
            if same_id || before.is_some() {
                return Err(RegistrationError::Taken(appservice.id.to_string()));
            }
        }
        Ok(Self { all, by_token })
    }

    /// All, each at a place that lasts as long as this registry.
    pub fn all(&self) -> &[Arc<Appservice>] {
        &self.all
    }

    /// By its id.
    pub fn get(&self, id: &str) -> Option<Arc<Appservice>> {
        self.all.iter().find(|appservice| *appservice.id == *id).cloned()
    }

    /// By the hash of its token.
    pub fn by_token_hash(&self, hash: &[u8; 32]) -> Option<Arc<Appservice>> {
        self.by_token.get(hash).cloned()
    }

    pub(super) fn others(
        &self,
        caller: Option<&AppserviceCaller>,
    ) -> impl Iterator<Item = &Arc<Appservice>> {
        let own = caller.map(|caller| caller.id.clone());
        self.all.iter().filter(move |appservice| own.as_ref() != Some(&appservice.id))
    }
}

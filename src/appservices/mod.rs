//! Application services: who they are, what is theirs, and what they are asked.
//!
//! One registry in memory, made of the registration files of the configuration and of the rows that
//! administrators made; a change replaces it as a whole and tells those who watch
//! ([`Appservices::changes`]). Authentication asks it whose a token is, the client-server API which
//! names are reserved. What they are *sent* is the work of `appservice_sender`.
//!
//! <https://spec.matrix.org/v1.19/application-service-api/>

mod keys;
mod namespaces;
mod networks;
mod registration;
mod registry;
mod requests;

use std::{io, path::PathBuf, sync::Arc};

use kv::{Batch, Direction, Durability, Json, Store};
use parking_lot::RwLock;
use ruma::{OwnedServerName, RoomAliasId, UserId};
use tokio::sync::{Mutex, watch};

pub use self::{
    keys::KeyQuestion,
    networks::{instance_id, network_rooms},
    registration::RegistrationError,
    registry::{Appservice, Registry, Source},
    requests::{Body, Called, RequestError},
};
use crate::{
    config::AppservicesConfig,
    egress::Egress,
    error::ApiError,
    http::AppserviceCaller,
    storage::schema::appservices::{APPSERVICES, AppserviceRow},
};

/// Why the application services cannot be read at the start.
#[derive(Debug, thiserror::Error)]
pub enum AppservicesError {
    /// A file cannot be read.
    #[error("the registration {0} cannot be read")]
    File(PathBuf, #[source] io::Error),
    /// A registration makes no sense.
    #[error("the registration {0} is not accepted")]
    Registration(String, #[source] RegistrationError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] ApiError),
}

/// All application services of this server; cheap to clone.
#[derive(Clone)]
pub struct Appservices(Arc<Inner>);

struct Inner {
    store: Store,
    server_name: OwnedServerName,
    egress: Egress,
    registry: RwLock<Arc<Registry>>,
    changed: watch::Sender<()>,
    /// Held by who changes the registry.
    change: Mutex<()>,
}

impl std::fmt::Debug for Appservices {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Appservices")
    }
}

impl Appservices {
    /// Reads the registration files and the rows.
    pub async fn open(
        store: Store,
        server_name: OwnedServerName,
        config: &AppservicesConfig,
        egress: Egress,
    ) -> Result<Self, AppservicesError> {
        let mut all = Vec::new();
        for path in &config.registrations {
            let name = path.display().to_string();
            let yaml = tokio::fs::read_to_string(path)
                .await
                .map_err(|error| AppservicesError::File(path.clone(), error))?;
            let read = registration::read(&yaml).and_then(|(id, row)| {
                Appservice::new(&id, row, Source::File(path.clone()), &server_name)
            });
            all.push(read.map_err(|error| AppservicesError::Registration(name, error))?);
        }
        let range = APPSERVICES.prefix(&());
        let rows = store.read(move |reader| {
            Ok::<_, ApiError>(reader.scan(&APPSERVICES, &range, Direction::Forward, usize::MAX)?)
        });
        for (id, Json(row)) in rows.await? {
            let read = Appservice::new(&id, row, Source::Database, &server_name);
            all.push(read.map_err(|error| AppservicesError::Registration(id, error))?);
        }
        let registry = Registry::new(all).map_err(|error| {
            AppservicesError::Registration("of an application service".to_owned(), error)
        })?;
        Ok(Self(Arc::new(Inner {
            store,
            server_name,
            egress,
            registry: RwLock::new(Arc::new(registry)),
            changed: watch::Sender::new(()),
            change: Mutex::default(),
        })))
    }

    /// None at all.
    ///
    /// # Panics
    /// When the client for outgoing requests cannot be made.
    #[cfg(test)]
    pub(crate) fn none(store: Store, server_name: OwnedServerName) -> Self {
        let egress =
            Egress::new(&crate::config::EgressConfig::default()).expect("a client is made");
        Self(Arc::new(Inner {
            store,
            server_name,
            egress,
            registry: RwLock::default(),
            changed: watch::Sender::new(()),
            change: Mutex::default(),
        }))
    }

    /// All of them, as they are now.
    pub fn registry(&self) -> Arc<Registry> {
        self.0.registry.read().clone()
    }

    /// Tells of every change of the registry.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }

    /// Registers one in the database; gives its id.
    ///
    /// # Errors
    /// 400 `M_INVALID_PARAM` with what is wrong with the registration.
    pub async fn register(&self, yaml: &str) -> Result<String, ApiError> {
        let refused = |error: RegistrationError| ApiError::invalid_param(error.to_string());
        let (id, row) = registration::read(yaml).map_err(refused)?;
        let new = Appservice::new(&id, row.clone(), Source::Database, &self.0.server_name);
        let new = new.map_err(refused)?;
        let _held = self.0.change.lock().await;
        let mut all = self.registry().all().to_vec();
        all.push(new);
        let registry = Registry::new(all).map_err(refused)?;
        let mut batch = Batch::new();
        batch.check_absent(&APPSERVICES, &id);
        batch.put(&APPSERVICES, &id, &Json(row));
        self.0.store.commit(batch, Durability::Synced).await?;
        self.replace(registry);
        Ok(id)
    }

    /// Removes one that was registered in the database; what waits for it is dropped.
    ///
    /// # Errors
    /// 404 when there is none, 400 for one that comes from a file.
    pub async fn unregister(&self, id: &str) -> Result<(), ApiError> {
        let _held = self.0.change.lock().await;
        let registry = self.registry();
        match registry.get(id).map(|known| known.source.clone()) {
            None => {
                return Err(ApiError::not_found(format!("There is no application service {id}")));
            }
            Some(Source::File(path)) => {
                let path = path.display();
                return Err(ApiError::invalid_param(format!(
                    "{id} is registered by the file {path}"
                )));
            }
            Some(Source::Database) => {}
        }
        let rest = registry.all().iter().filter(|known| *known.id != *id).cloned().collect();
        let registry =
            Registry::new(rest).map_err(|error| ApiError::internal_text(error.to_string()))?;
        let mut batch = Batch::new();
        batch.delete(&APPSERVICES, &id.to_owned());
        networks::forget(&mut batch, id);
        self.0.store.commit(batch, Durability::Synced).await?;
        self.replace(registry);
        Ok(())
    }

    fn replace(&self, registry: Registry) {
        *self.0.registry.write() = Arc::new(registry);
        self.0.changed.send_replace(());
    }

    /// The application service whose token this is.
    pub fn by_token(&self, token: &str) -> Option<Arc<Appservice>> {
        let registry = self.registry();
        if registry.all().is_empty() || registration::is_of_user(token) {
            return None;
        }
        registry.by_token_hash(&registration::token_hash(token))
    }

    /// Whether this is the hash of an application service's token: then the session of that name
    /// lasts.
    pub fn is_token_hash(&self, hash: &[u8; 32]) -> bool {
        self.registry().by_token_hash(hash).is_some()
    }

    /// Refuses a user name that is reserved for another application service than the one that asks.
    ///
    /// # Errors
    /// `M_EXCLUSIVE`.
    pub fn check_user(
        &self,
        user_id: &UserId,
        caller: Option<&AppserviceCaller>,
    ) -> Result<(), ApiError> {
        let registry = self.registry();
        let mut others = registry.others(caller);
        if others.any(|appservice| appservice.reserves_user(user_id)) {
            return Err(ApiError::exclusive(
                "The user name is reserved for an application service",
            ));
        }
        let own = caller.and_then(|caller| registry.get(&caller.id));
        if own.is_some_and(|own| !own.covers_user(user_id)) {
            return Err(ApiError::exclusive("The user name is in none of your namespaces"));
        }
        Ok(())
    }

    /// Refuses an alias that is reserved for another application service than the one that asks.
    ///
    /// # Errors
    /// `M_EXCLUSIVE`.
    pub fn check_alias(
        &self,
        alias: &RoomAliasId,
        caller: Option<&AppserviceCaller>,
    ) -> Result<(), ApiError> {
        let registry = self.registry();
        let mut others = registry.others(caller);
        if others.any(|appservice| appservice.reserves_alias(alias)) {
            return Err(ApiError::exclusive("The alias is reserved for an application service"));
        }
        let own = caller.and_then(|caller| registry.get(&caller.id));
        if own.is_some_and(|own| !own.covers_alias(alias)) {
            return Err(ApiError::exclusive("The alias is in none of your namespaces"));
        }
        Ok(())
    }

    /// Whether the application service that asks has full control over an alias.
    pub fn controls_alias(&self, alias: &RoomAliasId, caller: Option<&AppserviceCaller>) -> bool {
        let own = caller.and_then(|caller| self.registry().get(&caller.id));
        own.is_some_and(|own| own.covers_alias(alias))
    }
}

/// What an administrator sees of a registration: never a token.
pub fn describe(appservice: &Appservice) -> String {
    let AppserviceRow { url, sender_localpart, .. } = &appservice.row;
    let url = url.as_deref().unwrap_or("no address");
    let source = match &appservice.source {
        Source::File(path) => format!("file {}", path.display()),
        Source::Database => "database".to_owned(),
    };
    format!("{}: {url}, user {sender_localpart}, by {source}", appservice.id)
}

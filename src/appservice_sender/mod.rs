//! What application services are sent: every event, receipt, typing and presence that concerns them, in
//! order, until they have acknowledged it.
//!
//! One task follows the commits (`follower`) and writes what concerns whom into a durable outbox,
//! in one batch with how far it has looked. One task for each application service (`delivery`) makes
//! transactions of the outbox, each written down with its bytes before it is first sent, and sends
//! it until it is acknowledged. So after any crash nothing is lost, nothing is in two transactions,
//! and a retry is what was sent before. Watches the store's feed; nobody calls it.
//!
//! <https://spec.matrix.org/v1.19/application-service-api/#pushing-events>

mod delivery;
mod device_lists;
mod devices;
mod ephemeral;
mod follower;
mod interest;
mod transaction;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use kv::{Batch, Durability, Store};
use parking_lot::Mutex;
use ruma::OwnedUserId;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};

use self::follower::Follower;
use crate::{
    appservices::{Appservice, Appservices, Registry},
    encryption,
    ephemeral::{Presence, Typing},
    error::ApiError,
    id::RoomNid,
    rooms::Rooms,
    storage::schema::appservices::{
        APPSERVICE_DEVICE_LISTS, APPSERVICE_OUTBOX, APPSERVICE_TRANSACTIONS,
    },
    tasks::{Stop, Tasks},
};

/// How often in a row something fails before what cannot be read is skipped.
const FAILURES_BEFORE_SKIPPING: u32 = 3;

/// Whether trying again is all there is to do.
fn is_unavailable(error: &ApiError) -> bool {
    error.status == http::StatusCode::SERVICE_UNAVAILABLE
}

/// What it is built from.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Who is to be told.
    pub appservices: Appservices,
    /// The event graph.
    pub rooms: Rooms,
    /// Who types.
    pub typing: Typing,
    /// Who is there.
    pub presence: Presence,
}

impl Parts {
    fn store(&self) -> &Store {
        self.rooms.store()
    }
}

/// The sender. See the module.
#[derive(Debug)]
pub struct AppserviceSender;

/// What one application service's task shares with the follower.
#[derive(Debug)]
struct Lane {
    appservice: Arc<Appservice>,
    /// Something is to be sent.
    queued: Notify,
    /// The rooms whose typing is to be told; only what is true when it is told.
    typing: Mutex<BTreeSet<RoomNid>>,
    /// Whose presence is to be told; only what is true when it is told.
    presence: Mutex<BTreeSet<OwnedUserId>>,
    /// The application service was removed.
    removed: watch::Sender<bool>,
}

impl AppserviceSender {
    /// Starts the tasks.
    pub fn start(parts: Parts, tasks: &Tasks) {
        // Before the first look at the registry and the store, so that nothing is missed.
        let changes = parts.appservices.changes();
        let feed = parts.store().feed();
        let lanes = Lanes { parts: parts.clone(), by_id: HashMap::new(), tasks: JoinSet::new() };
        tasks.spawn(async move |stop: Stop| {
            Follower::new(parts, lanes).run(feed, changes, stop).await;
        });
    }
}

/// The tasks of the application services.
#[derive(Debug)]
struct Lanes {
    parts: Parts,
    by_id: HashMap<Arc<str>, Arc<Lane>>,
    /// They end wherever they are when the follower does, as at a crash.
    tasks: JoinSet<()>,
}

impl Lanes {
    /// Starts the tasks of those that are new and ends those of the others. Those without an address
    /// have none.
    fn follow(&mut self, registry: &Registry) {
        while self.tasks.try_join_next().is_some() {}
        let stays = |lane: &Lane| {
            registry.get(&lane.appservice.id).is_some_and(|now| Arc::ptr_eq(&now, &lane.appservice))
        };
        self.by_id.retain(|_, lane| {
            let stays = stays(lane);
            if !stays {
                lane.removed.send_replace(true);
            }
            stays
        });
        for appservice in registry.all().iter().filter(|appservice| appservice.url.is_some()) {
            if self.by_id.contains_key(&appservice.id) {
                continue;
            }
            let lane = Arc::new(Lane {
                appservice: appservice.clone(),
                queued: Notify::new(),
                typing: Mutex::default(),
                presence: Mutex::default(),
                removed: watch::Sender::new(false),
            });
            self.by_id.insert(appservice.id.clone(), lane.clone());
            let parts = self.parts.clone();
            self.tasks.spawn(delivery::run(parts, lane));
        }
    }

    fn get(&self, id: &str) -> Option<&Arc<Lane>> {
        self.by_id.get(id)
    }
}

/// Drops all that waits for an application service that is no more.
async fn purge(store: &Store, appservice: &str) {
    if let Err(error) = drop_all(store, appservice).await {
        tracing::warn!(appservice, %error, "what waited for it was not dropped");
    }
}

async fn drop_all(store: &Store, appservice: &str) -> Result<(), ApiError> {
    encryption::appservices::forget(store, appservice).await?;
    let mut batch = Batch::new();
    let id = appservice.to_owned();
    batch.delete_range(&APPSERVICE_OUTBOX, APPSERVICE_OUTBOX.prefix(&id));
    batch.delete_range(&APPSERVICE_DEVICE_LISTS, APPSERVICE_DEVICE_LISTS.prefix(&id));
    batch.delete_range(&APPSERVICE_TRANSACTIONS, APPSERVICE_TRANSACTIONS.prefix(&id));
    store.commit(batch, Durability::Buffered).await?;
    Ok(())
}

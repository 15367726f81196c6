//! What end-to-end encryption needs of a server: the public keys of devices, one-time keys that are
//! handed out once, cross-signing, who must learn of a change, messages to devices, backups.
//!
//! Clients encrypt; the server cannot read any of it. What it promises is that nothing is lost, given
//! out twice or told too late. Called by the client-server API, by sync and the sender of application
//! services; `users` calls it when a device or an account ends. Device and account rows are read here
//! and written by `users`.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#end-to-end-encryption>

pub mod device_lists;
mod ending;
mod key_counts;
#[expect(dead_code, reason = "`/keys/query` uses it")]
mod signed;
pub mod to_device;

use std::sync::{Arc, atomic::AtomicU32};

use kv::{Batch, CommitError, Durability, Json, Position, Store};

pub use self::{
    ending::{end_account, end_devices},
    key_counts::{KeyCounts, key_counts},
};
use crate::{
    appservices::Appservices,
    config::{Config, EncryptionConfig},
    error::ApiError,
    id::Interner,
    storage::schema::encryption::ENCRYPTION_EPOCH,
    time::Clock,
};

/// How often something is decided again before the server counts as too busy for it.
const ATTEMPTS: usize = 16;

/// Keys, device lists, messages to devices, backups. Cheap to clone.
#[derive(Clone)]
pub struct Encryption(Arc<Parts>);

#[expect(dead_code, reason = "the services that follow use them")]
struct Parts {
    store: Store,
    interner: Interner,
    clock: Clock,
    appservices: Appservices,
    server_name: ruma::OwnedServerName,
    config: EncryptionConfig,
    /// The day on which old transactions of messages to devices were last removed.
    transactions_swept: AtomicU32,
}

impl std::fmt::Debug for Encryption {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Encryption")
    }
}

impl Encryption {
    /// The keys of a store; [`Encryption::enter`] must come before they are used.
    pub fn new(
        store: Store,
        (interner, clock): (Interner, Clock),
        config: &Config,
        appservices: Appservices,
    ) -> Self {
        Self(Arc::new(Parts {
            store,
            interner,
            clock,
            appservices,
            server_name: config.server.name.clone(),
            config: config.encryption.clone(),
            transactions_swept: AtomicU32::new(0),
        }))
    }

    /// Says in which epoch the database is. In another one than that in which the keys were last used
    /// it was restored from a backup: then one-time keys that may have been handed out since go.
    pub async fn enter(&self, epoch: u64) -> Result<(), ApiError> {
        let known = self.0.store.read(|reader| reader.get(&ENCRYPTION_EPOCH, &0)).await?;
        if known == Some(Json(epoch)) {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.put(&ENCRYPTION_EPOCH, &0, &Json(epoch));
        self.0.store.commit(batch, Durability::Synced).await?;
        Ok(())
    }
}

/// Commits durably. `None`: something that the batch was decided on has changed.
async fn commit(store: &Store, batch: Batch) -> Result<Option<Position>, ApiError> {
    match store.commit(batch, Durability::Synced).await {
        Ok(position) => Ok(Some(position)),
        Err(CommitError::Conflict) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The answer when others were quicker each time.
fn busy() -> ApiError {
    ApiError::unavailable("The server is too busy with other changes of the same keys")
}

//! What end-to-end encryption needs of a server: the public keys of devices, one-time keys that are
//! handed out once, cross-signing, who must learn of a change, messages to devices, backups.
//!
//! Clients encrypt; the server cannot read any of it. What it promises is that nothing is lost, given
//! out twice or told too late. Called by the client-server API, by sync and the sender of application
//! services; `users` calls it when a device or an account ends. Device and account rows are read here
//! and written by `users`.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#end-to-end-encryption>

mod appservice_keys;
pub mod appservices;
pub mod backup;
mod claim;
mod cross_signing;
pub mod default_rooms;
mod dehydrated;
mod device_keys;
pub mod device_lists;
mod device_names;
mod ending;
mod fallback_keys;
mod in_flight;
mod key_counts;
mod one_time_keys;
mod paged;
mod query;
pub mod rendezvous;
mod restore;
mod signatures;
mod signed;
mod signed_json;
pub mod to_device;
mod upload;

use std::sync::{Arc, atomic::AtomicU32};

use kv::{Batch, CommitError, Durability, Position, Store};

use self::in_flight::InFlight;
pub use self::{
    claim::{Claimed, ClaimedKey},
    cross_signing::{CrossSigningKeys, KeyChange},
    dehydrated::{DehydratedMessages, NewDehydratedDevice},
    device_names::check_new_device,
    ending::{end_account, end_devices},
    key_counts::{KeyCounts, key_counts},
    paged::PagedJson,
    signatures::{SignatureFailures, SignedKeys, signed_since},
    upload::Upload,
};
use crate::{
    appservices::Appservices,
    config::{Config, EncryptionConfig},
    error::ApiError,
    id::Interner,
    time::Clock,
};

/// How often something is decided again before the server counts as too busy for it.
const ATTEMPTS: usize = 16;

/// Keys, device lists, messages to devices, backups. Cheap to clone.
#[derive(Clone)]
pub struct Encryption(Arc<Parts>);

struct Parts {
    store: Store,
    interner: Interner,
    clock: Clock,
    appservices: Appservices,
    server_name: ruma::OwnedServerName,
    config: EncryptionConfig,
    device_name_bytes_max: usize,
    claims: InFlight,
    /// The day on which old transactions of messages to devices were last removed.
    transactions_swept: AtomicU32,
    backup_locks: backup::Locks,
    rendezvous: rendezvous::Rendezvous,
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
        let rendezvous = rendezvous::Rendezvous::new(clock.clone());
        Self(Arc::new(Parts {
            store,
            interner,
            clock,
            appservices,
            server_name: config.server.name.clone(),
            config: config.encryption.clone(),
            device_name_bytes_max: config.limits.device_name_size_bytes_max,
            claims: InFlight::default(),
            transactions_swept: AtomicU32::new(0),
            backup_locks: backup::Locks::default(),
            rendezvous,
        }))
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

#[cfg(test)]
mod tests;

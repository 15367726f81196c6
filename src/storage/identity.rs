//! What a database is made with once: whose it is, its secret, its epoch.
//!
//! A database serves one server name for ever: every id in it carries that name.

use kv::{Batch, Durability, Json, Store};
use ruma::ServerName;

use super::schema::server::{IDENTITY, IdentityRow};
use crate::error::ApiError;

/// The version of the tables that this program writes.
pub const SCHEMA_VERSION: u32 = 1;

/// The identity of a database could not be read or does not fit.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The database belongs to a server of another name.
    #[error("the database belongs to the server {0}, not to {1}: a server cannot change its name")]
    OtherServer(ruma::OwnedServerName, ruma::OwnedServerName),
    /// A newer program wrote the database.
    #[error(
        "the database has the tables of version {0}; this program knows version {SCHEMA_VERSION}"
    )]
    Newer(u32),
    /// There is no identity in it.
    #[error("this is no database of Causerie")]
    Missing,
    /// The operating system gave no randomness.
    #[error("no randomness: {0}")]
    Random(getrandom::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] ApiError),
}

/// Reads the identity of a database, or makes it in an empty one.
pub async fn open(store: &Store, server_name: &ServerName) -> Result<IdentityRow, IdentityError> {
    let known = store.read(|reader| Ok::<_, ApiError>(reader.get(&IDENTITY, &0)?)).await?;
    if let Some(Json(identity)) = known {
        check(&identity, server_name)?;
        return Ok(identity);
    }
    let mut interner = [0; 16];
    getrandom::fill(&mut interner).map_err(IdentityError::Random)?;
    let epoch = getrandom::u64().map_err(IdentityError::Random)?;
    let identity = IdentityRow {
        server_name: server_name.to_owned(),
        interner,
        epoch,
        schema_version: SCHEMA_VERSION,
    };
    let mut batch = Batch::new();
    batch.check_absent(&IDENTITY, &0);
    batch.put(&IDENTITY, &0, &Json(identity.clone()));
    store.commit(batch, Durability::Synced).await.map_err(ApiError::from)?;
    Ok(identity)
}

/// Gives a database that was restored from a backup an epoch of its own: what was told to others
/// since the backup is not taken for what comes now.
pub async fn renew_epoch(store: &Store, server_name: &ServerName) -> Result<(), IdentityError> {
    let known = store.read(|reader| Ok::<_, ApiError>(reader.get(&IDENTITY, &0)?)).await?;
    let before = known.ok_or(IdentityError::Missing)?;
    check(&before.0, server_name)?;
    let random = getrandom::u64().map_err(IdentityError::Random)?;
    let epoch = if random == before.0.epoch { random.wrapping_add(1) } else { random };
    let mut batch = Batch::new();
    batch.check(&IDENTITY, &0, Some(&before));
    batch.put(&IDENTITY, &0, &Json(IdentityRow { epoch, ..before.0 }));
    store.commit(batch, Durability::Synced).await.map_err(ApiError::from)?;
    Ok(())
}

fn check(identity: &IdentityRow, server_name: &ServerName) -> Result<(), IdentityError> {
    if identity.server_name != server_name {
        let theirs = identity.server_name.clone();
        return Err(IdentityError::OtherServer(theirs, server_name.to_owned()));
    }
    if identity.schema_version > SCHEMA_VERSION {
        return Err(IdentityError::Newer(identity.schema_version));
    }
    Ok(())
}

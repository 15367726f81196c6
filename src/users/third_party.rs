//! The e-mail addresses of accounts. An address belongs to one account at most.
//!
//! A proof ([`ProvenEmail`]) is used up in the batch that it allows, so none is good twice.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#adding-account-administrative-contact-information>

use kv::{Batch, Direction, Json, Reader, Store};
use ruma::{OwnedUserId, UserId};

use super::{
    accounts::{ATTEMPTS, Accounts, busy, commit},
    email::ProvenEmail,
    now_ms,
};
use crate::{
    error::ApiError,
    storage::{
        rows::accounts::{OwnerRow, ThirdPartyIdRow},
        schema::{
            accounts::{THIRD_PARTY_IDS, THIRD_PARTY_OWNERS, ThirdPartyIdKey, ThirdPartyOwnerKey},
            users::ACCOUNTS,
        },
    },
    time::Clock,
};

/// The one medium there is.
pub const EMAIL: &str = "email";

/// How many addresses an account may have.
const ADDRESSES_MAX: usize = 10;

/// Knows the addresses of accounts.
#[derive(Clone)]
pub struct ThirdPartyIds {
    store: Store,
    clock: Clock,
    accounts: Accounts,
}

impl ThirdPartyIds {
    pub(super) fn new(store: Store, clock: Clock, accounts: Accounts) -> Self {
        Self { store, clock, accounts }
    }

    /// The addresses of a user.
    pub async fn list(
        &self,
        user_id: &UserId,
    ) -> Result<Vec<(ThirdPartyIdKey, ThirdPartyIdRow)>, ApiError> {
        let user = user_id.to_string();
        let rows = self.store.read(move |reader| of_user(reader, &user)).await?;
        Ok(rows)
    }

    /// Whose an e-mail address is. The address as [`super::email::canonical`] gives it.
    pub async fn owner(&self, address: &str) -> Result<Option<OwnedUserId>, ApiError> {
        let key = owner_key(address);
        let row = self.store.read(move |reader| reader.get(&THIRD_PARTY_OWNERS, &key)).await?;
        Ok(row.map(|Json(row)| row.user_id))
    }

    /// Adds a proven address to an account and uses the proof up.
    ///
    /// # Errors
    /// `M_THREEPID_IN_USE` when another account has it, `M_THREEPID_AUTH_FAILED` when the proof is
    /// used up.
    pub async fn add(&self, user_id: &UserId, proven: &ProvenEmail) -> Result<(), ApiError> {
        for _ in 0..ATTEMPTS {
            let owner = self.owner(proven.address()).await?;
            if owner.as_ref().is_some_and(|owner| owner != user_id) {
                return Err(ApiError::threepid_in_use("Another account has this address"));
            }
            if self.list(user_id).await?.len() >= ADDRESSES_MAX {
                return Err(ApiError::invalid_param("The account has too many addresses"));
            }
            let account = self.accounts.get(user_id).await?;
            let account = account.filter(|account| account.deactivated_ts.is_none());
            let account =
                account.ok_or_else(|| ApiError::user_deactivated("The account is deactivated"))?;
            let mut batch = Batch::new();
            // So that nothing is added to an account that is just being deactivated.
            batch.check(&ACCOUNTS, &user_id.to_string(), Some(&Json(account)));
            let owner = owner.map(|user_id| Json(OwnerRow { user_id }));
            batch.check(&THIRD_PARTY_OWNERS, &owner_key(proven.address()), owner.as_ref());
            proven.use_up(&mut batch);
            put(&mut batch, user_id, proven, now_ms(&self.clock));
            if commit(&self.store, batch).await?.is_some() {
                return Ok(());
            }
            proven.check_unused(&self.store).await?;
        }
        Err(busy())
    }

    /// Takes an address from an account. `false`: the account does not have it.
    pub async fn remove(&self, user_id: &UserId, address: &str) -> Result<bool, ApiError> {
        let key = id_key(user_id, address);
        for _ in 0..ATTEMPTS {
            let wanted = key.clone();
            let row = self.store.read(move |reader| reader.get(&THIRD_PARTY_IDS, &wanted)).await?;
            let Some(row) = row else { return Ok(false) };
            let mut batch = Batch::new();
            batch.check(&THIRD_PARTY_IDS, &key, Some(&row));
            batch.delete(&THIRD_PARTY_IDS, &key);
            batch.delete(&THIRD_PARTY_OWNERS, &owner_key(address));
            if commit(&self.store, batch).await?.is_some() {
                return Ok(true);
            }
        }
        Err(busy())
    }
}

/// Writes that a user who has just been made has a proven address, which nobody may have.
pub(super) fn put_new(batch: &mut Batch, user_id: &UserId, proven: &ProvenEmail, now: u64) {
    batch.check_absent(&THIRD_PARTY_OWNERS, &owner_key(proven.address()));
    proven.use_up(batch);
    put(batch, user_id, proven, now);
}

/// Takes all addresses from an account that ends.
pub(super) fn remove_all(
    reader: &Reader<'_>,
    batch: &mut Batch,
    user: &String,
) -> Result<(), kv::Error> {
    for (key, row) in of_user(reader, user)? {
        // Another account may have the address by the time this is committed.
        batch.check(&THIRD_PARTY_IDS, &key, Some(&Json(row)));
        batch.delete(&THIRD_PARTY_OWNERS, &owner_key(&key.address));
        batch.delete(&THIRD_PARTY_IDS, &key);
    }
    Ok(())
}

fn put(batch: &mut Batch, user_id: &UserId, proven: &ProvenEmail, now: u64) {
    let row = ThirdPartyIdRow { validated_ts: proven.validated_ts(), added_ts: now };
    batch.put(&THIRD_PARTY_IDS, &id_key(user_id, proven.address()), &Json(row));
    let owner = Json(OwnerRow { user_id: user_id.to_owned() });
    batch.put(&THIRD_PARTY_OWNERS, &owner_key(proven.address()), &owner);
}

fn of_user(
    reader: &Reader<'_>,
    user: &String,
) -> Result<Vec<(ThirdPartyIdKey, ThirdPartyIdRow)>, kv::Error> {
    let range = THIRD_PARTY_IDS.prefix(user);
    let rows = reader.scan(&THIRD_PARTY_IDS, &range, Direction::Forward, usize::MAX)?;
    Ok(rows.into_iter().map(|(key, Json(row))| (key, row)).collect())
}

fn id_key(user_id: &UserId, address: &str) -> ThirdPartyIdKey {
    let (medium, address) = (EMAIL.to_owned(), address.to_owned());
    ThirdPartyIdKey { user_id: user_id.to_string(), medium, address }
}

fn owner_key(address: &str) -> ThirdPartyOwnerKey {
    ThirdPartyOwnerKey { medium: EMAIL.to_owned(), address: address.to_owned() }
}

//! Deactivation: an account ends for good. Its name stays taken.
//!
//! The account's row changes first, so that no login succeeds any more; then the sessions end and
//! what was stored goes. The rooms are left in the background (`departures.rs`), which goes on after
//! a restart. Addresses are added only against the account's row, so that none comes after.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountdeactivate>

use kv::{Batch, Json, Position};
use ruma::UserId;

use super::{
    Selection, Users,
    accounts::{ATTEMPTS, busy, commit},
    directory, now_ms, third_party,
};
use crate::{
    encryption::{self, device_lists, device_lists::Told},
    error::ApiError,
    storage::{
        rows::{
            accounts::ErasureRow,
            users::{AccountRow, ProfileRow},
        },
        schema::{
            accounts::{DEPARTURES, ERASED_USERS},
            pushers::PUSH_UNMUTED,
            users::{
                ACCOUNT_DATA, ACCOUNT_DATA_CHANGES, ACCOUNTS, DEVICES_SEEN, FILTERS,
                FILTERS_BY_HASH, PROFILES,
            },
        },
        topic,
    },
};

/// What an account was that is no more.
#[derive(Clone, Debug)]
pub struct Deactivated {
    /// Whether the user asked to be erased.
    pub erased: bool,
}

impl Users {
    /// Deactivates an account: password, sessions, devices, profile, account data and filters go.
    pub async fn deactivate(&self, user_id: &UserId, erase: bool) -> Result<Deactivated, ApiError> {
        self.end_account(user_id, erase).await?;
        self.0.sessions.forget_user(user_id);
        self.0.devices.remove(user_id, Selection::All).await?;
        self.0.departures.notify_one();
        Ok(Deactivated { erased: erase })
    }

    async fn profile_row(&self, user_id: &str) -> Result<Option<ProfileRow>, ApiError> {
        let key = user_id.to_owned();
        let row = self.0.store.read(move |reader| reader.get(&PROFILES, &key)).await?;
        Ok(row.map(|Json(row)| row))
    }

    /// What takes the addresses of third parties and the keys from the account, and who must be told
    /// that the keys are gone.
    async fn forget(&self, user_id: &UserId) -> Result<(Batch, Option<Told>), ApiError> {
        let (user_id, interner) = (user_id.to_owned(), self.0.interner);
        let read = self.0.store.read(move |reader| {
            let mut batch = Batch::new();
            third_party::remove_all(reader, &mut batch, &user_id.to_string())?;
            let told = encryption::end_account(reader, &mut batch, interner, &user_id)?;
            Ok::<_, kv::Error>((batch, told))
        });
        Ok(read.await?)
    }

    async fn end_account(&self, user_id: &UserId, erase: bool) -> Result<(), ApiError> {
        let key = user_id.to_string();
        for _ in 0..ATTEMPTS {
            let old = self.0.accounts.get(user_id).await?;
            let old = old.ok_or_else(|| ApiError::not_found("There is no such user"))?;
            let deactivated_ts = old.deactivated_ts.or_else(|| Some(now_ms(&self.0.clock)));
            let new = AccountRow {
                created_ts: old.created_ts,
                deactivated_ts,
                erased: old.erased || erase,
                ..AccountRow::default()
            };
            let (mut batch, told) = self.forget(user_id).await?;
            batch.put(&DEPARTURES, &key, &());
            if new.erased {
                let row = ErasureRow { position: Position::pending(0) };
                batch.put(&ERASED_USERS, &key, &row);
            }
            batch.check(&ACCOUNTS, &key, Some(&Json(old)));
            batch.put(&ACCOUNTS, &key, &Json(new));
            let profile = self.profile_row(&key).await?;
            let words_of = profile.clone().unwrap_or_default();
            directory::update(&mut batch, user_id, Some(&words_of), None);
            batch.check(&PROFILES, &key, profile.map(Json).as_ref());
            batch.delete(&PROFILES, &key);
            batch.delete_range(&ACCOUNT_DATA, ACCOUNT_DATA.prefix(&key));
            batch.delete_range(&ACCOUNT_DATA_CHANGES, ACCOUNT_DATA_CHANGES.prefix(&key));
            batch.delete_range(&PUSH_UNMUTED, PUSH_UNMUTED.prefix(&key));
            batch.delete_range(&FILTERS, FILTERS.prefix(&key));
            batch.delete_range(&FILTERS_BY_HASH, FILTERS_BY_HASH.prefix(&key));
            batch.delete_range(&DEVICES_SEEN, DEVICES_SEEN.prefix(&key));
            let user = self.0.interner.user(user_id);
            batch.touch(topic::user(topic::USER_SESSIONS, user));
            if commit(&self.0.store, batch).await?.is_some() {
                if let Some(told) = told {
                    device_lists::settle(&self.0.store, self.0.interner, told).await?;
                }
                return Ok(());
            }
        }
        Err(busy())
    }
}

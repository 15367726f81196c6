//! Profiles: display name, avatar and further fields of local users.
//!
//! Member events carry copies of the display name and the avatar: whoever changes a profile passes
//! the new one on to the rooms.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#profiles>

use std::sync::Arc;

use kv::{Batch, Json, Store};
use ruma::{MxcUri, OwnedMxcUri, UserId};
use serde_json::Value;

use super::{
    accounts::{ATTEMPTS, busy, commit},
    devices::too_large,
    directory,
};
use crate::{
    config::Config,
    error::ApiError,
    http::{ClientAddress, RateLimiter},
    storage::{
        rows::users::{AccountRow, ProfileRow},
        schema::users::{ACCOUNTS, PROFILES},
    },
};

/// The largest profile, as JSON.
const PROFILE_BYTES_MAX: usize = 64 * 1024;
/// The longest name of a field.
const FIELD_BYTES_MAX: usize = 255;

pub(super) const DISPLAY_NAME: &str = "displayname";
const AVATAR_URL: &str = "avatar_url";

/// A user's profile.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile(ProfileRow);

impl Profile {
    pub(super) fn from_row(row: ProfileRow) -> Self {
        Self(row)
    }

    /// The display name.
    pub fn display_name(&self) -> Option<&str> {
        self.field(DISPLAY_NAME)?.as_str()
    }

    /// The avatar.
    pub fn avatar_url(&self) -> Option<OwnedMxcUri> {
        self.field(AVATAR_URL)?.as_str().map(OwnedMxcUri::from)
    }

    /// Any field.
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.0.0.get(name)
    }

    /// All fields.
    pub fn into_fields(self) -> impl Iterator<Item = (String, Value)> {
        self.0.0.into_iter()
    }
}

/// Whether member events carry a copy of this field.
pub fn is_in_rooms(field: &str) -> bool {
    field == DISPLAY_NAME || field == AVATAR_URL
}

/// Reads and changes profiles.
#[derive(Clone)]
pub struct Profiles {
    store: Store,
    display_name_bytes_max: usize,
    avatar_url_bytes_max: usize,
    lookups: Arc<RateLimiter>,
}

impl Profiles {
    pub(super) fn new(store: Store, config: &Config) -> Self {
        let limits = &config.rate_limits;
        Self {
            store,
            lookups: Arc::new(RateLimiter::of(limits, "profile_lookups", &limits.profile_lookups)),
            display_name_bytes_max: config.limits.display_name_size_bytes_max,
            avatar_url_bytes_max: config.limits.avatar_url_size_bytes_max,
        }
    }

    /// Refuses too many look-ups from one address.
    pub fn limit_lookups(&self, address: ClientAddress) -> Result<(), ApiError> {
        self.lookups.check(address.limit_key())
    }

    /// The profile of a local user; `None`: there is no such user (any more).
    pub async fn get(&self, user_id: &UserId) -> Result<Option<Profile>, ApiError> {
        Ok(self.rows(user_id).await?.map(|(_, row)| Profile(row.unwrap_or_default())))
    }

    /// Sets a field; gives the new profile.
    pub async fn set(
        &self,
        user_id: &UserId,
        field: &str,
        value: Value,
    ) -> Result<Profile, ApiError> {
        check_field(field)?;
        // Clients unset the two old fields by setting them to nothing.
        if is_in_rooms(field) && value.as_str() == Some("") {
            return self.remove(user_id, field).await;
        }
        self.check_value(field, &value)?;
        self.change(user_id, |profile| {
            profile.0.insert(field.to_owned(), value.clone());
        })
        .await
    }

    /// Removes a field, if it is there; gives the new profile.
    pub async fn remove(&self, user_id: &UserId, field: &str) -> Result<Profile, ApiError> {
        check_field(field)?;
        self.change(user_id, |profile| {
            profile.0.remove(field);
        })
        .await
    }

    fn check_value(&self, field: &str, value: &Value) -> Result<(), ApiError> {
        let bytes_max = match field {
            DISPLAY_NAME => self.display_name_bytes_max,
            AVATAR_URL => self.avatar_url_bytes_max,
            _ => return Ok(()),
        };
        let text = value.as_str().ok_or_else(|| ApiError::bad_json("The value is no string"))?;
        if text.len() > bytes_max {
            return Err(too_large("The value is too long"));
        }
        if field == AVATAR_URL && !<&MxcUri>::from(text).is_valid() {
            return Err(ApiError::invalid_param("The avatar is no mxc:// address"));
        }
        Ok(())
    }

    async fn change(
        &self,
        user_id: &UserId,
        change: impl Fn(&mut ProfileRow),
    ) -> Result<Profile, ApiError> {
        let key = user_id.to_string();
        for _ in 0..ATTEMPTS {
            let before = self.rows(user_id).await?;
            let (account, old) =
                before.ok_or_else(|| ApiError::not_found("There is no such user"))?;
            let mut new = old.clone().unwrap_or_default();
            change(&mut new);
            if old.as_ref() == Some(&new) {
                return Ok(Profile(new));
            }
            let size = serde_json::to_vec(&new).map_err(ApiError::internal)?.len();
            if size > PROFILE_BYTES_MAX {
                return Err(ApiError::profile_too_large("The profile is too large"));
            }
            let mut batch = Batch::new();
            let before = old.clone().unwrap_or_default();
            directory::update(&mut batch, user_id, Some(&before), Some(&new));
            // So that nothing is written for an account that is just being deactivated.
            batch.check(&ACCOUNTS, &key, Some(&Json(account)));
            batch.check(&PROFILES, &key, old.map(Json).as_ref());
            batch.put(&PROFILES, &key, &Json(new.clone()));
            if commit(&self.store, batch).await?.is_some() {
                return Ok(Profile(new));
            }
        }
        Err(busy())
    }

    /// The account and the profile, if it was ever changed. `None`: there is no account (any more).
    async fn rows(
        &self,
        user_id: &UserId,
    ) -> Result<Option<(AccountRow, Option<ProfileRow>)>, ApiError> {
        let key = user_id.to_string();
        let read = self.store.read(move |reader| {
            let account = reader.get(&ACCOUNTS, &key)?.map(|Json(account)| account);
            let account = account.filter(|account| account.deactivated_ts.is_none());
            let Some(account) = account else { return Ok(None) };
            let profile = reader.get(&PROFILES, &key)?.map(|Json(row)| row);
            Ok::<_, kv::Error>(Some((account, profile)))
        });
        Ok(read.await?)
    }
}

/// <https://spec.matrix.org/v1.19/appendices/#common-namespaced-identifier-grammar>
fn check_field(field: &str) -> Result<(), ApiError> {
    if field.len() > FIELD_BYTES_MAX {
        return Err(ApiError::key_too_large("The name of the field is too long"));
    }
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    let begins = field.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    let known = is_in_rooms(field) || field.contains('.');
    if begins && known && field.bytes().all(allowed) {
        Ok(())
    } else {
        Err(ApiError::invalid_param("Not a valid name of a profile field"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t90_names_of_fields_keep_to_the_grammar() {
        for field in ["displayname", "avatar_url", "m.tz", "us.cloke.msc4175.tz", "org.a-b.c_d"] {
            check_field(field).unwrap();
        }
        for field in ["", "tz", "M.tz", "m.ä", "m tz.x", ".m.tz", "1.m"] {
            assert_eq!(check_field(field).unwrap_err().errcode, "M_INVALID_PARAM", "{field}");
        }
        let long = format!("m.{}", "x".repeat(254));
        assert_eq!(check_field(&long).unwrap_err().errcode, "M_KEY_TOO_LARGE");
        check_field(&long[..255]).unwrap();
    }
}

//! The dehydrated device (MSC3814): keys that a user leaves behind, so that others can send to them
//! while none of their devices is there, and the next device can read what came.
//!
//! It is no session. Its keys and messages stand in the tables of devices, and it has a row of its own
//! instead of one among them. There is one for each user; another takes its place. Its messages stay
//! until then, however often they are read: a device that reads them may be gone before it is done,
//! and the next one begins anew.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/3814>

use std::sync::Arc;

use kv::{Batch, Json, Position, Reader};
use ruma::{DeviceId, UserId};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    ATTEMPTS, Encryption, Upload, busy, commit,
    device_lists::{self, Told, mark},
    device_names::check_dehydrated,
    ending::{check_active, remove},
    to_device::{PAGE_MAX, Page, page},
    upload::NewKeys,
};
use crate::{
    error::ApiError,
    id::Interner,
    storage::{
        rows::encryption::DehydratedDeviceRow,
        schema::{
            encryption::{DEHYDRATED_DEVICES, ENCRYPTION_EPOCH},
            users::DeviceKey,
        },
    },
};

/// The most that a client may keep in it for itself.
const DEVICE_DATA_BYTES_MAX: usize = 64 * 1024;
/// The longest id, as of other devices.
const DEVICE_ID_BYTES_MAX: usize = 255;

/// What a client makes one of.
#[derive(Debug)]
pub struct NewDehydratedDevice<'a> {
    fields: Fields<'a>,
    keys: Upload<'a>,
}

#[derive(Debug, Deserialize)]
struct Fields<'a> {
    device_id: String,
    #[serde(borrow)]
    device_data: &'a RawValue,
    initial_device_display_name: Option<String>,
}

impl<'a> NewDehydratedDevice<'a> {
    /// Reads the body of a request.
    pub fn parse(body: &'a [u8]) -> Result<Self, ApiError> {
        #[derive(Deserialize)]
        struct Data {
            #[serde(rename = "algorithm")]
            _algorithm: String,
        }
        let invalid = |error| ApiError::bad_json(format!("The device is not valid: {error}"));
        let fields: Fields<'_> = serde_json::from_slice(body).map_err(invalid)?;
        let keys: Upload<'_> = serde_json::from_slice(body).map_err(invalid)?;
        if fields.device_id.is_empty() || fields.device_id.len() > DEVICE_ID_BYTES_MAX {
            return Err(ApiError::invalid_param("The device id is empty or too long"));
        }
        let data = fields.device_data.get();
        if data.len() > DEVICE_DATA_BYTES_MAX {
            return Err(ApiError::too_large(format!(
                "`device_data` has more than {DEVICE_DATA_BYTES_MAX} bytes"
            )));
        }
        serde_json::from_str::<Data>(data).map_err(invalid)?;
        if !keys.has_device_keys() {
            return Err(ApiError::bad_json("The field `device_keys` is missing"));
        }
        Ok(Self { fields, keys })
    }

    /// Its id.
    pub fn device_id(&self) -> &str {
        &self.fields.device_id
    }

    fn row(&self, name_bytes_max: usize) -> DehydratedDeviceRow {
        let Fields { device_id, device_data, initial_device_display_name: name } = &self.fields;
        let cut = |name: &String| name[..name.floor_char_boundary(name_bytes_max)].to_owned();
        DehydratedDeviceRow {
            device_id: device_id.clone(),
            device_data: (*device_data).to_owned(),
            display_name: name.as_ref().map(cut).filter(|name| !name.is_empty()),
        }
    }
}

/// Some of the messages for it.
#[derive(Debug)]
pub struct DehydratedMessages {
    /// The messages; none when all have been read.
    pub events: Vec<Box<RawValue>>,
    /// Where to go on.
    pub next_batch: String,
    /// Whether more wait there.
    pub has_more: bool,
}

impl Encryption {
    /// The dehydrated device of a user, if there is one.
    pub async fn dehydrated_device(
        &self,
        user_id: &UserId,
    ) -> Result<Option<DehydratedDeviceRow>, ApiError> {
        let user = user_id.to_string();
        let read = self.0.store.read(move |reader| reader.get(&DEHYDRATED_DEVICES, &user));
        Ok(read.await?.map(|Json(row)| row))
    }

    /// Makes a dehydrated device with its keys; another one that is there goes. The same again
    /// changes nothing.
    ///
    /// # Errors
    /// 400 `M_INVALID_PARAM` where its name belongs to something else, also to a dehydrated device
    /// with other keys; what is wrong with the keys, as of other devices.
    pub async fn put_dehydrated_device(
        &self,
        user_id: &UserId,
        new: &NewDehydratedDevice<'_>,
    ) -> Result<(), ApiError> {
        let device_id = new.fields.device_id.clone();
        let device = DeviceKey { user_id: user_id.to_string(), device_id };
        let keys = NewKeys::parse(&new.keys, &device, &self.0.config)?;
        let row = new.row(self.0.device_name_bytes_max);
        let wanted = Arc::new(Wanted { device, row, keys });
        for _ in 0..ATTEMPTS {
            let (interner, order) = (self.0.interner, Arc::clone(&wanted));
            let user = user_id.to_owned();
            let read = self.0.store.read(move |reader| order.decide(reader, interner, &user));
            let Some((mut batch, told)) = read.await? else { return Ok(()) };
            self.0.tell_counts(&mut batch, &wanted.device);
            if commit(&self.0.store, batch).await?.is_some() {
                if let Some(told) = told {
                    device_lists::settle(&self.0.store, self.0.interner, told).await?;
                }
                return Ok(());
            }
        }
        Err(busy())
    }

    /// Removes the dehydrated device of a user and gives its id; `None`: there is none.
    pub async fn delete_dehydrated_device(
        &self,
        user_id: &UserId,
    ) -> Result<Option<String>, ApiError> {
        for _ in 0..ATTEMPTS {
            let (interner, user_id) = (self.0.interner, user_id.to_owned());
            let read = self.0.store.read(move |reader| {
                let mut batch = Batch::new();
                let Some(id) = remove_dehydrated(reader, &mut batch, &user_id)? else {
                    return Ok(None);
                };
                let told = mark(reader, &mut batch, interner, &user_id)?;
                Ok::<_, kv::Error>(Some((batch, told, id)))
            });
            let Some((batch, told, device_id)) = read.await? else { return Ok(None) };
            if commit(&self.0.store, batch).await?.is_some() {
                device_lists::settle(&self.0.store, self.0.interner, told).await?;
                return Ok(Some(device_id));
            }
        }
        Err(busy())
    }

    /// The messages for the dehydrated device, from the first one or from where an answer ended.
    ///
    /// # Errors
    /// 403 `M_FORBIDDEN` where this is not the user's dehydrated device, 400 `M_INVALID_PARAM` for
    /// what never was a token.
    pub async fn dehydrated_messages(
        &self,
        user_id: &UserId,
        device_id: &DeviceId,
        next_batch: Option<&str>,
    ) -> Result<DehydratedMessages, ApiError> {
        let token = next_batch.map(Token::parse).transpose()?;
        let device = DeviceKey { user_id: user_id.to_string(), device_id: device_id.to_string() };
        let read = self.0.store.read(move |reader| {
            let row = reader.get(&DEHYDRATED_DEVICES, &device.user_id)?;
            if row.is_none_or(|Json(row)| row.device_id != device.device_id) {
                return Err(ApiError::forbidden("This is not your dehydrated device"));
            }
            let epoch = reader.get(&ENCRYPTION_EPOCH, &0)?.map_or(0, |Json(epoch)| epoch);
            // After a restore, a place says nothing, and all is told again.
            let after = token.filter(|token| token.epoch == epoch).map(|token| token.position);
            let Page { events, last, has_more } =
                page(reader, &device, (after, Position::MAX), PAGE_MAX)?;
            let position = last.or(after).unwrap_or_default();
            let next_batch = Token { epoch, position }.text();
            Ok(DehydratedMessages { events, next_batch, has_more })
        });
        read.await
    }
}

/// A dehydrated device that is what it should be.
struct Wanted {
    device: DeviceKey,
    row: DehydratedDeviceRow,
    keys: NewKeys,
}

impl Wanted {
    /// What making it writes; `None`: it is there already.
    fn decide(
        &self,
        reader: &Reader<'_>,
        interner: Interner,
        user_id: &UserId,
    ) -> Result<Option<(Batch, Option<Told>)>, ApiError> {
        let Self { device, row, keys } = self;
        let mut batch = Batch::new();
        let old = reader.get(&DEHYDRATED_DEVICES, &device.user_id)?;
        let same = old.as_ref().filter(|Json(old)| old.device_id == row.device_id);
        let mut told = keys.put(reader, &mut batch, interner, (user_id, device))?;
        if same.is_some() && told.is_some() {
            let message = "There is such a device with other keys: give the new one a new id";
            return Err(ApiError::invalid_param(message));
        }
        if batch.is_empty() && same.is_some_and(|Json(same)| same == row) {
            return Ok(None);
        }
        if let (Some(Json(old)), None) = (&old, same) {
            let old = DeviceKey { device_id: old.device_id.clone(), ..device.clone() };
            remove(reader, &mut batch, old)?;
        }
        let is_named_alike = same.is_some_and(|Json(same)| same.display_name == row.display_name);
        if told.is_none() && !is_named_alike {
            told = Some(mark(reader, &mut batch, interner, user_id)?);
        }
        check_active(reader, &mut batch, user_id)?;
        check_dehydrated(reader, &mut batch, device)?;
        batch.check(&DEHYDRATED_DEVICES, &device.user_id, old.as_ref());
        batch.put(&DEHYDRATED_DEVICES, &device.user_id, &Json(row.clone()));
        Ok(Some((batch, told)))
    }
}

/// Adds to a batch that the dehydrated device of a user goes, and gives its id. `None`: there is none,
/// and none comes meanwhile.
pub(super) fn remove_dehydrated(
    reader: &Reader<'_>,
    batch: &mut Batch,
    user_id: &UserId,
) -> Result<Option<String>, kv::Error> {
    let user = user_id.to_string();
    let row = reader.get(&DEHYDRATED_DEVICES, &user)?;
    batch.check(&DEHYDRATED_DEVICES, &user, row.as_ref());
    let Some(Json(DehydratedDeviceRow { device_id, .. })) = row else { return Ok(None) };
    batch.delete(&DEHYDRATED_DEVICES, &user);
    remove(reader, batch, DeviceKey { user_id: user, device_id: device_id.clone() })?;
    Ok(Some(device_id))
}

/// A place among the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Token {
    /// The epoch of the database.
    epoch: u64,
    /// The position of the last message that was told.
    position: Position,
}

impl Token {
    fn parse(text: &str) -> Result<Self, ApiError> {
        let token = || {
            let (epoch, position) = text.strip_prefix('d')?.split_once('_')?;
            let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !is_number(epoch) || !is_number(position) {
                return None;
            }
            let epoch = u64::from_str_radix(epoch, 16).ok()?;
            Some(Self { epoch, position: Position::from_u64(position.parse().ok()?) })
        };
        token().ok_or_else(|| ApiError::invalid_param("`next_batch` is not a token of this server"))
    }

    fn text(self) -> String {
        format!("d{:x}_{}", self.epoch, self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_as_it_was_written() {
        for (epoch, position) in [(0, 0), (0xa5, 42), (u64::MAX, u64::MAX >> 1)] {
            let token = Token { epoch, position: Position::from_u64(position) };
            assert_eq!(Token::parse(&token.text()).unwrap(), token);
        }
    }

    #[test]
    fn t89_garbage_is_refused() {
        for text in
            ["", "d", "d_", "d1_", "d_1", "1_1", "sa5_42", "d1_x", "d+1_1", "d1_-1", "d1_1_1"]
        {
            let error = Token::parse(text).unwrap_err();
            assert_eq!(&*error.errcode, "M_INVALID_PARAM", "{text}");
        }
    }
}

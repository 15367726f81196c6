//! Reading keys of a backup: written as JSON straight from the rows, a page at a time.
//!
//! A backup may have hundreds of megabytes, so that no answer stands in memory whole. Each page is
//! read from a view of its own: what changes meanwhile is told as it was or as it is. An answer
//! breaks off when the version is deleted under it.

use std::{
    io::Write,
    ops::{Bound, ControlFlow},
};

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use kv::{Direction, KeyRange, Reader, Store};
use ruma::{RoomId, UserId};

use super::existing;
use crate::{
    encryption::{Encryption, PagedJson},
    error::ApiError,
    storage::{
        rows::encryption::BackupKeyRow,
        schema::encryption::{BACKUP_KEYS, BackupKeyKey},
    },
};

/// When a page is full.
const PAGE_BYTES: usize = 256 * 1024;

/// Whose keys are written.
#[derive(Clone)]
struct Wanted {
    user: String,
    version: String,
    /// Those of this room alone.
    room_id: Option<String>,
}

/// Some of the keys.
struct Page {
    json: Vec<u8>,
    /// The last one, when there may be more.
    last: Option<BackupKeyKey>,
}

impl Encryption {
    /// The key of a session.
    ///
    /// # Errors
    /// `M_NOT_FOUND`, for a version or a key that is not there.
    pub async fn backup_key(
        &self,
        user_id: &UserId,
        version: &str,
        (room_id, session_id): (&RoomId, &str),
    ) -> Result<BackupKeyRow, ApiError> {
        let (user_id, version) = (user_id.to_string(), version.to_owned());
        let (room_id, session_id) = (room_id.to_string(), session_id.to_owned());
        let read = self.0.store.read(move |reader| {
            let (version, _) = existing(reader, &user_id, &version)?;
            let (user_id, room_id) = (user_id.clone(), room_id.clone());
            let key = BackupKeyKey { user_id, version, room_id, session_id: session_id.clone() };
            let row = reader.get(&BACKUP_KEYS, &key)?;
            row.ok_or_else(|| ApiError::not_found("The backup has no key of this session"))
        });
        read.await
    }

    /// The keys of a version, or those of a room in it, as the specification has the answer.
    ///
    /// # Errors
    /// `M_NOT_FOUND`, for a version that is not there.
    pub async fn backup_keys(
        &self,
        user_id: &UserId,
        version: &str,
        room_id: Option<&RoomId>,
    ) -> Result<PagedJson, ApiError> {
        let wanted = Wanted {
            user: user_id.to_string(),
            version: version.to_owned(),
            room_id: room_id.map(ToString::to_string),
        };
        let store = self.0.store.clone();
        let Page { json, last } = read_page(&store, &wanted, None).await?;
        let rest = last.map(|last| -> BoxStream<'static, _> {
            Box::pin(stream::try_unfold(Some(last), move |after| {
                let (store, wanted) = (store.clone(), wanted.clone());
                async move {
                    let Some(after) = after else { return Ok(None) };
                    let page = read_page(&store, &wanted, Some(after)).await;
                    let Page { json, last } = page.inspect_err(|error| {
                        tracing::warn!(%error, "an answer with the keys of a backup broke off");
                    })?;
                    Ok(Some((Bytes::from(json), last)))
                }
            }))
        });
        Ok(PagedJson { first: json.into(), rest })
    }
}

async fn read_page(
    store: &Store,
    wanted: &Wanted,
    after: Option<BackupKeyKey>,
) -> Result<Page, ApiError> {
    let wanted = wanted.clone();
    store.read(move |reader| page(reader, &wanted, after.as_ref())).await
}

fn page(
    reader: &Reader<'_>,
    wanted: &Wanted,
    after: Option<&BackupKeyKey>,
) -> Result<Page, ApiError> {
    let (version, _) = existing(reader, &wanted.user, &wanted.version)?;
    let range = range(wanted, version, after);
    let mut writer = Writer {
        json: Vec::new(),
        by_room: wanted.room_id.is_none(),
        room_id: after.map(|after| after.room_id.clone()),
    };
    if after.is_none() {
        writer.begin();
    }
    let mut last = None;
    reader.for_each(&BACKUP_KEYS, &range, Direction::Forward, |key, row| {
        writer.key(&key, &row);
        if writer.json.len() < PAGE_BYTES {
            ControlFlow::Continue(())
        } else {
            last = Some(key);
            ControlFlow::Break(())
        }
    })?;
    if last.is_none() {
        writer.end();
    }
    Ok(Page { json: writer.json, last })
}

fn range(wanted: &Wanted, version: u64, after: Option<&BackupKeyKey>) -> KeyRange {
    let all = (wanted.user.clone(), version);
    let room = wanted.room_id.clone().map(|room_id| (wanted.user.clone(), version, room_id));
    match (after, room) {
        (None, None) => BACKUP_KEYS.prefix(&all),
        (None, Some(room)) => BACKUP_KEYS.prefix(&room),
        (Some(after), None) => BACKUP_KEYS.range(Bound::Excluded(after), Bound::Included(&all)),
        (Some(after), Some(room)) => {
            BACKUP_KEYS.range(Bound::Excluded(after), Bound::Included(&room))
        }
    }
}

/// Writes keys one after the other into the objects that they belong in.
struct Writer {
    json: Vec<u8>,
    /// Whether there is an object for each room.
    by_room: bool,
    /// The room of the key before.
    room_id: Option<String>,
}

impl Writer {
    fn begin(&mut self) {
        self.raw(if self.by_room { "{\"rooms\":{" } else { "{\"sessions\":{" });
    }

    fn key(&mut self, key: &BackupKeyKey, row: &BackupKeyRow) {
        let is_same_room = self.room_id.as_ref() == Some(&key.room_id);
        if is_same_room {
            self.raw(",");
        } else if self.by_room {
            self.raw(if self.room_id.is_some() { "}}," } else { "" });
            self.string(&key.room_id);
            self.raw(":{\"sessions\":{");
        }
        if !is_same_room {
            self.room_id = Some(key.room_id.clone());
        }
        self.string(&key.session_id);
        self.raw(":");
        write_key(&mut self.json, row);
    }

    fn end(&mut self) {
        self.raw(if self.by_room && self.room_id.is_some() { "}}}}" } else { "}}" });
    }

    fn raw(&mut self, text: &str) {
        self.json.extend_from_slice(text.as_bytes());
    }

    fn string(&mut self, text: &str) {
        serde_json::to_writer(&mut self.json, text).expect("a string can be written to memory");
    }
}

/// Appends a key as clients write it.
pub fn write_key(json: &mut Vec<u8>, row: &BackupKeyRow) {
    let BackupKeyRow { first_message_index, forwarded_count, is_verified, session_data } = row;
    write!(
        json,
        "{{\"first_message_index\":{first_message_index},\"forwarded_count\":{forwarded_count},\
         \"is_verified\":{is_verified},\"session_data\":"
    )
    .expect("memory can be written to");
    json.extend_from_slice(session_data);
    json.push(b'}');
}

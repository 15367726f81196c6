//! The answer to `/keys/query`, page by page.
//!
//! The devices come first and are sent as they are read. The cross-signing keys of the same users, of
//! which there are three at most, are read on the same view as their devices, and wait for the end.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use ruma::OwnedUserId;

use super::{CrossSigningKeys, Target, UserKeys, to_json, user_keys};
use crate::{
    encryption::{Encryption, PagedJson},
    error::ApiError,
};

/// The most users that are read on one view, which holds up nothing else for long.
const USERS_PER_PAGE: usize = 100;
/// When a page is full; the devices of its last user may go beyond.
const PAGE_BYTES: usize = 256 * 1024;

/// One of a user's cross-signing keys.
type KeyOf = fn(&CrossSigningKeys) -> Option<&Vec<u8>>;

/// An answer that is being written.
pub(super) struct Answering {
    encryption: Encryption,
    asker: OwnedUserId,
    targets: Arc<[Target]>,
    /// Those whose devices are written. One more than there are: all is written.
    written: usize,
    cross_signing: Vec<(OwnedUserId, CrossSigningKeys)>,
}

impl Answering {
    pub(super) fn new(encryption: Encryption, asker: OwnedUserId, targets: Arc<[Target]>) -> Self {
        Self { encryption, asker, targets, written: 0, cross_signing: Vec::new() }
    }

    /// Reads the first page; the others are read as they are sent.
    pub(super) async fn begin(mut self) -> Result<PagedJson, ApiError> {
        let first = self.page().await?;
        if self.is_over() {
            return Ok(PagedJson { first, rest: None });
        }
        let rest = stream::try_unfold(self, async |mut answering| {
            if answering.is_over() {
                return Ok(None);
            }
            let page = answering.page().await.inspect_err(|error| {
                tracing::warn!(%error, "an answer with the keys of devices broke off");
            })?;
            Ok(Some((page, answering)))
        });
        Ok(PagedJson { first, rest: Some(Box::pin(rest)) })
    }

    fn is_over(&self) -> bool {
        self.written > self.targets.len()
    }

    async fn page(&mut self) -> Result<Bytes, ApiError> {
        let (targets, asker, from) = (self.targets.clone(), self.asker.clone(), self.written);
        let parts = &self.encryption.0;
        let names_visible = parts.config.device_names_visible;
        let read = parts.store.read(move |reader| {
            let (mut users, mut size_bytes) = (Vec::new(), 0);
            for target in targets.iter().skip(from).take(USERS_PER_PAGE) {
                if size_bytes >= PAGE_BYTES {
                    break;
                }
                let keys = user_keys(reader, target, &asker, names_visible)?;
                size_bytes += keys.devices.iter().map(|(_, json)| json.len()).sum::<usize>();
                users.push(keys);
            }
            Ok::<_, kv::Error>(users)
        });
        let users = read.await?;
        let mut out = Vec::new();
        write_devices(&mut out, from, &users);
        self.written += users.len();
        self.cross_signing.extend(users.into_iter().map(|user| (user.user_id, user.cross_signing)));
        if self.written == self.targets.len() {
            write_end(&mut out, &self.cross_signing);
            self.written += 1;
        }
        Ok(out.into())
    }
}

/// Writes the devices of users, the first of which comes after `written` others.
pub(super) fn write_devices(out: &mut Vec<u8>, written: usize, users: &[UserKeys]) {
    if written == 0 {
        out.extend_from_slice(b"{\"device_keys\":{");
    }
    for (index, user) in (written..).zip(users) {
        if index > 0 {
            out.push(b',');
        }
        field(out, user.user_id.as_str(), |out| {
            object(out, user.devices.iter(), |out, (device_id, json)| {
                field(out, device_id, |out| out.extend_from_slice(json));
            });
        });
    }
}

/// Writes what comes after the devices.
pub(super) fn write_end(out: &mut Vec<u8>, users: &[(OwnedUserId, CrossSigningKeys)]) {
    out.extend_from_slice(b"},\"failures\":{}");
    let kinds: [(&str, KeyOf); 3] = [
        ("master_keys", |keys| keys.master.as_ref()),
        ("self_signing_keys", |keys| keys.self_signing.as_ref()),
        ("user_signing_keys", |keys| keys.user_signing.as_ref()),
    ];
    for (name, of) in kinds {
        out.push(b',');
        field(out, name, |out| {
            let keys = users.iter().filter_map(|(user_id, keys)| Some((user_id, of(keys)?)));
            object(out, keys, |out, (user_id, json)| {
                field(out, user_id.as_str(), |out| out.extend_from_slice(json));
            });
        });
    }
    out.push(b'}');
}

/// Writes an object, each field of which `write` writes.
fn object<T>(
    out: &mut Vec<u8>,
    items: impl Iterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'{');
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b'}');
}

fn field(out: &mut Vec<u8>, name: &str, value: impl FnOnce(&mut Vec<u8>)) {
    out.extend(to_json(name));
    out.push(b':');
    value(out);
}

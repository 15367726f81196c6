//! A proven e-mail address, until it is used up.

use kv::{Batch, Json, Store};

use super::ends;
use crate::{
    error::ApiError,
    storage::{
        rows::accounts::EmailSessionRow,
        schema::accounts::{EMAIL_SESSION_ENDS, EMAIL_SESSIONS},
    },
};

/// A proof that somebody has an e-mail address; good once.
#[derive(Clone, Debug)]
pub struct ProvenEmail {
    key: [u8; 32],
    row: EmailSessionRow,
    validated_ts: u64,
}

impl ProvenEmail {
    /// The proof of a session, if it is one yet.
    pub(super) fn new(key: [u8; 32], row: EmailSessionRow) -> Option<Self> {
        row.validated_ts.map(|validated_ts| Self { key, row, validated_ts })
    }

    /// The address.
    pub fn address(&self) -> &str {
        &self.row.address
    }

    /// When it was proven, in milliseconds.
    pub fn validated_ts(&self) -> u64 {
        self.validated_ts
    }

    /// Uses the proof up with a batch, which conflicts where that has happened before.
    pub(in crate::users) fn use_up(&self, batch: &mut Batch) {
        batch.check(&EMAIL_SESSIONS, &self.key, Some(&Json(self.row.clone())));
        batch.delete(&EMAIL_SESSIONS, &self.key);
        batch.delete(&EMAIL_SESSION_ENDS, &ends(self.key, &self.row));
    }

    /// Refuses a proof that is used up.
    pub(in crate::users) async fn check_unused(&self, store: &Store) -> Result<(), ApiError> {
        let key = self.key;
        let row = store.read(move |reader| reader.get(&EMAIL_SESSIONS, &key)).await?;
        let is_unused = row.is_some_and(|Json(row)| row == self.row);
        if is_unused { Ok(()) } else { Err(unknown()) }
    }
}

/// The answer to a proof that is none.
pub(super) fn unknown() -> ApiError {
    ApiError::threepid_auth_failed("There is no such proof of an address (any more)")
}

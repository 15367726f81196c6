//! The history of thread subscriptions (MSC4308): what did not fit into an answer of sliding sync.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/4308>

use kv::Position;
use ruma::{OwnedRoomId, OwnedUserId};

use super::pos::{position, thread_position, thread_token};
use crate::{error::ApiError, sync::Sync, users::ThreadSubscription};

/// The most changes of one page.
const LIMIT_MAX: u64 = 100;

/// Some changes, the newest first.
#[derive(Clone, Debug, Default)]
pub struct ThreadPage {
    /// The changes.
    pub changes: Vec<(OwnedRoomId, ThreadSubscription)>,
    /// Where the next page begins, if there is one.
    pub end: Option<String>,
}

impl Sync {
    /// A page of the changes before `from` and after `to`.
    ///
    /// # Errors
    /// `M_INVALID_PARAM` for a token that never was one.
    pub async fn thread_subscriptions(
        &self,
        user_id: OwnedUserId,
        (from, to): (Option<&str>, Option<&str>),
        limit: Option<u64>,
    ) -> Result<ThreadPage, ApiError> {
        let invalid = || ApiError::invalid_param("This is not a token of thread subscriptions");
        let limit = limit.unwrap_or(LIMIT_MAX).min(LIMIT_MAX);
        let limit = usize::try_from(limit).map_err(ApiError::internal)?;
        if limit == 0 {
            return Err(ApiError::invalid_param("limit must be greater than zero"));
        }
        let newest = self.0.sources.rooms.store().position();
        let before = from.map(|from| thread_position(from).ok_or_else(invalid)).transpose()?;
        let after = match to {
            None => Position::ZERO,
            Some(to) => match thread_position(to) {
                Some(position) => position,
                // A token of a time that is gone ends nothing.
                None => position(to, self.0.epoch, newest).unwrap_or_default(),
            },
        };
        let sources = self.0.sources.clone();
        let store = sources.rooms.store().clone();
        store
            .read(move |reader| {
                let threads = sources.users.thread_subscriptions();
                let bounds = (after, before);
                let mut rows = threads.changes(reader, &user_id, bounds, limit + 1)?;
                let mut page = ThreadPage::default();
                if rows.len() > limit {
                    rows.truncate(limit);
                    page.end = rows.last().map(|last| thread_token(last.row.position));
                }
                for change in rows {
                    if let Some(room) = sources.rooms.room_by_nid(reader, change.room)? {
                        page.changes.push((room.id.clone(), change));
                    }
                }
                Ok(page)
            })
            .await
    }
}

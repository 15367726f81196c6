//! What a user is told of their delayed events.
//!
//! Those that wait come first, in the order in which they were handed in, then those that came to
//! their end, newest first. The token of a page names its last event.

use kv::{Direction, Reader};
use ruma::{OwnedUserId, UserId};

use super::{
    DelayedEvents, no_such_event,
    store::{FINALIZED, SCHEDULED},
};
use crate::{
    error::ApiError,
    storage::{
        rows::delayed_events::DelayedEventRow,
        schema::delayed_events::{DELAYED_EVENTS_BY_USER, DelayedUserKey},
    },
};

/// How many events a page has at most.
const PAGE_MAX: usize = 50;
/// How many bytes of contents a page has at most, about.
const PAGE_BYTES_MAX: usize = 1024 * 1024;

/// Which events are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Those that wait.
    Scheduled,
    /// Those that came to their end.
    Finalized,
}

/// Events with their ids, in order, and the token of the next page.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The events.
    pub events: Vec<(String, DelayedEventRow)>,
    /// The token of the next page.
    pub next_batch: Option<String>,
}

impl DelayedEvents {
    /// One event of a user.
    ///
    /// # Errors
    /// 404 when there is none, or it is another user's.
    pub async fn get(&self, user_id: &UserId, delay_id: &str) -> Result<DelayedEventRow, ApiError> {
        let row = self.load(delay_id).await?.filter(|row| row.user_id == user_id);
        row.ok_or_else(no_such_event)
    }

    /// The events of a user: all, or those of one status.
    ///
    /// # Errors
    /// 400 when `from` is no token of this list.
    pub async fn list(
        &self,
        user_id: OwnedUserId,
        status: Option<Status>,
        from: Option<&str>,
    ) -> Result<Page, ApiError> {
        let from = from.map(parse_token).transpose()?;
        self.database()
            .read(move |reader| {
                let mut page = Page::default();
                let mut bytes = 0;
                for key in keys(reader, user_id.as_str(), status)? {
                    if from.as_ref().is_some_and(|from| order(&key) <= *from) {
                        continue;
                    }
                    if page.events.len() >= PAGE_MAX || bytes > PAGE_BYTES_MAX {
                        page.next_batch = page.events.last().map(|(id, row)| token(id, row));
                        break;
                    }
                    if let Some(row) = Self::row(reader, &key.delay_id)? {
                        bytes += row.content.to_string().len();
                        page.events.push((key.delay_id, row));
                    }
                }
                Ok(page)
            })
            .await
    }
}

/// The keys of a user's events in the order of the list: a few hundred at most.
fn keys(
    reader: &Reader<'_>,
    user_id: &str,
    status: Option<Status>,
) -> Result<Vec<DelayedUserKey>, ApiError> {
    let mut keys = Vec::new();
    for (wanted, class, direction) in [
        (Status::Scheduled, SCHEDULED, Direction::Forward),
        (Status::Finalized, FINALIZED, Direction::Backward),
    ] {
        if status.is_none_or(|status| status == wanted) {
            let range = DELAYED_EVENTS_BY_USER.prefix(&(user_id.to_owned(), class));
            let found = reader.scan(&DELAYED_EVENTS_BY_USER, &range, direction, usize::MAX)?;
            keys.extend(found.into_iter().map(|(key, ())| key));
        }
    }
    keys.sort_by_cached_key(order);
    Ok(keys)
}

type Order = (u8, u64, String);

/// What sorts the list: the newest of those that came to their end first.
fn order(key: &DelayedUserKey) -> Order {
    let ts = if key.finalized == FINALIZED { u64::MAX - key.ts } else { key.ts };
    (key.finalized, ts, key.delay_id.clone())
}

fn token(delay_id: &str, row: &DelayedEventRow) -> String {
    let (class, ts, delay_id) = order(&super::store::user_key(delay_id, row));
    format!("{class}.{ts}.{delay_id}")
}

fn parse_token(token: &str) -> Result<Order, ApiError> {
    let mut parts = token.splitn(3, '.');
    let mut part = || parts.next().unwrap_or_default().to_owned();
    match (part().parse(), part().parse(), part()) {
        (Ok(class), Ok(ts), delay_id) => Ok((class, ts, delay_id)),
        _ => Err(ApiError::invalid_param("`from` is no token of this list")),
    }
}

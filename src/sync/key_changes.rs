//! `GET /keys/changes`: what device lists a client that was away must ask for.
//!
//! The same that a sync tells, between two tokens of it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3keyschanges>

use kv::Position;
use ruma::{OwnedUserId, api::client::filter::EventFormat};

use super::{
    Sync,
    connections::Members,
    filter::SyncFilter,
    room_table::{Look, News},
    streams::{
        Step,
        device_lists::{self, DeviceLists},
    },
    token::SyncToken,
};
use crate::{
    error::ApiError,
    rooms::render::{Detail, Form},
};

impl Sync {
    /// What changed between two tokens of `/sync`. After a restore nothing is known of what `from`
    /// was: then everybody with whom the user shares a room may have changed. What comes after `to`
    /// is told too: of several changes of a user only the last is known, and the next sync tells the
    /// rest once more.
    ///
    /// Mostly it reads what changed since `from`. Where that is of another epoch, or older than a
    /// membership of the user, whole rooms are read, all members of each: `charge` says whether.
    ///
    /// # Errors
    /// `M_INVALID_PARAM` for what never was a token; what `charge` says.
    pub(crate) async fn key_changes(
        &self,
        user_id: &OwnedUserId,
        (from, to): (&str, &str),
        charge: impl FnOnce() -> Result<(), ApiError> + Send,
    ) -> Result<DeviceLists, ApiError> {
        let (from, to) = (SyncToken::parse(from)?, SyncToken::parse(to)?);
        let newest = self.0.sources.rooms.store().position();
        self.0.notifier.wait_until(newest).await;
        let since = from.since(self.0.epoch, newest);
        let until = to.since(self.0.epoch, newest).unwrap_or(newest);
        if since.is_some_and(|since| until <= since) {
            return Ok(DeviceLists::default());
        }
        match self.0.notifier.look(user_id, since).await? {
            Look::Nothing(_) => Ok(DeviceLists::default()),
            Look::News(news) => {
                let since = since.unwrap_or_default();
                if news.memberships.iter().any(|(_, row)| row.position > since) {
                    charge()?;
                }
                self.device_lists(user_id, since, news).await
            }
        }
    }

    /// Reads what `news` says of device lists, in one step.
    pub(super) async fn device_lists(
        &self,
        user_id: &OwnedUserId,
        since: Position,
        news: News,
    ) -> Result<DeviceLists, ApiError> {
        let (sources, user_id) = (self.0.sources.clone(), user_id.clone());
        let store = sources.rooms.store().clone();
        store
            .read(move |reader| {
                // Nothing is rendered, so how does not matter.
                let form = Form {
                    format: EventFormat::Client,
                    room_id: false,
                    device_id: None,
                    now: sources.rooms.clock().now(),
                    detail: Detail::Full,
                };
                let step = Step {
                    sources: &sources,
                    reader,
                    filter: &SyncFilter::default(),
                    user_id: &user_id,
                    form,
                    now: news.now,
                    known: &Members::new(),
                    told: Members::new(),
                    ignored: std::collections::HashSet::new(),
                };
                device_lists::read(&step, since, &news)
            })
            .await
    }
}

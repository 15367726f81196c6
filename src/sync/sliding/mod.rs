//! Simplified sliding sync (MSC4186): the rooms a client looks at, and what is new in them.
//!
//! A connection remembers in memory what its client was told; see `connection`. The poll waits on
//! the same notifier as `/sync` and reads with the same streams; without news it reads nothing from
//! storage. After a restart of the server all clients begin anew (`M_UNKNOWN_POS`).
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/4186>

mod answer;
mod build;
pub(super) mod connection;
mod extensions;
pub(super) mod lists;
mod others;
mod pos;
mod request;
mod room;
mod state;
mod threads;

use std::{sync::Arc, time::Duration};

use kv::Position;
use ruma::{OwnedDeviceId, OwnedUserId, api::client::sync::sync_events::v5};
use tokio::time::Instant;

pub use self::threads::ThreadPage;
use self::{
    answer::{Answer, ExtensionAnswers, ListAnswer},
    build::{Build, Inbox},
    connection::{Base, Delta, Key, Opened},
    request::{Extensions, Wanted},
};
use super::{
    Sync,
    connections::DeviceKey,
    filter::SyncFilter,
    room_table::{Look, News},
    streams::{Step, account_data},
    token::SyncToken,
};
use crate::{
    ephemeral::{PresenceState, Syncing},
    error::ApiError,
    http::SessionId,
    rooms::render::{Detail, Form},
    users::expired_token,
};

/// Who asks.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The user.
    pub user_id: OwnedUserId,
    /// The device.
    pub device_id: OwnedDeviceId,
    /// The session: when it ends, so does the poll.
    pub session: SessionId,
}

impl Caller {
    fn device(&self) -> DeviceKey {
        (self.user_id.clone(), self.device_id.clone())
    }
}

/// A request, checked; small enough to wait with.
struct Asked {
    caller: Caller,
    wanted: Arc<Wanted>,
    key: Key,
    opened: Opened,
    inbox: Inbox,
    txn_id: Option<String>,
}

impl Sync {
    /// Answers sliding sync as JSON. What does not wait is boxed, as in [`Sync::v3`].
    pub async fn sliding(
        &self,
        caller: Caller,
        request: Box<v5::Request>,
    ) -> Result<Vec<u8>, ApiError> {
        let timeout = match &request.pos {
            Some(_) => request.timeout.unwrap_or_default().min(self.0.timeout_max),
            None => Duration::ZERO,
        };
        let deadline = Instant::now() + timeout;
        let (asked, _syncing) = Box::pin(self.begin_sliding(caller, request)).await?;
        let (mut answer, delta) = self.poll_sliding(&asked, deadline).await?;
        let position = delta.position;
        Box::pin(self.finish_extensions(&asked.caller, &mut answer.extensions)).await?;
        let number = self.0.sliding.close(&asked.key, &asked.opened, delta);
        let token = SyncToken { epoch: self.0.epoch, position, inbox: None };
        let answer = Answer { txn_id: asked.txn_id, pos: pos::write(token, number), ..answer };
        serde_json::to_vec(&answer).map_err(ApiError::internal)
    }

    /// Reads a request, and notes that the device syncs until the guard is dropped.
    async fn begin_sliding(
        &self,
        caller: Caller,
        request: Box<v5::Request>,
    ) -> Result<(Asked, Option<Syncing>), ApiError> {
        request::check_ids(request.conn_id.as_deref(), request.txn_id.as_deref())?;
        let interner = *self.0.sources.rooms.interner();
        let wanted = Arc::new(Wanted::compile(
            &request.lists,
            &request.room_subscriptions,
            &request.extensions,
            (&caller.user_id, &interner),
        )?);
        // ruma does not tell "online" from nothing, which means online too.
        let presence =
            match request.set_presence.as_str() {
                "online" => None,
                name => Some(PresenceState::from_name(name).ok_or_else(|| {
                    ApiError::invalid_param("set_presence is no state of presence")
                })?),
            };
        let v5::Request { pos, conn_id, txn_id, extensions, .. } = *request;
        // What never was an answer's number is that of no answer.
        let pos = pos.map(|pos| pos::answer(&pos).unwrap_or_default());
        // Whatever was answered before this request came must be seen by it.
        let newest = self.0.sources.rooms.store().position();
        self.0.notifier.wait_until(newest).await;
        let key: Key =
            (caller.user_id.clone(), caller.device_id.clone(), conn_id.unwrap_or_default());
        let opened = self.0.sliding.open(&key, pos)?;
        let inbox = self.inbox(&caller, extensions.to_device.since.as_deref(), (&wanted, newest));
        let asked = Asked { caller, wanted, key, opened, inbox, txn_id };
        let (user_id, device_id) = (&asked.caller.user_id, &asked.caller.device_id);
        let syncing = self.0.sources.presence.syncs(user_id, device_id, presence).await?;
        Ok((asked, syncing))
    }

    /// What the client has of the messages for its device, by the extension's own token. The store
    /// need not keep them any more.
    fn inbox(
        &self,
        caller: &Caller,
        since: Option<&str>,
        (wanted, newest): (&Wanted, Position),
    ) -> Inbox {
        let epoch = self.0.epoch;
        let since = since.filter(|_| wanted.extensions.to_device.is_some());
        let since = since.and_then(|since| pos::device_position(since, epoch, newest));
        if let Some(since) = since {
            self.remove_messages(&caller.device(), (since, newest));
        }
        Inbox { epoch, since }
    }

    /// Adds what every answer tells, and notes what is told.
    async fn finish_extensions(
        &self,
        caller: &Caller,
        extensions: &mut ExtensionAnswers,
    ) -> Result<(), ApiError> {
        let device = caller.device();
        if let Some(told) = extensions.to_device.as_ref().and_then(|messages| messages.told) {
            self.0.connections.tell_messages(&device, told.last);
        }
        if let Some(e2ee) = extensions.e2ee.take() {
            extensions.e2ee = Some(e2ee.with_keys(&*self.key_counts(&device).await?));
        }
        Ok(())
    }

    /// Whether the client was not told the counts of the device's keys yet, as they are.
    async fn keys_are_news(&self, asked: &Asked) -> Result<bool, ApiError> {
        if !asked.wanted.extensions.e2ee {
            return Ok(false);
        }
        let Some(told) = asked.opened.base.device_lists else { return Ok(true) };
        Ok(self.key_counts(&asked.caller.device()).await?.changed > told)
    }

    /// Waits until there is something to tell, or until the time is over.
    async fn poll_sliding(
        &self,
        asked: &Asked,
        deadline: Instant,
    ) -> Result<(Answer, Delta), ApiError> {
        let caller = &asked.caller;
        let base = &asked.opened.base;
        let mut changes = self.0.notifier.changes(self.0.notifier.user(&caller.user_id));
        let mut stopped = self.0.notifier.stopped();
        let mut poll = None;
        // The first look must find what the client newly wants.
        let messages =
            asked.wanted.extensions.to_device.is_none() || asked.inbox.goes_on_from(base);
        let mut since = base.position.filter(|_| base.wanted == asked.wanted && messages);
        let mut last = None;
        let session_end = self.session_end(&caller.session);
        loop {
            changes.borrow_and_update();
            let (built, now) = Box::pin(self.tell_sliding(asked, since)).await?;
            if let Some(built) = built {
                let tells = base.position.is_none() || !built.0.is_empty();
                if tells || Box::pin(self.keys_are_news(asked)).await? {
                    return Ok(*built);
                }
                last = Some(built);
            }
            since = Some(now);
            let over = |last: Option<Box<(Answer, Delta)>>, now: Position| {
                // Nothing that came after the last build concerns the client.
                let (answer, delta) = last.map_or_else(|| quiet(asked, now), |last| *last);
                Ok((answer, Delta { position: now, ..delta }))
            };
            if Instant::now() >= deadline || *stopped.borrow() {
                return over(last, now);
            }
            let poll = poll.get_or_insert_with(|| self.0.connections.open_poll(caller.device()));
            tokio::select! {
                // The sender lives as long as `self`.
                _ = changes.changed() => {}
                () = tokio::time::sleep_until(deadline.min(session_end)) => {}
                () = poll.ended() => return over(last, now),
                () = asked.opened.ended() => return over(last, now),
                _ = stopped.changed() => {}
            }
            if Instant::now() >= session_end {
                return Err(expired_token());
            }
        }
    }

    /// The answer, where something may be new since then, and what that is true at.
    async fn tell_sliding(
        &self,
        asked: &Asked,
        since: Option<Position>,
    ) -> Result<(Option<Box<(Answer, Delta)>>, Position), ApiError> {
        let caller = &asked.caller;
        self.check_session(&caller.user_id, &caller.session).await?;
        match self.0.notifier.look(&caller.user_id, since).await? {
            Look::Nothing(now) => return Ok((None, now)),
            Look::News(news) if concerns_others(&news, since, &asked.wanted) => {
                return Ok((None, news.now));
            }
            Look::News(_) => {}
        }
        let news = self.everything(&caller.user_id).await?;
        let now = news.now;
        let built = self.build_sliding(asked, news).await?;
        Ok((Some(Box::new(built)), now))
    }

    /// Reads the answer, in one step.
    async fn build_sliding(&self, asked: &Asked, news: News) -> Result<(Answer, Delta), ApiError> {
        let (sources, facts) = (self.0.sources.clone(), self.0.room_facts.clone());
        let (caller, wanted) = (asked.caller.clone(), asked.wanted.clone());
        let (base, inbox): (Arc<Base>, _) = (asked.opened.base.clone(), asked.inbox);
        let store = sources.rooms.store().clone();
        store
            .read(move |reader| {
                let filter = SyncFilter::default();
                let mut step = Step {
                    sources: &sources,
                    reader,
                    filter: &filter,
                    user_id: &caller.user_id,
                    form: Form {
                        format: ruma::api::client::filter::EventFormat::Client,
                        room_id: false,
                        device_id: Some(caller.device_id.clone()),
                        now: sources.rooms.clock().now(),
                        detail: Detail::Full,
                    },
                    now: news.now,
                    known: &base.members,
                    told: super::connections::Members::new(),
                    ignored: std::collections::HashSet::new(),
                };
                step.ignored = account_data::read_ignored_users(&step)?;
                Build::new(step, &wanted, (&base, inbox))?.answer(&news, &facts)
            })
            .await
    }
}

/// Whether only something changed that this client is not told: the presence of others; on a
/// connection for encryption what happens in rooms, and on one for rooms what happens to devices.
fn concerns_others(news: &News, since: Option<Position>, wanted: &Wanted) -> bool {
    let Some(since) = since else { return false };
    let &Extensions { to_device, e2ee, threads, .. } = &wanted.extensions;
    let (devices, lists) = (news.devices > since, news.device_lists > since);
    let members = || news.rooms.iter().any(|(_, positions)| positions.members > since);
    let rooms = !news.rooms.is_empty() || news.account_data;
    // What is not said by kind changed where nothing else did: only threads matter then.
    let is_known = news.presence || devices || lists || rooms;
    is_known
        && threads.is_none()
        && !(rooms && wanted.looks_at_rooms())
        && !(devices && (to_device.is_some() || e2ee))
        && !(e2ee && (lists || members()))
        && news.memberships.iter().all(|(_, row)| row.position <= since)
}

/// The answer when nothing at all has happened.
fn quiet(asked: &Asked, now: Position) -> (Answer, Delta) {
    let base = &asked.opened.base;
    let mut answer = Answer::default();
    for (list, &count) in asked.wanted.lists.iter().zip(&base.counts) {
        answer.lists.insert(list.name.clone(), ListAnswer { count });
    }
    answer.extensions = ExtensionAnswers::nothing(&asked.wanted.extensions, asked.inbox.token(now));
    let mut delta = Delta::none(base, now);
    if asked.wanted.extensions.e2ee {
        delta.device_lists = Some(now);
    }
    (answer, delta)
}

//! `GET /sync`: the long poll, and the building of its answer in one read step.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#syncing>

mod answer;
mod joined;
mod others;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kv::{Position, Reader};
use ruma::{
    OwnedDeviceId, OwnedUserId,
    api::client::filter::{EventFormat, FilterDefinition},
};
use tokio::time::Instant;

use self::answer::Answer;
pub use self::answer::StateForm;
use super::{
    Sync,
    connections::{DeviceKey, Members},
    filter::SyncFilter,
    room_table::{Look, News, RoomPositions},
    streams::{
        Step,
        account_data::{self, AccountData},
        device_lists, presence,
        to_device::{self, ToldMessages},
    },
    token::SyncToken,
};
use crate::{
    ephemeral::{PresenceState, Syncing},
    error::ApiError,
    http::SessionId,
    id::RoomNid,
    rooms::{
        Room, preferences,
        render::{Detail, Form},
    },
    storage::rows::{Membership, MembershipRow},
    users::expired_token,
};

/// What a client asks for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The user.
    pub user_id: OwnedUserId,
    /// The device.
    pub device_id: OwnedDeviceId,
    /// The session: when it ends, so does the poll.
    pub session: SessionId,
    /// The token of the last answer.
    pub since: Option<String>,
    /// The filter.
    pub filter: Option<FilterChoice>,
    /// How long to wait for news.
    pub timeout: Duration,
    /// Whether all state of all rooms is wanted again.
    pub full_state: bool,
    /// Which state is told with a timeline.
    pub state_form: StateForm,
    /// How the client says that its user is.
    pub presence: Option<PresenceState>,
}

/// A filter that was stored, or that comes with the request.
#[derive(Clone, Debug)]
pub enum FilterChoice {
    /// The id of a stored one.
    Stored(String),
    /// A filter.
    Inline(Box<FilterDefinition>),
}

/// Who asks, and what of the request the building of an answer needs.
#[derive(Clone)]
struct Asked {
    device: DeviceKey,
    /// `None`: the client begins.
    since: Option<Position>,
    /// Whether the client's token is of a time that is gone: what it knows of devices may be wrong.
    restored: bool,
    /// The messages that the client has; `None`: none.
    inbox: Option<Position>,
    /// Whether not all messages were told that waited at `since`.
    inbox_cut: bool,
    full_state: bool,
    state_form: StateForm,
    filter: Arc<SyncFilter>,
    known: Arc<Members>,
}

/// The building of one answer.
struct Build<'a> {
    step: Step<'a>,
    request: &'a Asked,
    /// What the client knows; later than its token when nothing came between.
    since: Option<Position>,
    account_data: AccountData,
    all_account_data: Option<AccountData>,
}

impl Sync {
    /// Answers `GET /sync` as JSON.
    ///
    /// What comes before the wait and between its wake-ups is boxed, here and in `poll`: thousands
    /// wait, each with the space of the largest thing that is not.
    pub async fn v3(&self, request: Box<Request>) -> Result<Vec<u8>, ApiError> {
        let session = request.session;
        let deadline = Instant::now() + request.timeout.min(self.0.timeout_max);
        let (asked, _syncing) = Box::pin(self.begin(request)).await?;
        let (answer, told, next) = self.poll(&asked, &session, deadline).await?;
        Box::pin(self.finish(&asked, answer, (told, next))).await
    }

    /// Notes what is told, and adds what every answer tells.
    async fn finish(
        &self,
        asked: &Asked,
        answer: Answer,
        (told, next): (Members, Position),
    ) -> Result<Vec<u8>, ApiError> {
        self.0.connections.tell_members(&asked.device, asked.since, (next, told));
        if let Some(messages) = answer.told_messages {
            self.0.connections.tell_messages(&asked.device, messages.last);
        }
        let keys = self.key_counts(&asked.device).await?;
        let cut = answer.told_messages.filter(|messages| messages.has_more);
        let inbox = cut.and_then(|messages| messages.last);
        let token = SyncToken { epoch: self.0.epoch, position: next, inbox };
        let answer = Answer {
            next_batch: token.to_string(),
            device_one_time_keys_count: keys.one_time_keys.clone(),
            device_unused_fallback_key_types: keys.unused_fallback_key_types.clone(),
            ..answer
        };
        serde_json::to_vec(&answer).map_err(ApiError::internal)
    }

    /// Reads a request, and notes that the device syncs until the guard is dropped.
    async fn begin(&self, request: Box<Request>) -> Result<(Asked, Option<Syncing>), ApiError> {
        let request = *request;
        let token = request.since.as_deref().map(SyncToken::parse).transpose()?;
        let filter = self.filter(&request.user_id, request.filter).await?;
        // Whatever was answered before this request came must be seen by it.
        let newest = self.0.sources.rooms.store().position();
        self.0.notifier.wait_until(newest).await;
        let since = token.and_then(|token| token.since(self.0.epoch, newest));
        let restored = token.is_some() && since.is_none();
        let token = token.filter(|_| since.is_some());
        let device = (request.user_id, request.device_id);
        let asked = Asked {
            known: self.0.connections.members(&device, since),
            device,
            since,
            restored,
            inbox: token.map(SyncToken::messages),
            inbox_cut: token.is_some_and(|token| token.inbox.is_some()),
            full_state: request.full_state,
            state_form: request.state_form,
            filter,
        };
        if let Some(inbox) = asked.inbox {
            self.remove_messages(&asked.device, (inbox, newest));
        }
        let (user_id, device_id) = &asked.device;
        let presence = &self.0.sources.presence;
        let syncing = presence.syncs(user_id, device_id, request.presence).await?;
        Ok((asked, syncing))
    }

    /// Waits until there is something to tell, or until the time is over.
    async fn poll(
        &self,
        asked: &Asked,
        session: &SessionId,
        deadline: Instant,
    ) -> Result<(Answer, Members, Position), ApiError> {
        let (user_id, _) = &asked.device;
        let mut changes = self.0.notifier.changes(self.0.notifier.user(user_id));
        let mut stopped = self.0.notifier.stopped();
        let mut poll = None;
        let session_end = self.session_end(session);
        let mut since = asked.since;
        let mut inbox_cut = asked.inbox_cut;
        loop {
            changes.borrow_and_update();
            let again = (since, std::mem::take(&mut inbox_cut));
            let (found, now) = Box::pin(self.tell(asked, session, again)).await?;
            if let Some((answer, told)) = found {
                return Ok((answer, told, now));
            }
            since = Some(now);
            if Instant::now() >= deadline || *stopped.borrow() {
                return Ok((Answer::default(), Members::new(), now));
            }
            let poll =
                poll.get_or_insert_with(|| self.0.connections.open_poll(asked.device.clone()));
            tokio::select! {
                // The sender lives as long as `self`.
                _ = changes.changed() => {}
                () = tokio::time::sleep_until(deadline.min(session_end)) => {}
                () = poll.ended() => return Ok((Answer::default(), Members::new(), now)),
                _ = stopped.changed() => {}
            }
            if Instant::now() >= session_end {
                return Err(expired_token());
            }
        }
    }

    /// Whether keys of the device were taken or uploaded since then.
    async fn keys_changed(&self, asked: &Asked, since: Option<Position>) -> Result<bool, ApiError> {
        let changed = self.key_counts(&asked.device).await?.changed;
        Ok(since.is_none_or(|since| changed > since))
    }

    /// What there is to tell since then, if anything, and what that is true at. With `inbox_cut`, more
    /// messages wait for the device than were told before.
    async fn tell(
        &self,
        asked: &Asked,
        session: &SessionId,
        (since, inbox_cut): (Option<Position>, bool),
    ) -> Result<(Option<(Answer, Members)>, Position), ApiError> {
        let (user_id, _) = &asked.device;
        self.check_session(user_id, session).await?;
        let news = match self.0.notifier.look(user_id, since).await? {
            Look::Nothing(now) if !asked.full_state && !inbox_cut => return Ok((None, now)),
            Look::News(news) => news,
            // Everything is wanted, so everything is news.
            Look::Nothing(_) if asked.full_state => self.everything(user_id).await?,
            Look::Nothing(now) => News::none(now),
        };
        let now = news.now;
        let (answer, told) = self.build(asked, since, news).await?;
        let whole = asked.since.is_none() || asked.full_state;
        let is_wanted = whole || !answer.is_empty() || self.keys_changed(asked, since).await?;
        Ok((is_wanted.then_some((answer, told)), now))
    }

    pub(super) async fn everything(&self, user_id: &OwnedUserId) -> Result<News, ApiError> {
        match self.0.notifier.look(user_id, None).await? {
            Look::News(news) => Ok(news),
            Look::Nothing(_) => Err(ApiError::internal_text("a look at everything saw nothing")),
        }
    }

    /// Reads the answer, in one step.
    async fn build(
        &self,
        asked: &Asked,
        since: Option<Position>,
        news: News,
    ) -> Result<(Answer, Members), ApiError> {
        let (sources, asked) = (self.0.sources.clone(), asked.clone());
        let store = sources.rooms.store().clone();
        store
            .read(move |reader| {
                let step = step(&sources, reader, &asked, news.now)?;
                let all_account_data = None;
                let account_data = AccountData::default();
                let mut build =
                    Build { step, request: &asked, since, account_data, all_account_data };
                let answer = build.answer(&news)?;
                Ok((answer, build.step.told))
            })
            .await
    }
}

fn step<'a>(
    sources: &'a super::streams::Sources,
    reader: &'a Reader<'a>,
    asked: &'a Asked,
    now: Position,
) -> Result<Step<'a>, ApiError> {
    let (user_id, device_id) = &asked.device;
    let mut step = Step {
        sources,
        reader,
        filter: &asked.filter,
        user_id,
        form: Form {
            format: asked.filter.format.clone(),
            room_id: asked.filter.format == EventFormat::Federation,
            device_id: Some(device_id.clone()),
            now: sources.rooms.clock().now(),
            detail: Detail::Full,
        },
        now,
        known: &asked.known,
        told: Members::new(),
        ignored: std::collections::HashSet::new(),
    };
    step.ignored = account_data::read_ignored_users(&step)?;
    Ok(step)
}

impl Build<'_> {
    fn answer(&mut self, news: &News) -> Result<Answer, ApiError> {
        let mut answer = Answer::default();
        if news.account_data || self.since.is_none() {
            self.account_data = account_data::read(&self.step, self.since)?;
            answer.account_data = std::mem::take(&mut self.account_data.global).into();
        }
        answer.presence = presence::read(&self.step, self.since, news)?.into();
        self.add_devices(&mut answer, news)?;
        let mut joined: BTreeMap<RoomNid, RoomPositions> = news.rooms.iter().copied().collect();
        let changed: Vec<RoomNid> = self.account_data.rooms.keys().copied().collect();
        for room in changed {
            joined.entry(room).or_default();
        }
        let invites_changed = news.account_data && self.invites_changed()?;
        for (nid, row) in news.memberships.iter() {
            let is_new = self.since.is_none_or(|since| row.position > since);
            let is_wanted = match row.membership {
                Membership::Join => joined.contains_key(nid) || self.request.full_state,
                Membership::Leave | Membership::Ban => is_new && self.tells_leave(row),
                Membership::Invite => is_new || self.request.full_state || invites_changed,
                Membership::Knock => is_new || self.request.full_state,
                Membership::None => false,
            };
            if !is_wanted {
                continue;
            }
            let Some(room) = self.step.sources.rooms.room_by_nid(self.step.reader, *nid)? else {
                continue;
            };
            if self.step.filter.admits_room(&room.id) {
                let positions = joined.get(nid).copied().unwrap_or_default();
                self.add_room(&mut answer, &room, (row, positions))?;
            }
        }
        Ok(answer)
    }

    /// Adds the messages for the device, and whose devices changed.
    fn add_devices(&self, answer: &mut Answer, news: &News) -> Result<(), ApiError> {
        let Asked { inbox, inbox_cut, .. } = *self.request;
        if inbox_cut || self.since.is_none_or(|since| news.devices > since) {
            let page = to_device::read(&self.step, inbox, to_device::PAGE_MAX)?;
            answer.told_messages = Some(ToldMessages::from(&page));
            answer.to_device = page.events.into();
        }
        // A client that begins asks for the devices of those whom it has to do with. One that comes
        // from before a restore is told to ask again for all of them.
        if let Some(since) = self.since.or(self.request.restored.then_some(Position::ZERO)) {
            answer.device_lists = device_lists::read(&self.step, since, news)?;
        }
        Ok(())
    }

    /// Whether the user changed from whom they want invites: then those that were held back may be
    /// wanted now.
    fn invites_changed(&self) -> Result<bool, ApiError> {
        let changed = preferences::invites_changed_at(self.step.reader, self.step.user_id)?;
        Ok(self.since.is_some_and(|since| changed > since))
    }

    /// Whether a room that was left is told: in an initial sync only to those who want it, and
    /// never when it is forgotten. Other devices must learn of the leave all the same.
    fn tells_leave(&self, row: &MembershipRow) -> bool {
        self.since.is_some() || (self.step.filter.include_leave && !row.forgotten)
    }

    fn add_room(
        &mut self,
        answer: &mut Answer,
        room: &Room,
        (row, positions): (&MembershipRow, RoomPositions),
    ) -> Result<(), ApiError> {
        let rooms = &mut answer.rooms;
        match row.membership {
            Membership::Join => {
                if let Some(joined) = self.joined(room, row, positions)? {
                    rooms.join.insert(room.id.clone(), joined);
                }
            }
            Membership::Invite => {
                if let Some(invited) = self.invited(room, row)? {
                    rooms.invite.insert(room.id.clone(), invited);
                }
            }
            Membership::Knock => {
                rooms.knock.insert(room.id.clone(), self.knocked(room, row)?);
            }
            Membership::Leave | Membership::Ban => {
                rooms.leave.insert(room.id.clone(), self.left(room, row)?);
            }
            Membership::None => {}
        }
        Ok(())
    }

    /// All account data, for rooms that are new to the client.
    fn all_account_data(&mut self) -> Result<&mut AccountData, ApiError> {
        let data = match self.all_account_data.take() {
            Some(data) => data,
            None => account_data::read(&self.step, None)?,
        };
        Ok(self.all_account_data.insert(data))
    }
}

#[cfg(test)]
mod tests;

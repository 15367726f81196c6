//! The building of one answer of sliding sync, in one read step.
//!
//! What the client knows ([`Base`]) is only read; what the answer changes of it is gathered in a
//! [`Delta`]. Only rooms that a list or a subscription is about touch storage, and of those only
//! the ones in which something changed.

use std::{collections::HashSet, sync::Arc};

use kv::Position;

use super::{
    answer::{Answer, ListAnswer, RoomAnswer},
    connection::{Base, Delta, Kind, Told},
    lists::{self, RoomFacts, Target},
    pos::device_token,
    request::Wanted,
};
use crate::{
    error::ApiError,
    id::RoomNid,
    rooms::{Room, preferences},
    storage::rows::Membership,
    sync::{
        room_table::News,
        streams::{Step, unread::UnreadCounts},
    },
};

/// What the client has of the messages for its device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inbox {
    /// The epoch of the database.
    pub(super) epoch: u64,
    /// Those up to here; `None`: none.
    pub(super) since: Option<Position>,
}

impl Inbox {
    /// Whether only what came after the last answer can be new to the client.
    pub(super) fn goes_on_from(self, base: &Base) -> bool {
        self.since.is_some_and(|since| base.inbox.is_some_and(|told| since >= told))
    }

    /// The token of the messages that the client has; where it has none, they begin now.
    pub(super) fn token(self, now: Position) -> String {
        device_token(self.epoch, self.since.unwrap_or(now))
    }
}

/// The building of one answer.
pub(super) struct Build<'a> {
    pub(super) step: Step<'a>,
    pub(super) wanted: &'a Arc<Wanted>,
    pub(super) base: &'a Base,
    pub(super) delta: Delta,
    pub(super) inbox: Inbox,
    /// The rooms that the user's account data calls direct.
    pub(super) direct: HashSet<RoomNid>,
    /// The number of the type `m.room.member`.
    pub(super) member_type: u64,
    /// Whether the user changed from whom they want invites: then the client may have dropped some.
    invites_changed: bool,
}

impl<'a> Build<'a> {
    /// Begins.
    pub(super) fn new(
        step: Step<'a>,
        wanted: &'a Arc<Wanted>,
        (base, inbox): (&'a Base, Inbox),
    ) -> Result<Self, ApiError> {
        let direct = lists::direct_rooms(&step)?;
        let member_type = step.interner().event_type("m.room.member");
        let changed = preferences::invites_changed_at(step.reader, step.user_id)?;
        let invites_changed = base.position.is_some_and(|told| changed > told);
        let mut delta = Delta::none(base, step.now);
        delta.wanted = Arc::clone(wanted);
        Ok(Self { step, wanted, base, delta, inbox, direct, member_type, invites_changed })
    }

    /// The answer and what the client knows with it.
    pub(super) fn answer(
        mut self,
        news: &News,
        facts: &RoomFacts,
    ) -> Result<(Answer, Delta), ApiError> {
        let wanted = Arc::clone(self.wanted);
        let mut entries = lists::entries(&self.step, news, self.base)?;
        let lists = (wanted.lists.as_slice(), &self.direct);
        let counts = lists::sort_in(&self.step, facts, lists, &mut entries)?;
        let targets = lists::targets(&wanted, &entries);
        let mut answer = Answer::default();
        for (list, &count) in wanted.lists.iter().zip(&counts) {
            answer.lists.insert(list.name.clone(), ListAnswer { count });
        }
        self.delta.counts = counts;
        for target in &targets {
            if let Some((room, told)) = self.target(target)? {
                answer.rooms.insert(room.id.clone(), told);
            }
        }
        self.extensions(&mut answer.extensions, (&entries, &targets), news)?;
        self.forget_gone(news);
        self.delta.members = std::mem::take(&mut self.step.told);
        Ok((answer, self.delta))
    }

    fn target(&mut self, target: &Target) -> Result<Option<(Room, RoomAnswer)>, ApiError> {
        if !self.may_have_news(target) {
            self.note_wish(target);
            return Ok(None);
        }
        let nid = target.entry.nid;
        let Some(room) = self.step.sources.rooms.room_by_nid(self.step.reader, nid)? else {
            return Ok(None);
        };
        let told = match target.entry.row.membership {
            Membership::Join => self.joined(&room, target)?,
            Membership::Invite | Membership::Knock => self.stripped(&room, target)?,
            Membership::Leave | Membership::Ban => self.left(&room, target)?,
            Membership::None => None,
        };
        Ok(told.map(|told| {
            let names = (0..).zip(&self.wanted.lists);
            let lists = names
                .filter(|(bit, _)| target.entry.lists & 1 << bit != 0)
                .map(|(_, list)| list.name.clone())
                .collect();
            let membership = target.entry.row.membership.name();
            let bump_stamp = target.entry.stamp.as_u64();
            (room, RoomAnswer { bump_stamp, membership, lists, ..told })
        }))
    }

    /// Whether a room must be looked at: by memory alone.
    fn may_have_news(&self, target: &Target) -> bool {
        let entry = &target.entry;
        let Some(told) = self.base.rooms.get(&entry.nid) else { return true };
        if entry.row.membership != Membership::Join {
            let is_invite = entry.row.membership == Membership::Invite;
            return told.member != entry.row.event || is_invite && self.invites_changed;
        }
        told.kind != Kind::Joined
            || entry.positions.events > told.position
            || entry.positions.receipts > told.counted
            || self.direct.contains(&entry.nid) != told.is_dm
            || grows(told, target)
            || !target.wish.required.beyond(&told.wish.required).is_empty()
    }

    /// Notes what is wanted of a room when it is less than before: if it becomes more again, that
    /// must be told then.
    fn note_wish(&mut self, target: &Target) {
        let nid = target.entry.nid;
        if let Some(told) = self.base.rooms.get(&nid)
            && told.wish != target.wish
        {
            let told = Told { wish: target.wish.clone(), ..Told::clone(told) };
            self.delta.rooms.insert(nid, Arc::new(told));
        }
    }

    /// What the client knows of a room, with this answer.
    pub(super) fn told(&self, nid: RoomNid) -> Option<&Arc<Told>> {
        self.delta.rooms.get(&nid).or_else(|| self.base.rooms.get(&nid))
    }

    /// What is known of a room that is told for the first time.
    pub(super) fn first_told(&self, target: &Target, kind: Kind) -> Told {
        let before = self.base.rooms.get(&target.entry.nid);
        Told {
            kind,
            member: target.entry.row.event,
            position: self.step.now,
            counted: target.entry.positions.receipts,
            wish: target.wish.clone(),
            tail: 0,
            complete: false,
            unread: UnreadCounts::default(),
            is_dm: self.direct.contains(&target.entry.nid),
            extras: before.filter(|told| told.kind == kind).map_or([0; 3], |told| told.extras),
        }
    }

    /// Rooms that the user forgot need not be remembered.
    fn forget_gone(&mut self, news: &News) {
        let forgotten = news
            .memberships
            .iter()
            .filter(|(_, row)| row.forgotten && row.membership != Membership::Join);
        let is_told = |nid: &RoomNid| self.told(*nid).is_some_and(|told| told.kind == Kind::Left);
        self.delta.gone = forgotten.map(|(nid, _)| *nid).filter(is_told).collect();
    }
}

/// Whether more of the timeline is wanted than the client has.
pub(super) fn grows(told: &Told, target: &Target) -> bool {
    let limit = target.wish.limit;
    limit > told.wish.limit && !told.complete && told.tail < limit
}

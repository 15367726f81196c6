//! What an event adds to the counts: decided with the event, written in its batch.
//!
//! For all who have the default rules together one row: the running sum. One row more for each user
//! for whom it differs: who is mentioned, and those odd users whose rules say something else. So
//! the cost does not grow with the number of members.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, LazyLock},
};

use kv::{Batch, Error, Position, Reader};
use ruma::{
    OwnedUserId, UserId,
    push::{RuleKind, Ruleset},
    user_id,
};

use super::{
    odd::OddUser,
    rules::{Context, Subject, actions, predefined, verdict},
};
use crate::{
    id::RoomNid,
    storage::{
        rows::{
            TimelinePosition,
            push::{CountRow, Counts, ThreadRow},
        },
        schema::push::{
            PUSH_CORRECTIONS, PUSH_EXCEPTIONS, PUSH_OWN, PUSH_SUMS, PUSH_THREADS, PushExceptionKey,
            PushOwnKey, PushSumKey, PushThreadKey,
        },
    },
};

/// How receipts name the main timeline.
pub const MAIN: &str = "main";
/// How many users one event mentions at most.
pub const MENTIONS_MAX: usize = 1_000;
/// For how many odd users of one room an event is judged one by one; for others of them the default
/// rules count.
pub const ODD_MAX: usize = 5_000;
/// How many sums that are not on disk yet are kept before the next event waits for the disk.
const TAIL_MAX: usize = 64;

/// The rules that are the same for everybody.
static COMMON: LazyLock<Ruleset> = LazyLock::new(|| {
    let mut rules = predefined(nobody());
    for rule in [".m.rule.is_user_mention", ".m.rule.invite_for_me"] {
        rules
            .set_enabled(RuleKind::Override, rule, false)
            .expect("both rules are among the predefined ones");
    }
    rules
});
/// A user whom nobody is.
fn nobody() -> &'static UserId {
    user_id!("@nobody:invalid")
}

/// The sums of a room that may be on their way to the disk: by user (empty: for all) and thread.
#[derive(Clone, Debug, Default)]
pub struct Tail(HashMap<(String, String), Counts>);

/// What is written because of one event.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// The thread that it is of.
    pub thread: String,
    /// What it is for those with the default rules.
    pub common: Counts,
    /// Whether anybody with the default rules is notified.
    pub notifies: bool,
    sum: Option<CountRow>,
    exceptions: Vec<(String, CountRow)>,
    own: Option<String>,
    joined: Vec<String>,
    corrections: Vec<(String, TimelinePosition, CountRow)>,
}

/// What an event is judged by.
#[derive(Debug)]
pub struct Question<'a> {
    /// The event.
    pub subject: &'a Subject,
    /// Its room, as the context of a user that is filled in.
    pub context: Context<'a>,
    /// Its sender, when it is a user of this server.
    pub own: Option<&'a UserId>,
    /// The users of this server that it mentions and who have joined.
    pub mentioned: BTreeSet<OwnedUserId>,
    /// The odd users of the room (at most [`ODD_MAX`]), with their names where they ask for them.
    pub odd: Vec<(Arc<OddUser>, Option<String>)>,
}

impl Tail {
    /// Whether the next event must wait for what is on its way.
    pub fn is_full(&self) -> bool {
        self.0.len() > TAIL_MAX
    }

    /// Forgets all: it is on disk.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    fn advance(
        &mut self,
        reader: &Reader<'_>,
        room: RoomNid,
        (user, thread): (&str, &str),
        own: Counts,
    ) -> Result<CountRow, Error> {
        let key = (user.to_owned(), thread.to_owned());
        let last = match self.0.get(&key) {
            Some(last) => *last,
            None => last_sum(reader, room, (user, thread), TimelinePosition::END)?,
        };
        let total = last + own;
        self.0.insert(key, total);
        Ok(CountRow { total, own })
    }
}

/// The sum at a place; for a user, or (with an empty name) for all.
pub(super) fn last_sum(
    reader: &Reader<'_>,
    room: RoomNid,
    (user, thread): (&str, &str),
    place: TimelinePosition,
) -> Result<Counts, Error> {
    let thread = thread.to_owned();
    let row = if user.is_empty() {
        let key = PushSumKey { room, thread: thread.clone(), place };
        reader.last_at_or_before(&PUSH_SUMS, &(room, thread), &key)?.map(|(_, row)| row)
    } else {
        let user_id = user.to_owned();
        let key =
            PushExceptionKey { user_id: user_id.clone(), room, thread: thread.clone(), place };
        let prefix = (user_id, room, thread);
        reader.last_at_or_before(&PUSH_EXCEPTIONS, &prefix, &key)?.map(|(_, row)| row)
    };
    Ok(row.map_or(Counts::ZERO, |row| row.total))
}

impl Counted {
    /// Judges an event and moves the sums on.
    pub fn judge(
        reader: &Reader<'_>,
        room: RoomNid,
        thread: String,
        question: &Question<'_>,
        tail: &mut Tail,
    ) -> Result<Self, Error> {
        let Question { subject, context, own, mentioned, odd } = question;
        let common =
            verdict(actions(&COMMON, subject, &Context { user_id: nobody(), ..context.clone() }));
        let mut counted = Self { thread, common, notifies: common.notify > 0, ..Self::default() };
        let mut differences = Vec::new();
        let odd_ids: BTreeSet<&UserId> = odd.iter().map(|(user, _)| &*user.user_id).collect();
        let mentioned: Vec<_> =
            mentioned.iter().filter(|user| !odd_ids.contains(&***user)).collect();
        if let Some(one) = mentioned.first() {
            // Of users with the default rules who have joined one is as good as another.
            let rules = predefined(one);
            let for_one =
                verdict(actions(&rules, subject, &Context { user_id: one, ..context.clone() }));
            counted.notifies |= for_one.notify > 0;
            differences.extend(mentioned.iter().map(|user| (user.to_string(), for_one - common)));
        }
        for (user, name) in odd {
            if user.mutes(context.room_id) {
                continue;
            }
            let theirs = user.judge(subject, context, name.as_deref());
            differences.push((user.user_id.to_string(), theirs - common));
        }
        differences.retain(|(_, difference)| *difference != Counts::ZERO);
        if common != Counts::ZERO {
            counted.sum = Some(tail.advance(reader, room, ("", &counted.thread), common)?);
            counted.own = own.map(ToString::to_string);
        }
        for (user, difference) in differences {
            if own.is_some_and(|own| own.as_str() == user) {
                continue;
            }
            let row = tail.advance(reader, room, (&user, &counted.thread), difference)?;
            counted.exceptions.push((user, row));
        }
        Ok(counted)
    }

    /// Notes that users of this server have joined with the event.
    pub fn joined(&mut self, user_id: &str) {
        self.joined.push(user_id.to_owned());
    }

    /// Notes that an event is redacted: what it counted is taken back.
    pub fn redacts(
        &mut self,
        reader: &Reader<'_>,
        room: RoomNid,
        thread: String,
        place: TimelinePosition,
    ) -> Result<(), Error> {
        let key = PushSumKey { room, thread, place };
        let row = reader.get(&PUSH_SUMS, &key)?.unwrap_or_default();
        self.corrections.push((key.thread, place, row));
        Ok(())
    }

    /// Writes it.
    pub fn write(&self, room: RoomNid, position: Position, batch: &mut Batch) {
        let place = TimelinePosition::live(position);
        let thread = || self.thread.clone();
        if let Some(sum) = &self.sum {
            batch.put(&PUSH_SUMS, &PushSumKey { room, thread: thread(), place }, sum);
        }
        for (user_id, row) in &self.exceptions {
            let user_id = user_id.clone();
            let key = PushExceptionKey { user_id, room, thread: thread(), place };
            batch.put(&PUSH_EXCEPTIONS, &key, row);
        }
        if self.thread != MAIN && (self.sum.is_some() || !self.exceptions.is_empty()) {
            let key = PushThreadKey { room, place };
            batch.put(&PUSH_THREADS, &key, &ThreadRow { root: thread() });
        }
        if let Some(user_id) = self.own.clone() {
            let key = PushOwnKey { user_id, room, thread: thread() };
            batch.put(&PUSH_OWN, &key, &position);
        }
        for user_id in &self.joined {
            let (user_id, thread) = (user_id.clone(), String::new());
            batch.put(&PUSH_OWN, &PushOwnKey { user_id, room, thread }, &position);
        }
        for (thread, place, row) in &self.corrections {
            let key = PushSumKey { room, thread: thread.clone(), place: *place };
            batch.put(&PUSH_CORRECTIONS, &key, row);
        }
    }
}

impl OddUser {
    /// What an event is for this user.
    pub fn judge(&self, subject: &Subject, context: &Context<'_>, name: Option<&str>) -> Counts {
        if self.ignored.contains(subject.sender()) {
            return Counts::ZERO;
        }
        let context = Context { user_id: &self.user_id, display_name: name, ..context.clone() };
        verdict(actions(&self.rules, subject, &context))
    }
}

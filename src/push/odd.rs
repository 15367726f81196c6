//! The users whose push rules differ from the default, and the rooms they are in: kept in memory.
//!
//! `users` writes a line for each change of rules or of whom a user ignores; whoever looks takes in
//! the lines that it has not seen, so what it knows is never older than its view of the store. All
//! users who ever changed their rules are read when the server starts. Changes of membership come
//! from the commit of `rooms`, which knows them.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    ops::{Bound, ControlFlow},
    sync::Arc,
};

use kv::{Direction, Error, Position, Reader, Store};
use parking_lot::Mutex;
use ruma::{
    OwnedRoomId, OwnedUserId, RoomId, UserId,
    push::{Action, AnyPushRuleRef, PushCondition, Ruleset},
    room_id,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::rules::{predefined, verdict};
use crate::{
    id::RoomNid,
    storage::{
        account_data,
        rows::{Membership, push::Counts},
        schema::{
            pushers::{PUSH_RULE_CHANGES, PUSH_UNMUTED},
            rooms::MEMBERSHIPS,
        },
    },
};

/// The account data that rules depend on.
pub const PUSH_RULES: &str = "m.push_rules";

/// Stands for all rooms where a room is named.
pub const ALL_ROOMS: RoomNid = RoomNid(0);

/// How many changes of rules are taken in together: what is read of one user may be large.
const CHANGES_AT_ONCE: usize = 64;
/// How many changes of membership are remembered for views that are older than they are.
const RECENT_MAX: usize = 4_096;

/// Knows the users whose rules differ. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Push(Arc<Mutex<Index>>);

/// A user whose rules differ from the default.
#[derive(Debug)]
pub struct OddUser {
    /// The user.
    pub user_id: OwnedUserId,
    /// The rules.
    pub rules: Ruleset,
    /// Whom the user ignores.
    pub ignored: HashSet<OwnedUserId>,
    /// Whether the rules ask for the user's name in the room.
    pub asks_name: bool,
    /// Whether the rules ask for what the sender may do.
    pub asks_sender: bool,
}

#[derive(Debug, Default)]
struct Index {
    /// The last change of rules that is known.
    at: Position,
    users: HashMap<OwnedUserId, Entry>,
    /// When rooms were unmuted, also by users whose rules are the default ones again.
    unmuted: HashMap<OwnedUserId, Unmuted>,
    rooms: HashMap<RoomNid, HashSet<OwnedUserId>>,
    recent: VecDeque<(Position, OwnedUserId, RoomNid, bool)>,
    /// Changes of membership up to here are forgotten.
    forgotten: Position,
}

#[derive(Debug)]
struct Entry {
    user: Arc<OddUser>,
    rooms: HashSet<RoomNid>,
}

struct Loaded {
    changed: Position,
    user_id: OwnedUserId,
    /// `None`: the rules are the default ones.
    user: Option<OddUser>,
    rooms: HashSet<RoomNid>,
    unmuted: Unmuted,
}

type Unmuted = HashMap<RoomNid, Position>;

impl Push {
    /// Reads all users whose rules differ, before anybody asks: later a look finds only what changed
    /// since.
    pub async fn load(&self, store: &Store) -> Result<(), Error> {
        let push = self.clone();
        store.read(move |reader| push.refresh(reader)).await
    }

    /// The odd users of a room.
    pub fn odd_members(
        &self,
        reader: &Reader<'_>,
        room: RoomNid,
    ) -> Result<Vec<Arc<OddUser>>, Error> {
        self.refresh(reader)?;
        let index = self.0.lock();
        let Some(members) = index.rooms.get(&room) else { return Ok(Vec::new()) };
        let known = members.iter().filter_map(|user| index.users.get(user));
        Ok(known.map(|entry| entry.user.clone()).collect())
    }

    /// A user, when their rules differ.
    pub fn odd_user(
        &self,
        reader: &Reader<'_>,
        user_id: &UserId,
    ) -> Result<Option<Arc<OddUser>>, Error> {
        self.refresh(reader)?;
        Ok(self.0.lock().users.get(user_id).map(|entry| entry.user.clone()))
    }

    /// When a room was last unmuted by a user: nothing counts that came before.
    pub(super) fn unmuted_at(
        &self,
        reader: &Reader<'_>,
        user_id: &UserId,
        room: RoomNid,
    ) -> Result<Position, Error> {
        self.refresh(reader)?;
        let index = self.0.lock();
        let Some(unmuted) = index.unmuted.get(user_id) else { return Ok(Position::ZERO) };
        let at = |room| unmuted.get(&room).copied().unwrap_or_default();
        Ok(at(room).max(at(ALL_ROOMS)))
    }

    /// Takes in that a user of this server has joined or left a room.
    pub fn membership_changed(
        &self,
        position: Position,
        user_id: &UserId,
        room: RoomNid,
        joined: bool,
    ) {
        let mut index = self.0.lock();
        index.set_member(user_id, room, joined);
        index.recent.push_back((position, user_id.to_owned(), room, joined));
        if index.recent.len() > RECENT_MAX
            && let Some((position, ..)) = index.recent.pop_front()
        {
            index.forgotten = index.forgotten.max(position);
        }
    }

    /// Takes in the changes of rules that this view has.
    fn refresh(&self, reader: &Reader<'_>) -> Result<(), Error> {
        loop {
            let at = self.0.lock().at;
            let range =
                PUSH_RULE_CHANGES.range(Bound::Excluded(&at), Bound::<&Position>::Unbounded);
            let changes =
                reader.scan(&PUSH_RULE_CHANGES, &range, Direction::Forward, CHANGES_AT_ONCE)?;
            // Each user once, however often their rules changed.
            let last: HashMap<Vec<u8>, Position> =
                changes.into_iter().map(|(changed, user_id)| (user_id, changed)).collect();
            let Some(newest) = last.values().max().copied() else { return Ok(()) };
            let mut loaded = Vec::with_capacity(last.len());
            for (user_id, changed) in last {
                let Some(user_id) = parse_user(&user_id) else { continue };
                loaded.push(load(reader, user_id, changed)?);
            }
            // Nothing is taken in before all was read: a read in memory may be one that is given
            // up.
            let view = reader.position();
            let mut index = self.0.lock();
            if index.forgotten > view {
                return Ok(());
            }
            index.take_in(loaded.into_iter(), view);
            index.at = index.at.max(newest);
        }
    }
}

impl Index {
    fn take_in(&mut self, loaded: impl Iterator<Item = Loaded>, view: Position) {
        let known = self.at;
        for Loaded { changed, user_id, user, mut rooms, unmuted } in loaded {
            self.at = self.at.max(changed);
            if changed <= known {
                continue;
            }
            if unmuted.is_empty() {
                self.unmuted.remove(&user_id);
            } else {
                self.unmuted.insert(user_id.clone(), unmuted);
            }
            if let Some(entry) = self.users.remove(&user_id) {
                for room in entry.rooms {
                    self.remove_member(&user_id, room);
                }
            }
            let Some(user) = user else { continue };
            for (position, member, room, joined) in &self.recent {
                if *position > view && *member == user_id {
                    if *joined {
                        rooms.insert(*room);
                    } else {
                        rooms.remove(room);
                    }
                }
            }
            for &room in &rooms {
                self.rooms.entry(room).or_default().insert(user_id.clone());
            }
            self.users.insert(user_id, Entry { user: Arc::new(user), rooms });
        }
    }

    fn set_member(&mut self, user_id: &UserId, room: RoomNid, joined: bool) {
        let Some(entry) = self.users.get_mut(user_id) else { return };
        if joined {
            entry.rooms.insert(room);
            self.rooms.entry(room).or_default().insert(user_id.to_owned());
        } else {
            entry.rooms.remove(&room);
            self.remove_member(user_id, room);
        }
    }

    fn remove_member(&mut self, user_id: &UserId, room: RoomNid) {
        if let Some(members) = self.rooms.get_mut(&room) {
            members.remove(user_id);
            if members.is_empty() {
                self.rooms.remove(&room);
            }
        }
    }
}

fn parse_user(bytes: &[u8]) -> Option<OwnedUserId> {
    std::str::from_utf8(bytes).ok().and_then(|text| UserId::parse(text).ok())
}

fn load(reader: &Reader<'_>, user_id: OwnedUserId, changed: Position) -> Result<Loaded, Error> {
    let rules = account_data::content(reader, &account_data::global_key(&user_id, PUSH_RULES))?;
    let rules = parse(&user_id, rules.as_deref().map(RawValue::get));
    let user = OddUser::new(user_id.clone(), rules, account_data::ignored_users(reader, &user_id)?);
    let mut rooms = HashSet::new();
    if user.is_some() {
        let range = MEMBERSHIPS.prefix(&user_id.to_string());
        reader.for_each(&MEMBERSHIPS, &range, Direction::Forward, |key, row| {
            if row.membership == Membership::Join {
                rooms.insert(key.room);
            }
            ControlFlow::Continue(())
        })?;
    }
    let mut unmuted = Unmuted::new();
    let range = PUSH_UNMUTED.prefix(&user_id.to_string());
    reader.for_each(&PUSH_UNMUTED, &range, Direction::Forward, |key, position| {
        unmuted.insert(key.room, position);
        ControlFlow::Continue(())
    })?;
    Ok(Loaded { changed, user_id, user, rooms, unmuted })
}

/// The rooms that a change of a user's rules unmutes; `None` among them stands for all rooms.
pub fn unmuted(
    user_id: &UserId,
    before: Option<&RawValue>,
    after: &RawValue,
) -> BTreeSet<Option<OwnedRoomId>> {
    let [before, after] =
        [before, Some(after)].map(|content| parse(user_id, content.map(RawValue::get)));
    let is_unmuted = |room_id: &RoomId| mutes(&before, room_id) && !mutes(&after, room_id);
    let named = before.iter().flat_map(named_rooms).filter(|room_id| is_unmuted(room_id));
    // A room that no rule names is muted as all of them are.
    let all = is_unmuted(room_id!("!any:invalid")).then_some(None);
    named.map(Some).chain(all).collect()
}

/// The rooms that a rule is about.
fn named_rooms(rule: AnyPushRuleRef<'_>) -> Vec<OwnedRoomId> {
    if let AnyPushRuleRef::Room(rule) = rule {
        return vec![rule.rule_id.clone()];
    }
    let patterns = conditions(rule).iter().filter_map(|condition| match condition {
        PushCondition::EventMatch(data) if data.key == "room_id" => Some(&data.pattern),
        _ => None,
    });
    patterns.filter_map(|pattern| RoomId::parse(pattern).ok()).collect()
}

/// Whether nothing in this room notifies whoever has these rules, whatever it is.
fn mutes(rules: &Ruleset, room_id: &RoomId) -> bool {
    for rule in rules.iter().filter(|rule| rule.enabled()) {
        match reach(rule, room_id) {
            Reach::Nothing => {}
            Reach::Everything => return verdict(rule.actions()) == Counts::ZERO,
            Reach::Some if verdict(rule.actions()) == Counts::ZERO => {}
            Reach::Some => return false,
        }
    }
    true
}

/// The rules of a user by the content of `m.push_rules`; the default ones without it, and where it
/// cannot be read.
fn parse(user_id: &UserId, content: Option<&str>) -> Ruleset {
    #[derive(Deserialize)]
    struct Content {
        global: Ruleset,
    }
    let defaults = predefined(user_id);
    let Some(content) = content else { return defaults };
    match serde_json::from_str::<Content>(content) {
        Ok(Content { global: mut rules }) => {
            rules.update_with_server_default(defaults);
            rules.postcontent.clear();
            rules
        }
        Err(error) => {
            tracing::error!(%user_id, %error, "push rules are unreadable; the default ones count");
            defaults
        }
    }
}

impl OddUser {
    /// `None` when nothing differs that counts.
    fn new(user_id: OwnedUserId, rules: Ruleset, ignored: HashSet<OwnedUserId>) -> Option<Self> {
        let defaults = predefined(&user_id);
        if ignored.is_empty() && essence(&rules) == essence(&defaults) {
            return None;
        }
        let any =
            |wanted: fn(&PushCondition) -> bool| rules.iter().flat_map(conditions).any(wanted);
        #[expect(deprecated, reason = "users may still have rules with it")]
        let asks_name = any(|condition| matches!(condition, PushCondition::ContainsDisplayName));
        let asks_sender =
            any(|condition| matches!(condition, PushCondition::SenderNotificationPermission(_)));
        Some(Self { user_id, rules, ignored, asks_name, asks_sender })
    }

    /// Whether nothing in this room notifies the user, whatever it is.
    pub fn mutes(&self, room_id: &RoomId) -> bool {
        mutes(&self.rules, room_id)
    }
}

fn conditions(rule: AnyPushRuleRef<'_>) -> &[PushCondition] {
    match rule {
        AnyPushRuleRef::Override(rule)
        | AnyPushRuleRef::Underride(rule)
        | AnyPushRuleRef::PostContent(rule) => &rule.conditions,
        _ => &[],
    }
}

/// What rules say, less what makes no difference to counts.
fn essence(rules: &Ruleset) -> Vec<(String, String, Counts)> {
    let enabled = rules.iter().filter(|rule| rule.enabled());
    enabled
        .map(|rule| {
            let conditions = match rule {
                AnyPushRuleRef::Content(rule) => rule.pattern.clone(),
                rule => serde_json::to_string(conditions(rule)).unwrap_or_default(),
            };
            (rule.rule_id().to_owned(), conditions, verdict(rule.actions()))
        })
        .collect()
}

/// Which events of a room a rule can apply to.
enum Reach {
    Nothing,
    Some,
    Everything,
}

fn reach(rule: AnyPushRuleRef<'_>, room_id: &RoomId) -> Reach {
    let conditions = match rule {
        AnyPushRuleRef::Room(rule) if rule.rule_id == *room_id => return Reach::Everything,
        AnyPushRuleRef::Room(_) => return Reach::Nothing,
        AnyPushRuleRef::Override(_) | AnyPushRuleRef::Underride(_) => conditions(rule),
        _ => return Reach::Some,
    };
    let mut reach = Reach::Everything;
    for condition in conditions {
        match condition {
            PushCondition::EventMatch(data)
                if data.key == "room_id" && !data.pattern.contains(['*', '?']) =>
            {
                if data.pattern != room_id.as_str() {
                    return Reach::Nothing;
                }
            }
            _ => reach = Reach::Some,
        }
    }
    reach
}

/// Whether actions make a sound; for the priority of a push.
pub fn is_loud(actions: &[Action]) -> bool {
    actions.iter().any(|action| action.is_highlight() || action.sound().is_some())
}

#[cfg(test)]
mod tests {
    use ruma::{push::*, user_id};

    use super::*;

    fn alice() -> Ruleset {
        predefined(user_id!("@alice:hs1"))
    }

    fn odd(rules: Ruleset) -> Option<OddUser> {
        OddUser::new(user_id!("@alice:hs1").to_owned(), rules, HashSet::new())
    }

    #[test]
    fn only_what_counts_makes_a_user_odd() {
        assert!(odd(alice()).is_none());
        let mut louder = alice();
        let loud = vec![Action::Notify, Action::SetTweak(Tweak::Sound("ring".into()))];
        louder.set_actions(RuleKind::Underride, ".m.rule.message", loud).unwrap();
        assert!(odd(louder).is_none());
        let mut quiet = alice();
        quiet.set_enabled(RuleKind::Underride, ".m.rule.message", false).unwrap();
        assert!(odd(quiet).is_some());
        let ignored = HashSet::from([user_id!("@bob:hs1").to_owned()]);
        let ignoring = OddUser::new(user_id!("@alice:hs1").to_owned(), alice(), ignored);
        assert!(ignoring.unwrap().ignored.contains(user_id!("@bob:hs1")));
    }

    #[test]
    fn a_muted_room_is_known_as_such() {
        let (here, there) = (room_id!("!here:hs1"), room_id!("!there:hs1"));
        let mut rules = alice();
        let condition =
            PushCondition::EventMatch(EventMatchConditionData::new("room_id".into(), here.into()));
        let mute = NewConditionalPushRule::new(here.to_string(), vec![condition], Vec::new());
        rules.insert(NewPushRule::Override(mute), None, None).unwrap();
        let user = odd(rules).unwrap();
        assert!(user.mutes(here));
        assert!(!user.mutes(there));
        let mut rules = alice();
        let only = NewSimplePushRule::new(there.to_owned(), Vec::new());
        rules.insert(NewPushRule::Room(only), None, None).unwrap();
        // Mentions still come through a rule of the room.
        assert!(!odd(rules).unwrap().mutes(there));
        let mut rules = alice();
        rules.set_enabled(RuleKind::Override, ".m.rule.master", true).unwrap();
        assert!(odd(rules).unwrap().mutes(here));
    }
}

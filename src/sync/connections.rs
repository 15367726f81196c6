//! What is remembered of the devices that sync: their open polls, which members they know, and
//! which messages they were told.
//!
//! All of it may be lost: a poll that ends is asked for again, a member is told once more, and the
//! store is asked whether messages are there that a device has.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use kv::Position;
use parking_lot::Mutex;
use ruma::{OwnedDeviceId, OwnedUserId};
use tokio::sync::Notify;

use crate::{
    config::LimitsConfig,
    id::{EventNid, RoomNid, StateKeyNid},
};

/// Devices whose known members are remembered.
const DEVICES_MAX: usize = 20_000;
/// Members that are remembered of one device.
const MEMBERS_MAX: usize = 20_000;

/// Devices of which it is remembered which messages they were told.
const INBOXES_MAX: usize = 100_000;

/// A user's device.
pub(crate) type DeviceKey = (OwnedUserId, OwnedDeviceId);

/// The members of rooms that a device was told, by the state key of their event.
pub(crate) type Members = HashMap<(RoomNid, StateKeyNid), EventNid>;

/// What is remembered of the devices. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Connections(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    polls_per_device_max: usize,
    polls_per_user_max: usize,
    polls: Mutex<HashMap<OwnedUserId, Polls>>,
    members: Mutex<KnownMembers>,
    inboxes: Mutex<HashMap<DeviceKey, Inbox>>,
}

/// The messages for a device.
#[derive(Clone, Copy, Debug)]
struct Inbox {
    /// The last one that it may have been told.
    told: Position,
    /// There are none up to here.
    removed: Position,
}

/// The open polls of a user, the oldest first.
#[derive(Debug, Default)]
struct Polls {
    open: Vec<(u64, OwnedDeviceId, Arc<Notify>)>,
    next: u64,
}

/// An open poll, until it is dropped.
#[derive(Debug)]
pub(crate) struct Poll {
    connections: Connections,
    user_id: OwnedUserId,
    number: u64,
    ended: Arc<Notify>,
}

impl Poll {
    /// Resolves when newer polls took the place of this one.
    pub(crate) async fn ended(&self) {
        self.ended.notified().await;
    }
}

impl Drop for Poll {
    fn drop(&mut self) {
        let mut users = self.connections.0.polls.lock();
        if let Entry::Occupied(mut polls) = users.entry(self.user_id.clone()) {
            polls.get_mut().open.retain(|poll| poll.0 != self.number);
            if polls.get().open.is_empty() {
                polls.remove();
            }
        }
    }
}

#[derive(Debug, Default)]
struct KnownMembers {
    devices: HashMap<DeviceKey, DeviceMembers>,
    /// Counts uses, so that the longest unused is forgotten first.
    uses: u64,
}

/// What a device knows once it has come back with the token that came with it.
#[derive(Debug, Default)]
struct DeviceMembers {
    /// The token up to which it surely got everything.
    confirmed: Position,
    known: Arc<Members>,
    /// Told with an answer whose token did not come back yet.
    told: Option<(Position, Members)>,
    used: u64,
}

impl Connections {
    /// None yet.
    pub(crate) fn new(limits: &LimitsConfig) -> Self {
        Self(Arc::new(Inner {
            // A device waits at least once, or it would ask without end.
            polls_per_device_max: limits.sync_waits_per_device_max.max(1),
            polls_per_user_max: limits.sync_waits_per_user_max.max(1),
            polls: Mutex::default(),
            members: Mutex::default(),
            inboxes: Mutex::default(),
        }))
    }

    /// Opens a poll. When there are too many, the oldest ends.
    pub(crate) fn open_poll(&self, (user_id, device_id): DeviceKey) -> Poll {
        let ended = Arc::new(Notify::new());
        let mut users = self.0.polls.lock();
        let polls = users.entry(user_id.clone()).or_default();
        let of_device = polls.open.iter().filter(|poll| poll.1 == device_id).count();
        let oldest = if of_device >= self.0.polls_per_device_max {
            polls.open.iter().position(|poll| poll.1 == device_id)
        } else {
            (polls.open.len() >= self.0.polls_per_user_max).then_some(0)
        };
        if let Some(oldest) = oldest {
            polls.open.remove(oldest).2.notify_one();
        }
        let number = polls.next;
        polls.next += 1;
        polls.open.push((number, device_id, ended.clone()));
        Poll { connections: self.clone(), user_id, number, ended }
    }

    /// The members that a device knows which comes with this token (`None`: with none).
    pub(crate) fn members(&self, device: &DeviceKey, since: Option<Position>) -> Arc<Members> {
        let mut members = self.0.members.lock();
        members.uses += 1;
        let uses = members.uses;
        let Some(device) = members.devices.get_mut(device) else { return Arc::default() };
        device.used = uses;
        match (since, device.told.take()) {
            (Some(since), Some((told_at, told))) if since == told_at => {
                device.confirmed = since;
                if device.known.len() + told.len() > MEMBERS_MAX {
                    device.known = Arc::default();
                }
                Arc::make_mut(&mut device.known).extend(told);
            }
            // An answer got lost on its way: what was in it is told again.
            (Some(since), _) if since == device.confirmed => {}
            _ => device.known = Arc::default(),
        }
        device.known.clone()
    }

    /// Notes what is told to a device with the answer to `since`, whose token will be `next`.
    pub(crate) fn tell_members(
        &self,
        device: &DeviceKey,
        since: Option<Position>,
        (next, told): (Position, Members),
    ) {
        let mut members = self.0.members.lock();
        if !members.devices.contains_key(device) {
            if told.is_empty() {
                return;
            }
            members.make_space();
        }
        let uses = members.uses;
        let device = members.devices.entry(device.clone()).or_default();
        device.used = uses;
        device.confirmed = since.unwrap_or_default();
        device.told = Some((next, told));
    }

    /// Whether there may be messages for a device up to the position at which its client has them;
    /// whoever asks removes them. `newest`: the position of now.
    pub(crate) fn removes_messages(
        &self,
        device: &DeviceKey,
        (until, newest): (Position, Position),
    ) -> bool {
        let mut inboxes = self.0.inboxes.lock();
        if let Some(inbox) = inboxes.get_mut(device) {
            let removes = inbox.told > inbox.removed && until > inbox.removed;
            inbox.removed = inbox.removed.max(until);
            return removes;
        }
        make_space(&mut inboxes);
        // What was told before the start is not known: perhaps all there was.
        inboxes.insert(device.clone(), Inbox { told: newest, removed: until });
        true
    }

    /// Notes that a device is told messages, up to the last one; `None`: there are none.
    pub(crate) fn tell_messages(&self, device: &DeviceKey, last: Option<Position>) {
        let mut inboxes = self.0.inboxes.lock();
        let last = last.unwrap_or_default();
        if let Some(inbox) = inboxes.get_mut(device) {
            inbox.told = inbox.told.max(last);
            return;
        }
        make_space(&mut inboxes);
        inboxes.insert(device.clone(), Inbox { told: last, removed: Position::ZERO });
    }

    /// Forgets what is known of the messages for a device: they could not be removed.
    pub(crate) fn forget_messages(&self, device: &DeviceKey) {
        self.0.inboxes.lock().remove(device);
    }
}

/// Forgets some when there are too many. Which ones does not matter: each costs one look.
fn make_space(inboxes: &mut HashMap<DeviceKey, Inbox>) {
    if inboxes.len() >= INBOXES_MAX {
        let mut keep = false;
        inboxes.retain(|_, _| {
            keep = !keep;
            keep
        });
    }
}

impl KnownMembers {
    fn make_space(&mut self) {
        if self.devices.len() < DEVICES_MAX {
            return;
        }
        let mut uses: Vec<u64> = self.devices.values().map(|device| device.used).collect();
        let middle = uses.len() / 2;
        let (_, &mut median, _) = uses.select_nth_unstable(middle);
        self.devices.retain(|_, device| device.used > median);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn device(name: &str) -> DeviceKey {
        (ruma::owned_user_id!("@alice:hs1"), name.into())
    }

    #[tokio::test]
    async fn the_oldest_poll_of_a_device_ends() {
        let connections = Connections::new(&LimitsConfig::default());
        let polls: Vec<_> = (0..5).map(|_| connections.open_poll(device("A"))).collect();
        assert!(polls[0].ended().now_or_never().is_some());
        assert!(polls[1].ended().now_or_never().is_none());
        let more: Vec<_> =
            (0..12).map(|n| connections.open_poll(device(&format!("B{n}")))).collect();
        assert!(polls[1].ended().now_or_never().is_none());
        let last = connections.open_poll(device("C"));
        assert!(polls[1].ended().now_or_never().is_some(), "the oldest of the user's");
        drop((polls, more, last));
        assert!(connections.0.polls.lock().is_empty());
    }

    #[test]
    fn the_store_is_asked_for_messages_only_where_some_may_be() {
        let connections = Connections::new(&LimitsConfig::default());
        let (device, at) = (device("A"), Position::from_u64);
        connections.tell_messages(&device, None);
        assert!(!connections.removes_messages(&device, (at(5), at(5))), "nothing was told");
        connections.tell_messages(&device, Some(at(7)));
        assert!(!connections.removes_messages(&device, (at(5), at(8))), "it asks once more");
        assert!(connections.removes_messages(&device, (at(6), at(8))));
        assert!(connections.removes_messages(&device, (at(8), at(8))), "one is left");
        assert!(!connections.removes_messages(&device, (at(9), at(9))));
        connections.tell_messages(&device, Some(at(10)));
        assert!(connections.removes_messages(&device, (at(12), at(12))));
        connections.forget_messages(&device);
        assert!(connections.removes_messages(&device, (at(12), at(12))), "it failed");
    }

    #[test]
    fn after_a_restart_the_store_is_asked_until_a_token_of_now_comes() {
        let connections = Connections::new(&LimitsConfig::default());
        let (device, at) = (device("A"), Position::from_u64);
        assert!(connections.removes_messages(&device, (at(5), at(9))));
        assert!(!connections.removes_messages(&device, (at(5), at(9))));
        assert!(connections.removes_messages(&device, (at(9), at(9))));
        assert!(!connections.removes_messages(&device, (at(11), at(11))));
    }

    #[test]
    fn members_are_known_once_the_token_came_back() {
        let connections = Connections::new(&LimitsConfig::default());
        let device = device("A");
        let at = Position::from_u64;
        let told = Members::from([((RoomNid(1), StateKeyNid(2)), EventNid(3))]);
        assert!(connections.members(&device, None).is_empty());
        connections.tell_members(&device, None, (at(5), told.clone()));
        // The answer got lost: the same request comes again.
        assert!(connections.members(&device, None).is_empty());
        connections.tell_members(&device, None, (at(6), told.clone()));
        assert_eq!(*connections.members(&device, Some(at(6))), told);
        connections.tell_members(&device, Some(at(6)), (at(7), Members::new()));
        assert_eq!(*connections.members(&device, Some(at(6))), told, "asked again");
        assert!(connections.members(&device, Some(at(2))).is_empty(), "an older token");
    }
}

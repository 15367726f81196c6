//! The presence of one user: what the devices do and what the user chose, made into what is shown.
//! Pure: times are passed in.

use std::{collections::HashMap, sync::Arc, time::Duration};

use kv::Position;
use ruma::{OwnedDeviceId, OwnedUserId};

use crate::id::RoomNid;

/// Without a sign of the user for so long, the user is shown as unavailable.
pub(super) const IDLE_AFTER: Duration = Duration::from_mins(5);
/// Without a sync for so long, a device is gone.
pub(super) const GONE_AFTER: Duration = Duration::from_secs(30);
/// How long somebody who is offline is remembered.
const OFFLINE_KEPT: Duration = Duration::from_hours(24);

/// The states, from the least present to the most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum PresenceState {
    /// `offline`
    #[default]
    Offline,
    /// `unavailable`
    Unavailable,
    /// `online`
    Online,
    /// `busy` (MSC3026): present, and not to be disturbed.
    Busy,
}

impl PresenceState {
    /// By its name; that of MSC3026 counts with and without its prefix.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "offline" => Self::Offline,
            "unavailable" => Self::Unavailable,
            "online" => Self::Online,
            "busy" | "org.matrix.msc3026.busy" => Self::Busy,
            _ => return None,
        })
    }

    /// Its name in events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Unavailable => "unavailable",
            Self::Online => "online",
            Self::Busy => "org.matrix.msc3026.busy",
        }
    }
}

/// What others see of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) state: PresenceState,
    pub(super) status_msg: Option<String>,
}

/// A user who was seen since the start.
#[derive(Debug)]
pub(super) struct Person {
    pub(super) user_id: OwnedUserId,
    /// What the user chose; `None`: what the devices do decides.
    pub(super) chosen: Option<PresenceState>,
    pub(super) status_msg: Option<String>,
    devices: HashMap<OwnedDeviceId, Device>,
    /// The last sign of the user, by the clock of the wall, in milliseconds.
    pub(super) active_ts: u64,
    /// The same by the clock that never jumps.
    active: Option<Duration>,
    /// What was told last.
    pub(super) told: Shown,
    /// When that was; `Position::MAX` while it is being told.
    pub(super) told_at: Position,
    /// Since when nothing but being offline was to be told; kept by [`Person::is_over`].
    quiet_since: Option<Duration>,
    /// In which rooms it was told, sorted.
    pub(super) rooms: Arc<[RoomNid]>,
}

#[derive(Debug, Default)]
struct Device {
    /// What the device says of its user.
    state: PresenceState,
    /// How many syncs wait.
    polls: u32,
    /// When the last one ended.
    last_sync: Duration,
}

impl Person {
    pub(super) fn new(user_id: OwnedUserId) -> Self {
        Self {
            user_id,
            chosen: None,
            status_msg: None,
            devices: HashMap::new(),
            active_ts: 0,
            active: None,
            told: Shown::default(),
            told_at: Position::ZERO,
            quiet_since: None,
            rooms: Arc::default(),
        }
    }

    /// A sync of a device begins. `explicit`: the client said how its user is.
    pub(super) fn sync_begins(
        &mut self,
        device: &OwnedDeviceId,
        (state, explicit): (PresenceState, bool),
        now: (Duration, u64),
    ) {
        let device = self.devices.entry(device.clone()).or_default();
        device.polls += 1;
        device.last_sync = now.0;
        device.state = state;
        if explicit && state >= PresenceState::Online {
            if self.chosen.is_some_and(|chosen| chosen < PresenceState::Busy) {
                self.chosen = None;
            }
            self.is_active(now);
        } else if state >= PresenceState::Online && self.chosen != Some(PresenceState::Unavailable)
        {
            // Who says nothing is online by syncing, unless the client said that the user is away.
            self.is_active(now);
        }
    }

    /// A sync of a device has ended.
    pub(super) fn sync_ends(&mut self, device: &OwnedDeviceId, now: Duration) {
        if let Some(device) = self.devices.get_mut(device) {
            device.polls = device.polls.saturating_sub(1);
            device.last_sync = now;
        }
    }

    /// The account is no more: neither devices nor what was chosen counts.
    pub(super) fn is_gone(&mut self) {
        self.devices.clear();
        self.chosen = None;
        self.status_msg = None;
        self.active = None;
        self.active_ts = 0;
    }

    /// The user does something.
    pub(super) fn is_active(&mut self, (now, now_ts): (Duration, u64)) {
        self.active = Some(now);
        self.active_ts = now_ts;
        if self.chosen == Some(PresenceState::Unavailable) {
            self.chosen = None;
        }
    }

    /// The user says how they are.
    pub(super) fn choose(
        &mut self,
        device: &OwnedDeviceId,
        (state, status_msg): (PresenceState, Option<String>),
        now: (Duration, u64),
    ) {
        self.is_active(now);
        self.chosen = (state != PresenceState::Online).then_some(state);
        self.status_msg = status_msg;
        let device = self.devices.entry(device.clone()).or_default();
        device.state = device.state.max(PresenceState::Online);
        device.last_sync = now.0;
    }

    /// Forgets devices that are gone, and says what is to be shown.
    pub(super) fn shown(&mut self, now: Duration) -> Shown {
        self.devices.retain(|_, device| device.polls > 0 || now < device.last_sync + GONE_AFTER);
        let connected = self.devices.values().map(|device| device.state).max();
        let mut state = connected.unwrap_or_default();
        if state == PresenceState::Online && !self.currently_active(now) {
            state = PresenceState::Unavailable;
        }
        if state != PresenceState::Offline {
            state = self.chosen.unwrap_or(state);
        }
        Shown { state, status_msg: self.status_msg.clone() }
    }

    /// Whether the user is offline for so long that nothing need be remembered, as far as this was
    /// asked now and then.
    pub(super) fn is_over(&mut self, now: Duration) -> bool {
        let is_quiet = self.devices.is_empty()
            && self.told.state == PresenceState::Offline
            && self.shown(now) == self.told
            && self.told_at != Position::MAX;
        if !is_quiet {
            self.quiet_since = None;
            return false;
        }
        now >= *self.quiet_since.get_or_insert(now) + OFFLINE_KEPT
    }

    /// Whether there was a sign of the user lately.
    pub(super) fn currently_active(&self, now: Duration) -> bool {
        self.active.is_some_and(|active| now < active + IDLE_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1000);

    fn at(seconds: u64) -> (Duration, u64) {
        (START + Duration::from_secs(seconds), seconds * 1000)
    }

    fn person() -> Person {
        Person::new("@alice:hs1".try_into().unwrap())
    }

    #[test]
    fn a_device_that_syncs_makes_its_user_online_until_it_is_gone() {
        let (mut alice, phone) = (person(), OwnedDeviceId::from("phone"));
        assert_eq!(alice.shown(at(0).0).state, PresenceState::Offline);
        alice.sync_begins(&phone, (PresenceState::Online, false), at(0));
        assert_eq!(alice.shown(at(100).0).state, PresenceState::Online);
        assert_eq!(alice.shown(at(301).0).state, PresenceState::Unavailable, "idle");
        alice.is_active(at(302));
        assert_eq!(alice.shown(at(303).0).state, PresenceState::Online);
        // Another sync that says nothing of its user is a sign of them too.
        alice.sync_begins(&phone, (PresenceState::Online, false), at(650));
        assert_eq!(alice.shown(at(651).0).state, PresenceState::Online);
        alice.sync_ends(&phone, at(651).0);
        alice.is_active(at(302));
        alice.sync_ends(&phone, at(304).0);
        assert_eq!(alice.shown(at(333).0).state, PresenceState::Online);
        assert_eq!(alice.shown(at(334).0).state, PresenceState::Offline);
    }

    #[test]
    fn who_is_offline_for_a_day_is_forgotten() {
        let (mut alice, phone) = (person(), OwnedDeviceId::from("phone"));
        alice.sync_begins(&phone, (PresenceState::Offline, true), at(0));
        let day = 24 * 60 * 60;
        assert!(!alice.is_over(at(1).0) && !alice.is_over(at(day + 1).0), "a hidden sync waits");
        alice.sync_ends(&phone, at(day + 2).0);
        alice.shown(at(day + 40).0);
        assert!(!alice.is_over(at(day + 40).0) && !alice.is_over(at(2 * day).0));
        assert!(alice.is_over(at(2 * day + 40).0));
    }

    #[test]
    fn the_most_present_device_counts_and_a_hidden_one_does_not() {
        let mut alice = person();
        let (phone, desk) = (OwnedDeviceId::from("phone"), OwnedDeviceId::from("desk"));
        alice.sync_begins(&phone, (PresenceState::Offline, true), at(0));
        assert_eq!(alice.shown(at(1).0).state, PresenceState::Offline);
        alice.sync_begins(&desk, (PresenceState::Unavailable, true), at(2));
        assert_eq!(alice.shown(at(3).0).state, PresenceState::Unavailable);
        alice.sync_begins(&phone, (PresenceState::Online, true), at(4));
        assert_eq!(alice.shown(at(5).0).state, PresenceState::Online);
    }

    #[test]
    fn busy_stays_while_the_user_works_and_away_does_not() {
        let (mut alice, desk) = (person(), OwnedDeviceId::from("desk"));
        alice.choose(&desk, (PresenceState::Busy, Some("in a meeting".to_owned())), at(0));
        alice.sync_begins(&desk, (PresenceState::Online, true), at(1));
        alice.is_active(at(2));
        let shown = alice.shown(at(3).0);
        assert_eq!(shown.state, PresenceState::Busy);
        assert_eq!(shown.status_msg.as_deref(), Some("in a meeting"));
        alice.choose(&desk, (PresenceState::Unavailable, None), at(4));
        assert_eq!(alice.shown(at(5).0).state, PresenceState::Unavailable);
        alice.sync_begins(&desk, (PresenceState::Online, false), at(5));
        assert_eq!(
            alice.shown(at(5).0).state,
            PresenceState::Unavailable,
            "a sync alone is no sign"
        );
        alice.is_active(at(6));
        assert_eq!(alice.shown(at(7).0).state, PresenceState::Online);
        alice.choose(&desk, (PresenceState::Offline, None), at(8));
        alice.is_active(at(9));
        assert_eq!(alice.shown(at(10).0).state, PresenceState::Offline, "who hides stays hidden");
    }
}

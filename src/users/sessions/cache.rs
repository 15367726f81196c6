//! The sessions in memory, so that an authenticated request reads no storage.
//!
//! A session read from storage enters only if none was dropped since that read began: otherwise it
//! might be one that ended meanwhile.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic::AtomicU64},
};

use ruma::{OwnedDeviceId, OwnedUserId, UserId};

use crate::{
    http::{SessionId, Standing},
    storage::rows::users::{AccessTokenRow, AccountRow},
};

/// More sessions than this at once start the memory anew; each has some hundred bytes.
const SESSIONS_MAX: usize = 100_000;

/// A session that is in use.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) user_id: OwnedUserId,
    pub(super) device_id: OwnedDeviceId,
    pub(super) admin: bool,
    pub(super) guest: bool,
    pub(super) standing: Standing,
    pub(super) expires_ts: Option<u64>,
    /// When it was last written down that the device was seen.
    pub(super) seen_ts: AtomicU64,
}

impl Session {
    pub(super) fn new(token: &AccessTokenRow, account: &AccountRow) -> Self {
        Self {
            user_id: token.user_id.clone(),
            device_id: token.device_id.clone(),
            admin: account.admin,
            guest: account.guest,
            standing: standing(account),
            expires_ts: token.expires_ts,
            seen_ts: AtomicU64::new(0),
        }
    }
}

pub(in crate::users) fn standing(account: &AccountRow) -> Standing {
    match account {
        AccountRow { locked: true, .. } => Standing::Locked,
        AccountRow { suspended: true, .. } => Standing::Suspended,
        _ => Standing::Good,
    }
}

/// Sessions by the hash of their access token.
#[derive(Default)]
pub(super) struct Cache(RwLock<Entries>);

#[derive(Default)]
struct Entries {
    sessions: HashMap<SessionId, Arc<Session>>,
    /// Counts how often sessions were dropped.
    generation: u64,
}

impl Cache {
    pub(super) fn get(&self, id: &SessionId) -> Option<Arc<Session>> {
        self.read().sessions.get(id).cloned()
    }

    /// To be taken before a session is read from storage.
    pub(super) fn generation(&self) -> u64 {
        self.read().generation
    }

    /// Keeps a session whose reading began at `generation`.
    pub(super) fn insert(&self, generation: u64, id: SessionId, session: Arc<Session>) {
        let mut entries = self.write();
        if entries.generation != generation {
            return;
        }
        if entries.sessions.len() >= SESSIONS_MAX {
            entries.sessions.clear();
        }
        entries.sessions.insert(id, session);
    }

    pub(super) fn forget(&self, sessions: &[[u8; 32]]) {
        if sessions.is_empty() {
            return;
        }
        let mut entries = self.write();
        entries.generation += 1;
        for &session in sessions {
            entries.sessions.remove(&SessionId(session));
        }
    }

    pub(super) fn forget_user(&self, user_id: &UserId) {
        let mut entries = self.write();
        entries.generation += 1;
        entries.sessions.retain(|_, session| session.user_id != user_id);
    }

    // A poisoned map is whole: no step between two of its changes can panic.
    fn read(&self) -> RwLockReadGuard<'_, Entries> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Entries> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use ruma::{device_id, user_id};

    use super::*;

    fn session() -> Arc<Session> {
        let token = AccessTokenRow {
            user_id: user_id!("@alice:example.org").to_owned(),
            device_id: device_id!("PHONE").to_owned(),
            expires_ts: None,
            replaces: None,
            used: false,
        };
        Arc::new(Session::new(&token, &AccountRow::default()))
    }

    #[test]
    fn t67_a_session_that_ended_while_it_was_read_does_not_enter() {
        let cache = Cache::default();
        let id = SessionId([1; 32]);
        let generation = cache.generation();
        cache.forget(&[id.0]);
        cache.insert(generation, id, session());
        assert!(cache.get(&id).is_none());
        cache.insert(cache.generation(), id, session());
        assert!(cache.get(&id).is_some());
        cache.forget_user(user_id!("@alice:example.org"));
        assert!(cache.get(&id).is_none());
    }
}

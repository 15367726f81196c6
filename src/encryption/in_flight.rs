//! The one-time keys that are being claimed right now.
//!
//! Claims that come at once would all choose the oldest key, and all but one would conflict. So a
//! claim says which keys it takes before it commits, and others take the next ones. This is for speed
//! alone: that no key is handed out twice is ensured by the check of its row.

use std::collections::{BTreeSet, HashMap};

use kv::Position;
use parking_lot::Mutex;

use crate::storage::{
    rows::encryption::OneTimeKeyRow,
    schema::encryption::{DeviceAlgorithmKey, OneTimeKeyKey},
};

/// The place of a key in its queue.
type Place = (Position, u16);

/// A key that waits, with its row.
pub(super) type Waiting = (OneTimeKeyKey, OneTimeKeyRow);

/// The keys that are taken, by their queues.
#[derive(Debug, Default)]
pub(super) struct InFlight(Mutex<HashMap<DeviceAlgorithmKey, BTreeSet<Place>>>);

/// Keys that are taken until this is dropped, which happens on every path.
#[must_use = "the keys are free again once it is dropped"]
pub(super) struct Taken<'a> {
    claims: &'a InFlight,
    keys: Vec<(DeviceAlgorithmKey, Place)>,
}

impl InFlight {
    /// What is taken of each of these queues.
    pub(super) fn taken(&self, queues: &[DeviceAlgorithmKey]) -> Vec<BTreeSet<Place>> {
        let taken = self.0.lock();
        queues.iter().map(|queue| taken.get(queue).cloned().unwrap_or_default()).collect()
    }

    /// Takes the first of each list that is free. `None`: of some list, none is; nothing is taken.
    pub(super) fn take(&self, lists: Vec<Vec<Waiting>>) -> Option<(Taken<'_>, Vec<Waiting>)> {
        let mut guard = Taken { claims: self, keys: Vec::new() };
        let mut chosen = Vec::new();
        for list in lists {
            // Dropping the guard takes the lock, so it is not held here.
            let key = self.take_first(list)?;
            guard.keys.push((queue(&key.0), place(&key.0)));
            chosen.push(key);
        }
        Some((guard, chosen))
    }

    fn take_first(&self, list: Vec<Waiting>) -> Option<Waiting> {
        let mut taken = self.0.lock();
        let places = taken.entry(queue(&list.first()?.0)).or_default();
        list.into_iter().find(|(key, _)| places.insert(place(key)))
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut taken = self.claims.0.lock();
        for (queue, place) in self.keys.drain(..) {
            let Some(places) = taken.get_mut(&queue) else { continue };
            places.remove(&place);
            if places.is_empty() {
                taken.remove(&queue);
            }
        }
    }
}

fn queue(key: &OneTimeKeyKey) -> DeviceAlgorithmKey {
    let OneTimeKeyKey { user_id, device_id, algorithm, .. } = key.clone();
    DeviceAlgorithmKey { user_id, device_id, algorithm }
}

/// The place of a key.
pub(super) const fn place(key: &OneTimeKeyKey) -> Place {
    (key.position, key.index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(device: &str, index: u16) -> Waiting {
        let key = OneTimeKeyKey {
            user_id: "@a:hs1".to_owned(),
            device_id: device.to_owned(),
            algorithm: "signed_curve25519".to_owned(),
            position: Position::from_u64(1),
            index,
        };
        (key, OneTimeKeyRow { key_id: index.to_string(), key: Vec::new() })
    }

    fn indexes(chosen: &[Waiting]) -> Vec<u16> {
        chosen.iter().map(|(key, _)| key.index).collect()
    }

    #[test]
    fn those_who_come_at_once_take_different_keys() {
        let claims = InFlight::default();
        let list = || vec![waiting("D", 0), waiting("D", 1)];
        let (first, chosen) = claims.take(vec![list(), vec![waiting("E", 0)]]).unwrap();
        assert_eq!(indexes(&chosen), [0, 0]);
        let (second, chosen) = claims.take(vec![list()]).unwrap();
        assert_eq!(indexes(&chosen), [1]);
        assert!(claims.take(vec![vec![waiting("F", 0)], list()]).is_none());
        assert!(claims.take(vec![vec![waiting("F", 0)]]).is_some(), "nothing was kept of it");
        let queues = [queue(&waiting("D", 0).0), queue(&waiting("F", 0).0)];
        let taken = claims.taken(&queues);
        assert_eq!((taken[0].len(), taken[1].len()), (2, 0));
        drop((first, second));
        assert!(claims.0.lock().is_empty());
    }
}

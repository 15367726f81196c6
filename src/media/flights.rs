//! Work that several ask for at once and that is done once: the first starts it, all get the result.
//!
//! The work is a task of its own: it goes on when those who asked have hung up, so that the next
//! who asks finds it done.

use std::{collections::HashMap, future::Future, hash::Hash, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::watch;

/// What is being worked on, by key.
pub(super) struct Flights<K, T>(Arc<Mutex<HashMap<K, watch::Receiver<Option<T>>>>>);

impl<K, T> Default for Flights<K, T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K, T> Flights<K, T>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// The result of the work for this key that goes on now; `None` where there is none, and within
    /// that `None` where it was broken off.
    pub(super) async fn joined(&self, key: &K) -> Option<Option<T>> {
        let mut result = self.0.lock().get(key)?.clone();
        Some(result.wait_for(Option::is_some).await.ok().and_then(|done| done.clone()))
    }

    /// The result of the work for this key, which may have begun already. `None`: it was broken off.
    pub(super) async fn join<F>(&self, key: K, work: impl FnOnce() -> F) -> Option<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut result = {
            let mut flights = self.0.lock();
            if let Some(result) = flights.get(&key) {
                result.clone()
            } else {
                let (sender, result) = watch::channel(None);
                flights.insert(key.clone(), result.clone());
                let landing = Landing { flights: self.0.clone(), key };
                let work = work();
                tokio::spawn(async move {
                    let landing = landing;
                    let done = work.await;
                    // Those who come now begin anew; those who wait get this.
                    drop(landing);
                    sender.send_replace(Some(done));
                });
                result
            }
        };
        let done = result.wait_for(Option::is_some).await.ok()?;
        done.clone()
    }
}

/// Forgets the work when it ends, also by a panic.
struct Landing<K: Eq + Hash, T> {
    flights: Arc<Mutex<HashMap<K, watch::Receiver<Option<T>>>>>,
    key: K,
}

impl<K: Eq + Hash, T> Drop for Landing<K, T> {
    fn drop(&mut self) {
        self.flights.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn what_several_ask_for_is_done_once() {
        let flights = Flights::default();
        let count = Arc::new(AtomicUsize::new(0));
        let work = || {
            let count = count.clone();
            async move {
                tokio::task::yield_now().await;
                count.fetch_add(1, Ordering::SeqCst)
            }
        };
        assert_eq!(flights.joined(&"a").await, None);
        let (one, other, third) =
            tokio::join!(flights.join("a", work), flights.join("a", work), flights.joined(&"a"),);
        assert_eq!((one, other, third), (Some(0), Some(0), Some(Some(0))));
        assert_eq!(flights.join("a", work).await, Some(1));
        let panics: Option<usize> = flights.join("b", || async { panic!("broken off") }).await;
        assert_eq!(panics, None);
        assert!(flights.0.lock().is_empty());
    }
}

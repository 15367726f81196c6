//! Who hears of a commit: feeds get all of them in order, watchers wait for a topic.
//!
//! The sequencer publishes a group after its write and before it answers the writers, all under one
//! lock: whoever looks afterwards sees the position, and whoever registered before is told.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use crate::{Position, Store};

/// Something that commits touch and that can be waited for: a room, a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic {
    /// What kind of thing it is.
    pub space: u8,
    /// Which one.
    pub id: u64,
}

/// A batch that was committed and had a position.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The first position it was given.
    pub first: Position,
    /// The last one.
    pub last: Position,
    /// What it touched.
    pub topics: Arc<[Topic]>,
}

/// All commits since the feed was made, in order.
#[derive(Debug)]
pub struct Feed {
    commits: mpsc::UnboundedReceiver<Commit>,
}

impl Feed {
    /// All commits that wait, at least one; `None` once the store is closed.
    pub async fn next(&mut self) -> Option<Vec<Commit>> {
        let mut commits = Vec::new();
        let count = self.commits.recv_many(&mut commits, usize::MAX).await;
        (count > 0).then_some(commits)
    }
}

impl Store {
    /// Every commit from now on: all with a position after [`Store::position`].
    pub fn feed(&self) -> Feed {
        self.bulletin().feed()
    }

    /// Resolves when a commit after `after` touched one of the topics, with a position that shows
    /// that commit. It also resolves when the store closes, and at once when `after` is so old that
    /// it is not known any more what was touched since.
    pub async fn watch(&self, topics: &[Topic], after: Position) -> Position {
        self.bulletin().watch(topics, after).await
    }
}

/// How many topics are remembered with their last commit.
const TOPICS_MAX: usize = 100_000;

/// The published position and those who are told of the next.
#[derive(Debug)]
pub(crate) struct Bulletin {
    position: AtomicU64,
    listeners: Mutex<Listeners>,
}

#[derive(Debug, Default)]
struct Listeners {
    feeds: Vec<mpsc::UnboundedSender<Commit>>,
    waiting: BTreeMap<(Topic, u64), Arc<Notify>>,
    waiting_next: u64,
    touched: HashMap<Topic, Position>,
    /// What was touched up to here is forgotten.
    horizon: Position,
    closed: bool,
}

impl Bulletin {
    pub(crate) fn new(position: Position) -> Self {
        let listeners = Listeners { horizon: position, ..Listeners::default() };
        Self { position: AtomicU64::new(position.as_u64()), listeners: Mutex::new(listeners) }
    }

    pub(crate) fn position(&self) -> Position {
        Position::from_u64(self.position.load(Ordering::Acquire))
    }

    /// Tells of a group that is written.
    pub(crate) fn publish(&self, position: Position, commits: &[Commit]) {
        let mut listeners = self.listeners.lock();
        self.position.store(position.as_u64(), Ordering::Release);
        let Listeners { feeds, waiting, touched, horizon, .. } = &mut *listeners;
        feeds.retain(|feed| commits.iter().all(|commit| feed.send(commit.clone()).is_ok()));
        for commit in commits {
            for &topic in commit.topics.iter() {
                touched.insert(topic, commit.last);
                for waiter in waiting.range((topic, 0)..=(topic, u64::MAX)) {
                    waiter.1.notify_one();
                }
            }
        }
        if touched.len() > TOPICS_MAX {
            touched.clear();
            *horizon = position;
        }
    }

    /// Ends the feeds and lets all watchers go.
    pub(crate) fn close(&self) {
        let mut listeners = self.listeners.lock();
        listeners.closed = true;
        listeners.feeds.clear();
        for waiter in listeners.waiting.values() {
            waiter.notify_one();
        }
    }

    fn feed(&self) -> Feed {
        let (sender, commits) = mpsc::unbounded_channel();
        let mut listeners = self.listeners.lock();
        if !listeners.closed {
            listeners.feeds.push(sender);
        }
        Feed { commits }
    }

    async fn watch(&self, topics: &[Topic], after: Position) -> Position {
        if let Some(waiter) = self.wait_for(topics, after) {
            waiter.notify.notified().await;
        }
        self.position()
    }

    /// Registers, unless there is something to tell already.
    fn wait_for<'a>(&'a self, topics: &'a [Topic], after: Position) -> Option<Waiter<'a>> {
        let mut listeners = self.listeners.lock();
        let told = |topic| listeners.touched.get(topic).is_some_and(|last| *last > after);
        if listeners.closed || after < listeners.horizon || topics.iter().any(told) {
            return None;
        }
        let id = listeners.waiting_next;
        listeners.waiting_next += 1;
        let notify = Arc::new(Notify::new());
        for &topic in topics {
            listeners.waiting.insert((topic, id), notify.clone());
        }
        Some(Waiter { bulletin: self, topics, id, notify })
    }
}

/// A watcher's registration, which ends with it.
struct Waiter<'a> {
    bulletin: &'a Bulletin,
    topics: &'a [Topic],
    id: u64,
    notify: Arc<Notify>,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut listeners = self.bulletin.listeners.lock();
        for &topic in self.topics {
            listeners.waiting.remove(&(topic, self.id));
        }
    }
}

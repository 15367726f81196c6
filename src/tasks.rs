//! Work in the background: started by name, told to stop, waited for.
//!
//! A part that works on its own (a sender, an index, a timer) spawns its loop here and ends it when
//! [`Stop::requested`] answers. `server.rs` stops all of them before it closes the store. When the
//! last handle goes without that, as in a test, the tasks are aborted.

use std::{future::Future, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::watch, task::JoinSet};

/// How long tasks may take to end once they are told to.
const STOP_DURATION_MAX: Duration = Duration::from_secs(10);

/// All tasks of one server; cheap to clone.
#[derive(Clone, Debug)]
pub struct Tasks(Arc<Running>);

#[derive(Debug)]
struct Running {
    stop: watch::Sender<bool>,
    tasks: Mutex<JoinSet<()>>,
}

/// Tells a task when to end.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

impl Default for Tasks {
    fn default() -> Self {
        Self(Arc::new(Running { stop: watch::Sender::new(false), tasks: Mutex::default() }))
    }
}

impl Tasks {
    /// Starts a task. Must run inside the runtime.
    pub fn spawn<F>(&self, task: impl FnOnce(Stop) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut tasks = self.0.tasks.lock();
        // What has ended is forgotten here, so that short tasks do not gather.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task(Stop(self.0.stop.subscribe())));
    }

    /// Tells all tasks to end and waits for them, but not for ever.
    pub async fn stop(&self) {
        self.0.stop.send_replace(true);
        let mut tasks = std::mem::take(&mut *self.0.tasks.lock());
        let all = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_DURATION_MAX, all).await.is_err() {
            tracing::warn!("background tasks did not end in time and were aborted");
        }
    }
}

impl Stop {
    /// Waits until the task is to end.
    pub async fn requested(&mut self) {
        // A sender that is gone means the same.
        let _ = self.0.wait_for(|stop| *stop).await;
    }

    /// Whether the task is to end.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test]
    async fn tasks_end_when_they_are_told() {
        let tasks = Tasks::default();
        let ended = Arc::new(AtomicBool::new(false));
        let flag = ended.clone();
        tasks.spawn(async move |mut stop: Stop| {
            stop.requested().await;
            flag.store(true, Ordering::SeqCst);
        });
        tasks.stop().await;
        assert!(ended.load(Ordering::SeqCst));
    }
}

//! Backups of the database while the server runs: the first as soon as there is none, then one each
//! interval, counted from the newest that lies in the folder.
//!
//! The server goes on writing meanwhile. One that fails is told in the log and tried again.

use std::{path::PathBuf, time::Duration};

use kv::{Store, backup};

use crate::{config::DatabaseConfig, tasks::Stop, time::Clock};

/// How long a backup that failed waits to be tried again, where the interval is not shorter.
const RETRY_INTERVAL: Duration = Duration::from_hours(1);

/// Where backups go, how often, and how many stay.
#[derive(Clone, Debug)]
pub struct Backups {
    path: PathBuf,
    interval: Duration,
    keep: usize,
}

impl Backups {
    /// From the settings; `None` where they name no folder.
    pub fn new(config: &DatabaseConfig) -> Option<Self> {
        let path = config.backup_path.clone()?;
        let interval = Duration::from_secs(config.backup_interval_hours.saturating_mul(3600));
        Some(Self { path, interval, keep: config.backup_keep })
    }

    /// Makes backups until the server stops.
    pub async fn run(self, store: Store, clock: Clock, mut stop: Stop) {
        let mut failed = false;
        loop {
            let wait = if failed {
                RETRY_INTERVAL.min(self.interval)
            } else {
                self.wait(self.newest_s().await, u64::from(clock.now().get()) / 1000)
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.requested() => return,
            }
            // What has begun is finished also when the server stops: the process waits for it.
            failed = tokio::select! {
                done = self.make(&store) => !done,
                () = stop.requested() => return,
            };
        }
    }

    /// How long to wait for the next one. A newest one of the future does not count as such.
    fn wait(&self, newest_s: Option<u64>, now_s: u64) -> Duration {
        let age = newest_s.map(|newest| Duration::from_secs(now_s.saturating_sub(newest)));
        age.map_or(Duration::ZERO, |age| self.interval.saturating_sub(age))
    }

    async fn newest_s(&self) -> Option<u64> {
        let path = self.path.clone();
        let listed = tokio::task::spawn_blocking(move || backup::list(&path)).await;
        let newest = listed.ok()?.ok()?.last().copied()?;
        u64::try_from(newest.made_at_s).ok()
    }

    /// Whether it succeeded.
    async fn make(&self, store: &Store) -> bool {
        let (store, path, keep) = (store.clone(), self.path.clone(), self.keep);
        let made = tokio::task::spawn_blocking(move || store.backup(&path, keep)).await;
        match made {
            Ok(Ok(made)) => {
                tracing::info!(number = made.id, bytes = made.size_bytes, "a backup was made");
                true
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "no backup could be made; it is tried again");
                false
            }
            Err(error) => {
                tracing::error!(%error, "a backup broke off; it is tried again");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use kv::EngineOptions;
    use tempfile::TempDir;

    use super::*;
    use crate::{storage::schema::FAMILIES, tasks::Tasks};

    fn backups(path: PathBuf) -> Backups {
        let config = DatabaseConfig { backup_path: Some(path), ..DatabaseConfig::default() };
        Backups::new(&config).unwrap()
    }

    #[test]
    fn the_next_one_is_counted_from_the_newest() {
        const DAY: u64 = 24 * 3600;
        let backups = backups("backups".into());
        let cases = [
            (None, 5, 0),
            (Some(1_000), 1_000, DAY),
            (Some(1_000), 1_000 + DAY - 5, 5),
            (Some(1_000), 1_000 + 2 * DAY, 0),
            // The clock was set back.
            (Some(9_000), 1_000, DAY),
        ];
        for (newest, now, expected) in cases {
            assert_eq!(
                backups.wait(newest, now),
                Duration::from_secs(expected),
                "{newest:?} {now}"
            );
        }
        assert!(Backups::new(&DatabaseConfig::default()).is_none());
    }

    #[tokio::test]
    async fn the_first_one_is_made_at_once() {
        let folder = TempDir::new().unwrap();
        let (database, path) = (folder.path().join("database"), folder.path().join("backups"));
        let options = EngineOptions::with_memory(16 << 20);
        let store = Store::open(&database, &FAMILIES, &options).unwrap();
        let tasks = Tasks::default();
        let backups = backups(path.clone());
        let run = backups.clone();
        tasks.spawn(|stop| run.run(store, Clock::system(), stop));
        let patience = tokio::time::timeout(Duration::from_mins(1), async {
            while backups.newest_s().await.is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        patience.await.unwrap();
        tasks.stop().await;
        assert_eq!(backup::list(&path).unwrap().len(), 1);
    }
}

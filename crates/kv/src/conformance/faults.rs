//! Errors of the disk: what failed is not there, and nothing is called done that is not.

use std::time::Duration;

use super::{COUNTS, LOG, ROOM, Subject, commit, get, on_both, put};
use crate::{Batch, CommitError, Durability, Error, Position, Status};

on_both!(
    hides_a_failed_write,
    hides_a_failed_sync,
    leaves_a_full_disk,
    probes_without_a_commit,
    injects_conflicts,
);

fn is_unavailable(result: &Result<Position, CommitError>) -> bool {
    matches!(result, Err(CommitError::Store(Error::Unavailable(_))))
}

fn is_io(result: &Result<Position, CommitError>) -> bool {
    matches!(result, Err(CommitError::Store(Error::Io(_))))
}

async fn hides_a_failed_write(subject: Subject) {
    let store = &subject.store;
    commit(store, put(&COUNTS, &1, &1)).await.unwrap();
    let mut feed = store.feed();
    subject.faults.fail_writes(1);
    let mut batch = put(&COUNTS, &1, &2);
    batch.touch(ROOM);
    assert!(is_io(&commit(store, batch).await));
    assert!(matches!(store.status(), Status::ReadOnly(_)));
    assert!(is_unavailable(&commit(store, put(&COUNTS, &1, &3)).await));
    assert_eq!(get(store, &COUNTS, &1), Some(1));
    assert_eq!(store.position(), Position::ZERO);
    assert!(store.close().is_err());
    assert!(feed.next().await.is_none());
}

async fn hides_a_failed_sync(subject: Subject) {
    let store = &subject.store;
    subject.faults.fail_syncs(1);
    store.commit(put(&COUNTS, &1, &1), Durability::Buffered).await.unwrap();
    assert!(is_io(&commit(store, put(&COUNTS, &1, &2)).await));
    assert_eq!(get(store, &COUNTS, &1), Some(1));
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(is_unavailable(&commit(store, put(&COUNTS, &1, &3)).await), "never tried again");
}

async fn leaves_a_full_disk(subject: Subject) {
    let store = &subject.store;
    let entry = || put(&LOG, &Position::pending(0), &Position::pending(0));
    let first = commit(store, entry()).await.unwrap();
    subject.faults.set_disk_full(true);
    assert!(is_io(&commit(store, entry()).await));
    assert!(is_unavailable(&commit(store, entry()).await));
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(is_unavailable(&commit(store, entry()).await));
    subject.faults.set_disk_full(false);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    // What has no position publishes none that was given and failed.
    commit(store, put(&COUNTS, &1, &1)).await.unwrap();
    assert_eq!(store.position(), first);
    let next = commit(store, entry()).await.unwrap();
    assert_eq!(next.as_u64(), first.as_u64() + 2, "the failed batch's position is not reused");
    assert_eq!(get(store, &LOG, &Position::from_u64(2)), None);
    assert_eq!(get(store, &LOG, &next), Some(next));
    assert_eq!(store.position(), next);
}

async fn probes_without_a_commit(subject: Subject) {
    let store = &subject.store;
    subject.faults.set_disk_full(true);
    assert!(is_io(&commit(store, put(&COUNTS, &1, &1)).await));
    subject.faults.set_disk_full(false);
    while store.status() != Status::Ready {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(get(store, &COUNTS, &1), None);
    store.close().unwrap();
}

async fn injects_conflicts(subject: Subject) {
    let store = &subject.store;
    subject.faults.conflict_next(1);
    commit(store, Batch::new()).await.unwrap();
    let mut batch = put(&COUNTS, &1, &1);
    batch.check_absent(&COUNTS, &1);
    assert!(matches!(commit(store, batch.clone()).await, Err(CommitError::Conflict)));
    commit(store, batch).await.unwrap();
}

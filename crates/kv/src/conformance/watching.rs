//! Feeds and watchers: nothing is lost and nothing comes out of order.

use std::time::Duration;

use super::{COUNTS, LOG, ROOM, Subject, commit, get, on_both, put};
use crate::{Batch, Durability, Position, Topic};

on_both!(feeds_in_order, loses_no_wake_up, wakes_only_the_touched, lets_go_at_the_end);

async fn feeds_in_order(subject: Subject) {
    let store = &subject.store;
    let mut feed = store.feed();
    let mut tasks = Vec::new();
    for writer in 0..8 {
        let store = store.clone();
        tasks.push(tokio::spawn(async move {
            for round in 0..100 {
                let mut batch = put(&LOG, &Position::pending(0), &Position::ZERO);
                batch.reserve_positions(1 + round % 3);
                batch.touch(Topic { space: 1, id: writer });
                store.commit(batch, Durability::Buffered).await.unwrap();
            }
        }));
    }
    let (mut count, mut last, mut rounds) = (0, 0, [0; 8]);
    while count < 800 {
        for commit in feed.next().await.unwrap() {
            assert_eq!(commit.first.as_u64(), last + 1);
            assert!(store.position() >= commit.last, "told before published");
            last = commit.last.as_u64();
            let round = &mut rounds[usize::try_from(commit.topics[0].id).unwrap()];
            assert_eq!(last - commit.first.as_u64(), *round % 3, "not in its writer's order");
            *round += 1;
            count += 1;
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
    store.close().unwrap();
    assert!(feed.next().await.is_none());
    assert!(store.feed().next().await.is_none());
}

async fn loses_no_wake_up(subject: Subject) {
    const LAST: i64 = 2000;
    let mut watchers = Vec::new();
    for _ in 0..8 {
        let store = subject.store.clone();
        watchers.push(tokio::spawn(async move {
            loop {
                let (position, value) = {
                    let reader = store.reader();
                    (reader.position(), reader.get(&COUNTS, &1).unwrap())
                };
                if value == Some(LAST) {
                    return;
                }
                let other = Topic { space: 2, id: 1 };
                assert!(store.watch(&[other, ROOM], position).await > position);
            }
        }));
    }
    for value in 1..=LAST {
        let mut batch = put(&COUNTS, &1, &value);
        batch.touch(ROOM);
        subject.store.commit(batch, Durability::Buffered).await.unwrap();
    }
    for watcher in watchers {
        watcher.await.unwrap();
    }
}

async fn wakes_only_the_touched(subject: Subject) {
    let store = &subject.store;
    let mut touching = Batch::new();
    touching.touch(ROOM);
    let first = commit(store, touching.clone()).await.unwrap();
    // What came before is told at once.
    assert_eq!(store.watch(&[ROOM], Position::ZERO).await, first);
    let other = Topic { space: ROOM.space + 1, ..ROOM };
    let (elsewhere, topics) = ([other], [ROOM]);
    let (there, here) = (store.watch(&elsewhere, first), store.watch(&topics, first));
    tokio::pin!(there, here);
    assert!(tokio::time::timeout(Duration::from_millis(20), &mut here).await.is_err());
    assert!(tokio::time::timeout(Duration::from_millis(20), &mut there).await.is_err());
    let second = commit(store, touching).await.unwrap();
    assert_eq!(here.await, second);
    assert!(tokio::time::timeout(Duration::from_millis(20), &mut there).await.is_err());
}

async fn lets_go_at_the_end(subject: Subject) {
    let store = subject.store.clone();
    let watching = tokio::spawn(async move { store.watch(&[ROOM], Position::ZERO).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    subject.store.close().unwrap();
    assert_eq!(watching.await.unwrap(), Position::ZERO);
    assert_eq!(get(&subject.store, &COUNTS, &1), None);
}

//! Committing: all or nothing, in one order, with positions.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::{COUNTS, LOG, NAMES, PAIRS, ROOM, Subject, commit, get, on_both, put};
use crate::{Batch, CommitError, Direction, Durability, Position};

on_both!(
    applies_all_or_nothing,
    checks_rows,
    checks_within_a_group,
    lets_one_of_many_win,
    fills_in_positions,
    gives_positions_in_order,
    adds_to_counters,
    deletes_ranges,
    keeps_the_limits,
    shows_whole_batches,
    refuses_after_the_end,
);

async fn applies_all_or_nothing(subject: Subject) {
    let store = &subject.store;
    commit(store, put(&COUNTS, &1, &1)).await.unwrap();
    let before = store.position();
    let mut batch = put(&COUNTS, &1, &2);
    batch.delete(&COUNTS, &1);
    batch.add(&COUNTS, &2, 1);
    batch.reserve_positions(3);
    batch.check(&COUNTS, &1, Some(&7));
    assert!(matches!(commit(store, batch).await, Err(CommitError::Conflict)));
    assert_eq!(get(store, &COUNTS, &1), Some(1));
    assert_eq!(get(store, &COUNTS, &2), None);
    assert_eq!(store.position(), before);
}

async fn checks_rows(subject: Subject) {
    let store = &subject.store;
    let mut batch = put(&COUNTS, &1, &1);
    batch.check_absent(&COUNTS, &1);
    commit(store, batch.clone()).await.unwrap();
    assert!(matches!(commit(store, batch).await, Err(CommitError::Conflict)));
    let mut batch = put(&COUNTS, &1, &2);
    batch.check(&COUNTS, &1, Some(&1));
    batch.check(&COUNTS, &2, None);
    commit(store, batch).await.unwrap();
    assert_eq!(get(store, &COUNTS, &1), Some(2));
}

/// Nothing is waited for, so that the batches meet in one group, in every way they may.
async fn checks_within_a_group(subject: Subject) {
    let store = &subject.store;
    for round in 0..50 {
        let key = (round, 1);
        let mut counted = Batch::new();
        counted.add(&COUNTS, &round, 2);
        let mut batches = vec![put(&PAIRS, &key, &1), counted.clone(), counted];
        let mut changed = put(&PAIRS, &key, &2);
        changed.check(&PAIRS, &key, Some(&1));
        changed.check(&COUNTS, &round, Some(&4));
        batches.push(changed);
        let mut removed = Batch::new();
        removed.check(&PAIRS, &key, Some(&2));
        removed.delete_range(&PAIRS, PAIRS.prefix(&round));
        removed.delete(&COUNTS, &round);
        batches.push(removed);
        let mut created = put(&PAIRS, &key, &3);
        created.check_absent(&PAIRS, &key);
        created.check_absent(&COUNTS, &round);
        created.add(&COUNTS, &round, 5);
        batches.push(created.clone());
        batches.push(created);
        let mut answers: Vec<_> =
            batches.into_iter().map(|b| store.submit(b, Durability::Buffered)).collect();
        let last = answers.pop().unwrap();
        for answer in answers {
            answer.await.unwrap();
        }
        assert!(matches!(last.await, Err(CommitError::Conflict)));
        assert_eq!(get(store, &PAIRS, &key), Some(3));
        assert_eq!(get(store, &COUNTS, &round), Some(5));
    }
    let counters = store.counters();
    assert!(counters.groups < counters.batches, "no two batches shared a group");
}

async fn lets_one_of_many_win(subject: Subject) {
    let mut tasks = Vec::new();
    for writer in 0..8_u32 {
        let store = subject.store.clone();
        tasks.push(tokio::spawn(async move {
            let mut won = 0;
            for key in 0..100 {
                let mut batch = put(&PAIRS, &(key, 0), &writer);
                batch.check_absent(&PAIRS, &(key, 0));
                match store.commit(batch, Durability::Buffered).await {
                    Ok(_) => won += 1,
                    Err(CommitError::Conflict) => {
                        assert!(get(&store, &PAIRS, &(key, 0)).is_some(), "told before published");
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            won
        }));
    }
    let mut won = 0;
    for task in tasks {
        won += task.await.unwrap();
    }
    assert_eq!(won, 100);
}

async fn fills_in_positions(subject: Subject) {
    let store = &subject.store;
    commit(store, put(&LOG, &Position::pending(0), &Position::ZERO)).await.unwrap();
    let mut batch = put(&LOG, &Position::pending(1), &Position::pending(0));
    let mut more = put(&LOG, &Position::pending(0), &Position::pending(2));
    more.put(&COUNTS, &1, &1);
    more.put(&LOG, &Position::pending(2), &Position::from_u64(99));
    batch.append(more);
    let first = commit(store, batch).await.unwrap();
    assert_eq!(first.as_u64(), 2);
    let at = |n: u64| Position::from_u64(first.as_u64() + n);
    let range = LOG.prefix(&());
    let rows = store.reader().scan(&LOG, &range, Direction::Forward, 9).unwrap();
    let expected = [
        (Position::from_u64(1), Position::ZERO),
        (at(0), at(2)),
        (at(1), at(0)),
        (at(2), Position::from_u64(99)),
    ];
    assert_eq!(rows, expected);
    assert_eq!(store.position(), at(2));
    let mut batch = Batch::new();
    batch.delete(&LOG, &at(0));
    commit(store, batch).await.unwrap();
    assert_eq!(get(store, &LOG, &at(0)), None);
}

async fn gives_positions_in_order(subject: Subject) {
    let store = &subject.store;
    assert_eq!(store.position(), Position::ZERO);
    assert_eq!(commit(store, put(&COUNTS, &1, &1)).await.unwrap(), Position::ZERO);
    let mut batch = Batch::new();
    batch.reserve_positions(3);
    assert_eq!(commit(store, batch).await.unwrap().as_u64(), 1);
    let mut batch = Batch::new();
    batch.touch(ROOM);
    assert_eq!(commit(store, batch).await.unwrap().as_u64(), 4);
    assert_eq!(commit(store, Batch::new()).await.unwrap().as_u64(), 4);
    let answers: Vec<_> = (0..500)
        .map(|_| {
            let batch = put(&LOG, &Position::pending(0), &Position::pending(0));
            store.submit(batch, Durability::Buffered)
        })
        .collect();
    for (answer, expected) in answers.into_iter().zip(5..) {
        assert_eq!(answer.await.unwrap().as_u64(), expected);
    }
    assert_eq!(store.reader().position().as_u64(), 504);
}

async fn adds_to_counters(subject: Subject) {
    let store = &subject.store;
    for _ in 0..3 {
        let mut batch = Batch::new();
        batch.add(&COUNTS, &1, 5);
        batch.add(&COUNTS, &1, -7);
        commit(store, batch).await.unwrap();
    }
    assert_eq!(get(store, &COUNTS, &1), Some(-6));
    store.compact().unwrap();
    let mut batch = Batch::new();
    batch.add(&COUNTS, &1, 10);
    batch.add(&COUNTS, &2, i64::MIN);
    commit(store, batch).await.unwrap();
    assert_eq!(get(store, &COUNTS, &1), Some(4));
    assert_eq!(get(store, &COUNTS, &2), Some(i64::MIN));
    let mut batch = Batch::new();
    batch.delete(&COUNTS, &1);
    batch.add(&COUNTS, &1, 1);
    commit(store, batch).await.unwrap();
    assert_eq!(get(store, &COUNTS, &1), Some(1));
}

async fn deletes_ranges(subject: Subject) {
    let store = &subject.store;
    let mut batch = Batch::new();
    for first in 1..=3 {
        for second in 0..3 {
            batch.put(&PAIRS, &(first, second), &0);
        }
    }
    batch.put(&NAMES, &"kept".to_owned(), &vec![]);
    commit(store, batch).await.unwrap();
    let mut batch = put(&PAIRS, &(2, 1), &1);
    batch.delete_range(&PAIRS, PAIRS.prefix(&2_u64));
    batch.put(&PAIRS, &(2, 2), &2);
    let inverted =
        PAIRS.range(std::ops::Bound::Included(&3_u64), std::ops::Bound::Excluded(&1_u64));
    batch.delete_range(&PAIRS, inverted);
    commit(store, batch).await.unwrap();
    let rows = store.reader().scan(&PAIRS, &PAIRS.prefix(&()), Direction::Forward, 99).unwrap();
    let keys: Vec<_> = rows.into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, [(1, 0), (1, 1), (1, 2), (2, 2), (3, 0), (3, 1), (3, 2)]);
    assert!(get(store, &NAMES, &"kept".to_owned()).is_some());
}

async fn keeps_the_limits(subject: Subject) {
    let store = &subject.store;
    let key = "k".to_owned();
    commit(store, put(&NAMES, &key, &vec![0; 100_000])).await.unwrap();
    let large = commit(store, put(&NAMES, &key, &vec![0; 100_001])).await;
    assert!(matches!(large, Err(CommitError::TooLarge(_))));
    let mut batch = Batch::new();
    for id in 0..99 {
        batch.put(&NAMES, &format!("{id}"), &vec![0; 100_000]);
    }
    commit(store, batch.clone()).await.unwrap();
    batch.put(&NAMES, &"more".to_owned(), &vec![0; 100_000]);
    assert!(matches!(commit(store, batch).await, Err(CommitError::TooLarge(_))));
    assert_eq!(get(store, &NAMES, &"more".to_owned()), None);
}

/// Two rows that are always written together are never seen apart.
async fn shows_whole_batches(subject: Subject) {
    let done = Arc::new(AtomicBool::new(false));
    let (store, ended) = (subject.store.clone(), done.clone());
    let looking = tokio::task::spawn_blocking(move || {
        let mut seen = 0;
        while !ended.load(Ordering::Relaxed) {
            let reader = store.reader();
            let rows = reader.get_many(&COUNTS, &[1, 1000]).unwrap();
            assert_eq!(rows[0], rows[1]);
            let value = rows[0].unwrap_or_default();
            assert!(value >= seen, "went back");
            seen = value;
        }
    });
    for value in 1..2000_i64 {
        let mut batch = put(&COUNTS, &1, &value);
        batch.put(&COUNTS, &1000, &value);
        drop(subject.store.submit(batch, Durability::Buffered));
    }
    commit(&subject.store, Batch::new()).await.unwrap();
    done.store(true, Ordering::Relaxed);
    looking.await.unwrap();
    assert_eq!(get(&subject.store, &COUNTS, &1), Some(1999));
}

async fn refuses_after_the_end(subject: Subject) {
    let store = &subject.store;
    let answer = store.submit(put(&COUNTS, &1, &1), Durability::Buffered);
    store.close().unwrap();
    answer.await.unwrap();
    assert_eq!(get(store, &COUNTS, &1), Some(1));
    let late = commit(store, put(&COUNTS, &1, &2)).await;
    assert!(matches!(late, Err(CommitError::Store(crate::Error::Unavailable(_)))));
    store.close().unwrap();
}

//! Reading: what is found, in which order, and that a reader sees one state.

use std::{
    ops::{Bound, ControlFlow},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use super::{COUNTS, DIGESTS, NAMES, PAIRS, ROWS, Subject, commit, get, on_both, put};
use crate::{Batch, Direction, Error, Table};

on_both!(
    finds_rows,
    finds_rows_that_are_not_in_memory,
    scans_ranges,
    stops_a_visit,
    finds_the_last_at_or_before,
    isolates_readers,
    reads_in_steps,
    reports_corrupt_rows,
    counts_its_work,
);

async fn finds_rows(subject: Subject) {
    let store = &subject.store;
    let mut batch = Batch::new();
    for name in ["a", "b", "c"] {
        batch.put(&NAMES, &name.to_owned(), &name.as_bytes().to_vec());
    }
    batch.put(&NAMES, &String::new(), &Vec::new());
    batch.put(&DIGESTS, &[0; 4], &vec![9]);
    commit(store, batch).await.unwrap();
    let reader = store.reader();
    assert_eq!(reader.get(&NAMES, &"b".to_owned()).unwrap(), Some(b"b".to_vec()));
    assert_eq!(reader.get(&NAMES, &"bb".to_owned()).unwrap(), None);
    assert_eq!(reader.get(&NAMES, &String::new()).unwrap(), Some(Vec::new()));
    assert!(reader.contains(&DIGESTS, &[0; 4]).unwrap());
    assert!(!reader.contains(&DIGESTS, &[1; 4]).unwrap());
    let keys = ["c", "x", "a", "c"].map(str::to_owned);
    let found = reader.get_many(&NAMES, &keys).unwrap();
    assert_eq!(found, [Some(b"c".to_vec()), None, Some(b"a".to_vec()), Some(b"c".to_vec())]);
    assert!(reader.get_many(&NAMES, &[]).unwrap().is_empty());
}

/// Large rows, each in a block of its own, half of which were read before. Keys that are not there and
/// that a filter does not know better lead from a block in memory to one that is not: what is asked for
/// together is as it is asked for one by one.
async fn finds_rows_that_are_not_in_memory(subject: Subject) {
    const COUNT: u32 = 200;
    let name = |number: u32, more: usize| format!("{number:05}{}", "x".repeat(more));
    let value = |number: u32| -> Vec<u8> {
        (0..4_000).map(|at: u32| number.wrapping_mul(at * at + 7).to_le_bytes()[1]).collect()
    };
    let subject = subject.with_cold_cache(async |store| {
        let mut batch = Batch::new();
        for number in 0..COUNT {
            batch.put(&NAMES, &name(number, 0), &value(number));
        }
        commit(store, batch).await.unwrap();
    });
    let store = &subject.await.store;
    for number in (0..COUNT).step_by(2) {
        let key = name(number, 0);
        store.read(move |reader| reader.get(&NAMES, &key)).await.unwrap();
    }
    for number in (0..COUNT).step_by(2) {
        for first in (1..200).step_by(8) {
            let keys: Vec<String> = (first..first + 8).map(|more| name(number, more)).collect();
            let found = store.read(move |reader| reader.get_many(&NAMES, &keys)).await.unwrap();
            assert_eq!(found, vec![None; 8], "after {number}");
        }
    }
    let keys: Vec<String> = (0..COUNT).map(|number| name(number, 0)).collect();
    let found = store.read(move |reader| reader.get_many(&NAMES, &keys)).await.unwrap();
    assert!(found.into_iter().eq((0..COUNT).map(|number| Some(value(number)))));
}

async fn scans_ranges(subject: Subject) {
    let store = &subject.store;
    let mut batch = Batch::new();
    for first in 1..=3 {
        for second in 0..5 {
            batch.put(&PAIRS, &(first, second), &0);
        }
    }
    // Neighbors in the same family.
    batch.put(&NAMES, &"z".to_owned(), &vec![1]);
    batch.put(&COUNTS, &0, &1);
    commit(store, batch).await.unwrap();
    let keys = |range, direction, limit| -> Vec<(u64, u64)> {
        let rows = store.reader().scan(&PAIRS, &range, direction, limit).unwrap();
        rows.into_iter().map(|(key, _)| key).collect()
    };
    let second = PAIRS.prefix(&2_u64);
    let all = [(2, 0), (2, 1), (2, 2), (2, 3), (2, 4)];
    assert_eq!(keys(second.clone(), Direction::Forward, 10), all);
    assert_eq!(keys(second.clone(), Direction::Forward, 2), [(2, 0), (2, 1)]);
    assert_eq!(keys(second.clone(), Direction::Backward, 2), [(2, 4), (2, 3)]);
    assert!(keys(second, Direction::Forward, 0).is_empty());
    let from = PAIRS.range(Bound::Excluded(&(1_u64, 3_u64)), Bound::Included(&2_u64));
    assert_eq!(keys(from, Direction::Forward, 10), [&[(1, 4)][..], &all].concat());
    let to = PAIRS.range(Bound::<&u64>::Unbounded, Bound::Excluded(&(1_u64, 2_u64)));
    assert_eq!(keys(to, Direction::Backward, 10), [(1, 1), (1, 0)]);
    let whole = PAIRS.prefix(&());
    assert_eq!(keys(whole, Direction::Forward, 100).len(), 15);
    let nothing = PAIRS.range(Bound::Included(&3_u64), Bound::Excluded(&2_u64));
    assert!(keys(nothing, Direction::Backward, 10).is_empty());
    assert!(keys(PAIRS.prefix(&4_u64), Direction::Backward, 10).is_empty());
}

async fn stops_a_visit(subject: Subject) {
    let mut batch = Batch::new();
    for id in 0..10 {
        batch.put(&COUNTS, &id, &1);
    }
    commit(&subject.store, batch).await.unwrap();
    let mut seen = Vec::new();
    let visit = |key, _| {
        seen.push(key);
        if key == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let range = COUNTS.prefix(&());
    subject.store.reader().for_each(&COUNTS, &range, Direction::Forward, visit).unwrap();
    assert_eq!(seen, [0, 1, 2, 3]);
}

async fn finds_the_last_at_or_before(subject: Subject) {
    let store = &subject.store;
    let mut batch = Batch::new();
    for key in [(1, 10), (3, 5), (3, 9), (3, u64::MAX), (4, 0)] {
        batch.put(&PAIRS, &key, &0);
    }
    commit(store, batch).await.unwrap();
    let last = |prefix: u64, key| {
        let found = store.reader().last_at_or_before(&PAIRS, &prefix, &key).unwrap();
        found.map(|(key, _)| key)
    };
    assert_eq!(last(3, (3, 4)), None, "not of another prefix");
    assert_eq!(last(3, (3, 5)), Some((3, 5)), "exactly there");
    assert_eq!(last(3, (3, 8)), Some((3, 5)));
    assert_eq!(last(3, (3, u64::MAX - 1)), Some((3, 9)));
    assert_eq!(last(3, (3, u64::MAX)), Some((3, u64::MAX)));
    assert_eq!(last(3, (9, 0)), Some((3, u64::MAX)), "a key after the prefix");
    assert_eq!(last(3, (1, 0)), None, "a key before the prefix");
    assert_eq!(last(2, (2, u64::MAX)), None, "no row of the prefix");
    let any = store.reader().last_at_or_before(&PAIRS, &(), &(2, 0)).unwrap();
    assert_eq!(any, Some(((1, 10), 0)), "the empty prefix is the table");
    let first = store.reader().last_at_or_before(&PAIRS, &(), &(0, 0)).unwrap();
    assert_eq!(first, None, "never into the table before");
}

async fn isolates_readers(subject: Subject) {
    let store = &subject.store;
    commit(store, put(&COUNTS, &1, &1)).await.unwrap();
    let before = store.reader();
    let mut batch = put(&COUNTS, &1, &2);
    batch.put(&COUNTS, &2, &2);
    batch.put(&DIGESTS, &[1; 4], &vec![]);
    commit(store, batch).await.unwrap();
    let mut batch = Batch::new();
    batch.delete_range(&COUNTS, COUNTS.prefix(&()));
    commit(store, batch).await.unwrap();
    assert_eq!(before.get(&COUNTS, &1).unwrap(), Some(1));
    assert_eq!(before.get_many(&COUNTS, &[1, 2]).unwrap(), [Some(1), None]);
    let rows = before.scan(&COUNTS, &COUNTS.prefix(&()), Direction::Forward, 9).unwrap();
    assert_eq!(rows, [(1, 1)]);
    assert!(!before.contains(&DIGESTS, &[1; 4]).unwrap());
    assert_eq!(get(store, &COUNTS, &1), None);
}

async fn reads_in_steps(subject: Subject) {
    let store = &subject.store;
    let mut batch = Batch::new();
    for id in 0..1000 {
        batch.put(&COUNTS, &id, &1);
    }
    commit(store, batch).await.unwrap();
    store.compact().unwrap();
    let runs = Arc::new(AtomicU32::new(0));
    let counted = runs.clone();
    let sum = store.read(move |reader| {
        counted.fetch_add(1, Ordering::Relaxed);
        let rows = reader.scan(&COUNTS, &COUNTS.prefix(&()), Direction::Forward, 2000)?;
        let one = reader.get(&COUNTS, &5)?.unwrap_or_default();
        Ok::<_, Error>(rows.into_iter().map(|(_, value)| value).sum::<i64>() + one)
    });
    assert_eq!(sum.await.unwrap(), 1001);
    assert!((1..=2).contains(&runs.load(Ordering::Relaxed)));
    let absent = store.read(|reader| reader.get(&COUNTS, &5000)).await.unwrap();
    assert_eq!(absent, None);
}

async fn reports_corrupt_rows(subject: Subject) {
    let store = &subject.store;
    let raw: Table<u64, Vec<u8>> = Table::new("raw", ROWS, COUNTS.tag, "tests");
    commit(store, put(&raw, &1, &vec![1, 2, 3])).await.unwrap();
    let corrupt = |result| match result {
        Err(Error::Corrupt { table, key, .. }) => (table, key),
        other => panic!("{other:?}"),
    };
    let expected = ("counts", "030000000000000001".to_owned());
    assert_eq!(corrupt(store.reader().get(&COUNTS, &1).map(drop)), expected);
    assert_eq!(corrupt(store.reader().get_many(&COUNTS, &[1]).map(drop)), expected);
    let range = COUNTS.prefix(&());
    let scanned = store.reader().scan(&COUNTS, &range, Direction::Forward, 9).map(drop);
    assert_eq!(corrupt(scanned), expected);
    let mut batch = Batch::new();
    batch.add(&COUNTS, &1, 5);
    commit(store, batch).await.unwrap();
    assert_eq!(corrupt(store.reader().get(&COUNTS, &1).map(drop)), expected);
}

async fn counts_its_work(subject: Subject) {
    let store = &subject.store;
    let mut batch = Batch::new();
    for id in 0..4 {
        batch.put(&COUNTS, &id, &1);
    }
    batch.delete(&COUNTS, &9);
    commit(store, batch).await.unwrap();
    let before = store.counters();
    assert_eq!((before.batches, before.groups, before.syncs), (1, 1, 1));
    assert_eq!((before.puts, before.deletes), (4, 1));
    let reader = store.reader();
    reader.get(&COUNTS, &1).unwrap();
    reader.get_many(&COUNTS, &[1, 2, 3]).unwrap();
    reader.scan(&COUNTS, &COUNTS.prefix(&()), Direction::Backward, 3).unwrap();
    reader.last_at_or_before(&COUNTS, &(), &2).unwrap();
    let after = store.counters();
    let difference = (after.gets, after.seeks, after.rows_scanned);
    assert_eq!(difference, (before.gets + 4, 2, 4));
}

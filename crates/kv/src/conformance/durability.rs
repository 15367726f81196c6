//! What the files promise: restarts, crashes, damage and backups. `RocksDB` only.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{COUNTS, DENSE, DIGESTS, FAMILIES, LOG, NAMES, ROWS, commit, get, put, run};
use crate::{
    Batch, ColumnFamily, Direction, Durability, EngineOptions, Error, Position, Store, backup,
    store::POSITIONS_SKIPPED,
};

fn open(path: &Path) -> Result<Store, Error> {
    Store::open(path, &FAMILIES, &EngineOptions::default())
}

fn entry() -> Batch {
    put(&LOG, &Position::pending(0), &Position::pending(0))
}

/// The files as a crash of the process would leave them.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

fn files(path: &Path, extension: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(path).unwrap().map(|file| file.unwrap().path());
    let mut found: Vec<_> =
        files.filter(|file| file.extension().is_some_and(|e| e == extension)).collect();
    found.sort();
    found
}

fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 1;
    fs::write(file, bytes).unwrap();
}

#[test]
fn goes_on_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    run(async {
        let store = open(directory.path()).unwrap();
        for expected in 1..=5 {
            assert_eq!(commit(&store, entry()).await.unwrap().as_u64(), expected);
        }
        let mut batch = Batch::new();
        batch.reserve_positions(10);
        batch.add(&COUNTS, &1, 3);
        store.commit(batch, Durability::Buffered).await.unwrap();
        assert!(open(directory.path()).is_err(), "one process at a time");
        store.close().unwrap();
        drop(store);
        let store = open(directory.path()).unwrap();
        assert_eq!(store.position().as_u64(), 15 + POSITIONS_SKIPPED);
        assert_eq!(store.reader().position().as_u64(), 15 + POSITIONS_SKIPPED);
        assert_eq!(commit(&store, entry()).await.unwrap().as_u64(), 16 + POSITIONS_SKIPPED);
        assert_eq!(get(&store, &COUNTS, &1), Some(3));
    });
}

#[test]
fn keeps_what_was_synced_in_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let (live, dead) = (directory.path().join("live"), directory.path().join("dead"));
    run(async {
        let store = open(&live).unwrap();
        commit(&store, entry()).await.unwrap();
        store.commit(entry(), Durability::Buffered).await.unwrap();
        copy(&live, &dead);
        // A crash of the machine may tear what was not synced.
        let log = files(&dead, "log").pop().unwrap();
        let size = fs::metadata(&log).unwrap().len();
        fs::File::options().write(true).open(log).unwrap().set_len(size - 3).unwrap();
        let after = open(&dead).unwrap();
        assert_eq!(after.position().as_u64(), 1 + POSITIONS_SKIPPED);
        let first = Position::from_u64(1);
        assert_eq!(get(&after, &LOG, &first), Some(first));
        assert_eq!(commit(&after, entry()).await.unwrap().as_u64(), 2 + POSITIONS_SKIPPED);
    });
}

#[test]
fn reads_cold_files_off_the_runtime() {
    let directory = tempfile::tempdir().unwrap();
    run(async {
        let store = open(directory.path()).unwrap();
        let mut batch = Batch::new();
        for id in 0_u32..5000 {
            batch.put(&DIGESTS, &id.to_be_bytes(), &vec![1; 100]);
        }
        commit(&store, batch).await.unwrap();
        store.close().unwrap();
        drop(store);
        let store = open(directory.path()).unwrap();
        let key = 77_u32.to_be_bytes();
        let thread = move |reader: &crate::Reader<'_>| {
            let rows = reader.scan(&DIGESTS, &DIGESTS.prefix(&()), Direction::Backward, 10)?;
            let many = reader.get_many(&DIGESTS, &[key])?;
            let one = reader.get(&DIGESTS, &key)?;
            assert_eq!((rows.len(), &one), (10, &many[0]));
            assert!(reader.contains(&DIGESTS, &key)?);
            Ok::<_, Error>((one, std::thread::current().id()))
        };
        let here = tokio::spawn(async move {
            let (cold, there) = store.read(thread).await.unwrap();
            assert_eq!(cold, Some(vec![1; 100]));
            assert_ne!(there, std::thread::current().id());
            let (warm, here) = store.read(thread).await.unwrap();
            assert_eq!(warm, cold);
            here == std::thread::current().id()
        });
        assert!(here.await.unwrap(), "the second time it is in memory");
    });
}

#[test]
fn creates_nothing_over_a_damaged_database() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    run(async {
        let store = open(path).unwrap();
        commit(&store, put(&COUNTS, &1, &1)).await.unwrap();
        store.close().unwrap();
    });
    assert!(!path.join("CREATING").exists());
    let current = path.join("CURRENT");
    fs::rename(&current, path.join("elsewhere")).unwrap();
    let before = fs::read_dir(path).unwrap().count();
    assert!(open(path).is_err());
    assert_eq!(fs::read_dir(path).unwrap().count(), before);
    fs::rename(path.join("elsewhere"), current).unwrap();
    assert_eq!(get(&open(path).unwrap(), &COUNTS, &1), Some(1));
    for table in files(path, "sst") {
        fs::remove_file(table).unwrap();
    }
    assert!(open(path).is_err());
}

#[test]
fn finishes_an_interrupted_creation() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("CREATING"), "").unwrap();
    fs::write(directory.path().join("LOG"), "").unwrap();
    drop(open(directory.path()).unwrap());
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("notes.txt"), "mine").unwrap();
    assert!(open(other.path()).is_err(), "not a directory of somebody else");
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 1);
}

#[test]
fn takes_new_families_and_refuses_unknown_ones() {
    let directory = tempfile::tempdir().unwrap();
    let options = EngineOptions::default();
    let few = [ROWS, ColumnFamily { index: 1, ..DENSE }];
    drop(Store::open(directory.path(), &few, &options).unwrap());
    drop(open(directory.path()).unwrap());
    assert!(Store::open(directory.path(), &few, &options).is_err());
}

/// Every bit that is turned in a table gives an error or the right answer.
#[test]
fn notices_damaged_tables() {
    let directory = tempfile::tempdir().unwrap();
    let (whole, hurt) = (directory.path().join("whole"), directory.path().join("hurt"));
    run(async {
        let store = open(&whole).unwrap();
        let mut batch = Batch::new();
        for id in 0..300 {
            batch.put(&NAMES, &format!("{id}"), &format!("value {id}").into_bytes());
        }
        commit(&store, batch).await.unwrap();
        store.close().unwrap();
        store.compact().unwrap();
    });
    let read = |path: &Path| -> Result<usize, Error> {
        let store = open(path)?;
        let rows = store.reader().scan(&NAMES, &NAMES.prefix(&()), Direction::Forward, 999)?;
        assert!(rows.iter().all(|(key, value)| format!("value {key}").as_bytes() == value));
        Ok(rows.len())
    };
    assert_eq!(read(&whole).unwrap(), 300);
    let mut noticed = 0;
    for share in 0..10 {
        copy(&whole, &hurt);
        for table in files(&hurt, "sst") {
            let size = usize::try_from(fs::metadata(&table).unwrap().len()).unwrap();
            flip(&table, size * share / 10);
        }
        match read(&hurt) {
            Ok(count) => assert_eq!(count, 300),
            Err(_) => noticed += 1,
        }
        fs::remove_dir_all(&hurt).unwrap();
    }
    assert!(noticed > 0);
}

#[test]
fn restores_backups() {
    let directory = tempfile::tempdir().unwrap();
    let place = |name| directory.path().join(name);
    let (live, backups) = (place("live"), place("backups"));
    run(async {
        let store = open(&live).unwrap();
        commit(&store, entry()).await.unwrap();
        let first = store.backup(&backups, 2).unwrap();
        commit(&store, put(&COUNTS, &1, &1)).await.unwrap();
        store.backup(&backups, 2).unwrap();
        commit(&store, entry()).await.unwrap();
        let third = store.backup(&backups, 2).unwrap();
        commit(&store, entry()).await.unwrap();
        assert!(first.id < third.id);
        assert_eq!(backup::list(&backups).unwrap().len(), 2);
        assert_eq!(backup::verify(&backups, &place("scratch")).unwrap(), third);
        assert!(!place("scratch").exists());
        assert!(backup::restore(&backups, &live).is_err(), "never over something");
        assert_eq!(backup::restore(&backups, &place("new")).unwrap(), third);
        let restored = open(&place("new")).unwrap();
        assert_eq!(restored.position().as_u64(), 2 + POSITIONS_SKIPPED);
        assert_eq!(get(&restored, &COUNTS, &1), Some(1));
        assert_eq!(commit(&restored, entry()).await.unwrap().as_u64(), 3 + POSITIONS_SKIPPED);
    });
    for table in files(&backups.join("shared_checksum"), "sst") {
        flip(&table, 20);
    }
    assert!(backup::verify(&backups, &place("scratch")).is_err());
    let store = Store::memory(&FAMILIES);
    assert!(matches!(store.backup(&backups, 1), Err(Error::Unavailable(_))));
    assert!(backup::restore(&place("nowhere"), &place("other")).is_err());
}

#[test]
fn tells_its_size() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    assert!(store.disk_bytes().unwrap() > 0);
}

/// A disk that fills and is emptied: nothing acknowledged is lost, nothing refused appears, and
/// writes go on by themselves.
#[test]
#[ignore = "needs an empty file system of about 40 MB, named in KV_SMALL_DISK"]
fn survives_a_full_disk() {
    let disk = PathBuf::from(std::env::var_os("KV_SMALL_DISK").unwrap());
    let (path, ballast) = (disk.join("store"), disk.join("ballast"));
    // Nothing that a compression makes smaller.
    let row = |id: u64| -> (u64, Vec<u8>) {
        let mix = |n: u64| (id << 20 | n).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        (id, (0..12_500).flat_map(|n| mix(n).wrapping_mul(mix(n)).to_be_bytes()).collect())
    };
    let blobs: crate::Table<u64, Vec<u8>> = crate::Table::new("blobs", ROWS, 9, "tests");
    let acknowledged = run(async {
        let store = open(&path).unwrap();
        fs::write(&ballast, vec![1; 15_000_000]).unwrap();
        let mut acknowledged = Vec::new();
        let mut refused = 0;
        for id in 0.. {
            let (key, value) = row(id);
            match commit(&store, put(&blobs, &key, &value)).await {
                Ok(_) => acknowledged.push(key),
                Err(error) if refused == 5 => {
                    eprintln!("after {}: {error}", acknowledged.len());
                    break;
                }
                Err(_) => refused += 1,
            }
        }
        assert!(matches!(store.status(), crate::Status::ReadOnly(_)));
        assert!(get(&store, &blobs, &acknowledged[0]).is_some(), "reads go on");
        fs::remove_file(&ballast).unwrap();
        let start = std::time::Instant::now();
        while store.status() != crate::Status::Ready {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        eprintln!("writes again after {:?}", start.elapsed());
        let (key, value) = row(1_000_000);
        commit(&store, put(&blobs, &key, &value)).await.unwrap();
        acknowledged.push(key);
        acknowledged
    });
    let dead = tempfile::tempdir().unwrap();
    copy(&path, dead.path());
    for path in [path.as_path(), dead.path()] {
        let store = open(path).unwrap();
        let reader = store.reader();
        let rows = reader.scan(&blobs, &blobs.prefix(&()), Direction::Forward, 9999).unwrap();
        assert!(rows.iter().all(|found| *found == row(found.0)));
        let keys: Vec<_> = rows.into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, acknowledged);
    }
}

//! Claims, uploads and restores on a store of their own, with injected errors.

use std::{collections::BTreeSet, sync::Arc};

use futures::future::join_all;
use kv::{Batch, Durability, EngineOptions, IoFault, Json, Position, Store, Table};
use ruma::{MilliSecondsSinceUnixEpoch, OwnedUserId, owned_device_id, owned_user_id};
use serde_json::{Value, json};

use super::{Claimed, Encryption, Upload, end_devices, key_counts, one_time_keys::of_algorithm};
use crate::{
    appservices::Appservices,
    config::Config,
    error::ApiError,
    id::Interner,
    storage::{
        rows::{
            encryption::{OneTimeKeyIdRow, OneTimeKeyRow},
            users::DeviceRow,
        },
        schema::{
            FAMILIES, US,
            encryption::{
                DEVICE_LIST_CHANGES, DEVICE_LISTS, DeviceAlgorithmKey, ENCRYPTION_EPOCH,
                ONE_TIME_KEY_COUNTS, ONE_TIME_KEY_ID_COUNTS, ONE_TIME_KEY_IDS, ONE_TIME_KEYS,
                OneTimeKeyIdKey, OneTimeKeyKey,
            },
            users::{DEVICES, DeviceKey},
        },
    },
    time::Clock,
};

const ALGORITHM: &str = "signed_curve25519";
const INTERNER: Interner = Interner::new([7; 16]);

/// A user's device and what is kept for it.
struct Device {
    store: Store,
    faults: IoFault,
    encryption: Encryption,
    key: DeviceKey,
}

impl Device {
    async fn new() -> Self {
        let faults = IoFault::new();
        Self::on(Store::memory_with_faults(&FAMILIES, Some(faults.clone())), faults).await
    }

    async fn on(store: Store, faults: IoFault) -> Self {
        let encryption = encryption(&store);
        encryption.enter(1).await.unwrap();
        let key = DeviceKey { user_id: "@a:hs1".to_owned(), device_id: "D".to_owned() };
        let device = Self { store, faults, encryption, key };
        device.exist().await;
        device
    }

    async fn exist(&self) {
        let mut batch = Batch::new();
        let row = DeviceRow { display_name: None, created_ts: 1, revision: 0 };
        batch.put(&DEVICES, &self.key, &Json(row));
        self.store.commit(batch, Durability::Synced).await.unwrap();
    }

    async fn upload(&self, upload: &Value) -> Result<u64, ApiError> {
        let text = upload.to_string();
        let upload: Upload<'_> = serde_json::from_str(&text).unwrap();
        let device_id = owned_device_id!("D");
        let counts = self.encryption.upload_keys(&user(), &device_id, &upload).await?;
        Ok(counts[ALGORITHM])
    }

    fn queue(&self) -> DeviceAlgorithmKey {
        of_algorithm(&self.key, ALGORITHM)
    }

    async fn claim(&self) -> Result<Claimed, ApiError> {
        self.encryption.claim_keys(vec![self.queue()]).await
    }

    /// The id of the key that is claimed.
    async fn claimed(&self) -> Option<String> {
        self.claim().await.unwrap().keys.pop().map(|key| key.key_id)
    }

    fn counts(&self) -> super::KeyCounts {
        key_counts(&self.store.reader(), &user(), &owned_device_id!("D")).unwrap()
    }
}

fn encryption(store: &Store) -> Encryption {
    let name = ruma::owned_server_name!("hs1");
    let clock = Clock::manual(MilliSecondsSinceUnixEpoch(1_u32.into()));
    let appservices = Appservices::none(store.clone(), name.clone());
    Encryption::new(store.clone(), (INTERNER, clock), &Config::for_server(name), appservices)
}

fn user() -> OwnedUserId {
    owned_user_id!("@a:hs1")
}

/// An upload of one-time keys with these ids.
fn one_time(ids: impl IntoIterator<Item = u32>) -> Value {
    let keys =
        ids.into_iter().map(|id| (format!("{ALGORITHM}:{id}"), json!({ "key": id.to_string() })));
    json!({ "one_time_keys": keys.collect::<serde_json::Map<_, _>>() })
}

fn fallback(id: &str) -> Value {
    json!({ "fallback_keys": { format!("{ALGORITHM}:{id}"): { "key": id, "fallback": true } } })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn t79_a_thousand_claims_get_each_key_once_and_then_the_fallback_key() {
    let device = Arc::new(Device::new().await);
    device.upload(&one_time(0..50)).await.unwrap();
    device.upload(&fallback("F")).await.unwrap();
    // Fewer than a single claim puts up with.
    device.faults.conflict_next(8);
    let claims = (0..1_000).map(|_| {
        let device = Arc::clone(&device);
        tokio::spawn(async move { device.claimed().await })
    });
    let mut ids: Vec<_> =
        join_all(claims).await.into_iter().map(|id| id.unwrap().unwrap()).collect();
    ids.retain(|id| id != "F");
    let once: BTreeSet<_> = ids.iter().collect();
    assert_eq!((ids.len(), once.len()), (50, 50));
    let counts = device.counts();
    assert_eq!(counts.one_time_keys[ALGORITHM], 0);
    assert!(counts.unused_fallback_key_types.is_empty());
}

#[tokio::test]
async fn t79_what_was_not_written_is_not_handed_out_and_what_was_never_again() {
    let device = Device::new().await;
    device.upload(&one_time(0..3)).await.unwrap();
    assert_eq!(device.claimed().await.as_deref(), Some("0"));
    device.faults.fail_writes(1);
    assert!(device.claim().await.is_err());
    // Another server on what the first one has written.
    let restarted = Device { encryption: encryption(&device.store), ..device };
    assert_eq!(restarted.counts().one_time_keys[ALGORITHM], 2, "0 is gone, 1 was not told");
}

/// Devices of which a claim takes three batches, each with a key that waits.
async fn many(store: &Store) -> Vec<DeviceAlgorithmKey> {
    let device = |number| DeviceKey { user_id: user().to_string(), device_id: number };
    let queues = (0..1_200).map(|number| of_algorithm(&device(format!("D{number:04}")), ALGORITHM));
    let queues: Vec<_> = queues.collect();
    let mut batch = Batch::new();
    for queue in &queues {
        let row = OneTimeKeyRow { key_id: "0".to_owned(), key: b"\"k\"".to_vec() };
        batch.put(&ONE_TIME_KEYS, &only_key(queue), &row);
        batch.add(&ONE_TIME_KEY_COUNTS, queue, 1);
    }
    store.commit(batch, Durability::Synced).await.unwrap();
    queues
}

fn only_key(queue: &DeviceAlgorithmKey) -> OneTimeKeyKey {
    let DeviceAlgorithmKey { user_id, device_id, algorithm } = queue.clone();
    OneTimeKeyKey { user_id, device_id, algorithm, position: Position::from_u64(1), index: 0 }
}

/// The devices whose keys these are.
fn told(claimed: &Claimed) -> Vec<&DeviceAlgorithmKey> {
    claimed.keys.iter().map(|key| &key.queue).collect()
}

#[tokio::test]
async fn t79_the_keys_of_batches_that_were_written_are_told_when_the_disk_fails() {
    let folder = tempfile::tempdir().unwrap();
    let faults = IoFault::new();
    let options = EngineOptions { faults: Some(faults.clone()), ..EngineOptions::default() };
    let device = Device::on(Store::open(folder.path(), &FAMILIES, &options).unwrap(), faults).await;
    let queues = many(&device.store).await;
    device.faults.fail_write_after(1);
    let first = device.encryption.claim_keys(queues.clone()).await.unwrap();
    assert!(first.incomplete);
    assert_eq!(told(&first), queues[..500].iter().collect::<Vec<_>>());
    drop(device);
    let store = Store::open(folder.path(), &FAMILIES, &EngineOptions::default()).unwrap();
    let device = Device::on(store, IoFault::new()).await;
    // The client asks for all again: none is given twice, and none was lost.
    let second = device.encryption.claim_keys(queues.clone()).await.unwrap();
    assert!(!second.incomplete);
    assert_eq!(told(&second), queues[500..].iter().collect::<Vec<_>>());
    assert!(told(&device.encryption.claim_keys(queues).await.unwrap()).is_empty());
}

#[tokio::test]
async fn t79_the_keys_of_batches_that_were_written_are_told_when_a_later_one_is_corrupt() {
    /// The same table, for what cannot be read.
    const RAW: Table<OneTimeKeyKey, Vec<u8>> =
        Table::new(ONE_TIME_KEYS.name, US, 161, ONE_TIME_KEYS.owner);
    let device = Device::new().await;
    let queues = many(&device.store).await;
    let corrupt = only_key(&queues[700]);
    let mut batch = Batch::new();
    batch.put(&RAW, &corrupt, &vec![0xff]);
    device.store.commit(batch, Durability::Synced).await.unwrap();
    let first = device.encryption.claim_keys(queues.clone()).await.unwrap();
    assert!(first.incomplete);
    assert_eq!(told(&first), queues[..500].iter().collect::<Vec<_>>());
    // Where nothing was handed out there is nothing to tell but the error.
    let error = device.encryption.claim_keys(queues[500..].to_vec()).await.unwrap_err();
    assert_eq!(error.status, http::StatusCode::INTERNAL_SERVER_ERROR);
    let mut batch = Batch::new();
    batch.delete(&RAW, &corrupt);
    device.store.commit(batch, Durability::Synced).await.unwrap();
    let second = device.encryption.claim_keys(queues.clone()).await.unwrap();
    let rest = queues[500..].iter().filter(|queue| **queue != queues[700]);
    assert_eq!(told(&second), rest.collect::<Vec<_>>());
}

#[tokio::test]
async fn a_claim_that_conflicts_for_ever_gives_up_and_takes_nothing() {
    let device = Device::new().await;
    device.upload(&one_time(0..2)).await.unwrap();
    device.faults.conflict_next(1_000);
    assert_eq!(device.claim().await.unwrap_err().status, http::StatusCode::SERVICE_UNAVAILABLE);
    device.faults.conflict_next(0);
    assert_eq!(device.claimed().await.as_deref(), Some("0"));
    assert_eq!(device.counts().one_time_keys[ALGORITHM], 1);
}

#[tokio::test]
async fn keys_are_handed_out_in_the_order_of_the_uploads() {
    let device = Device::new().await;
    device.upload(&one_time([1])).await.unwrap();
    device.upload(&one_time([0])).await.unwrap();
    // Within one upload, in the order of its JSON.
    let key = |id: &str| (format!("{ALGORITHM}:{id}"), json!({ "key": id }));
    let entries = [key("9"), key("10"), key("2")];
    let entries: Vec<_> = entries.iter().map(|(id, key)| format!("\"{id}\":{key}")).collect();
    let text = format!("{{\"one_time_keys\":{{{}}}}}", entries.join(","));
    let upload: Upload<'_> = serde_json::from_str(&text).unwrap();
    device.encryption.upload_keys(&user(), &owned_device_id!("D"), &upload).await.unwrap();
    for expected in ["1", "0", "9", "10", "2"] {
        assert_eq!(device.claimed().await.as_deref(), Some(expected));
    }
    assert_eq!(device.claimed().await, None);
}

#[tokio::test]
async fn an_upload_that_comes_again_neither_adds_nor_revives() {
    let device = Device::new().await;
    for _ in 0..2 {
        assert_eq!(device.upload(&one_time(0..4)).await.unwrap(), 4);
    }
    assert_eq!(device.claimed().await.as_deref(), Some("0"));
    let before = device.store.position();
    assert_eq!(device.upload(&one_time(0..4)).await.unwrap(), 3);
    assert_eq!(device.store.position(), before, "nothing was written");
    assert_eq!(device.upload(&one_time(1..5)).await.unwrap(), 4);
    for expected in ["1", "2", "3", "4"] {
        assert_eq!(device.claimed().await.as_deref(), Some(expected));
    }
    assert_eq!(device.claimed().await, None);
    device.upload(&fallback("F")).await.unwrap();
    assert_eq!(device.claimed().await.as_deref(), Some("F"));
    device.upload(&fallback("F")).await.unwrap();
    assert!(device.counts().unused_fallback_key_types.is_empty(), "it is used");
    device.upload(&fallback("G")).await.unwrap();
    assert_eq!(device.counts().unused_fallback_key_types, [ALGORITHM]);
    assert_eq!(device.claimed().await.as_deref(), Some("G"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_same_upload_at_the_same_time_adds_once_and_others_keep_to_the_limit() {
    let device = Arc::new(Device::new().await);
    let upload = |ids: std::ops::Range<u32>| {
        let device = Arc::clone(&device);
        tokio::spawn(async move { device.upload(&one_time(ids)).await })
    };
    for answer in join_all((0..8).map(|_| upload(0..100))).await {
        answer.unwrap().unwrap();
    }
    assert_eq!(device.counts().one_time_keys[ALGORITHM], 100);
    let answers = join_all((1..5).map(|block| upload(block * 100..(block + 1) * 100))).await;
    let refused: Vec<_> = answers.into_iter().filter_map(|answer| answer.unwrap().err()).collect();
    assert_eq!(refused.len(), 3);
    assert!(refused.iter().all(|error| error.errcode == "M_INVALID_PARAM"));
    assert_eq!(device.counts().one_time_keys[ALGORITHM], 200);
}

#[tokio::test]
async fn the_ids_of_old_keys_are_forgotten() {
    let device = Device::new().await;
    let mut batch = Batch::new();
    for number in 0..8_200_u16 {
        let id = OneTimeKeyIdKey {
            user_id: device.key.user_id.clone(),
            device_id: device.key.device_id.clone(),
            algorithm: ALGORITHM.to_owned(),
            key_id: format!("old{number}"),
        };
        let position = Position::from_u64(1);
        let row = OneTimeKeyIdRow { hash: [0; 32], position, index: number, handed_out: true };
        batch.put(&ONE_TIME_KEY_IDS, &id, &row);
    }
    batch.put(&ONE_TIME_KEY_ID_COUNTS, &device.key, &8_200);
    device.store.commit(batch, Durability::Synced).await.unwrap();
    assert_eq!(device.upload(&one_time(0..2)).await.unwrap(), 2);
    let reader = device.store.reader();
    assert_eq!(reader.get(&ONE_TIME_KEY_ID_COUNTS, &device.key).unwrap(), Some(4_098));
    let range = ONE_TIME_KEY_IDS.prefix(&(device.key.user_id.clone(),));
    let rows = reader.scan(&ONE_TIME_KEY_IDS, &range, kv::Direction::Forward, usize::MAX).unwrap();
    assert_eq!(rows.len(), 4_098);
    let oldest = rows.iter().filter(|(_, row)| row.handed_out).map(|(_, row)| row.index).min();
    assert_eq!(oldest, Some(8_200 - 4_096), "the oldest are gone");
}

#[tokio::test]
async fn what_is_kept_of_keys_goes_with_the_device() {
    let device = Device::new().await;
    device.upload(&one_time(0..3)).await.unwrap();
    device.upload(&fallback("F")).await.unwrap();
    device.claimed().await.unwrap();
    let read = device.store.read(|reader| {
        let mut batch = Batch::new();
        let devices = BTreeSet::from(["D".to_owned()]);
        let told = end_devices(reader, &mut batch, INTERNER, (&user(), &devices))?;
        assert!(told.is_none(), "it has no identity keys");
        Ok::<_, kv::Error>(batch)
    });
    let mut batch = read.await.unwrap();
    batch.delete(&DEVICES, &device.key);
    device.store.commit(batch, Durability::Synced).await.unwrap();
    assert_eq!(device.claimed().await, None);
    let error = device.upload(&one_time(0..3)).await.unwrap_err();
    assert_eq!(error.errcode, "M_UNKNOWN_TOKEN");
    device.exist().await;
    assert_eq!(
        device.upload(&one_time(0..3)).await.unwrap(),
        3,
        "a device of the same name is new"
    );
    let counts = device.counts();
    assert!(counts.unused_fallback_key_types.is_empty());
}

#[tokio::test]
async fn a_restored_database_hands_out_no_key_of_before() {
    let device = Device::new().await;
    device.upload(&one_time(0..3)).await.unwrap();
    device.upload(&fallback("F")).await.unwrap();
    let mut batch = Batch::new();
    // More users than one step is about.
    for number in 0..250 {
        batch.put(&DEVICE_LISTS, &format!("@u{number:03}:hs1"), &Position::from_u64(1));
    }
    let before = device.store.commit(batch, Durability::Synced).await.unwrap();
    let changed = device.counts().changed;
    device.encryption.enter(1).await.unwrap();
    assert_eq!(device.counts().one_time_keys[ALGORITHM], 3, "the same epoch");
    // What is broken off in the middle begins again.
    device.faults.conflict_next(1_000);
    assert!(device.encryption.enter(2).await.is_err());
    assert_eq!(device.counts().one_time_keys[ALGORITHM], 0);
    assert_eq!(device.store.reader().get(&ENCRYPTION_EPOCH, &0).unwrap(), Some(Json(1)));
    device.faults.conflict_next(2);
    device.encryption.enter(2).await.unwrap();
    let counts = device.counts();
    assert_eq!(counts.one_time_keys[ALGORITHM], 0);
    assert!(counts.unused_fallback_key_types.is_empty() && counts.changed > changed);
    let reader = device.store.reader();
    for number in [0, 99, 100, 249] {
        let position = reader.get(&DEVICE_LISTS, &format!("@u{number:03}:hs1")).unwrap();
        assert!(position > Some(before), "{number}");
    }
    let range = DEVICE_LIST_CHANGES.prefix(&());
    let log = reader.scan(&DEVICE_LIST_CHANGES, &range, kv::Direction::Forward, usize::MAX);
    assert_eq!(log.unwrap().len(), 250);
    assert!(!reader.contains(&ONE_TIME_KEY_ID_COUNTS, &device.key).unwrap());
    assert!(!reader.contains(&ONE_TIME_KEY_COUNTS, &device.queue()).unwrap());
    assert_eq!(reader.get(&ENCRYPTION_EPOCH, &0).unwrap(), Some(Json(2)));
    let rows: Vec<(_, OneTimeKeyRow)> = reader
        .scan(&ONE_TIME_KEYS, &ONE_TIME_KEYS.prefix(&()), kv::Direction::Forward, usize::MAX)
        .unwrap();
    assert!(rows.is_empty());
    assert_eq!(device.claimed().await.as_deref(), Some("F"));
    assert_eq!(device.upload(&one_time(0..3)).await.unwrap(), 3);
}

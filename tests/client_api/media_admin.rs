//! What is stored of files, and how it goes again.

use std::path::Path;

use causerie::{
    media::Media,
    storage::schema::media::UNSETTLED_FILES,
    tasks::{Stop, Tasks},
};
use http::Method;
use kv::{Batch, Durability};
use serde_json::json;

use crate::harness::TestServer;

const DAY: u64 = 24 * 60 * 60;

/// How many files lie in a folder and those below it.
fn count(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries.map(|entry| if entry.path().is_dir() { count(&entry.path()) } else { 1 }).sum()
}

/// Does the work of a background task.
async fn worked<F>(work: impl FnOnce(Stop) -> F) -> usize
where
    F: Future<Output = usize> + Send + 'static,
{
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let tasks = Tasks::default();
    tasks.spawn(|stop| {
        let work = work(stop);
        async move {
            let _ = sender.send(work.await);
        }
    });
    receiver.await.unwrap()
}

impl TestServer {
    pub(crate) fn stored_files(&self) -> usize {
        count(self.media_folder.path())
    }

    pub(crate) async fn delete_media(&self, place: &str) -> bool {
        let key = Media::key_of_uri(&format!("mxc://{place}")).unwrap();
        self.server.media.delete(&key).await.unwrap()
    }

    /// A round of the worker.
    pub(crate) async fn remove_old(&self) -> usize {
        let media = self.server.media.clone();
        worked(|stop| async move { media.remove_old(&stop).await.unwrap() }).await
    }

    /// Another.
    pub(crate) async fn shrink_cache(&self) -> usize {
        let media = self.server.media.clone();
        worked(|stop| async move { media.shrink_cache(&stop).await.unwrap() }).await
    }
}

#[tokio::test]
async fn a_content_is_stored_once_and_goes_with_its_last_file() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let one = alice.upload("text/plain", "same").await;
    let other = bob.upload("image/png", "same").await;
    assert_ne!(one, other);
    assert_eq!(server.stored_files(), 1);
    alice.upload("text/plain", "another").await;
    assert_eq!(server.stored_files(), 2);
    assert!(server.delete_media(&one).await);
    assert!(!server.delete_media(&one).await);
    assert_eq!(server.stored_files(), 2);
    assert_eq!(alice.download(&one).await.outcome(), (404, "M_NOT_FOUND"));
    assert_eq!(&alice.download(&other).await.bytes[..], b"same");
    assert!(server.delete_media(&other).await);
    assert_eq!(server.stored_files(), 1);
    // It comes again as if it had never been there.
    let again = bob.upload("text/plain", "same").await;
    assert_eq!(&alice.download(&again).await.bytes[..], b"same");
}

#[tokio::test]
async fn a_content_whose_file_was_lost_is_stored_anew() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let first = alice.upload("text/plain", "same").await;
    std::fs::remove_dir_all(server.media_folder.path()).unwrap();
    std::fs::create_dir(server.media_folder.path()).unwrap();
    assert_eq!(alice.download(&first).await.outcome(), (500, "M_UNKNOWN"));
    alice.upload("text/plain", "same").await;
    assert_eq!(&alice.download(&first).await.bytes[..], b"same");
}

#[tokio::test]
async fn many_uploads_of_the_same_content_at_once_count_right() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let uploads = (0..8).map(|_| alice.upload("text/plain", "same"));
    let places = futures::future::join_all(uploads).await;
    assert_eq!(server.stored_files(), 1);
    let usage = server.server.media.usage(&alice.user.user_id).await.unwrap();
    assert_eq!((usage.files, usage.bytes), (8, 32));
    let listed = server.server.media.list_of_user(&alice.user.user_id, None, 5).await.unwrap();
    assert_eq!(listed.len(), 5);
    let last = listed.last();
    let listed = server.server.media.list_of_user(&alice.user.user_id, last, 5).await.unwrap();
    assert_eq!(listed.len(), 3);
    assert_eq!(server.server.media.delete_of_user(&alice.user.user_id).await.unwrap(), 8);
    assert_eq!(server.stored_files(), 0);
    let usage = server.server.media.usage(&alice.user.user_id).await.unwrap();
    assert_eq!((usage.files, usage.bytes), (0, 0));
    assert_eq!(alice.download(&places[0]).await.outcome(), (404, "M_NOT_FOUND"));
}

#[tokio::test]
async fn what_is_withheld_is_not_there() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let place = alice.upload("text/plain", "x").await;
    let key = Media::key_of_uri(&format!("mxc://{place}")).unwrap();
    assert!(server.server.media.quarantine(&key, true).await.unwrap());
    assert_eq!(alice.download(&place).await.outcome(), (404, "M_NOT_FOUND"));
    let path = format!("v1/media/thumbnail/{place}?width=1&height=1");
    assert_eq!(alice.get(&path).await.outcome(), (404, "M_NOT_FOUND"));
    assert!(server.server.media.quarantine(&key, false).await.unwrap());
    assert_eq!(&alice.download(&place).await.bytes[..], b"x");
}

#[tokio::test]
async fn files_that_a_crash_left_are_removed() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let place = alice.upload("text/plain", "kept").await;
    // One that was finished but not named, and one that was not finished.
    let mut batch = Batch::new();
    for name in ["aabbb", "aaccc"] {
        batch.put(&UNSETTLED_FILES, &name.to_owned(), &());
    }
    server.server.store.commit(batch, Durability::Synced).await.unwrap();
    let folder = server.media_folder.path().join("aa");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("bbb"), "finished").unwrap();
    std::fs::write(folder.join("ccc#1"), "half").unwrap();
    assert_eq!(server.stored_files(), 3);
    assert_eq!(server.server.media.tidy().await.unwrap(), 2);
    assert_eq!(server.stored_files(), 1);
    assert_eq!(server.server.media.tidy().await.unwrap(), 0);
    assert_eq!(&alice.download(&place).await.bytes[..], b"kept");
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let server = TestServer::with(|config| config.media.upload_size_bytes_max = 600_000).await;
    let alice = server.client("alice").await;
    let parts = std::iter::repeat_n(Ok(bytes::Bytes::from(vec![7; 100_000])), 7);
    let new = causerie::media::NewMedia {
        kind: causerie::storage::rows::media::MediaKind::Local,
        uploader: Some(alice.user.user_id.clone()),
        content_type: None,
        filename: None,
        announced_bytes: None,
    };
    let body = futures::stream::iter(parts);
    let error = server.server.media.upload(new, body).await.unwrap_err();
    assert_eq!(error.errcode, "M_TOO_LARGE");
    assert_eq!(server.stored_files(), 0);
    assert_eq!(server.server.media.tidy().await.unwrap(), 0);
}

#[tokio::test]
async fn old_files_are_removed() {
    let server = TestServer::with(|config| {
        config.media.local_unused_days = 10;
        config.media.local_kept_days = 30;
    })
    .await;
    let alice = server.client("alice").await;
    let read = alice.upload("text/plain", "read").await;
    let unread = alice.upload("text/plain", "unread").await;
    server.pass(6 * DAY);
    alice.download(&read).await;
    server.pass(6 * DAY);
    assert_eq!(server.remove_old().await, 1);
    assert_eq!(alice.download(&unread).await.outcome(), (404, "M_NOT_FOUND"));
    for _ in 0..2 {
        assert_eq!(&alice.download(&read).await.bytes[..], b"read");
        server.pass(9 * DAY);
        assert_eq!(server.remove_old().await, 0);
    }
    assert_eq!(&alice.download(&read).await.bytes[..], b"read");
    server.pass(DAY);
    assert_eq!(server.remove_old().await, 1);
    assert_eq!(alice.download(&read).await.outcome(), (404, "M_NOT_FOUND"));
    assert_eq!(server.stored_files(), 0);
}

#[tokio::test]
async fn promises_that_were_not_held_are_forgotten() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    for _ in 0..5 {
        alice.post("/_matrix/media/v1/create", json!({})).await.ok();
    }
    server.pass(2 * DAY);
    assert_eq!(server.remove_old().await, 5);
    let answer = alice.call(Method::POST, "/_matrix/media/v1/create").send().await;
    answer.ok();
}

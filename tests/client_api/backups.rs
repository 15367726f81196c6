//! Backups of the database and their restoring, by the commands of the binary.

use std::{
    path::Path,
    process::{Command, Output},
};

use serde_json::json;

use crate::harness::{Client, TestServer, ids};

fn causerie(words: &[&str], database: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_causerie"))
        .env_clear()
        .args(words)
        .args(["--server-name", "example.org", "--database"])
        .arg(database)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn succeed(words: &[&str], database: &Path) -> String {
    let output = causerie(words, database);
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[track_caller]
fn fail(words: &[&str], database: &Path) -> String {
    let output = causerie(words, database);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    text(&output.stderr)
}

#[tokio::test]
async fn a_restored_server_tells_clients_everything_again() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let (backups, again) = (place("backups"), place("backups of the restored"));
    let (from, to) = (backups.to_str().unwrap(), again.to_str().unwrap());
    let server = TestServer::on_disk(&place("live")).await;
    let alice = server.client("alice").await;
    let room = alice.create_room(json!({})).await;
    let kept = alice.send(&room, "kept").await;
    server.server.store.backup(&backups, 2).unwrap();
    let before = alice.now().await;
    let lost = alice.send(&room, "lost").await;
    let after = alice.now().await;

    // What an interrupted one left is no hindrance, and nothing that a server would open.
    std::fs::create_dir_all(place("restored.restoring")).unwrap();
    std::fs::write(place("restored.restoring").join("CURRENT"), "rubbish").unwrap();
    let told = succeed(&["restore", "--from", from], &place("restored"));
    assert!(told.contains("The files of users are not part of it"), "{told}");
    assert!(!place("restored.restoring").exists());
    let told = succeed(&["backup", "--verify", "--keep", "1", "--to", to], &place("restored"));
    assert!(told.starts_with("Backup 1 of "), "{told}");
    let refused = fail(&["restore", "--from", from], &place("restored"));
    assert!(refused.contains("is not empty"), "{refused}");

    let restored = TestServer::on_disk(&place("restored")).await;
    let user = alice.user.clone();
    let alice = Client { server: &restored, user };
    for token in [before, after] {
        let body = alice.sync(Some(&token)).await;
        let joined = &body["rooms"]["join"][&room];
        let told = ids(&joined["timeline"]["events"]);
        assert!(told.contains(&kept) && !told.contains(&lost), "a full sync: {told:?}");
        let next = body["next_batch"].as_str().unwrap();
        let epoch = |token: &str| token.split_once('_').unwrap().0.to_owned();
        assert_ne!(epoch(next), epoch(&token));
        let nothing = alice.sync(Some(next)).await;
        assert_eq!(nothing["rooms"]["join"].get(&room), None);
    }
}

#[test]
fn what_cannot_be_backed_up_or_restored_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let backups = place("backups");
    let backups = backups.to_str().unwrap();
    let refused = fail(&["backup", "--to", backups], &place("nothing"));
    assert!(refused.contains("there is no database in"), "{refused}");
    assert!(!place("nothing").exists());
    let refused = fail(&["restore", "--from", backups], &place("nothing"));
    assert!(refused.contains("there are no backups in"), "{refused}");
    std::fs::create_dir_all(backups).unwrap();
    let refused = fail(&["restore", "--from", backups], &place("nothing"));
    assert!(refused.contains("can be restored"), "{refused}");
    assert!(!place("nothing").exists());
}

#[tokio::test]
async fn another_servers_backup_is_not_restored() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let server = TestServer::on_disk(&place("live")).await;
    server.server.store.backup(&place("backups"), 1).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_causerie"))
        .env_clear()
        .args(["restore", "--server-name", "elsewhere.org", "--from"])
        .arg(place("backups"))
        .arg("--database")
        .arg(place("restored"))
        .output()
        .unwrap();
    let told = text(&output.stderr);
    assert!(told.contains("a server cannot change its name"), "{told}");
    assert!(!place("restored").exists(), "nothing that a server would open");
}

//! Reporting what is inappropriate.

use causerie::storage::rows::reports::ReportSubject;
use serde_json::json;

use crate::harness::{TestServer, encode};

#[tokio::test]
async fn reports_are_stored() {
    let server = TestServer::new().await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let room = alice.public_room().await;
    let event = alice.send(&room, "bad").await;
    let of_event = format!("v3/rooms/{room}/report/{}", encode(&event));
    let reason = json!({ "reason": "this makes me sad" });
    // Events are reported by members, rooms and users by anybody.
    assert_eq!(bob.post(&of_event, reason.clone()).await.outcome(), (404, "M_NOT_FOUND"));
    let none = format!("v3/rooms/{room}/report/{}", encode("$none"));
    assert_eq!(alice.post(&none, reason.clone()).await.outcome(), (404, "M_NOT_FOUND"));
    bob.join(&room).await;
    assert_eq!(bob.post(&of_event, reason.clone()).await.ok(), json!({}));
    bob.post(&of_event, json!({})).await.ok();
    let of_room = format!("v3/rooms/{room}/report");
    assert_eq!(bob.post(&of_room, reason.clone()).await.ok(), json!({}));
    let of_user = format!("v3/users/{}/report", alice.id());
    assert_eq!(bob.post(&of_user, reason.clone()).await.ok(), json!({}));
    // What is not known answers alike and is not stored.
    bob.post("v3/rooms/!none:example.org/report", reason.clone()).await.ok();
    bob.post("v3/users/@nobody:example.org/report", reason).await.ok();
    let rooms = &server.server.rooms;
    let reports = rooms.reports(None, 100).await.unwrap();
    assert_eq!(reports.len(), 4);
    assert!(matches!(&reports[0].row.subject, ReportSubject::User(user) if user == alice.id()));
    assert!(matches!(&reports[1].row.subject, ReportSubject::Room(id) if *id == *room));
    let ReportSubject::Event { event_id, sender, .. } = &reports[3].row.subject else {
        panic!("{reports:?}");
    };
    assert_eq!((event_id.as_str(), sender.as_str()), (&*event, alice.id()));
    assert_eq!(reports[3].row.reason, "this makes me sad");
    let page = rooms.reports(Some(reports[1].position), 1).await.unwrap();
    assert_eq!(page[..], reports[2..3]);
}

#[tokio::test]
async fn reports_are_bounded() {
    let server = TestServer::with(|config| config.rate_limits.enabled = true).await;
    let alice = server.client("alice").await;
    let path = format!("v3/users/{}/report", alice.id());
    let long = json!({ "reason": "x".repeat(2001) });
    assert_eq!(alice.post(&path, long).await.outcome(), (400, "M_INVALID_PARAM"));
    let mut outcomes = Vec::new();
    for _ in 0..10 {
        let answer = alice.post(&path, json!({ "reason": "" })).await;
        outcomes.push(answer.status.as_u16());
    }
    assert_eq!(outcomes.last(), Some(&429));
}

#[tokio::test]
async fn a_report_of_a_room_has_a_reason_that_is_text() {
    let server = TestServer::new().await;
    let alice = server.client("alice").await;
    let room = alice.public_room().await;
    for path in [format!("v3/rooms/{room}/report"), format!("v3/users/{}/report", alice.id())] {
        assert_eq!(alice.post(&path, json!({ "reason": 1 })).await.outcome(), (400, "M_BAD_JSON"));
        let long = json!({ "reason": "x".repeat(100_000) });
        assert_eq!(alice.post(&path, long).await.outcome(), (400, "M_INVALID_PARAM"), "{path}");
    }
}

//! What a client reads when it starts or looks back: the first sync, the first sliding window, a
//! page of history, a search.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use hyper::Method;
use serde_json::{Value, json};

use crate::{
    measure::{Rate, Stopwatch},
    people::{Channel, Person},
    server::Process,
};

/// How many rooms the reader has.
pub(crate) const ROOMS: usize = 200;
/// How many messages each of them has.
pub(crate) const MESSAGES: usize = 200;
/// How many rooms are filled at once.
const AT_ONCE: usize = 16;
/// One in so many messages holds the word that is searched for.
const RARE: usize = 1000;
/// How long the index of messages may take to catch up.
const INDEX_PATIENCE: Duration = Duration::from_mins(2);

/// Element X's first request of its list of rooms.
const REQUIRED_STATE: [(&str, &str); 17] = [
    ("m.room.name", ""),
    ("m.room.encryption", ""),
    ("m.room.member", "$LAZY"),
    ("m.room.member", "$ME"),
    ("m.room.topic", ""),
    ("m.room.avatar", ""),
    ("m.room.canonical_alias", ""),
    ("m.room.power_levels", ""),
    ("org.matrix.msc3401.call.member", "*"),
    ("m.room.join_rules", ""),
    ("m.room.tombstone", ""),
    ("m.room.create", ""),
    ("m.room.history_visibility", ""),
    ("io.element.functional_members", ""),
    ("m.space.parent", "*"),
    ("m.space.child", "*"),
    ("org.matrix.msc3672.beacon_info", "*"),
];

/// Makes the rooms of the reader, the first of `people`, and lets the others fill them.
pub(crate) async fn fill(people: &mut [Person]) -> Result<Vec<Channel>> {
    let (reader, writers) = people.split_first_mut().context("nobody reads")?;
    let mut rooms = Vec::new();
    for number in 0..ROOMS {
        rooms.push(reader.create_channel(&format!("Room {number}")).await?);
    }
    let writers: Vec<_> = writers.iter_mut().take(AT_ONCE).collect();
    let count = writers.len().max(1);
    let shares = writers.into_iter().enumerate().map(|(first, writer)| {
        let rooms: Vec<_> = rooms.iter().skip(first).step_by(count).cloned().collect();
        async move {
            for room in &rooms {
                writer.join(room).await?;
                for number in 0..MESSAGES {
                    let word = if number % RARE == 0 { "rendezvous" } else { "meeting" };
                    writer.say(room, &format!("The {word} number {number} is at three")).await?;
                }
            }
            anyhow::Ok(())
        }
    });
    stream::iter(shares).buffer_unordered(count).try_collect::<()>().await?;
    Ok(rooms)
}

/// First syncs, one after the other: all rooms, 20 messages each, members as they are needed.
pub(crate) async fn initial_sync(
    reader: &mut Person,
    duration: Duration,
    process: Option<Process>,
) -> Result<(Rate, usize)> {
    let filter = json!({
        "room": { "timeline": { "limit": 20 }, "state": { "lazy_load_members": true } },
    });
    let filter = crate::people::quoted(&filter.to_string());
    let path = format!("/v3/sync?timeout=0&filter={filter}");
    repeat(reader, duration, process, (Method::GET, path, Bytes::new())).await
}

/// First windows of 20 rooms, each on a new connection.
pub(crate) async fn first_window(
    reader: &mut Person,
    duration: Duration,
    process: Option<Process>,
) -> Result<(Rate, usize)> {
    let body = json!({
        "conn_id": "room-list",
        "lists": { "all_rooms": {
            "ranges": [[0, 19]],
            "required_state": REQUIRED_STATE,
            "timeline_limit": 1,
            "filters": {},
        } },
        "extensions": {
            "account_data": { "enabled": true },
            "receipts": { "enabled": true, "rooms": ["*"] },
            "typing": { "enabled": true },
        },
    });
    let path = "/unstable/org.matrix.simplified_msc3575/sync?timeout=0".to_owned();
    repeat(reader, duration, process, (Method::POST, path, body.to_string().into())).await
}

/// Pages of 50 messages, back from the newest.
pub(crate) async fn page(
    reader: &mut Person,
    room: &Channel,
    duration: Duration,
    process: Option<Process>,
) -> Result<(Rate, usize)> {
    let path = format!("/v3/rooms/{}/messages?dir=b&limit=50", room.quoted_id);
    repeat(reader, duration, process, (Method::GET, path, Bytes::new())).await
}

/// Searches for a word that one message in each room holds, newest first. (Beyond 250 the server says
/// only that there are at least so many.)
pub(crate) async fn search(
    reader: &mut Person,
    duration: Duration,
    process: Option<Process>,
) -> Result<(Rate, usize)> {
    let criteria = json!({ "search_term": "rendezvous", "order_by": "recent" });
    let body = json!({ "search_categories": { "room_events": criteria } });
    let expected = ROOMS * MESSAGES.div_ceil(RARE);
    let begun = Instant::now();
    loop {
        let answer = reader.client.post("/v3/search", &body).await?;
        let count = answer.pointer("/search_categories/room_events/count");
        if count.and_then(Value::as_u64) == u64::try_from(expected).ok() {
            break;
        }
        ensure!(begun.elapsed() < INDEX_PATIENCE, "the index does not catch up: {count:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let request = (Method::POST, "/v3/search".to_owned(), body.to_string().into());
    repeat(reader, duration, process, request).await
}

/// The same request again and again; how fast, and the bytes of an answer.
async fn repeat(
    reader: &mut Person,
    duration: Duration,
    process: Option<Process>,
    (method, path, body): (Method, String, Bytes),
) -> Result<(Rate, usize)> {
    // What is cold is read once before.
    for _ in 0..3 {
        reader.client.ask(method.clone(), &path, body.clone()).await?;
    }
    let stopwatch = Stopwatch::start(process)?;
    let end = Instant::now() + duration;
    let (mut samples, mut bytes) = (Vec::new(), 0);
    while Instant::now() < end {
        let begun = Instant::now();
        bytes = reader.client.ask(method.clone(), &path, body.clone()).await?.len();
        samples.push(begun.elapsed());
    }
    Ok((stopwatch.rate(samples)?, bytes))
}

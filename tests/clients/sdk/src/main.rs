//! Element X's stack (`matrix-sdk-ui`) against the real server, over sliding sync.
//!
//! `sdk URL` registers its own users, runs the scenario and closes with `sdk: N passed, M failed`.
//! Waiting is always a bounded loop until a condition holds. `sdk URL driver` does what it is told.

// The futures of matrix-sdk nest deep.
#![recursion_limit = "256"]

mod driver;
mod features;
mod person;
mod tally;

use std::{collections::HashSet, time::UNIX_EPOCH};

use anyhow::{Context, Result};
use matrix_sdk::{
    RoomMemberships, RoomState,
    room::Receipts,
    ruma::{
        OwnedRoomId,
        api::client::{
            receipt::create_receipt::v3::ReceiptType, room::create_room::v3 as create_room,
        },
        events::{
            AnyMessageLikeEventContent,
            room::message::{RoomMessageEventContent, RoomMessageEventContentWithoutRelation},
        },
    },
    sliding_sync::Version,
};
use matrix_sdk_ui::timeline::{EventTimelineItem, RoomExt, Timeline, TimelineEventItemId};

use self::{person::Person, tally::Tally};

/// How many rooms the list grows to: more than its first window of 20, fewer than its second step.
const ROOMS: usize = 45;
/// How many messages lie in a history that is paged through.
const HISTORY: usize = 70;

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1).context("usage: sdk URL [driver]")?;
    if std::env::args().nth(2).as_deref() == Some("driver") {
        return driver::run(&url).await;
    }
    let mut tally = Tally::default();
    let outcome = scenario(&url, &mut tally).await;
    if let Err(error) = &outcome {
        tally.check(false, &format!("the scenario goes on to its end: {error:#}"));
    }
    println!("sdk: {} passed, {} failed", tally.passed, tally.failed);
    std::process::exit(i32::from(tally.failed > 0))
}

async fn scenario(url: &str, tally: &mut Tally) -> Result<()> {
    // Fresh names, so that it can run again on the same server.
    let tag = format!("{:x}", UNIX_EPOCH.elapsed()?.as_micros());
    let mut alice = Person::register(url, &format!("sdkalice-{tag}")).await?;
    let bob = Person::register(url, &format!("sdkbob-{tag}")).await?;
    tally.check(
        matches!(alice.client.sliding_sync_version(), Version::Native),
        "the server offers sliding sync",
    );
    let room_id = invite_and_join(&alice, &bob, tally).await?;
    messages(&alice, &bob, &room_id, tally).await?;
    room_details(&alice, &bob, &room_id, tally).await?;
    many_rooms(&mut alice, tally).await?;
    history(&alice, &bob, tally).await?;
    leaving(&alice, &bob, &room_id, tally).await?;
    features::tell(&alice, &bob, &tag, tally).await?;
    another_device(url, &bob, tally).await
}

/// An invite appears in the list of rooms, and becomes a room that is joined.
async fn invite_and_join(alice: &Person, bob: &Person, tally: &mut Tally) -> Result<OwnedRoomId> {
    let mut request = create_room::Request::new();
    request.name = Some("Plans".to_owned());
    request.invite = vec![bob.user_id()];
    request.preset = Some(create_room::RoomPreset::PrivateChat);
    let room_id = alice.client.create_room(request).await?.room_id().to_owned();
    let invited =
        || async { bob.room(&room_id).is_some_and(|room| room.state() == RoomState::Invited) };
    tally.until(invited, "an invite comes through sliding sync").await;
    let room = bob.room(&room_id).context("the invited room")?;
    let named =
        || async { room.display_name().await.is_ok_and(|name| name.to_string() == "Plans") };
    tally.until(named, "an invite shows the name of its room").await;
    room.join().await?;
    let joined =
        || async { bob.room(&room_id).is_some_and(|room| room.state() == RoomState::Joined) };
    tally.until(joined, "a room that was joined comes through sliding sync").await;
    let both =
        || async { alice.room(&room_id).is_some_and(|room| room.joined_members_count() == 2) };
    tally.until(both, "the count of members grows").await;
    Ok(room_id)
}

/// Messages, echoes, edits, reactions, redactions and receipts.
async fn messages(
    alice: &Person,
    bob: &Person,
    room_id: &OwnedRoomId,
    tally: &mut Tally,
) -> Result<()> {
    bob.service.subscribe_to_rooms(&[room_id]).await;
    let (room, other) = (alice.joined(room_id)?, bob.joined(room_id)?);
    let (hers, his) = (room.timeline().await?, other.timeline().await?);
    hers.send(text("good morning")).await?;
    let told = || async { find(&his, "good morning").await.is_some() };
    tally.until(told, "a message reaches the other's timeline").await;
    // By ids: where sync comes before the answer to the sending, the library may show one event
    // twice for good.
    let settled = || async {
        let items = all(&hers, "good morning").await;
        let ids: HashSet<_> = items.iter().map(EventTimelineItem::event_id).collect();
        ids.len() == 1 && items.iter().all(|item| !item.is_local_echo())
    };
    tally.until(settled, "the local echo becomes the one event").await;
    let unread = || async { other.unread_notification_counts().notification_count == 1 };
    tally.until(unread, "a message counts as unread").await;

    let sent = find(&his, "good morning").await.context("the message")?;
    let event_id = sent.event_id().context("the message's id")?.to_owned();
    his.send_multiple_receipts(Receipts::new().public_read_receipt(event_id.clone())).await?;
    let read = || async {
        let receipt = hers.latest_user_read_receipt(&bob.user_id()).await;
        receipt.is_some_and(|(id, _)| id == event_id)
    };
    tally.until(read, "a receipt reaches the sender").await;
    let none_left = || async { other.unread_notification_counts().notification_count == 0 };
    tally.until(none_left, "what was read is unread no more").await;

    let id = TimelineEventItemId::EventId(event_id.clone());
    his.toggle_reaction(&id, "👍").await?;
    let reacted = || async {
        let item = hers.item_by_event_id(&event_id).await;
        item.is_some_and(|item| {
            item.content().reactions().is_some_and(|reactions| reactions.contains_key("👍"))
        })
    };
    tally.until(reacted, "a reaction reaches the sender").await;
    let changed = RoomMessageEventContentWithoutRelation::text_plain("good evening");
    hers.edit(&id, matrix_sdk::room::edit::EditedContent::RoomMessage(changed)).await?;
    let edited = || async { find(&his, "good evening").await.is_some() };
    tally.until(edited, "an edit replaces the message").await;
    hers.redact(&id, None).await?;
    let redacted = || async {
        let item = his.item_by_event_id(&event_id).await;
        item.is_some_and(|item| item.content().is_redacted())
    };
    tally.until(redacted, "a redaction empties the message").await;
    mark_as_read(&his, tally).await
}

async fn mark_as_read(timeline: &Timeline, tally: &mut Tally) -> Result<()> {
    timeline.mark_as_read(ReceiptType::Read).await?;
    tally.check(true, "a room is marked as read");
    Ok(())
}

/// What changes about a room reaches the others: name, members, typing, direct chats.
async fn room_details(
    alice: &Person,
    bob: &Person,
    room_id: &OwnedRoomId,
    tally: &mut Tally,
) -> Result<()> {
    let (room, other) = (alice.joined(room_id)?, bob.joined(room_id)?);
    room.set_name("Better plans".to_owned()).await?;
    let renamed = || async { other.name().as_deref() == Some("Better plans") };
    tally.until(renamed, "a new name reaches the other").await;
    let members = other.members(RoomMemberships::JOIN).await?;
    tally.equal(&members.len(), &2, "all members can be listed");
    let (_guard, mut typing) = other.subscribe_to_typing_notifications();
    room.typing_notice(true).await?;
    let typed = tokio::time::timeout(tally::PATIENCE, typing.recv()).await;
    let typists = typed.ok().and_then(Result::ok).unwrap_or_default();
    tally.equal(&typists, &vec![alice.user_id()], "typing reaches the other");
    room.set_is_direct(true).await?;
    let direct = || async { room.is_direct().await.unwrap_or_default() };
    tally.until(direct, "a chat that was made direct comes back as account data").await;
    Ok(())
}

/// The window of the list grows until it holds all rooms.
async fn many_rooms(alice: &mut Person, tally: &mut Tally) -> Result<()> {
    for number in 0..ROOMS {
        let mut request = create_room::Request::new();
        request.name = Some(format!("Room {number}"));
        alice.client.create_room(request).await?;
    }
    // The old client is gone, or the two would take the one connection from each other.
    *alice = alice.again().await?;
    let complete = || async {
        let rooms = alice.client.joined_rooms();
        rooms.len() == ROOMS + 1 && rooms.iter().all(|room| room.name().is_some())
    };
    tally.until(complete, "the list grows until all rooms are there with their names").await;
    let stamps: Vec<_> =
        alice.client.joined_rooms().iter().map(|room| room.recency_stamp()).collect();
    tally.check(stamps.iter().all(Option::is_some), "each room has a bump stamp");
    let count = alice.maximum_number_of_rooms().await?;
    tally.equal(&count, &u32::try_from(ROOMS + 1).ok(), "the list knows how long it is");
    Ok(())
}

/// Someone who comes later pages back through the whole history.
async fn history(alice: &Person, bob: &Person, tally: &mut Tally) -> Result<()> {
    let mut request = create_room::Request::new();
    request.preset = Some(create_room::RoomPreset::PublicChat);
    let room = alice.client.create_room(request).await?;
    for number in 0..HISTORY {
        room.send(text(&format!("line {number}"))).await?;
    }
    let room = bob.client.join_room_by_id(room.room_id()).await?;
    bob.service.subscribe_to_rooms(&[room.room_id()]).await;
    let timeline = room.timeline().await?;
    for _ in 0..20 {
        if timeline.paginate_backwards(30).await? {
            break;
        }
    }
    // What was loaded reaches the timeline a moment later.
    let whole = || async { missing(&timeline).await.is_empty() };
    tally.until(whole, "the whole history comes").await;
    let missing = missing(&timeline).await;
    tally.equal(&missing, &Vec::new(), "the whole history is there, each line once");
    Ok(())
}

/// The lines of the history that are not in a timeline exactly once.
async fn missing(timeline: &Timeline) -> Vec<String> {
    let mut missing = Vec::new();
    for number in 0..HISTORY {
        let line = format!("line {number}");
        if all(timeline, &line).await.len() != 1 {
            missing.push(line);
        }
    }
    missing
}

/// Whoever is removed learns it.
async fn leaving(
    alice: &Person,
    bob: &Person,
    room_id: &OwnedRoomId,
    tally: &mut Tally,
) -> Result<()> {
    alice.joined(room_id)?.kick_user(&bob.user_id(), Some("bye")).await?;
    let gone = || async { bob.room(room_id).is_some_and(|room| room.state() == RoomState::Left) };
    tally.until(gone, "whoever is removed learns it").await;
    Ok(())
}

/// Another device finds everything anew.
async fn another_device(url: &str, bob: &Person, tally: &mut Tally) -> Result<()> {
    let device = Person::log_in(url, bob.user_id().localpart()).await?;
    let rooms = bob.client.joined_rooms().len();
    let same = || async { device.client.joined_rooms().len() == rooms };
    tally.until(same, "another device finds the same rooms").await;
    device.stop();
    device.client.matrix_auth().logout().await?;
    tally.check(true, "a device logs out");
    Ok(())
}

fn text(body: &str) -> AnyMessageLikeEventContent {
    RoomMessageEventContent::text_plain(body).into()
}

async fn all(timeline: &Timeline, body: &str) -> Vec<EventTimelineItem> {
    let items = timeline.items().await;
    let events = items.iter().filter_map(|item| item.as_event());
    let is_it = |item: &&EventTimelineItem| {
        item.content().as_message().is_some_and(|message| message.body() == body)
    };
    events.filter(is_it).cloned().collect()
}

async fn find(timeline: &Timeline, body: &str) -> Option<EventTimelineItem> {
    all(timeline, body).await.pop()
}

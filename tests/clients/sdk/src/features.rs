//! What people use beyond messages: threads, mentions, marks, spaces, media, directories.
//!
//! Each part makes what it needs and builds on no other.

use anyhow::{Context, Result};
use matrix_sdk::{
    Room, RoomMemberships,
    media::{MediaFormat, MediaRequestParameters, MediaThumbnailSettings},
    notification_settings::RoomNotificationMode,
    room::ListThreadsOptions,
    room_directory_search::RoomDirectorySearch,
    ruma::{
        OwnedRoomId, RoomAliasId,
        api::client::room::{Visibility, create_room::v3 as create_room},
        events::{
            Mentions,
            room::{MediaSource, message::RoomMessageEventContent},
        },
        room::RoomType,
        serde::Raw,
        uint,
    },
};
use matrix_sdk_ui::{
    spaces::SpaceService,
    timeline::{RoomExt, TimelineFocus},
};

use crate::{find, person::Person, tally::Tally, text};

/// One pixel, red.
const PIXEL: [u8; 70] = [
    0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0x00, 0x00, 0x00, 0x0d, 0x49, 0x48, 0x44, 0x52,
    0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x01, 0x08, 0x06, 0x00, 0x00, 0x00, 0x1f, 0x15, 0xc4,
    0x89, 0x00, 0x00, 0x00, 0x0d, 0x49, 0x44, 0x41, 0x54, 0x78, 0x9c, 0x63, 0xf8, 0xcf, 0xc0, 0xf0,
    0x1f, 0x00, 0x05, 0x00, 0x01, 0xff, 0x89, 0x99, 0x3d, 0x1d, 0x00, 0x00, 0x00, 0x00, 0x49, 0x45,
    0x4e, 0x44, 0xae, 0x42, 0x60, 0x82,
];

/// All parts.
pub(crate) async fn tell(alice: &Person, bob: &Person, tag: &str, tally: &mut Tally) -> Result<()> {
    threads(alice, bob, tally).await?;
    notifications(alice, bob, tally).await?;
    marks(alice, bob, tally).await?;
    media(alice, bob, tally).await?;
    directories(alice, bob, tag, tally).await?;
    spaces(alice, bob, tally).await?;
    moderation(alice, bob, tally).await
}

/// A room of alice with bob in it, both clients knowing.
async fn together(
    alice: &Person,
    bob: &Person,
    mut request: create_room::Request,
    tally: &mut Tally,
) -> Result<(Room, Room)> {
    request.preset = Some(create_room::RoomPreset::PublicChat);
    let room = alice.client.create_room(request).await?;
    let other = bob.client.join_room_by_id(room.room_id()).await?;
    alice.service.subscribe_to_rooms(&[room.room_id()]).await;
    bob.service.subscribe_to_rooms(&[room.room_id()]).await;
    let both = || async { room.joined_members_count() == 2 && other.joined_members_count() == 2 };
    tally.until(both, "both are in a new room").await;
    Ok((room, other))
}

/// A thread has a timeline, a summary, a place in a list, and subscribers.
async fn threads(alice: &Person, bob: &Person, tally: &mut Tally) -> Result<()> {
    let (room, other) = together(alice, bob, create_room::Request::new(), tally).await?;
    let live = TimelineFocus::Live { hide_threaded_events: true };
    let hers = room.timeline_builder().with_focus(live).build().await?;
    let his = other.timeline().await?;
    hers.send(text("Where shall we eat?")).await?;
    let asked = || async {
        find(&his, "Where shall we eat?").await.is_some_and(|item| item.event_id().is_some())
    };
    tally.until(asked, "a question reaches the other").await;
    let root = find(&his, "Where shall we eat?").await.context("the question")?;
    let root = root.event_id().context("its id")?.to_owned();
    let focus = TimelineFocus::Thread { root_event_id: root.clone() };
    let thread = other.timeline_builder().with_focus(focus.clone()).build().await?;
    for option in ["Thai", "Italian", "At home"] {
        thread.send(text(option)).await?;
    }
    let summed = || async {
        let item = hers.item_by_event_id(&root).await;
        item.and_then(|item| item.content().thread_summary()).is_some_and(|it| it.num_replies == 3)
    };
    tally.until(summed, "the summary of a thread counts its replies").await;
    tally.check(find(&hers, "Thai").await.is_none(), "replies are not in the room's timeline");
    let same = room.timeline_builder().with_focus(focus).build().await?;
    while !same.paginate_backwards(20).await? {}
    let whole =
        || async { find(&same, "Thai").await.is_some() && find(&same, "At home").await.is_some() };
    tally.until(whole, "the other opens the thread and finds the replies").await;
    let list = room.list_threads(ListThreadsOptions::default()).await?;
    let ids: Vec<_> = list.chunk.iter().filter_map(|event| event.event_id()).collect();
    tally.equal(&ids, &vec![root.clone()], "the threads of a room can be listed");
    room.subscribe_thread(root.clone(), None).await?;
    let subscription = room.fetch_thread_subscription(root.clone()).await?;
    tally.check(subscription.is_some_and(|it| !it.automatic), "a thread can be subscribed to");
    room.unsubscribe_thread(root.clone()).await?;
    let subscription = room.fetch_thread_subscription(root).await?;
    tally.check(subscription.is_none(), "and unsubscribed from");
    Ok(())
}

/// A mention is a highlight; a muted room counts nothing.
async fn notifications(alice: &Person, bob: &Person, tally: &mut Tally) -> Result<()> {
    let (room, other) = together(alice, bob, create_room::Request::new(), tally).await?;
    let timeline = other.timeline().await?;
    let counts = || {
        let counts = other.unread_notification_counts();
        (counts.notification_count, counts.highlight_count)
    };
    room.send(text("an apple")).await?;
    let mention = RoomMessageEventContent::text_plain("for you");
    room.send(mention.add_mentions(Mentions::with_user_ids([bob.user_id()]))).await?;
    let counted = || async { counts() == (2, 1) };
    tally.until(counted, "two are unread, the mention is a highlight").await;
    let own = || async { other.num_unread_messages() == 2 && other.num_unread_mentions() == 1 };
    tally.until(own, "the client counts the same").await;
    let settings = bob.client.notification_settings().await;
    let mute = RoomNotificationMode::Mute;
    settings.set_room_notification_mode(other.room_id(), mute).await?;
    let muted = || async { other.notification_mode().await == Some(mute) };
    tally.until(muted, "a room is muted").await;
    timeline.mark_as_read(crate::ReceiptType::Read).await?;
    let read = || async { counts() == (0, 0) };
    tally.until(read, "what was read is unread no more").await;
    room.send(text("nobody hears it")).await?;
    let told = || async { find(&timeline, "nobody hears it").await.is_some() };
    tally.until(told, "a message in a muted room comes").await;
    tally.equal(&counts(), &(0, 0), "and counts nothing");
    Ok(())
}

/// A room is marked as unread, as a favorite, and has pinned messages.
async fn marks(alice: &Person, bob: &Person, tally: &mut Tally) -> Result<()> {
    let (room, other) = together(alice, bob, create_room::Request::new(), tally).await?;
    room.set_unread_flag(true).await?;
    let marked = || async { room.is_marked_unread() };
    tally.until(marked, "a room is marked as unread").await;
    room.set_is_favourite(true, None).await?;
    let favorite = || async { room.is_favourite() };
    tally.until(favorite, "a room is a favorite").await;
    let sent = room.send(text("remember this")).await?.response.event_id;
    room.pin_event(&sent).await?;
    let pinned = || async { other.pinned_event_ids().is_some_and(|ids| ids == vec![sent.clone()]) };
    tally.until(pinned, "a pinned message reaches the other").await;
    room.set_room_topic("all of it").await?;
    let topic = || async { other.topic().as_deref() == Some("all of it") };
    tally.until(topic, "a topic reaches the other").await;
    Ok(())
}

/// Files go up and come back, also as avatars.
async fn media(alice: &Person, bob: &Person, tally: &mut Tally) -> Result<()> {
    let (room, other) = together(alice, bob, create_room::Request::new(), tally).await?;
    let data: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let kind = "application/octet-stream".parse()?;
    let uploaded = alice.client.media().upload(&kind, data.clone(), None).await?;
    let source = MediaSource::Plain(uploaded.content_uri);
    let request = MediaRequestParameters { source, format: MediaFormat::File };
    let back = bob.client.media().get_media_content(&request, false).await?;
    tally.check(back == data, "a file comes back as it was");
    room.upload_avatar(&"image/png".parse()?, PIXEL.to_vec(), None).await?;
    let shown = || async { other.avatar_url().is_some() };
    tally.until(shown, "a room's avatar reaches the other").await;
    let settings = MediaThumbnailSettings::new(uint!(48), uint!(48));
    let avatar = other.avatar(MediaFormat::Thumbnail(settings)).await?;
    tally.check(avatar.is_some_and(|it| !it.is_empty()), "and has a thumbnail");
    let limit = alice.client.load_or_fetch_max_upload_size().await?;
    tally.check(limit > uint!(1000), "the server says how large a file may be");
    let url = alice.client.account().upload_avatar(&"image/png".parse()?, PIXEL.to_vec()).await?;
    let profile = bob.client.account().fetch_user_profile_of(&alice.user_id()).await?;
    let seen = profile.get("avatar_url").and_then(|it| it.as_str().map(ToOwned::to_owned));
    tally.equal(&seen, &Some(url.to_string()), "an avatar is in the profile");
    Ok(())
}

/// Rooms and people are found, and rooms joined by their alias.
async fn directories(alice: &Person, bob: &Person, tag: &str, tally: &mut Tally) -> Result<()> {
    let mut request = create_room::Request::new();
    request.name = Some(format!("Garden {tag}"));
    request.room_alias_name = Some(format!("garden-{tag}"));
    request.preset = Some(create_room::RoomPreset::PublicChat);
    request.visibility = Visibility::Public;
    let room = alice.client.create_room(request).await?;
    let mut search = RoomDirectorySearch::new(bob.client.clone());
    search.search(Some(format!("garden {tag}")), 10, None).await?;
    let (found, _) = search.results();
    let ids: Vec<_> = found.iter().map(|room| room.room_id.clone()).collect();
    tally.equal(&ids, &vec![room.room_id().to_owned()], "the directory has the room");
    let alias = RoomAliasId::parse(format!("#garden-{tag}:localhost"))?;
    let preview = bob.client.get_room_preview((&*alias).into(), Vec::new()).await?;
    tally.equal(&preview.name, &Some(format!("Garden {tag}")), "a preview shows its name");
    tally.equal(&preview.num_joined_members, &1, "and how many are in it");
    let joined = bob.client.join_room_by_id_or_alias((&*alias).into(), &[]).await?;
    tally.equal(&joined.room_id(), &room.room_id(), "a room is joined by its alias");
    let people = alice.client.search_users(&format!("sdkbob-{tag}"), 10).await?;
    let ids: Vec<_> = people.results.into_iter().map(|user| user.user_id).collect();
    tally.equal(&ids, &vec![bob.user_id()], "a person is found");
    Ok(())
}

/// A space has rooms, which are found through it.
async fn spaces(alice: &Person, bob: &Person, tally: &mut Tally) -> Result<()> {
    let mut content = create_room::CreationContent::new();
    content.room_type = Some(RoomType::Space);
    let mut request = create_room::Request::new();
    request.name = Some("Team".to_owned());
    request.creation_content = Some(Raw::new(&content)?);
    let (space, other) = together(alice, bob, request, tally).await?;
    let known = || async { space.is_space() && other.is_space() };
    tally.until(known, "a space is known as one").await;
    let service = SpaceService::new(alice.client.clone()).await;
    let mut expected: Vec<OwnedRoomId> = Vec::new();
    for name in ["Plans", "Gossip"] {
        let mut request = create_room::Request::new();
        request.name = Some(name.to_owned());
        request.preset = Some(create_room::RoomPreset::PublicChat);
        let room = alice.client.create_room(request).await?;
        let ready = || async { room.name().is_some() };
        tally.until(ready, "a room for it").await;
        service.add_child_to_space(room.room_id().to_owned(), space.room_id().to_owned()).await?;
        expected.push(room.room_id().to_owned());
    }
    expected.sort();
    let service = SpaceService::new(bob.client.clone()).await;
    let list = service.space_room_list(space.room_id().to_owned()).await;
    list.paginate().await?;
    let mut rooms: Vec<_> = list.rooms().await.into_iter().map(|room| room.room_id).collect();
    rooms.sort();
    tally.equal(&rooms, &expected, "the rooms of a space are found");
    let top = || async {
        let spaces = service.top_level_joined_spaces().await;
        spaces.iter().any(|it| it.room_id == space.room_id())
    };
    tally.until(top, "a space that was joined is in the list of spaces").await;
    Ok(())
}

/// People are ignored, banned and reported.
async fn moderation(alice: &Person, bob: &Person, tally: &mut Tally) -> Result<()> {
    let (room, other) = together(alice, bob, create_room::Request::new(), tally).await?;
    let timeline = room.timeline().await?;
    let sent = other.send(text("buy this")).await?.response.event_id;
    let seen = || async { timeline.item_by_event_id(&sent).await.is_some() };
    tally.until(seen, "an advertisement comes").await;
    room.report_content(sent.clone(), Some("an advertisement".to_owned())).await?;
    tally.check(true, "a message is reported");
    room.ban_user(&bob.user_id(), Some("enough")).await?;
    let banned = || async {
        let members = room.members(RoomMemberships::BAN).await.unwrap_or_default();
        members.iter().any(|member| member.user_id() == bob.user_id())
    };
    tally.until(banned, "someone is banned").await;
    room.unban_user(&bob.user_id(), None).await?;
    alice.client.account().ignore_user(&bob.user_id()).await?;
    let ignored = || async { alice.client.is_user_ignored(&bob.user_id()).await };
    tally.until(ignored, "someone is ignored").await;
    alice.client.account().unignore_user(&bob.user_id()).await?;
    Ok(())
}

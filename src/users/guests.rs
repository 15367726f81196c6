//! Guests in rooms: they join where `m.room.guest_access` lets them, and leave when it no longer
//! does.
//!
//! Whoever joins is written down before and looked at again after, and [`run`] looks at every room
//! with guests whenever something is committed to it: so no change passes a guest by. Only rooms that
//! guests have joined cost anything.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#guest-access>

use std::{collections::HashSet, time::Duration};

use kv::{Batch, Direction, Durability, Feed};
use ruma::{OwnedUserId, UserId};

use super::Users;
use crate::{
    error::ApiError,
    id::RoomNid,
    rooms::{
        Room, Rooms,
        membership::{Change, MemberProfile},
        state,
    },
    storage::{
        rows::StateRef,
        schema::{
            accounts::{GUEST_MEMBERS, GuestMemberKey},
            rooms::ROOM_HEADS,
        },
        topic,
    },
    tasks::Stop,
};

/// How long to wait after a failure of the store.
const FAILURE_PAUSE: Duration = Duration::from_secs(5);

/// Whether a room lets guests in.
pub async fn lets_guests_in(rooms: &Rooms, room: &Room) -> Result<bool, ApiError> {
    let key = rooms.interner().state_key("m.room.guest_access", "");
    let (rooms, room) = (rooms.clone(), room.clone());
    let store = rooms.store().clone();
    let read = store.read(move |reader| {
        let Some(head) = reader.get(&ROOM_HEADS, &room.nid)? else { return Ok(false) };
        let now = StateRef::trunk(head.state_version);
        let Some(nid) = state::lookup(reader, room.nid, now, key)? else { return Ok(false) };
        let event = rooms.event(reader, &room, nid)?;
        let access = event.and_then(|event| event.pdu.content_field::<String>("guest_access"));
        Ok::<_, ApiError>(access.as_deref() == Some("can_join"))
    });
    read.await
}

impl Users {
    /// To be called before a guest joins a room.
    ///
    /// # Errors
    /// 403 `M_GUEST_ACCESS_FORBIDDEN` where the room lets no guests in.
    pub async fn admit_guest(
        &self,
        rooms: &Rooms,
        room: &Room,
        guest: &UserId,
    ) -> Result<(), ApiError> {
        self.0.guest_rooms.lock().insert(room.nid);
        let mut batch = Batch::new();
        let key = GuestMemberKey { room: room.nid, user_id: guest.to_string() };
        batch.put(&GUEST_MEMBERS, &key, &());
        self.0.store.commit(batch, Durability::Buffered).await?;
        if lets_guests_in(rooms, room).await? {
            return Ok(());
        }
        Err(ApiError::guest_access_forbidden("The room lets no guests in"))
    }

    /// To be called after a guest joined a room: the room may have changed its mind meanwhile.
    ///
    /// # Errors
    /// 403 `M_GUEST_ACCESS_FORBIDDEN`, after the guest has left again.
    pub async fn confirm_guest(
        &self,
        rooms: &Rooms,
        room: &Room,
        guest: &UserId,
    ) -> Result<(), ApiError> {
        let admitted = self.admit_guest(rooms, room, guest).await;
        if admitted.is_err() {
            leave(rooms, room, guest.to_owned()).await?;
        }
        admitted
    }

    /// Shows the guests out of a room that lets them in no more.
    async fn check_room(&self, rooms: &Rooms, nid: RoomNid) -> Result<(), ApiError> {
        let (all, range) = (rooms.clone(), GUEST_MEMBERS.prefix(&nid));
        let read = self.0.store.read(move |reader| {
            let guests = reader.scan(&GUEST_MEMBERS, &range, Direction::Forward, usize::MAX)?;
            Ok::<_, ApiError>((all.room_by_nid(reader, nid)?, guests))
        });
        let (Some(room), guests) = read.await? else { return Ok(()) };
        if guests.is_empty() || lets_guests_in(rooms, &room).await? {
            return Ok(());
        }
        for (key, ()) in guests {
            let user_id: OwnedUserId =
                key.user_id.clone().try_into().map_err(ApiError::internal)?;
            let account = self.0.accounts.get(&user_id).await?;
            let is_guest = account.is_some_and(|account| account.guest);
            if is_guest && rooms.has_joined(&room, &user_id).await? {
                leave(rooms, &room, user_id).await?;
            }
            let mut batch = Batch::new();
            batch.delete(&GUEST_MEMBERS, &key);
            self.0.store.commit(batch, Durability::Buffered).await?;
        }
        Ok(())
    }

    async fn load_guest_rooms(&self) -> Result<Vec<RoomNid>, ApiError> {
        let range = GUEST_MEMBERS.prefix(&());
        let rows = self.0.store.read(move |reader| {
            reader.scan(&GUEST_MEMBERS, &range, Direction::Forward, usize::MAX)
        });
        let nids: HashSet<RoomNid> = rows.await?.into_iter().map(|(key, ())| key.room).collect();
        self.0.guest_rooms.lock().extend(&nids);
        Ok(nids.into_iter().collect())
    }
}

async fn leave(rooms: &Rooms, room: &Room, guest: OwnedUserId) -> Result<(), ApiError> {
    rooms.leave(room, Change::own(guest, MemberProfile::default(), None)).await
}

/// Shows guests out of rooms until the server stops. `feed` was made before anything was served.
pub async fn run(users: Users, rooms: Rooms, feed: Feed, mut stop: Stop) {
    tokio::select! {
        () = follow(&users, &rooms, feed) => {}
        () = stop.requested() => {}
    }
}

async fn follow(users: &Users, rooms: &Rooms, mut feed: Feed) {
    let nids = loop {
        match users.load_guest_rooms().await {
            Ok(nids) => break nids,
            Err(error) => tracing::error!(%error, "the rooms with guests cannot be read"),
        }
        tokio::time::sleep(FAILURE_PAUSE).await;
    };
    check(users, rooms, nids).await;
    while let Some(commits) = feed.next().await {
        let nids: HashSet<RoomNid> = {
            let known = users.0.guest_rooms.lock();
            let topics = commits.iter().flat_map(|commit| commit.topics.iter());
            let rooms = topics.filter(|topic| topic.space == topic::ROOM_EVENTS);
            rooms.map(|topic| RoomNid(topic.id)).filter(|nid| known.contains(nid)).collect()
        };
        check(users, rooms, nids).await;
    }
}

async fn check(users: &Users, rooms: &Rooms, nids: impl IntoIterator<Item = RoomNid>) {
    for nid in nids {
        if let Err(error) = users.check_room(rooms, nid).await {
            tracing::warn!(%error, "the guests of a room cannot be shown out");
        }
    }
}

//! Device lists: whose devices or cross-signing keys changed, and when.
//!
//! A change is one row in a log with a single row for each user, and wakes the members of the rooms
//! that the user has joined. The log alone says what a client must be told: whoever shares a room
//! with the user looks into it. The row of an account that ends stays, since whoever was away must
//! still learn of it. A user may join a room while a change is on its way, whose members would not
//! be woken: so whoever commits a [`mark`] calls [`settle`] after it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#tracking-the-device-list-for-a-user>

use std::{
    collections::BTreeSet,
    ops::{Bound, ControlFlow},
};

use kv::{Batch, Direction, Position, Reader, Store};
use ruma::{OwnedUserId, UserId};

use super::{ATTEMPTS, busy, commit};
use crate::{
    error::ApiError,
    id::{Interner, RoomNid},
    storage::{
        rows::Membership,
        schema::{
            encryption::{DEVICE_LIST_CHANGES, DEVICE_LISTS, DeviceListChangeKey},
            rooms::MEMBERSHIPS,
        },
        topic,
    },
};

/// Whose devices changed, and the rooms whose members are woken.
#[derive(Clone, Debug)]
#[must_use = "`settle` must know it once the batch is committed"]
pub struct Told {
    user_id: OwnedUserId,
    rooms: BTreeSet<RoomNid>,
}

/// Adds to a batch that a user's devices or cross-signing keys change with it.
pub fn mark(
    reader: &Reader<'_>,
    batch: &mut Batch,
    interner: Interner,
    user_id: &UserId,
) -> Result<Told, kv::Error> {
    let user = user_id.to_string();
    let before = reader.get(&DEVICE_LISTS, &user)?;
    batch.check(&DEVICE_LISTS, &user, before.as_ref());
    if let Some(position) = before {
        let user_id = user.clone();
        batch.delete(&DEVICE_LIST_CHANGES, &DeviceListChangeKey { position, user_id });
    }
    let position = Position::pending(0);
    batch.put(&DEVICE_LISTS, &user, &position);
    let key = DeviceListChangeKey { position, user_id: user.clone() };
    batch.put(&DEVICE_LIST_CHANGES, &key, &());
    batch.touch(topic::user(topic::USER_DEVICES, interner.user(user_id)));
    // O(rooms of the user), for something that happens seldom.
    let rooms = joined_rooms(reader, &user)?;
    for &room in &rooms {
        batch.touch(topic::room(topic::ROOM_DEVICE_LISTS, room));
    }
    Ok(Told { user_id: user_id.to_owned(), rooms })
}

/// Wakes those who were not woken by the batch of a [`mark`], because the user joined their room
/// meanwhile. Who joins after the commit is told of the join, later than of the change.
pub async fn settle(store: &Store, interner: Interner, told: Told) -> Result<(), ApiError> {
    let Told { user_id, mut rooms } = told;
    for _ in 0..ATTEMPTS {
        let (user, known) = (user_id.clone(), rooms.clone());
        let read = store.read(move |reader| {
            if joined_rooms(reader, &user.to_string())?.is_subset(&known) {
                return Ok(None);
            }
            let mut batch = Batch::new();
            let told = mark(reader, &mut batch, interner, &user)?;
            Ok::<_, kv::Error>(Some((batch, told)))
        });
        let Some((batch, told)) = read.await? else { return Ok(()) };
        if commit(store, batch).await?.is_some() {
            rooms = told.rooms;
        }
    }
    Err(busy())
}

/// The users whose devices or cross-signing keys changed after `since`, wherever they are.
pub fn changed_since(reader: &Reader<'_>, since: Position) -> Result<Vec<String>, kv::Error> {
    let after = (since,);
    let range = DEVICE_LIST_CHANGES.range(Bound::Excluded(&after), Bound::<&()>::Unbounded);
    let mut users = Vec::new();
    reader.for_each(&DEVICE_LIST_CHANGES, &range, Direction::Forward, |key, ()| {
        users.push(key.user_id);
        ControlFlow::Continue(())
    })?;
    Ok(users)
}

/// The rooms that a user has joined.
pub fn joined_rooms(reader: &Reader<'_>, user: &String) -> Result<BTreeSet<RoomNid>, kv::Error> {
    let mut rooms = BTreeSet::new();
    let range = MEMBERSHIPS.prefix(user);
    reader.for_each(&MEMBERSHIPS, &range, Direction::Forward, |key, row| {
        if row.membership == Membership::Join {
            rooms.insert(key.room);
        }
        ControlFlow::Continue(())
    })?;
    Ok(rooms)
}

//! What a change of an account means in the user's rooms: a new profile is told, a user who is no
//! more leaves.
//!
//! Each room is written by itself. What one room refuses is logged and keeps the others from
//! nothing, and a client that hangs up keeps nothing from being finished.

use std::ops::ControlFlow;

use futures::{StreamExt, stream};
use kv::Direction;
use ruma::{OwnedUserId, UserId};

use super::Profile;
use crate::{
    error::ApiError,
    rooms::{
        Room, Rooms,
        membership::{Change, MemberProfile},
    },
    storage::{rows::Membership, schema::rooms::MEMBERSHIPS},
};

/// How many rooms are written at once for one user.
const ROOMS_AT_ONCE: usize = 8;

/// What to do in each room.
#[derive(Clone)]
enum Task {
    Tell(MemberProfile),
    Leave,
}

impl Task {
    fn concerns(&self, membership: Membership) -> bool {
        match self {
            Self::Tell(_) => membership == Membership::Join,
            Self::Leave => {
                matches!(membership, Membership::Join | Membership::Invite | Membership::Knock)
            }
        }
    }

    async fn run(&self, rooms: &Rooms, room: &Room, user_id: &UserId) -> Result<(), ApiError> {
        match self {
            Self::Tell(profile) => rooms.update_profile(room, user_id, profile.clone()).await,
            Self::Leave => {
                let change = Change::own(user_id.to_owned(), MemberProfile::default(), None);
                rooms.leave(room, change).await
            }
        }
    }
}

/// Tells a user's new profile in all rooms the user has joined.
pub async fn tell_profile(
    rooms: &Rooms,
    user_id: &UserId,
    profile: &Profile,
) -> Result<(), ApiError> {
    let profile = MemberProfile {
        displayname: profile.display_name().map(str::to_owned),
        avatar_url: profile.avatar_url(),
    };
    in_each_room(rooms.clone(), user_id.to_owned(), Task::Tell(profile)).await?;
    Ok(())
}

/// Takes a user out of all rooms, and refuses all invites. Gives whether every room let go.
pub async fn leave_all(rooms: &Rooms, user_id: &UserId) -> Result<bool, ApiError> {
    Ok(in_each_room(rooms.clone(), user_id.to_owned(), Task::Leave).await? == 0)
}

/// Does it in all rooms that it concerns; gives how many of them refused.
async fn in_each_room(rooms: Rooms, user_id: OwnedUserId, task: Task) -> Result<usize, ApiError> {
    let concerned = concerned(&rooms, &user_id, task.clone()).await?;
    let all = async move {
        let writes = concerned.into_iter().map(|room| {
            let (rooms, user_id, task) = (rooms.clone(), user_id.clone(), task.clone());
            async move {
                let done = task.run(&rooms, &room, &user_id).await;
                if let Err(error) = &done {
                    let room = &room.id;
                    tracing::warn!(%room, %error, "a room does not take a user's change");
                }
                usize::from(done.is_err())
            }
        });
        let refusals = stream::iter(writes).buffer_unordered(ROOMS_AT_ONCE);
        refusals.fold(0, |sum, refused| std::future::ready(sum + refused)).await
    };
    tokio::spawn(all).await.map_err(ApiError::internal)
}

async fn concerned(rooms: &Rooms, user_id: &UserId, task: Task) -> Result<Vec<Room>, ApiError> {
    let (store, rooms) = (rooms.store().clone(), rooms.clone());
    let range = MEMBERSHIPS.prefix(&user_id.to_string());
    let read = store.read(move |reader| {
        let mut nids = Vec::new();
        reader.for_each(&MEMBERSHIPS, &range, Direction::Forward, |key, row| {
            if task.concerns(row.membership) {
                nids.push(key.room);
            }
            ControlFlow::Continue(())
        })?;
        let found = nids.into_iter().map(|nid| rooms.room_by_nid(reader, nid));
        Ok::<Vec<_>, ApiError>(
            found.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect(),
        )
    });
    read.await
}
